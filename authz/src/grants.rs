//! The grants of the token endpoint: one request, one transaction. To add a grant, add a variant to
//! [`GrantType`] here, and a file that redeems it.

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

/// Tokens that were created: the rows are written, and the JWT is signed after the commit.
#[derive(Debug)]
pub(crate) struct Minted {
    pub claims: AccessToken,
    pub refresh_token: Option<Secret>,
    pub scope: Scope,
}

/// A refusal commits (what it revokes stays revoked); a fault rolls back.
pub(crate) type Answer = Result<Minted, Refusal>;

/// The grant types of the token endpoint (RFC 6749 §4).
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
    /// All of them, in the order of the metadata.
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

    /// Its short name for people: of a URN, the last part.
    pub(crate) fn short_name(self) -> &'static str {
        self.name().rsplit(':').next().unwrap_or_default()
    }

    /// All short names, for error messages.
    pub(crate) fn alternatives() -> String {
        let [before @ .., last] = &Self::ALL.map(Self::short_name);
        format!("{} or {last}", before.join(", "))
    }

    /// The grant type with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|grant_type| grant_type.name() == name)
    }

    /// Whether this server offers it now.
    pub(crate) fn is_on(self, authz: &Authz) -> bool {
        match self {
            Self::AuthorizationCode | Self::RefreshToken => true,
            Self::DeviceCode => authz.config.device,
            Self::ClientCredentials => authz.status.has_own_tokens(),
        }
    }

    /// Whether clients may register it. Grant types that need an administrator cannot be enabled by a
    /// registration or a document.
    pub(crate) fn is_for_everybody(self) -> bool {
        matches!(self, Self::AuthorizationCode | Self::RefreshToken)
    }

    /// Whether this client may use it (TOKEN-13).
    pub(crate) fn is_allowed(self, client: &Client) -> bool {
        match self {
            Self::AuthorizationCode | Self::RefreshToken => client.has_grant(self.name()),
            // Only an administrator can allow it; a registration, the catalogue or a document cannot (DEV-01).
            Self::DeviceCode => client.is_added() && client.has_grant(self.name()),
            Self::ClientCredentials => client.acts_in_its_own_name(),
        }
    }

    /// Exchanges the presented credential for tokens.
    ///
    /// # Errors
    /// A database fault.
    pub(crate) fn redeem(self, cx: &Context<'_>, params: &Params) -> Result<Answer, Fault> {
        match self {
            Self::AuthorizationCode => authorization_code::redeem(cx, params),
            Self::RefreshToken => refresh_token::rotate(cx, params),
            Self::DeviceCode => device_code::redeem(cx, params),
            Self::ClientCredentials => client_credentials::issue(cx, params),
        }
    }
}

/// The context of a token request.
pub(crate) struct Context<'a> {
    pub authz: &'a Authz,
    pub tx: &'a Tx<'a>,
    pub client: &'a Current<'a, Client>,
    pub request: &'a Request,
    /// The grant of the presented credential: refusals are recorded with it, although the client is not told
    /// (AUDIT-06).
    pub met: OnceCell<(GrantId, UserId)>,
}

impl Context<'_> {
    /// Notes that the presented credential belongs to this grant.
    fn meet(&self, grant: &Grant) {
        let _ = self.met.set((grant.id.clone(), grant.user_id.clone()));
    }

    /// The scope that a grant has now: its user exists, is enabled and still entitled, its resource exists, and
    /// its client may still be granted it (TOKEN-11, TOKEN-15, DCR-08). `None` if no scope is left.
    fn present_scope(&self, grant: &Grant) -> Result<Option<Scope>, Fault> {
        let now = self.tx.now();
        if grant.revoked || now >= grant.expires_at {
            return Ok(None);
        }
        if self.authz.resource_in(self.tx, &grant.resource)?.is_none() {
            return Ok(None);
        }
        // Empty if the user is disabled.
        let entitled = self.authz.status.entitled_in(self.tx, &grant.user_id)?;
        let below = self.authz.grantable_to(self.client.trust.ceiling());
        let scope = grant.scope.intersection(&entitled).intersection(&below);
        Ok((!scope.is_empty()).then_some(scope))
    }

    /// Ends a grant and all its tokens before this request is answered (RS-08).
    fn revoke(&self, grant: &Grant, reason: Reason) -> Result<(), Fault> {
        ending::grant(self.authz, self.tx, &grant.id, reason).map(drop)
    }

    /// Adds the grant and its user to an audit record; the request may come from this client or from an
    /// attacker.
    fn about(&self, event: Event, grant: &Grant) -> Event {
        event
            .by_client(&self.client.id)
            .subject(grant.user_id.as_str())
            .client(&self.client.id)
            .grant(&grant.id)
            .request(self.request)
    }

    /// Creates and records the first tokens of a grant: a refresh token for a client that uses them
    /// (REFRESH-01), and the claims of an access token.
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

    /// Notes when and from where the client was last active, for the account page (REVOKE-07).
    fn touch(&self, grant: &Grant) -> Result<(), Fault> {
        let address = self.request.address.map(|address| address.to_string());
        grants::touch(self.tx, &grant.id, address.as_deref())
    }

    /// The claims of a new access token on a grant (AT-02).
    fn claims(&self, grant: &Grant, scope: Scope, generation: u32) -> AccessToken {
        let auth_time = grant.auth_time.seconds();
        // After a clock step backwards, `auth_time` must not be later than `iat` (AT-05).
        let issued = self.tx.now().seconds().max(auth_time);
        let lifetime = i64::try_from(self.authz.config.tokens.access.as_secs()).unwrap_or(3600);
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
