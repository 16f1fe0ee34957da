//! URI templates (RFC 6570), read backwards: which URIs a source means by one. Matching never goes back, so it costs at most
//! the length of the URI times that of the template.

use std::ops::Range;

use super::{CanonicalUri, LONGEST, lowered, scheme_of};

/// How many expressions one template may have.
const MOST_EXPRESSIONS: usize = 16;

/// A template that was understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct UriTemplate {
    text: String,
    /// What every URI of it begins with, in canonical form.
    begins: String,
    rest: Vec<Part>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Literal(String),
    Expression(Expression),
}

/// What an expression can become (RFC 6570 §3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Expression {
    /// What its value begins with, if it is not empty.
    prefix: Option<u8>,
    /// Bytes that its value does not contain, because they would be encoded.
    never: &'static [u8],
}

/// Why a text is not used as a URI template.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum InvalidTemplate {
    #[error(
        "its `uriTemplate` is longer than {LONGEST} bytes or has more than {MOST_EXPRESSIONS} expressions"
    )]
    TooLong,
    /// It would claim the URIs of every source.
    #[error("its `uriTemplate` does not begin with a scheme of its own")]
    NoScheme,
    #[error("its `uriTemplate` is not an RFC 6570 template")]
    Malformed,
}

impl UriTemplate {
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        if text.len() > LONGEST {
            return Err(InvalidTemplate::TooLong);
        }
        let expressions = expressions(text)?;
        let first = expressions.first().map_or(text.len(), |range| range.start);
        let scheme = scheme_of(&text[..first]).ok_or(InvalidTemplate::NoScheme)?.len();
        let mut rest = Vec::new();
        let mut at = first;
        for expression in &expressions {
            rest.push(Part::Literal(text[at..expression.start].to_owned()));
            rest.push(Part::Expression(Expression::parse(&text[expression.start + 1..expression.end - 1])?));
            at = expression.end;
        }
        rest.push(Part::Literal(text[at..].to_owned()));
        rest.retain(|part| *part != Part::Literal(String::new()));
        Ok(Self { text: text.to_owned(), begins: lowered(&text[..first], scheme), rest })
    }

    /// The template as it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether some values of its variables make this URI.
    pub(crate) fn makes(&self, uri: &CanonicalUri) -> bool {
        let Some(rest) = uri.as_str().strip_prefix(&self.begins) else { return false };
        let rest = rest.as_bytes();
        // All places up to which the parts so far can reach.
        let mut reached = vec![false; rest.len() + 1];
        reached[0] = true;
        for part in &self.rest {
            reached = part.follow(rest, &reached);
        }
        reached[rest.len()]
    }
}

impl Part {
    /// From each place that is reached, the places that are reached after this part.
    fn follow(&self, text: &[u8], reached: &[bool]) -> Vec<bool> {
        let mut after = vec![false; reached.len()];
        match self {
            Self::Literal(literal) => {
                for (at, _) in reached.iter().enumerate().filter(|(_, reached)| **reached) {
                    if text[at..].starts_with(literal.as_bytes()) {
                        after[at + literal.len()] = true;
                    }
                }
            }
            Self::Expression(Expression { prefix, never }) => {
                // Whether a value may go on at this place.
                let mut within = false;
                for at in 0..reached.len() {
                    after[at] |= reached[at] || within;
                    let Some(byte) = text.get(at) else { break };
                    let begins = reached[at] && prefix.is_none_or(|prefix| prefix == *byte);
                    let is_prefix = begins && prefix.is_some();
                    within = is_prefix || (begins || within) && !never.contains(byte);
                }
            }
        }
        after
    }
}

/// Where its expressions are, with their braces.
fn expressions(text: &str) -> Result<Vec<Range<usize>>, InvalidTemplate> {
    let mut found = Vec::new();
    let mut open = None;
    for (at, byte) in text.bytes().enumerate() {
        match (byte, open) {
            (b'{', None) => open = Some(at),
            (b'}', Some(start)) => {
                found.push(start..at + 1);
                open = None;
            }
            (b'{', Some(_)) | (b'}', None) => return Err(InvalidTemplate::Malformed),
            _ if !byte.is_ascii_graphic() || byte == b'\\' => return Err(InvalidTemplate::Malformed),
            _ => {}
        }
    }
    match (open, found.len()) {
        (Some(_), _) => Err(InvalidTemplate::Malformed),
        (None, count) if count > MOST_EXPRESSIONS => Err(InvalidTemplate::TooLong),
        (None, _) => Ok(found),
    }
}

