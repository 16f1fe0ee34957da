//! Initial access tokens (RFC 7591 §3, DCR-01), which an administrator hands out. A client that has one may
//! register until the token expires.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::audit::{self, Event, Name};
use shared::{Fault, Secret, Tx};

use crate::config::RegistrationMode;
use crate::store::initial_access_tokens;
use crate::{Authz, visible};

/// The most tokens that may be live at once.
const MOST: usize = 1000;
const LONGEST_LABEL: usize = 64;

/// An initial access token in a list. Times are Unix milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InitialAccessToken {
    pub label: String,
    /// The first hexadecimal digits of its SHA-256.
    pub sha256_8: String,
    pub created_at: i64,
    pub expires_at: i64,
}

/// Why a command about initial access tokens is refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("`{0}` is not a valid label: use 1 to 64 visible characters")]
    LabelInvalid(String),
    #[error(
        "a registration token called `{0}`, or one that looks like it, exists already; choose another label, or delete that token first"
    )]
    LabelTaken(String),
    #[error("no registration token `{0}`; `portcullis registration-token list` shows all tokens")]
    Unknown(String),
    #[error("the limit of 1000 registration tokens has been reached; delete unused ones")]
    TooMany,
}

/// A refusal is an answer and changes nothing; a fault rolls back.
pub type Answer<T> = Result<Result<T, Refusal>, Fault>;

/// Whether registration requires an initial access token.
pub fn are_needed(authz: &Authz) -> bool {
    authz.config.registration.mode == RegistrationMode::Token
}

/// Makes a token. It is shown only once.
///
/// # Errors
/// A database fault.
pub fn add(tx: &Tx<'_>, uid: u32, label: &str, lifetime: Duration) -> Answer<(InitialAccessToken, Secret)> {
    let fits = !label.is_empty() && label.chars().count() <= LONGEST_LABEL;
    if !fits || visible::clean(label) != label {
        return Ok(Err(Refusal::LabelInvalid(visible::clean(label))));
    }
    let live = list(tx)?;
    if live.len() >= MOST {
        return Ok(Err(Refusal::TooMany));
    }
    if live.iter().any(|token| visible::reads_like(&token.label, label)) {
        return Ok(Err(Refusal::LabelTaken(label.to_owned())));
    }
    let secret = Secret::random("iat_");
    let expires_at = tx.now() + lifetime;
    initial_access_tokens::insert(tx, &secret.digest(), label, expires_at)?;
    record(tx, uid, "added", label)?;
    let token = InitialAccessToken {
        label: label.to_owned(),
        sha256_8: secret.digest().short(),
        created_at: tx.now().0,
        expires_at: expires_at.0,
    };
    Ok(Ok((token, secret)))
}

/// Every live token.
///
/// # Errors
/// A database fault.
pub fn list(tx: &Tx<'_>) -> Result<Vec<InitialAccessToken>, Fault> {
    let shown = |token: initial_access_tokens::InitialAccessToken| InitialAccessToken {
        label: token.label,
        sha256_8: token.digest.short(),
        created_at: token.created_at.0,
        expires_at: token.expires_at.0,
    };
    Ok(initial_access_tokens::all(tx, tx.now())?.into_iter().map(shown).collect())
}

/// Removes a token. The clients that were registered with it stay.
///
/// # Errors
/// A database fault.
pub fn delete(tx: &Tx<'_>, uid: u32, label: &str) -> Answer<()> {
    if !initial_access_tokens::delete(tx, label)? {
        return Ok(Err(Refusal::Unknown(visible::clean(label))));
    }
    record(tx, uid, "deleted", label)?;
    Ok(Ok(()))
}

fn record(tx: &Tx<'_>, uid: u32, action: &str, label: &str) -> Result<(), Fault> {
    let event = Event::allowed(Name::ServerConfigChanged).by_console(uid);
    audit::append(tx, event.detail("initial_access_token", label).detail("action", action))
}
