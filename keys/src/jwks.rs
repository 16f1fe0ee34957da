//! The public key set (RFC 7517) and key thumbprints (RFC 7638).

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use josekit::jwk::Jwk;
use serde_json::{Map, Value, json};
use shared::Digest;

use crate::algorithm::Algorithm;

/// The key set, ready to be sent.
#[derive(Debug)]
pub struct Jwks {
    /// The JSON document (RFC 7517 §5).
    pub body: Bytes,
}

impl Jwks {
    pub(crate) fn of<'a>(keys: impl Iterator<Item = &'a Value>) -> Self {
        let body = json!({ "keys": keys.collect::<Vec<_>>() }).to_string();
        Self { body: body.into() }
    }
}

/// One public key, as published.
pub(crate) struct PublicJwk {
    kid: String,
    json: Value,
}

impl PublicJwk {
    /// Copies the public members of a key by name, so that a private one cannot be published (KEYS-01). `None`
    /// if one is missing.
    pub(crate) fn of(jwk: &Jwk, algorithm: Algorithm) -> Option<Self> {
        let required = required_members(jwk.key_type())?;
        let mut members = Map::new();
        for name in required {
            members.insert((*name).to_owned(), jwk.parameter(name)?.clone());
        }
        let kid = thumbprint(&members)?;
        members.insert("kid".to_owned(), kid.as_str().into());
        members.insert("use".to_owned(), "sig".into());
        members.insert("alg".to_owned(), algorithm.as_str().into());
        Some(Self { kid, json: Value::Object(members) })
    }

    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    pub(crate) fn json(&self) -> &Value {
        &self.json
    }
}

/// The members that identify a key, in lexicographic order (RFC 7638 §3.2).
fn required_members(kty: &str) -> Option<&'static [&'static str]> {
    match kty {
        "EC" => Some(&["crv", "kty", "x", "y"]),
        "RSA" => Some(&["e", "kty", "n"]),
        // RFC 8037 §2.
        "OKP" => Some(&["crv", "kty", "x"]),
        _ => None,
    }
}

/// SHA-256 over the required members, in order and without white space (RFC 7638 §3).
fn thumbprint(jwk: &Map<String, Value>) -> Option<String> {
    let required = required_members(jwk.get("kty")?.as_str()?)?;
    let members = required.iter().map(|name| Some(format!("\"{name}\":{}", jwk.get(*name)?)));
    let text = format!("{{{}}}", members.collect::<Option<Vec<_>>>()?.join(","));
    Some(BASE64URL_NOPAD.encode(&Digest::of(text.as_bytes()).0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7638 §3.1: the example key has the example thumbprint, whatever other members it has.
    #[test]
    fn the_thumbprint_of_the_rfc_example() {
        let jwk = json!({
            "kid": "2011-04-29", "alg": "RS256", "e": "AQAB", "kty": "RSA",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKR\
                  XjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaS\
                  qzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINH\
                  aQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        });
        let kid = thumbprint(jwk.as_object().unwrap());
        assert_eq!(kid.as_deref(), Some("NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"));
    }

    #[test]
    fn a_key_without_its_members_has_no_thumbprint() {
        for bad in [json!({}), json!({"kty": "RSA", "e": "AQAB"}), json!({"kty": "oct", "k": "AA"})] {
            assert_eq!(thumbprint(bad.as_object().unwrap()), None, "{bad}");
        }
    }

    /// KEYS-01: private members are not published, even if a whole key pair is passed in.
    #[test]
    fn a_private_key_is_published_without_its_private_members() {
        for (algorithm, pair) in [
            (Algorithm::Es256, Jwk::generate_ec_key(josekit::jwk::alg::ec::EcCurve::P256).unwrap()),
            (Algorithm::Rs256, Jwk::generate_rsa_key(2048).unwrap()),
        ] {
            assert!(pair.parameter("d").is_some());
            let public = PublicJwk::of(&pair, algorithm).unwrap();
            for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
                assert_eq!(public.json().get(private), None, "{private}");
            }
        }
    }
}
