//! The outcome of a call of an upstream without a result: its kind (SRC-08), and words for the model. Error
//! codes about the connection between upstream and gateway are not passed on (SRC-06).

use super::Outcome;
use super::identity::Credentials;
use super::mcp::failed::{Failed, shown};
use super::mcp::message::RpcError;
use crate::admission::{Ask, AskKind};
use crate::item::SourceName;
use crate::revision::Era;

const INVALID_PARAMS: i64 = -32602;
/// Codes that only older revisions have.
const RESOURCE_NOT_FOUND: i64 = -32002;
const URL_ELICITATION: i64 = -32042;
/// Codes about the protocol between an upstream and this gateway.
const PROTOCOL: std::ops::RangeInclusive<i64> = -32022..=-32020;

/// The outcome of an upstream's error.
pub(super) fn error(name: &SourceName, error: RpcError, ask: &Ask) -> Outcome {
    let reads = matches!(ask.what(), AskKind::Resource(..));
    match error.code {
        URL_ELICITATION => Outcome::Failed(
            format!("The server `{name}` asks its user to open a page first, which cannot be passed on.")
                .into(),
        ),
        code if PROTOCOL.contains(&code) => {
            let words = shown(&error.message);
            Outcome::Failed(format!("The server `{name}` refused the request before it ran: {words}").into())
        }
        RESOURCE_NOT_FOUND if ask.era() == Era::Modern => {
            Outcome::Refused(RpcError { code: INVALID_PARAMS, ..error })
        }
        INVALID_PARAMS if reads && ask.era() != Era::Modern => {
            Outcome::Refused(RpcError { code: RESOURCE_NOT_FOUND, ..error })
        }
        _ => Outcome::Refused(error),
    }
}

/// The outcome of a call that was sent without a usable answer.
pub(super) fn unanswered(name: &SourceName, credentials: &Credentials, why: Failed) -> Outcome {
    match why {
        Failed::TooLarge(size) => Outcome::TooLarge(size),
        Failed::NoMemory => Outcome::NoMemory,
        Failed::Status(refusal) if matches!(refusal.status.as_u16(), 401 | 403) => {
            let (status, remedy) = (refusal.status.as_u16(), credentials.remedy(true));
            let words = format!(
                "The server `{name}` refused the call (HTTP {status}): {remedy}. Your own sign-in is not the problem."
            );
            Outcome::Failed(words.into())
        }
        // A status of success without an answer refuses nothing.
        Failed::Status(refusal) if refusal.status.is_redirection() || refusal.status.is_client_error() => {
            let (why, redirects) = (Failed::Status(refusal.clone()), refusal.location.is_some());
            let remedy = if redirects {
                " An administrator can write that address as `url` of the source."
            } else {
                ""
            };
            Outcome::Failed(format!("The server `{name}` refused the call: {why}.{remedy}").into())
        }
        why => Outcome::Unknown(
            format!(
                "The server `{name}` was called and gave no usable answer: {why}. It may have run: check the effect before you try again."
            )
            .into(),
        ),
    }
}
