//! A tool's definition, from how its server wrote it to how it is offered here. What is changed is its name and icons that
//! lie elsewhere; everything else stays as it was written (SRC-05).

use std::collections::HashMap;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use shared::Digest;

use crate::item::{Effect, Kind, Mirrored, Offer};
use crate::members::{self, Edit, Members};

/// The longest name on the wire (MCP-08).
const LONGEST_NAME: usize = 64;
/// A longer name leaves little room for what clients put before it.
pub(crate) const LONG_NAME: usize = 45;
/// No name of a tool is longer at its source.
const LONGEST_AT_SOURCE: usize = 1024;

/// How a source's items are named here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Names {
    /// `<source>_<name>`.
    #[default]
    Prefixed,
    /// As at their source.
    Bare,
}

/// A tool that is not offered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its name at its source, if it has one.
    pub name: String,
    pub why: String,
}

/// What is offered of this definition.
pub(crate) fn offer(source: &str, names: Names, written: &RawValue) -> Result<Offer, LeftOut> {
    let nameless = |why: &str| LeftOut { name: String::new(), why: why.to_owned() };
    let members =
        Members::of(written.get()).ok_or_else(|| nameless("it is not an object, or names a member twice"))?;
    let at_source = members.text("name").ok_or_else(|| nameless("it has no name"))?;
    let left_out = |why: String| LeftOut { name: at_source.chars().take(128).collect(), why };
    if at_source.is_empty() || at_source.len() > LONGEST_AT_SOURCE {
        return Err(left_out(format!("its name is empty or longer than {LONGEST_AT_SOURCE} bytes")));
    }
    let schema =
        members.get("inputSchema").and_then(|schema| serde_json::from_str::<Value>(schema.get()).ok());
    let schema = schema.filter(Value::is_object);
    let schema = schema.ok_or_else(|| left_out("its `inputSchema` is not an object".to_owned()))?;
    let mirrored = Mirrored::checked(&schema).map_err(left_out)?;
    let name = on_the_wire(source, names, &at_source);
    let quoted = serde_json::to_string(&name).map_err(|error| left_out(error.to_string()))?;
    let icons = members.get("icons").map(own_icons);
    let listed = members.edited(|member| match (member, &icons) {
        ("name", _) => Edit::Replace(&quoted),
        ("icons", Some(Some(icons))) => Edit::Replace(icons),
        ("icons", Some(None)) => Edit::Drop,
        _ => Edit::Keep,
    });
    let listed =
        RawValue::from_string(format!("{{{listed}}}")).map_err(|error| left_out(error.to_string()))?;
    Ok(Offer {
        kind: Kind::Tool,
        title: title(&members).unwrap_or_else(|| at_source.clone()),
        name: name.into(),
        at_source: at_source.as_str().into(),
        listed,
        modern_output: members.get("outputSchema").is_some_and(|schema| !is_object_schema(schema)),
        // What a server says of its tools is a hint: that one only reads is the administrator's to say (POL-01).
        effect: Effect::Writes,
        needs: None,
        mirrored,
    })
}

