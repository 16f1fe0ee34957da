//! JSON-RPC messages to and from upstreams. Their contents are not parsed here.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// A JSON-RPC error of an upstream (JSON-RPC 2.0 §5.1).
#[derive(Clone, Debug)]
pub(crate) struct RpcError {
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) data: Option<Box<RawValue>>,
}

impl PartialEq for RpcError {
    fn eq(&self, other: &Self) -> bool {
        let data = |error: &Self| error.data.as_deref().map(RawValue::get).map(str::to_owned);
        (self.code, &self.message, data(self)) == (other.code, &other.message, data(other))
    }
}

impl Eq for RpcError {}

impl RpcError {
    /// Parses the member `error` of an answer.
    pub(super) fn read(written: &RawValue) -> Option<Self> {
        let ErrorObject { code, message, data } = serde_json::from_str(written.get()).ok()?;
        Some(Self { code, message, data })
    }
}

/// The notifications that a list has changed.
pub(super) const LIST_CHANGED: [&str; 3] = [
    "notifications/tools/list_changed",
    "notifications/prompts/list_changed",
    "notifications/resources/list_changed",
];
pub(super) const PROGRESS: &str = "notifications/progress";

/// An upstream's answer to a request.
pub(super) type Answered = Result<Box<RawValue>, RpcError>;

/// A message from an upstream.
#[derive(Debug)]
pub(super) enum Message<'m> {
    Answer { id: Id<'m>, answered: Answered },
    Notification { method: Cow<'m, str>, params: Option<&'m RawValue> },
    Request { id: &'m RawValue, method: Cow<'m, str> },
}

/// The id of the request that is answered.
#[derive(Debug)]
pub(super) struct Id<'m>(Option<&'m RawValue>);

impl Id<'_> {
    /// Whether it is this id of ours.
    pub(super) fn is(&self, id: u64) -> bool {
        self.0.is_some_and(|said| said.get() == id.to_string())
    }

    /// Whether there is none: an error without an id says that the request could not be read (JSON-RPC 2.0 §5).
    pub(super) fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

#[derive(Deserialize)]
struct Envelope<'m> {
    #[serde(borrow)]
    jsonrpc: Cow<'m, str>,
    #[serde(borrow, default)]
    id: Option<&'m RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'m, str>>,
    #[serde(borrow, default)]
    params: Option<&'m RawValue>,
    #[serde(borrow, default)]
    result: Option<&'m RawValue>,
    #[serde(borrow, default)]
    error: Option<&'m RawValue>,
}

#[derive(Deserialize)]
struct ErrorObject {
    code: i64,
    #[serde(default)]
    message: String,
    #[serde(default)]
    data: Option<Box<RawValue>>,
}

impl<'m> Message<'m> {
    /// Parses one message; `None` if it is invalid or ambiguous.
    pub(super) fn read(text: &'m [u8]) -> Option<Self> {
        let envelope: Envelope<'m> = serde_json::from_str(std::str::from_utf8(text).ok()?).ok()?;
        let Envelope { jsonrpc, id, method, params, result, error } = envelope;
        if jsonrpc != "2.0" {
            return None;
        }
        match (method, id, result, error) {
            (Some(method), None, None, None) => Some(Self::Notification { method, params }),
            (Some(method), Some(id), None, None) => Some(Self::Request { id, method }),
            (None, Some(id), Some(result), None) => {
                Some(Self::Answer { id: Id(Some(id)), answered: Ok(result.to_owned()) })
            }
            (None, id, None, Some(error)) => {
                Some(Self::Answer { id: Id(id), answered: Err(RpcError::read(error)?) })
            }
            _ => None,
        }
    }
}

/// A request with these parameters, which are an object.
pub(super) fn request(id: u64, method: &str, params: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#).into()
}

/// A notification.
pub(super) fn notification(method: &str, params: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#).into()
}

/// The answer to a request of an upstream.
pub(super) fn reply(id: &RawValue, method: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{},{}}}"#, id.get(), replied(method)).into()
}

/// The member that answers a request of an upstream. No capability was declared, so only `ping` is supported (SRC-06).
pub(super) fn replied(method: &str) -> &'static str {
    match method {
        "ping" => r#""result":{}"#,
        _ => r#""error":{"code":-32601,"message":"Method not found"}"#,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MCP-03: ambiguous messages are refused.
    #[test]
    fn invalid_messages_are_refused() {
        for bad in [
            "",
            "{}",
            "[]",
            r#"[{"jsonrpc":"2.0","id":1,"result":{}}]"#,
            r#"{"id":1,"result":{}}"#,
            r#"{"jsonrpc":"1.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"message":"no code"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":7}"#,
        ] {
            assert!(Message::read(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(Message::read(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"a\":\"\xff\"}}").is_none());
    }

    /// SRC-05: a result is kept as it was written.
    #[test]
    fn an_answer_is_kept_as_it_was_written() {
        let text = br#" {"result": {"b":1.0 ,"a":[ ]}, "id":7,"jsonrpc":"2.0","later":1}"#;
        let Some(Message::Answer { id, answered: Ok(result) }) = Message::read(text) else { panic!() };
        assert!(id.is(7) && !id.is(8));
        assert_eq!(result.get(), r#"{"b":1.0 ,"a":[ ]}"#);
        let text = br#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"No session"}}"#;
        let Some(Message::Answer { id, answered: Err(error) }) = Message::read(text) else { panic!() };
        assert!(!id.is(7));
        assert_eq!((error.code, error.message.as_str()), (-32000, "No session"));
        // Our ids are numbers; the same id as a string is not ours.
        let text = br#"{"jsonrpc":"2.0","id":"7","result":{}}"#;
        let Some(Message::Answer { id, .. }) = Message::read(text) else { panic!() };
        assert!(!id.is(7));
    }
}
