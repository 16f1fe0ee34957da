//! Client metadata (RFC 7591 §2), parsed the same way for registrations, their later changes, and documents. A
//! redirect URI that can be registered can also be used.

use keys::ClientKeys;
use serde_json::{Map, Value, json};
use shared::{ClientId, RedirectUri, Scope};
use url::Url;

use super::names;
use crate::error::{Code, OAuthError};
use crate::grants::GrantType;
use crate::store::clients::AuthMethod;
use crate::visible::clean;

/// The most items in an array (DCR-04).
const MOST_ITEMS: usize = 10;
const LONGEST_TEXT: usize = 256;
/// The longest scope, in bytes. All of `scopes_supported` must fit.
const LONGEST_SCOPE: usize = 4096;
/// The name of a client that registered none.
const UNNAMED: &str = "Unnamed application";

/// Client metadata that may be stored.
#[derive(Clone, Debug)]
pub(crate) struct Metadata {
    pub name: String,
    pub redirect_uris: Vec<RedirectUri>,
    pub grant_types: Vec<String>,
    pub application_type: &'static str,
    pub auth_method: AuthMethod,
    /// The client named no authentication method (CAUTH-01).
    pub auth_defaulted: bool,
    /// Its public keys (RFC 7517 §5).
    pub jwks: Option<Value>,
    /// Members that are stored and shown but change nothing.
    informative: Map<String, Value>,
}

fn bad(description: &'static str) -> OAuthError {
    OAuthError::new(Code::InvalidClientMetadata, description)
}

impl Metadata {
    /// Checks client metadata. Unknown members are ignored (DCR-03), and unusable informative members are
    /// dropped. The registration response shows what was kept.
    ///
    /// # Errors
    /// The first member that cannot be accepted (DCR-04).
    pub(crate) fn validate(asked: &Map<String, Value>) -> Result<Self, OAuthError> {
        if given(asked, "software_statement").is_some() {
            let description = "software statements are not accepted";
            return Err(OAuthError::new(Code::InvalidSoftwareStatement, description));
        }
        let (auth_method, auth_defaulted) = auth_method(asked)?;
        let jwks = jwks(asked, auth_method)?;
        let response_types = list(asked, "response_types")?;
        if response_types.is_some_and(|types| !types.iter().any(|t| t == "code")) {
            return Err(bad("response_types must include code"));
        }
        let grant_types = grant_types(asked)?;
        let redirect_uris = redirect_uris(asked)?;
        let application_type = application_type(asked, &redirect_uris)?;
        let mut informative = informative(asked);
        informative.extend(decides_nothing(asked)?);
        let name = text(asked, "client_name")?.map(clean).filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| UNNAMED.to_owned());
        if names::is_ours(&name) {
            return Err(bad("client_name is this server's own name"));
        }
        Ok(Self {
            name,
            redirect_uris,
            grant_types,
            application_type,
            auth_method,
            auth_defaulted,
            jwks,
            informative,
        })
    }

    /// The metadata as stored and shown (RFC 7591 §3.2.1), without secrets.
    pub(crate) fn registered(&self, id: &ClientId, issued_at: i64) -> Map<String, Value> {
        let mut members = self.members();
        members.insert("client_id".to_owned(), id.as_str().into());
        members.insert("client_id_issued_at".to_owned(), issued_at.into());
        members
    }

    /// All registered members, as they were understood.
    pub(crate) fn members(&self) -> Map<String, Value> {
        let mut members = self.informative.clone();
        members.extend([
            ("client_name".to_owned(), self.name.as_str().into()),
            ("redirect_uris".to_owned(), self.redirect_uris.iter().map(RedirectUri::as_str).collect()),
            ("grant_types".to_owned(), self.grant_types.iter().map(String::as_str).collect()),
            ("response_types".to_owned(), json!(["code"])),
            ("token_endpoint_auth_method".to_owned(), self.auth_method.as_str().into()),
            ("application_type".to_owned(), self.application_type.into()),
        ]);
        members.extend(self.jwks.iter().map(|jwks| ("jwks".to_owned(), jwks.clone())));
        members
    }
}

