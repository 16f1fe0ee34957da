//! Answers to callers who may not use an item. Unknown and not entitled look the same (MCP-09).

use http::StatusCode;
use http::header::WWW_AUTHENTICATE;
use serde_json::{Value, json};
use shared::{ClientId, Scope, shell};

use super::answer::Answer;
use super::call::ItemCall;
use super::era::Era;
use super::refusal::{FORBIDDEN, INVALID_PARAMS, RESOURCE_NOT_FOUND, Refusal, TOO_MANY};
use crate::admission::{ItemRequest, Limited};
use crate::argument_rules::Violation;
use crate::bearer::CheckedToken;
use crate::item::Kind;
use crate::policy::Decision;
use crate::profile::Profile;

/// The answer to a request for an item that the policy refused.
pub(super) fn answer(
    decision: Decision,
    call: &ItemCall,
    id: &Value,
    era: Era,
    caller: &CheckedToken,
    profile: &Profile,
) -> Result<Answer, Refusal> {
    match decision {
        Decision::ScopeMissing { needed } => Err(insufficient_scope(call.kind, caller, &needed, profile)),
        Decision::AboveCeiling { beyond } => {
            let words = withheld(call.kind, &caller.token().client_id, &beyond);
            told(call, id, era, FORBIDDEN, words)
        }
        Decision::ArgumentDenied { violation } => {
            told(call, id, era, INVALID_PARAMS, not_allowed(&call.name, &violation))
        }
        Decision::NotEntitled | Decision::NoUser | Decision::Hidden | Decision::Unknown => {
            Err(unknown(call, era))
        }
        Decision::Allow => Err(Refusal::internal()),
    }
}

/// The answer to a call that is over a limit. It is never a transport error, which clients show as a dead server (LIMIT-01).
pub(super) fn limited(over: &Limited, call: &ItemCall, id: &Value, era: Era) -> Result<Answer, Refusal> {
    told(call, id, era, TOO_MANY, over.words.clone())
}

/// What went wrong, for the model to read: in the result of a tool, and else in an error, because no other result has room
/// for it.
fn told(call: &ItemCall, id: &Value, era: Era, code: i32, words: String) -> Result<Answer, Refusal> {
    match (call.kind, &call.asked) {
        (Kind::Tool, ItemRequest::Call(_)) => Ok(Answer::told(id, era, &words)),
        _ => Err(Refusal::new(StatusCode::OK, code, words)),
    }
}

/// RS-11: the challenge lists what the token holds and what lacks, so that nothing is lost by
/// asking for exactly that.
fn insufficient_scope(kind: Kind, caller: &CheckedToken, needed: &Scope, profile: &Profile) -> Refusal {
    let all = caller.token().scope.union(needed);
    let kind = kind.as_str();
    let words = format!("Insufficient scope: this {kind} needs {needed}. Sign in again and allow it.");
    Refusal::new(StatusCode::FORBIDDEN, FORBIDDEN, words)
        .header(WWW_AUTHENTICATE, profile.challenges().insufficient(&all))
        .data(json!({ "error": "insufficient_scope", "scope": all }))
}

/// For a call that the client cannot be granted for any user: words for the model to read out, because signing in
/// again, which is what a 403 asks for, would end in the same place (DCR-08).
fn withheld(kind: Kind, client: &ClientId, beyond: &Scope) -> String {
    format!(
        "This {} needs {beyond}, which is high risk and is not granted to unverified clients. Signing in again does not change that. An administrator can verify your client: portcullis client verify {}",
        kind.as_str(),
        shell::word(client.as_str())
    )
}

/// For a call whose arguments a rule does not allow (POL-02): which one, and what is allowed, so that a model can call
/// again.
fn not_allowed(name: &str, violation: &Violation) -> String {
    let Violation { argument, allowed, .. } = violation;
    format!(
        "The argument {argument} of {name} is not allowed here. Nothing was done. On this server {allowed}."
    )
}

/// Older revisions have a code of their own for a resource that is not there (SRC-06).
fn unknown(call: &ItemCall, era: Era) -> Refusal {
    let name: String = call.name.chars().take(128).collect();
    match call.kind {
        Kind::Tool => Refusal::new(StatusCode::OK, INVALID_PARAMS, format!("Unknown tool: {name}")),
        Kind::Prompt => Refusal::new(StatusCode::OK, INVALID_PARAMS, format!("Unknown prompt: {name}")),
        Kind::Template => {
            Refusal::new(StatusCode::OK, INVALID_PARAMS, format!("Unknown resource template: {name}"))
        }
        Kind::Resource => {
            let code = if era == Era::Modern { INVALID_PARAMS } else { RESOURCE_NOT_FOUND };
            Refusal::new(StatusCode::OK, code, "Resource not found").data(json!({ "uri": name }))
        }
    }
}
