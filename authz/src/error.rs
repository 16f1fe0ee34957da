//! Errors of the endpoints, and the bodies that the RFCs define for them.

use std::borrow::Cow;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::json;
use shared::rate::TooMany;
use shared::share::Full;
use shared::{Fault, Request};

/// The error codes of RFC 6749 §4.1.2.1 and §5.2, RFC 6750 §3.1, RFC 7591 §3.2.2, RFC 8628 §3.5, RFC 8707 §2 and OpenID
/// Connect Core §3.1.2.6 that this server sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Code {
    AccessDenied,
    AuthorizationPending,
    ConsentRequired,
    ExpiredToken,
    InteractionRequired,
    InvalidClient,
    InvalidClientMetadata,
    InvalidGrant,
    InvalidRedirectUri,
    InvalidRequest,
    InvalidScope,
    InvalidSoftwareStatement,
    InvalidTarget,
    InvalidToken,
    LoginRequired,
    RequestNotSupported,
    RequestUriNotSupported,
    ServerError,
    SlowDown,
    TemporarilyUnavailable,
    UnauthorizedClient,
    UnsupportedGrantType,
    UnsupportedResponseType,
}

impl Code {
    /// The code on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::AccessDenied => "access_denied",
            Self::AuthorizationPending => "authorization_pending",
            Self::ConsentRequired => "consent_required",
            Self::ExpiredToken => "expired_token",
            Self::InteractionRequired => "interaction_required",
            Self::InvalidClient => "invalid_client",
            Self::InvalidClientMetadata => "invalid_client_metadata",
            Self::InvalidGrant => "invalid_grant",
            Self::InvalidRedirectUri => "invalid_redirect_uri",
            Self::InvalidRequest => "invalid_request",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidSoftwareStatement => "invalid_software_statement",
            Self::InvalidTarget => "invalid_target",
            Self::InvalidToken => "invalid_token",
            Self::LoginRequired => "login_required",
            Self::RequestNotSupported => "request_not_supported",
            Self::RequestUriNotSupported => "request_uri_not_supported",
            Self::ServerError => "server_error",
            Self::SlowDown => "slow_down",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::UnsupportedResponseType => "unsupported_response_type",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::InvalidClient | Self::InvalidToken => StatusCode::UNAUTHORIZED,
            Self::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// An error body of the token and registration endpoints (TOKEN-03): a code and fixed text.
#[derive(Clone, Debug)]
pub(crate) struct OAuthError {
    pub code: Code,
    /// Plain ASCII; never repeats anything of the request (AUTHZ-19).
    pub description: Cow<'static, str>,
}

impl OAuthError {
    pub(crate) fn new(code: Code, description: impl Into<Cow<'static, str>>) -> Self {
        Self { code, description: description.into() }
    }

    /// The response of an endpoint where clients authenticate: RFC 6749 §5.2 requires a challenge if the client
    /// used the `Authorization` header.
    pub(crate) fn challenging(self, request: &HeaderMap) -> Response {
        let refused_client = self.code == Code::InvalidClient;
        let mut response = self.into_response();
        if refused_client && request.contains_key(header::AUTHORIZATION) {
            let challenge = HeaderValue::from_static("Basic realm=\"token\", charset=\"UTF-8\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<Fault> for OAuthError {
    /// The cause is logged; the client learns only that a retry may help.
    fn from(fault: Fault) -> Self {
        tracing::error!(db.fault = %fault, "a request could not be served");
        Self::new(Code::TemporarilyUnavailable, "the server is temporarily unavailable; try again")
    }
}

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.code.as_str(), "error_description": self.description });
        let mut response = (self.code.status(), Json(body)).into_response();
        no_store(&mut response);
        if self.code == Code::TemporarilyUnavailable {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Forbids caching of a response (TOKEN-02).
pub(crate) fn no_store(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
}

/// An error of the endpoints that our own pages call: a code for scripts and a sentence for people.
#[derive(Clone, Debug)]
pub(crate) struct PageError {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: &'static str,
    /// Seconds until a retry may succeed.
    pub retry_after: Option<u64>,
    /// The request id, by which its audit record is found. It is sent in a header, so that bodies are the same
    /// for every cause (WEBAUTHN-05).
    pub reference: Option<String>,
}

/// The header in which the reference travels. The page's script shows it.
const REFERENCE: HeaderName = HeaderName::from_static("x-request-id");

impl PageError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message, retry_after: None, reference: None }
    }

    /// Adds the reference of this request.
    pub(crate) fn about(self, request: &Request) -> Self {
        Self { reference: Some(request.id.clone()), ..self }
    }
}

impl From<Fault> for PageError {
    fn from(fault: Fault) -> Self {
        tracing::error!(db.fault = %fault, "a request could not be served");
        let error = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "temporarily_unavailable",
            "The server is temporarily unavailable. Try again in a few minutes.",
        );
        Self { retry_after: Some(1), ..error }
    }
}

impl From<TooMany> for PageError {
    fn from(too_many: TooMany) -> Self {
        let message = "Too many attempts from your network address. Wait a minute and try again.";
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message);
        Self { retry_after: Some(too_many.retry_after), ..error }
    }
}

impl From<Full> for PageError {
    /// RATE-06: the table is full, and no holder has more than their share.
    fn from(_: Full) -> Self {
        let message =
            "This server has too many unfinished sign-ins. Wait a few minutes, then reload the page.";
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", message);
        Self { retry_after: Some(60), ..error }
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.code, "message": self.message });
        let mut response = (self.status, Json(body)).into_response();
        no_store(&mut response);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(reference) = self.reference.and_then(|id| HeaderValue::try_from(id).ok()) {
            response.headers_mut().insert(REFERENCE, reference);
        }
        response
    }
}
