//! The grants of the token endpoint: one request, one transaction. A new grant is a variant of [`GrantType`] here, with
//! all that it is, and a file that redeems it.

mod authorization_code;
mod client_credentials;
pub(crate) mod device_code;
mod refresh_token;
mod refusal;

use std::cell::OnceCell;

use shared::audit::{self, Event, Name};
use shared::{AccessToken, Fault, GrantId, Jti, Request, Scope, Secret, Tx, UserId};

use crate::current::Current;
use crate::form::Params;
use crate::store::clients::{CLIENT_CREDENTIALS, Client};
use crate::store::grants::{self, Grant, Reason};
use crate::store::refresh_tokens::{self, RefreshToken};
use crate::{Authz, ending};
pub(crate) use refusal::Refusal;

/// What is minted on a grant: rows are written, the JWT is signed after the commit.
#[derive(Debug)]
pub(crate) struct Minted {
    pub claims: AccessToken,
    pub refresh_token: Option<Secret>,
    pub scope: Scope,
}

/// A refusal commits (what it revokes stays revoked); a fault rolls back.
pub(crate) type Answer = Result<Minted, Refusal>;

/// What a client may come with to the token endpoint (RFC 6749 §4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GrantType {
    /// OAuth 2.1 §4.1
    AuthorizationCode,
    /// OAuth 2.1 §4.3
    RefreshToken,
    /// RFC 8628
    DeviceCode,
    /// OAuth 2.1 §4.2
    ClientCredentials,
}

impl GrantType {
    /// In the order in which the metadata names them.
    pub(crate) const ALL: [Self; 4] =
        [Self::AuthorizationCode, Self::RefreshToken, Self::DeviceCode, Self::ClientCredentials];

    /// Its name in requests, registrations and metadata.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::AuthorizationCode => "authorization_code",
            Self::RefreshToken => "refresh_token",
            Self::DeviceCode => "urn:ietf:params:oauth:grant-type:device_code",
            Self::ClientCredentials => CLIENT_CREDENTIALS,
        }
    }

    /// Its name for people: of a URN the end.
    pub(crate) fn short_name(self) -> &'static str {
        self.name().rsplit(':').next().unwrap_or_default()
    }

    /// All of them, for people who have to name one.
    pub(crate) fn alternatives() -> String {
        let [before @ .., last] = &Self::ALL.map(Self::short_name);
        format!("{} or {last}", before.join(", "))
    }

    /// The one with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|grant_type| grant_type.name() == name)
    }

    /// Whether this server has it now.
    pub(crate) fn is_on(self, authz: &Authz) -> bool {
        match self {
            Self::AuthorizationCode | Self::RefreshToken => true,
            Self::DeviceCode => authz.config.device,
            Self::ClientCredentials => authz.status.has_own_tokens(),
        }
    }

    /// Whether a client may say of itself that it uses it. What only an administrator allows, a registration or a
    /// document does not bring about.
    pub(crate) fn is_for_everybody(self) -> bool {
        matches!(self, Self::AuthorizationCode | Self::RefreshToken)
    }

    /// Whether this client may use it (TOKEN-13).
    pub(crate) fn is_allowed(self, client: &Client) -> bool {
        match self {
            Self::AuthorizationCode | Self::RefreshToken => client.has_grant(self.name()),
            // What a client says of itself, or the catalogue or a document says of it, does not count (DEV-01).
            Self::DeviceCode => client.is_added() && client.has_grant(self.name()),
            Self::ClientCredentials => client.acts_in_its_own_name(),
        }
    }

    /// Gives tokens for what was presented.
    ///
    /// # Errors
    /// The database's fault.
    pub(crate) fn redeem(self, cx: &Context<'_>, params: &Params) -> Result<Answer, Fault> {
        match self {
            Self::AuthorizationCode => authorization_code::redeem(cx, params),
            Self::RefreshToken => refresh_token::rotate(cx, params),
            Self::DeviceCode => device_code::redeem(cx, params),
            Self::ClientCredentials => client_credentials::issue(cx, params),
        }
    }
}

/// What a grant has at hand.
pub(crate) struct Context<'a> {
    pub authz: &'a Authz,
    pub tx: &'a Tx<'a>,
    pub client: &'a Current<'a, Client>,
    pub request: &'a Request,
    /// The grant of what was presented: a refusal is on record with it, whatever the client is told (AUDIT-06).
    pub met: OnceCell<(GrantId, UserId)>,
}

