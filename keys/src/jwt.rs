//! Access tokens as JWTs (RFC 7519, RFC 9068 §2.1): signing, and verification of format and signature.
//!
//! josekit does the cryptography. It does not check `typ`, dates or audience, and would take the algorithm from
//! the token if asked. So the format is checked here, and each key has exactly one algorithm.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use josekit::jwk::Jwk;
use josekit::jwk::alg::ed::{EdCurve, EdKeyPair};
use josekit::jws::{ES256, EdDSA, JwsSigner, JwsVerifier, RS256};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::AccessToken;
use shared::access_token::TYP;
use shared::work::{self, Work};
use zeroize::Zeroizing;

use crate::algorithm::Algorithm;
use crate::jwks::PublicJwk;

/// Longer tokens are refused, in bytes (RS-05).
pub(crate) const LONGEST: usize = 8 * 1024;
/// The size of RSA keys; RFC 9068 §2.1 requires at least 2048 bits (AT-01).
const RSA_BITS: u32 = 2048;

/// The cryptographic library failed unexpectedly.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the cryptographic library failed: {0}")]
pub struct CryptoFailed(String);

impl From<ErrorStack> for CryptoFailed {
    fn from(errors: ErrorStack) -> Self {
        Self(errors.to_string())
    }
}

impl From<josekit::JoseError> for CryptoFailed {
    fn from(error: josekit::JoseError) -> Self {
        Self(error.to_string())
    }
}

/// Generates a private key, as PKCS #8.
pub(crate) fn generate(algorithm: Algorithm) -> Result<Zeroizing<Vec<u8>>, CryptoFailed> {
    let key = match algorithm {
        Algorithm::Es256 => {
            let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
            PKey::from_ec_key(EcKey::generate(&group)?)?
        }
        Algorithm::Rs256 => PKey::from_rsa(Rsa::generate(RSA_BITS)?)?,
        Algorithm::EdDsa => PKey::generate_ed25519()?,
    };
    Ok(Zeroizing::new(key.private_key_to_pkcs8()?))
}

/// The public half of a private key: a verifier, and its published form.
pub(crate) fn public_half(
    algorithm: Algorithm,
    private: &[u8],
) -> Result<(VerifyingKey, PublicJwk), CryptoFailed> {
    let jwk = match algorithm {
        Algorithm::Es256 => ES256.key_pair_from_der(private)?.to_jwk_public_key(),
        Algorithm::Rs256 => RS256.key_pair_from_der(private)?.to_jwk_public_key(),
        Algorithm::EdDsa => ed25519(private)?.to_jwk_public_key(),
    };
    public(algorithm, &jwk)
}

/// josekit's EdDSA includes Ed448; here only Ed25519 is used.
fn ed25519(private: &[u8]) -> Result<EdKeyPair, CryptoFailed> {
    let pair = EdDSA.key_pair_from_der(private)?;
    if pair.curve() != EdCurve::Ed25519 {
        return Err(CryptoFailed("it is a key of another curve than Ed25519".to_owned()));
    }
    Ok(pair)
}

/// Like [`public_half`], from its published form.
pub(crate) fn public_from_jwk(
    algorithm: Algorithm,
    json: &[u8],
) -> Result<(VerifyingKey, PublicJwk), CryptoFailed> {
    public(algorithm, &Jwk::from_bytes(json)?)
}

fn public(algorithm: Algorithm, jwk: &Jwk) -> Result<(VerifyingKey, PublicJwk), CryptoFailed> {
    let verifier: Box<dyn JwsVerifier> = match algorithm {
        Algorithm::Es256 => Box::new(ES256.verifier_from_jwk(jwk)?),
        Algorithm::Rs256 => Box::new(RS256.verifier_from_jwk(jwk)?),
        Algorithm::EdDsa => {
            let x = jwk.parameter("x").and_then(Value::as_str);
            if !x.is_some_and(crate::ed25519::is_sound) {
                return Err(CryptoFailed("it is a point that anybody can sign for".to_owned()));
            }
            Box::new(EdDSA.verifier_from_jwk(jwk)?)
        }
    };
    let jwk = PublicJwk::of(jwk, algorithm)
        .ok_or_else(|| CryptoFailed("it described a public key incompletely".to_owned()))?;
    Ok((VerifyingKey { algorithm, verifier }, jwk))
}

/// A parsed signing key.
pub(crate) struct SigningKey {
    kid: String,
    algorithm: Algorithm,
    /// The encoded header, which is the same for every access token.
    header: String,
    signer: Box<dyn JwsSigner>,
}

/// A signed token for its client.
#[derive(Clone)]
pub struct SignedToken {
    /// The compact serialization (RFC 7515 §7.1). Never log it.
    pub text: String,
    /// The key that signed it.
    pub kid: String,
}

