//! What is over goes, whether or not anybody adds to it (RATE-03): at the start, and once an hour. Most of it also makes
//! room for its like; this is for what nobody has a like of.

use shared::audit::{self, Event, Name};
use shared::{Fault, Tx};

use crate::clients::{expiry, metadata_document::approvals};
use crate::consent::decision;
use crate::store::{
    assertions, ceremonies, client_secrets, devices, initial_access_tokens, links, transactions,
};
use crate::{Authz, ending, session};

/// How many hundreds of grants go at a time, so that the writer is soon there for others again.
const ROUNDS: usize = 50;

/// Clears away what is over.
///
/// # Errors
/// The database's fault.
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
