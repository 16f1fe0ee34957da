//! Clients that an administrator adds (RFC 6749 §2). A description is checked the same way for commands and for
//! `portcullis.toml`.

use keys::ClientKeys;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::audit::Event;
use shared::redirect_uri::RedirectUriError;
use shared::{ClientId, Fault, RedirectUri, Scope, Tx};

use super::names;
use super::redirects::Redirects;
use crate::grants::GrantType;
use crate::store::clients::{self, AuthMethod, Client, Registration, Source, Trust};
use crate::visible;

/// The most redirect URIs of one client.
const MOST_REDIRECT_URIS: usize = 32;
const LONGEST_NAME: usize = 64;

/// An administrator's description of a client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Description {
    /// The name on the consent page.
    pub name: String,
    pub redirect_uris: Vec<String>,
    pub authentication: Authentication,
    /// Grant types; if empty, they follow from the other fields. `device_code` is short for its URN.
    pub grants: Vec<String>,
    /// It may use the device authorization grant (RFC 8628).
    pub device: bool,
    /// The scope that it may have in its own name (CC-01).
    pub scope: Scope,
}

/// What is to change of a client; the rest stays.
#[derive(Clone, Default, Debug)]
pub struct Changes {
    /// The name on the consent page.
    pub name: Option<String>,
    /// All redirect URIs, in place of the present ones; empty leaves them.
    pub redirect_uris: Vec<String>,
}

/// How a client authenticates.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Authentication {
    /// Not at all: a public client, which cannot keep a secret.
    Public,
    /// By a secret, in the header or in the form.
    Secret,
    /// By a signature that one of these public keys verifies: a JWK set (RFC 7517 §5), as JSON.
    Keys(String),
}

/// What is wrong with a description: one line of text without a full stop.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Mistake {
    #[error(
        "`{0}` is not a valid client name: use 1 to 64 visible characters, and do not start with c_, dyn_ or https:"
    )]
    Name(String),
    #[error("the redirect URI `{0}` {1}")]
    RedirectUri(String, RedirectUriError),
    #[error("there are more than 32 redirect URIs")]
    TooManyRedirectUris,
    #[error("unknown grant type `{0}`; use {all}", all = GrantType::alternatives())]
    Grant(String),
    #[error(
        "it would have no use: give it a redirect URI to sign people in, the device grant for terminals without a browser, or a scope of its own"
    )]
    Nothing,
    #[error("authorization_code needs a redirect URI")]
    CodeWithoutRedirectUri,
    #[error("redirect URIs are for authorization_code, which is not among its grants")]
    RedirectUriWithoutCode,
    #[error(
        "refresh_token works only with authorization_code or device_code, and neither is among its grants"
    )]
    NothingToRefresh,
    #[error("client_credentials needs a scope: what the client may have in its own name")]
    NoScope,
    #[error(
        "a scope is what the client may have in its own name, for client_credentials, which is not among its grants; what people grant it needs none"
    )]
    ScopeWithoutCredentials,
    #[error("its keys are not a valid JWK set: {0}")]
    Keys(String),
    #[error("client_credentials needs a client that can prove who it is: give it a secret or keys")]
    PublicCredentials,
}

/// A client that may be added.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Preregistered {
    pub(super) name: String,
    pub(super) redirect_uris: Vec<RedirectUri>,
    pub(super) auth_method: AuthMethod,
    pub(super) jwks: Option<String>,
    /// Sorted.
    pub(super) grant_types: Vec<String>,
    pub(super) scope: Scope,
}

