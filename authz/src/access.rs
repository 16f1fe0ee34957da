//! Access that exists now, for the administrator's commands: lists and ends grants, single tokens, browser
//! sessions, or everything at once (REVOKE-07, SESSION-06, REFRESH-08).

mod lockdown;
mod sessions;

use serde::{Deserialize, Serialize};
use shared::audit::{self, Event, Name};
use shared::{AccessToken, ClientId, Fault, GrantId, Jti, Scope, Secret, Timestamp, Tx, UserId};

use crate::clients::administration;
use crate::people::{self, accepted};
use crate::status::{LEEWAY, LISTED};
use crate::store::client_reports::{self, Access, GrantFilter};
use crate::store::grants::{self, Reason};
use crate::store::refresh_tokens;
use crate::{Authz, ending};

pub use lockdown::{AccessCounts, BlastRadius, Locked, lock_down, measure};
pub use sessions::{Session, end_session, end_sessions_of, sessions};

/// The most grants that one answer lists.
const MOST: u32 = 1000;

/// A grant: what one user lets one client do. Times are Unix milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Grant {
    pub id: GrantId,
    pub user_id: UserId,
    pub user: String,
    pub client_id: ClientId,
    pub client: String,
    pub resource: String,
    pub scope: Scope,
    pub created_at: i64,
    pub last_used_at: Option<i64>,
    pub expires_at: i64,
    /// The address from which the client last got a token.
    pub address: Option<String>,
}

impl From<Access> for Grant {
    fn from(access: Access) -> Self {
        Self {
            id: access.grant_id,
            user_id: access.user_id,
            user: access.user,
            client_id: access.client_id,
            client: access.client,
            resource: access.resource.to_string(),
            scope: access.scope,
            created_at: access.created_at.0,
            last_used_at: access.last_used_at.map(|at| at.0),
            expires_at: access.expires_at.0,
            address: access.address,
        }
    }
}

/// A token that was ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedToken {
    /// An access token, by `jti`. Its grant continues.
    AccessToken(String),
    /// A refresh token. Its whole grant ended.
    Grant(GrantId),
}

/// Why a command about access is refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    User(people::Refusal),
    #[error("{0}")]
    Client(administration::Refusal),
    #[error("no active grant `{0}`; `portcullis grant list` shows all active grants")]
    GrantUnknown(String),
    #[error("this is neither a token from this server nor a `jti`")]
    TokenUnknown,
    #[error("this token has already expired or been revoked")]
    TokenDead,
    #[error("no session `{0}`; `portcullis session list` shows all sessions")]
    SessionUnknown(String),
}

/// A refusal is an answer and changes nothing; a fault rolls back.
pub type Answer<T> = Result<Result<T, Refusal>, Fault>;

/// The grants of a user, of a client, of both, or all. If there are more than [`MOST`], the newest.
///
/// # Errors
/// A database fault.
pub fn grants(tx: &Tx<'_>, user: Option<&str>, client: Option<&str>) -> Answer<Vec<Grant>> {
    let user = match user {
        Some(who) => Some(accepted!(user_id(tx, who)?)),
        None => None,
    };
    let client = match client {
        Some(who) => Some(accepted!(client_id(tx, who)?)),
        None => None,
    };
    let whose = GrantFilter { user: user.as_ref(), client: client.as_ref() };
    let found = client_reports::access(tx, whose, tx.now(), MOST)?;
    Ok(Ok(found.into_iter().map(Grant::from).collect()))
}

