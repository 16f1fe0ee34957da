use axum::body::Body;
use http::Request;
use shared::Issuer;

use crate::testing::{Answer, App};

const AT: [&str; 2] = ["/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"];

async fn ask(app: &App, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost:8080");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    app.send(request.body(Body::empty()).unwrap()).await
}

/// META-05, 06, 07, 09: the document, at both addresses.
#[tokio::test]
async fn the_document_is_exact() {
    let app = App::with_one_endpoint();
    for path in AT {
        let answer = ask(&app, "GET", path, &[]).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(
            answer.json(),
            serde_json::json!({
                "resource": "http://localhost:8080/mcp",
                "authorization_servers": ["http://localhost:8080"],
                "scopes_supported": ["docs.read"],
                "bearer_methods_supported": ["header"],
                "resource_name": "Portcullis",
            })
        );
    }
}

/// META-01: the `Host` header does not change the document.
#[tokio::test]
async fn a_spoofed_host_changes_nothing() {
    let app = App::with(&Issuer::parse("https://gate.example").unwrap(), &[]);
    let spoofed =
        [("host", "evil.example"), ("x-forwarded-host", "evil.example"), ("forwarded", "host=evil.example")];
    let answer = ask(&app, "GET", AT[0], &spoofed).await;
    assert_eq!(answer.json()["resource"], "https://gate.example/mcp");
    assert!(!String::from_utf8(answer.body).unwrap().contains("evil"));
}

/// META-08: HEAD equals GET without its body; the tag is strong and gives 304.
#[tokio::test]
async fn head_and_conditional_requests() {
    let app = App::start();
    let get = ask(&app, "GET", AT[0], &[]).await;
    let head = ask(&app, "HEAD", AT[0], &[]).await;
    assert!(head.body.is_empty());
    for name in ["content-type", "content-length", "cache-control", "etag", "access-control-allow-origin"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
        assert!(!get.header(name).is_empty(), "{name}");
    }
    assert_eq!(get.header("cache-control"), "public, max-age=3600");
    let etag = get.header("etag");
    assert!(etag.starts_with('"') && etag.ends_with('"'));
    for matching in [etag, "*", &format!("W/{etag}"), &format!("\"x\", {etag}")] {
        let answer = ask(&app, "GET", AT[0], &[("if-none-match", matching)]).await;
        assert_eq!(answer.status, 304, "{matching}");
        assert!(answer.body.is_empty());
        assert_eq!(answer.header("etag"), etag);
    }
    for other in ["\"x\"", "", &etag[1..], "\"*\""] {
        assert_eq!(ask(&app, "GET", AT[0], &[("if-none-match", other)]).await.status, 200, "{other}");
    }
}

/// META-08, HTTP-06, 07, 08: other methods are refused in JSON, preflights answered; readable by any origin.
#[tokio::test]
async fn other_methods_are_refused() {
    let app = App::start();
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE"] {
        let answer = ask(&app, method, AT[0], &[]).await;
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), "GET, HEAD, OPTIONS");
        assert_eq!(answer.json()["error"], "method_not_allowed");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
    }
    let preflight = ask(&app, "OPTIONS", AT[0], &[("origin", "http://localhost:6274")]).await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), "*");
    assert_eq!(preflight.header("access-control-allow-methods"), "GET, HEAD");
    assert_eq!(preflight.header("access-control-allow-headers"), "MCP-Protocol-Version");
    assert_eq!(preflight.header("access-control-max-age"), "600");
    assert!(preflight.header("access-control-allow-credentials").is_empty());
}

/// HTTP-08: a path without an endpoint is refused in JSON.
#[tokio::test]
async fn other_endpoints_have_no_document() {
    let app = App::start();
    for path in ["/other", "/mcp/", "/mcp/docs", "/MCP"] {
        let answer = ask(&app, "GET", &format!("{}{path}", AT[1]), &[]).await;
        assert_eq!((answer.status, answer.header("content-type")), (404, "application/json"), "{path}");
    }
}

/// HTTP-04: every response has the security headers.
#[tokio::test]
async fn every_response_is_hardened() {
    let app = App::start();
    let answer = ask(&app, "GET", AT[0], &[]).await;
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    assert_eq!(answer.header("cross-origin-resource-policy"), "cross-origin");
    let answer = ask(&app, "GET", "/mcp", &[]).await;
    assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin");
}
