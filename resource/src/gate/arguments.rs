//! Tool arguments against the tool's own schema. What is wrong is said so that a model can put it
//! right (MCP-17). The schemas are ours, and use no more of JSON Schema than is understood here.

use serde_json::{Map, Value};

/// Checks the arguments of a call; the error says what was expected.
pub(crate) fn check(schema: &Map<String, Value>, arguments: &Map<String, Value>) -> Result<(), String> {
    let none = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
    if let Some(unknown) = arguments.keys().find(|name| !properties.contains_key(*name)) {
        let known: Vec<_> = properties.keys().map(|name| format!("`{name}`")).collect();
        let known = if known.is_empty() { "no arguments".to_owned() } else { known.join(", ") };
        return Err(format!("`{}` is not an argument of this tool; it takes {known}.", shown(unknown)));
    }
    for (name, expected) in properties {
        match arguments.get(name) {
            // Models write null for what they leave out.
            None | Some(Value::Null) if is_required(schema, name) => {
                return Err(format!("`{name}` is required: {}.", description(expected)));
            }
            None | Some(Value::Null) => {}
            Some(value) if fits(expected, value) => {}
            Some(value) => {
                return Err(format!("`{name}` must be {}, not {}.", description(expected), kind(value)));
            }
        }
    }
    Ok(())
}

fn is_required(schema: &Map<String, Value>, name: &str) -> bool {
    schema.get("required").and_then(Value::as_array).is_some_and(|names| names.iter().any(|n| n == name))
}

fn fits(expected: &Value, value: &Value) -> bool {
    let bound = |name: &str| expected.get(name).and_then(Value::as_i64);
    match expected["type"].as_str() {
        Some("string") => value.as_str().is_some_and(|text| {
            let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
            bound("minLength").is_none_or(|least| length >= least)
                && bound("maxLength").is_none_or(|most| length <= most)
        }),
        Some("integer") => integer(value).is_some_and(|number| {
            bound("minimum").is_none_or(|least| number >= least)
                && bound("maximum").is_none_or(|most| number <= most)
        }),
        _ => false,
    }
}

/// An integer, also one written as 5.0 (JSON Schema 2020-12 validation §6.1.1).
pub(crate) fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let number = value.as_f64()?;
        #[expect(clippy::cast_possible_truncation, reason = "whole and small, as just checked")]
        (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
    })
}

fn description(expected: &Value) -> String {
    let bound = |name: &str| expected.get(name).and_then(Value::as_i64);
    match expected["type"].as_str() {
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
        });
        check(schema.as_object().unwrap(), arguments.as_object().unwrap())
    }

    /// MCP-17: what is wrong says what was expected.
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
        let refused = check(nothing.as_object().unwrap(), json!({ "x": 1 }).as_object().unwrap());
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
