//! Client authentication (RFC 6749 §2.3, OAuth 2.1 §2.4), the same at every endpoint that clients call.

mod assertion;

use data_encoding::BASE64;
use http::{HeaderMap, header};
use keys::ClientAssertion;
use shared::{ClientId, Digest, Fault, Request, Secret, Timestamp, Tx};

use crate::Authz;
use crate::clients::{self, LookupPurpose};
use crate::current::Current;
use crate::error::{Code, OAuthError};
use crate::form::{Params, decode};
use crate::store::client_secrets;
use crate::store::clients::{AuthMethod, Client};

/// Why a client could not be authenticated. The variant is for the audit log. The client gets the same error
/// for every cause (CAUTH-03), except for a request that uses two methods at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Unauthenticated {
    /// The client id is missing or unknown, or the client is disabled.
    #[error("client_unknown")]
    Unknown,
    /// The `Authorization` header is not a well-formed Basic header (CAUTH-02).
    #[error("client_credentials_malformed")]
    Malformed,
    /// More than one method at once (TOKEN-04).
    #[error("client_auth_methods_several")]
    SeveralMethods,
    /// A method that the client did not register (CAUTH-01, CAUTH-07).
    #[error("client_auth_method_wrong")]
    WrongMethod,
    /// The method is right and the secret is wrong.
    #[error("client_secret_wrong")]
    WrongSecret,
    /// `client_assertion` is not an assertion, or `client_assertion_type` is not the JWT bearer type.
    #[error("client_assertion_malformed")]
    AssertionMalformed,
    /// None of the client's keys verifies the signature (CAUTH-06).
    #[error("client_assertion_signature")]
    AssertionSignature,
    /// The assertion is from another client or for another server (CAUTH-05).
    #[error("client_assertion_claims")]
    AssertionClaims,
    /// The assertion has expired, lasts too long, or is from the future.
    #[error("client_assertion_expired")]
    AssertionExpired,
    /// Its `jti` was used before.
    #[error("client_assertion_replayed")]
    AssertionReplayed,
    /// The limit of remembered assertions for this client has been reached (RATE-03).
    #[error("client_assertions_too_many")]
    AssertionsTooMany,
}

impl Unauthenticated {
    /// The error that the client gets (standards §6.1).
    pub(crate) fn wire(self) -> OAuthError {
        match self {
            Self::SeveralMethods => {
                OAuthError::new(Code::InvalidRequest, "use only one method of client authentication")
            }
            Self::AssertionsTooMany => OAuthError::new(
                Code::TemporarilyUnavailable,
                "too many assertions of this client have not expired yet; try again in a minute",
            ),
            _ => OAuthError::new(Code::InvalidClient, "client authentication failed"),
        }
    }
}

/// The content of the `Authorization` header.
#[derive(Debug)]
pub(crate) enum Authorization {
    Absent,
    Basic { client_id: String, secret: Secret },
    Malformed,
}

impl Authorization {
    /// Reads the header (OAuth 2.1 §2.4.1): form-encoded values in base64; the scheme in any case.
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

/// The client id that a request claims, for the record only. It is not verified.
pub(crate) fn claimed_client(params: &Params, authorization: &Authorization) -> Option<ClientId> {
    let presented = Presented::of(params, authorization).ok();
    let named = presented.as_ref().map(Presented::client_id).or(params.get("client_id"));
    named.and_then(ClientId::parse)
}

/// Checks a request's client authentication as far as possible without writing. An assertion's signature is
/// verified here and never on the writer's thread, where all requests would wait for it (RATE-05).
///
/// # Errors
/// A database fault. The inner error says why the client could not be authenticated.
pub(crate) fn examine(
    authz: &Authz,
    request: &Request,
    params: &Params,
    authorization: &Authorization,
) -> Result<Result<Examined, Unauthenticated>, Fault> {
    let find = |id: &ClientId| {
        authz.db.read(|conn| Ok(clients::resolve(authz, conn, id, LookupPurpose::Grant)?.client()))
    };
    check(authz.issuer.as_str(), authz.clock.now(), request, find, params, authorization)
}

/// Authenticates the client of a request by the method that it registered. This uses up an assertion.
///
/// # Errors
/// A database fault. The inner error says why the client could not be authenticated.
pub(crate) fn authenticate<'t>(
    authz: &Authz,
    tx: &'t Tx<'_>,
    examined: &Result<Examined, Unauthenticated>,
) -> Result<Result<Current<'t, Client>, Unauthenticated>, Fault> {
    let examined = match examined {
        Ok(examined) => examined,
        Err(why) => return Ok(Err(*why)),
    };
    let find = |id: &ClientId| Ok(clients::resolve(authz, tx, id, LookupPurpose::Grant)?.client());
    Ok(Current::read(tx, |tx| prove(tx, find, examined))?.allowed())
}

/// The result of [`examine`]: everything that cannot change before the job runs.
pub(crate) struct Examined {
    client_id: ClientId,
    proof: Proof,
}

enum Proof {
    Nothing,
    Secret(AuthMethod, Digest),
    Assertion(assertion::ValidAssertion),
}

impl Proof {
    fn method(&self) -> AuthMethod {
        match self {
            Self::Nothing => AuthMethod::None,
            Self::Secret(method, _) => *method,
            Self::Assertion(_) => AuthMethod::PrivateKeyJwt,
        }
    }
}

