//! The public documents as clients fetch them, under one host name only.

use serde_json::{Value, json};

use crate::harness::{TestApp, header};

/// META-02, META-05, META-06, META-07, META-08, KEYS-01: the documents, as clients fetch them.
#[tokio::test(flavor = "multi_thread")]
async fn the_documents_are_public_and_cacheable() {
    let app = TestApp::start().await;
    for path in [
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-protected-resource/mcp",
        "/.well-known/oauth-protected-resource",
        "/jwks.json",
        "/.well-known/jwks.json",
    ] {
        let response = app.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(header(response.headers(), "content-type"), Some("application/json"), "{path}");
        assert_eq!(header(response.headers(), "access-control-allow-origin"), Some("*"), "{path}");
        assert!(
            header(response.headers(), "cache-control").unwrap().starts_with("public, max-age="),
            "{path}"
        );
        let etag = header(response.headers(), "etag").unwrap().to_owned();
        let body = response.bytes().await.unwrap();
        assert!(!body.is_empty());
        let cached = app.http.get(app.url(path)).header("if-none-match", &etag).send().await.unwrap();
        assert_eq!(cached.status(), 304, "{path}");
        let head = app.http.head(app.url(path)).send().await.unwrap();
        assert_eq!(
            (head.status().as_u16(), header(head.headers(), "etag")),
            (200, Some(etag.as_str())),
            "{path}"
        );
        let post = app.http.post(app.url(path)).send().await.unwrap();
        assert_eq!(post.status(), 405, "{path}");
        assert!(header(post.headers(), "allow").is_some(), "{path}");
        let preflight = app.http.request(reqwest::Method::OPTIONS, app.url(path)).send().await.unwrap();
        assert_eq!(preflight.status(), 204, "{path}");
    }
}

/// META-01, META-04, META-09: one issuer everywhere, and only working features are advertised.
#[tokio::test(flavor = "multi_thread")]
async fn metadata_tells_the_truth() {
    let app = TestApp::start().await;
    let metadata: Value = app.get("/.well-known/oauth-authorization-server").await.json().await.unwrap();
    assert_eq!(metadata["issuer"], app.origin);
    assert_eq!(metadata["code_challenge_methods_supported"], json!(["S256"]));
    let methods = json!(["none", "client_secret_basic", "client_secret_post", "private_key_jwt"]);
    assert_eq!(metadata["token_endpoint_auth_methods_supported"], methods);
    assert_eq!(metadata["authorization_response_iss_parameter_supported"], true);
    assert_eq!(metadata["protected_resources"], json!([app.mcp_url()]));
    for (member, value) in metadata.as_object().unwrap() {
        assert!(!value.is_null() && value != &json!([]), "{member}");
        if member.ends_with("_endpoint") || member.ends_with("_uri") {
            let url = value.as_str().unwrap();
            assert!(url.starts_with(&app.origin), "{url}");
            assert_ne!(app.http.get(url).send().await.unwrap().status(), 404, "{url}");
        }
    }
    let resource: Value = app.get("/.well-known/oauth-protected-resource/mcp").await.json().await.unwrap();
    assert_eq!(resource["resource"], app.mcp_url());
    assert_eq!(resource["authorization_servers"], json!([app.origin]));
    assert_eq!(resource["scopes_supported"], json!(["docs.read"]));
}

/// META-03, HTTP-08: disabled features answer 404 in JSON.
#[tokio::test(flavor = "multi_thread")]
async fn disabled_features_are_not_in_the_metadata() {
    let app = TestApp::start().await;
    for path in [
        "/.well-known/openid-configuration",
        "/.well-known/anything",
        "/device_authorization",
        "/.well-known/oauth-protected-resource/other",
    ] {
        let response = app.get(path).await;
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(header(response.headers(), "content-type"), Some("application/json"), "{path}");
    }
    let page = app.http.get(app.url("/nowhere")).header("accept", "text/html").send().await.unwrap();
    assert_eq!(page.status(), 404);
    assert!(page.text().await.unwrap().contains("Page not found"));
}

/// HTTP-03, META-01: an unknown host is refused and never appears in a response.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_host_is_refused() {
    let app = TestApp::start().await;
    for path in ["/.well-known/oauth-authorization-server", "/", "/authorize", "/token"] {
        let response = app.http.get(app.url(path)).header("host", "evil.example").send().await.unwrap();
        assert_eq!(response.status(), 421, "{path}");
        assert!(!response.text().await.unwrap().contains("evil.example"), "{path}");
    }
    let forwarded = app
        .http
        .get(app.url("/.well-known/oauth-authorization-server"))
        .header("x-forwarded-host", "evil.example");
    assert!(!forwarded.send().await.unwrap().text().await.unwrap().contains("evil"));
    // A page requested by address redirects to the passkeys' host name; an API path answers directly.
    let literal = app.origin.replace("localhost", "127.0.0.1");
    let page = app.http.get(format!("{literal}/setup")).send().await.unwrap();
    assert_eq!(
        (page.status().as_u16(), header(page.headers(), "location").map(str::to_owned)),
        (302, Some(app.url("/setup")))
    );
    assert_eq!(app.http.get(format!("{literal}/jwks.json")).send().await.unwrap().status(), 200);
}
