//! The allowed `Host` and `Origin` headers (MCP-14), and CORS (HTTP-06).

use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, HOST,
    ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use shared::Issuer;

use super::refusal::{FORBIDDEN, INVALID_REQUEST, Refusal};

/// The allowed methods; in a session GET and DELETE too (MCP-02).
pub(crate) const METHODS: HeaderValue = HeaderValue::from_static("POST, OPTIONS");
const ALLOWED_HEADERS: &str = "Authorization, Content-Type, Accept, MCP-Protocol-Version, Mcp-Method, \
     Mcp-Name, Mcp-Session-Id, Last-Event-ID, DPoP";
const EXPOSED_HEADERS: HeaderValue =
    HeaderValue::from_static("WWW-Authenticate, Mcp-Session-Id, MCP-Protocol-Version, Retry-After");

/// The host names and origins that an endpoint accepts.
#[derive(Clone, Debug)]
pub(crate) struct Front {
    issuer: Issuer,
    origins: Vec<String>,
}

impl Front {
    /// For this issuer. `origins` are the pages that may call it from a browser.
    pub(crate) fn new(issuer: Issuer, origins: Vec<String>) -> Self {
        Self { issuer, origins }
    }

    /// An unknown `Host` gets 421. Otherwise a page could reach a server on loopback by DNS rebinding.
    pub(crate) fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err(Refusal::bad_request(INVALID_REQUEST, "Host occurs more than once"));
        }
        // HTTP/2 has `:authority` instead; if a request has both, both must be accepted.
        let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
        let mut said = host.map(HeaderValue::as_bytes).into_iter().chain(authority).peekable();
        let some = said.peek().is_some();
        if some && said.all(|authority| self.is_ours(authority)) {
            return Ok(());
        }
        let words = "The Host header does not match this server's name. Use the configured URL.";
        Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, INVALID_REQUEST, words))
    }

    fn is_ours(&self, authority: &[u8]) -> bool {
        let Ok(authority) = std::str::from_utf8(authority) else {
            return false;
        };
        if self.issuer.is_loopback() {
            return is_loopback(authority);
        }
        let name = self.issuer.host();
        let Some(rest) =
            authority.get(name.len()..).filter(|_| authority[..name.len()].eq_ignore_ascii_case(name))
        else {
            return false;
        };
        match rest.strip_prefix(':') {
            Some(port) => port.parse() == Ok(self.issuer.port()),
            None => rest.is_empty() && self.issuer.port() == 443,
        }
    }

    /// The calling page's origin, if there is one; a forbidden one gets 403.
    pub(crate) fn check_origin<'h>(
        &self,
        headers: &'h HeaderMap,
    ) -> Result<Option<&'h HeaderValue>, Refusal> {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else {
            return Ok(None);
        };
        let known = origin.to_str().is_ok_and(|origin| self.is_known(origin));
        if known && origins.next().is_none() {
            return Ok(Some(origin));
        }
        let words = "This origin is not allowed to call this server.";
        Err(Refusal::new(StatusCode::FORBIDDEN, FORBIDDEN, words))
    }

    fn is_known(&self, origin: &str) -> bool {
        let local = || origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        self.origins.iter().any(|known| known == origin)
            || (self.issuer.is_loopback() && local().is_some_and(is_loopback))
    }

    /// The response to a preflight (HTTP-07). The origin has been checked.
    pub(crate) fn preflight(headers: &HeaderMap) -> Response {
        let mut allowed = ALLOWED_HEADERS.to_owned();
        for name in requested_parameters(headers) {
            allowed.push_str(", ");
            allowed.push_str(name);
        }
        let allowed = HeaderValue::try_from(allowed).expect("header names are visible ASCII");
        let headers = [
            (ALLOW, METHODS),
            (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, GET, DELETE")),
            (ACCESS_CONTROL_ALLOW_HEADERS, allowed),
            (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600")),
        ];
        (StatusCode::NO_CONTENT, headers).into_response()
    }

    /// Lets an allowed page read the response, including refusals (HTTP-06).
    pub(crate) fn share(response: &mut Response, origin: Option<HeaderValue>) {
        let headers = response.headers_mut();
        headers.append(VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        }
    }
}

/// The `Mcp-Param-*` headers that a preflight asks for; a bounded number.
fn requested_parameters(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let asked = headers.get(ACCESS_CONTROL_REQUEST_HEADERS).and_then(|value| value.to_str().ok());
    let is_token = |name: &&str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    let is_param = |name: &&str| name.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("mcp-param-"));
    asked.unwrap_or_default().split(',').map(str::trim).filter(is_param).filter(is_token).take(32)
}