/// RFC 7591 §2: "If unspecified or omitted, the default is "client_secret_basic"" (DCR-06).
fn auth_method(asked: &Map<String, Value>) -> Result<(AuthMethod, bool), OAuthError> {
    match text(asked, "token_endpoint_auth_method")? {
        None => Ok((AuthMethod::ClientSecretBasic, true)),
        Some(name) => AuthMethod::parse(name).map(|method| (method, false)).ok_or_else(|| {
            bad("token_endpoint_auth_method must be none, client_secret_basic, client_secret_post or private_key_jwt")
        }),
    }
}

/// The public keys. They must be in the registration itself: `jwks_uri` is never fetched (CAUTH-06, DCR-04).
fn jwks(asked: &Map<String, Value>, method: AuthMethod) -> Result<Option<Value>, OAuthError> {
    if given(asked, "jwks_uri").is_some() {
        return Err(bad("jwks_uri is not supported: send the public keys as jwks"));
    }
    let set = given(asked, "jwks").map(ClientKeys::parse).transpose();
    let set = set.map_err(|why| {
        tracing::info!(client.jwks.error = %why, "client metadata was refused");
        bad("jwks must be a set of 1 to 10 public keys, at least one of them for ES256, EdDSA, RS256 or PS256")
    })?;
    if method == AuthMethod::PrivateKeyJwt && set.is_none() {
        return Err(bad("private_key_jwt needs jwks, the client's public keys"));
    }
    Ok(set.map(|keys| keys.to_json()))
}

/// Unsupported grant types are dropped, not refused: many clients list grant types of other servers.
fn grant_types(asked: &Map<String, Value>) -> Result<Vec<String>, OAuthError> {
    let given =
        list(asked, "grant_types")?.unwrap_or_else(|| vec![GrantType::AuthorizationCode.name().to_owned()]);
    let supported = GrantType::ALL.into_iter().filter(|grant_type| grant_type.is_for_everybody());
    let supported = supported.map(GrantType::name).filter(|name| given.iter().any(|given| given == name));
    let grant_types: Vec<String> = supported.map(str::to_owned).collect();
    if !grant_types.iter().any(|name| name == GrantType::AuthorizationCode.name()) {
        return Err(bad("grant_types must include authorization_code"));
    }
    Ok(grant_types)
}

/// DCR-05: a dangerous URI refuses the whole request. An unsupported one is left out, as long as another
/// remains.
fn redirect_uris(asked: &Map<String, Value>) -> Result<Vec<RedirectUri>, OAuthError> {
    let given = list(asked, "redirect_uris")?.unwrap_or_default();
    let invalid = |description| OAuthError::new(Code::InvalidRedirectUri, description);
    let mut uris = Vec::with_capacity(given.len());
    for text in given {
        match RedirectUri::parse(&text) {
            Ok(uri) if uris.contains(&uri) => {}
            Ok(uri) => uris.push(uri),
            Err(why) if why.is_merely_unsupported() => {}
            Err(why) => {
                tracing::info!(client.redirect_uri.error = %why, "client metadata was refused");
                return Err(invalid(
                    "a redirect URI must be https, http to the local computer, or an application's own scheme",
                ));
            }
        }
    }
    if uris.is_empty() {
        return Err(invalid("at least one redirect URI must be usable on this server"));
    }
    Ok(uris)
}

/// REDIR-09: the application type follows from the redirect URIs.
fn application_type(asked: &Map<String, Value>, uris: &[RedirectUri]) -> Result<&'static str, OAuthError> {
    let local = uris.iter().any(|uri| uri.target().is_local());
    match text(asked, "application_type")? {
        None => Ok(if local { "native" } else { "web" }),
        Some("native") => Ok("native"),
        Some("web") if local => {
            Err(OAuthError::new(Code::InvalidRedirectUri, "redirect URIs of a web application must be https"))
        }
        Some("web") => Ok("web"),
        Some(_) => Err(bad("application_type must be native or web")),
    }
}

/// A member that has a value. Programs that serialise a settings struct send `""` or `null` for unset members.
fn given<'a>(asked: &'a Map<String, Value>, member: &str) -> Option<&'a Value> {
    asked.get(member).filter(|value| !value.is_null() && value.as_str() != Some(""))
}

