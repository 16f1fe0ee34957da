//! The published keys of another server's issuer (RFC 7517 §5), for a resource server that runs as a separate
//! process.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::Value;

use crate::Verifier;
use crate::algorithm::Algorithm;
use crate::jwks::Jwks;
use crate::jwt;
use crate::ring::KeySet;

/// The most keys in a set, because each costs time to parse.
const MOST: usize = 200;

/// The keys that an issuer published last. Clones share them and are cheap.
#[derive(Clone)]
pub struct PublishedKeys(Arc<ArcSwap<KeySet>>);

/// Why a document is not a usable key set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadKeySet {
    #[error("it is not an object with a list of keys")]
    NotASet,
    #[error("it has more than 200 keys")]
    TooMany,
    #[error("two of its keys have the same name")]
    Doubled,
    #[error("it has no key for ES256, RS256 or EdDSA")]
    NoneUsable,
}

impl Default for PublishedKeys {
    /// Without keys: verifies nothing.
    fn default() -> Self {
        let set = KeySet { verifiers: HashMap::new(), jwks: Arc::new(Jwks::of(std::iter::empty())) };
        Self(Arc::new(ArcSwap::from_pointee(set)))
    }
}

impl PublishedKeys {
    /// Replaces the keys. A key that is missing in the new set no longer verifies anything (KEYS-04).
    ///
    /// # Errors
    /// See [`BadKeySet`]; the old keys stay.
    pub fn replace(&self, document: &[u8]) -> Result<(), BadKeySet> {
        let document: Value = serde_json::from_slice(document).map_err(|_| BadKeySet::NotASet)?;
        let keys = document.get("keys").and_then(Value::as_array).ok_or(BadKeySet::NotASet)?;
        if keys.len() > MOST {
            return Err(BadKeySet::TooMany);
        }
        let mut verifiers = HashMap::new();
        // Keys of other kinds are ignored.
        for (kid, algorithm, key) in keys.iter().filter_map(usable) {
            let Ok((verifying, _)) = jwt::public_from_jwk(algorithm, key.to_string().as_bytes()) else {
                continue;
            };
            if verifiers.insert(kid.to_owned(), Arc::new(verifying)).is_some() {
                return Err(BadKeySet::Doubled);
            }
        }
        if verifiers.is_empty() {
            return Err(BadKeySet::NoneUsable);
        }
        self.0.store(Arc::new(KeySet { verifiers, jwks: Arc::new(Jwks::of(keys.iter())) }));
        Ok(())
    }

    /// A verifier that always uses the current keys.
    pub fn verifier(&self) -> Verifier {
        Verifier(Arc::clone(&self.0))
    }
}

/// A signature key with `kid` and `alg`. A key without either is ignored (KEYS-07).
fn usable(key: &Value) -> Option<(&str, Algorithm, &Value)> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let for_signatures = text("use").is_none_or(|purpose| purpose == "sig");
    let algorithm = text("alg")?.parse().ok()?;
    for_signatures.then_some((text("kid")?, algorithm, key))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Unverified;
    use crate::tests::{Fixture, rotate, token};

    /// KEYS-07, RS-16: tokens signed by the issuer verify here, with the key named by `kid` and that key's
    /// algorithm.
    #[test]
    fn a_published_key_verifies() {
        for algorithm in Algorithm::ALL {
            let keys = Fixture::new().keys(algorithm);
            let signed = keys.sign(&token()).unwrap();
            let elsewhere = PublishedKeys::default();
            let verifier = elsewhere.verifier();
            assert_eq!(verifier.verify(&signed.text).unwrap_err(), Unverified::UnknownKey);
            elsewhere.replace(&keys.jwks().body).unwrap();
            assert_eq!(verifier.verify(&signed.text).unwrap().kid, signed.kid);
            assert_eq!(verifier.verify(&format!("{}x", signed.text)).unwrap_err(), Unverified::Signature);
        }
    }

    /// KEYS-04: a key that is no longer published verifies nothing.
    #[test]
    fn a_removed_key_no_longer_verifies() {
        let fixture = Fixture::new();
        let keys = fixture.keys(Algorithm::Es256);
        let old = keys.sign(&token()).unwrap();
        let elsewhere = PublishedKeys::default();
        elsewhere.replace(&keys.jwks().body).unwrap();
        let kid = rotate(&keys, Algorithm::Es256);
        assert!(!elsewhere.verifier().knows(&kid));
        let mut document: Value = serde_json::from_slice(&keys.jwks().body).unwrap();
        document["keys"].as_array_mut().unwrap().retain(|key| key["kid"] != old.kid.as_str());
        elsewhere.replace(document.to_string().as_bytes()).unwrap();
        assert!(elsewhere.verifier().knows(&kid) && !elsewhere.verifier().knows(&old.kid));
        assert!(elsewhere.verifier().verify(&old.text).is_err());
    }

    /// KEYS-07: keys without name or algorithm, or for another purpose, are ignored; an invalid document
    /// changes nothing.
    #[test]
    fn a_bad_document_changes_nothing() {
        let keys = Fixture::new().keys(Algorithm::Es256);
        let signed = keys.sign(&token()).unwrap();
        let elsewhere = PublishedKeys::default();
        elsewhere.replace(&keys.jwks().body).unwrap();
        let document: Value = serde_json::from_slice(&keys.jwks().body).unwrap();
        let good = document["keys"][0].clone();
        let without = |name: &str| {
            let mut key = good.clone();
            key.as_object_mut().unwrap().remove(name);
            json!({ "keys": [key] })
        };
        let with = |name: &str, value: Value| {
            let mut key = good.clone();
            key[name] = value;
            json!({ "keys": [key] })
        };
        for (bad, why) in [
            (json!(null), BadKeySet::NotASet),
            (json!({ "keys": {} }), BadKeySet::NotASet),
            (json!({ "keys": [] }), BadKeySet::NoneUsable),
            (
                json!({ "keys": [{ "kty": "oct", "k": "AA", "kid": "x", "alg": "HS256" }] }),
                BadKeySet::NoneUsable,
            ),
            (without("kid"), BadKeySet::NoneUsable),
            (without("alg"), BadKeySet::NoneUsable),
            (with("use", json!("enc")), BadKeySet::NoneUsable),
            (with("alg", json!("none")), BadKeySet::NoneUsable),
            (with("kty", json!("oct")), BadKeySet::NoneUsable),
            (json!({ "keys": [good, good] }), BadKeySet::Doubled),
            (json!({ "keys": vec![good.clone(); 201] }), BadKeySet::TooMany),
        ] {
            assert_eq!(elsewhere.replace(bad.to_string().as_bytes()), Err(why), "{bad}");
            assert!(elsewhere.verifier().verify(&signed.text).is_ok());
        }
        assert_eq!(elsewhere.replace(b"<html>"), Err(BadKeySet::NotASet));
    }
}
