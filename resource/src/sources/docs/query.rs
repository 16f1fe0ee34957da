//! Turns a typed query into a valid FTS5 expression.
//!
//! Typed text is never an operator: every piece becomes a quoted string, without quotes, control characters or
//! NUL inside, and only pieces with a letter or digit are used.

use super::words::{self, Run};

/// The most characters of a query, which bounds its cost.
const MAX_CHARS: usize = 512;
/// How many words and pairs are looked for. Each is compared with every place where the one before it stands, so this
/// bounds what one section can cost.
const MAX_TERMS: usize = 32;

/// A parsed query.
#[derive(Debug, Default)]
pub(super) struct Query {
    terms: Vec<Term>,
}

#[derive(Debug)]
enum Term {
    /// A piece between spaces; `redirect_uri` is one, and its words must be adjacent.
    Piece(String),
    /// A run of characters that are indexed in pairs.
    Run(String),
}

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let text: String = text.chars().take(MAX_CHARS).collect();
        // Replace quotes after normalisation, which turns compatibility forms into quotes.
        let text = words::normal(&text).replace(|c: char| c == '"' || c.is_control(), " ");
        let mut room = MAX_TERMS;
        let terms = text
            .split_whitespace()
            .flat_map(words::runs)
            .filter_map(|run| match run {
                Run::Paired(run) => Some(Term::Run(run.to_owned())),
                Run::Other(piece) if piece.contains(char::is_alphanumeric) => {
                    Some(Term::Piece(piece.to_owned()))
                }
                Run::Other(_) => None,
            })
            .map_while(|term| term.within(&mut room))
            .collect();
        Self { terms }
    }

    /// The expression that requires every term.
    pub(super) fn all(&self) -> Option<String> {
        let last = self.terms.len().checked_sub(1)?;
        let parts: Vec<String> =
            self.terms.iter().enumerate().map(|(i, term)| term.whole(i == last)).collect();
        Some(parts.join(" AND "))
    }

    /// The expression that requires any term; `None` if it would be the same.
    pub(super) fn any(&self) -> Option<String> {
        let words = self.words();
        let (last, others) = words.split_last()?;
        if others.is_empty() {
            return None;
        }
        let mut parts: Vec<String> = others.iter().map(|word| quoted(word)).collect();
        parts.push(last_word(last));
        Some(parts.join(" OR "))
    }

    /// The distinct words and pairs.
    fn words(&self) -> Vec<&str> {
        let mut words = Vec::new();
        for term in &self.terms {
            match term {
                Term::Piece(piece) => {
                    for word in piece.split(|c: char| !words::is_word(c)).filter(|w| !w.is_empty()) {
                        if !words.contains(&word) {
                            words.push(word);
                        }
                    }
                }
                Term::Run(run) => {
                    for pair in words::pairs(run) {
                        if !words.contains(&pair) {
                            words.push(pair);
                        }
                    }
                }
            }
        }
        words.truncate(MAX_TERMS);
        words
    }

    /// What a snippet marks: words and pairs, split like its text.
    pub(super) fn needles(&self) -> Vec<Needle> {
        let words = self.words();
        let count = words.len();
        words
            .into_iter()
            .enumerate()
            .map(|(i, word)| Needle {
                tokens: words::tokens(word).into_iter().map(|t| t.folded).collect(),
                prefix: i + 1 == count && is_prefix(word),
            })
            .filter(|needle| !needle.tokens.is_empty())
            .collect()
    }
}

/// Adjacent words; the last one may be a prefix.
#[derive(Debug)]
pub(super) struct Needle {
    pub tokens: Vec<String>,
    pub prefix: bool,
}

impl Term {
    /// As much of it as there is room for; `None` if there is none.
    fn within(self, room: &mut usize) -> Option<Self> {
        if *room == 0 {
            return None;
        }
        let (taken, term) = match self {
            Self::Piece(piece) => {
                let (first, count) = first_words(&piece, *room);
                (count, Self::Piece(first.to_owned()))
            }
            Self::Run(run) => {
                let count = words::pairs(&run).count().min(*room);
                (count, Self::Run(run.chars().take(count + 1).collect()))
            }
        };
        *room -= taken;
        Some(term)
    }

