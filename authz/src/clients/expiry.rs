//! Removal of unused clients (DCR-11). Registration is free, so most registered clients are never used.

use std::time::Duration;

use shared::audit::{self, Event, Name};
use shared::share::{self, Full, Holder, Room};
use shared::{ClientId, Fault, Tx};

use crate::Authz;
use crate::ending;
use crate::store::clients;

/// A client that was never approved is removed after this time.
const NEVER_USED: Duration = Duration::from_hours(24);
/// A client that was used is removed this long after its last use.
const IDLE: Duration = Duration::from_hours(90 * 24);

/// Removes unused self-registered clients with their grants and tokens. Their ids are never issued again.
///
/// # Errors
/// A database fault.
pub(crate) fn sweep(authz: &Authz, tx: &Tx<'_>) -> Result<(), Fault> {
    let now = tx.now();
    remove(authz, tx, &clients::never_used_since(tx, now - NEVER_USED)?, "never_used")?;
    remove(authz, tx, &clients::idle_since(tx, now - IDLE)?, "idle")
}

/// Makes room for one more client if the limit is reached: removes the oldest never-approved client of the
/// address that registered most of them (DCR-12, RATE-06).
///
/// # Errors
/// A database fault. The inner error says that there is no room.
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
