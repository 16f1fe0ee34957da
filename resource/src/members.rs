//! The members of a JSON object as raw text. Unknown members are copied byte for byte and in order (SRC-05).

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

/// An object's members in order, without repetitions.
#[derive(Debug, Default)]
pub(crate) struct Members<'j>(Vec<Member<'j>>);

#[derive(Debug)]
struct Member<'j> {
    /// The name as written, with its quotes.
    written: &'j str,
    name: String,
    value: &'j RawValue,
}

/// An edit of a member.
pub(crate) enum Edit<'t> {
    Keep,
    Drop,
    /// Replaces its value by this JSON.
    Replace(&'t str),
}

impl<'j> Members<'j> {
    /// Parses one object; `None` if the text is something else, or repeats a name.
    pub(crate) fn of(text: &'j str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The value of a member.
    pub(crate) fn get(&self, name: &str) -> Option<&'j RawValue> {
        self.0.iter().find(|member| member.name == name).map(|member| member.value)
    }

    /// The value of a string member.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    /// The members after these edits, without the braces.
    pub(crate) fn edited<'t>(&self, edit: impl Fn(&str) -> Edit<'t>) -> String {
        let room = self.0.iter().map(|member| member.written.len() + member.value.get().len() + 2).sum();
        let mut text = String::with_capacity(room);
        for Member { written, name, value } in &self.0 {
            let value = match edit(name) {
                Edit::Keep => value.get(),
                Edit::Drop => continue,
                Edit::Replace(value) => value,
            };
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(written);
            text.push(':');
            text.push_str(value);
        }
        text
    }
}

/// The items of an array as raw text; `None` if the text is something else.
pub(crate) fn items(text: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(text).ok()
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let (mut members, mut names) = (Vec::new(), HashSet::new());
                while let Some(written) = map.next_key::<&RawValue>()? {
                    let name: String = serde_json::from_str(written.get()).map_err(A::Error::custom)?;
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom("a member occurs twice"));
                    }
                    members.push(Member { written: written.get(), name, value: map.next_value()? });
                }
                Ok(Members(members))
            }
        }

        reader.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(text: &str) -> Option<String> {
        Members::of(text).map(|members| format!("{{{}}}", members.edited(|_| Edit::Keep)))
    }

    /// SRC-05: bytes and order are kept.
    #[test]
    fn members_keep_their_bytes_and_their_order() {
        for text in [
            "{}",
            r#"{"z":1.50e+2,"a":{ "b" : [1,  2] },"\u0041é":"\u00e9","n":null,"big":123456789012345678901234567890}"#,
        ] {
            assert_eq!(kept(text).as_deref(), Some(text));
        }
        assert_eq!(kept("{ \"a\" : 1 ,\n\"b\": [ ] }").as_deref(), Some(r#"{"a":1,"b":[ ]}"#));
        let members = Members::of(r#"{"name":"x","b":2,"_meta":{"c":3}}"#).unwrap();
        let edited = members.edited(|name| match name {
            "name" => Edit::Replace("\"y\""),
            "b" => Edit::Drop,
            _ => Edit::Keep,
        });
        assert_eq!(edited, r#""name":"y","_meta":{"c":3}"#);
        assert_eq!(members.text("name").as_deref(), Some("x"));
        assert_eq!(members.text("b"), None);
    }

    /// SRC-05: ambiguous text is refused.
    #[test]
    fn other_values_than_objects_are_refused() {
        for bad in ["", "[]", "7", "{", "{} {}", r#"{"a":1,"a":2}"#, r#"{"a":1,"\u0061":2}"#, r#"{"a":}"#] {
            assert_eq!(kept(bad), None, "{bad}");
        }
    }

    proptest! {
        /// SRC-05: for any names and values.
        #[test]
        fn any_members_are_kept(members in proptest::collection::btree_map("\\PC{0,8}", any::<f64>(), 0..12)) {
            let written = members.iter().map(|(name, value)| {
                format!("{}:[ {} ]", serde_json::to_string(name).unwrap(), serde_json::to_string(value).unwrap())
            });
            let text = format!("{{{}}}", written.collect::<Vec<_>>().join(","));
            prop_assert_eq!(kept(&text), Some(text));
        }
    }
}
