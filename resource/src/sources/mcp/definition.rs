//! The definition of an item, from how its server wrote it to how it is offered here. What is changed is the name of a tool or
//! prompt, and icons that lie elsewhere; everything else stays as it was written (SRC-05), URIs above all (SRC-04).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use shared::Digest;

use crate::item::{Address, Effect, Kind, Mirrored, Offer};
use crate::members::{self, Edit, Members};
use crate::uri::{CanonicalUri, UriTemplate};

/// The longest name on the wire (MCP-08).
const LONGEST_NAME: usize = 64;
/// A longer name leaves little room for clients' prefixes.
pub(crate) const LONG_NAME: usize = 45;
/// The longest name at a source, in bytes.
const LONGEST_AT_SOURCE: usize = 1024;

/// How a source's items are named.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Names {
    /// `<source>_<name>`.
    #[default]
    Prefixed,
    /// As at their source.
    Bare,
}

/// An item that is not offered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeftOut {
    pub kind: Kind,
    /// What its source calls it, if that is known.
    pub name: String,
    pub why: String,
}

/// The offer for this definition.
fn offer(source: &str, names: Names, kind: Kind, written: &RawValue) -> Result<Offer, LeftOut> {
    let left_out = |name: &str, why: String| LeftOut { kind, name: name.chars().take(128).collect(), why };
    let nameless = |why: &str| left_out("", why.to_owned());
    let members =
        Members::of(written.get()).ok_or_else(|| nameless("it is not an object, or names a member twice"))?;
    let member = match kind {
        Kind::Tool | Kind::Prompt => "name",
        Kind::Resource => "uri",
        Kind::Template => "uriTemplate",
    };
    let at_source = members.text(member).ok_or_else(|| nameless(&format!("it has no `{member}`")))?;
    let wrong = |why: String| left_out(&at_source, why);
    let name = match kind {
        Kind::Tool | Kind::Prompt => named(source, names, &at_source).map_err(wrong)?,
        Kind::Resource | Kind::Template => String::new(),
    };
    let address = address(kind, &at_source).map_err(wrong)?;
    let (mirrored, modern_output) = match kind {
        Kind::Tool => schemas(&members).map_err(wrong)?,
        _ => (Vec::new(), false),
    };
    let listed = listed(&members, &name).map_err(|error| wrong(error.to_string()))?;
    let name = match &address {
        None => name,
        Some(Address::One(uri)) => Offer::resource_name(&source.into(), uri.as_str()),
        Some(Address::All(template)) => Offer::resource_name(&source.into(), template.as_str()),
    };
    Ok(Offer {
        kind,
        title: title(&members, kind).unwrap_or_else(|| at_source.clone()),
        name: name.into(),
        at_source: at_source.as_str().into(),
        address,
        listed,
        modern_output,
        // What a server says of its tools is a hint: that one only reads is the administrator's to say (POL-01). To get a
        // prompt and to read a resource is to read.
        effect: Effect::of(kind != Kind::Tool),
        needs: None,
        like: None,
        mirrored,
    })
}

/// The name on the wire, if the name can have one.
fn named(source: &str, names: Names, at_source: &str) -> Result<String, String> {
    if at_source.is_empty() || at_source.len() > LONGEST_AT_SOURCE {
        return Err(format!("its name is empty or longer than {LONGEST_AT_SOURCE} bytes"));
    }
    Ok(on_the_wire(source, names, at_source))
}

/// The URIs that it is about (SRC-04).
fn address(kind: Kind, at_source: &str) -> Result<Option<Address>, String> {
    match kind {
        Kind::Tool | Kind::Prompt => Ok(None),
        Kind::Resource => match CanonicalUri::parse(at_source) {
            Ok(uri) => Ok(Some(Address::One(uri))),
            Err(error) => Err(error.to_string()),
        },
        Kind::Template => match UriTemplate::parse(at_source) {
            Ok(template) => Ok(Some(Address::All(template))),
            Err(error) => Err(error.to_string()),
        },
    }
}

/// The arguments of a tool that go in headers too, and whether older revisions lack what describes its results.
fn schemas(members: &Members<'_>) -> Result<(Vec<Mirrored>, bool), String> {
    let schema =
        members.get("inputSchema").and_then(|schema| serde_json::from_str::<Value>(schema.get()).ok());
    let schema = schema.filter(Value::is_object).ok_or("its `inputSchema` is not an object")?;
    let modern_output = members.get("outputSchema").is_some_and(|schema| !is_object_schema(schema));
    Ok((Mirrored::checked(&schema)?, modern_output))
}

