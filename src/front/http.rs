//! The layer around all routes: client address, path, host, headers, end of the request (HTTP-01…10).

mod body;
mod cors;
mod refusal;
pub(in crate::front) mod signpost;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use shared::Issuer;
use shared::percent::is_percent_encoded;
use shared::route::{Audience, Cors, Host, Limit, Routes, Rule, Table};
use tower::ServiceExt;
use tracing::Instrument;

use super::address::Protection;
use super::entrance::Entrance;
use super::listen::{Application, BadHead, LARGEST_HEADERS, LONGEST_TARGET, MOST_HEADERS, RequestMemory};
use super::proxies::{Complaints, Proxies};
use refusal::{is_bare, refusal, worded};
use signpost::Signpost;

/// The layer's state.
struct Front {
    /// The server's address.
    issuer: Issuer,
    halves: Halves,
    table: Table,
    proxies: Proxies,
    protection: Protection,
    complaints: Complaints,
}

/// What the halves of a server add to responses that their handlers did not make.
#[derive(Clone, Default)]
pub(crate) struct Halves {
    /// Without an authorization server there are no pages, only JSON and signposts.
    pub(crate) pages: Option<Arc<dyn ErrorPages>>,
    /// Where people begin, if that is another server: the issuer of a gateway alone.
    pub(crate) start: Option<Issuer>,
    pub(crate) sharing: Option<Arc<dyn Sharing>>,
}

/// Error pages for people.
pub(crate) trait ErrorPages: Send + Sync {
    /// The page for this status, if there is one.
    fn page(&self, status: StatusCode, asked: &shared::Request) -> Option<Response>;
}

/// Decides for each origin which pages of other origins may read a response (HTTP-06).
pub(crate) trait Sharing: Send + Sync {
    /// Adds the headers that allow these `Origin` values to read the response.
    fn share(&self, origins: &HeaderMap, response: &mut Response);
}

/// Adds the layer around all routes of a server with this address.
pub(crate) fn around(routes: Routes, issuer: Issuer, halves: Halves, entrance: &Entrance) -> Application {
    let (proxies, protection) = (entrance.config.proxies.clone(), entrance.protection);
    let (routes, table) = routes.split();
    let complaints = Complaints::default();
    let front = Arc::new(Front { issuer, halves, table, proxies, protection, complaints });
    let routes = routes.fallback(not_found);
    Arc::new(move |request| Box::pin(handle(Arc::clone(&front), routes.clone(), request)))
}

async fn handle(front: Arc<Front>, routes: Router, request: Request) -> Response {
    let started = Instant::now();
    let (mut parts, body) = request.into_parts();
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let ours = shared::Request::from(peer.map(|peer| front.client(peer, &parts.headers)));
    parts.extensions.insert(ours.clone());
    let (method, version) = (parts.method.clone(), parts.version);
    // A nearly right address is refused in the format of the right one.
    let (rule, meant) = front.table.look_up(parts.uri.path());
    let Rule { cors, audience, .. } = meant.unwrap_or(rule);
    let reads_pages = accepts_page(&parts.headers);
    let wants_page = audience == Audience::Person && reads_pages;
    let asked_by = Asked { rule: meant.unwrap_or(rule), browses: reads_pages && parts.method == Method::GET };
    let origins = (cors == Cors::ByHandler).then(|| origins(&parts.headers));
    let waits_for_us = parts.headers.contains_key(header::EXPECT);
    // Without the query, which may have codes and tokens (HTTP-12). The gate adds the caller later. At every
    // level, because each line of a request is identified by this span.
    let span = tracing::error_span!(
        "http",
        request.id = %ours.id,
        http.method = %method,
        http.path = %parts.uri.path(),
        user.id = tracing::field::Empty,
        client.id = tracing::field::Empty
    );
    let (body, rest) = body::paced(body, parts.extensions.remove::<RequestMemory>());
    let request = Request::from_parts(parts, body);
    let answer = async {
        match front.refuse(peer, rule, &request) {
            Some(refusal) => refusal,
            None if method == Method::OPTIONS && cors::is_answered_here(cors) => {
                StatusCode::NO_CONTENT.into_response()
            }
            None => match meant {
                Some(meant) if meant.audience == Audience::Program => front.elsewhere(meant),
                _ => routes.oneshot(request).await.unwrap_or_else(|never| match never {}),
            },
        }
    };
    // A panic ends only its own request (HTTP-10). It is logged by the panic hook.
    let answer = AssertUnwindSafe(answer).catch_unwind().instrument(span.clone());
    let mut response = answer.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response());
    let reusable = rest.end(waits_for_us).await;
    if version < Version::HTTP_2 && reusable != body::End::Clean {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if reusable == body::End::Late && is_bare(&response) {
        *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
    }
    let response = front.dressed(response, wants_page, &ours);
    let mut response = front.signposted(response, &asked_by);
    cors::write(cors, method == Method::OPTIONS, response.headers_mut());
    if let (Some(origins), Some(sharing)) = (origins, &front.halves.sharing) {
        sharing.share(&origins, &mut response);
    }
    harden(&front.issuer, response.headers_mut());
    // The access log: one line for each request, written with PORTCULLIS_LOG=portcullis=debug.
    if tracing::enabled!(tracing::Level::DEBUG) {
        span.in_scope(|| {
            tracing::debug!(
                http.status = response.status().as_u16(),
                http.ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                "answered"
            );
        });
    }
    response
}

