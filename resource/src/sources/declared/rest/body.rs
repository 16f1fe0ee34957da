//! JSON bodies: a value in which a text `{name}` is an argument, with the argument's own type.

use serde_json::Value;

use super::argument;

/// A body with places for arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BodyTemplate(Value);

impl BodyTemplate {
    pub fn new(value: Value) -> Self {
        Self(value)
    }

    /// The names of its arguments.
    pub(super) fn arguments(&self) -> Vec<&str> {
        let mut found = Vec::new();
        collect(&self.0, &mut found);
        found
    }

    /// The body with these values. Members and elements whose argument was left out are left out.
    pub(super) fn filled<'v>(&self, value: &impl Fn(&str) -> Option<&'v Value>) -> Value {
        fill(&self.0, value).unwrap_or_default()
    }
}

fn collect<'t>(template: &'t Value, found: &mut Vec<&'t str>) {
    match template {
        Value::String(text) => found.extend(argument(text)),
        Value::Array(elements) => elements.iter().for_each(|element| collect(element, found)),
        Value::Object(members) => members.values().for_each(|member| collect(member, found)),
        _ => {}
    }
}

fn fill<'v>(template: &Value, value: &impl Fn(&str) -> Option<&'v Value>) -> Option<Value> {
    Some(match template {
        Value::String(text) => match argument(text) {
            Some(name) => value(name)?.clone(),
            None => template.clone(),
        },
        Value::Array(elements) => elements.iter().filter_map(|element| fill(element, value)).collect(),
        Value::Object(members) => {
            members.iter().filter_map(|(name, member)| Some((name.clone(), fill(member, value)?))).collect()
        }
        other => other.clone(),
    })
}
