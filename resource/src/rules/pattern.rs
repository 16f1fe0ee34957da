//! The pattern of a rule: one name, or a glob (POL-01).

use std::cmp::Ordering;
use std::fmt;

use globset::{GlobBuilder, GlobMatcher};

/// The longest pattern; names on the wire have at most 64 characters (MCP-08).
const LONGEST: usize = 128;
/// The same for patterns that may be about resources, which have URIs in their names.
const LONGEST_OF_RESOURCE: usize = 2048;

/// An exact name, or a glob in which `*` stands for any characters and `?` for one.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    /// `None` for an exact name.
    glob: Option<GlobMatcher>,
}

/// The text is not a pattern.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a name has letters, digits, `_` and `-`, and may have `*` for any characters and `?` for one; 128 at most"
)]
pub struct InvalidPattern;

/// The text is not a pattern for resources.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a resource is called SOURCE_URI, without spaces, and may have `*` for any characters and `?` for one; 2048 at most"
)]
pub struct InvalidResourcePattern;

/// How specific a pattern is. An exact name is more specific than a glob; of two globs, the one with more
/// literal characters is; if equal, the one with fewer wildcards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Specificity {
    Glob { literals: usize, single: usize },
    Exact,
}

impl Pattern {
    /// Parses and compiles a pattern.
    ///
    /// # Errors
    /// If it has a character that no name has.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"_-*?".contains(&b);
        if text.is_empty() || text.len() > LONGEST || !text.bytes().all(fits) {
            return Err(InvalidPattern);
        }
        Self::compile(text)
    }

    /// Reads a pattern that may be about resources, which are called `<source>_<URI>`.
    ///
    /// # Errors
    /// If it has a character that no URI and no template has.
    pub fn parse_for_resources(text: &str) -> Result<Self, InvalidResourcePattern> {
        let fits = |b: u8| b.is_ascii_graphic() && b != b'\\';
        if text.is_empty() || text.len() > LONGEST_OF_RESOURCE || !text.bytes().all(fits) {
            return Err(InvalidResourcePattern);
        }
        Self::compile(text).map_err(|_| InvalidResourcePattern)
    }

    fn compile(text: &str) -> Result<Self, InvalidPattern> {
        if !text.contains(['*', '?']) {
            return Ok(Self::exact(text));
        }
        // Brackets and braces are what they are: a URI template has them.
        let mut escaped = String::with_capacity(text.len());
        for c in text.chars() {
            if "[]{}!,".contains(c) {
                escaped.push('\\');
            }
            escaped.push(c);
        }
        let glob = GlobBuilder::new(&escaped).backslash_escape(true).build().map_err(|_| InvalidPattern)?;
        Ok(Self { text: text.to_owned(), glob: Some(glob.compile_matcher()) })
    }

    /// A pattern that matches exactly this name.
    pub(crate) fn exact(name: &str) -> Self {
        Self { text: name.to_owned(), glob: None }
    }

    /// Whether it is an exact name.
    pub fn is_exact(&self) -> bool {
        self.glob.is_none()
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it matches this name.
    pub fn matches(&self, name: &str) -> bool {
        self.glob.as_ref().map_or_else(|| self.text == name, |glob| glob.is_match(name))
    }

    pub(super) fn specificity(&self) -> Specificity {
        if self.is_exact() {
            return Specificity::Exact;
        }
        let single = self.text.matches('?').count();
        let literals = self.text.len() - single - self.text.matches('*').count();
        Specificity::Glob { literals, single }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl PartialOrd for Pattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pattern {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
