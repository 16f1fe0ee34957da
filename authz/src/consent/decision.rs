//! Stores decisions: in one job the request is decided and either the grant and its code are created, or the
//! request is refused.

use std::borrow::Cow;
use std::time::Duration;

use shared::audit::{self, Event, Name};
use shared::db::Conn;
use shared::share::Holder;
use shared::{Fault, GrantId, Scope, Secret, Tx};

use super::confirm::Confirmed;
use super::offer::offer;
use super::remembered::{self, Recall};
use super::{Question, SignIn, client_of};
use crate::answer::Refused;
use crate::current::Current;
use crate::error::Code;
use crate::store::clients::{self, Client};
use crate::store::codes::{self, IssuedCode};
use crate::store::grants::{self, Grant};
use crate::store::sessions::{self, Session};
use crate::store::{client_grants, transactions, users};
use crate::{Authz, session};

/// Ended grants are kept this long, so that a late request for one gets the right error.
const KEPT: Duration = Duration::from_hours(2);

/// The user's answer: the button, the ticked scopes, and the passkey assertion, if there was one.
pub(super) struct SubmittedDecision {
    pub approve: bool,
    pub ticked: Scope,
    pub confirmed: Option<Confirmed>,
}

/// The result of a decision.
pub(super) enum Outcome {
    Approved(Approved),
    Refused(Refused),
    /// High-risk scopes without a matching passkey assertion: nothing was decided (CONSENT-08).
    Unconfirmed(&'static str),
    /// The session ended after the answer was sent: nothing was decided (SESSION-05, SESSION-06).
    SignedOut,
    /// The client may no longer get an answer at this redirect URI, so it gets only this error.
    ClientGone(Refused),
    DecidedBefore,
}

/// An approval.
pub(super) struct Approved {
    pub code: Secret,
    /// The browser's new session secret, if a passkey was used for the decision: a step-up changes the session
    /// id (SESSION-02).
    pub session: Option<Secret>,
}

const DENIED: Refused = Refused { code: Code::AccessDenied, description: Cow::Borrowed("the user refused") };
const NOT_ENTITLED: Refused =
    Refused { code: Code::AccessDenied, description: Cow::Borrowed("the user may not grant any of this") };
const DISABLED: Refused =
    Refused { code: Code::AccessDenied, description: Cow::Borrowed("the user is disabled") };
const CLIENT_GONE: Refused = Refused {
    code: Code::AccessDenied,
    description: Cow::Borrowed("the client is disabled, or known no more"),
};
const NO_RESOURCE: Refused = Refused {
    code: Code::InvalidTarget,
    description: Cow::Borrowed("the resource is not one this server issues tokens for"),
};

/// Why a question is not asked.
pub(super) enum NotAsked {
    SignedOut,
    ClientGone,
    Decided,
}

/// Binds a request to the user who is asked; from here on no other user may decide it (SESSION-09). If nothing
/// can be allowed, that is recorded. Answers with the question as it is now.
pub(super) fn bind(
    authz: &Authz,
    tx: &Tx<'_>,
    question: &Question,
) -> Result<Result<Question, NotAsked>, Fault> {
    let Some(question) = of_somebody_present(authz, tx, question, true)? else {
        audit::append(tx, question.about(Event::denied(Name::AuthzDenied, "session_over")))?;
        return Ok(Err(NotAsked::SignedOut));
    };
    let waits = transactions::find(tx, &question.transaction.id)?.is_some_and(|found| !found.decided);
    let now = match standing(authz, tx, &question)? {
        _ if !waits => return Ok(Err(NotAsked::Decided)),
        Ok(now) => now,
        Err(why) => {
            let event = Event::denied(Name::AuthzDenied, why.reason());
            audit::append(tx, question.about(event))?;
            return Ok(Err(NotAsked::ClientGone));
        }
    };
    transactions::bind(tx, &now.transaction.id, &now.clone().map(|now| now.sign_in.decider.user))?;
    if now.offer.scope.is_empty() {
        audit::append(tx, now.about(Event::denied(Name::AuthzDenied, "not_entitled")))?;
    }
    Ok(Ok((*now).clone()))
}

/// Stores a decision.
pub(super) fn settle(
    authz: &Authz,
    tx: &Tx<'_>,
    question: &Question,
    pressed: &SubmittedDecision,
) -> Result<Outcome, Fault> {
    let Some(question) = &of_somebody_present(authz, tx, question, true)? else {
        audit::append(tx, question.about(Event::denied(Name::AuthzDenied, "session_over")))?;
        return Ok(Outcome::SignedOut);
    };
    if let Some(confirmed) = &pressed.confirmed
        && !confirmed.settle(tx, question)?
    {
        return Ok(Outcome::Unconfirmed("credential_unusable"));
    }
    let now = match standing(authz, tx, question)? {
        Ok(now) => now,
        Err(why) => return end(authz, tx, question, why),
    };
    // CONSENT-05: what was not ticked is not granted.
    let scope = now.offer.scope.intersection(&pressed.ticked);
    if !pressed.approve || scope.is_empty() {
        let why = match (now.offer.scope.is_empty(), pressed.approve) {
            (true, _) => DenialReason::Told("not_entitled", NOT_ENTITLED),
            (false, true) => DenialReason::Told("nothing_ticked", DENIED),
            (false, false) => DenialReason::Told("refused", DENIED),
        };
        return end(authz, tx, question, why);
    }
    let risky = !now.offer.high_risk_of(&scope).is_empty();
    if risky && !pressed.confirmed.as_ref().is_some_and(|confirmed| confirmed.covers(question, &scope)) {
        return Ok(Outcome::Unconfirmed("not_confirmed"));
    }
    if !transactions::decide(tx, &question.transaction.id)? {
        return Ok(Outcome::DecidedBefore);
    }
    leave_sign_in(authz, tx, &now)?;
    let (now, session) = match &pressed.confirmed {
        Some(confirmed) => authenticated_anew(authz, tx, now, confirmed)?,
        None => (now, None),
    };
    let code = approve(authz, tx, &now, &scope, ApprovalReason::Pressed)?;
    remembered::remember(authz, tx, &now, &scope)?;
    Ok(Outcome::Approved(Approved { code, session }))
}

/// Records that the user authenticated with the decision's passkey: in the grant, and in a new session, whose
/// secret is in the answer. On loopback no new session is made, because the session ends with the answer.
fn authenticated_anew<'t>(
    authz: &Authz,
    tx: &Tx<'_>,
    now: Current<'t, Question>,
    confirmed: &Confirmed,
) -> Result<(Current<'t, Question>, Option<Secret>), Fault> {
    let (how, handle) = (confirmed.authentication(), Some(now.transaction.id.as_str()));
    let with = |now: Current<'t, Question>, session| {
        now.map(|mut now| {
            now.sign_in.decider.session = session;
            now
        })
    };
    if authz.issuer.is_loopback() {
        let before = now.decider.session.clone();
        let session = Session { authentication: how, auth_time: tx.now(), ..before };
        return Ok((with(now, session), None));
    }
    let user = now.clone().map(|now| now.sign_in.decider.user);
    let (secret, session) = session::start(tx, &user, how, &now.browser, handle, &now.request)?;
    Ok((with(now, session), Some(secret)))
}

