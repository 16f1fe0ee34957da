//! Identity tokens, which tell a server behind the gate who is calling (SRC-10). They are signed with the keys
//! of access tokens, last a minute, and have their own `typ` and audience, so that they are never accepted as
//! access tokens.

use serde::Serialize;
use shared::id::public_random_128;
use shared::{ClientId, Issuer, Secret, Timestamp};

use crate::Keys;
use crate::jwt::CryptoFailed;

/// The media type of an identity token.
pub const TYP: &str = "portcullis-identity+jwt";
/// The lifetime of an identity token in seconds.
const LIFETIME: i64 = 60;

/// The claims of an identity token (RFC 7519 §4.1).
#[derive(Clone, Debug, Serialize)]
pub struct Claims {
    iss: String,
    sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    aud: String,
    iat: i64,
    exp: i64,
    jti: String,
}

impl Claims {
    /// Claims that this subject is calling now, through this client if there is one, for this audience.
    pub fn new(
        issuer: &Issuer,
        subject: &str,
        client: Option<&ClientId>,
        audience: &str,
        now: Timestamp,
    ) -> Self {
        Self {
            iss: issuer.as_str().to_owned(),
            sub: subject.to_owned(),
            client_id: client.map(ToString::to_string),
            aud: audience.to_owned(),
            iat: now.seconds(),
            exp: now.seconds() + LIFETIME,
            jti: public_random_128(),
        }
    }
}

/// Signs identity tokens. Cheap to clone.
#[derive(Clone)]
pub struct Identities(Keys);

impl Keys {
    /// The signer of identity tokens.
    pub fn identities(&self) -> Identities {
        Identities(self.clone())
    }
}

impl Identities {
    /// Signs a token with the active key.
    ///
    /// # Errors
    /// If the cryptographic library fails.
    pub fn sign(&self, claims: &Claims) -> Result<Secret, CryptoFailed> {
        self.0.sign_as(TYP, claims).map(Secret::presented)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use data_encoding::BASE64URL_NOPAD;
    use serde_json::{Value, json};
    use shared::schema::SCHEMA;
    use shared::{Clock, Db};

    use super::*;
    use crate::{Config, Seal, Unverified};

    /// SRC-10: an identity token names the caller for a minute, and is not accepted as an access token.
    #[test]
    fn an_identity_token_is_not_an_access_token() {
        let (dir, now) = (tempfile::tempdir().unwrap(), Timestamp(1_800_000_000_999));
        let clock = Clock::held(now);
        let db = Db::open(&dir.path().join("main.db"), &SCHEMA, None, &clock).unwrap();
        let seal = Arc::new(Seal::open_or_create(&dir.path().join("seal.key"), true).unwrap());
        let keys = Keys::open(&db, seal, Config::default(), &clock).unwrap();
        let (issuer, client) = (Issuer::localhost(8080), ClientId::random_dynamic());
        let claims = Claims::new(&issuer, "u_1", Some(&client), "http://jira/mcp", now);
        let token = keys.identities().sign(&claims).unwrap();
        let mut parts =
            token.expose().split('.').map(|part| BASE64URL_NOPAD.decode(part.as_bytes()).unwrap());
        let header: Value = serde_json::from_slice(&parts.next().unwrap()).unwrap();
        let kid = keys.signing_kid();
        assert_eq!(header, json!({ "alg": "ES256", "kid": kid, "typ": "portcullis-identity+jwt" }));
        let mut said: Value = serde_json::from_slice(&parts.next().unwrap()).unwrap();
        assert!(said["jti"].take().as_str().is_some_and(|jti| jti.len() >= 22));
        assert_eq!(
            said,
            json!({ "iss": issuer.as_str(), "sub": "u_1", "client_id": client.as_str(),
            "aud": "http://jira/mcp", "iat": 1_800_000_000, "exp": 1_800_000_060, "jti": null })
        );
        let refused = keys.verifier().verify(token.expose()).map(drop).unwrap_err();
        assert!(!matches!(refused, Unverified::Signature), "it is refused for what it is: {refused}");
    }
}