async fn not_found() -> Response {
    StatusCode::NOT_FOUND.into_response()
}

impl Front {
    /// The client's address: the peer, or the one named by a trusted proxy (HTTP-02).
    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.proxies.trust(peer) {
            self.complaints.about(peer, headers);
        }
        self.proxies.client(peer, headers)
    }

    /// Refusals that do not depend on the route.
    fn refuse(&self, peer: Option<IpAddr>, rule: Rule, request: &Request) -> Option<Response> {
        if let Some(bad) = request.extensions().get::<BadHead>() {
            tracing::info!(http.refused = bad.description, "a request's head was refused");
            return Some(refusal(bad.status, refusal::code(bad.status), bad.description));
        }
        // HTTP-01: other peers than the TLS proxies would use plain HTTP.
        if self.protection == Protection::Proxies
            && rule.host != Host::Any
            && peer.is_none_or(|peer| !self.proxies.trust(peer))
        {
            let words = "this server accepts connections only from its TLS proxies";
            return Some(refusal(StatusCode::FORBIDDEN, "tls_required", words));
        }
        if is_too_large(request) {
            return Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.into_response());
        }
        let target = request.uri();
        if target.path_and_query().is_some_and(|t| t.as_str().len() > LONGEST_TARGET) {
            return Some(StatusCode::URI_TOO_LONG.into_response());
        }
        if !is_plain_path(target.path()) {
            let words = "the path is not in normalized form";
            return Some(refusal(StatusCode::BAD_REQUEST, "invalid_request", words));
        }
        let query = target.query().unwrap_or_default();
        if !is_percent_encoded(target.path()) || !is_percent_encoded(query) {
            if rule.audience == Audience::Person {
                return Some(StatusCode::BAD_REQUEST.into_response());
            }
            let words = "a % in the request target is not followed by two hexadecimal digits";
            return Some(refusal(StatusCode::BAD_REQUEST, "invalid_request", words));
        }
        if target.scheme_str().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
            let words = "the request target is not a valid http address";
            return Some(refusal(StatusCode::BAD_REQUEST, "invalid_request", words));
        }
        if rule.host == Host::ByHandler {
            return None;
        }
        let Some(host) = authority(request) else {
            let words = "the request must have exactly one Host";
            return Some(refusal(StatusCode::BAD_REQUEST, "invalid_request", words));
        };
        match self.known(host) {
            _ if rule.host == Host::Any && is_one_name(host) => None,
            Known::Issuer => None,
            Known::LoopbackLiteral if rule.audience == Audience::Program => None,
            Known::LoopbackLiteral => {
                // Passkeys live on the issuer's name; so do its pages.
                let path = target.path_and_query().map_or("/", |t| t.as_str());
                let location = HeaderValue::try_from(self.issuer.url(path)).ok()?;
                Some((StatusCode::FOUND, [(header::LOCATION, location)]).into_response())
            }
            Known::No => {
                let words = "the Host header does not match this server's name";
                Some(refusal(StatusCode::MISDIRECTED_REQUEST, "misdirected_request", words))
            }
        }
    }

    /// The answer for a nearly right address (HTTP-03): it is refused, and the right one is named.
    fn elsewhere(&self, meant: Rule) -> Response {
        let words = format!("nothing at this path; use {}", self.issuer.url(meant.path));
        refusal(StatusCode::NOT_FOUND, "not_found", &words)
    }

    /// HTTP-03: the issuer's authority, or a loopback literal with its port in the loopback profile.
    fn known(&self, host: &str) -> Known {
        let issuer = &self.issuer;
        let ours = issuer.as_str().split_once("://").map_or("", |(_, authority)| authority);
        if host == ours {
            return Known::Issuer;
        }
        let host = host.to_ascii_lowercase();
        let default_port = if issuer.is_loopback() { ":80" } else { ":443" };
        let spelled_out = !ours.contains(':') && host.strip_suffix(default_port) == Some(ours);
        if host == ours || spelled_out {
            return Known::Issuer;
        }
        let port = issuer.port();
        let literals = [format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
        if issuer.is_loopback() && literals.contains(&host) { Known::LoopbackLiteral } else { Known::No }
    }

    /// The answer, or a page for a person who opened an address that is not for browsers, or not this server's.
    fn signposted(&self, response: Response, asked: &Asked) -> Response {
        if !asked.browses {
            return response;
        }
        let address = self.issuer.as_str();
        let start = self.halves.start.as_ref().map_or(address, Issuer::as_str);
        let mcp_url = self.issuer.url("/mcp");
        let page = match response.status() {
            StatusCode::MISDIRECTED_REQUEST => Signpost {
                title: "This is not the address of this server",
                words: "It answers only under its own name.",
                then: "Open",
                link: address,
                end: " instead.",
            },
            StatusCode::UNAUTHORIZED | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_ACCEPTABLE
                if asked.rule.limit == Limit::Mcp =>
            {
                Signpost {
                    title: "This address is for MCP clients",
                    words: "Give it to your MCP client; a browser cannot use it.",
                    then: "In a browser, start at",
                    link: start,
                    end: ".",
                }
            }
            StatusCode::NOT_FOUND if self.halves.pages.is_none() && asked.rule.path.is_empty() => Signpost {
                title: "This is an MCP gateway",
                words: &format!("It has no pages. MCP clients connect to {mcp_url}."),
                then: "In a browser, start at",
                link: start,
                end: ".",
            },
            _ => return response,
        };
        page.instead_of(response)
    }

    /// Adds the caller's format to the response.
    fn dressed(&self, response: Response, wants_page: bool, ours: &shared::Request) -> Response {
        let pages = self.halves.pages.as_ref().filter(|_| wants_page && is_bare(&response));
        let page = pages.and_then(|pages| pages.page(response.status(), ours));
        page.unwrap_or_else(|| worded(response))
    }
}