/// Ends a grant and forgets the consent behind it, so that its client must ask again. Also ends a grant that a
/// client holds in its own name; that client can get a new one with its credentials.
///
/// # Errors
/// A database fault.
pub fn revoke_grant(authz: &Authz, tx: &Tx<'_>, uid: u32, id: &str) -> Answer<GrantId> {
    let unknown = || Refusal::GrantUnknown(id.to_owned());
    let Some(id) = GrantId::parse(id) else { return Ok(Err(unknown())) };
    let event = Event::allowed(Name::TokenRevoked).by_console(uid).grant(&id).detail("token", "grant");
    let event = if let Some(grant) = grants::find(tx, &id)? {
        if !ending::grant(authz, tx, &id, Reason::RevokedByAdministrator)? {
            return Ok(Err(unknown()));
        }
        grants::forget_consent(tx, &grant)?;
        event.subject(grant.user_id.as_str()).client(&grant.client_id).resource(&grant.resource)
    } else {
        let Some(client) = ending::own_grant(authz, tx, &id)? else { return Ok(Err(unknown())) };
        event.subject(client.as_str()).client(&client)
    };
    audit::append(tx, event)?;
    Ok(Ok(id))
}

/// The token that a command names. It is read before the writer's job, because the writer never verifies a
/// signature (RATE-05).
pub enum NamedToken {
    Jti(Jti),
    AccessToken(Box<AccessToken>),
    /// A refresh token, if the database has it; otherwise unknown.
    Other(Secret),
}

impl NamedToken {
    /// What `token` is: a `jti`, an access token with our signature, or something else.
    pub fn read(authz: &Authz, token: &str) -> Self {
        let token = token.trim();
        if let Ok(jti) = token.parse() {
            return Self::Jti(jti);
        }
        match authz.keys.verifier().verify(token) {
            Ok(verified) => Self::AccessToken(Box::new(verified.token)),
            Err(_) => Self::Other(Secret::presented(token)),
        }
    }
}

/// Ends one access token or, given a refresh token, its grant.
///
/// # Errors
/// A database fault.
pub fn revoke_token(authz: &Authz, tx: &Tx<'_>, uid: u32, named: &NamedToken) -> Answer<EndedToken> {
    let token = match named {
        // The token's expiry is not known, so assume the longest lifetime.
        NamedToken::Jti(jti) => return end_token(authz, tx, uid, jti, tx.now() + LISTED, |event| event),
        NamedToken::Other(secret) => {
            let Some(refresh_token) = refresh_tokens::find(tx, &secret.digest())? else {
                return Ok(Err(Refusal::TokenUnknown));
            };
            let ended = revoke_grant(authz, tx, uid, refresh_token.grant_id.as_str())?;
            return Ok(ended.map(EndedToken::Grant).map_err(|_| Refusal::TokenDead));
        }
        NamedToken::AccessToken(token) => token,
    };
    if token.iss != authz.issuer.as_str() {
        return Ok(Err(Refusal::TokenUnknown));
    }
    if tx.now() >= token.expires() + LEEWAY {
        return Ok(Err(Refusal::TokenDead));
    }
    end_token(authz, tx, uid, &token.jti, token.expires(), |event| {
        event.subject(&token.sub).client(&token.client_id).grant(&token.grant_id).resource(&token.aud)
    })
}

fn end_token(
    authz: &Authz,
    tx: &Tx<'_>,
    uid: u32,
    jti: &Jti,
    expires_at: Timestamp,
    about: impl FnOnce(Event) -> Event,
) -> Answer<EndedToken> {
    if !ending::token(authz, tx, jti, expires_at)? {
        return Ok(Err(Refusal::TokenDead));
    }
    let event = Event::allowed(Name::TokenRevoked).by_console(uid).jti(jti.as_str());
    audit::append(tx, about(event).detail("token", "access_token"))?;
    Ok(Ok(EndedToken::AccessToken(jti.to_string())))
}

fn user_id(tx: &Tx<'_>, who: &str) -> Answer<UserId> {
    Ok(people::find(tx, who)?.map(|user| user.id).map_err(Refusal::User))
}

/// Finds a client by id, or by name if only one client has that name.
fn client_id(tx: &Tx<'_>, who: &str) -> Answer<ClientId> {
    Ok(administration::find(tx, who)?.map(|client| client.id).map_err(Refusal::Client))
}
