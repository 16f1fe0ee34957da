//! Signing keys and the sealing key in the administrator's commands (KEYS-03…05).

use std::path::Path;

use keys::seal::{Pending, Resealed};
use keys::{Algorithm, Cause, KeyInfo, NewKey, Rotated, SealError, State};
use serde::{Deserialize, Serialize};
use shared::audit::{Event, Name};
use shared::db::Conn;
use shared::{Fault, Timestamp, Tx};

use crate::Authz;
use crate::store::{grants, lifetimes};

/// What removing a key would end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RemovalEffect {
    /// The number of grants that may have a token signed by the key.
    pub grants: u32,
    pub users: u32,
    pub clients: u32,
    /// When the last such token would expire; `None` if there is none.
    pub expires_by: Option<Timestamp>,
}

/// A key, and what removing it would end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Inspected {
    pub key: KeyInfo,
    pub blast: RemovalEffect,
    /// How long other servers may use an older key set, in seconds.
    pub jwks_max_age: u64,
}

/// The result of a removal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Removed {
    pub kid: String,
    pub alg: Algorithm,
    pub was: State,
    /// The key that signs now, if the removed one was active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub successor: Option<String>,
    pub blast: RemovalEffect,
}

/// Why a command about keys is refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("no signing key `{0}`; `portcullis key list` shows all keys")]
    Unknown(String),
    #[error("give a reason for removing the key: the audit log keeps it")]
    NoReason,
    #[error("no {0} key is in use; [keys] signing_alg in portcullis.toml sets the algorithm for tokens")]
    NotInUse(Algorithm),
}

/// A refusal is an answer and commits nothing; a fault rolls back.
pub type Answer<T> = Result<Result<T, Refusal>, Fault>;

/// All keys, oldest first.
///
/// # Errors
/// A database fault.
pub fn list(authz: &Authz, conn: &Conn<'_>) -> Result<Vec<KeyInfo>, Fault> {
    authz.keys.list(conn)
}

/// One key, and what removing it would end.
///
/// # Errors
/// A database fault.
pub fn inspect(authz: &Authz, tx: &Tx<'_>, kid: &str) -> Answer<Inspected> {
    let Some(key) = authz.keys.find(tx, kid)? else { return Ok(Err(Refusal::Unknown(kid.to_owned()))) };
    let blast = blast(authz, tx, &key)?;
    Ok(Ok(Inspected { key, blast, jwks_max_age: authz.keys.config().jwks_max_age.as_secs() }))
}

/// Makes the key for a rotation. Slow, so call it before the job.
///
/// # Errors
/// If the cryptographic library fails.
pub fn make(authz: &Authz, algorithm: Option<Algorithm>) -> Result<NewKey, keys::CryptoFailed> {
    NewKey::generate(algorithm.unwrap_or(authz.keys.config().algorithm))
}

/// Makes the successor for a removal, if one is needed. Call it before the job.
///
/// # Errors
/// A fault of the database or of the cryptographic library.
pub fn make_successor(authz: &Authz, kid: &str) -> Result<Option<NewKey>, Fault> {
    let key = authz.db.read(|conn| authz.keys.find(conn, kid))?;
    let active = key.filter(|key| key.state == State::Active);
    let made = active.map(|key| NewKey::generate(key.alg)).transpose();
    made.map_err(|error| Fault::Storage(error.to_string()))
}

/// Rotates ahead of the schedule. With `at_once` the new key signs before other servers can know it.
///
/// # Errors
/// A database fault.
pub fn rotate(authz: &Authz, tx: &Tx<'_>, uid: u32, made: &NewKey, at_once: bool) -> Answer<Rotated> {
    let mut active = authz.keys.list(tx)?.into_iter().filter(|key| key.state == State::Active);
    if !active.any(|key| key.alg == made.algorithm()) && made.algorithm() != authz.keys.config().algorithm {
        return Ok(Err(Refusal::NotInUse(made.algorithm())));
    }
    let reason = if at_once { "on_demand_at_once" } else { "on_demand" };
    authz.keys.rotate(tx, made, at_once, Cause::console(uid, reason)).map(Ok)
}

/// Removes a key in an emergency: tokens that it signed are refused from now on.
///
/// # Errors
/// A database fault.
pub fn remove(
    authz: &Authz,
    tx: &Tx<'_>,
    uid: u32,
    kid: &str,
    reason: &str,
    made: Option<&NewKey>,
) -> Answer<Removed> {
    if reason.trim().is_empty() {
        return Ok(Err(Refusal::NoReason));
    }
    let Some(key) = authz.keys.find(tx, kid)? else { return Ok(Err(Refusal::Unknown(kid.to_owned()))) };
    let blast = blast(authz, tx, &key)?;
    match authz.keys.remove_now(tx, kid, made, Cause::console(uid, reason))? {
        Ok((was, successor)) => Ok(Ok(Removed { kid: key.kid, alg: key.alg, was, successor, blast })),
        Err(_) => Ok(Err(Refusal::Unknown(key.kid))),
    }
}

/// Makes a new sealing key and writes it beside the current one: the first of three steps. Blocks.
///
/// # Errors
/// See [`SealError`].
pub fn prepare_reseal(
    authz: &Authz,
    elsewhere: Option<&Path>,
    keep: Option<&Path>,
) -> Result<Pending, SealError> {
    authz.seal.prepare(&authz.db, elsewhere, keep)
}

/// Seals every value with the new key: the second step.
///
/// # Errors
/// A database fault.
pub fn reseal(authz: &Authz, tx: &Tx<'_>, uid: u32, pending: &Pending) -> Result<Resealed, Fault> {
    authz.seal.reseal(tx, pending, Event::allowed(Name::ServerConfigChanged).by_console(uid))
}

/// Removes the old key from the file: the last step. If it fails, the next start does it. Blocks.
///
/// # Errors
/// See [`SealError`].
pub fn finish_reseal(authz: &Authz, pending: &Pending) -> Result<(), SealError> {
    authz.seal.finish(&authz.db, pending)
}

/// The grants that may have a live token signed by the key: those on which tokens were issued while it was
/// active, within the longest token lifetime. For a key that did not sign, this is more than it signed.
fn blast(authz: &Authz, conn: &Conn<'_>, key: &KeyInfo) -> Result<RemovalEffect, Fault> {
    let none = RemovalEffect { grants: 0, users: 0, clients: 0, expires_by: None };
    let Some(since) = key.activated_at else { return Ok(none) };
    let now = authz.clock.now();
    let lifetime = lifetimes::longest(conn, now, authz.config.tokens.access)?;
    let since = since.max(now - lifetime);
    let until = key.retired_at.unwrap_or(now);
    let found = grants::issued_between(conn, since, until, now)?;
    Ok(match found.last {
        None => none,
        Some(last) => RemovalEffect {
            grants: found.grants,
            users: found.users,
            clients: found.clients,
            expires_by: Some(last + lifetime),
        },
    })
}
