//! JSON with comments and trailing commas, as editors write it.

/// The same as plain JSON. Strings are not changed.
pub(super) fn plain(text: &str) -> String {
    without_last_commas(&without_comments(text))
}

fn without_comments(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '"' => string(rest),
            '/' if rest.starts_with("//") => {
                rest = rest.find('\n').map_or("", |end| &rest[end..]);
                continue;
            }
            '/' if rest.starts_with("/*") => {
                rest = rest[2..].find("*/").map_or("", |end| &rest[end + 4..]);
                plain.push(' ');
                continue;
            }
            other => other.len_utf8(),
        };
        plain.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    plain
}

fn without_last_commas(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let taken = if c == '"' { string(rest) } else { c.len_utf8() };
        let is_last = c == ',' && rest[1..].trim_start().starts_with(['}', ']']);
        if !is_last {
            plain.push_str(&rest[..taken]);
        }
        rest = &rest[taken..];
    }
    plain
}

/// The length of the string at the beginning of the text, with its quotation marks.
fn string(text: &str) -> usize {
    let mut escaped = false;
    let end = text[1..].find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn comments_and_last_commas_are_left_out() {
        let text = r#"// one
{ "a": "http://x/*y*/", /* two
  lines */ "b": [1, 2, ], "c": "quote \" // still", // end
  "d": ",}",
}"#;
        let value: Value = serde_json::from_str(&plain(text)).unwrap();
        let expected = json!({ "a": "http://x/*y*/", "b": [1, 2], "c": "quote \" // still", "d": ",}" });
        assert_eq!(value, expected);
        for broken in ["/*", "\"", "\"\\", "//", "/", ",", "{,}", "é/*é"] {
            plain(broken);
        }
    }

    proptest! {
        /// Plain JSON is not changed.
        #[test]
        fn json_is_left_as_it_is(text in any::<Vec<String>>()) {
            let written = json!({ "a": text, "b": { "c": [] } }).to_string();
            prop_assert_eq!(plain(&written), written);
        }
    }
}
