//! Checks the arguments of our own tools against their schemas (JSON Schema 2020-12), compiled once. The errors
//! let a model correct itself (MCP-17).

use std::borrow::Cow;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value};

use crate::item::Arguments;

/// A compiled input schema.
pub(super) struct Schema {
    validator: Validator,
    /// The arguments and the schemas of their values.
    properties: Map<String, Value>,
}

impl Schema {
    /// Compiles one of our schemas. It refers to no other document, so nothing is fetched.
    pub(super) fn compile(schema: &Value) -> Self {
        let validator = jsonschema::draft202012::new(schema).expect("our own schemas are valid");
        let properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
        Self { validator, properties }
    }

    /// Compiles a schema that the configuration makes. Patterns take linear time.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn try_compile(schema: &Value) -> Result<Self, String> {
        let options = jsonschema::draft202012::options().with_pattern_options(PatternOptions::regex());
        let validator = options.build(schema).map_err(|error| error.to_string())?;
        let properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
        Ok(Self { validator, properties })
    }

    /// Checks values for some of the arguments.
    ///
    /// # Errors
    /// As [`Schema::check`], but nothing is required.
    pub(super) fn check_some(&self, arguments: &Map<String, Value>) -> Result<(), String> {
        let required = |error: &jsonschema::ValidationError<'_>| {
            matches!(error.kind(), ValidationErrorKind::Required { .. })
        };
        let arguments = Value::Object(arguments.clone());
        let wrong = self.validator.iter_errors(&arguments).find(|error| !required(error));
        wrong.map_or(Ok(()), |error| Err(self.describe(&error).1))
    }

    /// Checks the arguments of a call; the error says what is expected.
    pub(super) fn check(&self, arguments: &Arguments) -> Result<(), String> {
        let arguments = self.without_nulls(arguments.value());
        if self.validator.is_valid(&arguments) {
            return self.countable(&arguments);
        }
        // All our tools forbid unknown arguments.
        if let Some(unknown) = self.unnamed(&arguments) {
            return Err(unknown);
        }
        let mut wrong: Vec<_> =
            self.validator.iter_errors(&arguments).map(|error| self.describe(&error)).collect();
        // In the order of the schema.
        wrong.sort_by_key(|(place, _)| *place);
        Err(wrong.into_iter().next().map_or_else(String::new, |(_, words)| words))
    }

    /// JSON integers have any size. Ours are counts, and one that does not fit is refused.
    fn countable(&self, arguments: &Value) -> Result<(), String> {
        for (name, expected) in &self.properties {
            match arguments.get(name) {
                Some(value) if expected["type"] == "integer" && integer(value).is_none() => {
                    return Err(misfit(name, expected, value));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Models write null for omitted arguments.
    fn without_nulls<'a>(&self, arguments: &'a Value) -> Cow<'a, Value> {
        let left_out =
            |(name, value): (&String, &Value)| value.is_null() && self.properties.contains_key(name);
        match arguments.as_object() {
            Some(members) if members.iter().any(left_out) => {
                let kept = members.iter().filter(|member| !left_out(*member));
                Cow::Owned(Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect()))
            }
            _ => Cow::Borrowed(arguments),
        }
    }

    /// An error in words, and its position for sorting.
    fn describe(&self, error: &jsonschema::ValidationError<'_>) -> (usize, String) {
        let place = |name: &str| self.properties.keys().position(|known| known == name);
        match error.kind() {
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                let expected = self.properties.get(name).map_or_else(|| "a value".to_owned(), description);
                (place(name).unwrap_or(usize::MAX), format!("`{name}` is required: {expected}."))
            }
            _ => self.unfit(error, place),
        }
    }

    /// The error for the first unknown argument.
    fn unnamed(&self, arguments: &Value) -> Option<String> {
        let mut names = arguments.as_object()?.keys();
        let unknown = names.find(|name| !self.properties.contains_key(*name))?;
        let known: Vec<_> = self.properties.keys().map(|name| format!("`{name}`")).collect();
        let known = if known.is_empty() { "no arguments".to_owned() } else { known.join(", ") };
        Some(format!("`{}` is not an argument of this tool; it takes {known}.", shown(unknown)))
    }

    /// The error for an invalid value.
    fn unfit(
        &self,
        error: &jsonschema::ValidationError<'_>,
        place: impl Fn(&str) -> Option<usize>,
    ) -> (usize, String) {
        let at = error.instance_path().to_string();
        let name = at.split('/').nth(1).unwrap_or_default();
        match (place(name), self.properties.get(name)) {
            (Some(place), Some(expected)) => (place, misfit(name, expected, error.instance())),
            _ => (usize::MAX, format!("invalid arguments: {error}.")),
        }
    }
}

