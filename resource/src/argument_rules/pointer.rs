//! JSON Pointers (RFC 6901) to arguments, extended by `*` for every element (POL-02).

use std::fmt;

use serde_json::Value;

/// The most steps of a pointer.
const DEEPEST: usize = 16;
/// The longest pointer, in bytes.
const LONGEST: usize = 512;

/// A pointer to one or several values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pointer {
    text: String,
    steps: Vec<Step>,
}

/// One step of a pointer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// A member of an object, or an element of an array by index.
    Named(String),
    /// Every element of an array, or every member of an object.
    Every,
}

/// Why a text is not a valid pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidPointer {
    #[error("a pointer begins with a slash and names an argument, like /branch or /files/*/path")]
    NoSlash,
    #[error("`~` in a pointer is written as ~0, and `/` in a name as ~1")]
    Escape,
    #[error("the pointer is too long: 16 steps and 512 bytes at most")]
    TooLong,
}

/// What was found at a place.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Found<'v> {
    Value(&'v Value),
    /// No value: a member is missing, or an array has no elements.
    Nothing,
    /// A value on the path has another JSON type than the pointer requires.
    OtherType,
}

impl<'v> Found<'v> {
    /// As it is kept: a value in a list of its own, an empty list for nothing, null for another type.
    pub(super) fn kept(self) -> Value {
        match self {
            Self::Value(value) => Value::Array(vec![value.clone()]),
            Self::Nothing => Value::Array(Vec::new()),
            Self::OtherType => Value::Null,
        }
    }

    pub(super) fn from_kept(kept: &'v Value) -> Self {
        match kept.as_array().map(Vec::as_slice) {
            Some([value]) => Self::Value(value),
            Some([]) => Self::Nothing,
            _ => Self::OtherType,
        }
    }
}

/// What a schema says about a pointer's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    /// The schema names it.
    Named,
    /// The schema says nothing about it.
    Open,
    /// The schema forbids a value there.
    Closed,
}

impl Pointer {
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidPointer> {
        if text.len() > LONGEST {
            return Err(InvalidPointer::TooLong);
        }
        let steps = text.strip_prefix('/').ok_or(InvalidPointer::NoSlash)?.split('/');
        let steps = steps.map(Step::parse).collect::<Result<Vec<_>, _>>()?;
        if steps.len() > DEEPEST {
            return Err(InvalidPointer::TooLong);
        }
        Ok(Self { text: text.to_owned(), steps })
    }

    /// Its steps, from the root.
    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What it leads to: one place, or one for each element where it says `*`.
    pub(super) fn find<'v>(&self, arguments: &'v Value) -> Vec<Found<'v>> {
        let mut found = vec![Found::Value(arguments)];
        for step in &self.steps {
            found = found.into_iter().flat_map(|found| step.below(found)).collect();
        }
        found
    }

    /// What a schema says about the place.
    pub(crate) fn reach(&self, schema: &Value) -> Reach {
        let mut schema = schema;
        for step in &self.steps {
            match step.in_schema(schema) {
                Ok(deeper) => schema = deeper,
                Err(reach) => return reach,
            }
        }
        Reach::Named
    }
}

impl Step {
    /// Whether it leads to the member or element of this name.
    pub(crate) fn leads_to(&self, name: &str) -> bool {
        match self {
            Self::Every => true,
            Self::Named(wanted) => wanted == name,
        }
    }

    fn parse(text: &str) -> Result<Self, InvalidPointer> {
        if text == "*" {
            return Ok(Self::Every);
        }
        let mut name = String::with_capacity(text.len());
        let mut rest = text.chars();
        while let Some(next) = rest.next() {
            match next {
                '~' => match rest.next() {
                    Some('0') => name.push('~'),
                    Some('1') => name.push('/'),
                    _ => return Err(InvalidPointer::Escape),
                },
                plain => name.push(plain),
            }
        }
        Ok(Self::Named(name))
    }

    fn below<'v>(&self, found: Found<'v>) -> Vec<Found<'v>> {
        let Found::Value(value) = found else { return vec![found] };
        let one = |value: Option<&'v Value>| vec![value.map_or(Found::Nothing, Found::Value)];
        let every = |values: Vec<Found<'v>>| if values.is_empty() { vec![Found::Nothing] } else { values };
        match (self, value) {
            (_, Value::Null) => vec![Found::Nothing],
            (Self::Named(name), Value::Object(members)) => one(members.get(name)),
            (Self::Named(name), Value::Array(elements)) => match index(name) {
                Some(index) => one(elements.get(index)),
                None => vec![Found::OtherType],
            },
            (Self::Every, Value::Array(elements)) => every(elements.iter().map(Found::Value).collect()),
            (Self::Every, Value::Object(members)) => every(members.values().map(Found::Value).collect()),
            (_, Value::Bool(_) | Value::Number(_) | Value::String(_)) => vec![Found::OtherType],
        }
    }

    /// The schema of what the step leads to, or what there is to say where it leads nowhere.
    fn in_schema<'s>(&self, schema: &'s Value) -> Result<&'s Value, Reach> {
        let combined = ["$ref", "allOf", "anyOf", "oneOf", "if", "not", "patternProperties", "$dynamicRef"];
        if !schema.is_object() || combined.iter().any(|keyword| schema.get(keyword).is_some()) {
            return Err(Reach::Open);
        }
        let closed = schema["additionalProperties"] == Value::Bool(false);
        match self {
            Self::Named(name) => {
                let named = schema.get("properties").and_then(|properties| properties.get(name));
                let nothing = closed && schema["type"] != "array";
                named.ok_or(if nothing { Reach::Closed } else { Reach::Open })
            }
            Self::Every => schema.get("items").ok_or(Reach::Open),
        }
    }
}

/// RFC 6901 §4: digits without leading zeros.
fn index(text: &str) -> Option<usize> {
    let plain = text == "0" || !text.starts_with('0');
    (plain && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// The pointer to a top-level argument.
pub(super) fn of_member(name: &str) -> String {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
    format!("/{}", shown.replace('~', "~0").replace('/', "~1"))
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