/// Approves a request that a remembered consent covers; `None` if none covers it now. `stored` says whether the
/// request is already in the database.
pub(super) fn settle_from_memory(
    authz: &Authz,
    tx: &Tx<'_>,
    question: &Question,
    stored: bool,
) -> Result<Option<Secret>, Fault> {
    let Some(question) = &of_somebody_present(authz, tx, question, stored)? else { return Ok(None) };
    let Ok(now) = standing(authz, tx, question)? else { return Ok(None) };
    if now.offer.scope.is_empty() || remembered::recall(tx, &now, tx.now())? != Recall::Covers {
        return Ok(None);
    }
    if !stored {
        let client = now.clone().map(|now| now.client);
        let holder = Holder::user(&question.sign_in.decider.user.id);
        let stored = crate::authorize::store(tx, &question.transaction, &client, &question.request, &holder)?;
        if stored.is_err() {
            return Ok(None);
        }
    }
    if !transactions::decide(tx, &question.transaction.id)? {
        return Ok(None);
    }
    leave_sign_in(authz, tx, &now)?;
    approve(authz, tx, &now, &now.offer.scope, ApprovalReason::Remembered).map(Some)
}

/// Refuses a request whose client no longer exists.
pub(super) fn settle_without_client(authz: &Authz, tx: &Tx<'_>, sign_in: &SignIn) -> Result<Outcome, Fault> {
    if let Some(sign_in) = still_signed_in(authz, tx, sign_in, true)? {
        return end(authz, tx, &sign_in, DenialReason::ClientGone);
    }
    audit::append(tx, sign_in.about(Event::denied(Name::AuthzDenied, "session_over")))?;
    Ok(Outcome::SignedOut)
}