fn misfit(name: &str, expected: &Value, value: &Value) -> String {
    format!("`{name}` must be {}, not {}.", description(expected), kind(value))
}

/// An integer, also if written as 5.0 (JSON Schema 2020-12 validation §6.1.1).
pub(super) fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let number = value.as_f64()?;
        #[expect(clippy::cast_possible_truncation, reason = "whole and small, as just checked")]
        (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
    })
}

fn description(expected: &Value) -> String {
    let bound = |name: &str| expected.get(name).and_then(Value::as_i64);
    if let Some(choices) = expected["enum"].as_array() {
        let choices: Vec<_> = choices.iter().map(Value::to_string).collect();
        return format!("one of {}", choices.join(", "));
    }
    if let Some(pattern) = expected["pattern"].as_str() {
        return format!("a string that matches {pattern}");
    }
    match expected["type"].as_str() {
        Some("number") => "a number".to_owned(),
        Some("boolean") => "true or false".to_owned(),
        Some("string") => match (bound("minLength"), bound("maxLength")) {
            (Some(least), Some(most)) => format!("a string of {least} to {most} characters"),
            (None, Some(most)) => format!("a string of at most {most} characters"),
            _ => "a string".to_owned(),
        },
        Some("integer") => match (bound("minimum"), bound("maximum")) {
            (Some(least), Some(most)) => format!("an integer from {least} to {most}"),
            (Some(least), None) => format!("an integer of at least {least}"),
            _ => "an integer".to_owned(),
        },
        _ => "something else".to_owned(),
    }
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.is_empty() => "an empty string".to_owned(),
        Value::String(text) => format!("the string \"{}\"", shown(text)),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(arguments: &Value) -> Result<(), String> {
        let schema = json!({
            "type": "object",
            "properties": {
                "query": { "type": "string", "minLength": 1, "maxLength": 8 },
                "limit": { "type": "integer", "minimum": 1, "maximum": 50 },
                "offset": { "type": "integer", "minimum": 0 },
            },
            "required": ["query"],
            "additionalProperties": false,
        });
        Schema::compile(&schema).check(&arguments.as_object().unwrap().clone().into())
    }

    /// MCP-17: an error says what is expected.
    #[test]
    fn wrong_arguments_say_what_was_expected() {
        for (arguments, expected) in [
            (json!({}), "`query` is required: a string of 1 to 8 characters."),
            (json!({ "query": null }), "`query` is required: a string of 1 to 8 characters."),
            (json!({ "query": 7 }), "`query` must be a string of 1 to 8 characters, not 7."),
            (json!({ "query": "" }), "`query` must be a string of 1 to 8 characters, not an empty string."),
            (
                json!({ "query": "123456789" }),
                "`query` must be a string of 1 to 8 characters, not the string \"123456789\".",
            ),
            (json!({ "query": ["x"] }), "`query` must be a string of 1 to 8 characters, not an array."),
            (
                json!({ "query": "x", "limit": "5" }),
                "`limit` must be an integer from 1 to 50, not the string \"5\".",
            ),
            (json!({ "query": "x", "limit": 0 }), "`limit` must be an integer from 1 to 50, not 0."),
            (json!({ "query": "x", "limit": 51 }), "`limit` must be an integer from 1 to 50, not 51."),
            (json!({ "query": "x", "limit": 2.5 }), "`limit` must be an integer from 1 to 50, not 2.5."),
            (json!({ "query": "x", "limit": true }), "`limit` must be an integer from 1 to 50, not true."),
            (json!({ "query": "x", "offset": -1 }), "`offset` must be an integer of at least 0, not -1."),
            (
                json!({ "query": "x", "offset": 1e300 }),
                "`offset` must be an integer of at least 0, not 1e+300.",
            ),
        ] {
            assert_eq!(checked(&arguments).unwrap_err(), expected, "{arguments}");
        }
        let unknown = checked(&json!({ "query": "x", "q": 1 })).unwrap_err();
        assert!(unknown.starts_with("`q` is not an argument of this tool; it takes `"), "{unknown}");
        let nothing = json!({ "type": "object", "additionalProperties": false });
        let refused = Schema::compile(&nothing).check(&json!({ "x": 1 }).as_object().unwrap().clone().into());
        assert_eq!(refused.unwrap_err(), "`x` is not an argument of this tool; it takes no arguments.");
    }

    #[test]
    fn good_arguments_pass() {
        for good in [
            json!({ "query": "x" }),
            json!({ "query": "世界世界世界世界", "limit": 50, "offset": null }),
            json!({ "query": "x", "limit": 5.0 }),
        ] {
            checked(&good).unwrap();
        }
    }
}
