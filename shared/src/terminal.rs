//! Text for a terminal: text from strangers must neither move the cursor nor change the direction of the line.

use std::borrow::Cow;
use std::fmt::Write;

use unicode_properties::{GeneralCategory as Category, UnicodeGeneralCategory};

/// Whether a terminal only displays this character. Controls, C1 controls (U+009B begins an escape sequence),
/// format characters (U+202E reverses the line) and line separators do more.
fn is_plain(c: char) -> bool {
    let more = [Category::Control, Category::Format, Category::LineSeparator, Category::ParagraphSeparator];
    c == ' ' || c.is_ascii_graphic() || !c.is_ascii() && !more.contains(&c.general_category())
}

/// The text on one line, with every other character written as `\u{…}`.
pub fn safe(text: &str) -> Cow<'_, str> {
    escape(text, |escaped, c| write!(escaped, "{}", c.escape_unicode()))
}

/// A JSON document for a terminal, with the same characters as JSON escapes. Its meaning is unchanged, because
/// they occur only inside strings.
pub fn safe_json(document: &str) -> Cow<'_, str> {
    escape(document, |escaped, c| {
        let mut units = [0; 2];
        c.encode_utf16(&mut units).iter().try_for_each(|unit| write!(escaped, "\\u{unit:04x}"))
    })
}

fn escape(text: &str, with: impl Fn(&mut String, char) -> std::fmt::Result) -> Cow<'_, str> {
    let Some(first) = text.find(|c| !is_plain(c)) else { return Cow::Borrowed(text) };
    let (plain, rest) = text.split_at(first);
    let mut escaped = plain.to_owned();
    for c in rest.chars() {
        if is_plain(c) {
            escaped.push(c);
        } else {
            with(&mut escaped, c).expect("a String takes everything");
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// AUDIT-05: ESC, C1, bidirectional and invisible characters are shown escaped.
    #[test]
    fn no_character_reaches_the_terminal_that_it_would_act_on() {
        for (text, shown) in [
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("a\u{9b}31mb", "a\\u{9b}31mb"),
            ("ada\u{202e}nimda", "ada\\u{202e}nimda"),
            ("a\r\nb\tc\0\u{7f}", "a\\u{d}\\u{a}b\\u{9}c\\u{0}\\u{7f}"),
            ("x\u{2066}y\u{200b}z\u{feff}", "x\\u{2066}y\\u{200b}z\\u{feff}"),
            ("p\u{2028}q\u{2029}r\u{e0041}", "p\\u{2028}q\\u{2029}r\\u{e0041}"),
        ] {
            assert_eq!(safe(text), shown);
        }
        for plain in ["", "plain ~", "Åsa Łukasiewicz", "東京 \u{1f600}", "C:\\dir"] {
            assert!(matches!(safe(plain), Cow::Borrowed(same) if same == plain));
        }
    }

    #[test]
    fn escaped_json_means_the_same() {
        let value = json!({ "na\u{202e}me": "a\u{9b}b\u{7f}\u{e0041}\n" });
        let document = value.to_string();
        let safe = safe_json(&document);
        assert!(safe.chars().all(is_plain), "{safe}");
        assert_eq!(serde_json::from_str::<Value>(&safe).unwrap(), value);
    }
}
