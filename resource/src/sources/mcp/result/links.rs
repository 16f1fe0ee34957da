//! URIs that a result shows: a caller who was shown one may ask its source for it (SRC-04).

use serde_json::value::RawValue;

use super::Shape;
use crate::members::{self, Members};

/// How many of one result are looked at.
const MOST: usize = 256;

/// The URIs in a result's links, embedded resources and contents.
pub(super) fn in_result(result: &Members<'_>, shape: Shape) -> Vec<String> {
    let (member, found): (_, fn(&RawValue) -> Option<String>) = match shape {
        Shape::Tool => ("content", in_block),
        Shape::Prompt => ("messages", in_message),
        Shape::Resource => ("contents", own_uri),
        Shape::Completion => return Vec::new(),
    };
    let Some(value) = result.get(member).filter(|value| value.get().contains("\"uri\"")) else {
        return Vec::new();
    };
    let items = members::items(value.get()).unwrap_or_default();
    items.into_iter().filter_map(found).take(MOST).collect()
}

fn in_message(message: &RawValue) -> Option<String> {
    in_block(Members::of(message.get())?.get("content")?)
}

/// The URI of a `resource_link` or of an embedded `resource`.
fn in_block(block: &RawValue) -> Option<String> {
    let members = Members::of(block.get())?;
    match members.text("type")?.as_str() {
        "resource_link" => members.text("uri"),
        "resource" => own_uri(members.get("resource")?),
        _ => None,
    }
}

fn own_uri(contents: &RawValue) -> Option<String> {
    Members::of(contents.get())?.text("uri")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(shape: Shape, text: &str) -> Vec<String> {
        in_result(&Members::of(text).unwrap(), shape)
    }

    /// SRC-04: each place of a result where a URI can stand.
    #[test]
    fn links_are_found_where_they_can_stand() {
        let content = r#"[{"type":"text","text":"\"uri\""},{"type":"resource_link","uri":"a:1"},{"type":"resource","resource":{"uri":"a:2","text":""}},{"type":"x","uri":"a:3"},7]"#;
        assert_eq!(links(Shape::Tool, &format!(r#"{{"content":{content}}}"#)), ["a:1", "a:2"]);
        let message = r#"{"messages":[{"role":"user","content":{"type":"resource_link","uri":"a:1"}},{}]}"#;
        assert_eq!(links(Shape::Prompt, message), ["a:1"]);
        assert_eq!(links(Shape::Resource, r#"{"contents":[{"uri":"a:1"},{"uri":7},{}]}"#), ["a:1"]);
        assert!(links(Shape::Completion, r#"{"completion":[{"uri":"a:1"}]}"#).is_empty());
        assert!(links(Shape::Tool, r#"{"content":"\"uri\""}"#).is_empty());
    }

    /// SRC-04: what is looked at is bounded.
    #[test]
    fn a_result_with_many_links_shows_some() {
        let many = vec![r#"{"uri":"a:1"}"#; 10_000].join(",");
        assert_eq!(links(Shape::Resource, &format!(r#"{{"contents":[{many}]}}"#)).len(), MOST);
    }
}
