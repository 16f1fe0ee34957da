use std::collections::BTreeMap;

use serde_json::Value;

use super::*;

/// The definitions of the built-in tools, by name.
fn listed() -> BTreeMap<String, Value> {
    let offers = built_in().into_iter().flat_map(|offered| offered.offers.clone());
    let tools = offers.filter(|offer| offer.kind == Kind::Tool);
    tools.map(|offer| (offer.name.to_string(), serde_json::from_str(offer.listed.get()).unwrap())).collect()
}

/// MCP-08: names on the wire, and texts for people and models.
#[test]
fn every_tool_is_named_and_described() {
    assert_eq!(listed().len(), 3);
    for (name, tool) in listed() {
        assert_eq!(tool["name"], name);
        assert!((1..=64).contains(&name.len()), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)), "{name}");
        assert_ne!(tool["title"], name);
        assert!(tool["description"].as_str().is_some_and(|words| words.len() > 60), "{name}");
        assert_eq!(tool["annotations"]["readOnlyHint"], true, "{name}");
        for schema in [&tool["inputSchema"], &tool["outputSchema"]] {
            assert_eq!(schema["type"], "object", "{name}");
        }
        assert_eq!(tool["inputSchema"]["additionalProperties"], false, "{name}");
    }
}

/// Every argument has a checked type and a description, and only the first one is required.
#[test]
fn every_argument_is_described() {
    for (_, tool) in listed() {
        let schema = &tool["inputSchema"];
        assert!(schema.get("required").and_then(Value::as_array).is_none_or(|names| names.len() == 1));
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            assert!(matches!(property["type"].as_str(), Some("string" | "integer")), "{name}");
            assert!(property["description"].as_str().is_some_and(|words| words.len() > 20), "{name}");
        }
    }
}
