//! Clients that nobody uses vanish (DCR-11): a registration costs nothing, so that most of them are forgotten by those
//! who made them.

use std::time::Duration;

use shared::audit::{self, Event, Name};
use shared::{ClientId, Fault, Tx};

use crate::Authz;
use crate::ending;
use crate::store::clients;

/// Clients that nobody ever approved vanish after this time.
const NEVER_USED: Duration = Duration::from_hours(24);
/// Clients that somebody used vanish this long after the last time.
const IDLE: Duration = Duration::from_hours(90 * 24);
/// How many clients may wait for a first approval (DCR-12).
const MOST_NEVER_USED: u32 = 1000;

/// Removes clients that registered themselves and are not used. Their grants and tokens go with them, and their ids
/// are never issued again.
///
/// # Errors
/// The database's fault.
pub(crate) fn sweep(authz: &Authz, tx: &Tx<'_>) -> Result<(), Fault> {
    let now = tx.now();
    remove(authz, tx, &clients::never_used_since(tx, now - NEVER_USED)?, "never_used")?;
    remove(authz, tx, &clients::idle_since(tx, now - IDLE)?, "idle")
}

/// Makes room for one more, if there is none: the oldest client goes that nobody ever approved (DCR-12).
///
/// # Errors
/// The database's fault.
pub(super) fn make_room(authz: &Authz, tx: &Tx<'_>) -> Result<(), Fault> {
    let count = clients::count_never_used(tx)?;
    let too_many = (count + 1).saturating_sub(MOST_NEVER_USED);
    remove(authz, tx, &clients::oldest_never_used(tx, too_many)?, "made_room")
}

fn remove(authz: &Authz, tx: &Tx<'_>, gone: &[ClientId], reason: &str) -> Result<(), Fault> {
    for id in gone {
        let ended = ending::client(authz, tx, id)?;
        let event = Event::allowed(Name::ClientExpired).by_server().client(id);
        audit::append(tx, event.detail("because", reason).detail("grants_ended", ended))?;
    }
    Ok(())
}
