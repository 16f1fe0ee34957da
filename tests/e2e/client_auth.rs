//! Client authentication over the wire: every method, and what a refusal tells.

use reqwest::StatusCode;
use serde_json::Value;

use crate::assertion::{ALGORITHMS, ClientKey};
use crate::harness::{TestApp, header};

/// A form that would refresh, if the client were made out.
const REFRESH: [(&str, &str); 2] = [("grant_type", "refresh_token"), ("refresh_token", "rt_unknown")];

/// CAUTH-02, CAUTH-03: a client that nobody knows is told the same by whatever method; the challenge is there for
/// whoever tried the header.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_client_hears_the_same_by_every_method() {
    let app = TestApp::start().await;
    let url = app.url("/token");
    let id = "dyn_aaaaaaaaaaaaaaaaaaaaaaaaaa";
    let mut bodies = Vec::new();
    let basic = app.http.post(&url).basic_auth(id, Some("cs_x")).form(&REFRESH).send().await.unwrap();
    assert_eq!(header(basic.headers(), "www-authenticate"), Some("Basic realm=\"token\", charset=\"UTF-8\""));
    assert_eq!(basic.status(), StatusCode::UNAUTHORIZED);
    bodies.push(basic.json::<Value>().await.unwrap());
    let mut forms = vec![vec![("client_id", id.to_owned()), ("client_secret", "cs_x".to_owned())]];
    forms.push(vec![("client_id", id.to_owned())]);
    forms.push(vec![]);
    forms.extend(ALGORITHMS.map(|alg| ClientKey::generate(alg).form(&app, id).to_vec()));
    for mut form in forms {
        form.extend(REFRESH.map(|(name, value)| (name, value.to_owned())));
        let refused = app.http.post(&url).form(&form).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(header(refused.headers(), "www-authenticate"), None);
        bodies.push(refused.json().await.unwrap());
    }
    for body in &bodies {
        assert_eq!(body, &bodies[0]);
    }
    assert_eq!(bodies[0]["error"], "invalid_client");
}

/// CAUTH-02: a header that cannot be read as Basic is answered with how to write it.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_header_is_answered_with_the_challenge() {
    let app = TestApp::start().await;
    for value in ["Basic", "Basic ???", "Basic bm9jb2xvbg==", "Bearer abc", "DPoP abc"] {
        let request = app.http.post(app.url("/token")).header("authorization", value).form(&REFRESH);
        let refused = request.send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{value}");
        assert!(header(refused.headers(), "www-authenticate").unwrap().starts_with("Basic "), "{value}");
    }
    let audited = app.audit();
    assert!(
        audited
            .iter()
            .any(|r| r["event"] == "client.auth_failed" && r["reason"] == "client_credentials_malformed")
    );
}
