//! Clients that authenticate with a key (RFC 7523 §2.2): the key, and hand-made assertions.

use data_encoding::BASE64URL_NOPAD;
use openssl::bn::{BigNumContext, BigNumRef};
use openssl::ec::{EcGroup, EcKey, PointConversionForm};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Signer};
use serde_json::{Value, json};
use shared::id::random_128;

use crate::harness::TestApp;

/// The algorithms that clients may use.
pub const ALGORITHMS: [&str; 4] = ["ES256", "EdDSA", "RS256", "PS256"];

/// A client's key pair.
pub struct ClientKey {
    key: PKey<Private>,
    alg: &'static str,
    kid: String,
}

impl ClientKey {
    /// A new key for one of [`ALGORITHMS`].
    pub fn generate(alg: &'static str) -> Self {
        let key = match alg {
            "ES256" => {
                let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
                PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
            }
            "EdDSA" => PKey::generate_ed25519().unwrap(),
            _ => PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap(),
        };
        Self { key, alg, kid: random_128() }
    }

    /// The public half as a JWK set, to register as `jwks`.
    pub fn jwks(&self) -> Value {
        let encode = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let mut key = match self.alg {
            "ES256" => {
                let ec = self.key.ec_key().unwrap();
                let form = PointConversionForm::UNCOMPRESSED;
                let mut context = BigNumContext::new().unwrap();
                let point = ec.public_key().to_bytes(ec.group(), form, &mut context).unwrap();
                json!({ "kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..]) })
            }
            "EdDSA" => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(&self.key.raw_public_key().unwrap()) })
            }
            _ => {
                let rsa = self.key.rsa().unwrap();
                json!({ "kty": "RSA", "n": encode(&rsa.n().to_vec()), "e": encode(&rsa.e().to_vec()) })
            }
        };
        key["kid"] = self.kid.as_str().into();
        key["alg"] = self.alg.into();
        key["use"] = "sig".into();
        json!({ "keys": [key] })
    }

    /// The private half, for a program that signs itself.
    pub fn pem(&self) -> String {
        String::from_utf8(self.key.private_key_to_pem_pkcs8().unwrap()).unwrap()
    }

    /// A compact JWS of any header and claims (RFC 7515 §7.1).
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let encode = |json: &Value| BASE64URL_NOPAD.encode(json.to_string().as_bytes());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = self.signature(message.as_bytes());
        format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        if self.alg == "EdDSA" {
            return Signer::new_without_digest(&self.key).unwrap().sign_oneshot_to_vec(message).unwrap();
        }
        let mut signer = Signer::new(MessageDigest::sha256(), &self.key).unwrap();
        if self.alg == "PS256" {
            signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
            signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).unwrap();
        }
        let signature = signer.sign_oneshot_to_vec(message).unwrap();
        if self.alg != "ES256" {
            return signature;
        }
        // RFC 7518 §3.4: the two numbers concatenated, not in DER.
        let pair = EcdsaSig::from_der(&signature).unwrap();
        let half = |number: &BigNumRef| number.to_vec_padded(32).unwrap();
        [half(pair.r()), half(pair.s())].concat()
    }

    /// The header of a valid assertion.
    pub fn header(&self) -> Value {
        json!({ "alg": self.alg, "kid": self.kid, "typ": "JWT" })
    }

    /// A new valid assertion.
    pub fn assertion(&self, app: &TestApp, client_id: &str) -> String {
        self.sign(&self.header(), &claims(app, client_id))
    }

    /// The form fields of a valid assertion.
    pub fn form(&self, app: &TestApp, client_id: &str) -> [(&'static str, String); 2] {
        form(self.assertion(app, client_id))
    }
}

/// The claims of a valid assertion.
pub fn claims(app: &TestApp, client_id: &str) -> Value {
    let now = app.clock.now().seconds();
    json!({ "iss": client_id, "sub": client_id, "aud": app.origin, "iat": now, "exp": now + 120, "jti": random_128() })
}

/// The form fields with an assertion.
pub fn form(assertion: String) -> [(&'static str, String); 2] {
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    [("client_assertion_type", kind.to_owned()), ("client_assertion", assertion)]
}
