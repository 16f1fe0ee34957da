//! What a client id stands for: one answer for the authorization endpoint, the pages and the token endpoint.
//!
//! An id that this server issued has a row. A URL is looked for where CIMD-01 says: among the documents that an
//! administrator imported, in the built-in catalogue, among those that were fetched; and if it is nowhere, the
//! policy for unknown URLs decides (CIMD-09). The row of such a client is made when somebody consents
//! ([`adopt`]), and says what the client was then; what it is now stands in its document.

use std::time::Duration;

use serde_json::{Value, json};
use shared::audit::{self, Event, Name};
use shared::db::Conn;
use shared::redirect_uri::Target;
use shared::{ClientId, Fault, RedirectUri, Request, Scope, Tx};

use super::metadata_document::{Document, DocumentError, DocumentUrl, catalogue};
use crate::Authz;
use crate::config::{CimdMode, UnknownUrl};
use crate::ending;
use crate::grants::GrantType;
use crate::store::client_documents::{self, Origin, Stored};
use crate::store::clients::{self, AuthMethod, Client, Registration, Source, Trust};
use crate::store::grants::Reason;

/// How long a fetched document that ran out may still serve grants that there are (CIMD-08).
pub(crate) const STALE: Duration = Duration::from_hours(24);

/// On whose behalf a client is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked<'a> {
    /// An authorization request, with the redirect URI that it names.
    Request(Option<&'a str>),
    /// A request that was let in before, and waits for a person.
    Transaction(&'a RedirectUri),
    /// Somebody who holds a grant, or says so.
    Grant,
}

/// What was found.
#[derive(Clone, Debug)]
pub(crate) enum Resolved {
    /// Disabled or not.
    Client(Box<Client>),
    /// This server issued no such id.
    Unknown,
    /// A URL that there is no usable document for (decision row 3).
    Undocumented(Undocumented),
}

/// A URL that there is no usable document for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Undocumented {
    /// The word for the cause in the audit log.
    pub reason: &'static str,
    /// Whether an administrator may be asked to approve it (CIMD-09).
    pub may_be_asked_for: bool,
}

impl Undocumented {
    fn finally(reason: &'static str) -> Resolved {
        Resolved::Undocumented(Self { reason, may_be_asked_for: false })
    }
}

impl Resolved {
    /// The client, if there is one.
    pub(crate) fn client(self) -> Option<Client> {
        match self {
            Self::Client(client) => Some(*client),
            Self::Unknown | Self::Undocumented(_) => None,
        }
    }
}

/// What a client id stands for now (CIMD-01).
///
/// # Errors
/// The database's fault.
pub(crate) fn resolve(
    authz: &Authz,
    conn: &Conn<'_>,
    client_id: &ClientId,
    asked: Asked<'_>,
) -> Result<Resolved, Fault> {
    let row = clients::find(conn, client_id)?;
    if !DocumentUrl::is_meant(client_id.as_str()) {
        return Ok(row.map_or(Resolved::Unknown, |client| Resolved::Client(Box::new(client))));
    }
    let Ok(url) = DocumentUrl::parse(client_id.as_str()) else {
        return Ok(Undocumented::finally("url_malformed"));
    };
    if authz.config.cimd.mode == CimdMode::Off {
        return Ok(Undocumented::finally("documents_off"));
    }
    let found = match documented(authz, conn, &url, asked)? {
        Found::Document(document, source) => {
            let mut client = document.client(&url, source);
            if source == Source::Fetched {
                client.trust = authz.config.redirects.trust_unread(&client);
            }
            Ok(client)
        }
        Found::Unusable(reason) => Err(reason),
        Found::Nothing => unknown(authz, &url, row.as_ref(), asked),
    };
    let mut client = match found {
        Ok(client) => client,
        Err(reason) => {
            let may_be_asked_for = authz.config.unknown_url() != UnknownUrl::Refuse;
            return Ok(Resolved::Undocumented(Undocumented { reason, may_be_asked_for }));
        }
    };
    if let Some(row) = row {
        client.disabled = row.disabled;
        // An administrator's word was about this record as it was, and no word turns a guess into a document.
        if row.trust == Trust::Verified
            && row.source != Source::UnknownUrl
            && changed_fields(&row, &client).is_empty()
        {
            client.trust = Trust::Verified;
        }
        // A grant counts only under the record that it was given to (CIMD-09).
        if matches!(asked, Asked::Grant) && row.source != client.source {
            return Ok(Resolved::Unknown);
        }
    } else if matches!(asked, Asked::Grant) {
        return Ok(Resolved::Unknown);
    }
    Ok(Resolved::Client(Box::new(client)))
}

