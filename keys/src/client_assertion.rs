//! Client assertions (RFC 7523 §2.2): their format, and their signature by a registered key. The authorization
//! server checks the claims.

use std::fmt;
use std::sync::LazyLock;

use data_encoding::BASE64URL_NOPAD;
use josekit::jwk::Jwk;
use josekit::jws::{ES256, EdDSA, JwsVerifier, PS256, RS256};
use openssl::bn::BigNumContext;
use openssl::ec::{EcGroup, EcPoint};
use openssl::nid::Nid;
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Number, Value, json};
use shared::work::{self, Work};

use crate::ed25519;
use crate::jwt::{LONGEST, object, three_parts};

/// The algorithms that clients may use (RFC 7518 §3.1, RFC 8037 §3.1). All are asymmetric (CAUTH-05).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Algorithm {
    Es256,
    EdDsa,
    Rs256,
    Ps256,
}

/// Their names, as in `alg`.
pub const CLIENT_ALGORITHMS: [&str; 4] = ["ES256", "EdDSA", "RS256", "PS256"];
/// The most keys of a client. Each may cost a signature verification (RATE-04).
const MOST_KEYS: usize = 10;
/// The most keys that are tried for one assertion (RATE-05). Two are enough while one key replaces another; a
/// client with more of one kind must name the key by `kid`.
const MOST_TRIED: usize = 2;

impl Algorithm {
    const ALL: [Self; 4] = [Self::Es256, Self::EdDsa, Self::Rs256, Self::Ps256];

    fn as_str(self) -> &'static str {
        let [es256, eddsa, rs256, ps256] = CLIENT_ALGORITHMS;
        match self {
            Self::Es256 => es256,
            Self::EdDsa => eddsa,
            Self::Rs256 => rs256,
            Self::Ps256 => ps256,
        }
    }

    /// A verifier for a key with this algorithm; `None` if the key is for something else by its `kty`, `crv`,
    /// `use`, `key_ops` or `alg` (RFC 8725 §3.1).
    fn verifier(self, key: &Jwk) -> Option<Box<dyn JwsVerifier>> {
        match self {
            Self::Es256 => Some(Box::new(ES256.verifier_from_jwk(key).ok()?)),
            // The library would accept Ed448 too.
            Self::EdDsa if key.curve() == Some("Ed25519") && has_sound_point(key) => {
                Some(Box::new(EdDSA.verifier_from_jwk(key).ok()?))
            }
            Self::EdDsa => None,
            Self::Rs256 => Some(Box::new(RS256.verifier_from_jwk(key).ok()?)),
            Self::Ps256 => Some(Box::new(PS256.verifier_from_jwk(key).ok()?)),
        }
    }
}

/// The members of a key that are kept: its public values and its purpose. Certificates and URLs are dropped, so
/// that they are never fetched (CAUTH-06).
const KEPT: [&str; 10] = ["kty", "kid", "use", "key_ops", "alg", "crv", "x", "y", "n", "e"];
/// Private members (RFC 7518 §6).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A client's public keys (RFC 7517 §5), without those that cannot verify assertions.
#[derive(Clone, Debug, Default)]
pub struct ClientKeys(Vec<Jwk>);

/// Why a JWK set is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadClientKeys {
    #[error("it is not an object with a list of keys")]
    NotASet,
    #[error("it has more than 10 keys")]
    TooMany,
    #[error("it holds a private or a shared key")]
    Private,
    #[error("it has no public key for ES256, EdDSA, RS256 or PS256")]
    NoneUsable,
}

impl ClientKeys {
    /// Parses a key set.
    ///
    /// # Errors
    /// See [`BadClientKeys`]; a private key is refused even beside usable ones.
    pub fn parse(set: &Value) -> Result<Self, BadClientKeys> {
        let keys = set.get("keys").and_then(Value::as_array).ok_or(BadClientKeys::NotASet)?;
        if keys.len() > MOST_KEYS {
            return Err(BadClientKeys::TooMany);
        }
        let mut usable = Vec::with_capacity(keys.len());
        for key in keys {
            let key = key.as_object().ok_or(BadClientKeys::NotASet)?;
            if PRIVATE.iter().any(|member| key.contains_key(*member)) || key.get("kty") == Some(&json!("oct"))
            {
                return Err(BadClientKeys::Private);
            }
            // RFC 7517 §5: a set may contain other kinds of keys, which are ignored.
            usable.extend(usable_key(key));
        }
        if usable.is_empty() {
            return Err(BadClientKeys::NoneUsable);
        }
        Ok(Self(usable))
    }

