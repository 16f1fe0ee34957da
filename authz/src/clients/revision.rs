//! `portcullis client set`: changes what an administrator said about a client that they added.

use shared::Tx;
use shared::audit;

use super::administration::{Answer, Details, Refusal, check_name, details, find, updated};
use super::preregistered::{Changes, Preregistered};
use crate::people::accepted;
use crate::store::clients::{self, Source};
use crate::store::grants::Reason;
use crate::store::transactions;
use crate::{Authz, ending};

/// The client afterwards.
#[derive(Debug)]
pub struct Changed {
    pub client: Details,
    /// The members that changed, by their names in RFC 7591 §2.
    pub fields: Vec<String>,
    /// How many grants ended.
    pub grants_ended: usize,
}

/// Changes a client. Users consented to a client with certain addresses and recognise it by its name. With other addresses
/// their grants and its pending requests end; with another name it is asked for again at its next request (CONSENT-04,
/// DCR-10).
///
/// # Errors
/// A database fault.
pub fn set(authz: &Authz, tx: &Tx<'_>, uid: u32, who: &str, changes: &Changes) -> Answer<Changed> {
    let client = accepted!(find(tx, who)?);
    match client.source {
        Source::Administrator => {}
        Source::Configuration => return Ok(Err(Refusal::Configured(client.name))),
        Source::SelfRegistered | Source::UnknownUrl => {
            return Ok(Err(Refusal::RegisteredItself(client.name, client.id)));
        }
        Source::Catalogue | Source::Imported | Source::Fetched => {
            return Ok(Err(Refusal::Documented(client.name, client.id)));
        }
    }
    let wanted = accepted!(Preregistered::revised(&client, changes).map_err(Refusal::from));
    accepted!(check_name(authz, tx, wanted.name(), Some(&client.id))?);
    accepted!(wanted.check_schemes(&authz.config.redirects).map_err(Refusal::SchemeNotListed));
    let fields = wanted.differences(&client);
    let mut grants_ended = 0;
    if fields.contains(&"redirect_uris") {
        transactions::cancel_of(tx, &client.id)?;
        grants_ended = ending::all_through(authz, tx, &client.id, Reason::ClientChanged)?;
    } else if fields.contains(&"client_name") {
        clients::forget_consents(tx, &client.id)?;
    }
    if !fields.is_empty() {
        wanted.replace(tx, &client)?;
        authz.status.client_changed(tx, &client.id)?;
        let event = updated(uid, &client, &fields).detail("grants_ended", grants_ended);
        audit::append(tx, wanted.on_record(event, &client))?;
    }
    let client = accepted!(find(tx, client.id.as_str())?);
    let fields = fields.into_iter().map(str::to_owned).collect();
    Ok(Ok(Changed { client: details(authz, tx, &client)?, fields, grants_ended }))
}