impl fmt::Debug for SignedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedToken").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// OpenSSL signs, in constant time and with blinding for RSA. Nothing here decrypts (KEYS-06).
    pub(crate) fn from_der(algorithm: Algorithm, kid: &str, private: &[u8]) -> Result<Self, CryptoFailed> {
        let signer: Box<dyn JwsSigner> = match algorithm {
            Algorithm::Es256 => Box::new(ES256.signer_from_der(private)?),
            Algorithm::Rs256 => Box::new(RS256.signer_from_der(private)?),
            Algorithm::EdDsa => {
                ed25519(private)?;
                Box::new(EdDSA.signer_from_der(private)?)
            }
        };
        // Exactly these three (AT-01).
        let header = json!({ "alg": algorithm.as_str(), "kid": kid, "typ": TYP }).to_string();
        let header = BASE64URL_NOPAD.encode(header.as_bytes());
        Ok(Self { kid: kid.to_owned(), algorithm, header, signer })
    }

    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    pub(crate) fn sign(&self, token: &AccessToken) -> Result<SignedToken, CryptoFailed> {
        let claims = serde_json::to_vec(token).map_err(|e| CryptoFailed(e.to_string()))?;
        Ok(SignedToken { text: self.compact(&self.header, &claims)?, kid: self.kid.clone() })
    }

    /// Signs claims of another kind of token, with its own `typ` (RFC 8725 §3.11).
    pub(crate) fn sign_as(&self, typ: &str, claims: &impl Serialize) -> Result<String, CryptoFailed> {
        let payload = serde_json::to_vec(claims).map_err(|e| CryptoFailed(e.to_string()))?;
        let header = json!({ "alg": self.algorithm.as_str(), "kid": self.kid, "typ": typ }).to_string();
        self.compact(&BASE64URL_NOPAD.encode(header.as_bytes()), &payload)
    }

    /// Makes a compact JWS: header, payload and signature in base64url, separated by dots (RFC 7515 §7.1).
    pub(crate) fn compact(&self, header: &str, payload: &[u8]) -> Result<String, CryptoFailed> {
        let mut text = format!("{header}.");
        BASE64URL_NOPAD.encode_append(payload, &mut text);
        work::done(Work::Signature);
        let signature = self.signer.sign(text.as_bytes())?;
        text.push('.');
        BASE64URL_NOPAD.encode_append(&signature, &mut text);
        Ok(text)
    }
}

/// A parsed verification key and its only algorithm (RFC 8725 §3.1).
pub(crate) struct VerifyingKey {
    algorithm: Algorithm,
    verifier: Box<dyn JwsVerifier>,
}

impl VerifyingKey {
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        work::done(Work::Signature);
        self.verifier.verify(message, signature).is_ok()
    }
}

/// A token that one of our keys signed. Its claims are not checked yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// Its claims.
    pub token: AccessToken,
    /// The key that signed it.
    pub kid: String,
}

/// Why a text is not an access token of this server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unverified {
    #[error("the token is longer than 8 KiB")]
    TooLong,
    #[error("the token is not three parts with dots between them")]
    NotThreeParts,
    #[error("the header is not an object with exactly alg, kid and typ")]
    Header,
    #[error("the token is not an access token by its typ")]
    Typ,
    #[error("no key has this kid")]
    UnknownKey,
    #[error("the key is for another algorithm than alg says")]
    Algorithm,
    #[error("the signature is not of this key over this token")]
    Signature,
    #[error("a claim is missing or of the wrong type")]
    Claims,
}

/// The allowed header members. Others are refused, so that a token cannot bring its own key (`jwk`, `jku`,
/// `x5u`) or ask for an unsupported feature (`crit`, `b64`, `zip`). A repeated member is refused too.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    typ: String,
}

/// The checks of RS-05 up to the claims, in its order.
pub(crate) fn verify<'k>(
    compact: &str,
    key: impl FnOnce(&str) -> Option<&'k VerifyingKey>,
) -> Result<Verified, Unverified> {
    if compact.len() > LONGEST {
        return Err(Unverified::TooLong);
    }
    let (header, payload, signature) = three_parts(compact).ok_or(Unverified::NotThreeParts)?;
    let message = &compact[..header.len() + 1 + payload.len()];
    let header: Header = object(header).ok_or(Unverified::Header)?;
    if !is_access_token(&header.typ) {
        return Err(Unverified::Typ);
    }
    // If the token chose its algorithm, a public key could be used as an HMAC secret (KEYS-07, RFC 8725 §2.1,
    // §3.1).
    let key = key(&header.kid).ok_or(Unverified::UnknownKey)?;
    if !key.algorithm.is_named(&header.alg) {
        return Err(Unverified::Algorithm);
    }
    let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).map_err(|_| Unverified::Signature)?;
    if !key.verifies(message.as_bytes(), &signature) {
        return Err(Unverified::Signature);
    }
    let token = object(payload).ok_or(Unverified::Claims)?;
    Ok(Verified { token, kid: header.kid })
}

pub(crate) fn three_parts(compact: &str) -> Option<(&str, &str, &str)> {
    let mut parts = compact.split('.');
    let three = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some(three)
}

/// Parses a JSON object in base64url. Serde would also read a struct from an array, so the first character is
/// checked.
pub(crate) fn object<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
    let json = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
    let is_object = json.trim_ascii_start().starts_with(b"{");
    is_object.then(|| serde_json::from_slice(&json).ok())?
}

/// RFC 9068 §4: `typ` is "at+jwt" or "application/at+jwt", case-insensitively (RFC 7515 §4.1.9). Other kinds of
/// tokens have another `typ` and are refused here (AT-06).
fn is_access_token(typ: &str) -> bool {
    let short_form = match typ.split_once('/') {
        Some((kind, rest)) if kind.eq_ignore_ascii_case("application") => rest,
        _ => typ,
    };
    short_form.eq_ignore_ascii_case(TYP)
}

#[cfg(test)]
mod tests;
