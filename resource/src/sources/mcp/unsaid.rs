//! What an upstream was shown to prove who asks is not passed on when it repeats it: not in results, definitions, progress or
//! errors (SRC-10). One caller must not read what another's request was sent with, and no caller what is the gateway's.

use std::borrow::Cow;

use http::HeaderValue;
use serde_json::Value;
use serde_json::value::RawValue;

use super::failed::Failed;
use super::message::{Answered, RpcError};
use super::request::{Identity, NoResult};
use super::wire::Heard;

/// What stands in the place of a secret.
const INSTEAD: &str = "[secret]";
/// Shorter ones are words of any text.
const SHORTEST: usize = 8;

/// The secrets that a request was sent with, as they are and as JSON writes them.
pub(super) struct Unsaid(Vec<String>);

impl Unsaid {
    pub(super) fn of(who: &Identity) -> Self {
        let text = |value: &'_ HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers: Vec<String> = who.headers.iter().map(|(_, value)| text(value)).collect();
        let headers = headers.iter().map(|value| credentials(value));
        let variables = who.variables.iter().map(|(_, secret)| secret.expose());
        let mut forms: Vec<String> = Vec::new();
        for secret in headers.chain(variables).filter(|secret| secret.len() >= SHORTEST) {
            let quoted = Value::from(secret).to_string();
            let written = quoted[1..quoted.len() - 1].to_owned();
            if written != secret {
                forms.push(written);
            }
            forms.push(secret.to_owned());
        }
        Self(forms)
    }

    /// Whether there is nothing to keep back.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn answer(&self, answered: Result<Answered, NoResult>) -> Result<Answered, NoResult> {
        match answered {
            Ok(Ok(result)) => match self.json(result) {
                Some(result) => Ok(Ok(result)),
                None => Err(NoResult { sent: true, why: Failed::Unreadable(INSTEAD.to_owned()) }),
            },
            Ok(Err(error)) => Ok(Err(self.error(error))),
            Err(NoResult { sent, why }) => Err(NoResult { sent, why: self.failed(why) }),
        }
    }

    pub(super) fn heard(&self, heard: Heard) -> Heard {
        match heard {
            Heard::Progress(progress) => Heard::Progress(progress.rewritten(|members| self.text(members))),
            other => other,
        }
    }

    fn failed(&self, why: Failed) -> Failed {
        match why {
            Failed::Unavailable(words) => Failed::Unavailable(self.owned(words)),
            Failed::Lost(words) => Failed::Lost(self.owned(words)),
            Failed::Unreadable(words) => Failed::Unreadable(self.owned(words)),
            Failed::Status(mut refusal) => {
                refusal.location = refusal.location.map(|location| self.owned(location));
                refusal.error = refusal.error.map(|error| self.error(error));
                Failed::Status(refusal)
            }
            other => other,
        }
    }

    fn error(&self, error: RpcError) -> RpcError {
        let RpcError { code, message, data } = error;
        RpcError { code, message: self.owned(message), data: data.and_then(|data| self.json(data)) }
    }

    /// The same JSON; `None` if a secret looks like a piece of its structure.
    fn json(&self, written: Box<RawValue>) -> Option<Box<RawValue>> {
        match self.text(written.get()) {
            Cow::Borrowed(_) => Some(written),
            Cow::Owned(text) => RawValue::from_string(text).ok(),
        }
    }

    fn owned(&self, words: String) -> String {
        match self.text(&words) {
            Cow::Borrowed(_) => words,
            Cow::Owned(words) => words,
        }
    }

    fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut text = Cow::Borrowed(text);
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                text = Cow::Owned(text.replace(secret.as_str(), INSTEAD));
            }
        }
        text
    }
}

/// What follows the scheme in `Authorization` (RFC 9110 §11.4), or all of it.
fn credentials(value: &str) -> &str {
    value.split_once(' ').map_or(value, |(_, credentials)| credentials.trim())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, StatusCode};
    use shared::Secret;

    use super::super::failed::Refusal;
    use super::*;
    use crate::progress::Progress;

    const TOKEN: &str = "of-the-gateway/1";
    const KEY: &str = "schl\u{fc}ssel-7";
    const VARIABLE: &str = "quote\"and\\more";

    fn unsaid() -> Unsaid {
        Unsaid::of(&Identity {
            headers: vec![
                (
                    HeaderName::from_static("authorization"),
                    HeaderValue::from_str(&format!("Bearer {TOKEN}")).unwrap(),
                ),
                (HeaderName::from_static("x-key"), HeaderValue::from_bytes(KEY.as_bytes()).unwrap()),
            ],
            variables: vec![
                ("TOKEN".to_owned(), Secret::presented(VARIABLE)),
                ("SHORT".to_owned(), Secret::presented("a")),
            ],
            ..Identity::default()
        })
    }

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    /// SRC-10: whatever an upstream says, and wherever it says it.
    #[test]
    fn no_secret_is_repeated() {
        let unsaid = unsaid();
        let echo = format!(r#"{{"a":"cred Bearer {TOKEN}","b":{},"c":"{KEY}"}}"#, Value::from(VARIABLE));
        let result = unsaid.answer(Ok(Ok(raw(&echo)))).unwrap().unwrap();
        assert_eq!(result.get(), r#"{"a":"cred Bearer [secret]","b":"[secret]","c":"[secret]"}"#);
        let error = RpcError { code: 1, message: format!("bad {TOKEN}"), data: Some(raw(&echo)) };
        let error = unsaid.answer(Ok(Err(error))).unwrap().unwrap_err();
        assert_eq!((error.message.as_str(), error.data.unwrap().get()), ("bad [secret]", result.get()));
        let refusal = |location: Option<String>, error: Option<RpcError>| {
            let refusal = Refusal { status: StatusCode::FOUND, location, error, ours: false };
            Failed::Status(Box::new(refusal))
        };
        let error = RpcError { code: 1, message: TOKEN.to_owned(), data: None };
        for why in [
            refusal(Some(format!("http://else/?t={TOKEN}")), None),
            refusal(None, Some(error)),
            Failed::Lost(TOKEN.to_owned()),
            Failed::Unavailable(format!("said {VARIABLE}")),
            Failed::Unreadable(TOKEN.to_owned()),
        ] {
            let why = unsaid.answer(Err(NoResult { sent: true, why })).unwrap_err().why.to_string();
            assert!(why.contains(INSTEAD) && !why.contains(TOKEN) && !why.contains(VARIABLE), "{why}");
        }
        let told = raw(&format!(r#"{{"progressToken":1,"progress":1,"message":"{TOKEN}"}}"#));
        let Heard::Progress(told) = unsaid.heard(Heard::Progress(Progress::of_token(&told, 1).unwrap()))
        else {
            panic!()
        };
        assert!(!format!("{told:?}").contains(TOKEN));
    }

    /// SRC-05: everything else passes as it was written.
    #[test]
    fn the_rest_passes_as_it_was_written() {
        let unsaid = unsaid();
        let text = r#"{ "a": "a b" ,"n":1.0}"#;
        assert_eq!(unsaid.answer(Ok(Ok(raw(text)))).unwrap().unwrap().get(), text);
        assert!(Unsaid::of(&Identity::default()).is_empty());
    }
}
