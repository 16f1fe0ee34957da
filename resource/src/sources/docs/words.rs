//! Splits text into words, the same way for the index, queries and snippets.
//!
//! Chinese, Japanese, Korean, Thai, Lao, Khmer, Burmese and some others are written without spaces, and UAX #29
//! gives no rule for their words. So their runs are indexed as overlapping pairs: 東京都 becomes 東京 京都 都. The
//! single last character lets a query of one character find it, as the beginning of a pair or alone. All other
//! words are left to FTS5's `unicode61`, with marks as parts of words (UAX #29, WB4).

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_properties::{GeneralCategory as Category, UnicodeGeneralCategory};

/// Whether a character belongs to a script that is indexed in pairs.
pub(super) fn is_paired(c: char) -> bool {
    is_cjk(c) || is_south_east_asian(c)
}

/// Letters and marks of the scripts that need a dictionary for word boundaries (UAX #14, class SA), without
/// digits.
fn is_south_east_asian(c: char) -> bool {
    matches!(u32::from(c),
        0x0E01..=0x0E3A | 0x0E40..=0x0E4E       // Thai
        | 0x0E81..=0x0ECE | 0x0EDC..=0x0EDF     // Lao
        | 0x1780..=0x17D3 | 0x17D7 | 0x17DC | 0x17DD // Khmer
        | 0x1000..=0x103F | 0x1050..=0x108F | 0x109A..=0x109D // Burmese and its neighbours
        | 0xA9E0..=0xA9EF | 0xA9FA..=0xA9FE | 0xAA60..=0xAA7F
        | 0x1950..=0x1974 | 0x1980..=0x19C9     // Tai Le, New Tai Lue
        | 0x1A20..=0x1A7C | 0xAA80..=0xAADF) // Tai Tham, Tai Viet
}

fn is_cjk(c: char) -> bool {
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

/// Unifies different spellings: half- and full-width, composed and decomposed, with and without invisible
/// characters and optional marks.
pub(super) fn normal(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars().filter(|c| !is_invisible(*c)).nfkd().filter(|c| !is_optional(*c)).nfc() {
        match c {
            // NFKD splits SARA AM, and NFC does not join it; people type it as one letter.
            '\u{e32}' if out.ends_with('\u{e4d}') => replace_last(&mut out, '\u{e33}'),
            '\u{eb2}' if out.ends_with('\u{ecd}') => replace_last(&mut out, '\u{eb3}'),
            _ => spell(c, &mut out),
        }
    }
    Cow::Owned(out)
}

fn replace_last(out: &mut String, c: char) {
    out.pop();
    out.push(c);
}

/// Unifies letters that differ only in case although lower-casing does not unify them.
fn spell(c: char, out: &mut String) {
    match c {
        'ß' => out.push_str("ss"),
        'ẞ' => out.push_str("SS"),
        'ς' => out.push('σ'),
        // The Turkish pairs ı I and i İ: other keyboards have one i. The dot of İ is a mark.
        'ı' => out.push('i'),
        'ٱ' => out.push('ا'),
        _ => out.push(c),
    }
}

/// Invisible characters inside words (UAX #29, WB4: Format and default ignorables): soft hyphen, zero-width
/// spaces and joiners, direction marks, variation selectors.
pub(super) fn is_invisible(c: char) -> bool {
    matches!(u32::from(c),
        0x00AD | 0x034F | 0x061C | 0x17B4 | 0x17B5 | 0x180B..=0x180F | 0x200B..=0x200F | 0x202A..=0x202E
        | 0x2060..=0x206F | 0xFE00..=0xFE0F | 0xFEFF | 0xFFF9..=0xFFFB | 0xE_0000..=0xE_0FFF)
}

/// Marks that may be omitted: accents, the vowel signs of Arabic, Hebrew and Syriac, and the stroke that
/// stretches Arabic words. Marks of other scripts are like letters.
fn is_optional(c: char) -> bool {
    matches!(u32::from(c),
        0x0300..=0x036F | 0x0483..=0x0489
        | 0x0591..=0x05BD | 0x05BF | 0x05C1 | 0x05C2 | 0x05C4 | 0x05C5 | 0x05C7
        | 0x0610..=0x061A | 0x0640 | 0x064B..=0x065F | 0x0670 | 0x06D6..=0x06DC | 0x06DF..=0x06E4
        | 0x06E7 | 0x06E8 | 0x06EA..=0x06ED | 0x0711 | 0x0730..=0x074A | 0x08CA..=0x08E1 | 0x08E3..=0x08FF
        | 0x1AB0..=0x1AFF | 0x1DC0..=0x1DFF | 0x20D0..=0x20FF | 0xFE20..=0xFE2F)
}

/// Whether a character of normalised text is part of a word, as FTS5 decides too.
pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c.general_category(), Category::NonspacingMark | Category::SpacingMark)
}