/// How a request identifies its client.
enum Presented<'a> {
    /// By client id alone.
    Name(&'a str),
    Secret {
        method: AuthMethod,
        client_id: &'a str,
        secret: Digest,
    },
    Assertion(Box<ClientAssertion<'a>>),
}

impl<'a> Presented<'a> {
    /// Finds the one method that a request uses (TOKEN-04). A client may also put its id into the form, if the
    /// two agree.
    fn of(params: &'a Params, authorization: &'a Authorization) -> Result<Self, Unauthenticated> {
        use Unauthenticated as U;
        let named = params.get("client_id");
        let in_form = params.get("client_secret");
        let asserted =
            params.get("client_assertion").is_some() || params.get("client_assertion_type").is_some();
        let used = [!matches!(authorization, Authorization::Absent), in_form.is_some(), asserted];
        if used.into_iter().filter(|used| *used).count() > 1 {
            return Err(U::SeveralMethods);
        }
        let presented = match authorization {
            Authorization::Malformed => return Err(U::Malformed),
            // Some programs send this header for a client without a secret. It says no more than the client id.
            Authorization::Basic { client_id, secret } if secret.is_empty() => Self::Name(client_id),
            Authorization::Basic { client_id, secret } => {
                let method = AuthMethod::ClientSecretBasic;
                Self::Secret { method, client_id, secret: secret.digest() }
            }
            Authorization::Absent if asserted => Self::Assertion(Box::new(assertion::read(params)?)),
            Authorization::Absent => match (in_form, named) {
                (_, None) => return Err(U::Unknown),
                (None, Some(client_id)) => Self::Name(client_id),
                (Some(secret), Some(client_id)) => {
                    let secret = Secret::presented(secret).digest();
                    Self::Secret { method: AuthMethod::ClientSecretPost, client_id, secret }
                }
            },
        };
        if named.is_some_and(|named| named != presented.client_id()) {
            return Err(U::Unknown);
        }
        Ok(presented)
    }

    fn client_id(&self) -> &str {
        match self {
            Self::Name(client_id) | Self::Secret { client_id, .. } => client_id,
            Self::Assertion(assertion) => assertion.claimed_client(),
        }
    }
}

fn check(
    issuer: &str,
    now: Timestamp,
    request: &Request,
    find: impl FnOnce(&ClientId) -> Result<Option<Client>, Fault>,
    params: &Params,
    authorization: &Authorization,
) -> Result<Result<Examined, Unauthenticated>, Fault> {
    let presented = match Presented::of(params, authorization) {
        Ok(presented) => presented,
        Err(why) => return Ok(Err(why)),
    };
    // A malformed client id can be refused early: the time this takes reveals nothing about registered clients.
    let Some(client_id) = ClientId::parse(presented.client_id()) else {
        return Ok(Err(Unauthenticated::Unknown));
    };
    let proof = match presented {
        Presented::Name(_) => Proof::Nothing,
        Presented::Secret { method, secret, .. } => Proof::Secret(method, secret),
        Presented::Assertion(assertion) => {
            let client = find(&client_id)?.filter(|client| !client.disabled);
            // Do the same work whether or not the client exists (CAUTH-03).
            let good = assertion::check(issuer, now, request, &client_id, client.as_ref(), *assertion)?;
            match (client, good) {
                (None, _) => return Ok(Err(Unauthenticated::Unknown)),
                (Some(client), _) if !accepts(&client, AuthMethod::PrivateKeyJwt) => {
                    return Ok(Err(Unauthenticated::WrongMethod));
                }
                (Some(_), Err(why)) => return Ok(Err(why)),
                (Some(_), Ok(good)) => Proof::Assertion(good),
            }
        }
    };
    Ok(Ok(Examined { client_id, proof }))
}

fn prove(
    tx: &Tx<'_>,
    find: impl FnOnce(&ClientId) -> Result<Option<Client>, Fault>,
    Examined { client_id, proof }: &Examined,
) -> Result<Result<Client, Unauthenticated>, Fault> {
    let client = find(client_id)?.filter(|client| !client.disabled);
    // Do the same work whether or not the client exists (CAUTH-03).
    let held = match proof {
        Proof::Secret(_, secret) => client_secrets::live(tx, client_id, tx.now())?.contains(secret),
        Proof::Nothing | Proof::Assertion(_) => true,
    };
    let client = match client {
        None => return Ok(Err(Unauthenticated::Unknown)),
        Some(client) if !accepts(&client, proof.method()) => return Ok(Err(Unauthenticated::WrongMethod)),
        Some(_) if !held => return Ok(Err(Unauthenticated::WrongSecret)),
        Some(client) => client,
    };
    if let Proof::Assertion(good) = proof
        && let Err(why) = good.spend(tx, &client)?
    {
        return Ok(Err(why));
    }
    Ok(Ok(client))
}

/// CAUTH-01: only the registered method is accepted. A client that registered none may use Basic or the form.
fn accepts(client: &Client, used: AuthMethod) -> bool {
    let by_secret = [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost];
    client.auth_method == used
        || (client.auth_defaulted && by_secret.contains(&used) && by_secret.contains(&client.auth_method))
}

#[cfg(test)]
mod tests;
