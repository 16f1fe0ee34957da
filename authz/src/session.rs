//! The browser's cookies, its session, and the checks against cross-site requests (SESSION).

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use shared::audit::{self, Event, Name};
use shared::db::Conn;
use shared::{Digest, Fault, Issuer, Request, Secret, Timestamp, Tx, UserId};

use crate::Authz;
use crate::current::Current;
use crate::error::PageError;
use crate::form::has_media_type;
use crate::store::sessions::{self, Authentication, Session};
use crate::store::transactions::{self, Assertion, CancelledRequests};
use crate::store::users::{self, User};
use crate::user_agent;

/// The idle lifetime of a session.
const IDLE: Duration = Duration::from_hours(1);
/// The absolute lifetime of a session.
const ABSOLUTE: Duration = Duration::from_hours(12);
/// The use of a session is stored at most this often, not at every request.
const TOUCH_EVERY: Duration = Duration::from_mins(1);

/// The names of the cookies (SESSION-01).
pub(crate) struct CookieNames {
    session: String,
    browser: String,
    attributes: &'static str,
}

impl CookieNames {
    /// `__Host-` names on `https`. Names on loopback contain the port, because cookies ignore ports.
    pub(crate) fn new(issuer: &Issuer) -> Self {
        if issuer.is_loopback() {
            let port = issuer.port();
            Self {
                session: format!("sid_{port}"),
                browser: format!("txn_{port}"),
                attributes: "; Path=/; HttpOnly; SameSite=Lax",
            }
        } else {
            Self {
                session: "__Host-sid".to_owned(),
                browser: "__Host-txn".to_owned(),
                attributes: "; Path=/; Secure; HttpOnly; SameSite=Lax",
            }
        }
    }

    fn set(&self, name: &str, value: &str) -> HeaderValue {
        HeaderValue::try_from(format!("{name}={value}{}", self.attributes))
            .expect("cookie names and values here are visible ASCII")
    }

    /// The header that sets the session cookie.
    pub(crate) fn set_session(&self, secret: &Secret) -> HeaderValue {
        self.set(&self.session, secret.expose())
    }

    /// The header that removes the session cookie.
    pub(crate) fn expire_session(&self) -> HeaderValue {
        HeaderValue::try_from(format!("{}=; Max-Age=0{}", self.session, self.attributes))
            .expect("cookie names here are visible ASCII")
    }
}

/// The cookies of this server in a request.
#[derive(Clone, Debug)]
pub(crate) struct Browser {
    /// The digest of the browser id, to which transactions and ceremonies are bound (AUTHZ-15).
    id: Option<Digest>,
    /// The digest of its session cookie.
    session: Option<Digest>,
    /// Its name for people, from its `User-Agent`.
    name: Option<String>,
}

impl Browser {
    /// Reads the cookies; only pages do, and they read no bearer token (SESSION-08). If a name occurs twice, both are ignored, because one may have been planted.
    pub(crate) fn from_headers(names: &CookieNames, headers: &HeaderMap) -> Self {
        let find = |name: &str| {
            let mut found = headers
                .get_all(header::COOKIE)
                .iter()
                // Split as bytes: other programs' cookies may hold any bytes and must not hide ours.
                .flat_map(|value| value.as_bytes().split(|b| *b == b';'))
                .filter_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="));
            let value = found.next()?;
            found.next().is_none().then(|| Digest::of(value))
        };
        Self { id: find(&names.browser), session: find(&names.session), name: user_agent::name(headers) }
    }

    /// The browser's id, or a new one with the cookie that sets it.
    pub(crate) fn id_or_new(&self, names: &CookieNames) -> (Digest, Option<HeaderValue>) {
        if let Some(id) = self.id {
            return (id, None);
        }
        let secret = Secret::random("br_");
        (secret.digest(), Some(names.set(&names.browser, secret.expose())))
    }

    /// The browser's id.
    ///
    /// # Errors
    /// If the request has none: one of our pages must set it first.
    pub(crate) fn id(&self) -> Result<Digest, PageError> {
        self.id.ok_or_else(|| {
            PageError::new(
                StatusCode::BAD_REQUEST,
                "cookies_required",
                "This browser sent no cookie. Allow cookies for this address and reload the page.",
            )
        })
    }