impl Preregistered {
    /// Checks a description.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn new(description: &Description) -> Result<Self, Mistake> {
        let name = name(&description.name).ok_or_else(|| Mistake::Name(description.name.clone()))?;
        let redirect_uris = redirect_uris(&description.redirect_uris)?;
        let grant_types = grant_types(description, !redirect_uris.is_empty())?;
        let (auth_method, jwks) = match &description.authentication {
            Authentication::Public => (AuthMethod::None, None),
            Authentication::Secret => (AuthMethod::ClientSecretBasic, None),
            Authentication::Keys(set) => (AuthMethod::PrivateKeyJwt, Some(keys(set)?)),
        };
        if auth_method == AuthMethod::None && grant_types.contains(&GrantType::ClientCredentials) {
            return Err(Mistake::PublicCredentials);
        }
        Ok(Self {
            name,
            redirect_uris,
            auth_method,
            jwks,
            grant_types: grant_types.into_iter().map(|grant| grant.name().to_owned()).collect(),
            scope: description.scope.clone(),
        })
    }

    /// The client as an administrator wants it changed. How it authenticates and what it may come with stay.
    ///
    /// # Errors
    /// The first mistake in the changes.
    pub(super) fn revised(client: &Client, changes: &Changes) -> Result<Self, Mistake> {
        let name = match &changes.name {
            Some(text) => name(text).ok_or_else(|| Mistake::Name(text.clone()))?,
            None => client.name.clone(),
        };
        let redirect_uris = if changes.redirect_uris.is_empty() {
            client.redirect_uris.clone()
        } else {
            redirect_uris(&changes.redirect_uris)?
        };
        if !redirect_uris.is_empty() && !client.has_grant(GrantType::AuthorizationCode.name()) {
            return Err(Mistake::RedirectUriWithoutCode);
        }
        Ok(Self {
            name,
            redirect_uris,
            auth_method: client.auth_method,
            jwks: client.jwks.clone(),
            grant_types: client.grant_types.clone(),
            scope: client.scope.clone(),
        })
    }

    /// Checks that the site lists the schemes that any program can claim (REDIR-05).
    ///
    /// # Errors
    /// The first redirect URI with another one.
    pub(super) fn check_schemes(&self, redirects: &Redirects) -> Result<(), String> {
        let unlisted = self.redirect_uris.iter().find(|uri| !redirects.admit(uri));
        unlisted.map_or(Ok(()), |uri| Err(uri.to_string()))
    }

    /// Adds to the record of a change what the client was before and is now (AUDIT-08).
    pub(super) fn on_record(&self, event: Event, before: &Client) -> Event {
        let texts = |uris: &[RedirectUri]| uris.iter().map(ToString::to_string).collect::<Vec<_>>();
        let state = |name: &str, uris: &[RedirectUri]| json!({ "name": name, "redirect_uris": texts(uris) });
        event
            .detail("before", state(&before.name, &before.redirect_uris))
            .detail("after", state(&self.name, &self.redirect_uris))
    }

    /// REDIR-09: the application type follows from the redirect URIs.
    fn application_type(&self) -> &'static str {
        if self.redirect_uris.iter().any(|uri| uri.target().is_local()) { "native" } else { "web" }
    }

    /// The client. One that an administrator adds is verified (DCR-08).
    pub(super) fn client(&self, id: ClientId, source: Source) -> Client {
        Client {
            id,
            name: self.name.clone(),
            source,
            trust: Trust::Verified,
            auth_method: self.auth_method,
            // The administrator chose "a secret" and not how it is sent, so both ways are accepted (CAUTH-01).
            auth_defaulted: self.auth_method == AuthMethod::ClientSecretBasic,
            jwks: self.jwks.clone(),
            grant_types: self.grant_types.clone(),
            redirect_uris: self.redirect_uris.clone(),
            scope: self.scope.clone(),
            disabled: false,
        }
    }

    /// Adds the client.
    pub(super) fn insert(&self, tx: &Tx<'_>, id: ClientId, source: Source) -> Result<Client, Fault> {
        let client = self.client(id, source);
        let metadata = self.metadata(&client.id, tx.now().seconds()).to_string();
        let registration = Registration {
            application_type: self.application_type(),
            metadata: &metadata,
            fingerprint: None,
            management: None,
            holder: None,
        };
        clients::insert(tx, &client, &registration)?;
        Ok(client)
    }

    /// The members that differ from the stored client, by their names in RFC 7591 §2.
    pub(super) fn differences(&self, client: &Client) -> Vec<&'static str> {
        let wanted = self.client(client.id.clone(), client.source);
        let value =
            |jwks: &Option<String>| jwks.as_deref().map(serde_json::from_str::<Value>).map(Result::ok);
        [
            ("client_name", wanted.name != client.name),
            ("redirect_uris", wanted.redirect_uris != client.redirect_uris),
            ("token_endpoint_auth_method", wanted.auth_method != client.auth_method),
            ("jwks", value(&wanted.jwks) != value(&client.jwks)),
            ("grant_types", wanted.grant_types != client.grant_types),
            ("scope", wanted.scope != client.scope),
        ]
        .into_iter()
        .filter_map(|(field, differs)| differs.then_some(field))
        .collect()
    }

    /// Changes the stored client to match this description.
    pub(super) fn replace(&self, tx: &Tx<'_>, client: &Client) -> Result<(), Fault> {
        let wanted = self.client(client.id.clone(), client.source);
        let metadata = self.metadata(&client.id, clients::created_at(tx, &client.id)?.seconds()).to_string();
        let registration = Registration {
            application_type: self.application_type(),
            metadata: &metadata,
            fingerprint: None,
            management: None,
            holder: None,
        };
        clients::replace(tx, &wanted, &registration)
    }

    /// The name on the consent page.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its redirect URIs.
    pub fn redirect_uris(&self) -> impl Iterator<Item = &str> {
        self.redirect_uris.iter().map(RedirectUri::as_str)
    }

    /// Its authentication method (`token_endpoint_auth_method`).
    pub fn auth_method(&self) -> &'static str {
        self.auth_method.as_str()
    }

    /// The grant types that it may use at the token endpoint.
    pub fn grant_types(&self) -> &[String] {
        &self.grant_types
    }

    /// The scope that it may have in its own name.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Whether its name looks like the name of this product (DCR-13).
    pub fn is_named_like_us(&self) -> bool {
        names::is_ours(&self.name)
    }

    /// The metadata that a registration would have answered with (RFC 7591 §3.2.1).
    fn metadata(&self, id: &ClientId, issued_at: i64) -> Value {
        let mut metadata = json!({
            "client_id": id,
            "client_id_issued_at": issued_at,
            "client_name": self.name,
            "redirect_uris": self.redirect_uris,
            "grant_types": self.grant_types,
            "token_endpoint_auth_method": self.auth_method.as_str(),
            "application_type": self.application_type(),
        });
        if self.grant_types.iter().any(|grant| grant == GrantType::AuthorizationCode.name()) {
            metadata["response_types"] = json!(["code"]);
        }
        if let Some(jwks) = self.jwks.as_deref().and_then(|jwks| serde_json::from_str::<Value>(jwks).ok()) {
            metadata["jwks"] = jwks;
        }
        if !self.scope.is_empty() {
            metadata["scope"] = self.scope.to_string().into();
        }
        metadata
    }
}

