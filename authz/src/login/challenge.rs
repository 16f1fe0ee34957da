//! The challenge that a browser signs with a passkey (WebAuthn §7.2).

use serde::Serialize;
use shared::Fault;
use webauthn_rs::prelude::{Passkey, PasskeyAuthentication};
use webauthn_rs_proto::{PublicKeyCredentialHints, PublicKeyCredentialRequestOptions};

use crate::Authz;

/// Options for `navigator.credentials.get`, with the ceremony's handle.
#[derive(Serialize)]
pub(crate) struct RequestOptions {
    pub ceremony: String,
    pub options: PublicKey,
}

#[derive(Serialize)]
pub(crate) struct PublicKey {
    #[serde(rename = "publicKey")]
    pub public_key: PublicKeyCredentialRequestOptions,
}

/// A challenge for these passkeys, and the state to verify the response.
pub(crate) fn challenge(
    authz: &Authz,
    passkeys: &[Passkey],
) -> Result<(PublicKey, PasskeyAuthentication), Fault> {
    let (challenge, state) =
        authz.webauthn.start_passkey_authentication(passkeys).map_err(crate::webauthn_fault)?;
    let mut public_key = challenge.public_key;
    public_key.hints = Some(hints());
    Ok((PublicKey { public_key }, state))
}

/// Prefers authenticators that work without the internet over phones (WEBAUTHN-14).
pub(crate) fn hints() -> Vec<PublicKeyCredentialHints> {
    vec![PublicKeyCredentialHints::ClientDevice, PublicKeyCredentialHints::SecurityKey]
}
