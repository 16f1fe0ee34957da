//! What a caller gets of a service's answer.

use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::{Answered, Operation};
use crate::item::SourceName;
use crate::sources::Outcome;
use crate::sources::declared::cut::cut;
use crate::sources::identity::Credentials;
use crate::sources::own::{answered, problem};

/// A credential shorter than this is not looked for in answers: it would be found in any text.
const SHORTEST: usize = 6;

/// The outcome of an answer: the projected body, as an error if the service says so (REST-01).
pub(super) fn outcome(
    name: &SourceName,
    credentials: &Credentials,
    operation: &Operation,
    who: &[(HeaderName, HeaderValue)],
    answer: Answered,
) -> Outcome {
    let Answered { status, location, body } = answer;
    if location && (300..400).contains(&status) {
        return Outcome::Failed(
            format!(
                "The service `{name}` redirects to another address (HTTP {status}), which is not followed. An administrator can write that address as `url` of the source."
            )
            .into(),
        );
    }
    let text = without_secrets(&String::from_utf8_lossy(&body), who);
    let parsed = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text));
    if (200..300).contains(&status) {
        let (body, truncated) = cut(operation.result.of(parsed), operation.most);
        let data = json!({ "status": status, "body": body, "truncated": truncated });
        return answered(&data.to_string(), &data);
    }
    // What says what is wrong is rarely where the result would be.
    let kept = match operation.result.of(parsed.clone()) {
        Value::Null => parsed,
        some => some,
    };
    let (body, _) = cut(kept, operation.most);
    let remedy = match status {
        401 | 403 => format!(" {}. Your own sign-in is not the problem.", capital(&credentials.remedy(true))),
        _ => String::new(),
    };
    problem(&format!("The service `{name}` answered HTTP {status}: {body}{remedy}"))
}

/// The text without the credentials that were sent: some services show a request to the client that made it.
fn without_secrets(text: &str, who: &[(HeaderName, HeaderValue)]) -> String {
    let values = who.iter().filter_map(|(_, value)| value.to_str().ok());
    let secrets = values.flat_map(|value| [Some(value), value.split_once(' ').map(|(_, rest)| rest)]);
    let mut text = text.to_owned();
    for secret in secrets.flatten().filter(|secret| secret.len() >= SHORTEST) {
        text = text.replace(secret, "[secret]");
        let written = Value::from(secret).to_string();
        text = text.replace(written.trim_matches('"'), "[secret]");
    }
    text
}

fn capital(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map(|first| first.to_uppercase().chain(rest).collect()).unwrap_or_default()
}