impl Expression {
    /// The values of simple variables hold no separator, because separators in them are encoded.
    fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        let operator = text.bytes().next().filter(|first| b"+#./;?&".contains(first));
        let variables = if operator.is_some() { &text[1..] } else { text };
        if !variables.split(',').all(is_variable) {
            return Err(InvalidTemplate::Malformed);
        }
        let (prefix, never): (_, &'static [u8]) = match operator {
            Some(b'+') => (None, b""),
            Some(b'#') => (operator, b""),
            Some(b'/') => (operator, b"?#"),
            Some(b'?' | b'&') => (operator, b"#"),
            Some(prefix) => (Some(prefix), b"/?#"),
            None => (None, b"/?#"),
        };
        Ok(Self { prefix, never })
    }
}

/// A name, which may be cut or exploded (RFC 6570 §2.3, §2.4).
fn is_variable(text: &str) -> bool {
    let name = text.strip_suffix('*').unwrap_or(text);
    let name = name.split_once(':').map_or(name, |(name, _)| name);
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.%-".contains(&b);
    !name.is_empty() && name.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn makes(template: &str, uri: &str) -> bool {
        UriTemplate::parse(template).unwrap().makes(&CanonicalUri::parse(uri).unwrap())
    }

    /// SRC-04: a simple variable is one segment; only an operator lets more in.
    #[test]
    fn a_template_matches_what_it_can_make() {
        for (template, uri) in [
            ("demo://resource/dynamic/text/{resourceId}", "demo://resource/dynamic/text/7"),
            ("Demo://Resource/{id}", "DEMO://rESOURCE/A"),
            ("file:///{+path}", "file:///a/b/c.txt"),
            ("docs:///{+path}{#heading}", "docs:///a/b.md#Over%20there"),
            ("docs:///{+path}{#heading}", "docs:///a/b.md"),
            ("db://t{/schema,table}", "db://t/a/b"),
            ("q://s{?a,b}", "q://s?a=1&b=2"),
            ("q://s?x=1{&a}", "q://s?x=1&a=2"),
            ("a:{x}-{y}", "a:1-2"),
            ("a:b", "a:b"),
        ] {
            assert!(makes(template, uri), "{template} {uri}");
        }
        for (template, uri) in [
            ("demo://resource/dynamic/text/{resourceId}", "demo://resource/dynamic/text/7/8"),
            ("demo://resource/dynamic/text/{resourceId}", "demo://resource/dynamic/blob/7"),
            ("demo://resource/{id}", "demo://resource/1?x"),
            ("demo://resource/{id}", "demo://resource/1#x"),
            ("demo://resource/{id}.txt", "demo://resource/1xtxt"),
            ("demo://a/{id}", "xdemo://a/1"),
            ("db://t{/schema}", "db://tx/a"),
            ("a:b", "a:b/"),
        ] {
            assert!(!makes(template, uri), "{template} {uri}");
        }
    }

    /// SRC-04: a template that would claim every URI, or is none, is not used.
    #[test]
    fn a_bad_template_is_refused() {
        use InvalidTemplate::{Malformed, NoScheme, TooLong};
        let many = format!("a:{}", "{x}".repeat(MOST_EXPRESSIONS + 1));
        let long = format!("a:{}", "x".repeat(LONGEST));
        for (text, why) in [
            ("{+uri}", NoScheme),
            ("{scheme}://x", NoScheme),
            ("a{x}:b", NoScheme),
            ("/a/{b}", NoScheme),
            ("", NoScheme),
            ("a:{", Malformed),
            ("a:}", Malformed),
            ("a:{{x}}", Malformed),
            ("a:{}", Malformed),
            ("a:{x y}", Malformed),
            ("a:{|x}", Malformed),
            ("a:{x,}", Malformed),
            ("a:é", Malformed),
            ("a:\\{x}", Malformed),
            (&many, TooLong),
            (&long, TooLong),
        ] {
            assert_eq!(UriTemplate::parse(text).map(|_| ()), Err(why), "{text}");
        }
    }
}
