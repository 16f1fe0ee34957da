//! The claims of an access token (RFC 9068 §2.2), on which both sides rely.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::clock::Timestamp;
use crate::id::{ClientId, GrantId, random_128};
use crate::resource_uri::ResourceUri;
use crate::scope::Scope;

/// `typ` of an access token's header, and its long form (RFC 9068 §2.1).
pub const TYP: &str = "at+jwt";

/// The claims of an access token (AT-02). Dates are Unix seconds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AccessToken {
    pub iss: String,
    pub sub: String,
    /// Exactly one audience (RS-06); an array of one is accepted on the wire.
    #[serde(deserialize_with = "one_audience")]
    pub aud: ResourceUri,
    pub client_id: ClientId,
    pub exp: i64,
    pub iat: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    pub jti: Jti,
    pub scope: Scope,
    /// The grant that the token belongs to; opaque to other servers.
    pub grant_id: GrantId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acr: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amr: Option<Vec<String>>,
}

impl AccessToken {
    /// When the token expires, without leeway.
    pub fn expires(&self) -> Timestamp {
        Timestamp::from_seconds(self.exp)
    }

    /// Whether the token is a client's own, without a user (AT-03, CC-01). Users' and clients' ids never
    /// coincide.
    pub fn of_client(&self) -> bool {
        self.sub == self.client_id.as_str()
    }
}

fn one_audience<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ResourceUri, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(ResourceUri),
        Many([ResourceUri; 1]),
    }
    Ok(match Audience::deserialize(deserializer)? {
        Audience::One(one) | Audience::Many([one]) => one,
    })
}

/// A token's identifier: 128 random bits, and the generation of the refresh token issued with it.
///
/// The generation tells, without a row for each access token, which refresh token its client must have received
/// (REFRESH-06). Without a refresh token it is 0.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Jti {
    text: String,
    /// The generation of the refresh token that was issued with this access token.
    pub generation: u32,
}

impl Jti {
    /// A new identifier.
    pub fn random(generation: u32) -> Self {
        Self { text: format!("{}.{generation}", random_128()), generation }
    }

    /// The whole text, as in the claim.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The text is not an identifier of this server.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("not a token identifier of this server")]
pub struct MalformedJti;

impl FromStr for Jti {
    type Err = MalformedJti;

    fn from_str(text: &str) -> Result<Self, MalformedJti> {
        let (random, generation) = text.split_once('.').ok_or(MalformedJti)?;
        let known = random.len() == 26 && random.bytes().all(|b| b.is_ascii_alphanumeric());
        let generation = generation.parse().map_err(|_| MalformedJti)?;
        known.then(|| Self { text: text.to_owned(), generation }).ok_or(MalformedJti)
    }
}

impl fmt::Display for Jti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Jti {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Jti {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

crate::db::parsed_column!(Jti);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(aud: &serde_json::Value) -> serde_json::Value {
        json!({
            "iss": "http://localhost:1", "sub": "u_x", "aud": aud, "client_id": "dyn_x", "exp": 2, "iat": 1,
            "jti": Jti::random(3).to_string(), "scope": "b a", "grant_id": "g_x",
        })
    }

    /// RS-06: one audience, as a string or an array of one.
    #[test]
    fn a_token_has_exactly_one_audience() {
        for good in [json!("http://localhost:1/mcp"), json!(["http://localhost:1/mcp"])] {
            let token: AccessToken = serde_json::from_value(claims(&good)).unwrap();
            assert_eq!(token.aud.as_str(), "http://localhost:1/mcp");
            assert_eq!(token.jti.generation, 3);
        }
        for bad in [json!([]), json!(["a", "b"]), json!(null), json!(7)] {
            assert!(serde_json::from_value::<AccessToken>(claims(&bad)).is_err(), "{bad}");
        }
    }

    /// AT-04: the scope claim is sorted text.
    #[test]
    fn the_scope_claim_is_sorted_text() {
        let token: AccessToken = serde_json::from_value(claims(&json!("http://a/mcp"))).unwrap();
        assert_eq!(serde_json::to_value(&token).unwrap()["scope"], "a b");
    }

    #[test]
    fn foreign_identifiers_do_not_parse() {
        for bad in [
            "",
            "abc",
            "abc.1",
            "aaaaaaaaaaaaaaaaaaaaaaaaaa",
            "aaaaaaaaaaaaaaaaaaaaaaaaaa.x",
            "aaaaaaaaaaaaaaaaaaaaaaaa'!.1",
        ] {
            assert!(bad.parse::<Jti>().is_err(), "{bad}");
        }
    }
}