/// Members that are only shown to people. An unusable one, such as a home page on loopback or a logo in a
/// `data:` URL, is dropped: it is never a reason to refuse a client (DCR-04).
fn informative(asked: &Map<String, Value>) -> Map<String, Value> {
    let short = |value: &Value| value.as_str().is_some_and(|text| text.chars().count() <= LONGEST_TEXT);
    let usable = |member: &str| asked.get(member).filter(|value| short(value)).and_then(Value::as_str);
    let mut members = Map::new();
    for member in ["client_uri", "logo_uri", "tos_uri", "policy_uri"] {
        if let Some(uri) = usable(member).filter(|uri| is_web_address(uri)) {
            members.insert(member.to_owned(), uri.into());
        }
    }
    for member in ["software_id", "software_version"] {
        if let Some(text) = usable(member).map(clean).filter(|text| !text.is_empty()) {
            members.insert(member.to_owned(), text.into());
        }
    }
    let contacts = asked.get("contacts").and_then(Value::as_array).into_iter().flatten();
    let contacts = contacts.filter(|contact| short(contact)).filter_map(Value::as_str).map(clean);
    let contacts: Vec<String> = contacts.filter(|contact| !contact.is_empty()).take(MOST_ITEMS).collect();
    if !contacts.is_empty() {
        members.insert("contacts".to_owned(), contacts.into());
    }
    members
}

/// Protocol members that are stored but change nothing.
fn decides_nothing(asked: &Map<String, Value>) -> Result<Map<String, Value>, OAuthError> {
    let mut members = Map::new();
    match given(asked, "scope") {
        None => {}
        Some(Value::String(scope)) if scope.len() <= LONGEST_SCOPE => {
            // The registered scope is not a ceiling: clients register the scope of the first challenge
            // (DCR-07).
            let scope: Scope = scope.parse().map_err(|_| bad("scope is malformed"))?;
            // A scope of spaces only is empty.
            if !scope.is_empty() {
                members.insert("scope".to_owned(), scope.to_string().into());
            }
        }
        Some(Value::String(_)) => return Err(bad("scope is longer than 4096 bytes")),
        Some(_) => return Err(bad("a member that must be a string is not a string")),
    }
    match asked.get("dpop_bound_access_tokens") {
        None | Some(Value::Null) => {}
        // RFC 7591 §3.2.1 allows a registration to differ from the request, and the response shows the result.
        // This server does not bind tokens to keys (RFC 9449).
        Some(Value::Bool(_)) => {
            members.insert("dpop_bound_access_tokens".to_owned(), false.into());
        }
        Some(_) => return Err(bad("dpop_bound_access_tokens must be true or false")),
    }
    Ok(members)
}

/// CONSENT-02: whether a URL may be shown as a link.
fn is_web_address(text: &str) -> bool {
    let plain = text.starts_with("https://") && text.bytes().all(|b| b.is_ascii_graphic());
    plain && Url::parse(text).is_ok_and(|url| url.username().is_empty() && url.password().is_none())
}

fn text<'a>(asked: &'a Map<String, Value>, member: &str) -> Result<Option<&'a str>, OAuthError> {
    match asked.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.chars().count() <= LONGEST_TEXT => Ok(Some(text)),
        Some(Value::String(_)) => Err(bad("a value is longer than 256 characters")),
        Some(_) => Err(bad("a member that must be a string is not a string")),
    }
}

fn list(asked: &Map<String, Value>, member: &str) -> Result<Option<Vec<String>>, OAuthError> {
    let items = match asked.get(member) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(items)) if items.len() <= MOST_ITEMS => items,
        Some(Value::Array(_)) => return Err(bad("a list has more than 10 items")),
        Some(_) => return Err(bad("a member that must be an array is not an array")),
    };
    // Redirect URIs have their own limit (REDIR-03).
    let fits = |text: &str| member == "redirect_uris" || text.chars().count() <= LONGEST_TEXT;
    let strings = items.iter().map(|item| match item {
        Value::String(text) if fits(text) => Ok(text.clone()),
        Value::String(_) => Err(bad("a value is longer than 256 characters")),
        _ => Err(bad("an array contains an element that is not a string")),
    });
    strings.collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests;