    /// The set as it is stored and shown: the usable keys with their kept members.
    pub fn to_json(&self) -> Value {
        let keys: Vec<&Map<String, Value>> = self.0.iter().map(AsRef::as_ref).collect();
        json!({ "keys": keys })
    }

    /// The keys to try: those with the header's `kid`, then those without one. If the header has none, the
    /// first few of all.
    fn candidates<'k>(&'k self, header: &'k Header) -> impl Iterator<Item = Box<dyn JwsVerifier>> + 'k {
        let is_named = |key: &&Jwk| header.kid.is_some() && header.kid.as_deref() == key.key_id();
        let may_be_meant = |key: &&Jwk| header.kid.is_none() || key.key_id().is_none();
        let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == header.alg);
        let keys = self.0.iter().filter(is_named).chain(self.0.iter().filter(may_be_meant));
        keys.filter_map(move |key| algorithm?.verifier(key)).take(MOST_TRIED)
    }
}

fn usable_key(key: &Map<String, Value>) -> Option<Jwk> {
    let kept = key.iter().filter(|(name, _)| KEPT.contains(&name.as_str()));
    let kept: Map<String, Value> = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
    let [es256, _, rs256, ps256] = CLIENT_ALGORITHMS;
    // Do not parse with the library: it takes half a millisecond for ten keys and checks no more than this code
    // (RATE-05). Any two numbers are an RSA key, and any point on the curve is a key for ES256.
    let algorithms = match kept.get("kty").and_then(Value::as_str) {
        Some("RSA") if is_cheap_rsa(&kept) => [rs256, ps256],
        Some("EC") if is_p256(&kept) => [es256, es256],
        Some("RSA" | "EC") => return None,
        _ => {
            let key = Jwk::from_map(kept).ok()?;
            return Algorithm::EdDsa.verifier(&key).is_some().then_some(key);
        }
    };
    let key = Jwk::from_map(kept).ok()?;
    let signs = key.key_use().is_none_or(|purpose| purpose == "sig") && key.is_for_key_operation("verify");
    (signs && key.algorithm().is_none_or(|alg| algorithms.contains(&alg))).then_some(key)
}

fn has_sound_point(key: &Jwk) -> bool {
    key.parameter("x").and_then(Value::as_str).is_some_and(ed25519::is_sound)
}

/// Whether a key is a point on P-256 (RFC 7518 §6.2.1).
fn is_p256(key: &Map<String, Value>) -> bool {
    static GROUP: LazyLock<Option<EcGroup>> =
        LazyLock::new(|| EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).ok());
    let coordinate = |member: &str| {
        let bytes = BASE64URL_NOPAD.decode(key.get(member)?.as_str()?.as_bytes()).ok()?;
        <[u8; 32]>::try_from(bytes).ok()
    };
    let (Some(group), Some(x), Some(y)) = (GROUP.as_ref(), coordinate("x"), coordinate("y")) else {
        return false;
    };
    // SEC 1 §2.3.3: uncompressed.
    let point = [&[4], &x[..], &y[..]].concat();
    let on_the_curve = || EcPoint::from_bytes(group, &point, &mut *BigNumContext::new().ok()?).ok();
    key.get("crv") == Some(&json!("P-256")) && on_the_curve().is_some()
}

/// Whether an RSA key has 2048 to 4096 bits and a common exponent: a huge modulus or exponent makes
/// verification slow (RATE-04).
fn is_cheap_rsa(key: &Map<String, Value>) -> bool {
    let number = |member: &str| {
        let text = key.get(member).and_then(Value::as_str)?;
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Some(bytes[zeros..].to_vec())
    };
    let (Some(n), Some(e)) = (number("n"), number("e")) else { return false };
    let exponent = e.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    (256..=512).contains(&n.len()) && e.len() <= 4 && exponent >= 65537 && exponent % 2 == 1
}

/// The claims of an assertion (RFC 7519 §4.1). Other members are ignored.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct AssertionClaims {
    pub iss: String,
    pub sub: String,
    /// Must be one string: an array could name another server beside this one (CAUTH-05).
    pub aud: String,
    #[serde(deserialize_with = "date")]
    pub exp: i64,
    #[serde(default, deserialize_with = "optional_date")]
    pub nbf: Option<i64>,
    #[serde(default, deserialize_with = "optional_date")]
    pub iat: Option<i64>,
    pub jti: String,
}

/// NumericDate (RFC 7519 §2): seconds, possibly with a fraction, which is dropped.
fn date<'de, D: Deserializer<'de>>(reader: D) -> Result<i64, D::Error> {
    seconds(&Number::deserialize(reader)?).ok_or_else(|| de::Error::custom("no date"))
}

