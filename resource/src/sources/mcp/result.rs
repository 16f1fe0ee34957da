//! A result, from how its server wrote it to how a client of either era may read it (SRC-05, SRC-06).

mod links;

use serde_json::Value;
use serde_json::value::RawValue;

use super::definition::own_icons;
use super::failed::shown;
use crate::members::{self, Edit, Members};
use crate::revision::{Era, SERVER_META};
use crate::sources::Outcome;

/// Keys of a result's `_meta` that are about the connection to the upstream.
const OURS: [&str; 2] = [SERVER_META, "io.modelcontextprotocol/subscriptionId"];

/// Why a result cannot be passed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum UnusableResult {
    /// It is not an object, or repeats a member.
    Unreadable,
    /// The tool asks its caller for input before it continues.
    InputRequired,
    /// An unknown kind: 2026-07-28 says that it "MUST be considered invalid".
    Kind(String),
}

impl UnusableResult {
    /// The reason, in words for the model.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Unreadable => "answered with something that is not a result.".to_owned(),
            Self::InputRequired => "asks for input before it goes on, which cannot be passed on.".to_owned(),
            Self::Kind(kind) => format!("answered with a result of an unknown kind, `{kind}`."),
        }
    }
}

/// What a result is of, because each method has a shape of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    Tool,
    Prompt,
    Resource,
    Completion,
}

