//! Which client is asking (RFC 6749 §2.3, OAuth 2.1 §2.4): the same at every endpoint that clients call.

use data_encoding::BASE64;
use http::{HeaderMap, header};
use shared::{ClientId, Digest, Fault, Secret, Tx};

use crate::Authz;
use crate::form::{Params, decode};
use crate::store::client_secrets;
use crate::store::clients::{self, AuthMethod, Client};

/// Why no client could be made out. All look alike from outside (CAUTH-03).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unauthenticated {
    /// Missing, unknown or disabled.
    Unknown,
    /// The `Authorization` header is not Basic, or Basic that does not decode (CAUTH-02).
    Malformed,
    /// A method that the client did not register (CAUTH-01, CAUTH-07).
    WrongMethod,
    /// The right method, and not the client's secret.
    WrongSecret,
}

/// What the `Authorization` header says.
#[derive(Debug)]
pub(crate) enum Authorization {
    Absent,
    Basic { client_id: String, secret: Secret },
    Malformed,
}

impl Authorization {
    /// Reads the header (OAuth 2.1 §2.4.1): form-encoded in base64, the scheme in any case.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) => value.to_str().ok().and_then(basic).unwrap_or(Self::Malformed),
            (Some(_), Some(_)) => Self::Malformed,
        }
    }
}

fn basic(value: &str) -> Option<Authorization> {
    let (scheme, credentials) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64.decode(credentials.trim().as_bytes()).ok()?).ok()?;
    let (client_id, secret) = decoded.split_once(':')?;
    let secret = Secret::presented(decode(secret).ok()?);
    Some(Authorization::Basic { client_id: decode(client_id).ok()?, secret })
}

/// The client that a request comes from, proven by the method it registered and no other.
///
/// # Errors
/// The database's fault; the inner error says why nobody could be made out.
pub(crate) fn authenticate(
    _authz: &Authz,
    tx: &Tx<'_>,
    params: &Params,
    authorization: &Authorization,
) -> Result<Result<Client, Unauthenticated>, Fault> {
    let named = params.get("client_id");
    let (used, client_id, secret) = match (authorization, params.get("client_secret")) {
        (Authorization::Malformed, _) => return Ok(Err(Unauthenticated::Malformed)),
        // Two methods at once are none (TOKEN-04).
        (Authorization::Basic { .. }, Some(_)) => return Ok(Err(Unauthenticated::WrongMethod)),
        (Authorization::Basic { client_id, secret }, None) => {
            if named.is_some_and(|named| named != client_id) {
                return Ok(Err(Unauthenticated::WrongMethod));
            }
            (AuthMethod::ClientSecretBasic, Some(client_id.as_str()), Some(secret.clone()))
        }
        (Authorization::Absent, Some(secret)) => {
            (AuthMethod::ClientSecretPost, named, Some(Secret::presented(secret)))
        }
        (Authorization::Absent, None) => (AuthMethod::None, named, None),
    };
    if params.get("client_assertion").is_some() || params.get("client_assertion_type").is_some() {
        return Ok(Err(Unauthenticated::WrongMethod));
    }
    let client = match client_id.and_then(ClientId::parse) {
        Some(id) => clients::find(tx, &id)?.filter(|client| !client.disabled),
        None => None,
    };
    // The same work whether or not there is such a client (CAUTH-03).
    let presented = secret.map(|secret| secret.digest());
    let Some(client) = client else { return Ok(Err(Unauthenticated::Unknown)) };
    if !accepts(&client, used) {
        return Ok(Err(Unauthenticated::WrongMethod));
    }
    match presented {
        None => Ok(Ok(client)),
        Some(digest) if holds(tx, &client, &digest)? => Ok(Ok(client)),
        Some(_) => Ok(Err(Unauthenticated::WrongSecret)),
    }
}

/// CAUTH-01: the registered method; Basic and form are one where the client named neither.
fn accepts(client: &Client, used: AuthMethod) -> bool {
    let by_secret = [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost];
    client.auth_method == used
        || (client.auth_defaulted && by_secret.contains(&used) && by_secret.contains(&client.auth_method))
}

fn holds(tx: &Tx<'_>, client: &Client, digest: &Digest) -> Result<bool, Fault> {
    Ok(client_secrets::live(tx, &client.id, tx.now())?.contains(digest))
}
