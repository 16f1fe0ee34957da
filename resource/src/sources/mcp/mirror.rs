//! The headers that repeat parts of a request, for an upstream (2026-07-28 streamable HTTP, value encoding).

use http::{HeaderName, HeaderValue};
use serde_json::Value;

use crate::item::{Arguments, Mirrored};

/// The headers for these arguments (MCP-05, MCP-07).
pub(crate) fn written(arguments: &Arguments, mirrored: &[Mirrored]) -> Vec<(HeaderName, HeaderValue)> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let one = |one: &Mirrored| Some((one.header.clone(), encoded(&text(one.value(arguments)?))));
    mirrored.iter().filter_map(one).collect()
}

/// Text as a header value: plain if it is safe, otherwise in base64.
pub(crate) fn encoded(text: &str) -> HeaderValue {
    let visible = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    let marked = text.starts_with("=?base64?") && text.ends_with("?=");
    if visible && !marked && text.trim() == text && !text.is_empty() {
        return HeaderValue::from_str(text).expect("visible ASCII is a header value");
    }
    let encoded = format!("=?base64?{}?=", data_encoding::BASE64.encode(text.as_bytes()));
    HeaderValue::from_str(&encoded).expect("base64 is visible ASCII")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// MCP-05: the table of the specification.
    #[test]
    fn values_are_encoded_as_specified() {
        for (text, header) in [
            ("us-west1", "us-west1"),
            ("two words", "two words"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
            ("", "=?base64??="),
            ("a\tb", "=?base64?YQli?="),
        ] {
            assert_eq!(encoded(text), header, "{text}");
        }
    }

    /// MCP-05: headers match the arguments; absent and null ones are omitted.
    #[test]
    fn arguments_are_repeated() {
        let schema = json!({ "properties": {
            "region": { "x-mcp-header": "Region" }, "n": { "x-mcp-header": "N" }, "dry": { "x-mcp-header": "Dry" },
            "none": { "x-mcp-header": "None" }, "null": { "x-mcp-header": "Null" },
        } });
        let arguments = json!({ "region": "Zürich", "n": 7, "dry": false, "null": null });
        let arguments = arguments.as_object().unwrap().clone().into();
        let mut written = written(&arguments, &Mirrored::in_schema(&schema));
        written.sort_by_key(|(name, _)| name.to_string());
        let written: Vec<_> =
            written.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        let region = ("mcp-param-region", "=?base64?WsO8cmljaA==?=");
        assert_eq!(written, [("mcp-param-dry", "false"), ("mcp-param-n", "7"), region]);
    }
}
