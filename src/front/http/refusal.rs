//! Refusals as JSON for programs, whichever layer refused (HTTP-08).

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

/// A refusal with fixed words.
pub(super) fn refusal(status: StatusCode, code: &str, description: &str) -> Response {
    let body = json!({ "error": code, "error_description": description });
    let mut response = (status, Json(body)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The error code for a status.
pub(super) fn code(status: StatusCode) -> &'static str {
    words(status).map_or("invalid_request", |(code, _)| code)
}

fn words(status: StatusCode) -> Option<(&'static str, &'static str)> {
    Some(match status {
        StatusCode::BAD_REQUEST => ("invalid_request", "the request could not be read"),
        StatusCode::NOT_FOUND => ("not_found", "nothing at this path"),
        StatusCode::METHOD_NOT_ALLOWED => ("method_not_allowed", "this path does not accept that method"),
        StatusCode::REQUEST_TIMEOUT => ("request_timeout", "the request took too long to arrive"),
        StatusCode::PAYLOAD_TOO_LARGE => ("payload_too_large", "the body is larger than this path accepts"),
        StatusCode::URI_TOO_LONG => ("uri_too_long", "the request target is longer than 8 KiB"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            ("unsupported_media_type", "this path does not accept that Content-Type")
        }
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            ("headers_too_large", "the headers are larger than 16 KiB, or more than 100")
        }
        StatusCode::TOO_MANY_REQUESTS => ("rate_limited", "too many requests; try again later"),
        StatusCode::INTERNAL_SERVER_ERROR => ("server_error", "internal server error"),
        _ => return None,
    })
}

/// Whether the response has no body of ours yet: the framework's are empty or plain text.
pub(super) fn is_bare(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_none_or(|kind| kind.starts_with(b"text/plain"))
}

/// Adds the JSON body to such a refusal.
pub(super) fn worded(response: Response) -> Response {
    let Some((code, description)) = words(response.status()).filter(|_| is_bare(&response)) else {
        return response;
    };
    let mut worded = refusal(response.status(), code, description);
    for kept in [header::ALLOW, header::RETRY_AFTER, header::CONNECTION] {
        if let Some(value) = response.headers().get(&kept) {
            worded.headers_mut().insert(kept, value.clone());
        }
    }
    worded
}
