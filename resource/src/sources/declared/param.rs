//! The typed arguments of declared tools, and the JSON Schema that says so.

use serde_json::{Map, Value, json};

use crate::item::Arguments;

/// The longest text by default, in characters.
const LONGEST: u32 = 1000;

/// An argument.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Param {
    pub name: String,
    pub description: Option<String>,
    pub required: bool,
    /// What is used if the argument is left out.
    pub default: Option<Value>,
    pub kind: ParamKind,
}

/// What an argument may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ParamKind {
    Text {
        /// The most characters.
        longest: Option<u32>,
        /// A regular expression for the whole text.
        pattern: Option<String>,
        /// The only allowed values, if there are any.
        choices: Vec<String>,
    },
    Integer {
        least: Option<i64>,
        most: Option<i64>,
    },
    Number,
    Boolean,
}

impl Param {
    fn schema(&self) -> Value {
        let mut schema = match &self.kind {
            ParamKind::Text { longest, pattern, choices } => {
                let mut schema = json!({ "type": "string", "maxLength": longest.unwrap_or(LONGEST) });
                if let Some(pattern) = pattern {
                    schema["pattern"] = format!("^(?:{pattern})$").into();
                }
                if !choices.is_empty() {
                    schema["enum"] = json!(choices);
                }
                schema
            }
            ParamKind::Integer { least, most } => {
                let mut schema = json!({ "type": "integer" });
                if let Some(least) = least {
                    schema["minimum"] = (*least).into();
                }
                if let Some(most) = most {
                    schema["maximum"] = (*most).into();
                }
                schema
            }
            ParamKind::Number => json!({ "type": "number" }),
            ParamKind::Boolean => json!({ "type": "boolean" }),
        };
        if let Some(description) = &self.description {
            schema["description"] = description.as_str().into();
        }
        if let Some(default) = &self.default {
            schema["default"] = default.clone();
        }
        schema
    }

    /// Its value in a call: as sent, or the default. Null counts as left out.
    pub(super) fn value<'v>(&'v self, arguments: &'v Arguments) -> Option<&'v Value> {
        arguments.get(&self.name).filter(|value| !value.is_null()).or(self.default.as_ref())
    }
}

/// The input schema of a tool with these arguments.
pub(super) fn input(params: &[Param]) -> Value {
    let properties: Map<_, _> = params.iter().map(|param| (param.name.clone(), param.schema())).collect();
    let required: Vec<_> = params.iter().filter(|param| param.required).map(|param| &param.name).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// The value of the argument with this name.
pub(super) fn find<'v>(params: &'v [Param], name: &str, arguments: &'v Arguments) -> Option<&'v Value> {
    params.iter().find(|param| param.name == name)?.value(arguments)
}

/// A scalar as it is written into an address or a header.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
