//! What a decision makes: in one job the request is decided, and the grant and its code exist, or it is refused.

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

/// Grants that ended stay this long, so that whoever comes late is told the right thing.
const KEPT: Duration = Duration::from_hours(2);

/// What the person pressed, with what was ticked, and with the passkey that they used for it.
pub(super) struct Pressed {
    pub approve: bool,
    pub ticked: Scope,
    pub confirmed: Option<Confirmed>,
}

/// What became of it.
pub(super) enum Outcome {
    Approved(Approved),
    Refused(Refused),
    /// High-risk scopes, and no passkey was used for exactly this: nothing was decided (CONSENT-08).
    Unconfirmed(&'static str),
    /// The session that decided has ended since the answer was sent: nothing was decided (SESSION-05, SESSION-06).
    SignedOut,
    /// The client may be answered no more, not there or not at all, and is told no more than that.
    ClientGone(Refused),
    DecidedBefore,
}

/// An approval.
pub(super) struct Approved {
    pub code: Secret,
    /// The browser's new session, if a passkey was used for the decision: a step-up changes the id (SESSION-02).
    pub session: Option<Secret>,
}

const DENIED: Refused = Refused { code: Code::AccessDenied, description: "the user refused" };
const NOT_ENTITLED: Refused =
    Refused { code: Code::AccessDenied, description: "the user may not grant any of this" };
const DISABLED: Refused = Refused { code: Code::AccessDenied, description: "the user is disabled" };
const CLIENT_GONE: Refused =
    Refused { code: Code::AccessDenied, description: "the client is disabled, or known no more" };
const NO_RESOURCE: Refused = Refused {
    code: Code::InvalidTarget,
    description: "the resource is not one this server issues tokens for",
};

/// Why a question is not asked after all.
pub(super) enum NotAsked {
    SignedOut,
    ClientGone,
    Decided,
}

/// Makes a question that of whoever is asked; from here on it is nobody else's (SESSION-09). Where nothing can be allowed,
/// that goes on record. Answers with the question as it is now.
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

/// Writes a decision down.
pub(super) fn settle(
    authz: &Authz,
    tx: &Tx<'_>,
    question: &Question,
    pressed: &Pressed,
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
    let scope = now.offer.scope.intersection(&pressed.ticked);
    if !pressed.approve || scope.is_empty() {
        let why = match (now.offer.scope.is_empty(), pressed.approve) {
            (true, _) => Why::Told("not_entitled", NOT_ENTITLED),
            (false, true) => Why::Told("nothing_ticked", DENIED),
            (false, false) => Why::Told("refused", DENIED),
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
    let code = approve(authz, tx, &now, &scope, Because::Pressed)?;
    remembered::remember(authz, tx, &now, &scope)?;
    Ok(Outcome::Approved(Approved { code, session }))
}

/// A passkey used for the decision is the newest proof of who the user is: the grant says so, and so does a new
/// session, whose secret this answers with. On loopback none outlives the answer.
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

/// Approves what an earlier consent covers; `None` if nothing covers it any more. `stored` says whether the request
/// is in the database already.
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
    approve(authz, tx, &now, &now.offer.scope, Because::Remembered).map(Some)
}

/// Writes down that there is nobody to allow anything to.
pub(super) fn settle_without_client(authz: &Authz, tx: &Tx<'_>, sign_in: &SignIn) -> Result<Outcome, Fault> {
    if let Some(sign_in) = still_signed_in(authz, tx, sign_in, true)? {
        return end(authz, tx, &sign_in, Why::ClientGone);
    }
    audit::append(tx, sign_in.about(Event::denied(Name::AuthzDenied, "session_over")))?;
    Ok(Outcome::SignedOut)
}

/// Why a question ends without an approval.
#[derive(Clone, Copy)]
enum Why {
    /// The client is told; the word is for the record.
    Told(&'static str, Refused),
    ClientGone,
}

impl Why {
    /// The word for the record.
    fn reason(self) -> &'static str {
        match self {
            Self::Told(reason, _) => reason,
            Self::ClientGone => "client_gone",
        }
    }
}

/// The question, if whoever decides it may still do so: their session may have ended while they read it, or while their
/// answer waited to be written. `stored` says whether the request is in the database.
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
            // Another tab's answer may have moved what it knows of its sign-in (`session::leave`).
            Some(transaction) => present.transaction = transaction,
            // It was cancelled meanwhile, which `decide` finds out.
            None => return Ok(Some(present)),
        }
    }
    let decider = super::decider_with(authz, tx, &present.browser, &present.transaction)?;
    Ok(decider.filter(|decider| decider.user.id == sign_in.decider.user.id).map(|decider| {
        present.decider = decider;
        present
    }))
}

