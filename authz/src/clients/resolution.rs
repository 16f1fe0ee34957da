//! Resolves a client id, in the same way for the authorization endpoint, the pages and the token endpoint.
//!
//! An id that this server issued has a row. A URL is looked up in the order of CIMD-01: imported documents, the
//! built-in catalogue, fetched documents, and finally the policy for unknown URLs (CIMD-09). The row of such a
//! client is made when a user consents ([`adopt`]) and says what the client was then; what it is now is in its
//! document.

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

/// How long an expired fetched document may still serve existing grants (CIMD-08).
pub(crate) const STALE: Duration = Duration::from_hours(24);

/// Why a client is looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LookupPurpose<'a> {
    /// For an authorization request, with the redirect URI in it.
    Request(Option<&'a str>),
    /// For a pending request that has passed the checks.
    Transaction(&'a RedirectUri),
    /// For a client that presents a grant.
    Grant,
}

/// The result of a lookup.
#[derive(Clone, Debug)]
pub(crate) enum Resolved {
    /// A client, enabled or disabled.
    Client(Box<Client>),
    /// Not an id of this server.
    Unknown,
    /// A URL without a usable document (decision row 3).
    Undocumented(Undocumented),
}

/// A URL without a usable document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Undocumented {
    /// The keyword for the cause in the audit log.
    pub reason: &'static str,
    /// Whether a user may ask an administrator to approve it (CIMD-09).
    pub may_be_asked_for: bool,
}

impl Undocumented {
    fn finally(reason: &'static str) -> Resolved {
        Resolved::Undocumented(Self { reason, may_be_asked_for: false })
    }
}

impl Resolved {
    /// The client, if one was found.
    pub(crate) fn client(self) -> Option<Client> {
        match self {
            Self::Client(client) => Some(*client),
            Self::Unknown | Self::Undocumented(_) => None,
        }
    }
}

/// Looks up a client id (CIMD-01).
///
/// # Errors
/// A database fault.
pub(crate) fn resolve(
    authz: &Authz,
    conn: &Conn<'_>,
    client_id: &ClientId,
    asked: LookupPurpose<'_>,
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
        DocumentState::Document(document, source) => {
            let mut client = document.client(&url, source);
            if source == Source::Fetched {
                client.trust = authz.config.redirects.trust_unread(&client);
            }
            Ok(client)
        }
        DocumentState::Unusable(reason) => Err(reason),
        DocumentState::Nothing => unknown(authz, &url, row.as_ref(), asked),
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
        // An administrator verified this record as it was. Verification does not turn an unknown URL into a
        // document.
        if row.trust == Trust::Verified
            && row.source != Source::UnknownUrl
            && changed_fields(&row, &client).is_empty()
        {
            client.trust = Trust::Verified;
        }
        // A grant is valid only for the kind of record that it was given to (CIMD-09).
        if matches!(asked, LookupPurpose::Grant) && row.source != client.source {
            return Ok(Resolved::Unknown);
        }
    } else if matches!(asked, LookupPurpose::Grant) {
        return Ok(Resolved::Unknown);
    }
    Ok(Resolved::Client(Box::new(client)))
}