/// Why a request ends without an approval.
enum DenialReason {
    /// The client gets this error; the keyword is for the audit log.
    Told(&'static str, Refused),
    ClientGone,
}

impl DenialReason {
    /// The keyword for the audit log.
    fn reason(&self) -> &'static str {
        match self {
            Self::Told(reason, _) => reason,
            Self::ClientGone => "client_gone",
        }
    }
}

/// The question, if its user may still decide it: their session may have ended while they read the page or
/// while this job waited. `stored` says whether the request is in the database.
fn of_somebody_present(
    authz: &Authz,
    tx: &Tx<'_>,
    question: &Question,
    stored: bool,
) -> Result<Option<Question>, Fault> {
    let sign_in = still_signed_in(authz, tx, &question.sign_in, stored)?;
    Ok(sign_in.map(|sign_in| Question { sign_in, ..question.clone() }))
}

fn still_signed_in(
    authz: &Authz,
    tx: &Tx<'_>,
    sign_in: &SignIn,
    stored: bool,
) -> Result<Option<SignIn>, Fault> {
    let mut present = sign_in.clone();
    if stored {
        match transactions::find(tx, &sign_in.transaction.id)? {
            // The answer in another tab may have moved the session that this sign-in refers to
            // (`session::leave`).
            Some(transaction) => present.transaction = transaction,
            // The request was cancelled meanwhile; `decide` refuses it.
            None => return Ok(Some(present)),
        }
    }
    let decider = super::decider_with(authz, tx, &present.browser, &present.transaction)?;
    Ok(decider.filter(|decider| decider.user.id == sign_in.decider.user.id).map(|decider| {
        present.decider = decider;
        present
    }))
}

/// The question as it is at this moment: its user, client or scopes may have changed while it was read
/// (AUTHZ-17).
fn standing<'t>(
    authz: &Authz,
    tx: &'t Tx<'_>,
    question: &Question,
) -> Result<Result<Current<'t, Question>, DenialReason>, Fault> {
    Ok(Current::read(tx, |tx| as_it_stands(authz, tx, question))?.allowed())
}

fn as_it_stands(
    authz: &Authz,
    conn: &Conn<'_>,
    question: &Question,
) -> Result<Result<Question, DenialReason>, Fault> {
    let transaction = &question.transaction;
    let Some(client) = client_of(authz, conn, transaction)? else { return Ok(Err(DenialReason::ClientGone)) };
    let user = users::find(conn, &question.decider.user.id)?.filter(|user| !user.disabled);
    let Some(user) = user else { return Ok(Err(DenialReason::Told("user_disabled", DISABLED))) };
    if authz.resource_in(conn, &transaction.resource)?.is_none() {
        return Ok(Err(DenialReason::Told("resource_gone", NO_RESOURCE)));
    }
    let offer = offer(authz, conn, &transaction.scope, &user.id, client.trust.ceiling())?;
    let mut sign_in = question.sign_in.clone();
    sign_in.decider.user = user;
    Ok(Ok(Question { sign_in, client, offer }))
}

/// Decides the request without an approval.
fn end(authz: &Authz, tx: &Tx<'_>, question: &SignIn, why: DenialReason) -> Result<Outcome, Fault> {
    if !transactions::decide(tx, &question.transaction.id)? {
        return Ok(Outcome::DecidedBefore);
    }
    let reason = why.reason();
    let outcome = match why {
        DenialReason::Told(_, refused) => Outcome::Refused(refused),
        DenialReason::ClientGone => Outcome::ClientGone(CLIENT_GONE),
    };
    leave_sign_in(authz, tx, question)?;
    audit::append(tx, question.about(Event::denied(Name::AuthzDenied, reason)))?;
    Ok(outcome)
}