    /// Its name for people, such as "Firefox on Linux"; it may claim to be another one.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The digest of the session cookie; the session may have ended.
    pub(crate) fn session_digest(&self) -> Option<Digest> {
        self.session
    }
}

/// A signed-in user.
#[derive(Clone, Debug)]
pub(crate) struct SignedIn {
    pub session: Session,
    pub user: User,
}

/// The user of a browser, if its session is live and the user enabled (SESSION-03).
pub(crate) fn signed_in(authz: &Authz, browser: &Browser) -> Result<Option<SignedIn>, Fault> {
    authz.db.read(|conn| signed_in_with(authz, conn, browser))
}

/// The same user in the same session, read in the job that acts for them (SESSION-05, SESSION-06).
pub(crate) fn present<'t>(
    authz: &Authz,
    tx: &'t Tx<'_>,
    browser: &Browser,
    before: &SignedIn,
) -> Result<Option<Current<'t, SignedIn>>, Fault> {
    let same = |now: &SignedIn| now.session.digest == before.session.digest;
    let now = Current::read(tx, |tx| Ok(signed_in_with(authz, tx, browser)?.filter(same)))?;
    Ok(now.found())
}

/// The user of a browser, as this connection sees it.
pub(crate) fn signed_in_with(
    authz: &Authz,
    conn: &Conn<'_>,
    browser: &Browser,
) -> Result<Option<SignedIn>, Fault> {
    match &browser.session {
        Some(session) => behind(authz, conn, session),
        None => Ok(None),
    }
}

/// The user of a session, if it is live and the user enabled, whether or not a browser still has its cookie.
fn behind(authz: &Authz, conn: &Conn<'_>, session: &Digest) -> Result<Option<SignedIn>, Fault> {
    let now = authz.clock.now();
    let Some(session) = sessions::find(conn, session)?.filter(|session| is_alive(session, now)) else {
        return Ok(None);
    };
    let user = users::find(conn, &session.user_id)?.filter(|user| !user.disabled);
    Ok(user.map(|user| SignedIn { session, user }))
}

/// The user who made the assertion of a request, while they may decide it. On loopback that does not depend on
/// the session cookie, which the answer to another tab removes (AUTHZ-15); elsewhere it ends with the session.
pub(crate) fn asserted(
    authz: &Authz,
    conn: &Conn<'_>,
    browser: &Browser,
    made: &Assertion,
) -> Result<Option<SignedIn>, Fault> {
    if !authz.issuer.is_loopback()
        && signed_in_with(authz, conn, browser)?.is_none_or(|signed_in| signed_in.user.id != made.user_id)
    {
        return Ok(None);
    }
    Ok(behind(authz, conn, &made.session)?.filter(|signed_in| signed_in.user.id == made.user_id))
}

/// Notes that a session is used, so that it does not expire; false if it ended meanwhile.
pub(crate) async fn touch(authz: &Authz, session: &Session) -> Result<bool, Fault> {
    if authz.clock.now().since(session.seen_at) < TOUCH_EVERY {
        return Ok(true);
    }
    let (authz, digest) = (authz.clone(), session.digest);
    let db = authz.db.clone();
    db.record(move |tx| match Current::read(tx, |tx| behind(&authz, tx, &digest))?.found() {
        Some(signed_in) => sessions::touch(tx, &signed_in.map(|signed_in| signed_in.session)).map(|()| true),
        None => Ok(false),
    })
    .await
}

/// The bounds for live sessions: signed in after the first time and used after the second.
pub(crate) fn alive_since(now: Timestamp) -> (Timestamp, Timestamp) {
    (now - ABSOLUTE, now - IDLE)
}

/// Whether a session is live: not expired, and begun with user verification (SESSION-10).
fn is_alive(session: &Session, now: Timestamp) -> bool {
    session.authentication.user_verified && now < session.auth_time + ABSOLUTE && now < session.seen_at + IDLE
}

/// Deletes expired sessions.
pub(crate) fn sweep(tx: &Tx<'_>) -> Result<(), Fault> {
    sessions::sweep(tx, tx.now() - ABSOLUTE, tx.now() - IDLE)
}