impl Context<'_> {
    /// What was presented belongs to this grant.
    fn meet(&self, grant: &Grant) {
        let _ = self.met.set((grant.id.clone(), grant.user_id.clone()));
    }

    /// The scope that a grant still carries: its user exists and is enabled, its resource exists, the user is still
    /// entitled to it, and its client can still be granted it (TOKEN-11, TOKEN-15, DCR-08). `None` if nothing of it
    /// is left.
    fn present_scope(&self, grant: &Grant) -> Result<Option<Scope>, Fault> {
        let now = self.tx.now();
        if grant.revoked || now >= grant.expires_at {
            return Ok(None);
        }
        if self.authz.resource_in(self.tx, &grant.resource)?.is_none() {
            return Ok(None);
        }
        // Nothing, if they are disabled.
        let entitled = self.authz.status.entitled_in(self.tx, &grant.user_id)?;
        let below = self.authz.grantable_to(self.client.trust.ceiling());
        let scope = grant.scope.intersection(&entitled).intersection(&below);
        Ok((!scope.is_empty()).then_some(scope))
    }

    /// Ends a grant and everything it bought, before this request is answered (RS-08).
    fn revoke(&self, grant: &Grant, reason: Reason) -> Result<(), Fault> {
        ending::grant(self.authz, self.tx, &grant.id, reason).map(drop)
    }

    /// A record about a grant that this client, or whoever passes for it, asks something of.
    fn about(&self, event: Event, grant: &Grant) -> Event {
        event
            .by_client(&self.client.id)
            .subject(grant.user_id.as_str())
            .client(&self.client.id)
            .grant(&grant.id)
            .request(self.request)
    }

    /// The first tokens on a grant, in rows and on record: a refresh token for a client that uses them (REFRESH-01),
    /// and the claims of an access token.
    fn first_tokens(&self, grant: &Grant, scope: Scope, grant_type: GrantType) -> Result<Minted, Fault> {
        let refresh_token = if GrantType::RefreshToken.is_allowed(self.client) {
            let secret = Secret::random("rt_");
            let idle = self.authz.config.refresh_lifetimes(self.client.trust).idle;
            let row = RefreshToken {
                digest: secret.digest(),
                grant_id: grant.id.clone(),
                generation: 0,
                expires_at: (self.tx.now() + idle).min(grant.expires_at),
                rotated_at: None,
            };
            refresh_tokens::insert(self.tx, &row)?;
            Some(secret)
        } else {
            None
        };
        self.touch(grant)?;
        let claims = self.claims(grant, scope.clone(), 0);
        audit::append(
            self.tx,
            self.about(Event::allowed(Name::TokenIssued), grant)
                .jti(claims.jti.as_str())
                .resource(&grant.resource)
                .scope(&scope)
                .detail("grant_type", grant_type.name())
                .detail("aud", grant.resource.as_str())
                .detail("exp", claims.exp)
                .detail("auth_method", self.client.auth_method.as_str())
                .detail("dpop", false),
        )?;
        Ok(Minted { claims, refresh_token, scope })
    }

    /// Notes for the user when and from where the client was here last (REVOKE-07).
    fn touch(&self, grant: &Grant) -> Result<(), Fault> {
        let address = self.request.address.map(|address| address.to_string());
        grants::touch(self.tx, &grant.id, address.as_deref())
    }

    /// The claims of a new access token on a grant (AT-02).
    fn claims(&self, grant: &Grant, scope: Scope, generation: u32) -> AccessToken {
        let auth_time = grant.auth_time.seconds();
        // A clock that stepped back must not make the sign-in lie in the future (AT-05).
        let issued = self.tx.now().seconds().max(auth_time);
        let lifetime = i64::try_from(self.authz.config.access_token_lifetime.as_secs()).unwrap_or(3600);
        AccessToken {
            iss: self.authz.issuer.to_string(),
            sub: grant.user_id.to_string(),
            aud: grant.resource.clone(),
            client_id: grant.client_id.clone(),
            exp: (issued + lifetime).min(grant.expires_at.seconds()),
            iat: issued,
            nbf: None,
            jti: Jti::random(generation),
            scope,
            grant_id: grant.id.clone(),
            auth_time: Some(auth_time),
            acr: Some("aal2".to_owned()),
            amr: Some(grant.amr.split(' ').map(str::to_owned).collect()),
        }
    }
}
