//! `whoami`: what the server knows about the caller. It needs only a valid token (MCP-08).

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use shared::shell;

use super::Outcome;
use super::own::{OwnTool, answered, problem};
use crate::admission::{Ask, AskKind};
use crate::item::{Needs, Offered};

const WORDS: (&str, &str, &str) = (
    "whoami",
    "Who am I",
    "Says on whose behalf you are calling: user id, client id, the scopes of the access token, the scopes \
     the user is entitled to, those of them that are withheld from this client, and when the token expires. \
     Use it when a tool is missing or a call is refused: a scope that is entitled but not granted can be \
     asked for by signing in again, unless it is withheld.",
);

static WHOAMI: LazyLock<OwnTool> = LazyLock::new(|| OwnTool::new(WORDS, Some(Needs::User), schemas()));
static OFFERED: LazyLock<Arc<Offered>> = LazyLock::new(|| {
    Arc::new(Offered { source: "account".into(), offers: vec![WHOAMI.offer()], own_secret: None })
});

pub(super) fn offered() -> Arc<Offered> {
    Arc::clone(&OFFERED)
}

pub(super) fn run(ask: &Ask) -> Outcome {
    let AskKind::Tool(_, arguments) = ask.what() else { return Outcome::Error };
    match WHOAMI.check(arguments) {
        Ok(()) => whoami(ask),
        Err(wrong) => problem(&wrong),
    }
}

fn schemas() -> [Value; 2] {
    let scopes =
        |words: &str| json!({ "type": "array", "items": { "type": "string" }, "description": words });
    [
        json!({ "type": "object", "properties": {}, "additionalProperties": false }),
        json!({
            "type": "object",
            "properties": {
                "user": { "type": "string", "description": "The user's id." },
                "client": { "type": "string", "description": "The OAuth client's id." },
                "resource": { "type": "string", "description": "The endpoint that the token is for." },
                "scopes": scopes("What the token allows."),
                "entitled": scopes("What the user may be granted now."),
                "withheld": scopes("What of it this client is not granted until an administrator verifies it."),
                "expires": { "type": "string", "description": "When the token expires, RFC 3339, UTC." },
            },
            "required": ["user", "client", "resource", "scopes", "entitled", "withheld", "expires"],
            "additionalProperties": false,
        }),
    ]
}

fn whoami(ask: &Ask) -> Outcome {
    let asker = ask.asker();
    let (scope, entitled, withheld) = (asker.scope(), asker.entitled(), asker.withheld());
    let expires = asker.expires().to_string();
    let or_none = |scopes: String| if scopes.is_empty() { "none".to_owned() } else { scopes };
    let withheld_from_client = if withheld.is_empty() {
        String::new()
    } else {
        format!(
            "\nWithheld from this client until an administrator verifies it: {withheld} (portcullis client verify {})",
            shell::word(asker.client().as_str())
        )
    };
    let text = format!(
        "User: {}\nClient: {}\nScopes of the token: {}\nScopes the user is entitled to: {}{withheld_from_client}\nThe token expires: {expires}",
        asker.user(),
        asker.client(),
        or_none(scope.to_string()),
        or_none(entitled.to_string()),
    );
    let data = json!({
        "user": asker.user(),
        "client": asker.client(),
        "resource": asker.resource(),
        "scopes": scope.iter().collect::<Vec<_>>(),
        "entitled": entitled.iter().collect::<Vec<_>>(),
        "withheld": withheld.iter().collect::<Vec<_>>(),
        "expires": expires,
    });
    answered(&text, &data)
}
