//! `portcullis policy check`: what the gate would decide, and why. It asks the function that the gate asks.

use authz::Authz;
use authz::reach::{self, Person, Reach};
use resource::catalogue::{BuiltIn, Explained};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::token_status::Ceiling;
use shared::{Fault, Tx};

use super::Answer;

/// May this user call this tool, through this client if one is named?
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    pub user: String,
    pub tool: String,
    pub client: Option<String>,
}

/// Answers it.
pub(super) fn execute(
    authz: &Authz,
    catalogue: &BuiltIn,
    tx: &Tx<'_>,
    request: &Request,
) -> Result<Answer, Fault> {
    let person = match reach::person(authz, tx, &request.user)? {
        Ok(person) => person,
        Err(refusal) => return Ok(Answer::error("refused", &refusal.to_string())),
    };
    let client = match (&request.client, authz.endpoint()) {
        (Some(_), None) => {
            let words = "this server has no MCP endpoint of its own, and more than one or none elsewhere; leave out --client";
            return Ok(Answer::error("refused", words));
        }
        (Some(client), Some(endpoint)) => match reach::of_client(tx, client, &person.id, &endpoint)? {
            Ok(reach) => Some(reach),
            Err(refusal) => return Ok(Answer::error("refused", &refusal.to_string())),
        },
        (None, _) => None,
    };
    // Without a client, or before one was let in: as if the client held all that it may.
    let ceiling = client.as_ref().map_or(Ceiling::Any, |client| client.ceiling);
    let token = client.as_ref().and_then(|client| client.granted.as_ref()).unwrap_or(&person.entitled);
    let explained = catalogue.explain(token, &person.entitled, ceiling, &request.tool);
    let (decision, rule) = match (&person, &client) {
        (person, _) if person.disabled => ("user_disabled", "the user is disabled".to_owned()),
        (_, Some(client)) if client.disabled => ("client_disabled", "the client is disabled".to_owned()),
        _ => (explained.decision, rule(&explained, &person, catalogue, &request.tool)),
    };
    Ok(Answer::Ok(json!({
        "allowed": decision == "allow",
        "decision": decision,
        "rule": rule,
        "tool": { "name": request.tool, "needs": explained.needs },
        "user": { "id": person.id, "name": person.name, "groups": person.groups, "entitled": person.entitled },
        "client": client.as_ref().map(client_in_short),
    })))
}

fn client_in_short(client: &Reach) -> Value {
    json!({ "id": client.id, "name": client.name, "trust": client.trust, "granted": client.granted })
}

/// Why, in one line.
fn rule(explained: &Explained, person: &Person, catalogue: &BuiltIn, tool: &str) -> String {
    let lacking = &explained.lacking;
    match explained.decision {
        "allow" => match &explained.needs {
            None => "the tool needs only a valid token".to_owned(),
            Some(_) => "every scope that the tool needs is granted, and the user's groups have it".to_owned(),
        },
        "unknown" => {
            let tools: Vec<_> = catalogue.needs().into_iter().map(|(name, _)| name).collect();
            format!("no tool `{tool}`; the tools are {}", tools.join(", "))
        }
        "not_entitled" if lacking.is_empty() => "no scope gives access to this tool".to_owned(),
        "not_entitled" => {
            let givers = person.who_else_has(lacking);
            let givers = if givers.is_empty() { "no group has it".to_owned() } else { givers.join(", ") };
            format!("none of the user's groups has {lacking}; it is in: {givers}")
        }
        "above_ceiling" => {
            format!("{lacking} is high risk, and the client is not verified: portcullis client verify")
        }
        "scope_missing" => format!("the user has not granted the client {lacking}; a call asks them for it"),
        other => other.to_owned(),
    }
}