/// The name on the wire (SRC-03).
fn on_the_wire(source: &str, names: Names, at_source: &str) -> String {
    let whole = match names {
        Names::Prefixed => format!("{source}_{at_source}"),
        Names::Bare => at_source.to_owned(),
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let name: String = whole.chars().map(|c| if fits(c) { c } else { '_' }).collect();
    if name.len() <= LONGEST_NAME {
        return name;
    }
    let hash = HEXLOWER.encode(&Digest::of(whole.as_bytes()).0[..3]);
    format!("{}{hash}", &name[..LONGEST_NAME - hash.len()])
}

fn title(members: &Members<'_>) -> Option<String> {
    let annotated = || Members::of(members.get("annotations")?.get())?.text("title");
    members.text("title").or_else(annotated).filter(|title| !title.trim().is_empty())
}

/// The older revisions know object schemas only.
fn is_object_schema(schema: &RawValue) -> bool {
    Members::of(schema.get()).and_then(|schema| schema.text("type")).is_some_and(|kind| kind == "object")
}

/// The icons that come along with the definition; a link elsewhere would tell its host who looks (SRC-05).
pub(super) fn own_icons(icons: &RawValue) -> Option<String> {
    let own = |icon: &&RawValue| {
        let source = Members::of(icon.get()).and_then(|icon| icon.text("src"));
        source.is_some_and(|source| source.starts_with("data:"))
    };
    let icons: Vec<&str> = members::items(icons.get())?.into_iter().filter(own).map(RawValue::get).collect();
    (!icons.is_empty()).then(|| format!("[{}]", icons.join(",")))
}

/// The offers of these definitions, and what is left out of them.
pub(crate) fn offers(
    source: &str,
    names: Names,
    written: &[Box<RawValue>],
) -> (Vec<Arc<Offer>>, Vec<LeftOut>) {
    let (mut offers, mut left_out) = (Vec::<Arc<Offer>>::new(), Vec::new());
    let mut taken = HashMap::<Arc<str>, Arc<str>>::new();
    for written in written {
        let offer = match offer(source, names, written) {
            Ok(offer) => offer,
            Err(reason) => {
                left_out.push(reason);
                continue;
            }
        };
        if let Some(first) = taken.insert(Arc::clone(&offer.name), Arc::clone(&offer.at_source)) {
            let why = format!("it would be called `{}`, as `{first}` is", offer.name);
            left_out.push(LeftOut { name: offer.at_source.to_string(), why });
            taken.insert(offer.name, first);
            continue;
        }
        offers.push(Arc::new(offer));
    }
    (offers, left_out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    /// SRC-05: the name is the only member that changes, beside icons that lie elsewhere.
    #[test]
    fn a_definition_keeps_its_members() {
        let written = r#"{"vendor":{"x": 1.0},"name":"get.it","inputSchema":{"type":"object" },"execution":{"taskSupport":"optional"},"icons":[{"src":"https://a.example/i.png"},{"src":"data:image/png;base64,AA"}],"_meta":{"a":[ ]}}"#;
        let offer = offer("jira", Names::Prefixed, &raw(written)).unwrap();
        assert_eq!(
            (&*offer.name, &*offer.at_source, offer.title.as_str()),
            ("jira_get_it", "get.it", "get.it")
        );
        let listed = r#"{"vendor":{"x": 1.0},"name":"jira_get_it","inputSchema":{"type":"object" },"execution":{"taskSupport":"optional"},"icons":[{"src":"data:image/png;base64,AA"}],"_meta":{"a":[ ]}}"#;
        assert_eq!(offer.listed.get(), listed);
        assert_eq!(offer.effect, Effect::Writes);
        let written = r#"{"name":"x","inputSchema":{},"icons":[{"src":"http://a.example"}],"annotations":{"title":"X!","readOnlyHint":true}}"#;
        let offer = super::offer("jira", Names::Bare, &raw(written)).unwrap();
        assert_eq!((&*offer.name, offer.title.as_str(), offer.effect), ("x", "X!", Effect::Writes));
        assert!(!offer.listed.get().contains("icons"));
    }

    /// SRC-03: names fit the wire, and different long names stay different.
    #[test]
    fn names_fit_the_wire() {
        let wire = |name: &str| on_the_wire("ci", Names::Prefixed, name);
        assert_eq!(wire("a/b c.é"), "ci_a_b_c__");
        let (one, other) = (wire(&format!("{}1", "x".repeat(90))), wire(&format!("{}2", "x".repeat(90))));
        assert_eq!((one.len(), other.len()), (64, 64));
        assert_ne!(one, other);
        assert!(one[58..].bytes().all(|b| b.is_ascii_hexdigit()) && one.starts_with("ci_xxx"));
        assert_eq!(wire(&"x".repeat(61)).len(), 64);
        assert!(wire(&"é".repeat(200)).len() == 64);
    }

    /// SRC-05, MCP-11: what cannot be offered is left out, with the reason, and the rest is not.
    #[test]
    fn a_bad_definition_is_left_out_alone() {
        let header = |value: serde_json::Value| json!({ "name": "h", "inputSchema": value }).to_string();
        let bad = [
            "7".to_owned(),
            r#"{"inputSchema":{}}"#.to_owned(),
            r#"{"name":7,"inputSchema":{}}"#.to_owned(),
            r#"{"name":"","inputSchema":{}}"#.to_owned(),
            r#"{"name":"a","name":"b","inputSchema":{}}"#.to_owned(),
            r#"{"name":"a"}"#.to_owned(),
            r#"{"name":"a","inputSchema":[]}"#.to_owned(),
            header(json!({ "properties": { "a": { "type": "string", "x-mcp-header": "" } } })),
            header(json!({ "properties": { "a": { "type": "string", "x-mcp-header": "a b" } } })),
            header(json!({ "properties": { "a": { "type": "string", "x-mcp-header": 7 } } })),
            header(json!({ "properties": { "a": { "type": "number", "x-mcp-header": "A" } } })),
            header(json!({ "properties": { "a": { "type": "object", "x-mcp-header": "A" } } })),
            header(json!({ "properties": { "a": { "x-mcp-header": "A" } } })),
            header(json!({ "properties": {
                "a": { "type": "string", "x-mcp-header": "A" }, "b": { "type": "string", "x-mcp-header": "a" } } })),
            header(json!({ "properties": { "l": { "items": { "type": "string", "x-mcp-header": "A" } } } })),
            header(
                json!({ "anyOf": [{ "properties": { "a": { "type": "string", "x-mcp-header": "A" } } }] }),
            ),
            header(json!({ "$defs": { "a": { "type": "string", "x-mcp-header": "A" } } })),
            header(json!({ "type": "string", "x-mcp-header": "A" })),
        ];
        for bad in &bad {
            let left_out = offer("s", Names::Prefixed, &raw(bad)).map(|offer| offer.name).unwrap_err();
            assert!(!left_out.why.is_empty(), "{bad}");
        }
        let good = header(json!({ "properties": { "x-mcp-header": { "type": "string", "x-mcp-header": "A" },
            "o": { "properties": { "n": { "type": "integer", "x-mcp-header": "N" } } } } }));
        let written: Vec<_> = bad.iter().chain([&good, &good]).map(|text| raw(text)).collect();
        let (offers, left_out) = offers("s", Names::Prefixed, &written);
        assert_eq!((offers.len(), left_out.len()), (1, bad.len() + 1));
        assert_eq!(offers[0].mirrored.len(), 2);
    }
}
