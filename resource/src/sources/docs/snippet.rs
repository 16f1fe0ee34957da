//! A snippet: some words around a match, as they were written.

use super::query::Needle;
use super::words::{self, Token};

/// The most characters of a snippet, including marks and ellipses.
const MAX: usize = 300;
/// The characters of text before the first match.
const BEFORE: usize = 60;

/// Longer texts are looked through in blocks of about this many bytes.
const BLOCK: usize = 64 * 1024;
/// How many blocks are looked through for a match. What bounds them bounds what one hit costs.
const MOST_BLOCKS: usize = 16;

/// The part of `body` in which most of what was looked for occurs, marked with `**`. Of a long text it is the first block
/// with a match.
pub(super) fn snippet(body: &str, needles: &[Needle]) -> String {
    let (mut from, first) = (0, end_of_block(body));
    let mut to = first;
    for _ in 0..MOST_BLOCKS {
        let block = &body[from..to];
        let tokens = words::tokens(block);
        let marks = marks(&tokens, needles);
        if !marks.is_empty() {
            let start = beginning(block, &tokens, best(&tokens, &marks));
            return render(block, start, from > 0, &tokens, &marks);
        }
        if to == body.len() {
            break;
        }
        (from, to) = (to, to + end_of_block(&body[to..]));
    }
    render(&body[..first], 0, false, &words::tokens(&body[..first]), &[])
}

/// Where the first block of a text ends: between words, if there is such a place.
fn end_of_block(text: &str) -> usize {
    if text.len() <= BLOCK {
        return text.len();
    }
    let most = text.floor_char_boundary(BLOCK);
    text[..most].rfind(char::is_whitespace).filter(|at| *at > 0).unwrap_or(most)
}

/// A match: the tokens from `first` to `last`, and the needle.
struct Match {
    first: usize,
    last: usize,
    needle: usize,
}

fn marks(tokens: &[Token], needles: &[Needle]) -> Vec<Match> {
    let mut marks = Vec::new();
    for first in 0..tokens.len() {
        for (index, needle) in needles.iter().enumerate() {
            let count = needle.tokens.len();
            let Some(window) = tokens.get(first..first + count) else { continue };
            let matches = window.iter().zip(&needle.tokens).enumerate().all(|(i, (token, wanted))| {
                token.folded == *wanted
                    || (needle.prefix && i + 1 == count && token.folded.starts_with(wanted.as_str()))
            });
            if matches {
                marks.push(Match { first, last: first + count - 1, needle: index });
            }
        }
    }
    marks
}

/// The start of the first window with the most distinct needles, in bytes.
fn best(tokens: &[Token], marks: &[Match]) -> usize {
    let mut best = (0, 0);
    for (i, mark) in marks.iter().enumerate() {
        let from = tokens[mark.first].start;
        let mut seen: Vec<usize> = Vec::new();
        for other in &marks[i..] {
            // Bytes instead of characters are exact enough here.
            if tokens[other.last].end > from + MAX - BEFORE {
                break;
            }
            if !seen.contains(&other.needle) {
                seen.push(other.needle);
            }
        }
        if seen.len() > best.0 {
            best = (seen.len(), from);
        }
    }
    best.1
}

/// Some characters before the match, at the beginning of a word.
fn beginning(body: &str, tokens: &[Token], at: usize) -> usize {
    let Some((earliest, _)) = body[..at].char_indices().rev().nth(BEFORE - 1) else { return 0 };
    tokens.iter().map(|t| t.start).find(|start| (earliest..=at).contains(start)).unwrap_or(at)
}

