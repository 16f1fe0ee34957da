//! Strict JSON parsing: no repeated names, bounded depth and size (MCP-03, CIMD-04).

mod numbers;

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::work::{self, Work};

/// The deepest nesting that is accepted.
const DEEPEST: usize = 32;
/// The most object members, counted over the whole document.
const MOST_MEMBERS: usize = 1000;

/// Why a text was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("the body is empty; send one JSON-RPC object")]
    Empty,
    #[error("the body is not UTF-8")]
    NotUtf8,
    #[error("the body is not JSON")]
    NotJson,
    #[error("the body is an array; send each JSON-RPC message in its own request")]
    Batch,
    #[error("the body is not a JSON object")]
    NotAnObject,
    #[error("the member name `{0}` occurs twice in one object")]
    Duplicate(String),
    #[error("the body is nested deeper than {DEEPEST} levels")]
    TooDeep,
    #[error("the body has more than {MOST_MEMBERS} members")]
    TooManyMembers,
    #[error(
        "the number {0} cannot be passed on exactly; send an integer of at most 64 bits, a number of double precision, or a string"
    )]
    Inexact(String),
    #[error("the body lacks a required member, or a member has the wrong type")]
    Unexpected,
}

/// Parses one JSON object.
///
/// # Errors
/// See [`Unreadable`].
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, Unreadable> {
    let text = std::str::from_utf8(bytes).map_err(|_| Unreadable::NotUtf8)?;
    if text.trim_ascii().is_empty() {
        return Err(Unreadable::Empty);
    }
    let limits = Limits::default();
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict { depth: 1, limits: &limits }.deserialize(&mut reader).and_then(|value| {
        reader.end()?;
        Ok(value)
    });
    match value {
        Ok(Value::Object(members)) => Ok(members),
        Ok(Value::Array(_)) => Err(Unreadable::Batch),
        Ok(_) => Err(Unreadable::NotAnObject),
        Err(_) => Err(limits.exceeded.take().unwrap_or(Unreadable::NotJson)),
    }
}

/// Parses one JSON object that is written again later: every number must stay what it is (MCP-07).
///
/// # Errors
/// See [`Unreadable`].
pub fn exact_object(bytes: &[u8]) -> Result<Map<String, Value>, Unreadable> {
    let members = object(bytes)?;
    let text = std::str::from_utf8(bytes).map_err(|_| Unreadable::NotUtf8)?;
    match numbers::first_changed(text) {
        Some(number) => Err(Unreadable::Inexact(number.chars().take(64).collect())),
        None => Ok(members),
    }
}

/// Parses one JSON object into a type. Unknown members count towards the limits too.
///
/// # Errors
/// See [`Unreadable`]; [`Unreadable::Unexpected`] if it does not match the type.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    let members = object(bytes)?;
    serde_json::from_value(Value::Object(members)).map_err(|_| Unreadable::Unexpected)
}

#[derive(Default)]
struct Limits {
    members: Cell<usize>,
    /// Set if a limit of ours stopped the parser, because serde's error is only text.
    exceeded: RefCell<Option<Unreadable>>,
}

impl Limits {
    fn refuse<E: de::Error>(&self, why: Unreadable) -> E {
        let error = E::custom(&why);
        self.exceeded.replace(Some(why));
        error
    }
}

/// Reads one value whose container would be at `depth`.
#[derive(Clone, Copy)]
struct Strict<'l> {
    depth: usize,
    limits: &'l Limits,
}