/// What was asked for, and whether a person with a browser asked.
struct Asked {
    rule: Rule,
    browses: bool,
}

enum Known {
    Issuer,
    LoopbackLiteral,
    No,
}

/// The `Origin` headers of a request.
fn origins(headers: &HeaderMap) -> HeaderMap {
    headers.get_all(header::ORIGIN).iter().map(|origin| (header::ORIGIN, origin.clone())).collect()
}

/// Whether it could be a host name with a port, and nothing else.
fn is_one_name(host: &str) -> bool {
    !host.contains(['@', ',', ' '])
}

/// The host of a request: `:authority` in HTTP/2, one `Host` header in HTTP/1.1. If both are present they must
/// agree, because parsers would otherwise see different hosts.
fn authority(request: &Request) -> Option<&str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().map(HeaderValue::to_str).transpose().ok()?;
    if hosts.next().is_some() {
        return None;
    }
    match (request.uri().authority().map(http::uri::Authority::as_str), host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => None,
        (Some(authority), _) => Some(authority),
        (None, host) => host,
    }
}

/// Limits that the HTTP/1.1 reader has checked before, and HTTP/2 only approximately (standards §1).
fn is_too_large(request: &Request) -> bool {
    let headers = request.headers();
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    headers.len() > MOST_HEADERS || size > LARGEST_HEADERS
}

/// HTTP-03: whether a path has only one reading.
fn is_plain_path(path: &str) -> bool {
    let is_odd = path.contains([';', '\\'])
        || path.contains("//")
        || path.split('/').any(|segment| matches!(segment, "." | ".."))
        || hides_a_separator(path);
    !is_odd
}

/// Whether it has an encoded slash, backslash, dot or NUL.
fn hides_a_separator(path: &str) -> bool {
    if !path.contains('%') {
        return false;
    }
    let lower = path.to_ascii_lowercase();
    ["%2f", "%5c", "%00", "%2e"].iter().any(|part| lower.contains(part))
}

fn accepts_page(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("text/html"))
}

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// The headers of HTTP-04, unless the route has set a stricter one.
static HARDENING: [(HeaderName, HeaderValue); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (RESOURCE_POLICY, HeaderValue::from_static("same-origin")),
];

fn harden(issuer: &Issuer, headers: &mut HeaderMap) {
    for (name, value) in &HARDENING {
        headers.entry(name).or_insert_with(|| value.clone());
    }
    if issuer.demands_https() {
        let year = HeaderValue::from_static("max-age=31536000");
        headers.entry(header::STRICT_TRANSPORT_SECURITY).or_insert(year);
    }
}
