//! Deletes expired rows at the start and once an hour (RATE-03). Most tables also delete them when a row is
//! added; this is for tables to which none is added.

use shared::audit::{self, Event, Name};
use shared::{Fault, Tx};

use crate::clients::{expiry, metadata_document::approvals};
use crate::consent::decision;
use crate::store::{
    assertions, ceremonies, client_secrets, devices, initial_access_tokens, links, transactions,
};
use crate::{Authz, ending, session};

/// The most batches of a hundred grants in one job, so that other jobs do not wait long.
const ROUNDS: usize = 50;

/// Deletes what has expired.
///
/// # Errors
/// A database fault.
pub(crate) fn sweep(authz: &Authz, tx: &Tx<'_>) -> Result<(), Fault> {
    expiry::sweep(authz, tx)?;
    transactions::sweep(tx)?;
    ceremonies::sweep(tx)?;
    devices::sweep(tx)?;
    for _ in 0..ROUNDS {
        if !decision::sweep(tx)? {
            break;
        }
    }
    session::sweep(tx)?;
    assertions::sweep(tx)?;
    client_secrets::sweep(tx)?;
    initial_access_tokens::sweep(tx)?;
    ending::sweep(tx)?;
    approvals::sweep(tx)?;
    for user in links::sweep(tx)? {
        let expired = Event::allowed(Name::LinkExpired).by_server();
        let purpose = if user.is_some() { "enrol" } else { "setup" };
        let expired = user.iter().fold(expired, |event, user| event.subject(user.as_str()));
        audit::append(tx, expired.detail("purpose", purpose))?;
    }
    Ok(())
}