/// What is known of a URL's document.
enum Found {
    Document(Box<Document>, Source),
    /// There is one, or there may be one, and it must not be used: nothing else stands in for it.
    Unusable(&'static str),
    Nothing,
}

impl Found {
    fn parsed(document: Result<Document, DocumentError>, source: Source) -> Self {
        // What was taken once may be refused by a later version.
        document
            .map_or(Self::Unusable("document_invalid"), |document| Self::Document(Box::new(document), source))
    }
}

fn documented(authz: &Authz, conn: &Conn<'_>, url: &DocumentUrl, asked: Asked<'_>) -> Result<Found, Fault> {
    let stored = client_documents::find(conn, url.as_str())?;
    if let Some(stored) = stored.as_ref().filter(|stored| stored.origin == Origin::Imported) {
        return Ok(Found::parsed(Document::parse(url, &stored.body), Source::Imported));
    }
    for family in client_documents::imported_families(conn)? {
        let body = String::from_utf8_lossy(&family.body);
        if let Some(document) = catalogue::document(&family.url, &body, url) {
            return Ok(Found::parsed(document, Source::Imported));
        }
    }
    if let Some((entry, document)) = catalogue::find(url) {
        // Switched off is off: it does not come back as an unknown URL.
        return Ok(if client_documents::is_disabled(conn, entry.client_id())? {
            Found::Unusable("catalogue_disabled")
        } else {
            Found::Document(Box::new(document), Source::Catalogue)
        });
    }
    if authz.config.cimd.allowed(url).is_none() {
        return Ok(Found::Nothing);
    }
    // The site says that this host's documents can be read: what is not in them is not so (CIMD-08).
    let slack = match asked {
        Asked::Request(_) => Duration::ZERO,
        Asked::Transaction(_) => authz.config.transaction_lifetime,
        Asked::Grant => STALE,
    };
    Ok(match stored {
        Some(Stored { body, origin: Origin::Fetched { expires_at }, .. })
            if authz.clock.now() < expires_at + slack =>
        {
            Found::parsed(Document::parse(url, &body), Source::Fetched)
        }
        _ => Found::Unusable("document_unavailable"),
    })
}

/// CIMD-09: what becomes of a URL that nothing is known of.
fn unknown(
    authz: &Authz,
    url: &DocumentUrl,
    row: Option<&Client>,
    asked: Asked<'_>,
) -> Result<Client, &'static str> {
    if authz.config.unknown_url() != UnknownUrl::Loopback {
        return Err("url_unknown");
    }
    let redirect_uri = match asked {
        Asked::Request(redirect_uri) => redirect_uri.and_then(|text| RedirectUri::parse(text).ok()),
        Asked::Transaction(redirect_uri) => Some(redirect_uri.clone()),
        Asked::Grant => row.and_then(|row| row.redirect_uris.first().cloned()),
    };
    match redirect_uri {
        Some(redirect_uri) if redirect_uri.target() == Target::Loopback => Ok(Client {
            id: url.id().clone(),
            name: url.host().to_owned(),
            source: Source::UnknownUrl,
            trust: Trust::Unverified,
            auth_method: AuthMethod::None,
            auth_defaulted: false,
            jwks: None,
            grant_types: [GrantType::AuthorizationCode, GrantType::RefreshToken]
                .map(|grant| grant.name().to_owned())
                .to_vec(),
            redirect_uris: vec![redirect_uri],
            scope: Scope::empty(),
            disabled: false,
        }),
        _ => Err("url_unknown_not_loopback"),
    }
}

/// Whether a client id that is a URL can lead to a login, so that the metadata may say so (CIMD-02): clients that
/// read it come with their URL and do not fall back to registering.
///
/// # Errors
/// The database's fault.
pub(crate) fn documents_lead_to_a_login(authz: &Authz, conn: &Conn<'_>) -> Result<bool, Fault> {
    let cimd = &authz.config.cimd;
    if cimd.mode == CimdMode::Off {
        return Ok(false);
    }
    if let Some(advertise) = cimd.advertise {
        return Ok(advertise);
    }
    let off = client_documents::disabled_entries(conn)?;
    let catalogue = catalogue::entries().iter().any(|entry| !off.iter().any(|url| url == entry.client_id()));
    let fetch = cimd.mode == CimdMode::Fetch && !cimd.allow.is_empty();
    Ok(catalogue || fetch || client_documents::any_imported(conn)?)
}