/// A run of text in one kind of script.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Run<'t> {
    Paired(&'t str),
    Other(&'t str),
}

/// Splits text between scripts that are indexed in pairs and others.
pub(super) fn runs(text: &str) -> impl Iterator<Item = Run<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let paired = is_paired(rest.chars().next()?);
        let end = rest.find(|c| is_paired(c) != paired).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        rest = after;
        Some(if paired { Run::Paired(run) } else { Run::Other(run) })
    })
}

/// The overlapping pairs of a run; a single character is itself.
pub(super) fn pairs(run: &str) -> impl Iterator<Item = &str> {
    let starts: Vec<usize> = run.char_indices().map(|(i, _)| i).chain([run.len()]).collect();
    let width = if starts.len() > 2 { 2 } else { 1 };
    (0..starts.len().saturating_sub(width)).map(move |i| &run[starts[i]..starts[i + width]])
}

/// Text for FTS5.
pub(super) fn indexed(text: &str) -> String {
    let text = normal(text);
    if text.is_ascii() {
        return text.into_owned();
    }
    let mut out = String::with_capacity(text.len() * 2);
    for run in runs(&text) {
        match run {
            Run::Other(other) => out.push_str(other),
            Run::Paired(run) => {
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

/// A word for comparison: without case and accents, like `remove_diacritics 2`.
pub(super) fn folded(word: &str) -> String {
    if word.is_ascii() {
        return word.to_ascii_lowercase();
    }
    if word.chars().all(is_south_east_asian) {
        return normal(word).into_owned(); // their marks are not accents
    }
    let bare: String = normal(word).nfkd().filter(|c| !is_combining_mark(*c)).collect();
    bare.nfkc().flat_map(char::to_lowercase).collect()
}

/// A word, or one character of a script that is indexed in pairs, and its position.
#[derive(Debug)]
pub(super) struct Token {
    pub start: usize,
    pub end: usize,
    pub folded: String,
}

/// The words of a text as written.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut start = None;
    let mut push = |from: usize, to: usize| {
        let to = from + text[from..to].trim_end_matches(is_invisible).len();
        let folded = folded(&text[from..to]);
        match tokens.last_mut() {
            // A half-width voicing mark belongs to the character before it.
            Some(Token { end, .. }) if folded.is_empty() && *end == from => *end = to,
            _ if folded.is_empty() => {}
            _ => tokens.push(Token { start: from, end: to, folded }),
        }
    };
    for (i, c) in text.char_indices() {
        let paired = is_paired(c);
        if !paired && (c.is_alphanumeric() || (start.is_some() && (is_combining_mark(c) || is_invisible(c))))
        {
            start.get_or_insert(i);
            continue;
        }
        if let Some(from) = start.take() {
            push(from, i);
        }
        if paired {
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

    /// UAX #29 (WB4): invisible characters do not split words, and optional marks make no difference.
    #[test]
    fn invisible_characters_do_not_split_words() {
        for c in "\u{ad}\u{34f}\u{61c}\u{200b}\u{200c}\u{200d}\u{200e}\u{200f}\u{202e}\u{2060}\u{2066}\u{fe0f}\u{feff}\u{e0041}".chars() {
            assert_eq!(indexed(&format!("pass{c}key")), "passkey", "{:x}", u32::from(c));
            let text = format!("A pass{c}key{c}, x");
            let words: Vec<_> = tokens(&text).into_iter().map(|token| token.folded).collect();
            assert_eq!(words, ["a", "passkey", "x"], "{:x}", u32::from(c));
            assert_eq!(indexed(&format!("東{c}京")), indexed("東京"), "{:x}", u32::from(c));
        }
        for (one, other) in [
            ("مُحَمَّد", "محمد"),
            ("العـــربية", "العربية"),
            ("أحمد", "احمد"),
            ("שָׁלוֹם", "שלום"),
            ("می\u{200c}خواهم", "میخواهم"),
            ("x\u{302}", "x"),
            ("e\u{301}", "é"),
            ("\u{ff21}\u{ff22}\u{ff11}", "AB1"),
            ("ﬁle", "file"),
            ("Stra\u{df}e", "Strasse"),
            ("σοφός", "σοφόσ"),
            ("ıstanbul", "istanbul"),
            ("İstanbul", "Istanbul"),
            ("i\u{307}", "i"),
        ] {
            assert_eq!(normal(one), normal(other), "{one} {other}");
            assert_eq!(folded(one), folded(other), "{one} {other}");
        }
    }

    /// Thai, Lao, Khmer and Burmese are indexed in pairs, including marks, and no character is lost.
    #[test]
    fn south_east_asian_runs_become_pairs() {
        assert_eq!(
            indexed("น้ำ ก").split_whitespace().collect::<Vec<_>>(),
            ["น\u{e49}", "\u{e49}ำ", "ำ", "ก"]
        );
        for run in ["ความปลอดภัย", "ລາວ", "ភាសាខ្មែរ", "မြန်မာ"]
        {
            let pairs = indexed(run);
            let first: String = pairs.split_whitespace().filter_map(|pair| pair.chars().next()).collect();
            assert_eq!(first, normal(run), "{run}");
        }
        assert_eq!(indexed("๒๕๖๙"), "๒๕๖๙", "digits are words");
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
