//! The revision of a request. It is decided once, here, and everything later uses the result (MCP-01).

use http::HeaderMap;
use rmcp::model::ClientCapabilities;
use serde::Deserialize;
use serde_json::{Value, json};

use super::message::Message;
use super::mirror::single;
use super::refusal::{INVALID_PARAMS, INVALID_REQUEST, Refusal, UNSUPPORTED_VERSION};
use crate::revision::{CAPABILITIES_META, VERSION_META};
pub(crate) use crate::revision::{Era, LEGACY, MODERN, VERSION_HEADER, legacy};

/// Decides the era of a request.
pub(crate) fn decide(headers: &HeaderMap, message: &Message) -> Result<Era, Refusal> {
    let header = single(headers, VERSION_HEADER)?;
    if message.params.get("_meta").is_some_and(|meta| !meta.is_object()) {
        return Err(Refusal::bad_request(INVALID_PARAMS, "`_meta` must be an object"));
    }
    let body = message.meta(VERSION_META);
    // In a modern request it is an unknown method.
    if message.method == "initialize" && body.is_none() {
        return initialize(header, message);
    }
    match (header, body) {
        (_, Some(Value::String(body))) => stated(header, body),
        (Some(MODERN), Some(_)) => Err(missing(VERSION_META)),
        (_, Some(_)) => Err(Refusal::bad_request(
            INVALID_REQUEST,
            format!("`{VERSION_META}` must be a string, and belongs to {MODERN} only"),
        )),
        // Notifications of the modern era need no metadata.
        (Some(MODERN), None) if message.is_notification() => Ok(Era::Modern),
        (Some(MODERN), None) => Err(missing(VERSION_META)),
        // MCP 2025-06-18 transports: without the header, "assume protocol version 2025-03-26".
        (None, None) => Ok(Era::Legacy("2025-03-26")),
        (Some(header), None) => legacy(header).map(Era::Legacy).ok_or_else(|| unsupported(header)),
    }
    .and_then(|era| complete(era, message))
}

/// The revision in the headers alone, for requests without a body.
pub(crate) fn stated_by_header(headers: &HeaderMap) -> Result<Option<Era>, Refusal> {
    match single(headers, VERSION_HEADER)? {
        None => Ok(None),
        Some(MODERN) => Ok(Some(Era::Modern)),
        Some(header) => {
            legacy(header).map(|known| Some(Era::Legacy(known))).ok_or_else(|| unsupported(header))
        }
    }
}

/// The body states a version: the header must state the same one, which must be the modern one.
fn stated(header: Option<&str>, body: &str) -> Result<Era, Refusal> {
    match header {
        None => Err(Refusal::header_mismatch(format!(
            "Header mismatch: MCP-Protocol-Version is missing, the body says '{}'",
            shown(body)
        ))),
        Some(header) if header != body => Err(Refusal::header_mismatch(format!(
            "Header mismatch: MCP-Protocol-Version header '{}' does not match body value '{}'",
            shown(header),
            shown(body)
        ))),
        Some(MODERN) => Ok(Era::Modern),
        Some(header) if legacy(header).is_some() => Err(Refusal::bad_request(
            INVALID_REQUEST,
            format!("{header} is negotiated with `initialize`; `{VERSION_META}` belongs to {MODERN} only"),
        )),
        Some(header) => Err(unsupported(header)),
    }
}

/// `initialize` exists only in the legacy era. It needs no header, and its parameters propose a version.
fn initialize(header: Option<&str>, message: &Message) -> Result<Era, Refusal> {
    let Some(Value::String(proposed)) = message.params.get("protocolVersion") else {
        return Err(Refusal::bad_request(INVALID_PARAMS, "`protocolVersion` must be a string"));
    };
    match header {
        // A client that starts again may send the version that it negotiated before.
        None => {}
        Some(header) if legacy(header).is_some() => {}
        Some(MODERN) if proposed == MODERN => {}
        Some(MODERN) => {
            return Err(Refusal::header_mismatch(format!(
                "Header mismatch: MCP-Protocol-Version header '{MODERN}' does not match body value '{}'",
                shown(proposed)
            )));
        }
        Some(header) => return Err(unsupported(header)),
    }
    // An unknown version is answered with our newest (MCP 2025-11-25 lifecycle, version negotiation).
    Ok(Era::Legacy(legacy(proposed).unwrap_or(LEGACY[0])))
}

/// MCP 2026-07-28 basic: "A request missing any required field is malformed" (MCP-06).
fn complete(era: Era, message: &Message) -> Result<Era, Refusal> {
    if era != Era::Modern || message.is_notification() {
        return Ok(era);
    }
    match message.meta(CAPABILITIES_META) {
        Some(stated @ Value::Object(_)) if ClientCapabilities::deserialize(stated).is_ok() => Ok(era),
        Some(Value::Object(_)) => {
            let words = format!("Invalid params: `{CAPABILITIES_META}` in `_meta` is malformed");
            Err(Refusal::bad_request(INVALID_PARAMS, words))
        }
        _ => Err(missing(CAPABILITIES_META)),
    }
}

fn missing(member: &str) -> Refusal {
    Refusal::bad_request(INVALID_PARAMS, format!("Invalid params: `_meta` lacks `{member}`"))
}

fn unsupported(requested: &str) -> Refusal {
    let supported: Vec<_> = std::iter::once(MODERN).chain(LEGACY).collect();
    Refusal::bad_request(UNSUPPORTED_VERSION, "Unsupported protocol version")
        .data(json!({ "supported": supported, "requested": shown(requested) }))
}

