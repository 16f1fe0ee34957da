//! HTTP edge cases: malformed, in another form, to the wrong host, too slow, too large.

use reqwest::Method;
use serde_json::json;

use crate::harness::{TestApp, header};
use crate::raw::{Answer, Raw, assert_after};

/// One path of each kind.
const PATHS: [&str; 8] =
    ["/", "/authorize", "/token", "/register", "/mcp", "/jwks.json", "/.well-known/nothing", "/nothing"];

async fn asked(app: &TestApp, line: &str, headers: &str, body: &str) -> Answer {
    let mut raw = Raw::open(&app.origin).await;
    raw.ask(line, headers, body).await;
    raw.answer().await.unwrap_or_else(|| panic!("no answer to {line} {headers:?}"))
}

/// The headers of every response (HTTP-04).
fn assert_hardened(answer: &Answer) {
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer:?}");
    assert!(matches!(answer.header("referrer-policy"), Some("no-referrer" | "same-origin")), "{answer:?}");
    assert!(answer.header("cross-origin-resource-policy").is_some(), "{answer:?}");
    assert_eq!(answer.header("server"), None);
    assert_eq!(answer.header("strict-transport-security"), None, "this issuer is http");
}

/// HTTP-09: a request with an ambiguous end is refused, and nothing after it is read.
#[tokio::test]
async fn smuggled_requests_are_not_seen() {
    let app = TestApp::start().await;
    for framing in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length: 40\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "Content-Length: +4\r\n",
    ] {
        for path in PATHS {
            let mut raw = Raw::open(&app.origin).await;
            let smuggled = "0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
            raw.ask(&format!("POST {path}"), framing, smuggled).await;
            let answer = raw.answer().await.unwrap();
            assert_eq!(answer.status, 400, "{path} {framing:?}");
            assert_eq!(answer.json()["error"], "invalid_request");
            assert_eq!(answer.header("connection"), Some("close"));
            assert_hardened(&answer);
            assert!(raw.is_over().await, "{path} {framing:?}: something else was answered");
        }
    }
}

/// HTTP-09: requests before a malformed one on the same connection are answered as usual.
#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let app = TestApp::start().await;
    let mut raw = Raw::open(&app.origin).await;
    let chunked = "Transfer-Encoding: chunked\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    raw.ask("GET /healthz", "", "").await;
    raw.ask("POST /token", chunked, "5\r\na=b&c\r\n0\r\n\r\n").await;
    raw.ask("GET /nothing", "", "").await;
    raw.send("nonsense\r\n\r\n").await;
    raw.ask("GET /healthz", "", "").await;
    let mut statuses = Vec::new();
    while let Some(answer) = raw.answer().await {
        assert_hardened(&answer);
        statuses.push(answer.status);
    }
    assert_eq!(statuses, [200, 401, 404, 400]);
}

/// HTTP-09: the limits of a head, and their errors.
#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let app = TestApp::start().await;
    let long = "a".repeat(8193);
    let many = "a: b\r\n".repeat(100);
    let wide = format!("x: {}\r\n", "a".repeat(16 * 1024));
    for (line, headers, status, error) in [
        (format!("GET /{long}"), "", 414, "uri_too_long"),
        (format!("GET /token?{long}"), "", 414, "uri_too_long"),
        ("GET /".to_owned(), many.as_str(), 431, "headers_too_large"),
        ("GET /mcp".to_owned(), wide.as_str(), 431, "headers_too_large"),
    ] {
        let answer = asked(&app, &line, headers, "").await;
        assert_eq!((answer.status, &answer.json()["error"]), (status, &json!(error)));
        assert_hardened(&answer);
    }
}

