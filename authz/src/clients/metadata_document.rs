//! Client id metadata documents (draft-ietf-oauth-client-id-metadata-document): the metadata of a client whose
//! id is a URL. Parsing is the same for imported, built-in and fetched documents.

pub(crate) mod approvals;
pub(crate) mod catalogue;
mod fetch;
pub(crate) mod freshness;
mod url;
pub(crate) mod words;

use std::borrow::Cow;

use keys::ClientKeys;
use serde_json::{Map, Value};
use shared::json::{self, Unreadable};
use shared::{RedirectUri, Scope};

use super::metadata::Metadata;
use crate::config::Cimd;
use crate::store::clients::{AuthMethod, Client, Source, Trust};
use crate::visible::clean;
pub(crate) use url::{DocumentUrl, UrlError, host_for_people};

/// The largest document, in bytes (§6.6).
pub(crate) const LARGEST: usize = 5 * 1024;

/// A valid document: it has every required member and no forbidden one (CIMD-04).
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub name: String,
    pub redirect_uris: Vec<RedirectUri>,
    pub auth_method: AuthMethod,
    /// Its public keys, as JSON (RFC 7517 §5), if it signs assertions.
    pub jwks: Option<String>,
    pub grant_types: Vec<String>,
}

/// Why a document is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error("is larger than 5 KiB")]
    TooLarge,
    #[error("cannot be read: {0}")]
    Unreadable(#[from] Unreadable),
    #[error("does not have its own URL as `client_id`")]
    OtherClient,
    #[error("has no `client_name`")]
    NoName,
    #[error("has no `redirect_uris`")]
    NoRedirectUris,
    #[error("contains `{0}`, but anyone can read the document: clients with a document cannot have a secret")]
    Secret(String),
    #[error("must use an authentication method that needs no secret: `none` or `private_key_jwt`")]
    AuthMethod,
    #[error("refers to keys at another URL; include them in the document as `jwks`")]
    KeysElsewhere,
    #[error("has `jwks` that are not a set of public keys")]
    Keys,
    #[error("cannot be registered as a client: {0}")]
    Metadata(Cow<'static, str>),
}

impl DocumentError {
    /// The keyword for it in the audit log.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Unreadable(Unreadable::Duplicate(_)) => "duplicate_member",
            Self::Unreadable(_) => "not_json",
            Self::OtherClient => "other_client_id",
            Self::NoName => "no_client_name",
            Self::NoRedirectUris => "no_redirect_uris",
            Self::Secret(_) => "holds_a_secret",
            Self::AuthMethod => "auth_method",
            Self::KeysElsewhere => "keys_elsewhere",
            Self::Keys => "keys",
            Self::Metadata(_) => "client_metadata",
        }
    }
}

impl Document {
    /// Reads a document (CIMD-04).
    ///
    /// # Errors
    /// See [`DocumentError`].
    pub(crate) fn parse(url: &DocumentUrl, body: &[u8]) -> Result<Self, DocumentError> {
        use DocumentError as E;
        if body.len() > LARGEST {
            return Err(E::TooLarge);
        }
        let mut members = json::object(body)?;
        // Simple string comparison, as §4.1 says.
        if members.get("client_id").and_then(Value::as_str) != Some(url.as_str()) {
            return Err(E::OtherClient);
        }
        if let Some(secret) = members.keys().find(|name| name.starts_with("client_secret")) {
            return Err(E::Secret(secret.clone()));
        }
        if members.get("redirect_uris").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            return Err(E::NoRedirectUris);
        }
        let (auth_method, jwks) = authentication(&members)?;
        // The rest is parsed as a registration; the authentication method was chosen above.
        members.insert("token_endpoint_auth_method".to_owned(), "none".into());
        members.retain(|name, _| !["jwks", "jwks_uri"].contains(&name.as_str()));
        let valid = Metadata::validate(&members).map_err(|refused| E::Metadata(refused.description))?;
        if members.get("client_name").and_then(Value::as_str).is_none_or(|name| clean(name).is_empty()) {
            return Err(E::NoName);
        }
        Ok(Self {
            name: valid.name,
            redirect_uris: valid.redirect_uris,
            auth_method,
            jwks,
            grant_types: valid.grant_types,
        })
    }

    /// The client that the document describes.
    pub(crate) fn client(&self, url: &DocumentUrl, source: Source) -> Client {
        Client {
            id: url.id().clone(),
            name: self.name.clone(),
            source,
            trust: Trust::Known,
            auth_method: self.auth_method,
            auth_defaulted: false,
            jwks: self.jwks.clone(),
            grant_types: self.grant_types.clone(),
            redirect_uris: self.redirect_uris.clone(),
            scope: Scope::empty(),
            disabled: false,
        }
    }
}

/// Chooses the authentication method from those the document offers (§6.2): the strongest that this server
/// supports.
fn authentication(members: &Map<String, Value>) -> Result<(AuthMethod, Option<String>), DocumentError> {
    use DocumentError as E;
    let offered = match (
        members.get("token_endpoint_auth_method"),
        members.get("token_endpoint_auth_methods_supported"),
    ) {
        (None | Some(Value::Null), None | Some(Value::Null)) => return Ok((AuthMethod::None, None)),
        (one, many) => {
            let one = one.into_iter().filter(|v| !v.is_null());
            let many = many.and_then(Value::as_array).into_iter().flatten();
            one.chain(many).map(|v| v.as_str().ok_or(E::AuthMethod)).collect::<Result<Vec<_>, _>>()?
        }
    };
    if offered.iter().any(|method| method.starts_with("client_secret")) {
        return Err(E::AuthMethod);
    }
    let has = |method: AuthMethod| offered.contains(&method.as_str());
    let inline = members.get("jwks").filter(|jwks| !jwks.is_null());
    match inline {
        Some(jwks) if has(AuthMethod::PrivateKeyJwt) => Ok((AuthMethod::PrivateKeyJwt, Some(keys(jwks)?))),
        _ if has(AuthMethod::None) => Ok((AuthMethod::None, None)),
        _ if has(AuthMethod::PrivateKeyJwt) => Err(E::KeysElsewhere),
        _ => Err(E::AuthMethod),
    }
}

/// Parses a JWK set (RFC 7517 §5). Private keys in it are refused.
fn keys(jwks: &Value) -> Result<String, DocumentError> {
    ClientKeys::parse(jwks).map(|keys| keys.to_json().to_string()).map_err(|_| DocumentError::Keys)
}

/// Fetches a document for an administrator, who gets the detailed error.
///
/// # Errors
/// Why it could not be fetched, in words.
pub async fn fetch_for_administrator(cimd: &Cimd, url: &str) -> Result<String, String> {
    let url = DocumentUrl::parse(url).map_err(|why| format!("`{url}` is not a valid client ID: it {why}"))?;
    let allowed = cimd.allowed(&url).ok_or_else(|| {
        format!(
            "{} is not in the list of hosts to fetch documents from; add it to [[cimd.allow]], with `mode = \"fetch\"`, or import the document as a file",
            url.authority()
        )
    })?;
    let fetched = fetch::fetch(allowed, &url).await.map_err(|why| why.to_string())?;
    String::from_utf8(fetched.body).map_err(|_| "the document is not UTF-8 text".to_owned())
}

#[cfg(test)]
mod tests;