/// `localhost`, `127.0.0.1` or `[::1]`, with or without a port. Compared as text, so that no unusual form of an
/// authority (user name, trailing dot, another spelling of the address) is accepted.
fn is_loopback(authority: &str) -> bool {
    let names = ["localhost", "127.0.0.1", "[::1]"];
    names.iter().any(|name| {
        authority.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
            && match authority[name.len()..].strip_prefix(':') {
                Some(port) => port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok(),
                None => authority.len() == name.len(),
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(front: &Front, host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        front.check_host(&Uri::from_static("/mcp"), &headers).is_ok()
    }

    fn origin(front: &Front, origin: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        front.check_origin(&headers).is_ok()
    }

    /// MCP-14: on loopback.
    #[test]
    fn a_loopback_server_accepts_every_loopback_name() {
        let front = Front::new(Issuer::localhost(8080), Vec::new());
        for good in ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "[::1]", "[::1]:65535"] {
            assert!(host(&front, good), "{good}");
            assert!(origin(&front, &format!("http://{good}")), "{good}");
            assert!(origin(&front, &format!("https://{good}")), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.",
            "localhost.evil.example",
            "localhost:",
            "localhost:x",
            "localhost:65536",
            "localhost:+1",
            "evil@localhost",
            "127.0.0.2",
            "127.1",
            "::1",
            "[::1]evil",
            "0.0.0.0",
        ] {
            assert!(!host(&front, bad), "{bad}");
            assert!(!origin(&front, &format!("http://{bad}")), "{bad}");
        }
        for bad in ["null", "", "http://localhost/", "ftp://localhost", "localhost", "http://localhost:1 x"] {
            assert!(!origin(&front, bad), "{bad}");
        }
    }

    /// MCP-14: off loopback only the configured host and the listed origins are accepted.
    #[test]
    fn other_servers_accept_only_configured_hosts() {
        let issuer = Issuer::parse("https://gate.example").unwrap();
        let front = Front::new(issuer, vec!["https://tools.example".to_owned()]);
        for good in ["gate.example", "GATE.example", "gate.example:443"] {
            assert!(host(&front, good), "{good}");
        }
        for bad in [
            "gate.example.",
            "gate.example:80",
            "gate.example:",
            "localhost",
            "xgate.example",
            "gate",
            "",
            "é",
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_bytes(bad.as_bytes()).unwrap());
            assert!(front.check_host(&Uri::from_static("/mcp"), &headers).is_err(), "{bad}");
        }
        assert!(origin(&front, "https://tools.example"));
        for bad in
            ["https://gate.example", "http://tools.example", "https://tools.example:443", "http://localhost"]
        {
            assert!(!origin(&front, bad), "{bad}");
        }
        let odd = Front::new(Issuer::parse("https://gate.example:8443").unwrap(), Vec::new());
        assert!(host(&odd, "gate.example:8443"));
        assert!(!host(&odd, "gate.example"));
    }

    /// MCP-14: origins of applications with an embedded browser, compared byte for byte.
    #[test]
    fn an_origin_of_any_scheme_can_be_listed() {
        let listed = ["app://obsidian.md", "vscode-webview://1f2e", "tauri://localhost", "file://"];
        for issuer in [Issuer::localhost(8080), Issuer::parse("https://gate.example").unwrap()] {
            let front = Front::new(issuer, listed.map(str::to_owned).to_vec());
            for good in listed {
                assert!(origin(&front, good), "{good}");
            }
            for bad in [
                "app://obsidian.md/",
                "app://obsidian.md:1",
                "app://OBSIDIAN.md",
                "APP://obsidian.md",
                "app://obsidian.md.evil.example",
                "xapp://obsidian.md",
                "app://",
                "vscode-webview://1f2e3",
                "vscode-webview://",
                "tauri://localhost:80",
                "https://tauri.localhost.example",
                "file:///etc",
                "null",
            ] {
                assert!(!origin(&front, bad), "{bad}");
            }
        }
    }

    /// MCP-14: `Host` and `:authority` must both be accepted.
    #[test]
    fn host_and_authority_must_both_be_accepted() {
        let front = Front::new(Issuer::localhost(8080), Vec::new());
        let check = |uri: &'static str, hosts: &[&'static str]| {
            let hosts = hosts.iter().map(|host| (HOST, HeaderValue::from_static(host))).fold(
                HeaderMap::new(),
                |mut headers, (name, value)| {
                    headers.append(name, value);
                    headers
                },
            );
            front.check_host(&Uri::from_static(uri), &hosts).is_ok()
        };
        assert!(check("http://localhost/mcp", &[]));
        assert!(!check("/mcp", &[]));
        assert!(!check("http://evil.example/mcp", &["localhost"]));
        assert!(!check("http://localhost/mcp", &["evil.example"]));
        assert!(!check("/mcp", &["localhost", "localhost"]));
    }
}
