//! Client addresses behind proxies: which address is recorded and limited, and which header is trusted.

use reqwest::Response;

use crate::harness::TestApp;

/// A request that fails, with headers from a proxy or a client.
async fn fail(app: &TestApp, headers: &[(&str, &str)]) -> Response {
    let request = app.http.post(app.url("/token"));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.form(&[("grant_type", "refresh_token"), ("client_id", "nobody")]).send().await.unwrap()
}

/// The address in the latest record.
fn on_record(app: &TestApp) -> String {
    let audit = app.audit();
    let latest = audit.iter().rev().find(|record| record["src_ip"].is_string());
    latest.unwrap()["src_ip"].as_str().unwrap().to_owned()
}

/// HTTP-02, RATE-01: the recorded address is the right-most one that was added by a trusted proxy and is not
/// itself a trusted proxy; a malformed entry ends the chain, and then the proxy's own address is used.
#[tokio::test]
async fn the_address_of_the_client_is_on_record() {
    let networks = "trusted_proxies = [\"127.0.0.1\", \"::1\", \"10.0.0.0/8\"]";
    let base = format!("issuer = \"https://auth.example\"\n{networks}\n");
    let app = TestApp::start_configured(&base).await;
    let forwarded = TestApp::start_configured(&format!("{base}forwarded_header = \"Forwarded\"")).await;
    for (said, recorded) in [
        (&["203.0.113.9"][..], "203.0.113.9"),
        (&["198.51.100.1, 203.0.113.9, 10.1.2.3"], "203.0.113.9"),
        (&["198.51.100.1", "203.0.113.9", "10.1.2.3"], "203.0.113.9"),
        (&["203.0.113.9:4711"], "203.0.113.9"),
        (&["[2001:db8::1]:4711, 10.1.2.3, 10.1.2.4"], "2001:db8::1"),
        (&["::ffff:203.0.113.9"], "203.0.113.9"),
        (&[], "127.0.0.1"),
        (&[""], "127.0.0.1"),
        (&["203.0.113.9, nonsense"], "127.0.0.1"),
        (&["203.0.113.9, nonsense, 10.1.2.3"], "10.1.2.3"),
        (&["203.0.113.9,"], "127.0.0.1"),
        (&["203.0.113.9 10.1.2.3"], "127.0.0.1"),
        (&["203.0.113.256"], "127.0.0.1"),
        (&["auth.example"], "127.0.0.1"),
    ] {
        let headers: Vec<_> = said.iter().map(|value| ("x-forwarded-for", *value)).collect();
        assert_eq!(fail(&app, &headers).await.status(), 401);
        assert_eq!(on_record(&app), recorded, "{said:?}");
        // A proxy that writes the other header passes on this one from strangers.
        assert_eq!(fail(&forwarded, &headers).await.status(), 401);
        assert_eq!(on_record(&forwarded), "127.0.0.1", "{said:?}");
    }
    for (said, recorded) in [
        ("for=203.0.113.9;proto=https;by=10.1.2.3", "203.0.113.9"),
        ("for=198.51.100.1, for=\"[2001:db8::1]:4711\", For=10.1.2.3", "2001:db8::1"),
        ("for=_hidden", "127.0.0.1"),
        ("for=203.0.113.9;for=203.0.113.10", "127.0.0.1"),
        ("203.0.113.9", "127.0.0.1"),
    ] {
        fail(&forwarded, &[("forwarded", said)]).await;
        assert_eq!(on_record(&forwarded), recorded, "{said}");
    }
}

/// HTTP-02, RATE-01: limits count by the address that a trusted proxy names; a client's own header gives it no
/// other bucket, and unreadable addresses share the proxy's.
#[tokio::test]
async fn limits_count_the_address_of_the_client() {
    let app =
        TestApp::start_https("[rate]\ntoken_address = 3\ntoken_client = \"off\"\nclient_auth = \"off\"")
            .await;
    let status = async |said: &str| fail(&app, &[("x-forwarded-for", said)]).await.status().as_u16();
    for n in 0..3 {
        assert_eq!(status(&format!("198.51.100.{n}, 203.0.113.9")).await, 401);
    }
    assert_eq!(status("198.51.100.77, 203.0.113.9").await, 429);
    assert_eq!(status("203.0.113.9").await, 429);
    assert_eq!(status("203.0.113.10").await, 401, "a neighbour");
    // One IPv6 network counts as one address.
    for n in 1..4 {
        assert_eq!(status(&format!("2001:db8:0:1::{n}")).await, 401);
    }
    assert_eq!(status("2001:db8:0:1:ffff::1").await, 429);
    assert_eq!(status("2001:db8:0:2::1").await, 401);
    for n in 0..3 {
        assert_eq!(status(&format!("203.0.113.200, nonsense {n}")).await, 401);
    }
    assert_eq!(status("203.0.113.201, unknown").await, 429);
    assert_eq!(status("").await, 429);
}

/// HTTP-02: the headers of an untrusted peer are ignored, with TLS and on loopback.
#[tokio::test]
async fn strangers_are_not_believed() {
    let limits = "[rate]\ntoken_address = 3\ntoken_client = \"off\"\nclient_auth = \"off\"";
    let loopback = TestApp::start_configured(limits).await;
    let secured = TestApp::start_secured(&format!("trusted_proxies = [\"10.0.0.0/8\"]\n{limits}")).await;
    for app in [loopback, secured] {
        for n in 0..3 {
            let address = format!("203.0.113.{n}");
            let element = format!("for={address}");
            let headers = [
                ("x-forwarded-for", address.as_str()),
                ("forwarded", &element),
                ("x-real-ip", &address),
                ("x-forwarded-host", "evil.example"),
                ("x-forwarded-proto", "http"),
            ];
            assert_eq!(fail(&app, &headers).await.status(), 401);
            assert!(["127.0.0.1", "::1"].contains(&on_record(&app).as_str()));
        }
        assert_eq!(fail(&app, &[("x-forwarded-for", "203.0.113.99")]).await.status(), 429);
    }
}

/// HTTP-01, HTTP-02: if only proxies speak TLS, requests from other peers are refused, whatever their headers
/// say.
#[tokio::test]
async fn only_proxies_are_answered_where_they_speak_tls() {
    let app =
        TestApp::start_configured("issuer = \"https://auth.example\"\ntrusted_proxies = [\"10.0.0.0/8\"]")
            .await;
    for headers in [&[][..], &[("x-forwarded-for", "10.0.0.1")], &[("x-forwarded-for", "127.0.0.1")]] {
        let answer = fail(&app, headers).await;
        assert_eq!((answer.status().as_u16(), answer.headers().get("location")), (403, None));
        assert!(answer.text().await.unwrap().contains("tls_required"));
    }
    for path in ["/", "/mcp", "/jwks.json"] {
        assert_eq!(app.get(path).await.status(), 403, "{path}");
    }
    // A probe may come from any address (OPS-05).
    assert_eq!(app.get("/healthz").await.status(), 200);
}