/// A name as stored (DCR-13); `None` if it cannot be one. Commands accept an id or a name in the same argument,
/// so a name must not look like an id.
fn name(text: &str) -> Option<String> {
    let name = visible::clean(text);
    let is_id = ["c_", "dyn_", "https:"].iter().any(|prefix| name.starts_with(prefix));
    (!name.is_empty() && name.chars().count() <= LONGEST_NAME && !is_id).then_some(name)
}

fn redirect_uris(texts: &[String]) -> Result<Vec<RedirectUri>, Mistake> {
    if texts.len() > MOST_REDIRECT_URIS {
        return Err(Mistake::TooManyRedirectUris);
    }
    let parsed = texts
        .iter()
        .map(|text| RedirectUri::parse(text).map_err(|why| Mistake::RedirectUri(visible::clean(text), why)));
    let mut uris = parsed.collect::<Result<Vec<_>, _>>()?;
    uris.sort();
    uris.dedup();
    Ok(uris)
}

/// A JWK set as stored: only usable public keys (CAUTH-06).
fn keys(text: &str) -> Result<String, Mistake> {
    let set = serde_json::from_str(text).map_err(|_| Mistake::Keys("it is not JSON".to_owned()))?;
    let keys = ClientKeys::parse(&set).map_err(|why| Mistake::Keys(why.to_string()))?;
    Ok(keys.to_json().to_string())
}

