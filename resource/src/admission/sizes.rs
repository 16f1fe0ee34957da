//! How large arguments and results may be (LIMIT-03).

use std::io::{self, Write};

use serde_json::{Value, json};

use super::ask::AskKind;
use super::limits::Limited;
use crate::members::{Edit, Members, items};
use crate::sources::Outcome;

/// Room for the line that says how much is missing.
const LINE: usize = 160;

/// Arguments of more than this many bytes of JSON.
pub(super) fn over(arguments: &Value, most: usize) -> Option<Limited> {
    let mut counter = Counter(0);
    serde_json::to_writer(&mut counter, arguments).ok()?;
    let bytes = counter.0;
    (bytes > most).then(|| Limited {
        decision: "too_large",
        limit: format!("{most} bytes of arguments"),
        of: "item",
        again: None,
        words: format!("The arguments have {bytes} bytes; the limit is {most}. Nothing was done. Send less."),
    })
}

struct Counter(usize);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The outcome within this many bytes, and how many bytes of text are missing from it. Text of a tool is cut; half an object or
/// half a picture would be worth nothing, so what has others is refused as a whole.
pub(super) fn within(outcome: Outcome, what: &AskKind, most: usize) -> (Outcome, usize) {
    let Outcome::Result { members, meta, is_error, links } = outcome else { return (outcome, 0) };
    let bytes = members.len();
    if bytes <= most {
        return (Outcome::Result { members, meta, is_error, links }, 0);
    }
    let text = String::from_utf8(members).ok();
    let cut = text.filter(|_| matches!(what, AskKind::Tool(..))).and_then(|members| cut(&members, most));
    match cut {
        Some((members, missing)) => (Outcome::Result { members, meta, is_error, links }, missing),
        None => (Outcome::TooLarge(bytes), 0),
    }
}

/// The members of a result with less text; `None` if there is anything else in it that takes room.
fn cut(members: &str, most: usize) -> Option<(Vec<u8>, usize)> {
    let whole = format!("{{{members}}}");
    let members = Members::of(&whole)?;
    if members.get("structuredContent").is_some() {
        return None;
    }
    let content = members.get("content")?.get();
    // What is beside the content stays as it is.
    let mut room = most.checked_sub(whole.len() - content.len() + LINE)?;
    let (mut kept, mut missing, mut is_full) = (Vec::new(), 0, false);
    for item in items(content)? {
        let written = item.get();
        let block = Members::of(written)?;
        let text = block.text("text").filter(|_| block.text("type").as_deref() == Some("text"))?;
        if !is_full && written.len() < room {
            room -= written.len() + 1;
            kept.push(written.to_owned());
            continue;
        }
        let bare = block.edited(|name| if name == "text" { Edit::Replace("\"\"") } else { Edit::Keep });
        let part = if is_full { "" } else { beginning(&text, room.saturating_sub(bare.len() + 3)) };
        is_full = true;
        missing += text.len() - part.len();
        if !part.is_empty() {
            let part = Value::from(part).to_string();
            let edit = |name: &str| if name == "text" { Edit::Replace(&part) } else { Edit::Keep };
            kept.push(format!("{{{}}}", block.edited(edit)));
        }
    }
    let line = format!("[This result was cut: {missing} more bytes of text are missing. Ask for less.]");
    kept.push(json!({ "type": "text", "text": line }).to_string());
    let content = format!("[{}]", kept.join(","));
    let cut = members.edited(|name| if name == "content" { Edit::Replace(&content) } else { Edit::Keep });
    (cut.len() <= most).then(|| (cut.into_bytes(), missing))
}

/// As much of a text as takes at most this many bytes when it is written as JSON.
fn beginning(text: &str, most: usize) -> &str {
    let mut room = most;
    for (at, character) in text.char_indices() {
        let takes = match character {
            '"' | '\\' => 2,
            character if character.is_control() => 6,
            character => character.len_utf8(),
        };
        match room.checked_sub(takes) {
            Some(left) => room = left,
            None => return &text[..at],
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(content: &Value, more: &str) -> String {
        format!("\"content\":{content}{more}")
    }

    /// LIMIT-03: text over the cap is cut at a character, with a line that says how much is missing; all else stays.
    #[test]
    fn text_is_cut_with_a_line() {
        let long = "a\u{e9}\"\n".repeat(500);
        let content = json!([{ "type": "text", "text": "first" }, { "type": "text", "text": long, "x": 1 }, { "type": "text", "text": "last" }]);
        for most in 400..700 {
            let (cut, missing) = cut(&members(&content, ",\"isError\":false,\"y\":1.0"), most).unwrap();
            let text = String::from_utf8(cut).unwrap();
            assert!(text.len() <= most && text.ends_with(",\"isError\":false,\"y\":1.0"), "{most}: {text}");
            let value: Value = serde_json::from_str(&format!("{{{text}}}")).unwrap();
            let texts: Vec<_> = value["content"]
                .as_array()
                .unwrap()
                .iter()
                .map(|block| block["text"].as_str().unwrap())
                .collect();
            assert_eq!((texts[0], texts.len(), &value["content"][1]["x"]), ("first", 3, &json!(1)));
            assert!(long.starts_with(texts[1]));
            assert_eq!(missing, long.len() - texts[1].len() + "last".len());
            assert!(texts[2].contains(&format!("{missing} more bytes of text are missing")), "{}", texts[2]);
        }
    }

    /// LIMIT-03: what has a structure or a picture in it is not cut.
    #[test]
    fn what_is_more_than_text_is_not_cut() {
        let text = json!({ "type": "text", "text": "x".repeat(5000) });
        for (content, more) in [
            (json!([text]), ",\"structuredContent\":{}"),
            (json!([text, { "type": "image", "data": "AAAA", "mimeType": "image/png" }]), ""),
            (json!("x".repeat(5000)), ""),
            (json!([]), ",\"other\":\"0\""),
        ] {
            let text = members(&content, &more.replace('0', &"0".repeat(5000)));
            assert!(cut(&text, 1024).is_none(), "{}", &text[..60]);
        }
    }

    /// LIMIT-03: arguments are measured as JSON.
    #[test]
    fn arguments_are_measured() {
        let arguments = json!({ "text": "x".repeat(100) });
        let bytes = arguments.to_string().len();
        assert_eq!(over(&arguments, bytes), None);
        let words = over(&arguments, bytes - 1).unwrap().words;
        assert!(words.starts_with(&format!("The arguments have {bytes} bytes; the limit is {}.", bytes - 1)));
    }
}