    fn whole(&self, last: bool) -> String {
        match self {
            Self::Piece(piece) if last => last_word(piece),
            Self::Piece(piece) => quoted(piece),
            // A single character is indexed as the beginning of a pair.
            Self::Run(run) if run.chars().nth(1).is_none() => format!("{}*", quoted(run)),
            Self::Run(run) => quoted(&words::pairs(run).collect::<Vec<_>>().join(" ")),
        }
    }
}

/// The last word may be incomplete; a full match counts twice.
fn last_word(word: &str) -> String {
    let quoted = quoted(word);
    if is_prefix(word) { format!("({quoted} OR {quoted}*)") } else { quoted }
}

/// Whether the word may be a prefix. One letter begins too many words; a paired character is indexed as the
/// beginning of a pair.
fn is_prefix(word: &str) -> bool {
    let mut end = word.chars().rev();
    match end.next() {
        Some(c) if words::is_paired(c) => end.next().is_none(),
        Some(c) if words::is_word(c) => end.next().is_some_and(words::is_word),
        _ => false,
    }
}

/// The beginning of a piece with at most this many words, and how many there are in it.
fn first_words(piece: &str, most: usize) -> (&str, usize) {
    let (mut count, mut inside) = (0, false);
    for (at, c) in piece.char_indices() {
        let is_word = words::is_word(c);
        if is_word && !inside {
            if count == most {
                return (piece[..at].trim_end_matches(|c| !words::is_word(c)), count);
            }
            count += 1;
        }
        inside = is_word;
    }
    (piece, count)
}

/// An FTS5 string; there is no quote to escape.
fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Option<String> {
        Query::parse(text).all()
    }

    #[test]
    fn operators_are_words_and_quotes_are_spaces() {
        assert_eq!(all("a AND b").unwrap(), r#""a" AND "AND" AND "b""#);
        assert_eq!(all(r#"path:x" OR NEAR("#).unwrap(), r#""path:x" AND "OR" AND "NEAR(""#);
        assert_eq!(all("nul\0l lin").unwrap(), r#""nul" AND "l" AND ("lin" OR "lin"*)"#);
    }

    #[test]
    fn full_width_quotes_are_removed_from_a_query() {
        assert_eq!(all("a\u{ff02}b").unwrap(), r#""a" AND "b""#);
    }

    #[test]
    fn a_query_without_words_matches_nothing() {
        for text in ["", "   ", "\"", "* ( ) :", "—", "\0"] {
            assert!(all(text).is_none(), "{text:?}");
            assert!(Query::parse(text).any().is_none(), "{text:?}");
        }
    }

    /// LIMIT-04: a query of any length looks for at most this many words and pairs.
    #[test]
    fn a_long_query_is_cut() {
        for text in
            ["漢".repeat(510), "a_".repeat(250), "a ".repeat(250), "漢 a_a".repeat(80), "a漢漢".repeat(170)]
        {
            let query = Query::parse(&text);
            let terms = query.terms.iter().map(|term| match term {
                Term::Piece(piece) => {
                    piece.split(|c: char| !words::is_word(c)).filter(|w| !w.is_empty()).count()
                }
                Term::Run(run) => words::pairs(run).count(),
            });
            assert_eq!(terms.sum::<usize>(), MAX_TERMS, "{text}");
            assert!(query.any().is_none_or(|any| any.matches(" OR ").count() <= MAX_TERMS), "{text}");
        }
        let words: Vec<_> = (0..40).map(|n| format!("w{n}")).collect();
        assert!(all(&words.join(" ")).unwrap().ends_with(r#"AND ("w31" OR "w31"*)"#));
        assert!(all(&words.join("_")).unwrap().ends_with("w31\"*)"), "{:?}", all(&words.join("_")));
        assert_eq!(all(&words[..32].join("_")).unwrap(), all(&words.join("_")).unwrap());
    }

    #[test]
    fn cjk_is_looked_for_by_pairs() {
        assert_eq!(all("東京都").unwrap(), r#""東京 京都""#);
        assert_eq!(all("都").unwrap(), r#""都"*"#);
        assert_eq!(Query::parse("東京都 の").any().unwrap(), r#""東京" OR "京都" OR ("の" OR "の"*)"#);
    }
}
