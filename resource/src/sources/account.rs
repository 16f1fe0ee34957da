//! `whoami`: what the server knows about the caller. It needs nothing but a valid token (MCP-08).

use serde_json::{Value, json};

use shared::{Scope, shell};

use crate::gate::tools::{Caller, Said};

pub(crate) const WORDS: (&str, &str, &str) = (
    "whoami",
    "Who am I",
    "Says on whose behalf you are calling: user id, client id, the scopes of the access token, the scopes \
     the user is entitled to, those of them that are withheld from this client, and when the token expires. \
     Use it when a tool is missing or a call is refused: a scope that is entitled but not granted can be \
     asked for by signing in again, unless it is withheld.",
);

pub(crate) fn schemas() -> [Value; 2] {
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

pub(crate) fn call(caller: &Caller<'_>, withheld: &Scope) -> Said {
    let token = caller.checked.token();
    let expires = token.expires().to_string();
    let or_none = |scopes: String| if scopes.is_empty() { "none".to_owned() } else { scopes };
    let withheld_from_client = if withheld.is_empty() {
        String::new()
    } else {
        format!(
            "\nWithheld from this client until an administrator verifies it: {withheld} (portcullis client verify {})",
            shell::word(token.client_id.as_str())
        )
    };
    let text = format!(
        "User: {}\nClient: {}\nScopes of the token: {}\nScopes the user is entitled to: {}{withheld_from_client}\nThe token expires: {expires}",
        token.sub,
        token.client_id,
        or_none(token.scope.to_string()),
        or_none(caller.checked.entitled().to_string()),
    );
    let data = json!({
        "user": token.sub,
        "client": token.client_id,
        "resource": caller.resource,
        "scopes": token.scope.iter().collect::<Vec<_>>(),
        "entitled": caller.checked.entitled().iter().collect::<Vec<_>>(),
        "withheld": withheld.iter().collect::<Vec<_>>(),
        "expires": expires,
    });
    Said { text, data }
}
