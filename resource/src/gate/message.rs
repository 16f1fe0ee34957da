//! A JSON-RPC 2.0 message as restricted by MCP: one request or one notification (MCP-03).

use serde_json::{Map, Value};
use shared::json::{self, Unreadable};

use super::refusal::{INVALID_REQUEST, PARSE_ERROR, Refusal};

/// A strictly parsed message.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Message {
    /// A string or an integer; `None` for a notification.
    pub(crate) id: Option<Value>,
    pub(crate) method: String,
    pub(crate) params: Map<String, Value>,
}

const MEMBERS: [&str; 4] = ["jsonrpc", "id", "method", "params"];

impl Message {
    /// Parses a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let mut object = json::exact_object(body).map_err(|why| {
            let code = match why {
                Unreadable::Empty | Unreadable::NotUtf8 | Unreadable::NotJson => PARSE_ERROR,
                _ => INVALID_REQUEST,
            };
            Refusal::bad_request(code, why.to_string())
        })?;
        let id = object.remove("id");
        let known = match &id {
            Some(Value::String(_)) => id.clone(),
            Some(Value::Number(number)) if number.is_i64() => id.clone(),
            _ => None,
        };
        let invalid =
            |message: &str| Refusal::bad_request(INVALID_REQUEST, message.to_owned()).about(known.as_ref());
        if id.is_some() && known.is_none() {
            return Err(invalid("`id` must be a string or an integer"));
        }
        // `Method` beside `method`: parsers would disagree about which to use.
        if let Some(name) = object.keys().find(|name| looks_like_a_member(name)) {
            return Err(invalid(&format!("the member `{name}` must be spelled in lower case")));
        }
        if object.remove("jsonrpc") != Some(Value::from("2.0")) {
            return Err(invalid("`jsonrpc` must be \"2.0\""));
        }
        if object.contains_key("result") || object.contains_key("error") {
            // A response would answer a request of ours, and without a session there is none.
            return Err(invalid("this server sent no requests, so it accepts no responses"));
        }
        let Some(Value::String(method)) = object.remove("method") else {
            return Err(invalid("`method` must be a string"));
        };
        // Programs that serialise a struct write null for unset members.
        let params = match object.remove("params") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(params)) => params,
            Some(_) => return Err(invalid("`params` must be an object")),
        };
        let params = without_null(params, "_meta");
        Ok(Self { id, method, params })
    }

    /// A member of `params._meta`.
    pub(crate) fn meta(&self, name: &str) -> Option<&Value> {
        self.params.get("_meta")?.get(name)
    }

    /// Whether it is a notification.
    pub(crate) fn is_notification(&self) -> bool {
        self.id.is_none()
    }
}

/// Removes this member if it is null.
fn without_null(mut members: Map<String, Value>, member: &str) -> Map<String, Value> {
    if members.get(member).is_some_and(Value::is_null) {
        members.remove(member);
    }
    members
}

fn looks_like_a_member(name: &str) -> bool {
    MEMBERS.iter().any(|member| name.eq_ignore_ascii_case(member) && name != *member)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// MCP-07: a number that would arrive as another one is refused, wherever it is.
    #[test]
    fn a_number_that_would_change_is_refused() {
        for number in ["18446744073709551616", "3.00000000000000000000001"] {
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"arguments":{{"n":[{number}]}}}}}}"#
            );
            let refused = Message::parse(body.as_bytes()).unwrap_err();
            assert_eq!(refused.code(), INVALID_REQUEST, "{number}");
        }
    }

    /// MCP-03: JSON that is not a valid request is refused; the id is repeated if it is known.
    #[test]
    fn unknown_shapes_are_refused() {
        let cases = [
            (r"{}", None),
            (r#"{"jsonrpc":"2.0"}"#, None),
            (r#"{"jsonrpc":"1.0","id":7,"method":"ping"}"#, Some(7)),
            (r#"{"jsonrpc":2.0,"id":7,"method":"ping"}"#, Some(7)),
            (r#"{"id":7,"method":"ping"}"#, Some(7)),
            (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, None),
            (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, None),
            (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, None),
            (r#"{"jsonrpc":"2.0","id":18446744073709551615,"method":"ping"}"#, None),
            (r#"{"jsonrpc":"2.0","id":7,"method":["ping"]}"#, Some(7)),
            (r#"{"jsonrpc":"2.0","id":7,"method":"ping","params":[]}"#, Some(7)),
            (r#"{"jsonrpc":"2.0","id":7,"method":"ping","params":false}"#, Some(7)),
            (r#"{"jsonrpc":"2.0","id":7,"method":null}"#, Some(7)),
            (r#"{"jsonrpc":null,"id":7,"method":"ping"}"#, Some(7)),
            (r#"{"jsonrpc":"2.0","id":7,"method":"ping","Method":"tools/call"}"#, Some(7)),
            (r#"{"jsonrpc":"2.0","id":7,"method":"ping","PARAMS":{}}"#, Some(7)),
            (r#"{"jsonrpc":"2.0","id":7,"method":"ping","Id":8}"#, Some(7)),
            (r#"{"JSONRPC":"2.0","id":7,"method":"ping"}"#, Some(7)),
            (r#"{"jsonrpc":"2.0","id":7,"result":{}}"#, Some(7)),
            (r#"{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":""}}"#, Some(7)),
            (r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","result":{}}"#, Some(7)),
        ];
        for (text, id) in cases {
            let refusal = Message::parse(text.as_bytes()).unwrap_err();
            assert_eq!(refusal.code(), INVALID_REQUEST, "{text}");
            assert_eq!(refusal.id(), id.map(Value::from).as_ref(), "{text}");
        }
    }

    #[test]
    fn a_request_and_a_notification() {
        let request = Message::parse(br#"{"jsonrpc":"2.0","id":"a","method":"ping","extra":1}"#).unwrap();
        assert_eq!(request.id, Some("a".into()));
        assert!(request.params.is_empty());
        for params in ["null", "{}", r#"{"_meta":null}"#] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":"a","method":"ping","params":{params}}}"#);
            assert!(Message::parse(text.as_bytes()).unwrap().params.is_empty(), "{params}");
        }
        let note = Message::parse(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).unwrap();
        assert!(note.is_notification());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in r#"(\{"jsonrpc":"2.0",)?["a-z/:,{}\[\]0-9]{0,40}\}?"#) {
            let _ = Message::parse(text.as_bytes());
        }
    }
}
