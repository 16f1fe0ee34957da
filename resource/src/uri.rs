//! URIs of resources (RFC 3986). They pass verbatim; decisions are made on the canonical form, which differs by the case of
//! scheme and host only (SRC-04). A URI that two readers could take for two places is not read at all.

mod template;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub(crate) use template::UriTemplate;

/// No URI is longer.
pub(crate) const LONGEST: usize = 2048;

/// A URI in its canonical form: scheme and host in lower case, everything else as it was sent.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct CanonicalUri(Arc<str>);

/// Why a text is not used as the URI of a resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum InvalidUri {
    #[error("its URI is longer than {LONGEST} bytes")]
    TooLong,
    #[error("its URI has no scheme")]
    NoScheme,
    #[error("its URI has a character that must be percent-encoded")]
    Character,
    #[error("its URI has dot segments or percent-encodings that could be read in two ways")]
    Ambiguous,
}

impl CanonicalUri {
    /// Reads a URI. What a reader could normalize into another one is refused, and never rewritten (RFC 3986 §6.2.2).
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidUri> {
        if text.len() > LONGEST {
            return Err(InvalidUri::TooLong);
        }
        let scheme = scheme_of(text).ok_or(InvalidUri::NoScheme)?;
        let rest = &text[scheme.len()..];
        if !rest.bytes().all(is_uri_byte) {
            return Err(InvalidUri::Character);
        }
        check_percent(rest.as_bytes())?;
        let path = rest[1..].split(['?', '#']).next().unwrap_or_default();
        if path.split('/').any(|segment| segment == "." || segment == "..") {
            return Err(InvalidUri::Ambiguous);
        }
        // A name could be decoded, lowered and encoded in any order.
        if text[host_in(text, scheme.len())].contains('%') {
            return Err(InvalidUri::Ambiguous);
        }
        Ok(Self(lowered(text, scheme.len()).into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CanonicalUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What stands before the first colon, if it is a scheme (RFC 3986 §3.1).
fn scheme_of(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    (scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.bytes().all(fits)).then_some(scheme)
}

/// Reserved and unreserved characters, and `%` (RFC 3986 §2). A backslash is none: some readers take it for a slash.
fn is_uri_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte)
}

/// Each `%` must begin an upper-case encoding of something that has to be encoded, and that is not a separator or a control
/// character in disguise.
fn check_percent(bytes: &[u8]) -> Result<(), InvalidUri> {
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%') {
        let digits = bytes.get(at + 1..at + 3).ok_or(InvalidUri::Character)?;
        let encoded = data_encoding::HEXUPPER.decode(digits).map_err(|_| InvalidUri::Ambiguous)?[0];
        let unreserved = encoded.is_ascii_alphanumeric() || b"-._~".contains(&encoded);
        if unreserved || encoded.is_ascii_control() || encoded == b'/' || encoded == b'\\' {
            return Err(InvalidUri::Ambiguous);
        }
    }
    Ok(())
}

/// The text with its scheme and its host in lower case.
fn lowered(text: &str, scheme: usize) -> String {
    let mut lowered = text.to_owned();
    lowered[..scheme].make_ascii_lowercase();
    lowered[host_in(text, scheme)].make_ascii_lowercase();
    lowered
}

/// Where the host and the port are, after a scheme of this length; empty if there are none (RFC 3986 §3.2).
fn host_in(text: &str, scheme: usize) -> Range<usize> {
    if !text[scheme..].starts_with("://") {
        return scheme..scheme;
    }
    let authority = scheme + 3;
    let end = text[authority..].find(['/', '?', '#']).map_or(text.len(), |length| authority + length);
    let host = text[authority..end].rfind('@').map_or(authority, |at| authority + at + 1);
    host..end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> Result<String, InvalidUri> {
        CanonicalUri::parse(text).map(|uri| uri.to_string())
    }

    /// SRC-04: scheme and host are compared without case, everything else byte for byte.
    #[test]
    fn only_the_case_of_scheme_and_host_is_ignored() {
        for (sent, expected) in [
            ("file:///srv/Handbook.md", "file:///srv/Handbook.md"),
            ("FILE:///srv/a", "file:///srv/a"),
            ("Demo://Resource/Dynamic/1", "demo://resource/Dynamic/1"),
            ("https://Ann@Host.Example:8443/A?B#C", "https://Ann@host.example:8443/A?B#C"),
            ("urn:ISBN:0-395", "urn:ISBN:0-395"),
            ("ui://widget/main.html?x=../y", "ui://widget/main.html?x=../y"),
            ("a:b%20c%C3%A9", "a:b%20c%C3%A9"),
            ("file:///srv/...", "file:///srv/..."),
        ] {
            assert_eq!(canonical(sent).as_deref(), Ok(expected), "{sent}");
        }
    }

    /// SRC-04: a text that could be read as another URI is refused.
    #[test]
    fn a_uri_that_can_be_read_two_ways_is_refused() {
        use InvalidUri::{Ambiguous, Character, NoScheme, TooLong};
        for (sent, why) in [
            ("file:///srv/../etc/passwd", Ambiguous),
            ("file:///srv/./a", Ambiguous),
            ("file:///srv/..", Ambiguous),
            ("file:///srv/..?x", Ambiguous),
            ("file:///srv/..#x", Ambiguous),
            ("urn:..", Ambiguous),
            ("a:..", Ambiguous),
            ("file:///srv/%2e%2e/etc", Ambiguous),
            ("file:///srv/%2E%2E/etc", Ambiguous),
            ("file:///srv%2Fetc", Ambiguous),
            ("file:///srv%2fetc", Ambiguous),
            ("file:///srv%5Cetc", Ambiguous),
            ("file:///srv/%41", Ambiguous),
            ("file:///srv/%c3%a9", Ambiguous),
            ("file:///srv/%00", Ambiguous),
            ("a://h%C3%A9/x", Ambiguous),
            ("file:///srv/%", Character),
            ("file:///srv/%4", Character),
            ("file:///srv/%zz", Ambiguous),
            ("file:\\\\srv\\etc", Character),
            ("file:///srv\\..\\etc", Character),
            ("file:///a b", Character),
            ("file:///é", Character),
            ("file:///a\n", Character),
            ("file:///{x}", Character),
            ("", NoScheme),
            ("/srv/a", NoScheme),
            ("1a:b", NoScheme),
            ("a b:c", NoScheme),
            (":x", NoScheme),
            (&format!("a:{}", "x".repeat(LONGEST)), TooLong),
        ] {
            assert_eq!(canonical(sent), Err(why), "{sent}");
        }
    }

    proptest! {
        /// SRC-04: a canonical form is its own, and equal to what was sent but for case.
        #[test]
        fn a_canonical_form_is_stable(text in "[a-zA-Z]{1,4}:(//[A-Za-z@.:]{0,8})?[a-zA-Z0-9/.%?#]{0,16}") {
            if let Ok(canonical) = canonical(&text) {
                prop_assert!(canonical.eq_ignore_ascii_case(&text));
                prop_assert_eq!(super::CanonicalUri::parse(&canonical).unwrap().to_string(), canonical);
            }
        }
    }
}