/// What a request came to, for a client of this era.
pub(crate) fn outcome(result: &RawValue, shape: Shape, client: Era) -> Result<Outcome, UnusableResult> {
    let result = Members::of(result.get()).ok_or(UnusableResult::Unreadable)?;
    match result.get("resultType").map(|_| result.text("resultType").unwrap_or_default()).as_deref() {
        None | Some("complete") => {}
        Some("input_required") => return Err(UnusableResult::InputRequired),
        Some(other) => return Err(UnusableResult::Kind(shown(other))),
    }
    let blocks = match shape {
        Shape::Tool => result.get("content").and_then(|content| blocks_for(content, client)),
        Shape::Prompt => result.get("messages").and_then(|messages| messages_for(messages, client)),
        Shape::Resource | Shape::Completion => None,
    };
    let no_object =
        |name: &str| result.get(name).is_some_and(|value| !value.get().trim_start().starts_with('{'));
    let drops_data = client != Era::Modern && no_object("structuredContent");
    let fresh = result.get("ttlMs").is_some_and(|value| value.get().parse::<u64>().is_ok());
    let mut members = result.edited(|name| match (name, &blocks, shape) {
        ("resultType" | "_meta", ..) => Edit::Drop,
        ("structuredContent", _, Shape::Tool) if drops_data => Edit::Drop,
        ("content", Some(blocks), Shape::Tool) | ("messages", Some(blocks), Shape::Prompt) => {
            Edit::Replace(blocks)
        }
        ("ttlMs" | "cacheScope", _, Shape::Resource) if client != Era::Modern => Edit::Drop,
        ("ttlMs", _, Shape::Resource) if !fresh => Edit::Replace("0"),
        // Who may read it was decided for this caller alone.
        ("cacheScope", _, Shape::Resource) => Edit::Replace(r#""private""#),
        _ => Edit::Keep,
    });
    if shape == Shape::Resource && client == Era::Modern {
        // 2026-07-28 caching: "servers MUST include caching hints".
        for (name, hint) in [("ttlMs", r#""ttlMs":0"#), ("cacheScope", r#""cacheScope":"private""#)] {
            if result.get(name).is_none() {
                members.push_str(if members.is_empty() { "" } else { "," });
                members.push_str(hint);
            }
        }
    }
    let meta = result.get("_meta").and_then(|meta| Members::of(meta.get())).unwrap_or_default();
    let meta = meta.edited(|name| if OURS.contains(&name) { Edit::Drop } else { Edit::Keep });
    let is_error = result.get("isError").is_some_and(|value| value.get() == "true");
    let links = links::in_result(&result, shape);
    Ok(Outcome::Result { members: members.into_bytes(), meta, is_error, links })
}

/// Content blocks, if some of them are changed: icons that lie elsewhere go, and where links are not known yet
/// (2025-03-26) a link becomes text.
fn blocks_for(blocks: &RawValue, client: Era) -> Option<String> {
    if !is_changed(blocks, client) {
        return None;
    }
    let blocks: Vec<String> =
        members::items(blocks.get())?.into_iter().map(|block| block_for(block, client)).collect();
    Some(format!("[{}]", blocks.join(",")))
}

/// The same for the messages of a prompt, each of which has one block.
fn messages_for(messages: &RawValue, client: Era) -> Option<String> {
    if !is_changed(messages, client) {
        return None;
    }
    let one = |message: &RawValue| {
        let Some(members) = Members::of(message.get()) else { return message.get().to_owned() };
        let block = members.get("content").map(|block| block_for(block, client));
        let edited = members.edited(|name| match (name, &block) {
            ("content", Some(block)) => Edit::Replace(block),
            _ => Edit::Keep,
        });
        format!("{{{edited}}}")
    };
    let messages: Vec<String> = members::items(messages.get())?.into_iter().map(one).collect();
    Some(format!("[{}]", messages.join(",")))
}

fn has_no_links(client: Era) -> bool {
    client == Era::Legacy("2025-03-26")
}

fn is_changed(blocks: &RawValue, client: Era) -> bool {
    let text = blocks.get();
    text.contains("\"icons\"") || has_no_links(client) && text.contains("resource_link")
}

fn block_for(block: &RawValue, client: Era) -> String {
    let Some(members) = Members::of(block.get()) else { return block.get().to_owned() };
    if has_no_links(client) && members.text("type").as_deref() == Some("resource_link") {
        let (name, uri) = (members.text("name").unwrap_or_default(), members.text("uri").unwrap_or_default());
        return format!(r#"{{"type":"text","text":{}}}"#, Value::from(format!("{name}: {uri}")));
    }
    let icons = members.get("icons").map(own_icons);
    if icons.is_none() {
        return block.get().to_owned();
    }
    let edited = members.edited(|name| match (name, &icons) {
        ("icons", Some(Some(icons))) => Edit::Replace(icons),
        ("icons", Some(None)) => Edit::Drop,
        _ => Edit::Keep,
    });
    format!("{{{edited}}}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLDEST: Era = Era::Legacy("2025-03-26");
    const NEWEST_LEGACY: Era = Era::Legacy("2025-11-25");

    fn of(text: &str, client: Era) -> Result<(String, String, bool), UnusableResult> {
        shaped(text, Shape::Tool, client)
    }

    fn shaped(text: &str, shape: Shape, client: Era) -> Result<(String, String, bool), UnusableResult> {
        match outcome(&RawValue::from_string(text.to_owned()).unwrap(), shape, client)? {
            Outcome::Result { members, meta, is_error, links: _ } => {
                Ok((String::from_utf8(members).unwrap(), meta, is_error))
            }
            other => panic!("{other:?}"),
        }
    }

    /// SRC-05, SRC-06: only members of the protocol change; unknown ones stay as written.
    #[test]
    fn a_result_keeps_its_members() {
        let written = r#"{"resultType":"complete","vendor":1.50,"content":[{"type":"hologram","x": 1 }],"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"x"},"a.example/b":[ 1 ]},"isError":true}"#;
        for era in [Era::Modern, NEWEST_LEGACY, OLDEST] {
            let (members, meta, is_error) = of(written, era).unwrap();
            assert_eq!(members, r#""vendor":1.50,"content":[{"type":"hologram","x": 1 }],"isError":true"#);
            assert_eq!((meta.as_str(), is_error), (r#""a.example/b":[ 1 ]"#, true));
        }
        assert_eq!(of("{}", Era::Modern).unwrap(), (String::new(), String::new(), false));
    }

    /// SRC-06: features that a client's revision lacks are converted.
    #[test]
    fn a_result_fits_the_era_of_its_client() {
        let written = r#"{"content":[{"type":"resource_link","uri":"db://t/1","name":"Row","later":1},{"type":"text","text":"resource_link"}],"structuredContent":[1]}"#;
        assert_eq!(of(written, Era::Modern).unwrap().0, &written[1..written.len() - 1]);
        let dropped = written.replace(r#","structuredContent":[1]"#, "");
        assert_eq!(of(written, NEWEST_LEGACY).unwrap().0, &dropped[1..dropped.len() - 1]);
        let oldest =
            r#""content":[{"type":"text","text":"Row: db://t/1"},{"type":"text","text":"resource_link"}]"#;
        assert_eq!(of(written, OLDEST).unwrap().0, oldest);
        let object = r#"{"structuredContent": {"a":1}}"#;
        assert_eq!(of(object, OLDEST).unwrap().0, r#""structuredContent":{"a":1}"#);
        let icons =
            r#"{"content":[{"type":"resource_link","icons":[{"src":"http://x.example"}],"uri":"a:b"}]}"#;
        let without = r#""content":[{"type":"resource_link","uri":"a:b"}]"#;
        assert_eq!(of(icons, Era::Modern).unwrap().0, without);
    }

    /// SRC-06: results that cannot be passed on are refused.
    #[test]
    fn unusable_results_are_not_forwarded() {
        for (written, why) in [
            ("7", UnusableResult::Unreadable),
            ("[]", UnusableResult::Unreadable),
            (r#"{"isError":false,"isError":true}"#, UnusableResult::Unreadable),
            (r#"{"resultType":"input_required"}"#, UnusableResult::InputRequired),
            (r#"{"resultType":"task"}"#, UnusableResult::Kind("task".to_owned())),
            (r#"{"resultType":7}"#, UnusableResult::Kind(String::new())),
        ] {
            assert_eq!(of(written, Era::Modern), Err(why), "{written}");
        }
    }

    /// Arbitrary JSON, with white space where it is allowed.
    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            any::<f64>().prop_map(|n| Value::from(n).to_string()),
            "\\PC{0,12}".prop_map(|text| Value::from(text).to_string()),
            Just("1.50e+2".to_owned()),
            Just("true".to_owned()),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            let object =
                proptest::collection::btree_map("[a-z]{1,6}", inner.clone(), 0..4).prop_map(|members| {
                    let members: Vec<_> = members.iter().map(|(k, v)| format!("\"{k}\" :\n{v}")).collect();
                    format!("{{ {} }}", members.join(" , "))
                });
            let array =
                proptest::collection::vec(inner, 0..4).prop_map(|items| format!("[{}\t]", items.join(",")));
            prop_oneof![object, array]
        })
    }

    /// SRC-06, MCP-10: what is read may be cached for whom it was decided only, and older revisions have no such hints.
    #[test]
    fn read_results_are_marked_private() {
        let read = |text: &str, client| shaped(text, Shape::Resource, client).unwrap().0;
        let written = r#"{"contents":[{"uri":"a:b","text":"x"}],"ttlMs":500,"cacheScope":"public","z":1}"#;
        assert_eq!(
            read(written, Era::Modern),
            r#""contents":[{"uri":"a:b","text":"x"}],"ttlMs":500,"cacheScope":"private","z":1"#
        );
        let old = r#""contents":[{"uri":"a:b","text":"x"}],"z":1"#;
        assert_eq!(read(written, NEWEST_LEGACY), old);
        assert_eq!(
            read(&format!("{{{old}}}"), Era::Modern),
            format!(r#"{old},"ttlMs":0,"cacheScope":"private""#)
        );
        assert_eq!(read(r#"{"ttlMs":-1}"#, Era::Modern), r#""ttlMs":0,"cacheScope":"private""#);
        assert_eq!(read("{}", Era::Modern), r#""ttlMs":0,"cacheScope":"private""#);
        // A tool may use the same words for something else.
        assert_eq!(of(r#"{"ttlMs":1,"cacheScope":7}"#, OLDEST).unwrap().0, r#""ttlMs":1,"cacheScope":7"#);
    }

    /// SRC-06: the messages of a prompt fit the era of its client, as content does.
    #[test]
    fn a_prompt_fits_the_era_of_its_client() {
        let written = r#"{"messages":[{"role":"user","content":{"type":"resource_link","uri":"a:b","name":"B","icons":[{"src":"http://x.example"}]},"x":1 }]}"#;
        let prompt = |client| shaped(written, Shape::Prompt, client).unwrap().0;
        assert_eq!(
            prompt(Era::Modern),
            r#""messages":[{"role":"user","content":{"type":"resource_link","uri":"a:b","name":"B"},"x":1}]"#
        );
        let oldest = r#""messages":[{"role":"user","content":{"type":"text","text":"B: a:b"},"x":1}]"#;
        assert_eq!(prompt(OLDEST), oldest);
    }

    proptest! {
        /// SRC-05: unknown members and content types are passed on byte for byte and in order, to clients of
        /// every era.
        #[test]
        fn unknown_members_pass_unchanged(
            unknown in proptest::collection::vec(json(), 0..4),
            content in proptest::collection::vec(json(), 0..4),
        ) {
            let unknown: Vec<_> = unknown.iter().enumerate().map(|(n, value)| format!(",\"unknown{n}\":{value}")).collect();
            let items = content.iter().map(|value| format!("{{\"type\":\"x-{}\",\"value\":{value}}}", value.len()));
            let members = format!("\"content\":[{}]{}", items.collect::<Vec<_>>().join(","), unknown.concat());
            for era in [Era::Modern, NEWEST_LEGACY, OLDEST] {
                let (kept, _, _) = of(&format!("{{{members}}}"), era).unwrap();
                prop_assert_eq!(&kept, &members);
            }
        }

        /// SRC-05: the same for prompts, resources and completions.
        #[test]
        fn the_other_kinds_pass_unchanged(
            unknown in proptest::collection::vec(json(), 0..4),
            inner in proptest::collection::vec(json(), 0..4),
        ) {
            let more = |values: &[String]| {
                let members = values.iter().enumerate().map(|(n, value)| format!(",\"unknown{n}\":{value}"));
                members.collect::<Vec<_>>().concat()
            };
            for (shape, known) in [
                (Shape::Prompt, r#""messages":[{"role":"?","content":{"type":"x-new"INNER}INNER}]"#),
                (Shape::Resource, r#""contents":[{"uri":"a:b","hologram":1.50INNER}]"#),
                (Shape::Completion, r#""completion":{"values":["a"]INNER}"#),
            ] {
                let members = format!("{}{}", known.replace("INNER", &more(&inner)), more(&unknown));
                for era in [Era::Modern, NEWEST_LEGACY, OLDEST] {
                    let (kept, _, _) = shaped(&format!("{{{members}}}"), shape, era).unwrap();
                    let hints = r#","ttlMs":0,"cacheScope":"private""#;
                    let expected = match (shape, era) {
                        (Shape::Resource, Era::Modern) => format!("{members}{hints}"),
                        _ => members.clone(),
                    };
                    prop_assert_eq!(&kept, &expected);
                }
            }
        }
    }
}