/// The question as it stands at this moment: who and what it is about may have changed while it was read
/// (AUTHZ-17).
fn standing<'t>(
    authz: &Authz,
    tx: &'t Tx<'_>,
    question: &Question,
) -> Result<Result<Current<'t, Question>, Why>, Fault> {
    Ok(Current::read(tx, |tx| as_it_stands(authz, tx, question))?.allowed())
}

fn as_it_stands(authz: &Authz, conn: &Conn<'_>, question: &Question) -> Result<Result<Question, Why>, Fault> {
    let transaction = &question.transaction;
    let Some(client) = client_of(authz, conn, transaction)? else { return Ok(Err(Why::ClientGone)) };
    let user = users::find(conn, &question.decider.user.id)?.filter(|user| !user.disabled);
    let Some(user) = user else { return Ok(Err(Why::Told("user_disabled", DISABLED))) };
    if authz.resource_in(conn, &transaction.resource)?.is_none() {
        return Ok(Err(Why::Told("resource_gone", NO_RESOURCE)));
    }
    let offer = offer(authz, conn, &transaction.scope, &user.id, client.trust.ceiling())?;
    let mut sign_in = question.sign_in.clone();
    sign_in.decider.user = user;
    Ok(Ok(Question { sign_in, client, offer }))
}

/// Decides the request without an approval.
fn end(authz: &Authz, tx: &Tx<'_>, question: &SignIn, why: Why) -> Result<Outcome, Fault> {
    if !transactions::decide(tx, &question.transaction.id)? {
        return Ok(Outcome::DecidedBefore);
    }
    let outcome = match why {
        Why::Told(_, refused) => Outcome::Refused(refused),
        Why::ClientGone => Outcome::ClientGone(CLIENT_GONE),
    };
    leave_sign_in(authz, tx, question)?;
    audit::append(tx, question.about(Event::denied(Name::AuthzDenied, why.reason())))?;
    Ok(outcome)
}

/// Why something is approved.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Because {
    Pressed,
    Remembered,
}

/// Makes the grant and its code (AUTHZ-07).
fn approve(
    authz: &Authz,
    tx: &Tx<'_>,
    question: &Current<'_, Question>,
    scope: &Scope,
    because: Because,
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
    // A client that is known by a document has its row from now on.
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
    // A spent code is remembered as long as its grant, so that a replay is seen as one.
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
            .detail("remembered", because == Because::Remembered),
    )?;
    Ok(code)
}

/// Removes some of the grants that ended, and of those whose codes nobody came for. Whether there may be more.
pub(crate) fn sweep(tx: &Tx<'_>) -> Result<bool, Fault> {
    let over = tx.now() - KEPT;
    client_grants::sweep(tx, over)?;
    Ok(grants::sweep(tx, over)? + codes::sweep_unspent(tx, over)? > 0)
}

/// Adds a grant that somebody has just decided on, however they were asked. Grants that ended, and those whose codes
/// nobody came for, make room (RATE-03).
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

/// The sign-in has served its purpose. On loopback its session ends with the answer, because the client's callback
/// may have been sent the cookie (SESSION-01); other tabs keep theirs. Elsewhere only what no cookie leads to ends.
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
