//! Drives oxide-auth's state machines, which do no I/O; nothing else uses oxide-auth.
//!
//! The machines keep the RFC's order of checks: client and redirect URI before any redirect, client before
//! code, scope never wider than granted. Their callers check the rest: lifetimes (the machines read the system
//! clock, so they are shown grants without an end), exact redirect URIs, error codes, and everything newer than
//! RFC 6749.

use std::borrow::Cow;
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use oxide_auth::code_grant::error::{AccessTokenError, AccessTokenErrorType};
use oxide_auth::code_grant::{accesstoken, authorization, extensions::Pkce, refresh};
use oxide_auth::primitives::grant::{Extensions, Grant, GrantExtension, Value};
use oxide_auth::primitives::registrar::{BoundClient, ExactUrl, PreGrant, RegisteredUrl};
use shared::{RedirectUri, Scope};
use url::Url;

use crate::form::Params;
use crate::store;

/// The decisions of the authorization endpoint, in the order in which the machine asks for them (RFC 6749
/// §4.1.1).
pub(crate) trait Steps {
    /// Why the request stops.
    type Stop;
    /// Finds the client and the redirect URI of the response.
    fn bind(&mut self, client_id: &str, redirect_uri: Option<&str>) -> Result<RedirectUri, Self::Stop>;
    /// Checks everything that newer specifications add.
    fn extend(&mut self) -> Result<(), Self::Stop>;
    /// Narrows the requested scope to what can be granted at all.
    fn negotiate(&mut self, scope: Option<Scope>) -> Result<Scope, Self::Stop>;
    /// Makes the error for the machine's own refusal.
    fn refuse(&mut self, refusal: Refusal) -> Self::Stop;
}

/// A refusal by a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// Unknown client or invalid redirect URI: must not be redirected.
    Unusable,
    UnsupportedResponseType,
    InvalidRequest,
    InvalidGrant,
    InvalidScope,
}

/// Runs an authorization request to the scope that may be granted.
pub(crate) fn authorize<S: Steps>(params: &Params, steps: &mut S) -> Result<Scope, S::Stop> {
    let request = AuthorizationRequest(params);
    let mut machine = authorization::Authorization::new(&request);
    let mut input = authorization::Input::None;
    let mut bound = None;
    loop {
        input = match machine.advance(input) {
            authorization::Output::Bind { client_id, redirect_uri } => {
                let uri = steps.bind(&client_id, redirect_uri.as_ref().map(ExactUrl::as_str))?;
                let Ok(exact) = ExactUrl::new(uri.to_string()) else {
                    return Err(steps.refuse(Refusal::Unusable));
                };
                let client = BoundClient {
                    client_id: Cow::Owned(client_id),
                    redirect_uri: Cow::Owned(RegisteredUrl::Exact(exact)),
                };
                bound = Some(client.clone());
                authorization::Input::Bound { request: &request, bound_client: client }
            }
            authorization::Output::Extend => {
                steps.extend()?;
                authorization::Input::Extended(Extensions::new())
            }
            authorization::Output::Negotiate { bound_client, scope } => {
                // The machine has parsed it, so this cannot fail; it also sorts the scope.
                let asked = scope.map(|scope| scope.iter().collect::<Scope>());
                let scope = steps.negotiate(asked)?;
                let pre_grant = PreGrant {
                    client_id: bound_client.client_id.to_string(),
                    redirect_uri: bound_client.redirect_uri.clone().into_owned(),
                    scope: to_oxide(&scope),
                };
                authorization::Input::Negotiated { pre_grant, state: None }
            }
            authorization::Output::Ok { pre_grant, .. } => return Ok(pre_grant.scope.iter().collect()),
            authorization::Output::Err(_) => {
                let supported = params.get("response_type") == Some("code");
                return Err(match bound {
                    None => steps.refuse(Refusal::Unusable),
                    Some(_) if !supported => steps.refuse(Refusal::UnsupportedResponseType),
                    Some(_) => {
                        // The machine asks for the scope first; in the decision table it comes last.
                        steps.extend()?;
                        steps.refuse(Refusal::InvalidScope)
                    }
                });
            }
        };
    }
}

/// The code challenge of a request (PKCE-01…03, PKCE-05): method S256, 43 base64url characters.
pub(crate) fn code_challenge(params: &Params) -> Option<String> {
    let method = params.get("code_challenge_method").map(Cow::Borrowed);
    let challenge = params.get("code_challenge")?;
    Pkce::required().challenge(method, Some(Cow::Borrowed(challenge))).ok()?;
    let base64url = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (challenge.len() == 43 && challenge.bytes().all(base64url)).then(|| challenge.to_owned())
}