fn shown(version: &str) -> String {
    version.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::super::refusal::HEADER_MISMATCH;
    use super::*;

    fn decided(header: &[&str], method: &str, params: &Value) -> Result<Era, i32> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let message = Message::parse(body.to_string().as_bytes()).unwrap();
        let mut headers = HeaderMap::new();
        for value in header {
            headers.append(VERSION_HEADER, HeaderValue::from_str(value).unwrap());
        }
        decide(&headers, &message).map_err(|refusal| refusal.code())
    }

    fn meta(version: &str) -> Value {
        json!({ "_meta": { VERSION_META: version, CAPABILITIES_META: {} } })
    }

    /// MCP-01: only a request with both header and `_meta` is modern.
    #[test]
    fn a_modern_request_says_so_twice() {
        assert_eq!(decided(&[MODERN], "tools/list", &meta(MODERN)), Ok(Era::Modern));
        assert_eq!(decided(&[" 2026-07-28 "], "tools/list", &meta(MODERN)), Ok(Era::Modern));
        for (header, params, code) in [
            (&[][..], meta(MODERN), HEADER_MISMATCH),
            (&["2025-11-25"], meta(MODERN), HEADER_MISMATCH),
            (&[MODERN], meta("2025-11-25"), HEADER_MISMATCH),
            (&[MODERN, MODERN], meta(MODERN), HEADER_MISMATCH),
            (&["2026-07-28, 2025-11-25"], meta(MODERN), HEADER_MISMATCH),
            (&[MODERN], json!({}), INVALID_PARAMS),
            (&[MODERN], json!({ "_meta": 7 }), INVALID_PARAMS),
            (&[MODERN], json!({ "_meta": { VERSION_META: 7 } }), INVALID_PARAMS),
            (&[MODERN], json!({ "_meta": { VERSION_META: MODERN } }), INVALID_PARAMS),
            (&[MODERN], json!({ "_meta": { VERSION_META: MODERN, CAPABILITIES_META: [] } }), INVALID_PARAMS),
            (
                &[MODERN],
                json!({ "_meta": { VERSION_META: MODERN, CAPABILITIES_META: { "sampling": 7 } } }),
                INVALID_PARAMS,
            ),
            (&["2025-11-25"], json!({ "_meta": { VERSION_META: 7 } }), INVALID_REQUEST),
            (&["2025-11-25"], meta("2025-11-25"), INVALID_REQUEST),
            (&["1900-01-01"], meta("1900-01-01"), UNSUPPORTED_VERSION),
            (&["1900-01-01"], json!({}), UNSUPPORTED_VERSION),
            (&["2024-11-05"], json!({}), UNSUPPORTED_VERSION),
            (&[""], json!({}), UNSUPPORTED_VERSION),
        ] {
            assert_eq!(decided(header, "tools/list", &params), Err(code), "{header:?} {params}");
        }
    }

    /// MCP-01: all other known requests are legacy.
    #[test]
    fn other_requests_count_as_legacy() {
        for version in LEGACY {
            assert_eq!(decided(&[version], "tools/list", &json!({})), Ok(Era::Legacy(version)));
        }
        assert_eq!(decided(&[], "tools/list", &json!({})), Ok(Era::Legacy("2025-03-26")));
    }

    /// MCP-01, MCP-03: `initialize` negotiates. With a version in `_meta` it is a modern request (MCP
    /// 2026-07-28 versioning), in which the method is unknown.
    #[test]
    fn initialize_negotiates_a_legacy_revision() {
        let proposing = |version: &str| json!({ "protocolVersion": version });
        for (proposed, answered) in [
            ("2025-03-26", "2025-03-26"),
            ("2025-06-18", "2025-06-18"),
            ("2025-11-25", "2025-11-25"),
            ("2026-07-28", "2025-11-25"),
            ("2024-11-05", "2025-11-25"),
            ("2099-01-01", "2025-11-25"),
        ] {
            assert_eq!(decided(&[], "initialize", &proposing(proposed)), Ok(Era::Legacy(answered)));
        }
        assert!(decided(&["2025-06-18"], "initialize", &proposing("2026-07-28")).is_ok());
        assert!(decided(&[MODERN], "initialize", &proposing(MODERN)).is_ok());
        let dressed = |version: &str| {
            let mut params = meta(version);
            params["protocolVersion"] = "2025-11-25".into();
            params
        };
        assert_eq!(decided(&[MODERN], "initialize", &dressed(MODERN)), Ok(Era::Modern));
        for (header, params, code) in [
            (&[][..], json!({}), INVALID_PARAMS),
            (&[], json!({ "protocolVersion": 1 }), INVALID_PARAMS),
            (&[], dressed(MODERN), HEADER_MISMATCH),
            (&["2025-11-25"], dressed(MODERN), HEADER_MISMATCH),
            (&["2025-11-25"], dressed("2025-11-25"), INVALID_REQUEST),
            (&[MODERN], json!({ "protocolVersion": "2025-11-25" }), HEADER_MISMATCH),
            (&["1900-01-01"], json!({ "protocolVersion": "1900-01-01" }), UNSUPPORTED_VERSION),
        ] {
            assert_eq!(decided(header, "initialize", &params), Err(code), "{header:?} {params}");
        }
    }
}