/// Makes the row of a client that is known by a document say what the client is now, in the transaction that
/// settles a consent. Other devices' grants go on (CIMD-12), unless they were given to another record of the
/// same URL.
///
/// # Errors
/// The database's fault.
pub(crate) fn adopt(authz: &Authz, tx: &Tx<'_>, client: &Client, request: &Request) -> Result<(), Fault> {
    if !client.source.is_by_document() {
        return Ok(());
    }
    let metadata = summary(client).to_string();
    let registration = registration_of(client, &metadata);
    let Some(row) = clients::find(tx, &client.id)? else {
        clients::insert(tx, client, &registration)?;
        let hosts: Vec<String> = client.redirect_uris.iter().map(RedirectUri::host_for_people).collect();
        let event = Event::allowed(Name::ClientRegistered).client(&client.id).subject(&client.name);
        return audit::append(
            tx,
            event.request(request).detail("source", client.source.as_str()).detail("redirect_hosts", hosts),
        );
    };
    if changed_fields(&row, client).is_empty() {
        return Ok(());
    }
    clients::follow_document(tx, client, &registration)?;
    // An unknown client's one redirect URI is the last one that it was seen with, and nothing else it says.
    if row.source == Source::UnknownUrl && client.source == Source::UnknownUrl {
        return Ok(());
    }
    let event = changed(authz, tx, &row, client)?;
    audit::append(tx, event.request(request))
}

/// Ends what was given to another client than this one now is; with the record of it.
fn changed(authz: &Authz, tx: &Tx<'_>, row: &Client, client: &Client) -> Result<Event, Fault> {
    let ended = if row.source == client.source {
        clients::forget_consents(tx, &client.id)?;
        0
    } else {
        ending::all_through(authz, tx, &client.id, Reason::ClientChanged)?
    };
    authz.status.set_ceiling(tx, &client.id, client.trust.ceiling());
    let event = Event::allowed(Name::ClientUpdated).client(&client.id).by_server();
    let event = event.detail("source", client.source.as_str()).detail("grants_ended", ended);
    Ok(event.detail("changed_fields", changed_fields(row, client)))
}

/// Makes the rows of clients that are known by a document agree with what holds now: another version has another
/// catalogue, and the configuration another policy. Grants that rest on what does not hold any more end before
/// anything is served.
///
/// # Errors
/// The database's fault.
pub(crate) fn reconcile(authz: &Authz, tx: &Tx<'_>) -> Result<(), Fault> {
    for id in clients::by_document(tx)? {
        let Some(row) = clients::find(tx, &id)? else { continue };
        if let Resolved::Client(client) = resolve(authz, tx, &id, Asked::Grant)? {
            if !changed_fields(&row, &client).is_empty() {
                clients::follow_document(
                    tx,
                    &client,
                    &registration_of(&client, &summary(&client).to_string()),
                )?;
                let event = changed(authz, tx, &row, &client)?;
                audit::append(tx, event)?;
            }
            continue;
        }
        // What can be read again counts until it was tried (CIMD-08).
        let readable =
            DocumentUrl::parse(id.as_str()).is_ok_and(|url| authz.config.cimd.allowed(&url).is_some());
        if row.source == Source::Fetched && readable {
            continue;
        }
        let ended = ending::all_through(authz, tx, &id, Reason::ClientChanged)?;
        if ended > 0 {
            let event = Event::allowed(Name::ClientUpdated).client(&id).by_server();
            let event = event.detail("source", row.source.as_str()).detail("changed_fields", vec!["usable"]);
            audit::append(tx, event.detail("grants_ended", ended))?;
        }
    }
    Ok(())
}

/// What stands in the row of a client that is known by a document, besides the client itself.
pub(crate) fn registration_of<'a>(client: &Client, metadata: &'a str) -> Registration<'a> {
    let local = client.redirect_uris.iter().any(|uri| uri.target().is_local());
    let application_type = if local { "native" } else { "web" };
    Registration { application_type, metadata, fingerprint: None, management: None }
}

/// What a client says of itself, in the words of RFC 7591.
pub(crate) fn summary(client: &Client) -> Value {
    let mut summary = json!({
        "client_id": client.id,
        "client_name": client.name,
        "redirect_uris": client.redirect_uris,
        "grant_types": client.grant_types,
        "token_endpoint_auth_method": client.auth_method.as_str(),
    });
    if let Some(jwks) = &client.jwks {
        summary["jwks"] = serde_json::from_str(jwks).unwrap_or_default();
    }
    summary
}

/// In what one record of a client differs from another (CIMD-05).
pub(crate) fn changed_fields(before: &Client, after: &Client) -> Vec<&'static str> {
    let sorted = |client: &Client| {
        let mut uris = client.redirect_uris.clone();
        uris.sort();
        uris.dedup();
        uris
    };
    let keys =
        |client: &Client| client.jwks.as_deref().and_then(|jwks| serde_json::from_str::<Value>(jwks).ok());
    let differs = [
        ("source", before.source != after.source),
        ("client_name", before.name != after.name),
        ("redirect_uris", sorted(before) != sorted(after)),
        ("grant_types", before.grant_types != after.grant_types),
        ("token_endpoint_auth_method", before.auth_method != after.auth_method),
        ("jwks", keys(before) != keys(after)),
    ];
    differs.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
}