impl Strict<'_> {
    fn inside<E: de::Error>(self) -> Result<Self, E> {
        if self.depth > DEEPEST {
            return Err(self.limits.refuse(Unreadable::TooDeep));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut read = Vec::new();
        while let Some(item) = items.next_element_seed(inside)? {
            read.push(item);
        }
        Ok(Value::Array(read))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut read = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let count = self.limits.members.get() + 1;
            self.limits.members.set(count);
            if count > MOST_MEMBERS {
                return Err(self.limits.refuse(Unreadable::TooManyMembers));
            }
            work::done(Work::Member);
            if read.contains_key(&name) {
                return Err(self.limits.refuse(Unreadable::Duplicate(name.chars().take(64).collect())));
            }
            let value = members.next_value_seed(inside)?;
            read.insert(name, value);
        }
        Ok(Value::Object(read))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// MCP-03: everything that is not exactly one object is refused.
    #[test]
    fn other_texts_than_one_object_are_refused() {
        let nested = |levels: usize| {
            format!("{{\"a\":{}1{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1)).into_bytes()
        };
        let members = |count: usize| {
            let members: Vec<_> = (0..count).map(|i| format!("\"{i}\":0")).collect();
            format!("{{{}}}", members.join(",")).into_bytes()
        };
        let cases: [(&[u8], Unreadable); 19] = [
            (b"", Unreadable::Empty),
            (b" \r\n\t", Unreadable::Empty),
            (b"[]", Unreadable::Batch),
            (br#"[{"jsonrpc":"2.0"}]"#, Unreadable::Batch),
            (b"null", Unreadable::NotAnObject),
            (b"\"x\"", Unreadable::NotAnObject),
            (b"{", Unreadable::NotJson),
            (b"{} {}", Unreadable::NotJson),
            (b"{}x", Unreadable::NotJson),
            (b"{'a':1}", Unreadable::NotJson),
            (b"{\"a\":1,}", Unreadable::NotJson),
            (b"{\"a\":NaN}", Unreadable::NotJson),
            (b"{\"a\":1e999}", Unreadable::NotJson),
            (b"\xef\xbb\xbf{}", Unreadable::NotJson),
            (b"{\"a\":\"\xff\"}", Unreadable::NotUtf8),
            (br#"{"a":"\ud800"}"#, Unreadable::NotJson),
            (br#"{"a":1,"\u0061":2}"#, Unreadable::Duplicate("a".into())),
            (&nested(33), Unreadable::TooDeep),
            (&members(1001), Unreadable::TooManyMembers),
        ];
        for (text, expected) in cases {
            assert_eq!(object(text).unwrap_err(), expected, "{}", String::from_utf8_lossy(text));
        }
        object(&nested(32)).unwrap();
        object(&members(1000)).unwrap();
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i32>().prop_map(|n| Value::from(f64::from(n) / 4.0)),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Writes a value with one repeated member; `None` if it has no members.
    fn with_a_duplicate(value: &Value) -> Option<String> {
        match value {
            Value::Object(members) => {
                let (name, first) = members.iter().next()?;
                let rest: Vec<_> = members.iter().map(|(k, v)| format!("{}:{v}", json!(k))).collect();
                Some(match with_a_duplicate(first) {
                    Some(deeper) => format!("{{{}:{deeper}}}", json!(name)),
                    None => format!("{{{},{}:null}}", rest.join(","), json!(name)),
                })
            }
            Value::Array(items) => items.iter().find_map(with_a_duplicate).map(|inner| format!("[{inner}]")),
            _ => None,
        }
    }

    proptest! {
        /// MCP-03: no input causes a panic, and a parsed value is unchanged by writing and parsing it again.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(read) = object(&bytes) {
                prop_assert_eq!(object(&serde_json::to_vec(&read).unwrap()).unwrap(), read);
            }
        }

        /// As above, with text close to JSON.
        #[test]
        fn any_json_like_text_is_read_or_refused(text in r#"[\[\]{}:,"a1\\u0 .e-]{0,60}"#) {
            let ours = object(text.as_bytes());
            let theirs = serde_json::from_str::<Map<String, Value>>(&text);
            // For every accepted text: a lenient parser accepts with the same meaning.
            if let Ok(ours) = ours {
                prop_assert_eq!(ours, theirs.unwrap());
            }
        }

        /// MCP-07: parsing keeps the meaning.
        #[test]
        fn reading_keeps_the_meaning(value in value()) {
            let sent = json!({ "v": value });
            let read = object(&serde_json::to_vec(&sent).unwrap()).unwrap();
            prop_assert_eq!(&Value::Object(read.clone()), &sent);
            prop_assert_eq!(object(&serde_json::to_vec(&read).unwrap()).unwrap(), read);
        }

        /// MCP-03: a repeated member is refused at any depth.
        #[test]
        fn a_duplicate_is_refused_wherever_it_is(value in value()) {
            let sent = json!({ "v": value, "w": {} });
            let text = with_a_duplicate(&sent).unwrap();
            prop_assert!(matches!(object(text.as_bytes()), Err(Unreadable::Duplicate(_))), "{}", text);
        }
    }
}
