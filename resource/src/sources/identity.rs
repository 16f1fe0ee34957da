//! What a server behind the gate is shown: a credential of the gateway's own, or who asks (SRC-10). Nothing of what a client
//! sent is in it (RS-15).

use http::{HeaderName, HeaderValue, header};
use keys::identity::{Claims, Identities};
use shared::{Issuer, Secret, Timestamp};

use super::mcp::client::Identity;
use crate::bearer::Asker;
use crate::item::SourceName;

/// Where the identity token travels if the source has a credential of its own beside it.
const IDENTITY_HEADER: HeaderName = HeaderName::from_static("portcullis-identity");
/// The subject where nobody asks: the gateway looks at the source by itself. No user has this id.
const GATEWAY: &str = "gateway";

/// The credentials of one source.
pub(crate) struct Credentials {
    authorization: Option<HeaderValue>,
    tells: Option<Tells>,
}

/// A source that is told who asks.
struct Tells {
    identities: Identities,
    issuer: Issuer,
    audience: String,
}

impl Credentials {
    /// A static credential, which is the whole value of `Authorization`; `None` if it cannot be one.
    pub(crate) fn new(authorization: Option<&Secret>) -> Option<Self> {
        let authorization = match authorization {
            None => None,
            Some(secret) => {
                let mut value = HeaderValue::from_str(secret.expose()).ok()?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Some(Self { authorization, tells: None })
    }

    /// The same, with a token for each request that says who asks.
    pub(crate) fn telling(self, identities: Identities, issuer: Issuer, audience: String) -> Self {
        Self { tells: Some(Tells { identities, issuer, audience }), ..self }
    }

    /// What goes with a request for this caller; `None` is the gateway itself.
    pub(crate) fn of(&self, asker: Option<&Asker>, now: Timestamp) -> Result<Identity, String> {
        let mut headers = Vec::with_capacity(2);
        headers.extend(self.authorization.clone().map(|value| (header::AUTHORIZATION, value)));
        let Some(Tells { identities, issuer, audience }) = &self.tells else {
            return Ok(Identity { key: None, headers });
        };
        let (subject, client) = asker.map_or((GATEWAY, None), |asker| (asker.user(), Some(asker.client())));
        let claims = Claims::new(issuer, subject, client, audience, now);
        let signed = identities.sign(&claims);
        let token = signed.map_err(|error| format!("no identity token could be signed: {error}"))?;
        let (name, text) = match self.authorization {
            None => (header::AUTHORIZATION, format!("Bearer {}", token.expose())),
            Some(_) => (IDENTITY_HEADER, token.expose().to_owned()),
        };
        let mut value = HeaderValue::from_str(&text).map_err(|error| error.to_string())?;
        value.set_sensitive(true);
        headers.push((name, value));
        Ok(Identity { key: Some(subject.to_owned()), headers })
    }

    /// What to do about a credential that the server does not accept.
    pub(crate) fn remedy(&self, source: &SourceName) -> String {
        match (&self.authorization, &self.tells) {
            (Some(_), _) => {
                format!(
                    "it does not accept this gateway's credential; an administrator must check `authorization` of [sources.{source}]"
                )
            }
            (None, Some(_)) => format!(
                "it does not accept the identity token; an administrator must check that it trusts this gateway's keys, or `identity` of [sources.{source}]"
            ),
            (None, None) => format!(
                "it wants a credential and none is configured; an administrator must set `authorization` or `identity` of [sources.{source}]"
            ),
        }
    }
}
