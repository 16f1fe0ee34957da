//! Parameters of OAuth requests (RFC 6749 §3.1, §3.2). Parsing is strict, repeated names stay visible, and
//! their number is limited (RATE-05).

use http::{HeaderMap, header};
use percent_encoding::percent_decode_str;
use shared::ResourceUri;
use shared::percent::is_percent_encoded;
use shared::work::{self, Work};

use crate::error::{Code, OAuthError};

/// The most parameters of a form or query (RATE-05). Code that compares each parameter with all others depends
/// on this limit.
const MOST: usize = 64;

/// Whether a body has this media type; parameters such as `charset` are ignored.
pub(crate) fn has_media_type(headers: &HeaderMap, expected: &str) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    // The header has one value (RFC 9110 §8.3); of two, readers could take either.
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let content_type = value.to_str().ok();
    let essence = content_type.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(expected))
}

/// The one parameter that may be repeated: equal values count once (AUTHZ-03; RFC 8707 §2).
const RESOURCE: &str = "resource";

/// Decodes one form-encoded part.
///
/// # Errors
/// If it is not UTF-8, or has a `%` without two hexadecimal digits, which two parsers could read differently.
pub(crate) fn decode(part: &str) -> Result<String, Unreadable> {
    if memchr::memchr2(b'+', b'%', part.as_bytes()).is_none() {
        return Ok(part.to_owned());
    }
    if !is_percent_encoded(part) {
        return Err(Unreadable::Malformed);
    }
    let spaced = part.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().map(String::from).map_err(|_| Unreadable::Malformed)
}

/// Reads the form of a request to an endpoint that clients call; nothing but a form is accepted (TOKEN-01,
/// TOKEN-04).
///
/// # Errors
/// `invalid_request`, with what is wrong.
pub(crate) fn read(query: Option<&str>, headers: &HeaderMap, body: &[u8]) -> Result<Params, OAuthError> {
    let bad = |description| Err(OAuthError::new(Code::InvalidRequest, description));
    if query.is_some_and(|query| !query.is_empty()) {
        return bad("send parameters in the body, not in the URL");
    }
    if !has_media_type(headers, "application/x-www-form-urlencoded") {
        return bad("send application/x-www-form-urlencoded");
    }
    let params = match Params::of_body(body) {
        Ok(params) => params,
        Err(Unreadable::Malformed) => return bad("the body is not form-encoded UTF-8"),
        Err(Unreadable::TooMany) => return bad("the body has more than 64 parameters"),
    };
    match params.repeated() {
        Some(RESOURCE) => {
            return Err(OAuthError::new(Code::InvalidTarget, "only one resource parameter is allowed"));
        }
        Some(_) => return bad("a parameter is repeated"),
        None => {}
    }
    if params.has_control_characters() {
        return bad("a parameter contains a control character");
    }
    Ok(params)
}

/// The text before this ASCII character, and the text after it if it occurs.
fn cut(text: &str, at: u8) -> (&str, Option<&str>) {
    match memchr::memchr(at, text.as_bytes()) {
        Some(found) => (&text[..found], Some(&text[found + 1..])),
        None => (text, None),
    }
}

/// The parameters of one request, in order.
#[derive(Clone, Default)]
pub(crate) struct Params(Vec<(String, String)>);

/// Why parameters were not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("the parameters are not form-encoded UTF-8")]
    Malformed,
    #[error("there are too many parameters")]
    TooMany,
}

/// Prints names only: values may be codes, tokens and secrets (HTTP-12).
impl std::fmt::Debug for Params {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Params {
    /// Parses `application/x-www-form-urlencoded`.
    ///
    /// # Errors
    /// If a name or value is not UTF-8 (TOKEN-04), or there are too many parameters (RATE-05).
    pub(crate) fn parse(text: &str) -> Result<Self, Unreadable> {
        Self::parse_up_to(MOST, text)
    }

    /// Parses a body.
    ///
    /// # Errors
    /// As [`Params::parse`].
    pub(crate) fn of_body(body: &[u8]) -> Result<Self, Unreadable> {
        Self::parse(std::str::from_utf8(body).map_err(|_| Unreadable::Malformed)?)
    }

    /// Parses a form with one parameter for each ticked scope.
    ///
    /// # Errors
    /// As [`Params::parse`].
    pub(crate) fn of_choice(offered: usize, body: &[u8]) -> Result<Self, Unreadable> {
        Self::parse_up_to(MOST + offered, std::str::from_utf8(body).map_err(|_| Unreadable::Malformed)?)
    }

    /// Stops at the first parameter beyond the limit; the rest is not decoded.
    fn parse_up_to(most: usize, text: &str) -> Result<Self, Unreadable> {
        let (mut params, mut rest) = (Vec::new(), Some(text));
        while let Some(text) = rest {
            let (pair, after) = cut(text, b'&');
            if !pair.is_empty() {
                if params.len() == most {
                    return Err(Unreadable::TooMany);
                }
                work::done(Work::Parameter);
                let (name, value) = cut(pair, b'=');
                params.push((decode(name)?, decode(value.unwrap_or_default())?));
            }
            rest = after;
        }
        let mut params = Self(params);
        params.merge_resources();
        Ok(params)
    }