/// Why a request is approved.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ApprovalReason {
    Pressed,
    Remembered,
}

/// Creates the grant and its code (AUTHZ-07).
fn approve(
    authz: &Authz,
    tx: &Tx<'_>,
    question: &Current<'_, Question>,
    scope: &Scope,
    because: ApprovalReason,
) -> Result<Secret, Fault> {
    let Question { sign_in: SignIn { transaction, decider, .. }, .. } = &**question;
    let client = &question.clone().map(|question| question.client);
    let grant = Grant {
        id: GrantId::random(),
        user_id: decider.user.id.clone(),
        client_id: client.id.clone(),
        resource: transaction.resource.clone(),
        scope: scope.clone(),
        amr: decider.session.authentication.amr.clone(),
        auth_time: decider.session.auth_time,
        expires_at: tx.now() + authz.config.refresh_lifetimes(client.trust).family,
        seen_generation: None,
        revoked: false,
    };
    // From now on a client that is known by a document has a row.
    crate::clients::adopt(authz, tx, client, &question.request)?;
    insert(authz, tx, client, &grant)?;
    let code = Secret::random("ac_");
    let issued = IssuedCode {
        digest: code.digest(),
        grant_id: grant.id.clone(),
        redirect_uri: transaction.redirect_uri.clone(),
        code_challenge: transaction.code_challenge.clone(),
        expires_at: tx.now() + authz.config.code_lifetime,
        destroyed: false,
        spent: false,
    };
    // A spent code is kept as long as its grant, so that a replay is recognised.
    codes::insert(tx, &issued)?;
    audit::append(
        tx,
        question
            .about(Event::allowed(Name::AuthzApproved))
            .grant(&grant.id)
            .scope(scope)
            .detail("scopes_asked", transaction.scope.to_string())
            .detail("scopes_given", scope.to_string())
            .detail("redirect_host", transaction.redirect_uri.host_for_people())
            .detail("verified", client.trust == clients::Trust::Verified)
            .detail("remembered", because == ApprovalReason::Remembered),
    )?;
    Ok(code)
}

/// Deletes a batch of ended grants and of grants whose codes were never redeemed. True if there may be more.
pub(crate) fn sweep(tx: &Tx<'_>) -> Result<bool, Fault> {
    let over = tx.now() - KEPT;
    client_grants::sweep(tx, over)?;
    Ok(grants::sweep(tx, over)? + codes::sweep_unspent(tx, over)? > 0)
}

/// Stores a grant that was just approved. Ended grants and grants whose codes were never redeemed make room
/// (RATE-03).
pub(crate) fn insert(
    authz: &Authz,
    tx: &Tx<'_>,
    client: &Current<'_, Client>,
    grant: &Grant,
) -> Result<(), Fault> {
    sweep(tx)?;
    grants::insert(tx, grant)?;
    clients::touch(tx, &client.id)?;
    authz.status.set_ceiling(tx, &client.id, client.trust.ceiling());
    Ok(())
}

/// Ends the sign-in after the decision. On loopback its session ends, because browsers may have sent the cookie
/// to the client's callback (SESSION-01); other tabs keep theirs. Elsewhere only a session without a cookie
/// ends.
fn leave_sign_in(authz: &Authz, tx: &Tx<'_>, question: &SignIn) -> Result<(), Fault> {
    let handle = Some(question.transaction.id.as_str());
    let cookie = question.browser.session_digest();
    if authz.issuer.is_loopback()
        && let Some(cookie) = &cookie
        && session::leave(tx, cookie, handle)?.is_some()
    {
        let ended = Event::allowed(Name::SessionEnded).by_user(&question.decider.user.id);
        audit::append(tx, ended.request(&question.request).detail("because", "answered_a_client"))?;
    }
    if let Some(made) = &question.transaction.signed_in
        && cookie != Some(made.session)
    {
        sessions::delete(tx, &made.session)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
