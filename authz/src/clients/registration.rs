//! Dynamic client registration (RFC 7591): open, for public clients.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};
use shared::audit::{self, Event, Name};
use shared::{ClientId, Fault, RedirectUri, Request, Scope, Tx};

use super::names;
use crate::Authz;
use crate::error::{Code, OAuthError, no_store};
use crate::form::has_media_type;
use crate::store::clients::{self, AuthMethod, Client, Registration, Source, Trust};
use crate::visible::clean;

/// Never-approved clients vanish after this time (DCR-11).
const UNUSED: Duration = Duration::from_hours(24);
/// How many clients may wait for a first approval; beyond it the oldest makes room (DCR-12).
const MOST_UNUSED: u32 = 1000;
/// DCR-04
const MOST_ITEMS: usize = 10;
const LONGEST_TEXT: usize = 256;
/// Grant types that this server has.
const GRANT_TYPES: [&str; 2] = ["authorization_code", "refresh_token"];

/// `POST /register`.
pub(crate) async fn post(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match register(&authz, request, &headers, &body).await {
        Ok(metadata) => {
            let mut response = (StatusCode::CREATED, Json(metadata)).into_response();
            no_store(&mut response);
            response
        }
        Err(error) => error.into_response(),
    }
}

async fn register(
    authz: &Authz,
    request: Request,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Value, OAuthError> {
    if !has_media_type(headers, "application/json") {
        return Err(bad("send application/json"));
    }
    let asked: Map<String, Value> =
        serde_json::from_slice(body).map_err(|_| bad("the body is not a JSON object"))?;
    let valid = Metadata::validate(&asked)?;
    let (authz, db) = (authz.clone(), authz.db.clone());
    let stored = db.write(move |tx| match names::taken(&authz.issuer, tx, &valid.name, |_, _| false)? {
        None => store(tx, valid, &request).map(Ok),
        Some(_) => Ok(Err(bad("client_name is that of this server or of a verified client"))),
    });
    stored.await?
}

fn bad(description: &'static str) -> OAuthError {
    OAuthError::new(Code::InvalidClientMetadata, description)
}

/// Client metadata that may be stored: what registers, authorizes.
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) redirect_uris: Vec<RedirectUri>,
    pub(super) grant_types: Vec<String>,
    pub(super) application_type: &'static str,
    /// Members that are stored and shown, and decide nothing.
    informative: Map<String, Value>,
}

impl Metadata {
    pub(super) fn validate(asked: &Map<String, Value>) -> Result<Self, OAuthError> {
        if asked.contains_key("software_statement") {
            return Err(OAuthError::new(
                Code::InvalidSoftwareStatement,
                "software statements are not accepted",
            ));
        }
        match text(asked, "token_endpoint_auth_method")? {
            None | Some("none") => {}
            Some(_) => {
                return Err(bad("this server registers public clients: token_endpoint_auth_method=none"));
            }
        }
        let response_types = list(asked, "response_types")?.unwrap_or_else(|| vec!["code".to_owned()]);
        if !response_types.iter().any(|t| t == "code") {
            return Err(bad("response_types must include code"));
        }
        // Unsupported grant types are dropped, not refused: vendors list what other servers have.
        let mut grant_types =
            list(asked, "grant_types")?.unwrap_or_else(|| vec!["authorization_code".to_owned()]);
        grant_types.retain(|g| GRANT_TYPES.contains(&g.as_str()));
        grant_types.dedup();
        if !grant_types.iter().any(|g| g == "authorization_code") {
            return Err(bad("grant_types must include authorization_code"));
        }
        let redirect_uris = redirect_uris(asked)?;
        let application_type = application_type(asked, &redirect_uris)?;
        let mut informative = Map::new();
        for member in ["client_uri", "logo_uri", "tos_uri", "policy_uri"] {
            if let Some(uri) = text(asked, member)? {
                if !uri.starts_with("https://") {
                    return Err(bad("informational URIs must be https"));
                }
                informative.insert(member.to_owned(), uri.into());
            }
        }
        for member in ["software_id", "software_version"] {
            if let Some(value) = text(asked, member)? {
                informative.insert(member.to_owned(), clean(value).into());
            }
        }
        if let Some(contacts) = list(asked, "contacts")? {
            informative.insert("contacts".to_owned(), contacts.iter().map(|c| clean(c)).collect());
        }
        if let Some(scope) = text(asked, "scope")? {
            // Informative, never a ceiling: clients register the first challenge's scope (DCR-07).
            let scope: Scope = scope.parse().map_err(|_| bad("scope is malformed"))?;
            informative.insert("scope".to_owned(), scope.to_string().into());
        }
        let name = text(asked, "client_name")?.map(clean).filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| "Unnamed application".to_owned());
        if names::is_ours(&name) {
            return Err(bad("client_name is this server's own name"));
        }
        Ok(Self { name, redirect_uris, grant_types, application_type, informative })
    }

    fn response(&self, id: &ClientId, issued_at: i64) -> Value {
        let mut members = self.informative.clone();
        members.extend([
            ("client_id".to_owned(), id.as_str().into()),
            ("client_id_issued_at".to_owned(), issued_at.into()),
            ("client_name".to_owned(), self.name.as_str().into()),
            ("redirect_uris".to_owned(), self.redirect_uris.iter().map(RedirectUri::as_str).collect()),
            ("grant_types".to_owned(), self.grant_types.iter().map(String::as_str).collect()),
            ("response_types".to_owned(), json!(["code"])),
            ("token_endpoint_auth_method".to_owned(), "none".into()),
            ("application_type".to_owned(), self.application_type.into()),
        ]);
        Value::Object(members)
    }
}

