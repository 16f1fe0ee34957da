//! Moves a data directory to another issuer. This never happens implicitly: tokens name their issuer, and
//! passkeys are bound to its host (META-01, WEBAUTHN-01).

use serde::{Deserialize, Serialize};
use shared::audit::{self, Event, Name};
use shared::db::Conn;
use shared::{Fault, Issuer, Tx};

use crate::Authz;
use crate::access::{self, BlastRadius};
use crate::store::issuers;

/// The issuer that the data directory belongs to; `None` before its first start.
///
/// # Errors
/// A database fault.
pub fn stored(conn: &Conn<'_>) -> Result<Option<String>, Fault> {
    issuers::find(conn)
}

/// Stores the issuer: the first one, or another after [`change`].
///
/// # Errors
/// A database fault.
pub fn store(tx: &Tx<'_>, issuer: &Issuer) -> Result<(), Fault> {
    issuers::set(tx, issuer.as_str())
}

/// Why an issuer is refused: the data directory belongs to another one. The message says what would end, what
/// stays, and how to continue either way.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "this data directory belongs to the issuer {stored}, not to {wanted}. To keep that issuer, start with {before}. To change it, run `portcullis issuer change {wanted}`: {ends} Users, groups, clients, keys and the audit log stay"
)]
pub struct Another {
    stored: String,
    wanted: String,
    before: String,
    ends: String,
}

impl Another {
    /// The error, unless `stored` is this issuer.
    pub fn than(stored: &str, wanted: &Issuer) -> Option<Self> {
        if stored == wanted.as_str() {
            return None;
        }
        let before = Issuer::parse(stored).ok();
        let same_host = before.as_ref().is_some_and(|before| before.host() == wanted.host());
        let ends = if same_host {
            "every token, grant and session ends; passkeys keep working, because the host name is the same."
        } else {
            "every token, grant and session ends, and no passkey works under the new host name, so everybody needs a new link (`portcullis user link`, `portcullis setup-link`)."
        };
        let port = before.as_ref().filter(|before| before.is_loopback()).map(Issuer::port);
        let start = port.map_or_else(
            || format!("--issuer {stored}"),
            |port| format!("--listen localhost:{port} --issuer {stored}"),
        );
        Some(Self {
            stored: stored.to_owned(),
            wanted: wanted.to_string(),
            before: start,
            ends: ends.to_owned(),
        })
    }
}

/// What a change of the issuer does to passkeys.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Passkeys {
    /// Passkeys that stop working, because they are bound to the old host.
    pub set_aside: u32,
    /// Passkeys that work again, because they were made under the new host before.
    pub back: u32,
}

/// Counts what a change to this issuer would do to passkeys.
///
/// # Errors
/// A database fault.
pub fn measure(conn: &Conn<'_>, before: &Issuer, after: &Issuer) -> Result<Passkeys, Fault> {
    if before.host() == after.host() {
        return Ok(Passkeys { set_aside: 0, back: 0 });
    }
    let (set_aside, back) = (issuers::count_passkeys(conn)?, issuers::count_passkeys_of(conn, after.host())?);
    Ok(Passkeys { set_aside, back })
}

/// Moves the data directory to another issuer. Everything that names the old one ends, as in a lockdown.
/// Passkeys of the old host are set aside, and those made under the new host before are restored.
///
/// # Errors
/// A database fault.
pub fn change(
    authz: &Authz,
    tx: &Tx<'_>,
    uid: u32,
    after: &Issuer,
) -> Result<(BlastRadius, Passkeys), Fault> {
    let before = &authz.issuer;
    let passkeys = measure(tx, before, after)?;
    let (ended, _) = access::lock_down(authz, tx, uid)?;
    if before.host() != after.host() {
        issuers::exchange_passkeys(tx, before.host(), after.host())?;
    }
    store(tx, after)?;
    let event = Event::allowed(Name::ServerConfigChanged).by_console(uid);
    let event = event.detail("issuer_before", before.as_str()).detail("issuer_after", after.as_str());
    let event = event.detail("passkeys_set_aside", passkeys.set_aside).detail("passkeys_back", passkeys.back);
    audit::append(tx, event)?;
    Ok((ended, passkeys))
}
