//! Parses a browser's response after a ceremony (WebAuthn §5.1, §5.8.1), without ambiguity (WEBAUTHN-05).
//!
//! webauthn-rs verifies challenge, RP ID, flags and signature. Everything else is checked here first: base64url
//! without padding, one id, no repeated members, the exact origin, no cross-origin frames, and authenticator
//! data without trailing bytes.

use data_encoding::BASE64URL_NOPAD;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use shared::json;
use webauthn_rs::prelude::{PublicKeyCredential, RegisterPublicKeyCredential};

use super::authenticator_data::{self, Attested, AuthenticatorData, Flags};
use crate::error::PageError;
use crate::invalid_json;

/// A browser's response after a ceremony, before the ceremony is looked up.
pub(crate) struct Finish {
    pub ceremony: String,
    /// Parsed only after the ceremony was taken: a malformed response uses up the ceremony too.
    pub response: Value,
    /// The name of the page to show after a sign-in without a transaction.
    pub destination: Option<String>,
}

impl Finish {
    /// Reads the body of a `…/finish` or `…/confirm`.
    ///
    /// # Errors
    /// If it does not name a ceremony.
    pub(crate) fn read(body: &[u8]) -> Result<Self, PageError> {
        let mut members = json::object(body).map_err(|_| invalid_json())?;
        match members.remove("ceremony") {
            Some(Value::String(ceremony)) => Ok(Self {
                ceremony,
                response: members.remove("response").unwrap_or_default(),
                destination: members.get("destination").and_then(Value::as_str).map(str::to_owned),
            }),
            _ => Err(invalid_json()),
        }
    }
}

/// Parses the assertion in a form field.
pub(crate) fn in_form(field: &str) -> Result<Value, Malformed> {
    json::object(field.as_bytes()).map(Value::Object).map_err(|_| Malformed::Response)
}

/// Why a response is malformed: the keyword for the audit log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Malformed {
    /// The outer JSON object.
    Response,
    /// `clientDataJSON`, or its contents.
    ClientData,
    /// The attestation object, or the authenticator data.
    AuthenticatorData,
}

impl Malformed {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Response => "malformed",
            Self::ClientData => "client_data",
            Self::AuthenticatorData => "authenticator_data",
        }
    }
}

/// A passkey assertion, parsed and not verified.
pub(crate) struct Assertion {
    pub credential: PublicKeyCredential,
    pub flags: Flags,
}

impl Assertion {
    /// Parses the response of `navigator.credentials.get`.
    pub(crate) fn read(origin: &str, response: &Value) -> Result<Self, Malformed> {
        let members = ["clientDataJSON", "authenticatorData", "signature"];
        let credential: PublicKeyCredential = read(response, &members, &["userHandle"])?;
        check_client_data(origin, "webauthn.get", &credential.response.client_data_json)?;
        let data = AuthenticatorData::parse(&credential.response.authenticator_data)
            .filter(|data| data.attested.is_none()) // §6.1: "MUST NOT be included" in an assertion
            .ok_or(Malformed::AuthenticatorData)?;
        Ok(Self { credential, flags: data.flags })
    }
}

/// A new passkey, parsed and not verified.
pub(crate) struct Registration {
    pub credential: RegisterPublicKeyCredential,
    pub data: AuthenticatorData,
    pub attested: Attested,
}

impl Registration {
    /// Parses the response of `navigator.credentials.create`.
    pub(crate) fn read(origin: &str, response: &Value) -> Result<Self, Malformed> {
        let credential: RegisterPublicKeyCredential =
            read(response, &["clientDataJSON", "attestationObject"], &[])?;
        check_client_data(origin, "webauthn.create", &credential.response.client_data_json)?;
        let data = authenticator_data::of_attestation(&credential.response.attestation_object);
        let mut data = data.ok_or(Malformed::AuthenticatorData)?;
        // This id is stored, so it must be the one in the response.
        let attested = data.attested.take().filter(|attested| attested.id == credential.raw_id);
        Ok(Self { credential, data, attested: attested.ok_or(Malformed::AuthenticatorData)? })
    }
}

/// Parses a credential: these members are base64url without padding, and `id` equals `rawId`.
fn read<T: DeserializeOwned>(response: &Value, binary: &[&str], optional: &[&str]) -> Result<T, Malformed> {
    let is_one = || {
        let inner = response.get("response")?.as_object()?;
        let present = |name: &&str| is_base64url(inner.get(*name));
        let absent = |name: &&str| inner.get(*name).is_none_or(Value::is_null);
        let extensions = ["extensions", "clientExtensionResults"];
        let one = response.get("type")? == "public-key"
            && is_base64url(response.get("id"))
            && response.get("id") == response.get("rawId")
            && binary.iter().all(present)
            && optional.iter().all(|name| absent(name) || present(name))
            // serde would accept an array for a struct.
            && extensions.iter().all(|name| response.get(*name).is_none_or(Value::is_object));
        one.then_some(())
    };
    is_one().ok_or(Malformed::Response)?;
    serde_json::from_value(response.clone()).map_err(|_| Malformed::Response)
}

fn is_base64url(value: Option<&Value>) -> bool {
    value.and_then(Value::as_str).is_some_and(|text| BASE64URL_NOPAD.decode(text.as_bytes()).is_ok())
}

/// Checks the client data (§5.8.1). Unknown members are allowed, because browsers add some.
fn check_client_data(origin: &str, kind: &str, bytes: &[u8]) -> Result<(), Malformed> {
    let says = json::object(bytes).map_err(|_| Malformed::ClientData)?;
    let ours = says.get("type").is_some_and(|said| said == kind)
        && is_base64url(says.get("challenge"))
        && says.get("origin").is_some_and(|said| said == origin);
    let framed = says.get("crossOrigin").is_some_and(|said| said != false) || says.contains_key("topOrigin");
    if ours && !framed && !is_token_bound(&says) { Ok(()) } else { Err(Malformed::ClientData) }
}

/// Whether the response is bound to a TLS connection. This server does not offer token binding, so it would be
/// another connection.
fn is_token_bound(says: &Map<String, Value>) -> bool {
    let Some(binding) = says.get("tokenBinding") else { return false };
    !matches!(binding["status"].as_str(), Some("supported" | "not-supported"))
}

#[cfg(test)]
mod tests;
