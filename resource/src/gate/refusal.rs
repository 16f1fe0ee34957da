//! Refusals of the gate: an HTTP status and a JSON-RPC error, with the request's id if it is known (MCP-03,
//! HTTP-08).

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

/// JSON-RPC 2.0 §5.1.
pub(crate) const PARSE_ERROR: i32 = -32700;
pub(crate) const INVALID_REQUEST: i32 = -32600;
pub(crate) const METHOD_NOT_FOUND: i32 = -32601;
pub(crate) const INVALID_PARAMS: i32 = -32602;
pub(crate) const INTERNAL_ERROR: i32 = -32603;
/// Of the revisions before 2026-07-28 alone.
pub(crate) const RESOURCE_NOT_FOUND: i32 = -32002;
/// MCP 2026-07-28, Error Codes.
pub(crate) const HEADER_MISMATCH: i32 = -32020;
pub(crate) const UNSUPPORTED_VERSION: i32 = -32022;
/// Our own code, outside all ranges that JSON-RPC and MCP reserve.
pub(crate) const UNAUTHENTICATED: i32 = 401;
pub(crate) const FORBIDDEN: i32 = 403;
pub(crate) const TOO_MANY: i32 = 429;

/// A refusal. Boxed, because most requests have none.
#[derive(Debug)]
pub(crate) struct Refusal(Box<Inner>);

#[derive(Debug)]
struct Inner {
    status: StatusCode,
    code: i32,
    message: Cow<'static, str>,
    data: Option<Value>,
    id: Option<Value>,
    headers: HeaderMap,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: i32, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        Self(Box::new(Inner { status, code, message, data: None, id: None, headers: HeaderMap::new() }))
    }

    pub(crate) fn bad_request(code: i32, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// A header and the body disagree, or a required header is missing (MCP-05).
    pub(crate) fn header_mismatch(message: impl Into<Cow<'static, str>>) -> Self {
        Self::bad_request(HEADER_MISMATCH, message)
    }

    /// A server fault: nothing was decided or done, and a retry may succeed (RS-09, AUDIT-04).
    pub(crate) fn unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            INTERNAL_ERROR,
            "The server cannot write its audit log right now, so it refuses requests. Try again shortly.",
        )
        .header(RETRY_AFTER, HeaderValue::from_static("2"))
    }

    /// The call was made and its end could not be recorded: a retry may do it twice (AUDIT-04).
    pub(crate) fn unrecorded() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            INTERNAL_ERROR,
            "The tool was called, but its outcome could not be recorded. Check the effect before you try again.",
        )
    }

    /// The authorization server cannot be asked about the token, so it is refused (RS-09).
    pub(crate) fn nobody_to_ask() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            INTERNAL_ERROR,
            "The authorization server cannot be reached to check the access token. Try again shortly.",
        )
        .header(RETRY_AFTER, HeaderValue::from_static("2"))
    }

    /// An internal error.
    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, INTERNAL_ERROR, "Internal error")
    }

    pub(crate) fn data(mut self, data: Value) -> Self {
        self.0.data = Some(data);
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.append(name, value);
        self
    }

    /// Adds the request's id, unless there is one already.
    pub(crate) fn about(mut self, id: Option<&Value>) -> Self {
        if self.0.id.is_none() {
            self.0.id = id.cloned();
        }
        self
    }

    /// The message that tells the client.
    pub(crate) fn body(&self) -> String {
        let Inner { code, message, data, id, .. } = &*self.0;
        let mut error = json!({ "code": code, "message": message });
        if let Some(data) = data {
            error["data"] = data.clone();
        }
        let mut body = json!({ "jsonrpc": "2.0", "error": error });
        // Absent, not null: MCP's ids are strings or integers.
        if let Some(id) = id {
            body["id"] = id.clone();
        }
        body.to_string()
    }

    #[cfg(test)]
    pub(crate) fn code(&self) -> i32 {
        self.0.code
    }

    #[cfg(test)]
    pub(crate) fn id(&self) -> Option<&Value> {
        self.0.id.as_ref()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = self.body();
        let Inner { status, headers, .. } = *self.0;
        let mut response = (status, headers, body).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}
