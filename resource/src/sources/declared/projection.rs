//! What is kept of an answer: the places that JSON Pointers with `*` lead to, in the answer's own shape.

use serde_json::{Map, Value};

use crate::argument_rules::{InvalidPointer, Pointer, Step};

/// The places. None at all means everything.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Projection(Vec<Pointer>);

impl Projection {
    /// # Errors
    /// If one is not a pointer.
    pub fn parse<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, InvalidPointer> {
        texts.into_iter().map(Pointer::parse).collect::<Result<_, _>>().map(Self)
    }

    /// What is at these places; null if there is nothing. The depth is that of the longest pointer, and each value is looked
    /// at once for each pointer.
    pub(crate) fn of(&self, value: Value) -> Value {
        if self.0.is_empty() {
            return value;
        }
        let paths: Vec<_> = self.0.iter().map(Pointer::steps).collect();
        kept(&value, &paths).unwrap_or_default()
    }
}

fn kept(value: &Value, paths: &[&[Step]]) -> Option<Value> {
    if paths.iter().any(|path| path.is_empty()) {
        return Some(value.clone());
    }
    let below = |name: &str| -> Vec<&[Step]> {
        let fitting = paths.iter().filter_map(|path| path.split_first());
        fitting.filter(|(step, _)| step.leads_to(name)).map(|(_, rest)| rest).collect()
    };
    match value {
        Value::Object(members) => {
            let some = members.iter().filter_map(|(name, value)| {
                let paths = below(name);
                Some((name.clone(), (!paths.is_empty()).then(|| kept(value, &paths))??))
            });
            let some: Map<_, _> = some.collect();
            (!some.is_empty()).then_some(Value::Object(some))
        }
        Value::Array(elements) => {
            let some = elements.iter().enumerate().filter_map(|(at, value)| {
                let paths = below(&at.to_string());
                (!paths.is_empty()).then(|| kept(value, &paths))?
            });
            let some: Vec<_> = some.collect();
            (!some.is_empty()).then_some(Value::Array(some))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// REST-01: an answer keeps its shape, and only what was named.
    #[test]
    fn only_the_named_places_are_kept() {
        let answer = json!({
            "key": "OPS-1",
            "fields": { "summary": "Disk", "secret": 1, "labels": ["a", "b"], "a/b": 7 },
            "issues": [{ "key": "A", "x": 1 }, { "x": 2 }, { "key": "C" }],
        });
        for (pointers, expected) in [
            (vec![], answer.clone()),
            (vec!["/key", "/fields/summary"], json!({ "key": "OPS-1", "fields": { "summary": "Disk" } })),
            (vec!["/issues/*/key"], json!({ "issues": [{ "key": "A" }, { "key": "C" }] })),
            (vec!["/issues/1"], json!({ "issues": [{ "x": 2 }] })),
            (vec!["/fields/a~1b", "/fields/labels"], json!({ "fields": { "a/b": 7, "labels": ["a", "b"] } })),
            (vec!["/fields/*"], json!({ "fields": answer["fields"] })),
            (vec!["/nothing", "/key/deeper", "/issues/key"], Value::Null),
        ] {
            assert_eq!(
                Projection::parse(pointers.clone()).unwrap().of(answer.clone()),
                expected,
                "{pointers:?}"
            );
        }
        for bad in ["", "key", "$.key", "/a~2"] {
            assert!(Projection::parse([bad]).is_err(), "{bad}");
        }
    }
}
