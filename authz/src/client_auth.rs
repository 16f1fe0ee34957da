//! Which client is asking at the token endpoint (RFC 6749 §2.3). Public clients only, so far.

use shared::{ClientId, Fault, Tx};

use crate::form::Params;
use crate::store::clients::{self, Client};

/// Why no client could be made out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unauthenticated {
    /// Missing, unknown or disabled: indistinguishable (CAUTH-03).
    Unknown,
    /// A public client that presents a secret or an assertion (CAUTH-07).
    UnexpectedCredentials,
}

/// The client that a request names. `authorization` tells whether it has an `Authorization` header.
pub(crate) fn authenticate(
    tx: &Tx<'_>,
    params: &Params,
    authorization: bool,
) -> Result<Result<Client, Unauthenticated>, Fault> {
    let presented = ["client_secret", "client_assertion", "client_assertion_type"];
    if authorization || presented.iter().any(|name| params.get(name).is_some()) {
        return Ok(Err(Unauthenticated::UnexpectedCredentials));
    }
    let client = match params.get("client_id").and_then(ClientId::parse) {
        Some(id) => clients::find(tx, &id)?.filter(|client| !client.disabled),
        None => None,
    };
    Ok(client.ok_or(Unauthenticated::Unknown))
}
