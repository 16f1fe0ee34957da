//! Clients that nobody uses vanish (DCR-11): a registration costs nothing, so that most of them are forgotten by those
//! who made them.

use std::time::Duration;

use shared::audit::{self, Event, Name};
use shared::share::{self, Full, Holder, Room};
use shared::{ClientId, Fault, Tx};

use crate::Authz;
use crate::ending;
use crate::store::clients;

/// Clients that nobody ever approved vanish after this time.
const NEVER_USED: Duration = Duration::from_hours(24);
/// Clients that somebody used vanish this long after the last time.
const IDLE: Duration = Duration::from_hours(90 * 24);

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

/// Makes room for one more, if there is none: the oldest client goes that nobody ever approved, of the address that
/// registered most of them (DCR-12, RATE-06).
///
/// # Errors
/// The database's fault; the inner error says that there is no room.
pub(crate) fn make_room(authz: &Authz, tx: &Tx<'_>, newcomer: &Holder) -> Result<Result<(), Full>, Fault> {
    Ok(match share::room(tx, &share::CLIENTS, newcomer)? {
        Ok(Room::Free) => Ok(()),
        Ok(Room::Of { holder, .. }) => {
            let oldest = clients::oldest_of(tx, &holder)?;
            remove(authz, tx, oldest.as_slice(), "made_room")?;
            Ok(())
        }
        Err(full) => Err(full),
    })
}

fn remove(authz: &Authz, tx: &Tx<'_>, gone: &[ClientId], reason: &str) -> Result<(), Fault> {
    for id in gone {
        let ended = ending::client(authz, tx, id)?;
        let event = Event::allowed(Name::ClientExpired).by_server().client(id);
        audit::append(tx, event.detail("because", reason).detail("grants_ended", ended))?;
    }
    Ok(())
}