/// Starts a session under a new id and ends the browser's previous one (SESSION-02). If that belonged to
/// another user, the requests pending in this browser end too, except `transaction`, which this sign-in is for
/// (SESSION-09).
pub(crate) fn start(
    tx: &Tx<'_>,
    user: &Current<'_, User>,
    authentication: Authentication,
    browser: &Browser,
    transaction: Option<&str>,
    request: &Request,
) -> Result<(Secret, Session), Fault> {
    let now = tx.now();
    sweep(tx)?;
    let previous = match browser.session {
        Some(digest) => sessions::find(tx, &digest)?,
        None => None,
    };
    if let Some(id) = &browser.id {
        let replaces_somebody = previous.as_ref().is_some_and(|session| session.user_id != user.id);
        let whose = if replaces_somebody {
            CancelledRequests::Everybodys
        } else {
            CancelledRequests::NotOf(&user.id)
        };
        cancel_requests(tx, id, whose, transaction, &user.id, request)?;
    }
    if let Some(previous) = previous {
        leave(tx, &previous.digest, transaction)?;
        let ended = Event::allowed(Name::SessionEnded).by_user(&previous.user_id).request(request);
        audit::append(tx, ended.detail("because", "replaced"))?;
    }
    let secret = Secret::random("sid_");
    let session = Session {
        digest: secret.digest(),
        user_id: user.id.clone(),
        authentication,
        auth_time: now,
        seen_at: now,
    };
    let address = request.address.map(|address| address.to_string());
    sessions::insert(tx, &session, address.as_deref(), browser.name())?;
    let created = Event::allowed(Name::SessionCreated).by_user(&user.id).request(request);
    audit::append(tx, created.detail("amr", session.authentication.amr.as_str()))?;
    Ok((secret, session))
}

/// Makes a session's cookie invalid and answers with its user. Other requests that were signed in to with it
/// keep their sign-in, because tabs must not disturb each other (AUTHZ-15); if there are none, the session ends
/// completely.
pub(crate) fn leave(tx: &Tx<'_>, digest: &Digest, except: Option<&str>) -> Result<Option<UserId>, Fault> {
    if !transactions::refer_to(tx, digest, except)? {
        return sessions::delete(tx, digest);
    }
    let session = sessions::find(tx, digest)?;
    let record = Secret::random("sid_").digest();
    sessions::detach(tx, digest, &record)?;
    transactions::follow(tx, digest, &record)?;
    Ok(session.map(|session| session.user_id))
}

/// Cancels a browser's pending requests and their sign-ins (SESSION-09). `by` is the user who caused it.
pub(crate) fn cancel_requests(
    tx: &Tx<'_>,
    browser: &Digest,
    whose: CancelledRequests<'_>,
    except: Option<&str>,
    by: &UserId,
    request: &Request,
) -> Result<(), Fault> {
    let cancelled = transactions::cancel(tx, browser, whose, except)?;
    if cancelled.is_empty() {
        return Ok(());
    }
    for session in cancelled.iter().flatten() {
        sessions::delete(tx, session)?;
    }
    let event = Event::denied(Name::AuthzDenied, "user_changed").by_user(by);
    audit::append(tx, event.request(request).detail("cancelled", cancelled.len()))
}

/// The purpose of the sign-out form's CSRF token.
pub(crate) const SIGN_OUT: &str = "sign-out";

/// The token of the sign-out form, for a page that shows who is signed in. `None` if the browser's cookie
/// belongs to another session than the page, as after a decision in another tab on loopback.
pub(crate) fn sign_out_csrf(authz: &Authz, browser: &Browser, signed_in: &SignedIn) -> Option<String> {
    let digest = &signed_in.session.digest;
    (browser.session_digest().as_ref() == Some(digest)).then(|| csrf_token(authz, digest, SIGN_OUT))
}

/// The CSRF token for a form that changes something in this session or transaction (SESSION-07). It is computed
/// from its purpose, so it is not stored.
pub(crate) fn csrf_token(authz: &Authz, whose: &Digest, purpose: &str) -> String {
    BASE64URL_NOPAD.encode(&authz.seal.hmac(keys::Purpose::Csrf, &form_of(whose, purpose)))
}

/// The key of the CSRF token in a request's form: the assertion made in the request, if there is one, because
/// another tab's sign-in does not change it; otherwise the session.
pub(crate) fn csrf_key<'a>(made: Option<&'a Assertion>, signed_in: &'a SignedIn) -> &'a Digest {
    made.map_or(&signed_in.session.digest, |made| &made.proof)
}

