//! What a word is, for the index, the query and the snippet alike.
//!
//! Chinese, Japanese and Korean are written without spaces that a tokenizer could cut at, so their
//! runs are indexed as overlapping pairs: 東京都 becomes 東京 京都 都. The single character at the end
//! lets a query of one character find it there too, as the beginning of a pair or alone. All other
//! words are left to FTS5's `unicode61`.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Whether a character belongs to a script that is indexed by pairs.
pub(super) fn is_cjk(c: char) -> bool {
    matches!(u32::from(c),
        0x3005 | 0x3007 | 0x303B                // iteration marks, zero
        | 0x3041..=0x309F                       // Hiragana
        | 0x30A1..=0x30FA | 0x30FC..=0x30FF     // Katakana, without its hyphen and middle dot
        | 0x31F0..=0x31FF | 0xFF66..=0xFF9F     // more Katakana, half-width ones
        | 0x3105..=0x312F | 0x31A0..=0x31BF     // Bopomofo
        | 0x3400..=0x4DBF | 0x4E00..=0x9FFF     // Han
        | 0xF900..=0xFAFF | 0x2_0000..=0x3_FFFF
        | 0x1100..=0x11FF | 0x3131..=0x318E     // Hangul
        | 0xA960..=0xA97F | 0xAC00..=0xD7FF)
}

/// One spelling for what looks the same: half- and full-width forms, composed and decomposed ones.
pub(super) fn normal(text: &str) -> Cow<'_, str> {
    if text.is_ascii() { Cow::Borrowed(text) } else { Cow::Owned(text.nfkc().collect()) }
}

/// A stretch of text in one kind of script.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Run<'t> {
    Cjk(&'t str),
    Other(&'t str),
}

/// Cuts text where it changes between CJK and anything else.
pub(super) fn runs(text: &str) -> impl Iterator<Item = Run<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let cjk = is_cjk(rest.chars().next()?);
        let end = rest.find(|c| is_cjk(c) != cjk).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        rest = after;
        Some(if cjk { Run::Cjk(run) } else { Run::Other(run) })
    })
}

/// The overlapping pairs of a run; a single character is itself.
pub(super) fn pairs(run: &str) -> impl Iterator<Item = &str> {
    let starts: Vec<usize> = run.char_indices().map(|(i, _)| i).chain([run.len()]).collect();
    let width = if starts.len() > 2 { 2 } else { 1 };
    (0..starts.len().saturating_sub(width)).map(move |i| &run[starts[i]..starts[i + width]])
}

/// Text as FTS5 is to see it.
pub(super) fn indexed(text: &str) -> String {
    let text = normal(text);
    if text.is_ascii() {
        return text.into_owned();
    }
    let mut out = String::with_capacity(text.len() * 2);
    for run in runs(&text) {
        match run {
            Run::Other(other) => out.push_str(other),
            Run::Cjk(run) => {
                for pair in pairs(run) {
                    out.push(' ');
                    out.push_str(pair);
                }
                if let Some((last, _)) = run.char_indices().next_back().filter(|(i, _)| *i > 0) {
                    out.push(' ');
                    out.push_str(&run[last..]);
                }
                out.push(' ');
            }
        }
    }
    out
}

/// A word as it is compared: without case and accents, as `remove_diacritics 2` does it.
pub(super) fn folded(word: &str) -> String {
    if word.is_ascii() {
        return word.to_ascii_lowercase();
    }
    let bare: String = word.nfkd().filter(|c| !is_combining_mark(*c)).collect();
    bare.nfkc().flat_map(char::to_lowercase).collect()
}

/// A word of a text, or one CJK character, and where it stands.
#[derive(Debug)]
pub(super) struct Token {
    pub start: usize,
    pub end: usize,
    pub folded: String,
}

/// The words of a text as it was written.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut start = None;
    let mut push = |from: usize, to: usize| {
        tokens.push(Token { start: from, end: to, folded: folded(&text[from..to]) });
    };
    for (i, c) in text.char_indices() {
        let cjk = is_cjk(c);
        if !cjk && (c.is_alphanumeric() || (start.is_some() && is_combining_mark(c))) {
            start.get_or_insert(i);
            continue;
        }
        if let Some(from) = start.take() {
            push(from, i);
        }
        if cjk {
            push(i, i + c.len_utf8());
        }
    }
    if let Some(from) = start {
        push(from, text.len());
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cjk_runs_become_pairs_and_a_last_character() {
        assert_eq!(indexed("東京都").split_whitespace().collect::<Vec<_>>(), ["東京", "京都", "都"]);
        assert_eq!(
            indexed("iPhoneの設定").split_whitespace().collect::<Vec<_>>(),
            ["iPhone", "の設", "設定", "定"]
        );
        assert_eq!(indexed("水 x").split_whitespace().collect::<Vec<_>>(), ["水", "x"]);
        assert_eq!(indexed("plain_text, 1"), "plain_text, 1");
    }

    #[test]
    fn different_spellings_are_one() {
        assert_eq!(normal("ﾃｽﾄ ＡＢＣ"), "テスト ABC");
        assert_eq!(normal("\u{1112}\u{1161}\u{11ab}"), "한");
        assert_eq!(folded("Überprüfung"), "uberprufung");
    }

    #[test]
    fn tokens_stand_where_they_were() {
        let text = "Öl, 東京!";
        let found: Vec<_> = tokens(text).into_iter().map(|t| text[t.start..t.end].to_owned()).collect();
        assert_eq!(found, ["Öl", "東", "京"]);
    }
}