fn render(body: &str, start: usize, follows: bool, tokens: &[Token], marks: &[Match]) -> String {
    let mut out = Snippet { text: String::new(), room: MAX - 2 };
    if start > 0 || follows {
        out.text.push('…');
    }
    let mut at = start;
    let mut i = tokens.partition_point(|t| t.start < start);
    while let Some(token) = tokens.get(i) {
        let marked_to = marks_from(marks, i);
        let last = marked_to.unwrap_or(i);
        let end = tokens[last].end;
        let between = spaced(&body[at..token.start]);
        let words = spaced(&body[token.start..end]);
        let whole = if marked_to.is_some() { format!("{between}**{words}**") } else { between + &words };
        if !out.push(&whole) {
            if out.text.chars().count() <= 1 {
                // For one very long word, show a part of it.
                out.text.extend(words.chars().take(MAX - 2));
            }
            out.text.push('…');
            return out.text;
        }
        at = end;
        i = last + 1;
    }
    if !out.push(spaced(&body[at..]).trim_end()) {
        out.text.push('…');
    }
    out.text.trim_start().to_owned()
}

/// The last token of the overlapping marks that begin at this token: pairs of CJK characters form one mark.
fn marks_from(marks: &[Match], first: usize) -> Option<usize> {
    let from = marks.partition_point(|m| m.first < first);
    let mut last = None;
    for mark in &marks[from..] {
        match last {
            None if mark.first != first => return None,
            Some(end) if mark.first > end => break,
            _ => last = last.max(Some(mark.last)),
        }
    }
    last
}

struct Snippet {
    text: String,
    room: usize,
}

impl Snippet {
    fn push(&mut self, text: &str) -> bool {
        let count = text.chars().count();
        if count > self.room {
            return false;
        }
        self.room -= count;
        self.text.push_str(text);
        true
    }
}

/// Replaces any white space by one space.
fn spaced(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let c = if c.is_whitespace() || c.is_control() { ' ' } else { c };
        if c != ' ' || !out.ends_with(' ') {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::query::Query;
    use super::*;

    fn snip(body: &str, query: &str) -> String {
        snippet(body, &Query::parse(query).needles())
    }

    #[test]
    fn words_are_marked_as_they_were_written() {
        assert_eq!(
            snip("An Überprüfung of\n\nthe thing", "uberprufung thing"),
            "An **Überprüfung** of the **thing**"
        );
        assert_eq!(snip("installing it", "inst"), "**installing** it");
        assert_eq!(snip("今日は東京都に行く", "東京都"), "今日は**東京都**に行く");
        assert_eq!(snip("nothing here", "absent"), "nothing here");
    }

    #[test]
    fn a_long_text_is_cut_between_words_around_the_match() {
        let body = format!("{} needle {}", "before ".repeat(200), "after ".repeat(200));
        let found = snip(&body, "needle");
        assert!(found.starts_with("…before") && found.contains("**needle**"), "{found}");
        assert!(found.ends_with("after…"), "{found}");
        assert!(found.chars().count() <= MAX);
    }

    /// LIMIT-04: a text of megabytes is looked through block by block, and not to its end.
    #[test]
    fn a_match_deep_in_a_long_text_is_shown() {
        let before = "before ".repeat(BLOCK / 4);
        let found = snip(&format!("{before}needle after"), "needle");
        assert!(found.starts_with('…') && found.ends_with("**needle** after"), "{found}");
        let found = snip(&format!("{}needle", "水".repeat(BLOCK)), "needle");
        assert!(found.starts_with('…') && found.ends_with("**needle**"), "{found}");
        let beyond = "before ".repeat(BLOCK * (MOST_BLOCKS + 1) / 7 + 1);
        let found = snip(&format!("{beyond}needle"), "needle");
        assert!(found.starts_with("before before") && !found.contains("needle"), "{found}");
    }

    #[test]
    fn an_endless_word_is_cut_short() {
        let found = snip(&"x".repeat(5000), "y");
        assert!(found.chars().count() <= MAX && found.ends_with("x…"), "{found}");
        let found = snip(&"水".repeat(5000), "水水");
        assert!(found.chars().count() <= MAX, "{found}");
    }
}