/// The named grant types, or those that follow from the description.
fn grant_types(description: &Description, redirects: bool) -> Result<Vec<GrantType>, Mistake> {
    use GrantType::{AuthorizationCode, ClientCredentials, DeviceCode, RefreshToken};
    let mut grants = Vec::new();
    for named in &description.grants {
        let mut known = GrantType::ALL.into_iter();
        let found = known.find(|known| known.name() == named || known.short_name() == named);
        grants.push(found.ok_or_else(|| Mistake::Grant(visible::clean(named)))?);
    }
    let has_scope = !description.scope.is_empty();
    if grants.is_empty() {
        if redirects {
            grants.push(AuthorizationCode);
        }
        if redirects || description.device {
            grants.push(RefreshToken);
        }
        if has_scope {
            grants.push(ClientCredentials);
        }
    }
    if description.device {
        grants.push(DeviceCode);
    }
    grants.sort_unstable_by_key(|grant| grant.name());
    grants.dedup();
    let has = |grant| grants.contains(&grant);
    let mistakes = [
        (grants.is_empty(), Mistake::Nothing),
        (has(AuthorizationCode) && !redirects, Mistake::CodeWithoutRedirectUri),
        (redirects && !has(AuthorizationCode), Mistake::RedirectUriWithoutCode),
        (has(RefreshToken) && !has(AuthorizationCode) && !has(DeviceCode), Mistake::NothingToRefresh),
        (has(ClientCredentials) && !has_scope, Mistake::NoScope),
        (has_scope && !has(ClientCredentials), Mistake::ScopeWithoutCredentials),
    ];
    match mistakes.into_iter().find(|(made, _)| *made) {
        Some((_, mistake)) => Err(mistake),
        None => Ok(grants),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description() -> Description {
        Description {
            name: "CI".to_owned(),
            redirect_uris: vec!["https://ci.example/cb".to_owned()],
            authentication: Authentication::Secret,
            grants: Vec::new(),
            device: false,
            scope: Scope::empty(),
        }
    }

    fn scope() -> Scope {
        "docs.read".parse().unwrap()
    }

    #[test]
    fn grants_follow_from_what_a_client_is_given() {
        let grants = |change: fn(&mut Description)| {
            let mut description = description();
            change(&mut description);
            Preregistered::new(&description).map(|client| client.grant_types.join(" "))
        };
        assert_eq!(grants(|_| {}).unwrap(), "authorization_code refresh_token");
        assert_eq!(
            grants(|d| d.grants = vec!["authorization_code".to_owned()]).unwrap(),
            "authorization_code"
        );
        assert_eq!(
            grants(|d| d.device = true).unwrap(),
            "authorization_code refresh_token urn:ietf:params:oauth:grant-type:device_code"
        );
        let no_redirect = grants(|d| {
            d.redirect_uris.clear();
            d.grants = vec!["device_code".to_owned(), "refresh_token".to_owned()];
        });
        assert_eq!(no_redirect.unwrap(), "refresh_token urn:ietf:params:oauth:grant-type:device_code");
        let own = grants(|d| {
            d.redirect_uris.clear();
            d.scope = scope();
        });
        assert_eq!(own.unwrap(), "client_credentials");
    }

    /// CC-01, REDIR-03, REDIR-04, DCR-13: each of these descriptions is refused.
    #[test]
    fn invalid_clients_cannot_be_added() {
        let refused = |change: &dyn Fn(&mut Description)| {
            let mut description = description();
            change(&mut description);
            Preregistered::new(&description).unwrap_err()
        };
        for name in ["", " ", "\u{200b}", "c_x", "dyn_x", "https://x.example", &"x".repeat(65)] {
            let mistake = refused(&|d| name.clone_into(&mut d.name));
            assert_eq!(mistake, Mistake::Name(name.to_owned()));
        }
        for uri in ["http://a.example/", "javascript:alert(1)", "https://a.example/#x", "app:/x"] {
            let mistake = refused(&|d| d.redirect_uris = vec![uri.to_owned()]);
            assert!(matches!(mistake, Mistake::RedirectUri(named, _) if named == uri));
        }
        let many = |d: &mut Description| {
            d.redirect_uris = (0..33).map(|n| format!("https://a.example/{n}")).collect();
        };
        assert_eq!(refused(&many), Mistake::TooManyRedirectUris);
        let grants = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(refused(&|d| d.grants = grants(&["password"])), Mistake::Grant("password".to_owned()));
        assert_eq!(refused(&|d| d.redirect_uris.clear()), Mistake::Nothing);
        let code = |d: &mut Description| {
            d.redirect_uris.clear();
            d.grants = grants(&["authorization_code"]);
        };
        assert_eq!(refused(&code), Mistake::CodeWithoutRedirectUri);
        assert_eq!(refused(&|d| d.grants = grants(&["device_code"])), Mistake::RedirectUriWithoutCode);
        let refresh = |d: &mut Description| {
            d.redirect_uris.clear();
            d.grants = grants(&["refresh_token"]);
        };
        assert_eq!(refused(&refresh), Mistake::NothingToRefresh);
        let credentials = |d: &mut Description| {
            d.grants = grants(&["authorization_code", "client_credentials"]);
        };
        assert_eq!(refused(&credentials), Mistake::NoScope);
        let scoped = |d: &mut Description| {
            d.grants = grants(&["authorization_code"]);
            d.scope = scope();
        };
        assert_eq!(refused(&scoped), Mistake::ScopeWithoutCredentials);
        let public = |d: &mut Description| {
            d.scope = scope();
            d.authentication = Authentication::Public;
        };
        assert_eq!(refused(&public), Mistake::PublicCredentials);
        let private = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}]}"#;
        for set in ["", "[]", "{}", r#"{"keys":[]}"#, private] {
            let mistake = refused(&|d| d.authentication = Authentication::Keys(set.to_owned()));
            assert!(matches!(mistake, Mistake::Keys(_)), "{set}");
        }
    }

    /// DCR-13: a name is stored as a person sees it.
    #[test]
    fn a_name_is_kept_as_it_is_seen() {
        let named = Description { name: " C\u{202e}I\u{200b} A\u{30a} ".to_owned(), ..description() };
        assert_eq!(Preregistered::new(&named).unwrap().name, "CI \u{c5}");
    }
}
