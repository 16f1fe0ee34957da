//! What holds for every request, before any route: its address, its host, its headers (HTTP-03…08).

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use authz::Authz;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::json;
use shared::Issuer;
use tracing::Instrument;

/// The longest request target (§1 of the matrix).
const LONGEST_TARGET: usize = 8 * 1024;

/// What the layer needs to know.
#[derive(Clone)]
struct Front {
    issuer: Issuer,
    authz: Authz,
}

/// Puts the layer around all routes.
pub(crate) fn around(routes: Router, authz: Authz) -> Router {
    let front = Front { issuer: authz.issuer().clone(), authz };
    routes.fallback(not_found).layer(axum::middleware::from_fn_with_state(front, handle))
}

async fn handle(State(front): State<Front>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let ours = shared::Request::from(peer);
    request.extensions_mut().insert(ours.clone());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let is_api = is_api(&path);
    let cors = Cors::of(&path);
    // No query: it may hold codes and tokens (HTTP-12).
    // Who it was, the gate adds once it knows.
    let span = tracing::info_span!(
        "http",
        request.id = %ours.id,
        http.method = %method,
        http.path = %path,
        user.id = tracing::field::Empty,
        client.id = tracing::field::Empty
    );
    let started = Instant::now();
    let page_wanted = wants_page(request.headers()) && !is_api;
    let answer = async {
        match front.refuse(&request) {
            Some(refusal) => refusal,
            None if method == Method::OPTIONS && cors.is_some() => StatusCode::NO_CONTENT.into_response(),
            // One request's bug is its own alone (HTTP-10).
            None => AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|_| {
                tracing::error!("a request panicked");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }),
        }
    };
    let mut response = answer.instrument(span.clone()).await;
    if page_wanted && response.status() == StatusCode::NOT_FOUND && is_bare(&response) {
        response = front.authz.not_found(&ours);
    }
    response = worded(response);
    if let Some(cors) = cors {
        cors.write(method == Method::OPTIONS, response.headers_mut());
    }
    harden(&front.issuer, response.headers_mut());
    span.in_scope(|| {
        tracing::info!(
            http.status = response.status().as_u16(),
            http.ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "answered"
        );
    });
    response
}

async fn not_found() -> Response {
    StatusCode::NOT_FOUND.into_response()
}

impl Front {
    fn refuse(&self, request: &Request) -> Option<Response> {
        let target = request.uri();
        if target.path_and_query().is_some_and(|t| t.as_str().len() > LONGEST_TARGET) {
            return Some(StatusCode::URI_TOO_LONG.into_response());
        }
        if !is_plain_path(target.path()) {
            return Some(refusal(
                StatusCode::BAD_REQUEST,
                "invalid_request",
                "the path is not in its plain form",
            ));
        }
        // The MCP endpoint has rules of its own, for local proxies (MCP-14).
        if target.path() == "/mcp" {
            return None;
        }
        let Some(host) = authority(request) else {
            return Some(refusal(StatusCode::BAD_REQUEST, "invalid_request", "the request names no host"));
        };
        match self.known(&host) {
            Known::Issuer => None,
            Known::LoopbackLiteral if is_api(target.path()) => None,
            Known::LoopbackLiteral => {
                // Passkeys live on the issuer's name; so do its pages.
                let path = target.path_and_query().map_or("/", |t| t.as_str());
                let location = HeaderValue::try_from(self.issuer.url(path)).ok()?;
                Some((StatusCode::FOUND, [(header::LOCATION, location)]).into_response())
            }
            Known::No => Some(refusal(
                StatusCode::MISDIRECTED_REQUEST,
                "misdirected_request",
                "this server is not known by that name",
            )),
        }
    }

