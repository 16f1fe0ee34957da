//! Responses, written directly as JSON text: the members of results are copied unchanged.

use std::borrow::Cow;
use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde_json::Value;
use serde_json::value::RawValue;

use super::era::Era;
use super::lifecycle;
use super::refusal::INTERNAL_ERROR;
use crate::admission::{AskKind, CallEnd};
use crate::item::Effect;
use crate::sources::{self, Outcome};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");

/// Results of the modern era name their server (MCP 2026-07-28 basic, per-response protocol fields).
static META: LazyLock<String> = LazyLock::new(|| {
    let meta = lifecycle::result_meta();
    meta.strip_prefix('{').and_then(|meta| meta.strip_suffix('}')).unwrap_or_default().to_owned()
});

/// A response body.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    media_type: HeaderValue,
    body: Bytes,
}

impl Answer {
    /// A result with these members.
    pub(crate) fn result(id: &Value, era: Era, members: &[u8]) -> Self {
        Self::with_meta(id, era, members, "")
    }

    /// A result with these members, and these members of `_meta` beside ours.
    fn with_meta(id: &Value, era: Era, members: &[u8], meta: &str) -> Self {
        let mut body = begun(id, members.len() + meta.len() + 256);
        body.extend_from_slice(b"\"result\":{");
        let ours = if era == Era::Modern {
            body.extend_from_slice(b"\"resultType\":\"complete\"");
            if !members.is_empty() {
                body.push(b',');
            }
            META.as_str()
        } else {
            ""
        };
        body.extend_from_slice(members);
        if !(ours.is_empty() && meta.is_empty()) {
            if era == Era::Modern || !members.is_empty() {
                body.push(b',');
            }
            let comma = if ours.is_empty() || meta.is_empty() { "" } else { "," };
            body.extend_from_slice(format!("\"_meta\":{{{ours}{comma}{meta}}}").as_bytes());
        }
        body.extend_from_slice(b"}}");
        Self::json(StatusCode::OK, body)
    }

    /// A result that is a complete JSON object.
    pub(crate) fn whole(id: &Value, result: &[u8]) -> Self {
        let mut body = begun(id, result.len() + 64);
        body.extend_from_slice(b"\"result\":");
        body.extend_from_slice(result);
        body.push(b'}');
        Self::json(StatusCode::OK, body)
    }

    /// What a call came to.
    pub(crate) fn ended(id: &Value, era: Era, ending: &CallEnd<'_>) -> Self {
        let CallEnd { what, effect, outcome, patience, most } = *ending;
        let noun = what.item().offer.kind.as_str();
        let problem: Cow<'_, str> = match outcome {
            Outcome::Result { members, meta, .. } => return Self::with_meta(id, era, members, meta),
            Outcome::Error => return Self::internal(id),
            Outcome::Refused(error) => {
                return Self::error(id, error.code, &error.message, error.data.as_deref());
            }
            // A client that cancelled expects no response, so the stream has none.
            Outcome::Cancelled => {
                return Self { status: StatusCode::OK, media_type: EVENTS, body: Bytes::new() };
            }
            Outcome::TooLarge(bytes) => {
                format!("The result has {bytes} bytes; the limit is {most}. Ask for less.").into()
            }
            Outcome::NoMemory => {
                let again = match effect {
                    Effect::ReadOnly => {
                        "Ask for less, or try again when fewer large answers are on their way."
                    }
                    Effect::Writes => "It may have run: check the effect before you try again.",
                };
                format!("This server has no memory left for the answer of the {noun}. {again}").into()
            }
            Outcome::Failed(words) | Outcome::NotSent(words) | Outcome::Unknown(words) => {
                words.as_ref().into()
            }
            Outcome::Stopped if effect == Effect::ReadOnly => {
                format!("An administrator stopped this call of the {noun}. Do not repeat it without asking.").into()
            }
            Outcome::Stopped => format!(
                "An administrator stopped this call of the {noun}. It may have run: check the effect, and do not repeat it without asking."
            )
            .into(),
            Outcome::TimedOut if effect == Effect::ReadOnly => {
                format!("The {noun} did not answer within {} seconds. Try again.", patience.as_secs()).into()
            }
            Outcome::TimedOut => {
                let waited = patience.as_secs();
                format!(
                    "The {noun} did not answer within {waited} seconds. It may have run: check the effect before you try again."
                )
                .into()
            }
        };
        match what {
            AskKind::Tool(..) => Self::told(id, era, &problem),
            // No other result has room for words.
            _ => Self::error(id, INTERNAL_ERROR.into(), &problem, None),
        }
    }

    /// An error as a tool result, so that the model can react.
    pub(crate) fn told(id: &Value, era: Era, problem: &str) -> Self {
        match sources::problem(problem) {
            Outcome::Result { members, .. } => Self::result(id, era, &members),
            _ => Self::internal(id),
        }
    }

    /// An error of the protocol, with the data as they were written.
    fn error(id: &Value, code: i64, message: &str, data: Option<&RawValue>) -> Self {
        let mut body = begun(id, 256);
        let message = Value::from(message);
        body.extend_from_slice(format!("\"error\":{{\"code\":{code},\"message\":{message}").as_bytes());
        if let Some(data) = data {
            body.extend_from_slice(b",\"data\":");
            body.extend_from_slice(data.get().as_bytes());
        }
        body.extend_from_slice(b"}}");
        Self::json(StatusCode::OK, body)
    }

    fn internal(id: &Value) -> Self {
        let mut body = begun(id, 64);
        let error = format!("\"error\":{{\"code\":{INTERNAL_ERROR},\"message\":\"Internal error\"}}}}");
        body.extend_from_slice(error.as_bytes());
        Self::json(StatusCode::INTERNAL_SERVER_ERROR, body)
    }

    fn json(status: StatusCode, body: Vec<u8>) -> Self {
        Self { status, media_type: JSON, body: body.into() }
    }
}

/// The beginning of every response, with capacity for the rest.
fn begun(id: &Value, room: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(room);
    body.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    serde_json::to_writer(&mut body, id).expect("an id is a string or an integer");
    body.push(b',');
    body
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        (self.status, [(CONTENT_TYPE, self.media_type)], self.body).into_response()
    }
}
