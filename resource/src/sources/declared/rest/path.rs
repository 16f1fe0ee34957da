//! Path templates: `/rest/api/2/issue/{key}`. An argument is part of one segment and cannot leave it.

use std::fmt::Write;

use shared::percent::is_percent_encoded;
use unicode_normalization::UnicodeNormalization;

/// Characters that end a segment, begin another part of an address, or are taken for such by some servers.
const FORBIDDEN: [char; 6] = ['/', '\\', '%', '?', '#', ';'];

/// A path with places for arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathTemplate(Vec<Vec<Piece>>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    /// Text as it is sent.
    Fixed(String),
    Argument(String),
}

impl PathTemplate {
    /// # Errors
    /// Why it is not a path, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix('/').ok_or("it must begin with `/`")?;
        if rest.is_empty() {
            return Ok(Self(vec![Vec::new()]));
        }
        let mut segments: Vec<_> = rest.split('/').map(segment).collect::<Result<_, _>>()?;
        let last_is_open = segments.last().is_some_and(Vec::is_empty);
        let inner = segments.len() - usize::from(last_is_open);
        if segments.drain(..).take(inner).any(|segment| segment.is_empty()) {
            return Err("it has two slashes in a row; remove one".to_owned());
        }
        rest.split('/').map(segment).collect::<Result<_, _>>().map(Self)
    }

    /// The names of its arguments.
    pub(super) fn arguments(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flatten().filter_map(|piece| match piece {
            Piece::Fixed(_) => None,
            Piece::Argument(name) => Some(name.as_str()),
        })
    }

    /// The path with these values.
    ///
    /// # Errors
    /// If a value could leave its segment, in words for a model.
    pub(super) fn filled(&self, value: impl Fn(&str) -> Option<String>) -> Result<String, String> {
        let mut path = String::new();
        for segment in &self.0 {
            path.push('/');
            let begin = path.len();
            for piece in segment {
                match piece {
                    Piece::Fixed(text) => path.push_str(text),
                    Piece::Argument(name) => {
                        let value = value(name).ok_or_else(|| format!("`{name}` is required."))?;
                        fits(name, &value)?;
                        encode(&value, &mut path);
                    }
                }
            }
            if is_dots(&path[begin..]) {
                return Err("The arguments make a path segment of dots, which is not allowed.".to_owned());
            }
        }
        Ok(path)
    }
}

fn segment(text: &str) -> Result<Vec<Piece>, String> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some(open) = rest.find('{') {
        fixed(&rest[..open], &mut pieces)?;
        let close = rest[open..].find('}').ok_or("a `{` in it has no `}`")? + open;
        let name = super::argument(&rest[open..=close])
            .ok_or("between `{` and `}` stands the name of an argument: letters, digits, `_` and `-`")?;
        pieces.push(Piece::Argument(name.to_owned()));
        rest = &rest[close + 1..];
    }
    fixed(rest, &mut pieces)?;
    match &pieces[..] {
        [Piece::Fixed(text)] if is_dots(text) => {
            Err("a segment of dots leads elsewhere; write the path that is meant".to_owned())
        }
        _ => Ok(pieces),
    }
}

fn fixed(text: &str, pieces: &mut Vec<Piece>) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@%".contains(&b);
    if let Some(odd) = text.bytes().find(|b| !plain(*b)) {
        return Err(format!("`{}` cannot stand in a path; write it percent-encoded", odd.escape_ascii()));
    }
    if !is_percent_encoded(text) {
        return Err("a `%` in it is not followed by two hexadecimal digits".to_owned());
    }
    if !text.is_empty() {
        pieces.push(Piece::Fixed(text.to_owned()));
    }
    Ok(())
}

/// Whether a segment is `.` or `..`, encoded or not.
fn is_dots(segment: &str) -> bool {
    let plain = segment.to_ascii_lowercase().replace("%2e", ".");
    plain == "." || plain == ".."
}

/// Whether a value stays in its segment, also where a server decodes or normalizes more than it should.
fn fits(name: &str, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err(format!("`{name}` must not be empty."));
    }
    let odd = value.chars().chain(value.nfkc()).find(|c| c.is_control() || FORBIDDEN.contains(c));
    match odd {
        Some(odd) => Err(format!("`{name}` must not contain {odd:?}: it is part of a path.")),
        None if is_dots(&value.nfkc().collect::<String>()) => {
            Err(format!("`{name}` must not be `.` or `..`."))
        }
        None => Ok(()),
    }
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
pub(super) fn encode(text: &str, to: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            to.push(char::from(byte));
        } else {
            let _ = write!(to, "%{byte:02X}");
        }
    }
}