/// Whether a verifier has the shape of RFC 7636 §4.1 (PKCE-03).
pub(crate) fn is_verifier(verifier: &str) -> bool {
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    (43..=128).contains(&verifier.len()) && verifier.bytes().all(unreserved)
}

/// A request to redeem a code; its client is authenticated (RFC 6749 §4.1.3).
pub(crate) struct Redemption<'a> {
    pub client_id: &'a str,
    pub code: &'a str,
    pub code_verifier: &'a str,
}

/// Why a code does not match the request that presents it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CodeMismatch {
    /// It is another client's, or the machine refused it for another reason.
    Grant,
    /// The verifier is wrong.
    Verifier,
}

/// Checks a code against a request: first its client, then its verifier.
pub(crate) fn check_code(
    grant: &store::grants::Grant,
    code: &store::codes::IssuedCode,
    request: &Redemption<'_>,
) -> Result<(), CodeMismatch> {
    let redirect_uri = code.redirect_uri.as_str().parse().map_err(|_| CodeMismatch::Grant)?;
    let grant = to_oxide_grant(grant, redirect_uri);
    let request = CodeRequest { request, redirect_uri: code.redirect_uri.as_str() };
    let mut machine = accesstoken::AccessToken::new(&request);
    let mut input = accesstoken::Input::None;
    loop {
        input = match machine.advance(input) {
            accesstoken::Output::Authenticate { .. } => accesstoken::Input::Authenticated,
            accesstoken::Output::Recover { .. } => {
                accesstoken::Input::Recovered(Some(Box::new(grant.clone())))
            }
            accesstoken::Output::Extend { .. } => {
                let pkce = Pkce::required();
                let stored = Value::private(Some(format!("{}S", code.code_challenge)));
                pkce.verify(Some(stored), Some(Cow::Borrowed(request.request.code_verifier)))
                    .map_err(|()| CodeMismatch::Verifier)?;
                accesstoken::Input::Extended { access_extensions: Extensions::new() }
            }
            // The machine agreed. The tokens are made elsewhere.
            accesstoken::Output::Issue { .. } => return Ok(()),
            accesstoken::Output::Ok(_) | accesstoken::Output::Err(_) => return Err(CodeMismatch::Grant),
        };
    }
}

/// Checks a refresh request against its grant: client, then scope (RFC 6749 §6). Answers with the
/// scope of the new access token.
pub(crate) fn check_refresh(
    grant: &store::grants::Grant,
    client_id: &str,
    scope: Option<&str>,
) -> Result<Scope, Refusal> {
    let grant = to_oxide_grant(grant, ANY_URI.clone());
    let request = RefreshRequest { client_id, scope };
    let mut machine = refresh::Refresh::new(&request);
    let mut input = refresh::Input::None;
    loop {
        input = match machine.advance(input) {
            refresh::Output::Unauthenticated { .. } => {
                refresh::Input::Authenticated { scope: scope.map(Cow::Borrowed) }
            }
            refresh::Output::RecoverRefresh { .. } => refresh::Input::Recovered {
                scope: scope.map(Cow::Borrowed),
                grant: Some(Box::new(grant.clone())),
            },
            refresh::Output::Refresh { grant, .. } => return Ok(grant.scope.iter().collect()),
            refresh::Output::Ok(_) => return Err(Refusal::InvalidRequest),
            refresh::Output::Err(mut error) => {
                return Err(match error.description().map(AccessTokenError::kind) {
                    Some(AccessTokenErrorType::InvalidScope) => Refusal::InvalidScope,
                    Some(AccessTokenErrorType::InvalidRequest) => Refusal::InvalidRequest,
                    _ => Refusal::InvalidGrant,
                });
            }
        };
    }
}

fn to_oxide(scope: &Scope) -> oxide_auth::primitives::scope::Scope {
    scope.to_string().parse().expect("our scopes are a subset of what oxide-auth parses")
}

/// A refresh has no redirect URI, but the machine's grants need one.
static ANY_URI: LazyLock<Url> = LazyLock::new(|| Url::parse("http://localhost/").expect("it is a URL"));