/// What lists show: another name, if there is one, and icons that come along.
fn listed(members: &Members<'_>, name: &str) -> serde_json::Result<Box<RawValue>> {
    let quoted = serde_json::to_string(name)?;
    let icons = members.get("icons").map(own_icons);
    let listed = members.edited(|member| match (member, &icons) {
        ("name", _) if !name.is_empty() => Edit::Replace(&quoted),
        ("icons", Some(Some(icons))) => Edit::Replace(icons),
        ("icons", Some(None)) => Edit::Drop,
        _ => Edit::Keep,
    });
    RawValue::from_string(format!("{{{listed}}}"))
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

fn title(members: &Members<'_>, kind: Kind) -> Option<String> {
    let annotated = || Members::of(members.get("annotations")?.get())?.text("title");
    // A resource is called by its URI, and its name is for people.
    let name = || members.text("name").filter(|_| matches!(kind, Kind::Resource | Kind::Template));
    members.text("title").or_else(annotated).or_else(name).filter(|title| !title.trim().is_empty())
}

/// Older revisions only support object schemas.
fn is_object_schema(schema: &RawValue) -> bool {
    Members::of(schema.get()).and_then(|schema| schema.text("type")).is_some_and(|kind| kind == "object")
}

/// The icons that are included in the definition; a link to another host would reveal its readers (SRC-05).
pub(super) fn own_icons(icons: &RawValue) -> Option<String> {
    let own = |icon: &&RawValue| {
        let source = Members::of(icon.get()).and_then(|icon| icon.text("src"));
        source.is_some_and(|source| source.starts_with("data:"))
    };
    let icons: Vec<&str> = members::items(icons.get())?.into_iter().filter(own).map(RawValue::get).collect();
    (!icons.is_empty()).then(|| format!("[{}]", icons.join(",")))
}

/// The offers for these definitions, and the tools that are left out.
pub(crate) fn offers(
    source: &str,
    names: Names,
    written: &[(Kind, Box<RawValue>)],
) -> (Vec<Arc<Offer>>, Vec<LeftOut>) {
    let (mut offers, mut left_out) = (Vec::<Arc<Offer>>::new(), Vec::new());
    let mut taken = HashMap::<(Kind, Arc<str>), Arc<str>>::new();
    for (kind, written) in written {
        let offer = match offer(source, names, *kind, written) {
            Ok(offer) => offer,
            Err(reason) => {
                left_out.push(reason);
                continue;
            }
        };
        match taken.entry((*kind, Arc::clone(&offer.name))) {
            Entry::Occupied(first) => {
                let why = format!("it would be called `{}`, as `{}` is", offer.name, first.get());
                left_out.push(LeftOut { kind: *kind, name: offer.at_source.to_string(), why });
            }
            Entry::Vacant(free) => {
                free.insert(Arc::clone(&offer.at_source));
                offers.push(Arc::new(offer));
            }
        }
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

    /// SRC-05: only the name changes, and icons on other hosts are removed.
    #[test]
    fn a_definition_keeps_its_members() {
        let written = r#"{"vendor":{"x": 1.0},"name":"get.it","inputSchema":{"type":"object" },"execution":{"taskSupport":"optional"},"icons":[{"src":"https://a.example/i.png"},{"src":"data:image/png;base64,AA"}],"_meta":{"a":[ ]}}"#;
        let offer = offer("jira", Names::Prefixed, Kind::Tool, &raw(written)).unwrap();
        assert_eq!(
            (&*offer.name, &*offer.at_source, offer.title.as_str()),
            ("jira_get_it", "get.it", "get.it")
        );
        let listed = r#"{"vendor":{"x": 1.0},"name":"jira_get_it","inputSchema":{"type":"object" },"execution":{"taskSupport":"optional"},"icons":[{"src":"data:image/png;base64,AA"}],"_meta":{"a":[ ]}}"#;
        assert_eq!(offer.listed.get(), listed);
        assert_eq!(offer.effect, Effect::Writes);
        let written = r#"{"name":"x","inputSchema":{},"icons":[{"src":"http://a.example"}],"annotations":{"title":"X!","readOnlyHint":true}}"#;
        let offer = super::offer("jira", Names::Bare, Kind::Tool, &raw(written)).unwrap();
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

    /// SRC-05, MCP-11: a bad definition is left out with its reason, and the others are not.
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
            let left_out =
                offer("s", Names::Prefixed, Kind::Tool, &raw(bad)).map(|offer| offer.name).unwrap_err();
            assert!(!left_out.why.is_empty(), "{bad}");
        }
        let good = header(json!({ "properties": { "x-mcp-header": { "type": "string", "x-mcp-header": "A" },
            "o": { "properties": { "n": { "type": "integer", "x-mcp-header": "N" } } } } }));
        let written: Vec<_> = bad.iter().chain([&good, &good]).map(|text| (Kind::Tool, raw(text))).collect();
        let (offers, left_out) = offers("s", Names::Prefixed, &written);
        assert_eq!((offers.len(), left_out.len()), (1, bad.len() + 1));
        assert_eq!(offers[0].mirrored.len(), 2);
    }

    /// SRC-03, SRC-05: a prompt has another name here and is otherwise as it was written.
    #[test]
    fn a_prompt_is_named_like_a_tool() {
        let written = r#"{"name":"re view","arguments":[{"name":"code","x":1 }],"icons":[{"src":"http://a.example"}],"later":[ ]}"#;
        let offer = offer("ci", Names::Prefixed, Kind::Prompt, &raw(written)).unwrap();
        assert_eq!(
            (&*offer.name, offer.title.as_str(), offer.effect),
            ("ci_re_view", "re view", Effect::ReadOnly)
        );
        assert_eq!(
            offer.listed.get(),
            r#"{"name":"ci_re_view","arguments":[{"name":"code","x":1 }],"later":[ ]}"#
        );
        assert_eq!(offer.named_arguments().into_iter().collect::<Vec<_>>(), ["code"]);
        let bare = super::offer("ci", Names::Bare, Kind::Prompt, &raw(r#"{"name":"a"}"#)).unwrap();
        assert_eq!((&*bare.name, bare.named_arguments().len()), ("a", 0));
    }

    /// SRC-04, SRC-05: URIs and templates pass verbatim, and rules call a resource by its source and canonical URI.
    #[test]
    fn a_resource_keeps_its_uri() {
        let written = r#"{"uri":"DB://Host/Row","name":"a.b","title":"Row","size":1.0}"#;
        let resource = offer("db", Names::Prefixed, Kind::Resource, &raw(written)).unwrap();
        assert_eq!((&*resource.name, &*resource.at_source), ("db_db://host/Row", "DB://Host/Row"));
        assert_eq!((resource.listed.get(), resource.title.as_str()), (written, "Row"));
        let written = r#"{"uriTemplate":"DB://Host/{Table}","name":"Rows"}"#;
        let template = offer("db", Names::Bare, Kind::Template, &raw(written)).unwrap();
        assert_eq!((&*template.name, template.title.as_str()), ("db_DB://Host/{Table}", "Rows"));
        assert_eq!(template.listed.get(), written);
    }

    /// SRC-04: what could be read as another URI is left out, and the rest is not; of two URIs that differ in the case of the
    /// host the first counts.
    #[test]
    fn a_resource_with_a_bad_uri_is_left_out_alone() {
        let of = |kind, texts: &[&str]| {
            let written: Vec<_> = texts.iter().map(|text| (kind, raw(text))).collect();
            let (offers, left_out) = offers("s", Names::Prefixed, &written);
            assert!(left_out.iter().all(|one| one.kind == kind && !one.why.is_empty()), "{left_out:?}");
            (offers.len(), left_out.len())
        };
        let resources = [
            "{}",
            r#"{"uri":7}"#,
            r#"{"uri":""}"#,
            r#"{"uri":"/etc"}"#,
            r#"{"uri":"a:x","uri":"a:y"}"#,
            r#"{"uri":"file:///a/../b"}"#,
            r#"{"uri":"a:b"}"#,
            r#"{"uri":"x://H/A"}"#,
            r#"{"uri":"x://h/A"}"#,
        ];
        assert_eq!(of(Kind::Resource, &resources), (2, 7));
        let templates = [
            "{}",
            r#"{"uriTemplate":"{+everything}"}"#,
            r#"{"uriTemplate":"a:{"}"#,
            r#"{"uriTemplate":"a:{b}"}"#,
            r#"{"uriTemplate":"a:{b}"}"#,
        ];
        assert_eq!(of(Kind::Template, &templates), (1, 4));
    }
}