fn redirect_uris(asked: &Map<String, Value>) -> Result<Vec<RedirectUri>, OAuthError> {
    let given = list(asked, "redirect_uris")?.unwrap_or_default();
    let invalid = |description| OAuthError::new(Code::InvalidRedirectUri, description);
    let mut uris = Vec::with_capacity(given.len());
    for uri in given {
        let uri = RedirectUri::parse(&uri).map_err(|why| {
            tracing::info!(client.redirect_uri.error = %why, "a registration was refused");
            invalid("a redirect URI is not https, http to this computer, or an application's own scheme")
        })?;
        if !uris.contains(&uri) {
            uris.push(uri);
        }
    }
    if uris.is_empty() {
        return Err(invalid("at least one redirect URI is needed"));
    }
    Ok(uris)
}

/// REDIR-09
fn application_type(asked: &Map<String, Value>, uris: &[RedirectUri]) -> Result<&'static str, OAuthError> {
    let local = uris.iter().any(|uri| uri.target().is_local());
    match text(asked, "application_type")? {
        None => Ok(if local { "native" } else { "web" }),
        Some("native") => Ok("native"),
        Some("web") if local => {
            Err(OAuthError::new(Code::InvalidRedirectUri, "a web application's redirect URIs are https"))
        }
        Some("web") => Ok("web"),
        Some(_) => Err(bad("application_type is native or web")),
    }
}

fn text<'a>(asked: &'a Map<String, Value>, member: &str) -> Result<Option<&'a str>, OAuthError> {
    match asked.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.chars().count() <= LONGEST_TEXT => Ok(Some(text)),
        Some(Value::String(_)) => Err(bad("a value is longer than 256 characters")),
        Some(_) => Err(bad("a member that must be text is not")),
    }
}

fn list(asked: &Map<String, Value>, member: &str) -> Result<Option<Vec<String>>, OAuthError> {
    let items = match asked.get(member) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(items)) if items.len() <= MOST_ITEMS => items,
        Some(Value::Array(_)) => return Err(bad("a list has more than 10 items")),
        Some(_) => return Err(bad("a member that must be a list is not")),
    };
    let strings = items.iter().map(|item| match item {
        // Redirect URIs have a limit of their own (REDIR-03).
        Value::String(text) if text.len() <= 2 * LONGEST_TEXT => Ok(text.clone()),
        Value::String(_) => Err(bad("a value is too long")),
        _ => Err(bad("a list holds something that is not text")),
    });
    strings.collect::<Result<_, _>>().map(Some)
}