fn to_oxide_grant(grant: &store::grants::Grant, redirect_uri: Url) -> Grant {
    let mut extensions = Extensions::new();
    extensions.set(&Resource, Value::public(Some(grant.resource.to_string())));
    Grant {
        owner_id: grant.user_id.to_string(),
        client_id: grant.client_id.to_string(),
        scope: to_oxide(&grant.scope),
        redirect_uri,
        // Lifetimes are checked by our own clock before the machine is asked.
        until: DateTime::<Utc>::MAX_UTC,
        extensions,
    }
}

struct Resource;

impl GrantExtension for Resource {
    fn identifier(&self) -> &'static str {
        "resource"
    }
}

struct AuthorizationRequest<'a>(&'a Params);

impl authorization::Request for AuthorizationRequest<'_> {
    fn valid(&self) -> bool {
        true
    }
    fn client_id(&self) -> Option<Cow<'_, str>> {
        self.0.get("client_id").map(Cow::Borrowed)
    }
    fn scope(&self) -> Option<Cow<'_, str>> {
        self.0.get("scope").map(Cow::Borrowed)
    }
    fn redirect_uri(&self) -> Option<Cow<'_, str>> {
        self.0.get("redirect_uri").map(Cow::Borrowed)
    }
    fn state(&self) -> Option<Cow<'_, str>> {
        self.0.get("state").map(Cow::Borrowed)
    }
    fn response_type(&self) -> Option<Cow<'_, str>> {
        self.0.get("response_type").map(Cow::Borrowed)
    }
    fn extension(&self, key: &str) -> Option<Cow<'_, str>> {
        self.0.all(key).next().map(|value| Cow::Owned(value.to_owned()))
    }
}

struct CodeRequest<'a> {
    request: &'a Redemption<'a>,
    redirect_uri: &'a str,
}

impl accesstoken::Request for CodeRequest<'_> {
    fn valid(&self) -> bool {
        true
    }
    fn code(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(self.request.code))
    }
    fn authorization(&self) -> accesstoken::Authorization<'_> {
        accesstoken::Authorization::Username(Cow::Borrowed(self.request.client_id))
    }
    fn client_id(&self) -> Option<Cow<'_, str>> {
        None // the client is already authenticated; naming it again would count as a second credential
    }
    fn redirect_uri(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(self.redirect_uri))
    }
    fn grant_type(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed("authorization_code"))
    }
    fn extension(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }
}

struct RefreshRequest<'a> {
    client_id: &'a str,
    scope: Option<&'a str>,
}

impl refresh::Request for RefreshRequest<'_> {
    fn valid(&self) -> bool {
        true
    }
    fn refresh_token(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed("looked up by digest"))
    }
    fn scope(&self) -> Option<Cow<'_, str>> {
        self.scope.map(Cow::Borrowed)
    }
    fn grant_type(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed("refresh_token"))
    }
    fn authorization(&self) -> Option<(Cow<'_, str>, Cow<'_, [u8]>)> {
        // The machine compares this with the grant's client.
        Some((Cow::Borrowed(self.client_id), Cow::Borrowed(&[])))
    }
    fn extension(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(text: &str) -> Option<String> {
        code_challenge(&Params::parse(text).unwrap())
    }

    /// PKCE-01, PKCE-02, PKCE-03: other challenges and methods are refused.
    #[test]
    fn only_an_s256_challenge_of_43_characters_counts() {
        let good = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        assert_eq!(
            challenge(&format!("code_challenge={good}&code_challenge_method=S256")).as_deref(),
            Some(good)
        );
        for bad in [
            String::new(),
            format!("code_challenge={good}"),
            format!("code_challenge={good}&code_challenge_method=plain"),
            format!("code_challenge={good}&code_challenge_method=s256"),
            format!("code_challenge={good}x&code_challenge_method=S256"),
            format!("code_challenge={}%3D&code_challenge_method=S256", &good[..42]),
            format!("code_challenge={}%2B&code_challenge_method=S256", &good[..42]),
            "code_challenge_method=S256".to_owned(),
        ] {
            assert_eq!(challenge(&bad), None, "{bad}");
        }
    }

    /// PKCE-03: the shape of a verifier.
    #[test]
    fn a_verifier_has_43_to_128_unreserved_characters() {
        assert!(is_verifier(&"a".repeat(43)) && is_verifier(&"~".repeat(128)));
        for bad in
            ["a".repeat(42), "a".repeat(129), format!("{} ", "a".repeat(43)), format!("{}+", "a".repeat(43))]
        {
            assert!(!is_verifier(&bad), "{bad}");
        }
    }
}
