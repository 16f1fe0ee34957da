//! Secrets for sources, as administrators manage them with commands (SRC-10): by the name in the configuration,
//! or a user's own. No function here returns a value.

use keys::secrets::{self, Secrets, Server};
use serde::{Deserialize, Serialize};
use shared::audit::{self, Event, Name};
use shared::{Fault, Secret, Timestamp, Tx, UserId};

use crate::Authz;
use crate::people;
use crate::store::users;

impl Authz {
    /// The sealed store.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }
}

/// A secret, without its value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SecretInfo {
    /// Its name; for a user's own, the source that it is for.
    pub name: String,
    /// Its user, for a user's own secret.
    pub user: Option<Holder>,
    pub created_at: Timestamp,
    pub changed_at: Timestamp,
}

/// A user with their own secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Holder {
    pub id: UserId,
    pub name: String,
}

/// A secret that was set.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Set {
    pub name: String,
    pub user: Option<Holder>,
    /// Whether it replaced another value.
    pub replaced: bool,
}

/// A secret that was removed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Removed {
    pub name: String,
    pub user: Option<Holder>,
}

/// Why a secret was not removed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    User(#[from] people::Refusal),
    #[error("there is no secret `{0}`; `portcullis secret list` shows them")]
    NoSecret(String),
    #[error("{0} has no secret for `{1}`; `portcullis secret list` shows them")]
    NoOwnSecret(String, String),
    #[error("there is a secret `{0}` already; `portcullis secret remove {0}` removes it")]
    Exists(String),
}

/// The answer to a request about secrets.
pub type Answer<T> = Result<Result<T, Refusal>, Fault>;

/// Stores a value under a name; with `only_new`, only if the name has none.
///
/// # Errors
/// The database's fault.
pub fn set(authz: &Authz, tx: &Tx<'_>, uid: u32, name: &str, value: &Secret, only_new: bool) -> Answer<Set> {
    if only_new && secrets::list(tx)?.iter().any(|known| known.user.is_none() && known.name == name) {
        return Ok(Err(Refusal::Exists(name.to_owned())));
    }
    let is_new = authz.secrets().set_named(tx, name, value)?;
    let event = Event::allowed(Name::SecretSet).by_console(uid);
    audit::append(tx, event.detail("name", name).detail("replaced", !is_new))?;
    Ok(Ok(Set { name: name.to_owned(), user: None, replaced: !is_new }))
}

/// Stores a value as a user's own secret for a source.
///
/// # Errors
/// The database's fault.
pub fn set_for(
    authz: &Authz,
    tx: &Tx<'_>,
    uid: u32,
    user: &str,
    server: Server<'_>,
    value: &Secret,
) -> Answer<Set> {
    let user = match people::find(tx, user)? {
        Ok(user) => user,
        Err(refusal) => return Ok(Err(refusal.into())),
    };
    let is_new = authz.secrets().set_of_user(tx, &user.id, server, value)?;
    let event = Event::allowed(Name::SecretSet).by_console(uid).subject(user.id.as_str());
    audit::append(tx, event.detail("source", server.source).detail("replaced", !is_new))?;
    let holder = Holder { id: user.id, name: user.name };
    Ok(Ok(Set { name: server.source.to_owned(), user: Some(holder), replaced: !is_new }))
}

/// Deletes the secret with this name, or this user's own secret for the source with this name. It is not used
/// from then on.
///
/// # Errors
/// The database's fault.
pub fn remove(tx: &Tx<'_>, uid: u32, name: &str, user: Option<&str>) -> Answer<Removed> {
    let event = Event::allowed(Name::SecretRemoved).by_console(uid);
    let Some(user) = user else {
        if !secrets::remove_named(tx, name)? {
            return Ok(Err(Refusal::NoSecret(name.to_owned())));
        }
        audit::append(tx, event.detail("name", name))?;
        return Ok(Ok(Removed { name: name.to_owned(), user: None }));
    };
    let user = match people::find(tx, user)? {
        Ok(user) => user,
        Err(refusal) => return Ok(Err(refusal.into())),
    };
    if !secrets::remove_of_user(tx, &user.id, name)? {
        return Ok(Err(Refusal::NoOwnSecret(user.name, name.to_owned())));
    }
    audit::append(tx, event.subject(user.id.as_str()).detail("source", name))?;
    Ok(Ok(Removed { name: name.to_owned(), user: Some(Holder { id: user.id, name: user.name }) }))
}

/// All secrets, or those of one user.
///
/// # Errors
/// The database's fault.
pub fn list(tx: &Tx<'_>, user: Option<&str>) -> Answer<Vec<SecretInfo>> {
    let all = match user {
        None => secrets::list(tx)?,
        Some(user) => match people::find(tx, user)? {
            Ok(user) => secrets::list_of_user(tx, &user.id)?,
            Err(refusal) => return Ok(Err(refusal.into())),
        },
    };
    let known = |listed: secrets::SecretInfo| {
        let user = match listed.user {
            None => None,
            Some(id) => users::find(tx, &id)?.map(|user| Holder { id: user.id, name: user.name }),
        };
        let (created_at, changed_at) = (listed.created_at, listed.changed_at);
        Ok(SecretInfo { name: listed.name, user, created_at, changed_at })
    };
    all.into_iter().map(known).collect::<Result<_, Fault>>().map(Ok)
}
