//! `Host`, `Origin` and CORS at the gate (MCP-14, HTTP-06 and 07).

use super::*;

fn plain(method: &str, headers: &[(&str, &str)]) -> HttpRequest<Body> {
    let mut request = HttpRequest::builder().method(method).uri(PATH);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

/// MCP-14: host and origin are checked before everything else, including the token.
#[tokio::test]
async fn requests_from_unlisted_origins_are_refused_first() {
    let app = App::start();
    let token = bearer(&token("docs.read"));
    for method in ["POST", "GET", "OPTIONS"] {
        for host in ["evil.example", "localhost.evil.example", "192.168.0.1:8080"] {
            let answer = app.send(plain(method, &[("host", host), ("authorization", &token)])).await;
            assert_eq!(answer.status, 421, "{method} {host}");
        }
        for origin in
            ["https://evil.example", "null", "http://localhost.evil.example", "http://localhost@evil.example"]
        {
            let headers = [("host", "localhost:8080"), ("origin", origin), ("authorization", &token)];
            let answer = app.send(plain(method, &headers)).await;
            assert_eq!((answer.status, answer.code()), (403, 403), "{method} {origin}");
            assert!(answer.header("access-control-allow-origin").is_empty());
            assert!(answer.header("www-authenticate").is_empty());
        }
    }
    // A page that used DNS rebinding sends both.
    let headers = [("host", "evil.example:8080"), ("origin", "http://evil.example:8080")];
    assert_eq!(app.send(plain("POST", &headers)).await.status, 421);
    assert_eq!(app.send(plain("POST", &[])).await.status, 421);
}

/// HTTP-07: a preflight is answered without a token.
#[tokio::test]
async fn a_preflight_needs_no_token() {
    let app = App::start();
    let headers = [
        ("host", "localhost:8080"),
        ("origin", "http://localhost:6274"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization, mcp-param-region, x-evil, mcp-param-\"x"),
    ];
    let answer = app.send(plain("OPTIONS", &headers)).await;
    assert_eq!(answer.status, 204);
    assert!(answer.body.is_empty());
    assert_eq!(answer.header("access-control-allow-origin"), "http://localhost:6274");
    assert_eq!(answer.header("access-control-allow-methods"), "POST, GET, DELETE");
    assert_eq!(
        answer.header("access-control-allow-headers"),
        "Authorization, Content-Type, Accept, MCP-Protocol-Version, Mcp-Method, Mcp-Name, Mcp-Session-Id, Last-Event-ID, DPoP, mcp-param-region"
    );
    assert_eq!(answer.header("access-control-max-age"), "600");
    assert_eq!(answer.header("vary"), "Origin");
    assert!(answer.header("access-control-allow-credentials").is_empty());
}

/// HTTP-06: refusals have the same CORS headers as other responses, so that a page can read the challenge.
#[tokio::test]
async fn a_page_can_read_refusals() {
    let app = App::start();
    let origin = ("origin", "http://127.0.0.1:6274");
    for (status, request) in [
        (401, with(post().header(origin.0, origin.1), "{}")),
        (401, plain("GET", &[("host", "localhost"), origin])),
        (401, plain("HEAD", &[("host", "localhost"), origin])),
        (405, plain("PUT", &[("host", "localhost"), origin])),
        (421, plain("POST", &[("host", "evil.example"), origin])),
        (400, with(authorized(&token("")).header(origin.0, origin.1), "[]")),
        (200, legacy(authorized(&token("")).header(origin.0, origin.1), "ping", &json!({}))),
    ] {
        let answer = app.send(request).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), origin.1, "{status}");
        assert_eq!(
            answer.header("access-control-expose-headers"),
            "WWW-Authenticate, Mcp-Session-Id, MCP-Protocol-Version, Retry-After"
        );
        assert_eq!(answer.header("vary"), "Origin");
    }
}

/// MCP-14: off loopback, loopback names are refused too, and pages must be listed.
#[tokio::test]
async fn elsewhere_only_listed_pages_may_call() {
    let app = App::with(&Issuer::parse("https://gate.example").unwrap(), &["https://tools.example"]);
    assert_eq!(app.send(plain("POST", &[("host", "localhost")])).await.status, 421);
    let from = |origin: &'static str| plain("OPTIONS", &[("host", "gate.example"), ("origin", origin)]);
    assert_eq!(app.send(from("https://tools.example")).await.status, 204);
    for stranger in ["http://localhost:6274", "https://gate.example", "http://tools.example"] {
        assert_eq!(app.send(from(stranger)).await.status, 403, "{stranger}");
    }
}