fn store(tx: &Tx<'_>, metadata: Metadata, request: &Request) -> Result<Value, Fault> {
    let make_room = clients::count_unused(tx)? >= MOST_UNUSED;
    for gone in clients::expire_unused(tx, tx.now() - UNUSED, make_room)? {
        audit::append(tx, Event::allowed(Name::ClientExpired).by_server().client(&gone))?;
    }
    let id = ClientId::random_dynamic();
    let response = metadata.response(&id, tx.now().seconds());
    let trust = Trust::by_redirect_uris(&metadata.redirect_uris);
    let client = Client {
        id,
        name: metadata.name,
        source: Source::SelfRegistered,
        trust,
        auth_method: AuthMethod::None,
        auth_defaulted: false,
        jwks: None,
        scope: Scope::empty(),
        grant_types: metadata.grant_types,
        redirect_uris: metadata.redirect_uris,
        disabled: false,
    };
    let registration = Registration {
        application_type: metadata.application_type,
        metadata: &response.to_string(),
        fingerprint: None,
        management: None,
    };
    clients::insert(tx, &client, &registration)?;
    let hosts: Vec<String> = client.redirect_uris.iter().map(RedirectUri::host_for_people).collect();
    audit::append(
        tx,
        Event::allowed(Name::ClientRegistered)
            .client(&client.id)
            .subject(&client.name)
            .request(request)
            .detail("source", client.source.as_str())
            .detail("redirect_hosts", hosts),
    )?;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validate(value: &Value) -> Result<Metadata, OAuthError> {
        Metadata::validate(value.as_object().unwrap())
    }

    /// DCR-04, DCR-05, REDIR-09
    #[test]
    fn what_cannot_be_registered() {
        let good = json!({"redirect_uris": ["http://localhost/callback"]});
        assert!(validate(&good).is_ok());
        for (member, value, code) in [
            ("redirect_uris", json!([]), Code::InvalidRedirectUri),
            ("redirect_uris", json!(["http://evil.example/"]), Code::InvalidRedirectUri),
            ("redirect_uris", json!(["http://localhost/", "javascript:alert(1)"]), Code::InvalidRedirectUri),
            ("redirect_uris", json!("http://localhost/"), Code::InvalidClientMetadata),
            ("redirect_uris", json!([7]), Code::InvalidClientMetadata),
            ("redirect_uris", json!(vec!["http://localhost/"; 11]), Code::InvalidClientMetadata),
            ("application_type", json!("web"), Code::InvalidRedirectUri),
            ("application_type", json!("robot"), Code::InvalidClientMetadata),
            ("grant_types", json!(["refresh_token"]), Code::InvalidClientMetadata),
            ("grant_types", json!(["password"]), Code::InvalidClientMetadata),
            ("response_types", json!(["token"]), Code::InvalidClientMetadata),
            ("token_endpoint_auth_method", json!("client_secret_jwt"), Code::InvalidClientMetadata),
            ("client_uri", json!("http://a.example"), Code::InvalidClientMetadata),
            ("client_uri", json!("javascript:alert(1)"), Code::InvalidClientMetadata),
            ("client_name", json!("x".repeat(257)), Code::InvalidClientMetadata),
            ("client_name", json!({}), Code::InvalidClientMetadata),
            ("client_name", json!("Portcullis"), Code::InvalidClientMetadata),
            ("client_name", json!("P\u{ad}\u{ff4f}RT cullis!"), Code::InvalidClientMetadata),
            ("scope", json!("a\"b"), Code::InvalidClientMetadata),
            ("software_statement", json!("x"), Code::InvalidSoftwareStatement),
        ] {
            let mut asked = good.clone();
            asked[member] = value.clone();
            assert_eq!(validate(&asked).err().map(|e| e.code), Some(code), "{member} {value}");
        }
    }

    /// DCR-08: a client is known by the redirect URIs that it can use without an administrator.
    #[test]
    fn trust_follows_the_usable_redirect_uris() {
        let trust = |uris: Value| {
            Trust::by_redirect_uris(&validate(&json!({ "redirect_uris": uris })).unwrap().redirect_uris)
        };
        assert_eq!(trust(json!(["http://127.0.0.1/", "cursor://x/cb"])), Trust::Known);
        assert_eq!(trust(json!(["http://127.0.0.1/", "https://vscode.dev/redirect"])), Trust::Known);
        assert_eq!(trust(json!(["https://a.example/cb"])), Trust::Unverified);
        assert_eq!(trust(json!(["com.example.app:/cb"])), Trust::Unverified);
    }

    /// clients.md: vendors register grant types that this server does not have.
    #[test]
    fn unsupported_grant_types_are_dropped() {
        let valid = validate(&json!({
            "redirect_uris": ["http://localhost/"],
            "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
        }));
        assert_eq!(valid.unwrap().grant_types, ["authorization_code", "refresh_token"]);
    }
}