/// The state of a URL's document.
enum DocumentState {
    Document(Box<Document>, Source),
    /// There is or may be a document, and it must not be used. No other source replaces it.
    Unusable(&'static str),
    Nothing,
}

impl DocumentState {
    fn parsed(document: Result<Document, DocumentError>, source: Source) -> Self {
        // A later version may refuse a document that an earlier one accepted.
        document
            .map_or(Self::Unusable("document_invalid"), |document| Self::Document(Box::new(document), source))
    }
}

fn documented(
    authz: &Authz,
    conn: &Conn<'_>,
    url: &DocumentUrl,
    asked: LookupPurpose<'_>,
) -> Result<DocumentState, Fault> {
    let stored = client_documents::find(conn, url.as_str())?;
    if let Some(stored) = stored.as_ref().filter(|stored| stored.origin == Origin::Imported) {
        return Ok(DocumentState::parsed(Document::parse(url, &stored.body), Source::Imported));
    }
    for family in client_documents::imported_families(conn)? {
        let body = String::from_utf8_lossy(&family.body);
        if let Some(document) = catalogue::document(&family.url, &body, url) {
            return Ok(DocumentState::parsed(document, Source::Imported));
        }
    }
    if let Some((entry, document)) = catalogue::find(url) {
        // CIMD-13: a disabled entry must not come back as an unknown URL.
        return Ok(if client_documents::is_disabled(conn, entry.client_id())? {
            DocumentState::Unusable("catalogue_disabled")
        } else {
            DocumentState::Document(Box::new(document), Source::Catalogue)
        });
    }
    if authz.config.cimd.allowed(url).is_none() {
        return Ok(DocumentState::Nothing);
    }
    // The site allows this host's documents to be fetched, so a URL without one is not a client (CIMD-08).
    let slack = match asked {
        LookupPurpose::Request(_) => Duration::ZERO,
        LookupPurpose::Transaction(_) => authz.config.transaction_lifetime,
        LookupPurpose::Grant => STALE,
    };
    Ok(match stored {
        Some(Stored { body, origin: Origin::Fetched { expires_at }, .. })
            if authz.clock.now() < expires_at + slack =>
        {
            DocumentState::parsed(Document::parse(url, &body), Source::Fetched)
        }
        _ => DocumentState::Unusable("document_unavailable"),
    })
}

/// CIMD-09: applies the policy for unknown URLs.
fn unknown(
    authz: &Authz,
    url: &DocumentUrl,
    row: Option<&Client>,
    asked: LookupPurpose<'_>,
) -> Result<Client, &'static str> {
    if authz.config.unknown_url() != UnknownUrl::Loopback {
        return Err("url_unknown");
    }
    let redirect_uri = match asked {
        LookupPurpose::Request(redirect_uri) => redirect_uri.and_then(|text| RedirectUri::parse(text).ok()),
        LookupPurpose::Transaction(redirect_uri) => Some(redirect_uri.clone()),
        LookupPurpose::Grant => row.and_then(|row| row.redirect_uris.first().cloned()),
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

/// Whether a client id that is a URL can lead to a sign-in, so that the metadata may advertise it (CIMD-02):
/// clients that see it do not fall back to registration.
///
/// # Errors
/// A database fault.
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

/// Updates the row of a client that is known by a document, in the transaction that stores a consent. Grants on
/// other devices continue (CIMD-12), unless they were given to another record of the same URL.
///
/// # Errors
/// A database fault.
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
    // An unknown client's record holds only the redirect URI that it was last seen with.
    if row.source == Source::UnknownUrl && client.source == Source::UnknownUrl {
        return Ok(());
    }
    let event = changed(authz, tx, &row, client)?;
    audit::append(tx, event.request(request))
}

/// Ends grants that were given to another record of this client, with the audit record of it.
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

/// Updates the rows of clients that are known by a document after an upgrade or a change of configuration:
/// another version may have another catalogue. Grants that are no longer valid end before anything is served.
///
/// # Errors
/// A database fault.
pub(crate) fn reconcile(authz: &Authz, tx: &Tx<'_>) -> Result<(), Fault> {
    for id in clients::by_document(tx)? {
        let Some(row) = clients::find(tx, &id)? else { continue };
        if let Resolved::Client(client) = resolve(authz, tx, &id, LookupPurpose::Grant)? {
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
        // A document that can be fetched again is valid until that was tried (CIMD-08).
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

/// The registration columns in the row of a client that is known by a document.
pub(crate) fn registration_of<'a>(client: &Client, metadata: &'a str) -> Registration<'a> {
    let local = client.redirect_uris.iter().any(|uri| uri.target().is_local());
    let application_type = if local { "native" } else { "web" };
    Registration { application_type, metadata, fingerprint: None, management: None, holder: None }
}

/// A client as RFC 7591 metadata.
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

/// The members in which two records of a client differ (CIMD-05).
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
