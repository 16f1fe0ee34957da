//! Media types of requests and responses (MCP-04).

use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, StatusCode};

use super::refusal::{INVALID_REQUEST, Refusal};

/// Bodies must be JSON, and the response must be acceptable as JSON; whether a stream would be acceptable too
/// does not matter.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), Refusal> {
    let encoded = headers.get_all(CONTENT_ENCODING).iter().any(|value| value != "identity");
    if encoded
        || headers.get_all(CONTENT_TYPE).iter().count() != 1
        || !is(headers, CONTENT_TYPE, b"application/json")
    {
        let words = "Send Content-Type: application/json.";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST, words));
    }
    if !accepts(headers, "application", "json") {
        let words = "Send Accept: application/json, text/event-stream.";
        return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, INVALID_REQUEST, words));
    }
    Ok(())
}

/// A streamed response must be acceptable.
pub(crate) fn check_stream(headers: &HeaderMap) -> Result<(), Refusal> {
    if accepts_events(headers) {
        return Ok(());
    }
    let words = "Send Accept: text/event-stream.";
    Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, INVALID_REQUEST, words))
}

/// Whether a streamed response would be acceptable.
pub(crate) fn accepts_events(headers: &HeaderMap) -> bool {
    accepts(headers, "text", "event-stream")
}

/// Whether a header has this media type; parameters are ignored, but a charset must be UTF-8.
pub(crate) fn is(headers: &HeaderMap, name: HeaderName, media_type: &[u8]) -> bool {
    headers.get(name).is_some_and(|value| {
        let mut parts = value.as_bytes().split(|b| *b == b';').map(<[u8]>::trim_ascii);
        let essence = parts.next().unwrap_or_default();
        let charset = |part: &[u8]| part.get(..8).is_some_and(|name| name.eq_ignore_ascii_case(b"charset="));
        let utf8 = |part: &[u8]| part[8..].trim_ascii().eq_ignore_ascii_case(b"utf-8");
        essence.eq_ignore_ascii_case(media_type) && parts.filter(|part| charset(part)).all(utf8)
    })
}

/// Whether `Accept` allows a media type. The most specific matching range decides, and its weight must not be
/// zero (RFC 9110 §12.5.1). Without the header everything is allowed.
fn accepts(headers: &HeaderMap, kind: &str, subtype: &str) -> bool {
    if !headers.contains_key(ACCEPT) {
        return true;
    }
    let lists = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges = lists.flat_map(|list| list.split(',')).filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let (range_kind, range_subtype) = parts.next()?.split_once('/')?;
        let matches = |range: &str, name: &str| range == "*" || range.eq_ignore_ascii_case(name);
        let specific = u8::from(range_kind != "*") + u8::from(range_subtype != "*");
        let is_range = range_kind != "*" || range_subtype == "*";
        let fits = is_range && matches(range_kind, kind) && matches(range_subtype, subtype);
        fits.then(|| (specific, !parts.any(refuses)))
    });
    // Of equally specific ranges, one that allows it decides.
    ranges.max().is_some_and(|(_, allowed)| allowed)
}

/// Whether a parameter is a weight of zero.
fn refuses(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, weight)| {
        name.trim().eq_ignore_ascii_case("q")
            && weight.trim().parse::<f32>().is_ok_and(|weight| weight == 0.0)
    })
}