/// Whether a form has the right CSRF token, compared in constant time. Tokens made with the previous sealing
/// key are accepted too.
pub(crate) fn csrf_matches(authz: &Authz, whose: &Digest, purpose: &str, presented: Option<&str>) -> bool {
    let Some(presented) = presented.map(|text| Digest::of(text.as_bytes())) else { return false };
    let expected = authz.seal.hmacs(keys::Purpose::Csrf, &form_of(whose, purpose));
    expected.iter().any(|mac| Digest::of(BASE64URL_NOPAD.encode(mac).as_bytes()) == presented)
}

fn form_of(whose: &Digest, purpose: &str) -> Vec<u8> {
    [&whose.0[..], purpose.as_bytes()].concat()
}

/// Whether a request comes from one of our own pages (SESSION-07).
pub(crate) fn is_same_origin(issuer: &Issuer, headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (Some(origin), None) => origin.as_bytes() == issuer.as_str().as_bytes(),
        (None, _) => headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin"),
        (Some(_), Some(_)) => false,
    }
}

/// Refuses requests from other sites, and bodies that are not JSON (WEBAUTHN-15).
pub(crate) fn require_json_from_us(issuer: &Issuer, headers: &HeaderMap) -> Result<(), PageError> {
    if !is_same_origin(issuer, headers) {
        return Err(PageError::new(
            StatusCode::FORBIDDEN,
            "wrong_origin",
            "This request did not come from a page on this server.",
        ));
    }
    if !has_media_type(headers, "application/json") {
        return Err(PageError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "json_required",
            "Send application/json.",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (http::HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    /// SESSION-01: cookie names on https and on loopback.
    #[test]
    fn cookie_names_follow_the_issuer() {
        let https = CookieNames::new(&Issuer::parse("https://a.example").unwrap());
        let secret = Secret::presented("v");
        assert_eq!(https.set_session(&secret), "__Host-sid=v; Path=/; Secure; HttpOnly; SameSite=Lax");
        let loopback = CookieNames::new(&Issuer::localhost(8081));
        assert_eq!(loopback.set_session(&secret), "sid_8081=v; Path=/; HttpOnly; SameSite=Lax");
        assert_eq!(loopback.expire_session(), "sid_8081=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax");
    }

    /// SESSION-02: if a cookie occurs twice, one was planted, so both are ignored.
    #[test]
    fn a_repeated_cookie_is_ignored() {
        let names = CookieNames::new(&Issuer::localhost(1));
        assert!(Browser::from_headers(&names, &headers(&[("cookie", "sid_1=a")])).session.is_some());
        assert!(Browser::from_headers(&names, &headers(&[("cookie", "sid_1=a; sid_1=b")])).session.is_none());
        assert!(
            Browser::from_headers(&names, &headers(&[("cookie", "sid_1=a"), ("cookie", "sid_1=b")]))
                .session
                .is_none()
        );
        assert!(Browser::from_headers(&names, &headers(&[("cookie", "sid_12=a")])).session.is_none());
    }

    /// SESSION-01: cookies of other programs in another encoding do not hide ours.
    #[test]
    fn foreign_bytes_do_not_hide_our_cookies() {
        let names = CookieNames::new(&Issuer::localhost(1));
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_bytes(b"theme=caf\xe9; sid_1=a").unwrap());
        assert_eq!(Browser::from_headers(&names, &headers).session, Some(Digest::of(b"a")));
    }

    /// SESSION-07: requests from other origins change nothing.
    #[test]
    fn only_requests_from_our_pages_change_state() {
        let issuer = Issuer::localhost(1);
        assert!(is_same_origin(&issuer, &headers(&[("origin", "http://localhost:1")])));
        assert!(is_same_origin(&issuer, &headers(&[("sec-fetch-site", "same-origin")])));
        for bad in [
            &[][..],
            &[("origin", "null")],
            &[("origin", "http://localhost:2")],
            &[("origin", "http://127.0.0.1:1")],
            &[("origin", "http://localhost:1"), ("origin", "http://evil.example")],
            &[("sec-fetch-site", "same-site")],
            &[("origin", "http://evil.example"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(!is_same_origin(&issuer, &headers(bad)), "{bad:?}");
        }
    }
}
