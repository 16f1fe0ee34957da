//! A tool's result, from how its server wrote it to how a client of either era may read it (SRC-05, SRC-06).

use serde_json::Value;
use serde_json::value::RawValue;

use super::definition::own_icons;
use super::failed::shown;
use crate::members::{self, Edit, Members};
use crate::revision::{Era, SERVER_META};
use crate::sources::Outcome;

/// Keys of a result's `_meta` that speak of the connection to the upstream.
const OURS: [&str; 2] = [SERVER_META, "io.modelcontextprotocol/subscriptionId"];

/// A result that cannot be handed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unfit {
    /// It is not an object, or names a member twice.
    Unreadable,
    /// The tool wants something from whoever calls it before it goes on.
    InputRequired,
    /// A kind that is not known here: 2026-07-28 says that it "MUST be considered invalid".
    Kind(String),
}

impl Unfit {
    /// What the server did, in words for the model.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Unreadable => "answered with something that is not a result.".to_owned(),
            Self::InputRequired => "asks for input before it goes on, which cannot be passed on.".to_owned(),
            Self::Kind(kind) => format!("answered with a result of an unknown kind, `{kind}`."),
        }
    }
}

/// What a call came to, for a client of this era.
pub(crate) fn outcome(result: &RawValue, client: Era) -> Result<Outcome, Unfit> {
    let result = Members::of(result.get()).ok_or(Unfit::Unreadable)?;
    match result.get("resultType").map(|_| result.text("resultType").unwrap_or_default()).as_deref() {
        None | Some("complete") => {}
        Some("input_required") => return Err(Unfit::InputRequired),
        Some(other) => return Err(Unfit::Kind(shown(other))),
    }
    let content = result.get("content").and_then(|content| content_for(content, client));
    let no_object =
        |name: &str| result.get(name).is_some_and(|value| !value.get().trim_start().starts_with('{'));
    let drops_data = client != Era::Modern && no_object("structuredContent");
    let members = result.edited(|name| match (name, &content) {
        ("resultType" | "_meta", _) => Edit::Drop,
        ("structuredContent", _) if drops_data => Edit::Drop,
        ("content", Some(content)) => Edit::Replace(content),
        _ => Edit::Keep,
    });
    let meta = result.get("_meta").and_then(|meta| Members::of(meta.get())).unwrap_or_default();
    let meta = meta.edited(|name| if OURS.contains(&name) { Edit::Drop } else { Edit::Keep });
    let is_error = result.get("isError").is_some_and(|value| value.get() == "true");
    Ok(Outcome::Result { members: members.into_bytes(), meta, is_error })
}

/// The content, if some of it is changed: icons that lie elsewhere go, and where links are not known yet
/// (2025-03-26) a link becomes text.
fn content_for(content: &RawValue, client: Era) -> Option<String> {
    let no_links = client == Era::Legacy("2025-03-26");
    let text = content.get();
    if !(text.contains("\"icons\"") || no_links && text.contains("resource_link")) {
        return None;
    }
    let one = |item: &&RawValue| {
        let Some(members) = Members::of(item.get()) else { return item.get().to_owned() };
        if no_links && members.text("type").as_deref() == Some("resource_link") {
            let (name, uri) =
                (members.text("name").unwrap_or_default(), members.text("uri").unwrap_or_default());
            return format!(r#"{{"type":"text","text":{}}}"#, Value::from(format!("{name}: {uri}")));
        }
        let icons = members.get("icons").map(own_icons);
        let edited = members.edited(|name| match (name, &icons) {
            ("icons", Some(Some(icons))) => Edit::Replace(icons),
            ("icons", Some(None)) => Edit::Drop,
            _ => Edit::Keep,
        });
        format!("{{{edited}}}")
    };
    let items: Vec<String> = members::items(text)?.iter().map(one).collect();
    Some(format!("[{}]", items.join(",")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLDEST: Era = Era::Legacy("2025-03-26");
    const NEWEST_LEGACY: Era = Era::Legacy("2025-11-25");

    fn of(text: &str, client: Era) -> Result<(String, String, bool), Unfit> {
        match outcome(&RawValue::from_string(text.to_owned()).unwrap(), client)? {
            Outcome::Result { members, meta, is_error } => {
                Ok((String::from_utf8(members).unwrap(), meta, is_error))
            }
            other => panic!("{other:?}"),
        }
    }

    /// SRC-05, SRC-06: what changes is the protocol's own; what is not known stays as it was written.
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

    /// SRC-06: what a revision does not know is converted for its clients.
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

    /// SRC-06
    #[test]
    fn what_cannot_be_handed_on_is_not() {
        for (written, why) in [
            ("7", Unfit::Unreadable),
            ("[]", Unfit::Unreadable),
            (r#"{"isError":false,"isError":true}"#, Unfit::Unreadable),
            (r#"{"resultType":"input_required"}"#, Unfit::InputRequired),
            (r#"{"resultType":"task"}"#, Unfit::Kind("task".to_owned())),
            (r#"{"resultType":7}"#, Unfit::Kind(String::new())),
        ] {
            assert_eq!(of(written, Era::Modern), Err(why), "{written}");
        }
    }

    /// JSON that nobody here knows, with white space where it may be.
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

    proptest! {
        /// SRC-05: unknown members and content types pass byte for byte, and in order, to clients of every era.
        #[test]
        fn what_is_not_known_passes_unchanged(
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
    }
}
