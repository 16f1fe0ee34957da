//! Remembered consents (CONSENT-04, CONSENT-07): when they replace the question.

use std::time::Duration;

use serde_json::json;
use shared::audit::{self, Event, Name};
use shared::db::Conn;
use shared::token_status::Ceiling;
use shared::{Digest, Fault, RedirectUri, Scope, Timestamp, Tx};

use super::{Question, SignIn};
use crate::Authz;
use crate::store::clients::{AuthMethod, Client, Trust};
use crate::store::consents::{self, Consent};

/// How long a consent is remembered.
const REMEMBERED: Duration = Duration::from_hours(180 * 24);

/// What a remembered consent means for a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Recall {
    /// It covers everything in the offer, so nothing needs to be asked.
    Covers,
    /// It covers everything, but the high-risk scopes take a passkey assertion each time.
    NeedsPasskey,
    Nothing,
}

/// Looks up what a remembered consent means for this question now.
pub(super) fn recall(conn: &Conn<'_>, question: &Question, now: Timestamp) -> Result<Recall, Fault> {
    let Question { sign_in: SignIn { transaction, decider, .. }, client, offer } = question;
    if transaction.prompt_consent || !may_be_remembered(client, &transaction.redirect_uri) {
        return Ok(Recall::Nothing);
    }
    let consent = consents::find(conn, &decider.user.id, &client.id, &transaction.resource)?;
    let Some(consent) = consent.filter(|consent| counts(client, consent, now)) else {
        return Ok(Recall::Nothing);
    };
    if !offer.scope.without(&offer.high_risk).is_subset(&consent.scope) {
        return Ok(Recall::Nothing);
    }
    Ok(if offer.high_risk.is_empty() { Recall::Covers } else { Recall::NeedsPasskey })
}

/// Whether a consent is recent and was given to the client as it is now. One dated in the future has no known
/// age, so it does not count.
fn counts(client: &Client, consent: &Consent, now: Timestamp) -> bool {
    consent.client_state == client_state(client)
        && consent.granted_at <= now
        && now.since(consent.granted_at) <= REMEMBERED
}

/// What a client gets without a question.
pub(crate) struct RememberedApproval {
    /// Low-risk scopes only; high-risk scopes are asked for each time.
    pub scope: Scope,
    pub until: Timestamp,
}

/// What a remembered consent lets its client have without a question; `None` if the user is asked anyway.
pub(crate) fn lets_in(
    authz: &Authz,
    client: &Client,
    consent: &Consent,
    now: Timestamp,
) -> Option<RememberedApproval> {
    let somewhere = client.redirect_uris.iter().any(|uri| may_be_remembered(client, uri));
    if !somewhere || client.disabled {
        return None;
    }
    counted(authz, client, consent, now)
}

fn counted(authz: &Authz, client: &Client, consent: &Consent, now: Timestamp) -> Option<RememberedApproval> {
    let scope = consent.scope.intersection(&authz.grantable_to(Ceiling::LowRisk));
    let counts = !scope.is_empty() && counts(client, consent, now);
    counts.then(|| RememberedApproval { scope, until: consent.granted_at + REMEMBERED })
}

/// How long the answer to this question will be remembered; `None` if it will not be.
pub(super) fn would_last(
    authz: &Authz,
    conn: &Conn<'_>,
    question: &Question,
    now: Timestamp,
) -> Result<Option<Duration>, Fault> {
    let Question { sign_in: SignIn { transaction, .. }, client, offer } = question;
    if !may_be_remembered(client, &transaction.redirect_uri) {
        return Ok(None);
    }
    let consent = consent_after(conn, question, &offer.scope, now)?;
    // Scopes outside this offer stay remembered anyway, and the page does not mention them.
    let new = offer.scope.without(&offer.high_risk);
    let lets_in = counted(authz, client, &consent, now).filter(|_| !new.is_empty());
    Ok(lets_in.map(|lets_in| lets_in.until.since(now)))
}

/// Whether a client's consents may be remembered. It must be verified, and its answers must not reach another
/// program: a program on the user's own computer cannot rule that out, unless it authenticates with a key when
/// it redeems the code.
fn may_be_remembered(client: &Client, redirect_uri: &RedirectUri) -> bool {
    let alone = !redirect_uri.target().is_local() || client.auth_method == AuthMethod::PrivateKeyJwt;
    client.trust == Trust::Verified && alone
}

/// A digest of the client's properties. A consent is for a client with these properties, not for a later use of
/// its id.
fn client_state(client: &Client) -> Digest {
    let mut redirect_uris: Vec<&str> = client.redirect_uris.iter().map(RedirectUri::as_str).collect();
    redirect_uris.sort_unstable();
    let state = json!([
        client.name,
        client.source.as_str(),
        client.auth_method.as_str(),
        client.jwks,
        client.grant_types,
        redirect_uris,
    ]);
    Digest::of(state.to_string().as_bytes())
}

/// The remembered consent after this decision. Scopes that were shown and not ticked are forgotten; scopes that
/// were not shown stay, with their old date.
fn consent_after(
    conn: &Conn<'_>,
    question: &Question,
    allowed: &Scope,
    now: Timestamp,
) -> Result<Consent, Fault> {
    let Question { sign_in: SignIn { transaction, decider, .. }, client, offer } = question;
    let client_state = client_state(client);
    let before = consents::find(conn, &decider.user.id, &client.id, &transaction.resource)?;
    let before = before.filter(|consent| consent.client_state == client_state);
    let kept = before.map(|consent| (consent.scope.without(&offer.scope), consent.granted_at));
    Ok(match kept {
        Some((kept, granted_at)) if !kept.is_empty() => {
            Consent { scope: kept.union(allowed), client_state, granted_at: granted_at.min(now) }
        }
        _ => Consent { scope: allowed.clone(), client_state, granted_at: now },
    })
}

/// Stores a consent, so that its user can see it and withdraw it (CONSENT-07). The audit record says which
/// scopes will not be asked for again, if any (CONSENT-04).
pub(super) fn remember(
    authz: &Authz,
    tx: &Tx<'_>,
    question: &Question,
    allowed: &Scope,
) -> Result<(), Fault> {
    let Question { sign_in: SignIn { transaction, decider, .. }, client, .. } = question;
    let user = &decider.user.id;
    let consent = consent_after(tx, question, allowed, tx.now())?;
    consents::put(tx, user, &client.id, &transaction.resource, &consent)?;
    let event = Event::allowed(Name::ConsentGranted)
        .by_user(user)
        .client(&client.id)
        .resource(&transaction.resource)
        .scope(allowed)
        .request(&question.request);
    let lets_in = if may_be_remembered(client, &transaction.redirect_uri) {
        counted(authz, client, &consent, tx.now())
    } else {
        None
    };
    let event = match lets_in {
        Some(RememberedApproval { scope, until }) => {
            event.detail("remembered", scope.to_string()).detail("remembered_until", until.to_string())
        }
        None => event,
    };
    audit::append(tx, event)
}