    /// HTTP-03: the issuer's authority, or a loopback literal with its port in the loopback profile.
    fn known(&self, host: &str) -> Known {
        let host = host.to_ascii_lowercase();
        let issuer = self.issuer.as_str().split_once("://").map_or("", |(_, authority)| authority);
        let default_port = if self.issuer.is_loopback() { ":80" } else { ":443" };
        let spelled_out = !issuer.contains(':') && host.strip_suffix(default_port) == Some(issuer);
        if host == issuer || spelled_out {
            return Known::Issuer;
        }
        let port = self.issuer.port();
        let literals = [format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
        if self.issuer.is_loopback() && literals.contains(&host) { Known::LoopbackLiteral } else { Known::No }
    }
}

enum Known {
    Issuer,
    LoopbackLiteral,
    No,
}

/// The host that a request names: `:authority` in HTTP/2, one `Host` header in HTTP/1.1.
fn authority(request: &Request) -> Option<String> {
    if let Some(authority) = request.uri().authority() {
        return Some(authority.to_string());
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next()?.to_str().ok()?;
    hosts.next().is_none().then(|| host.to_owned())
}

/// HTTP-03: no spelling that two readers could take for two different paths.
fn is_plain_path(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let odd = [";", "//", "\\", "%2f", "%5c", "%00", "%2e"];
    !odd.iter().any(|part| lower.contains(part))
        && !path.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// Paths that programs ask, in contrast to people's browsers.
fn is_api(path: &str) -> bool {
    let api = [
        "/token",
        "/revoke",
        "/introspect",
        "/register",
        "/device_authorization",
        "/jwks.json",
        "/mcp",
        "/healthz",
        "/readyz",
    ];
    api.contains(&path) || path.starts_with("/.well-known/")
}

fn wants_page(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("text/html"))
}

fn is_bare(response: &Response) -> bool {
    !response.headers().contains_key(header::CONTENT_TYPE)
}

/// Refusals that the framework left without words get a JSON body (HTTP-08).
fn worded(response: Response) -> Response {
    let (code, description) = match response.status() {
        StatusCode::NOT_FOUND => ("not_found", "there is nothing at this path"),
        StatusCode::METHOD_NOT_ALLOWED => ("method_not_allowed", "this path does not take that method"),
        StatusCode::PAYLOAD_TOO_LARGE => ("payload_too_large", "the body is larger than this path takes"),
        StatusCode::URI_TOO_LONG => ("uri_too_long", "the request target is longer than 8 KiB"),
        StatusCode::INTERNAL_SERVER_ERROR => ("server_error", "the server made a mistake"),
        StatusCode::BAD_REQUEST => ("invalid_request", "the request could not be read"),
        _ => return response,
    };
    let json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|v| v.as_bytes().starts_with(b"application/"));
    let html =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"text/html"));
    if json || html {
        return response;
    }
    let mut worded = refusal(response.status(), code, description);
    if let Some(allow) = response.headers().get(header::ALLOW) {
        worded.headers_mut().insert(header::ALLOW, allow.clone());
    }
    worded
}

fn refusal(status: StatusCode, code: &str, description: &str) -> Response {
    let mut response =
        (status, Json(json!({ "error": code, "error_description": description }))).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Who may read a path's answers from another origin (HTTP-06). Never with credentials.
#[derive(Clone, Copy)]
struct Cors {
    methods: &'static str,
    allow_headers: &'static str,
    expose: &'static str,
}

impl Cors {
    fn of(path: &str) -> Option<Self> {
        match path {
            "/.well-known/oauth-authorization-server" | "/.well-known/jwks.json" | "/jwks.json" => {
                Some(Self { methods: "GET, HEAD", allow_headers: "MCP-Protocol-Version", expose: "ETag" })
            }
            "/token" | "/revoke" | "/register" => Some(Self::of_client_endpoint("POST")),
            // RFC 7592
            _ if path.starts_with("/register/") => Some(Self::of_client_endpoint("GET, PUT, DELETE")),
            _ => None,
        }
    }

    fn of_client_endpoint(methods: &'static str) -> Self {
        Self {
            methods,
            allow_headers: "Authorization, Content-Type, DPoP, MCP-Protocol-Version",
            expose: "WWW-Authenticate, Retry-After, DPoP-Nonce",
        }
    }

    fn write(self, preflight: bool, headers: &mut HeaderMap<HeaderValue>) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        if preflight {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(self.methods));
            headers
                .insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(self.allow_headers));
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        } else {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(self.expose));
        }
    }
}

/// HTTP-04, where a route has not said something stricter.
fn harden(issuer: &Issuer, headers: &mut HeaderMap) {
    let mut default = |name: &'static str, value: &'static str| {
        headers.entry(HeaderName::from_static(name)).or_insert(HeaderValue::from_static(value));
    };
    default("x-content-type-options", "nosniff");
    default("referrer-policy", "no-referrer");
    default("cross-origin-resource-policy", "same-origin");
    if !issuer.is_loopback() {
        default("strict-transport-security", "max-age=31536000");
    }
}

/// `GET /healthz`: the process answers (OPS-05).
pub(crate) async fn healthz() -> Response {
    Response::new(Body::from("ok\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HTTP-03
    #[test]
    fn only_plain_paths_pass() {
        assert!(is_plain_path("/authorize") && is_plain_path("/.well-known/oauth-protected-resource/mcp"));
        for odd in ["//evil", "/a;b", "/a/../b", "/a/./b", "/a%2fb", "/a%5Cb", "/a%00", "/%2e%2e/", "/a\\b"] {
            assert!(!is_plain_path(odd), "{odd}");
        }
    }
}