fn optional_date<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<i64>, D::Error> {
    date(reader).map(Some)
}

fn seconds(number: &Number) -> Option<i64> {
    // Later dates lose precision as a float, and their year has six digits.
    const LATEST: f64 = 9e12;
    #[allow(clippy::cast_possible_truncation, reason = "the range was looked at")]
    let whole = |date: f64| (date.abs() < LATEST).then(|| date.floor() as i64);
    number.as_i64().or_else(|| number.as_f64().and_then(whole))
}

/// The allowed header members. `crit`, `jku`, `x5u`, `jwk` and `x5c` are refused (CAUTH-06, RFC 8725 §3.10);
/// the two certificate digests are allowed and ignored.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    #[serde(rename = "x5t")]
    _x5t: Option<de::IgnoredAny>,
    #[serde(rename = "x5t#S256")]
    _x5t_s256: Option<de::IgnoredAny>,
}

/// A client assertion that was parsed and not verified.
pub struct ClientAssertion<'a> {
    message: &'a str,
    signature: Vec<u8>,
    header: Header,
    claims: AssertionClaims,
}

/// Why an assertion was refused. The variant is for the audit log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadAssertion {
    #[error(
        "the assertion is not a signed JWT with the members that it must have, and no others in its header"
    )]
    Malformed,
    #[error("the assertion is another kind of JWT by its typ")]
    Typ,
    #[error("the client has no key that fits the header")]
    UnknownKey,
    #[error("the signature is not of a key of this client over this assertion")]
    Signature,
}

impl fmt::Debug for ClientAssertion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAssertion").field("claims", &self.claims).finish_non_exhaustive()
    }
}

impl<'a> ClientAssertion<'a> {
    /// Parses an assertion.
    ///
    /// # Errors
    /// [`BadAssertion::Malformed`] or [`BadAssertion::Typ`].
    pub fn parse(compact: &'a str) -> Result<Self, BadAssertion> {
        let read = || {
            let (header, payload, signature) = three_parts(compact)?;
            let message = &compact[..header.len() + 1 + payload.len()];
            let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?;
            Some(Self { message, signature, header: object(header)?, claims: object(payload)? })
        };
        let assertion = (compact.len() <= LONGEST).then(read).flatten().ok_or(BadAssertion::Malformed)?;
        match &assertion.header.typ {
            Some(typ) if !is_assertion(typ) => Err(BadAssertion::Typ),
            _ => Ok(assertion),
        }
    }

    /// The claimed client, in order to find its keys. Unverified until [`Self::verify`].
    pub fn claimed_client(&self) -> &str {
        &self.claims.iss
    }

    /// Verifies the signature and returns the claims.
    ///
    /// The time is the same without a matching key: a dummy key is tried then (CAUTH-03).
    ///
    /// # Errors
    /// [`BadAssertion::UnknownKey`] or [`BadAssertion::Signature`].
    pub fn verify(self, keys: &ClientKeys) -> Result<AssertionClaims, BadAssertion> {
        let signed_by = |key: Box<dyn JwsVerifier>| {
            work::done(Work::Signature);
            key.verify(self.message.as_bytes(), &self.signature).is_ok()
        };
        let mut candidates = keys.candidates(&self.header).peekable();
        if candidates.peek().is_none() {
            let _ = NOBODYS_KEYS.candidates(&self.header).any(signed_by);
            return Err(BadAssertion::UnknownKey);
        }
        let signed = candidates.any(signed_by);
        drop(candidates);
        if signed { Ok(self.claims) } else { Err(BadAssertion::Signature) }
    }
}

/// CAUTH-05: other values are refused, so that a JWT made for another purpose is not accepted (RFC 8725 §3.11).
/// Media types are case-insensitive (RFC 7515 §4.1.9).
fn is_assertion(typ: &str) -> bool {
    ["JWT", "client-authentication+jwt"].iter().any(|known| typ.eq_ignore_ascii_case(known))
}

/// Dummy keys of every kind, from the examples of the RFCs (RFC 7515 A.3, RFC 8037 A.2, RFC 7638 §3.1). Their
/// private halves are public, so the result of a verification with them is ignored.
static NOBODYS_KEYS: LazyLock<ClientKeys> = LazyLock::new(|| {
    let set = json!({ "keys": [
        { "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
          "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" },
        { "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" },
        { "kty": "RSA", "e": "AQAB",
          "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKR\
                XjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaS\
                qzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINH\
                aQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw" },
    ] });
    ClientKeys::parse(&set).unwrap_or_default()
});

#[cfg(test)]
mod tests;