    /// Removes repeated equal resources and empty ones: an empty value counts as absent.
    fn merge_resources(&mut self) {
        let mut kept: Vec<ResourceParameter> = Vec::new();
        self.0.retain(|(name, value)| {
            if name != RESOURCE {
                return true;
            }
            let named = ResourceParameter::of(value);
            let is_new = !value.is_empty() && !kept.contains(&named);
            kept.extend(is_new.then_some(named));
            is_new
        });
    }

    /// The parameters, encoded again.
    pub(crate) fn encoded(&self) -> String {
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.0).finish()
    }

    /// The value of a parameter. An empty one counts as absent (AUTHZ-03, TOKEN-04).
    pub(crate) fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next().filter(|value| !value.is_empty())
    }

    /// Every value of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Whether a parameter occurs more than once.
    pub(crate) fn is_repeated(&self, name: &str) -> bool {
        self.all(name).nth(1).is_some()
    }

    /// The first parameter that occurs more than once.
    pub(crate) fn repeated(&self) -> Option<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).find(|name| self.is_repeated(name))
    }

    /// Whether any name or value holds a control character.
    pub(crate) fn has_control_characters(&self) -> bool {
        self.0.iter().any(|(name, value)| has_control_character(name) || has_control_character(value))
    }
}

/// The resource in a `resource` parameter: two spellings of one resource are equal (AUTHZ-14).
#[derive(PartialEq)]
enum ResourceParameter {
    Resource(ResourceUri),
    Nothing(String),
}

impl ResourceParameter {
    fn of(value: &str) -> Self {
        ResourceUri::parse(value).map_or_else(|_| Self::Nothing(value.to_owned()), Self::Resource)
    }
}

fn has_control_character(text: &str) -> bool {
    // Nearly all input is ASCII, and checking ASCII is fast.
    if text.is_ascii() {
        return text.bytes().fold(false, |found, byte| found | byte.is_ascii_control());
    }
    text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// TOKEN-04: repeated, empty and malformed parameters.
    #[test]
    fn repeated_empty_and_broken_parameters() {
        let params = Params::parse("a=1&b=&a=2&c=x+y%26").unwrap();
        assert_eq!(params.repeated(), Some("a"));
        assert_eq!(params.get("b"), None);
        assert_eq!(params.get("c"), Some("x y&"));
        for broken in ["a=%ff", "a=%zz", "%zz=a", "a=%", "a=%2", "a=b%2g&c=d", "a=%%41", "a=%u0041", "a=+%"] {
            assert_eq!(Params::parse(broken).unwrap_err(), Unreadable::Malformed, "{broken}");
        }
        for controlled in ["a=%00", "a=x%7Fy", "%1f=x", "a=\u{85}", "a=\u{e9}\u{1}"] {
            assert!(Params::parse(controlled).unwrap().has_control_characters(), "{controlled}");
        }
        assert!(!Params::parse("a=x%20~&b=\u{e9}").unwrap().has_control_characters());
    }

    /// AUTHZ-03: two spellings of one resource are equal; an empty resource counts as absent.
    #[test]
    fn equal_resources_count_once() {
        let resources = |text: &str| {
            let params = Params::parse(text).unwrap();
            let all: Vec<_> = params.all("resource").map(str::to_owned).collect();
            (all, params.repeated().map(str::to_owned))
        };
        let one = |text: &str| (vec![text.to_owned()], None);
        for text in [
            "resource=https://a.example/mcp",
            "resource=https://a.example/mcp&x=1&resource=https%3A%2F%2Fa.example/mcp",
            "resource=https://a.example/mcp&resource=HTTPS://A.example/mcp&resource=https://a.example/mcp",
            "resource=&resource=https://a.example/mcp&resource=",
        ] {
            assert_eq!(resources(text), one("https://a.example/mcp"), "{text}");
        }
        assert_eq!(resources("resource=x&resource=x"), one("x"));
        assert_eq!(resources("resource=&resource="), (vec![], None));
        for text in [
            "resource=https://a.example/mcp&resource=https://b.example/mcp",
            "resource=https://a.example/mcp&resource=https://a.example/mcp&resource=https://a.example/other",
            "resource=x&resource=X",
        ] {
            assert_eq!(resources(text).1.as_deref(), Some("resource"), "{text}");
        }
    }

    /// RATE-05: parsing stops at the first parameter beyond the limit; empty pieces between separators do not
    /// count.
    #[test]
    fn the_number_of_parameters_is_limited() {
        let form = |count: usize| (0..count).map(|i| format!("{i}=")).collect::<Vec<_>>().join("&&");
        assert_eq!(Params::parse(&form(MOST)).unwrap().0.len(), MOST);
        let before = work::so_far(Work::Parameter);
        assert_eq!(Params::parse(&form(5200)).unwrap_err(), Unreadable::TooMany);
        assert_eq!(work::so_far(Work::Parameter) - before, MOST as u64);
        assert_eq!(Params::of_choice(3, form(MOST + 3).as_bytes()).unwrap().0.len(), MOST + 3);
        assert_eq!(Params::of_choice(3, form(MOST + 4).as_bytes()).unwrap_err(), Unreadable::TooMany);
    }

    proptest! {
        #[test]
        fn encoded_parameters_are_decoded(pairs in proptest::collection::vec(("[a-z]{1,8}", "\\PC{0,20}"), 0..5)) {
            let text = Params(pairs.clone()).encoded();
            prop_assert_eq!(Params::parse(&text).unwrap().0, pairs);
        }
    }
}
