//! Users' passkeys and roles in the administrator's commands (WEBAUTHN-08, WEBAUTHN-12, ADMIN-03).

use serde::{Deserialize, Serialize};
use shared::audit::{self, Event, Name};
use shared::{Fault, Tx};

use super::{Answer, Person, Refusal, accepted, find, keep_an_administrator, show};
use crate::store::grants::Reason;
use crate::store::passkeys::{self, Listed};
use crate::store::sessions;
use crate::store::users::{self, Role, User};
use crate::{Authz, ending};

/// The fewest digits of a digest that a command accepts for a passkey.
const SHORTEST: usize = 8;

/// A passkey in a list. Times are Unix milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Passkey {
    /// SHA-256 of the credential id, in hexadecimal. The audit log shows its first eight digits.
    pub sha256: String,
    /// The name that its user gave it, or the browser that made it.
    pub name: Option<String>,
    pub created_at: i64,
    pub last_used_at: Option<i64>,
    /// Its counter went back: it cannot sign in until an administrator clears it.
    pub suspended: bool,
    /// It can be copied to other devices (WebAuthn's BE flag).
    pub copyable: bool,
}

/// A user's passkeys, oldest first.
///
/// # Errors
/// A database fault.
pub fn list(tx: &Tx<'_>, who: &str) -> Answer<Vec<Passkey>> {
    let user = accepted!(find(tx, who)?);
    let listed = passkeys::of(tx, &user.id)?;
    let passkey = |listed: &Listed| -> Result<Passkey, Fault> {
        Ok(Passkey {
            sha256: listed.digest().hex(),
            name: listed.label.clone(),
            created_at: listed.created_at.0,
            last_used_at: listed.last_used_at.map(|at| at.0),
            suspended: listed.suspended,
            copyable: listed.copyable()?,
        })
    };
    Ok(Ok(listed.iter().map(passkey).collect::<Result<_, _>>()?))
}

/// Removes a passkey and ends the user's sessions (SESSION-05). If it was stolen, every grant ends too, because
/// the thief may have made some (REFRESH-08).
///
/// # Errors
/// A database fault.
pub fn remove(
    authz: &Authz,
    tx: &Tx<'_>,
    uid: u32,
    who: &str,
    credential: &str,
    stolen: bool,
) -> Answer<Person> {
    let user = accepted!(find(tx, who)?);
    let listed = passkeys::of(tx, &user.id)?;
    let gone = accepted!(named(&user, &listed, credential));
    // An enabled user must keep a passkey to sign in with (WEBAUTHN-12).
    if !user.disabled && passkeys::others(&listed, gone).next().is_none() {
        return Ok(Err(Refusal::LastPasskey(user.name)));
    }
    passkeys::delete(tx, &gone.credential)?;
    sessions::delete_all_of(tx, &user.id)?;
    let ended = if stolen { ending::all_of(authz, tx, &user.id, Reason::PasskeyStolen)? } else { 0 };
    let event = about(Event::allowed(Name::WebauthnRemoved), uid, &user, gone);
    audit::append(tx, event.detail("stolen", stolen).detail("grants_ended", ended))?;
    show(authz, tx, user.id.as_str())
}

/// Lifts the suspension of a passkey. Its next counter value is accepted as the new start.
///
/// # Errors
/// A database fault.
pub fn unsuspend(authz: &Authz, tx: &Tx<'_>, uid: u32, who: &str, credential: &str) -> Answer<Person> {
    let user = accepted!(find(tx, who)?);
    let listed = passkeys::of(tx, &user.id)?;
    let cleared = accepted!(named(&user, &listed, credential));
    if !cleared.suspended {
        return Ok(Err(Refusal::NotSuspended(cleared.digest().short())));
    }
    passkeys::clear(tx, cleared)?;
    let event = about(Event::allowed(Name::CounterRegression), uid, &user, cleared);
    audit::append(tx, event.detail("cleared", true))?;
    show(authz, tx, user.id.as_str())
}

/// Makes a user an administrator, or removes the role. Their sessions end, because they began with other rights
/// (SESSION-02).
///
/// # Errors
/// A database fault.
pub fn role(authz: &Authz, tx: &Tx<'_>, uid: u32, who: &str, admin: bool) -> Answer<Person> {
    let user = accepted!(find(tx, who)?);
    if admin && user.disabled {
        return Ok(Err(Refusal::Disabled(user.name)));
    }
    if !admin {
        accepted!(keep_an_administrator(tx, &user)?);
    }
    let after = if admin { Role::Admin } else { Role::None };
    let (before, _) = users::role_and_age(tx, &user.id)?;
    if before != after.as_str() {
        users::set_role(tx, &user.id, after)?;
        sessions::delete_all_of(tx, &user.id)?;
        let event = Event::allowed(Name::UserRoleChanged).by_console(uid).subject(user.id.as_str());
        audit::append(tx, event.detail("before", before).detail("after", after.as_str()))?;
    }
    show(authz, tx, user.id.as_str())
}

/// The passkey whose digest begins with these digits, in any case.
fn named<'l>(user: &User, listed: &'l [Listed], credential: &str) -> Result<&'l Listed, Refusal> {
    let unknown = || Refusal::PasskeyUnknown(credential.to_owned(), user.name.clone());
    let prefix = credential.to_ascii_lowercase();
    if prefix.len() < SHORTEST {
        return Err(unknown());
    }
    let mut found = listed.iter().filter(|listed| listed.digest().hex().starts_with(&prefix));
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        _ => Err(unknown()),
    }
}

fn about(event: Event, uid: u32, user: &User, passkey: &Listed) -> Event {
    event.by_console(uid).subject(user.id.as_str()).detail("credential_sha256_8", passkey.digest().short())
}
