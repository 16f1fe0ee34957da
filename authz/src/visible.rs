//! Names as a person sees them, without hidden characters and without characters that change the direction of
//! text.

use shared::work::{self, Work};
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory as Category, UnicodeGeneralCategory};

/// How many marks a letter may carry (UTS #39 §5.4): more of them would cover the lines above and below.
const MOST_MARKS: usize = 4;

/// Text as a person sees it (DCR-13): composed, without invisible characters or direction marks, and without piles of
/// marks.
pub(crate) fn clean(text: &str) -> String {
    let hidden = |c: char| {
        let category = c.general_category();
        let unseen =
            [Category::Control, Category::Format, Category::LineSeparator, Category::ParagraphSeparator];
        // Fillers and selectors are classified as letters, marks and symbols, but are invisible.
        unseen.contains(&category)
            || matches!(c, '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{2800}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
    };
    // Compose last: characters separated by a hidden one may combine.
    let mut marks = 0;
    let mut piled = |c: &char| {
        let is_mark = matches!(c.general_category(), Category::NonspacingMark | Category::EnclosingMark);
        marks = if is_mark { marks + 1 } else { 0 };
        marks > MOST_MARKS
    };
    let composed = text.chars().filter(|c| !hidden(*c)).nfc();
    composed.filter(|c| !piled(c)).collect::<String>().trim().to_owned()
}

/// The skeleton of a name: equal for names that look alike (UTS #39). Case, compatible and confusable
/// characters are unified; `i` is treated as `l`, because `I` looks like `l` and is `i` in lower case.
pub(crate) fn skeleton(name: &str) -> String {
    let lower = |text: &str| -> String {
        // Twice, because some letters have two lower cases, and some an upper case of two letters.
        text.nfkc().flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfkc().collect()
    };
    let alike: String = unicode_security::skeleton(&lower(name)).collect();
    let alike: String = unicode_security::skeleton(&lower(&alike)).collect();
    let alike = lower(&alike).replace(['i', '\u{131}'], "l");
    alike.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether two different names look alike.
pub fn look_alike(one: &str, other: &str) -> bool {
    one != other && skeleton(one) == skeleton(other)
}

/// Whether a person would read two names as the same (DCR-13).
pub(crate) fn reads_like(one: &str, other: &str) -> bool {
    Reading::of(one).is_like(&Reading::of(other))
}

/// How a person reads a name: compatible characters are unified; case, and characters other than letters and digits, are
/// ignored; confusable characters are one. It takes some 50 µs, so a name that is compared with several is read once.
pub(crate) struct Reading {
    folded: String,
    looks: String,
}

impl Reading {
    pub(crate) fn of(name: &str) -> Self {
        work::done(Work::Name);
        Self { folded: folded(name), looks: letters(skeleton(name)) }
    }

    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.folded == other.folded || self.looks == other.looks
    }
}

fn folded(name: &str) -> String {
    // Twice, because some letters have two lower cases, and some an upper case of two letters.
    let folded: String =
        name.nfkc().flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfkc().collect();
    letters(folded)
}

fn letters(text: String) -> String {
    let letters: String = text.chars().filter(|c| c.is_alphanumeric()).collect();
    if letters.is_empty() { text } else { letters }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DCR-13: names that differ only in this way count as the same.
    #[test]
    fn names_that_read_alike_are_one() {
        for (one, other) in [
            ("Portcullis", "PORTCULLIS"),
            ("Portcullis", "\u{ff30}ort cullis!"),
            ("Portcullis", "P\u{ad}ortcullis"),
            ("Stra\u{df}e", "STRASSE"),
            (
                "\u{3a3}\u{3af}\u{3c3}\u{3c5}\u{3c6}\u{3bf}\u{3c2}",
                "\u{3c3}\u{3af}\u{3c3}\u{3c5}\u{3c6}\u{3bf}\u{3c3}",
            ),
            ("\u{fb01}le", "FILE"),
            ("\u{c5}", "A\u{30a}"),
        ] {
            assert!(reads_like(one, other), "{one} {other}");
        }
        for (one, other) in [("Portcullis", "Portcullis 2"), ("!", "?"), ("", "!"), ("a", "b")] {
            assert!(!reads_like(one, other), "{one} {other}");
        }
    }

    #[test]
    fn confusable_names_have_one_skeleton() {
        for (one, other) in [
            ("ada", "Ada"),
            ("ada", "\u{430}d\u{430}"),
            ("Ida", "lda"),
            ("ida", "Ida"),
            ("\u{c5}sa", "A\u{30a}sa"),
            ("bob", "\u{ff42}ob"),
            ("admin1", "adminl"),
            ("mary", "rnary"),
            ("O'Neil", "0\u{2019}neil"),
            ("ada lovelace", "ada  lovelace"),
            ("Stra\u{df}e", "STRASSE"),
            ("\u{3a3}igma", "\u{3c3}igma"),
        ] {
            assert_eq!(skeleton(one), skeleton(other), "{one} {other}");
        }
        for (one, other) in [("ada", "adam"), ("bob", "rob"), ("j.smith", "jsmith"), ("\u{6771}", "\u{897f}")]
        {
            assert_ne!(skeleton(one), skeleton(other), "{one} {other}");
        }
        assert!(reads_like("Portcullis", "P\u{43e}rtcullis"));
    }

    /// DCR-13: invisible characters are removed from names.
    #[test]
    fn names_are_cleaned_of_what_cannot_be_seen() {
        assert_eq!(clean(" Cl\u{202e}au\u{200b}de\u{7} "), "Claude");
        assert_eq!(clean("P\u{ad}o\u{206a}r\u{e0041}t"), "Port");
        assert_eq!(clean("A\u{30a}"), "\u{c5}");
        let piled = format!("e{}x", "\u{301}\u{323}".repeat(120));
        assert_eq!(clean(&piled).chars().filter(|c| ('\u{300}'..'\u{370}').contains(c)).count(), MOST_MARKS);
        // Hebrew with points and accents, Thai, Vietnamese.
        for text in ["בְּרֵאשִׁ֖ית", "น้ำ", "Nguyễn"] {
            assert_eq!(clean(text), text.nfc().collect::<String>());
        }
        assert_eq!(clean("A\u{200b}\u{30a}"), "\u{c5}");
        for empty in ["\u{3164}", "\u{2800}\u{fe0f}", "\u{2028}"] {
            assert_eq!(clean(empty), "");
        }
    }
}
