//! Definitions in lists: the source's bytes, in which a rule may replace title and description (POL-01). Every
//! other member stays byte for byte and in its place (SRC-05).

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A definition with this title and description, if they are given.
pub(super) fn shown(definition: &RawValue, title: Option<&str>, description: Option<&str>) -> Box<RawValue> {
    let texts = [("title", title), ("description", description)];
    texts.into_iter().fold(definition.to_owned(), |definition, (member, text)| match text {
        Some(text) => with_member(&definition, member, text),
        None => definition,
    })
}

/// The object with this text as the member's value: in its place, or at the end if it has none.
fn with_member(object: &RawValue, member: &str, text: &str) -> Box<RawValue> {
    let value = serde_json::to_string(text).expect("a text is JSON");
    let source = object.get();
    let Ok(values) = values_of(source, member) else { return object.to_owned() };
    let mut written = source.to_owned();
    // From the end, so that earlier positions stay valid.
    for place in values.iter().rev() {
        written.replace_range(place.clone(), &value);
    }
    if values.is_empty() {
        let end = written.rfind('}').unwrap_or(written.len());
        let comma = if source[1..end].trim_matches(WHITESPACE).is_empty() { "" } else { "," };
        written.insert_str(end, &format!("{comma}\"{member}\":{value}"));
    }
    RawValue::from_string(written).unwrap_or_else(|_| object.to_owned())
}

/// JSON's white space.
const WHITESPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// The positions of a member's values in the text of an object.
fn values_of(object: &str, member: &str) -> serde_json::Result<Vec<Range<usize>>> {
    struct Values<'v>(&'v str, &'v str);
    impl<'de> Visitor<'de> for Values<'de> {
        type Value = Vec<Range<usize>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
            let mut found = Vec::new();
            while let Some((name, value)) = members.next_entry::<Cow<'de, str>, &'de RawValue>()? {
                if name == self.1 {
                    let start = value.get().as_ptr().addr() - self.0.as_ptr().addr();
                    found.push(start..start + value.get().len());
                }
            }
            Ok(found)
        }
    }
    serde_json::Deserializer::from_str(object).deserialize_map(Values(object, member))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    /// POL-01, SRC-05: only the two members change; unknown ones, their order and their spelling stay.
    #[test]
    fn overrides_leave_every_other_byte() {
        let source = r#"{ "name":"a" , "title" : "Old","inputSchema":{"title":"inner","x":1.50e1},"descr\u0069ption":"was" ,"x-vendor":[ 1,2 ]}"#;
        assert_eq!(shown(&raw(source), None, None).get(), source);
        assert_eq!(
            shown(&raw(source), Some("New \"one\""), Some("Better")).get(),
            r#"{ "name":"a" , "title" : "New \"one\"","inputSchema":{"title":"inner","x":1.50e1},"descr\u0069ption":"Better" ,"x-vendor":[ 1,2 ]}"#
        );
        assert_eq!(shown(&raw(r#"{"name":"a"}"#), Some("T"), None).get(), r#"{"name":"a","title":"T"}"#);
        assert_eq!(shown(&raw("{ }"), Some("T"), None).get(), r#"{ "title":"T"}"#);
        // A brace inside a string does not end the object.
        assert_eq!(shown(&raw(r#"{"a":"}"}"#), None, Some("D")).get(), r#"{"a":"}","description":"D"}"#);
        // With a repeated member, readers might use either one.
        assert_eq!(
            shown(&raw(r#"{"title":"a","title":"b"}"#), Some("T"), None).get(),
            r#"{"title":"T","title":"T"}"#
        );
    }

    proptest! {
        /// POL-01: for any definition, the two members have the rule's text and the rest is equal.
        #[test]
        fn any_definition_keeps_its_other_members(
            members in proptest::collection::vec(("[a-z\"\\\\]{0,6}|title|description", any::<i64>()), 0..6),
            title in ".{0,12}",
        ) {
            let written: Vec<_> = members.iter().map(|(name, value)| format!("{}: {value}", json!(name))).collect();
            let shown = shown(&raw(&format!("{{{}}}", written.join(" ,"))), Some(&title), None);
            let mut after: Value = serde_json::from_str(shown.get()).unwrap();
            let mut before: Value = serde_json::from_str(&format!("{{{}}}", written.join(","))).unwrap();
            prop_assert_eq!(after.as_object_mut().unwrap().remove("title"), Some(json!(title)));
            before.as_object_mut().unwrap().remove("title");
            prop_assert_eq!(before, after);
        }
    }
}