/// HTTP-09: 10 seconds for a head, 30 for a pause in a body; standards §1.
#[tokio::test]
async fn slow_requests_are_refused() {
    let app = TestApp::start().await;
    let mut head = Raw::open(&app.origin).await;
    let mut body = Raw::open(&app.origin).await;
    let mut silent = Raw::open(&app.origin).await;
    head.send("GET / HTTP/1.1\r\nHost: loc").await;
    let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 10\r\n";
    body.ask("POST /register", form, "a=b").await;
    assert_eq!(asked(&app, "GET /healthz", "", "").await.status, 200, "both were received");
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let answer = head.answer().await.unwrap();
    assert_eq!((answer.status, &answer.json()["error"]), (408, &json!("request_timeout")));
    assert!(head.is_over().await && silent.is_over().await);
    assert_after(begun, 10);
    let answer = body.answer().await.unwrap();
    assert_eq!((answer.status, &answer.json()["error"]), (408, &json!("request_timeout")));
    assert_eq!(answer.header("connection"), Some("close"));
    assert_after(begun, 30);
    assert!(body.is_over().await);
}

/// HTTP-09: a connection may be idle for longer than that, but not without limit.
#[tokio::test]
async fn idle_connections_end() {
    let app = TestApp::start().await;
    let mut raw = Raw::open(&app.origin).await;
    raw.ask("GET /healthz", "", "").await;
    assert_eq!(raw.answer().await.unwrap().status, 200);
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    assert!(raw.is_over().await);
    assert!((60..90).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

/// HTTP-09; RFC 9112 §9.6: a client that is answered before the end of its body can continue sending or is told
/// to stop; the response arrives in any case.
#[tokio::test]
async fn an_early_answer_always_arrives() {
    let app = TestApp::start().await;
    for path in PATHS {
        let line = format!("POST {path}");
        let mut raw = Raw::open(&app.origin).await;
        let body = "x".repeat(100_000);
        for _ in 0..2 {
            raw.ask(&line, "Content-Type: text/plain\r\nContent-Length: 100000\r\n", &body).await;
            let answer = raw.answer().await.unwrap();
            assert!((400..500).contains(&answer.status), "{path}: {answer:?}");
            assert_eq!(answer.header("connection"), None, "{path}");
        }
        let enormous = "Content-Type: text/plain\r\nContent-Length: 900000000\r\n";
        raw.ask(&line, enormous, &body).await;
        let answer = raw.answer().await.unwrap();
        assert!((400..500).contains(&answer.status), "{path}: {answer:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{path}");
        // A client that sends `Expect: 100-continue` is not told to continue.
        let mut raw = Raw::open(&app.origin).await;
        raw.ask(&line, "Expect: 100-continue\r\nContent-Type: text/plain\r\nContent-Length: 900000\r\n", "")
            .await;
        let answer = raw.answer().await.unwrap();
        if answer.status != 100 {
            assert!((400..500).contains(&answer.status), "{path}: {answer:?}");
            assert_eq!(answer.header("connection"), Some("close"), "{path}");
        }
    }
}

/// HTTP-03: only our host, and one form of each path.
#[tokio::test]
async fn only_our_name_and_plain_paths_are_answered() {
    let app = TestApp::start().await;
    let host = app.origin.strip_prefix("http://").unwrap();
    let send = async |line: &str, hosts: &str| {
        let mut raw = Raw::open(&app.origin).await;
        raw.send(format!("{line}\r\n{hosts}\r\n")).await;
        raw.answer().await.unwrap()
    };
    for path in PATHS {
        for stranger in ["evil.example", "localhost", "localhost:1", "127.0.0.1", "gate.localhost", "", "@"] {
            let answer = send(&format!("GET {path} HTTP/1.1"), &format!("Host: {stranger}\r\n")).await;
            // The MCP endpoint accepts every loopback name (MCP-14).
            let expected = if path == "/mcp" && stranger.starts_with(['l', '1']) { 401 } else { 421 };
            assert_eq!(answer.status, expected, "{path} {stranger}");
            assert_hardened(&answer);
            answer.json();
        }
        for hosts in [String::new(), format!("Host: {host}\r\nHost: {host}\r\n")] {
            let answer = send(&format!("GET {path} HTTP/1.1"), &hosts).await;
            assert!(matches!(answer.status, 400 | 421), "{path} {hosts:?}: {answer:?}");
        }
        // With an absolute URL as target, both names must be ours.
        let target = |authority: &str| format!("GET http://{authority}{path} HTTP/1.1");
        let both = send(&target(host), &format!("Host: {host}\r\n")).await;
        assert!(both.status != 421 && !both.text().contains("exactly one Host"), "{path}: {both:?}");
        for (authority, named) in [("evil.example", host), (host, "evil.example")] {
            let answer = send(&target(authority), &format!("Host: {named}\r\n")).await;
            assert!(matches!(answer.status, 400 | 421), "{path} {authority} {named}: {answer:?}");
        }
    }
    for path in [
        "//token",
        "/token/",
        "/Token",
        "/token;x",
        "/./token",
        "/x/../token",
        "/%2e%2e/token",
        "/x%2ftoken",
        "/token%00",
        "/x%5Ctoken",
        "/mcp/",
        "/MCP",
        "//mcp",
        "/mcp;x",
        "/x/../mcp",
    ] {
        let answer = asked(&app, &format!("POST {path}"), "Content-Length: 0\r\n", "").await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {answer:?}");
    }
    // RFC 9112 §9.3: HTTP/1.0 closes.
    let mut raw = Raw::open(&app.origin).await;
    raw.send(format!("GET /healthz HTTP/1.0\r\nHost: {host}\r\n\r\n")).await;
    assert_eq!(raw.answer().await.unwrap().status, 200);
    assert!(raw.is_over().await);
    assert_eq!(send("GET /healthz HTTP/1.0", "").await.status, 400);
}

/// HTTP-03: pages are served under the issuer's name, and a browser at another loopback name is redirected
/// there; programs are served directly.
#[tokio::test]
async fn loopback_addresses_are_answered_for_programs() {
    let app = TestApp::start().await;
    for literal in ["127.0.0.1", "[::1]"] {
        let named = app.origin.replace("localhost", literal);
        let mut raw = Raw::open(&app.origin).await;
        raw.send(format!("GET /authorize?a=b HTTP/1.1\r\nHost: {}\r\n\r\n", &named[7..])).await;
        let answer = raw.answer().await.unwrap();
        let there = app.url("/authorize?a=b");
        assert_eq!((answer.status, answer.header("location")), (302, Some(there.as_str())));
        raw.send(format!("GET /jwks.json HTTP/1.1\r\nHost: {}\r\n\r\n", &named[7..])).await;
        assert_eq!(raw.answer().await.unwrap().status, 200);
        // The server listens on both addresses.
        let direct = app.http.get(format!("{named}/healthz")).send().await.unwrap();
        assert_eq!(direct.status(), 200, "{named}");
    }
}

/// HTTP-08: programs get errors in JSON, with the allowed methods.
#[tokio::test]
async fn programs_are_refused_in_json() {
    let app = TestApp::start().await;
    let browser = "Accept: text/html\r\n";
    for (line, status, allow) in [
        ("GET /token", 405, Some("POST")),
        ("DELETE /register", 405, Some("POST")),
        ("PUT /jwks.json", 405, Some("GET,HEAD")),
        ("POST /.well-known/oauth-authorization-server", 405, Some("GET,HEAD")),
        ("PUT /mcp", 405, Some("POST, OPTIONS")),
        ("GET /.well-known/openid-configuration", 404, None),
        ("GET /.well-known/oauth-protected-resource/nothing", 404, None),
        ("GET /.well-known/security.txt", 404, None),
        ("GET /.well-known/", 404, None),
        ("GET /register/nobody", 404, None),
        ("GET /mcp/nothing", 404, None),
    ] {
        let answer = asked(&app, line, browser, "").await;
        assert_eq!((answer.status, answer.header("allow")), (status, allow), "{line}");
        answer.json();
        assert_hardened(&answer);
    }
    let large = "x".repeat(17_000);
    let headers = format!("Content-Length: {}\r\nContent-Type: application/json\r\n{browser}", large.len());
    for path in ["/token", "/register", "/revoke"] {
        let answer = asked(&app, &format!("POST {path}"), &headers, &large).await;
        assert_eq!((answer.status, &answer.json()["error"]), (413, &json!("payload_too_large")), "{path}");
    }
    // A person gets a page.
    let answer = asked(&app, "GET /nothing", browser, "").await;
    assert_eq!((answer.status, answer.header("content-type")), (404, Some("text/html; charset=utf-8")));
}

/// HTTP-06, HTTP-07: the table of CORS classes, on responses, refusals and preflights.
#[tokio::test]
async fn other_origins_read_what_the_table_says() {
    let app = TestApp::start_configured("device = true").await;
    let documents = ("*", "GET, HEAD", "MCP-Protocol-Version", "ETag");
    let clients = (
        "*",
        "POST",
        "Authorization, Content-Type, DPoP, MCP-Protocol-Version",
        "WWW-Authenticate, Retry-After, DPoP-Nonce",
    );
    let management = (clients.0, "GET, PUT, DELETE", clients.2, clients.3);
    for (path, (origin, methods, allowed, exposed)) in [
        ("/.well-known/oauth-authorization-server", documents),
        ("/.well-known/oauth-protected-resource", documents),
        ("/.well-known/oauth-protected-resource/mcp", documents),
        ("/.well-known/jwks.json", documents),
        ("/.well-known/nothing", documents),
        ("/jwks.json", documents),
        ("/token", clients),
        ("/revoke", clients),
        ("/register", clients),
        ("/register/nobody", management),
    ] {
        let from = "Origin: https://evil.example\r\n";
        let preflight = asked(&app, &format!("OPTIONS {path}"), from, "").await;
        assert_eq!(preflight.status, 204, "{path}");
        assert_eq!(preflight.header("access-control-allow-origin"), Some(origin), "{path}");
        assert_eq!(preflight.header("access-control-allow-methods"), Some(methods), "{path}");
        assert_eq!(preflight.header("access-control-allow-headers"), Some(allowed), "{path}");
        assert_eq!(preflight.header("access-control-max-age"), Some("600"), "{path}");
        assert_eq!(preflight.header("access-control-allow-credentials"), None);
        for method in ["GET", "POST", "PATCH"] {
            let answer = asked(&app, &format!("{method} {path}"), from, "").await;
            assert_eq!(answer.header("access-control-allow-origin"), Some(origin), "{method} {path}");
            assert_eq!(answer.header("access-control-expose-headers"), Some(exposed), "{method} {path}");
            assert_eq!(answer.header("access-control-allow-credentials"), None);
        }
    }
    for path in [
        "/",
        "/authorize",
        "/consent",
        "/login/start",
        "/login/finish",
        "/setup",
        "/enrol",
        "/sign-out",
        "/device",
        "/account/passkeys/start",
        "/introspect",
        "/device_authorization",
        "/healthz",
        "/assets/portcullis.css",
        "/nothing",
    ] {
        for line in [format!("OPTIONS {path}"), format!("GET {path}"), format!("POST {path}")] {
            let answer = asked(&app, &line, &format!("Origin: {}\r\n", app.origin), "").await;
            assert_eq!(answer.header("access-control-allow-origin"), None, "{line}");
        }
    }
}

/// HTTP-04, HTTP-05: security headers on every page and every other response.
#[tokio::test]
async fn answers_are_hardened() {
    let app = TestApp::start_configured("device = true").await;
    for (line, headers) in [
        ("GET /", ""),
        ("GET /authorize", ""),
        ("GET /nothing", "Accept: text/html\r\n"),
        ("GET /setup", ""),
        ("GET /enrol", ""),
        ("GET /healthz", ""),
        ("GET /readyz", ""),
        ("GET /jwks.json", ""),
        ("GET /mcp", ""),
        ("POST /mcp", ""),
        ("POST /token", ""),
        ("GET /assets/portcullis.css", ""),
        ("GET /assets/nothing", ""),
        ("OPTIONS /token", ""),
        ("GET /consent", ""),
        ("GET /device", ""),
        ("HEAD /", ""),
        ("GET //", ""),
        ("BREW /", ""),
        ("POST /login/start", ""),
        ("POST /sign-out", ""),
    ] {
        let mut raw = Raw::open(&app.origin).await;
        raw.ask(line, headers, "").await;
        let answer = if line.starts_with("HEAD") { continue } else { raw.answer().await.unwrap() };
        assert_hardened(&answer);
        let is_page = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html"));
        if !is_page {
            continue;
        }
        let policy = answer.header("content-security-policy").unwrap();
        assert_eq!(
            policy,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
             base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
            "{line}"
        );
        for (name, value) in [
            ("x-frame-options", "DENY"),
            ("cache-control", "no-store"),
            ("permissions-policy", "publickey-credentials-get=(self), publickey-credentials-create=(self)"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{line} {name}");
        }
        let html = String::from_utf8(answer.body).unwrap();
        assert!(
            !html.contains("<script>") && !html.contains("style=") && !html.contains(" onclick"),
            "{line}"
        );
    }
}

/// HTTP-10: after any garbage the server still answers.
#[tokio::test]
async fn garbage_stops_nothing() {
    let app = TestApp::start().await;
    // The same pseudo-random bytes each time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let pieces: [&[u8]; 12] = [
        b"GET ",
        b"POST /mcp ",
        b"HTTP/1.1",
        b"\r\n",
        b"\r\n\r\n",
        b"Host: localhost\r\n",
        b"Content-Length: ",
        b"Transfer-Encoding: chunked\r\n",
        b"\0",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01",
        b"9",
    ];
    for _ in 0..200 {
        let mut raw = Raw::open(&app.origin).await;
        for _ in 0..noise() % 12 {
            let at = usize::try_from(noise() % 16).unwrap();
            match pieces.get(at) {
                Some(piece) => raw.send(piece).await,
                None => raw.send(noise().to_le_bytes()).await,
            }
        }
    }
    assert_eq!(asked(&app, "GET /healthz", "", "").await.status, 200);
    assert_eq!(asked(&app, "GET /readyz", "", "").await.status, 200);
}

/// HTTP-10: more silent connections than the limit do not affect others.
#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let app = TestApp::start().await;
    let mut silent = Vec::new();
    for _ in 0..2_500 {
        silent.push(Raw::open(&app.origin).await);
    }
    assert_eq!(asked(&app, "GET /healthz", "", "").await.status, 200);
}

/// MCP-14, HTTP-06: off loopback, only pages of listed origins may call the endpoint.
#[tokio::test]
async fn listed_pages_may_call() {
    let app = TestApp::start_secured("allowed_origins = [\"https://inspector.example\"]").await;
    let preflight = async |origin: &str| {
        let request = app.http.request(Method::OPTIONS, app.mcp_url()).header("origin", origin);
        request.send().await.unwrap()
    };
    let listed = preflight("https://inspector.example").await;
    assert_eq!(listed.status(), 204);
    let allowed = header(listed.headers(), "access-control-allow-origin");
    assert_eq!(allowed, Some("https://inspector.example"));
    assert_eq!(header(listed.headers(), "vary"), Some("Origin"));
    for stranger in
        ["https://evil.example", "http://localhost:6274", "https://inspector.example:8443", "null"]
    {
        assert_eq!(preflight(stranger).await.status(), 403, "{stranger}");
    }
}
