//! Headers that repeat parts of the body, for intermediaries (MCP 2026-07-28 transports, Request Metadata).
//! They are compared with the body and then dropped (MCP-05).

use http::HeaderMap;
use serde_json::Value;

use super::refusal::Refusal;
use crate::item::{Arguments, Mirrored};

const METHOD_HEADER: &str = "mcp-method";
const NAME_HEADER: &str = "mcp-name";

/// The trimmed value of a header that occurs once.
pub(crate) fn single<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Refusal::header_mismatch(format!("Header mismatch: {name} occurs more than once")));
    }
    // Visible ASCII, space and tab (RFC 9110 §5.5); other text must be base64.
    match value.to_str() {
        Ok(text) => Ok(Some(text.trim_matches([' ', '\t']))),
        Err(_) => {
            Err(Refusal::header_mismatch(format!("Header mismatch: {name} contains invalid characters")))
        }
    }
}

/// `Mcp-Method` must be present and match the body.
pub(crate) fn check_method(headers: &HeaderMap, method: &str) -> Result<(), Refusal> {
    compare(METHOD_HEADER, single(headers, METHOD_HEADER)?.map(str::to_owned), Some(method))
}

/// `Mcp-Name` must be present and match the body.
pub(crate) fn check_name(headers: &HeaderMap, name: Option<&str>) -> Result<(), Refusal> {
    compare(NAME_HEADER, decoded(headers, NAME_HEADER)?, name)
}

fn compare(header: &str, said: Option<String>, body: Option<&str>) -> Result<(), Refusal> {
    match (said, body) {
        (Some(said), Some(body)) if said == body => Ok(()),
        (None, _) => Err(Refusal::header_mismatch(format!("Header mismatch: {header} is missing"))),
        (Some(said), body) => Err(Refusal::header_mismatch(format!(
            "Header mismatch: {header} header value '{}' does not match body value '{}'",
            shown(&said),
            shown(body.unwrap_or_default())
        ))),
    }
}

/// A header that may be encoded as `=?base64?…?=`, decoded.
fn decoded(headers: &HeaderMap, name: &str) -> Result<Option<String>, Refusal> {
    let Some(text) = single(headers, name)? else {
        return Ok(None);
    };
    let Some(encoded) = text.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Ok(Some(text.to_owned()));
    };
    let bytes = data_encoding::BASE64.decode(encoded.as_bytes()).ok();
    match bytes.and_then(|bytes| String::from_utf8(bytes).ok()) {
        Some(text) => Ok(Some(text)),
        None => Err(Refusal::header_mismatch(format!("Header mismatch: {name} is not valid Base64"))),
    }
}

/// Each `Mcp-Param-*` that the tool declares must match the arguments; others are ignored.
pub(crate) fn check_parameters(
    headers: &HeaderMap,
    arguments: &Arguments,
    mirrored: &[Mirrored],
) -> Result<(), Refusal> {
    for one in mirrored {
        let name = one.header.as_str();
        let agrees = match (decoded(headers, name)?, one.value(arguments)) {
            (None, None) => true,
            (Some(said), Some(value)) => same(&said, value),
            _ => false,
        };
        if !agrees {
            return Err(Refusal::header_mismatch(format!(
                "Header mismatch: {name} does not match the argument {}",
                one.path.join(".")
            )));
        }
    }
    Ok(())
}

/// Integers are compared as numbers: 42.0 equals 42.
fn same(said: &str, value: &Value) -> bool {
    match value {
        Value::String(text) => said == text,
        Value::Bool(truth) => said == truth.to_string(),
        Value::Number(number) => {
            said == number.to_string() || said.parse().ok().is_some_and(|n: f64| number.as_f64() == Some(n))
        }
        _ => false,
    }
}

fn shown(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::super::refusal::HEADER_MISMATCH;
    use super::*;

    fn headers(values: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn refused(result: Result<(), Refusal>) {
        assert_eq!(result.unwrap_err().code(), HEADER_MISMATCH);
    }

    /// MCP-05: the method must match exactly.
    #[test]
    fn the_method_is_compared_exactly() {
        check_method(&headers(&[("mcp-method", b" tools/call\t")]), "tools/call").unwrap();
        refused(check_method(&headers(&[]), "tools/call"));
        for bad in [&b"tools/list"[..], b"Tools/call", b"", b"tools/call,tools/call", b"tools/call\xff"] {
            refused(check_method(&headers(&[("mcp-method", bad)]), "tools/call"));
        }
        let twice = headers(&[("mcp-method", b"tools/call"), ("mcp-method", b"tools/call")]);
        refused(check_method(&twice, "tools/call"));
        // The base64 form is for names and parameters only.
        refused(check_method(&headers(&[("mcp-method", b"=?base64?cGluZw==?=")]), "ping"));
    }

    /// MCP-05: base64 is decoded before comparing, and only in its exact form.
    #[test]
    fn a_name_may_come_in_base64() {
        let check = |value: &[u8], name| check_name(&headers(&[("mcp-name", value)]), Some(name));
        check(b"docs_search", "docs_search").unwrap();
        check("=?base64?SGVsbG8sIOS4lueVjA==?=".as_bytes(), "Hello, 世界").unwrap();
        check(b"=?base64?IHBhZGRlZCA=?=", " padded ").unwrap();
        refused(check(b"=?base64?IHBhZGRlZCA=?=", "padded"));
        refused(check(b"=?base64?!!?=", "x"));
        refused(check(b"=?base64?//8=?=", "x"));
        refused(check(b"=?BASE64?eA==?=", "x"));
        refused(check(b"docs_searcH", "docs_search"));
        refused(check_name(&headers(&[]), Some("x")));
        refused(check_name(&headers(&[("mcp-name", b"x")]), None));
    }

    /// MCP-05, against the table in the specification.
    #[test]
    fn recognised_parameters_agree_with_the_arguments() {
        let schema = json!({ "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "page": { "properties": { "size": { "type": "integer", "x-mcp-header": "Size" } } },
            "list": { "items": { "properties": { "x": { "x-mcp-header": "Not-Reachable" } } } },
        }});
        let mirrored = Mirrored::in_schema(&schema);
        assert_eq!(mirrored.len(), 2);
        let check = |values: &[(&'static str, &[u8])], arguments: Value| {
            check_parameters(&headers(values), &arguments.as_object().unwrap().clone().into(), &mirrored)
        };
        check(&[("mcp-param-other", b"x")], json!({})).unwrap();
        check(&[("mcp-param-region", b"us")], json!({ "region": "us" })).unwrap();
        check(&[("mcp-param-size", b"42.0")], json!({ "page": { "size": 42 } })).unwrap();
        check(&[], json!({ "region": null })).unwrap();
        refused(check(&[], json!({ "region": "us" })));
        refused(check(&[("mcp-param-region", b"us")], json!({})));
        refused(check(&[("mcp-param-region", b"us")], json!({ "region": null })));
        refused(check(&[("mcp-param-region", b"eu")], json!({ "region": "us" })));
        refused(check(&[("mcp-param-region", b"[]")], json!({ "region": [] })));
        refused(check(&[("mcp-param-size", b"41")], json!({ "page": { "size": 42 } })));
    }
}
