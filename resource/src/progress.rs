//! Notifications of progress (MCP, progress), from a source to the client of the call (SRC-13).

use std::borrow::Cow;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::members::{Edit, Members};

/// The longest notification that is passed on whole, in bytes; of a longer one only the numbers are.
const LONGEST: usize = 16 * 1024;
/// The longest token of a client in bytes.
const LONGEST_TOKEN: usize = 1024;

/// One notification of progress.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Progress {
    value: f64,
    /// Its parameters without the token, as they were written, without the braces.
    members: String,
}

/// The token by which a client asked for progress, as JSON.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Token(String);

impl Progress {
    /// Parses the parameters of a notification of this token; `None` if it is of another, or says no number.
    pub(crate) fn of_token(params: &RawValue, token: u64) -> Option<Self> {
        Self::read(params).filter(|(its, _)| *its == token.to_string()).map(|(_, progress)| progress)
    }

    /// Parses the parameters of a notification: the token as it was written, and what is said.
    pub(crate) fn read(params: &RawValue) -> Option<(String, Self)> {
        let members = Members::of(params.get())?;
        let token = members.get("progressToken")?.get().to_owned();
        let number = |name: &str| serde_json::from_str::<f64>(members.get(name)?.get()).ok();
        let value = number("progress")?;
        let is_short = params.get().len() <= LONGEST;
        // What clients would stumble over stays behind.
        let edit = |name: &str| match name {
            "progressToken" | "_meta" => Edit::Drop,
            "progress" => Edit::Keep,
            "total" if number("total").is_none() => Edit::Drop,
            "message" if members.text("message").is_none() => Edit::Drop,
            _ if is_short || name == "total" => Edit::Keep,
            _ => Edit::Drop,
        };
        Some((token, Self { value, members: members.edited(edit) }))
    }

    /// The same in other words.
    pub(crate) fn rewritten(self, write: impl FnOnce(&str) -> Cow<'_, str>) -> Self {
        Self { members: write(&self.members).into_owned(), ..self }
    }

    /// Whether the work has come further than before.
    pub(crate) fn is_beyond(&self, before: Option<&Self>) -> bool {
        before.is_none_or(|before| self.value > before.value)
    }

    /// The notification for a client that asked by this token.
    pub(crate) fn notification(&self, Token(token): &Token) -> String {
        let members = &self.members;
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},{members}}}}}"#
        )
    }

    /// What a source of our own tells.
    pub(crate) fn new(value: f64) -> Self {
        Self { value, members: format!(r#""progress":{value:?}"#) }
    }
}

impl Token {
    /// What a request says in `_meta.progressToken`; `None` if it is not a token (MCP, progress: a string or an integer).
    pub(crate) fn of(said: &Value) -> Option<Self> {
        let is_token = said.is_string() || said.is_i64() || said.is_u64();
        is_token.then(|| said.to_string()).filter(|token| token.len() <= LONGEST_TOKEN).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(params: &str) -> Option<Progress> {
        Progress::of_token(&RawValue::from_string(params.to_owned()).unwrap(), 7)
    }

    /// SRC-13: the client's own token and its type; the numbers and what else was said as they were written.
    #[test]
    fn a_notification_gets_the_clients_token() {
        let progress =
            read(r#"{"progressToken":7,"progress":1.50,"total":1e2,"message":"é","x":{"y":[1.0]}}"#).unwrap();
        assert!(
            progress.is_beyond(Some(&Progress::new(1.4))) && !progress.is_beyond(Some(&Progress::new(1.5)))
        );
        for (said, written) in [(json!("7"), r#""7""#), (json!(12), "12"), (json!("a\"b"), r#""a\"b""#)] {
            let expected = format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{written},"progress":1.50,"total":1e2,"message":"é","x":{{"y":[1.0]}}}}}}"#
            );
            assert_eq!(progress.notification(&Token::of(&said).unwrap()), expected);
        }
    }

    /// SRC-13: progress of another request, or none at all.
    #[test]
    fn other_notifications_are_not_progress() {
        for bad in [
            "7",
            "{}",
            r#"{"progress":1}"#,
            r#"{"progressToken":8,"progress":1}"#,
            r#"{"progressToken":"7","progress":1}"#,
            r#"{"progressToken":7}"#,
            r#"{"progressToken":7,"progress":"1"}"#,
            r#"{"progressToken":7,"progress":1,"progress":2}"#,
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        for bad in [json!(null), json!(1.5), json!([]), json!({}), json!(true), json!("x".repeat(2000))] {
            assert_eq!(Token::of(&bad), None, "{bad}");
        }
    }

    /// SRC-13: what is not of its type, or too long, stays behind.
    #[test]
    fn what_a_client_would_stumble_over_stays_behind() {
        let token = Token::of(&json!(1)).unwrap();
        let progress =
            read(r#"{"progressToken":7,"progress":1,"total":"x","message":5,"_meta":{"a":1}}"#).unwrap();
        assert!(progress.notification(&token).ends_with(r#""params":{"progressToken":1,"progress":1}}"#));
        let long =
            format!(r#"{{"progressToken":7,"progress":1,"total":2,"message":"{}"}}"#, "x".repeat(LONGEST));
        let progress = read(&long).unwrap();
        assert!(progress.notification(&token).ends_with(r#"{"progressToken":1,"progress":1,"total":2}}"#));
    }
}
