//! Client authentication over HTTP: every method from registration to revocation, and the refusals.

use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::assertion::{self, ALGORITHMS, ClientKey};
use crate::harness::{Browser, Client, TestApp, Tokens, error_of, header};

/// A form that would refresh if the client authenticated.
const REFRESH: [(&str, &str); 2] = [("grant_type", "refresh_token"), ("refresh_token", "rt_unknown")];

/// How a client authenticates.
enum Proof {
    Nothing,
    Basic(String),
    Post(String),
    Key(ClientKey),
}

/// A self-registered client and its credentials.
struct Registered {
    client: Client,
    proof: Proof,
}

impl Registered {
    /// Registers a client with this method, or with none named, and uses the response.
    async fn new(
        app: &TestApp,
        method: Option<&str>,
        proof: impl FnOnce(&str) -> Proof,
        jwks: Option<Value>,
    ) -> Self {
        let mut metadata = json!({
            "client_name": "Test client",
            "redirect_uris": ["http://localhost/callback"],
            "grant_types": ["authorization_code", "refresh_token"],
        });
        if let Some(method) = method {
            metadata["token_endpoint_auth_method"] = method.into();
        }
        if let Some(jwks) = jwks {
            metadata["jwks"] = jwks;
        }
        let response = app.register(&metadata).await;
        assert_eq!(response.status(), 201, "{metadata}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["token_endpoint_auth_method"], method.unwrap_or("client_secret_basic"));
        assert_eq!(body["jwks"], metadata["jwks"]);
        let by_secret = method.is_none_or(|method| method.starts_with("client_secret"));
        let secret = body["client_secret"].as_str().unwrap_or_default();
        assert_eq!(
            (secret.starts_with("cs_"), secret.len()),
            if by_secret { (true, 46) } else { (false, 0) }
        );
        assert_eq!(body.get("client_secret_expires_at"), by_secret.then_some(&json!(0)));
        let client = Client {
            id: body["client_id"].as_str().unwrap().to_owned(),
            redirect_uri: "http://localhost:5123/callback".to_owned(),
        };
        Self { proof: proof(secret), client }
    }

    async fn with_key(app: &TestApp, alg: &'static str) -> Self {
        let key = ClientKey::generate(alg);
        let jwks = Some(key.jwks());
        Self::new(app, Some("private_key_jwt"), |_| Proof::Key(key), jwks).await
    }

    /// Posts a form as this client.
    async fn post(&self, app: &TestApp, path: &str, form: &[(&str, &str)]) -> Response {
        let mut form: Vec<(&str, String)> = form
            .iter()
            .filter(|(name, _)| *name != "client_id")
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        let id = &self.client.id;
        let mut request = app.http.post(app.url(path));
        match &self.proof {
            Proof::Nothing => form.push(("client_id", id.clone())),
            Proof::Basic(secret) => request = request.basic_auth(id, Some(secret)),
            Proof::Post(secret) => {
                form.extend([("client_id", id.clone()), ("client_secret", secret.clone())]);
            }
            Proof::Key(key) => form.extend(key.form(app, id)),
        }
        request.form(&form).send().await.unwrap()
    }

    async fn tokens(&self, app: &TestApp, browser: &mut Browser) -> Tokens {
        let code = browser.authorize(app, &self.client).await;
        let response = self.post(app, "/token", &self.client.redemption(&code)).await;
        assert_eq!(response.status(), 200);
        Tokens::of(response).await
    }

    /// Sign-in, call, refresh, call, revocation.
    async fn story(&self, app: &TestApp, browser: &mut Browser) {
        let tokens = self.tokens(app, browser).await;
        assert_eq!(
            app.call_tool(&tokens.access, "docs_search", json!({"query": "falcon"})).await.status(),
            200
        );
        let form = [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.as_str())];
        let refreshed = self.post(app, "/token", &form).await;
        assert_eq!(refreshed.status(), 200);
        let refreshed = Tokens::of(refreshed).await;
        assert_eq!(app.call_tool(&refreshed.access, "whoami", json!({})).await.status(), 200);
        assert_eq!(self.post(app, "/revoke", &[("token", &refreshed.refresh)]).await.status(), 200);
        assert_eq!(app.call_tool(&refreshed.access, "whoami", json!({})).await.status(), 401);
    }
}

fn basic(secret: &str) -> Proof {
    Proof::Basic(secret.to_owned())
}

fn post(secret: &str) -> Proof {
    Proof::Post(secret.to_owned())
}

/// CAUTH-01, CAUTH-02, DCR-06, META-04: a client without a secret, with one in the header, with one in the
/// form, and one that named no method, which may use both.
#[tokio::test(flavor = "multi_thread")]
async fn clients_with_and_without_secrets_go_all_the_way() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    Registered::new(&app, Some("none"), |_| Proof::Nothing, None).await.story(&app, &mut browser).await;
    Registered::new(&app, Some("client_secret_basic"), basic, None).await.story(&app, &mut browser).await;
    Registered::new(&app, Some("client_secret_post"), post, None).await.story(&app, &mut browser).await;
    let mut either = Registered::new(&app, None, basic, None).await;
    either.story(&app, &mut browser).await;
    let Proof::Basic(secret) = &either.proof else { unreachable!() };
    let secret = secret.clone();
    either.proof = post(&secret);
    either.story(&app, &mut browser).await;
    let metadata: Value = app.get("/.well-known/oauth-authorization-server").await.json().await.unwrap();
    for endpoint in ["token", "revocation"] {
        let methods = &metadata[format!("{endpoint}_endpoint_auth_methods_supported")];
        assert_eq!(methods, &json!(["none", "client_secret_basic", "client_secret_post", "private_key_jwt"]));
        assert_eq!(
            metadata[format!("{endpoint}_endpoint_auth_signing_alg_values_supported")],
            json!(ALGORITHMS)
        );
    }
    // The database has no secret (STORE-01).
    let files =
        ["portcullis.db", "portcullis.db-wal"].map(|file| std::fs::read(app.data_dir().join(file)).unwrap());
    let holds =
        |bytes: &[u8]| files.iter().any(|file| file.windows(bytes.len()).any(|window| window == bytes));
    assert!(!holds(secret.as_bytes()));
    assert!(holds(&Sha256::digest(&secret)), "its digest is there");
}

/// CAUTH-05, CAUTH-06, META-04: a client with a key, for each advertised algorithm.
#[tokio::test(flavor = "multi_thread")]
async fn clients_with_keys_go_all_the_way() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    for alg in ALGORITHMS {
        Registered::with_key(&app, alg).await.story(&app, &mut browser).await;
    }
}

/// CAUTH-01, CAUTH-07, REFRESH-03: any other method than the registered one is refused, and nothing is used up.
#[tokio::test(flavor = "multi_thread")]
async fn another_method_is_refused_and_spends_nothing() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let key = ClientKey::generate("ES256");
    let clients = [
        Registered::new(&app, Some("none"), |_| Proof::Nothing, None).await,
        Registered::new(&app, Some("client_secret_basic"), basic, None).await,
        Registered::new(&app, Some("client_secret_post"), post, None).await,
        Registered::with_key(&app, "ES256").await,
    ];
    for (own, registered) in clients.iter().enumerate() {
        let id = registered.client.id.clone();
        let secret = match &registered.proof {
            Proof::Basic(secret) | Proof::Post(secret) => secret.clone(),
            _ => "cs_x".to_owned(),
        };
        let code = browser.authorize(&app, &registered.client).await;
        let tokens = registered.tokens(&app, &mut browser).await;
        let redemption = registered.client.redemption(&code);
        let refresh = vec![("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.as_str())];
        for form in [&redemption, &refresh] {
            let mut bare: Vec<(&str, String)> = form.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
            bare.retain(|(name, _)| *name != "client_id");
            let named = [bare.clone(), vec![("client_id", id.clone())]].concat();
            let with_secret = [named.clone(), vec![("client_secret", secret.clone())]].concat();
            let with_key = [bare.clone(), key.form(&app, &id).to_vec()].concat();
            let request = |form: &[(&str, String)]| app.http.post(app.url("/token")).form(form);
            let others: [RequestBuilder; 4] = [
                request(&named),
                request(&bare).basic_auth(&id, Some(&secret)),
                request(&with_secret),
                request(&with_key),
            ];
            for (method, request) in others.into_iter().enumerate() {
                if method == own && method != 3 {
                    continue;
                }
                let refused = error_of(request.send().await.unwrap()).await;
                assert_eq!(
                    refused,
                    (StatusCode::UNAUTHORIZED, "invalid_client".to_owned()),
                    "{own} {method}"
                );
            }
        }
        assert_eq!(registered.post(&app, "/token", &redemption).await.status(), 200);
        assert_eq!(registered.post(&app, "/token", &refresh).await.status(), 200);
    }
}

/// CAUTH-02, CAUTH-03: an unknown client gets the same error with every method, and the same as one with a
/// wrong secret or key; the challenge is sent to callers who used the header.
#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_reads_the_same() {
    let app = TestApp::start().await;
    let url = app.url("/token");
    let unknown = "dyn_aaaaaaaaaaaaaaaaaaaaaaaaaa";
    let known = Registered::new(&app, None, basic, None).await.client.id;
    let with_key = Registered::with_key(&app, "ES256").await.client.id;
    let mut answers = Vec::new();
    for id in [unknown, known.as_str()] {
        let request = app.http.post(&url).basic_auth(id, Some("cs_x")).form(&REFRESH);
        let refused = request.send().await.unwrap();
        let challenge = header(refused.headers(), "www-authenticate").map(str::to_owned);
        assert_eq!(challenge.as_deref(), Some("Basic realm=\"token\", charset=\"UTF-8\""));
        answers.push(refused);
    }
    let mut forms = vec![vec![]];
    for id in [unknown, known.as_str(), with_key.as_str()] {
        forms.push(vec![("client_id", id.to_owned()), ("client_secret", "cs_x".to_owned())]);
        forms.push(vec![("client_id", id.to_owned())]);
        forms.extend(ALGORITHMS.map(|alg| ClientKey::generate(alg).form(&app, id).to_vec()));
    }
    for mut form in forms {
        form.extend(REFRESH.map(|(name, value)| (name, value.to_owned())));
        let refused = app.http.post(&url).form(&form).send().await.unwrap();
        assert_eq!(header(refused.headers(), "www-authenticate"), None);
        answers.push(refused);
    }
    for refused in answers {
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(header(refused.headers(), "cache-control"), Some("no-store"));
        let body: Value = refused.json().await.unwrap();
        assert_eq!(
            body,
            json!({"error": "invalid_client", "error_description": "client authentication failed"})
        );
    }
    let reasons = app.audit().into_iter().filter(|r| r["event"] == "client.auth_failed");
    let reasons: Vec<Value> = reasons.map(|mut record| record["reason"].take()).collect();
    for reason in
        ["client_unknown", "client_secret_wrong", "client_auth_method_wrong", "client_assertion_signature"]
    {
        assert!(reasons.contains(&json!(reason)), "the audit log tells them apart: {reason}");
    }
}

/// CAUTH-02: a malformed Basic header is answered with the challenge.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_header_is_answered_with_the_challenge() {
    let app = TestApp::start().await;
    for value in ["Basic", "Basic ???", "Basic bm9jb2xvbg==", "Bearer abc", "DPoP abc"] {
        let request = app.http.post(app.url("/token")).header("authorization", value).form(&REFRESH);
        let refused = request.send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{value}");
        assert!(header(refused.headers(), "www-authenticate").unwrap().starts_with("Basic "), "{value}");
    }
    assert!(app.has_event("client.auth_failed", Some("client_credentials_malformed")));
}

/// TOKEN-04: two methods at once are an invalid request.
#[tokio::test(flavor = "multi_thread")]
async fn two_methods_at_once_are_an_invalid_request() {
    let app = TestApp::start().await;
    let registered = Registered::new(&app, None, basic, None).await;
    let Proof::Basic(secret) = &registered.proof else { unreachable!() };
    let id = registered.client.id.as_str();
    let form = [("client_id", id), ("client_secret", secret), REFRESH[0], REFRESH[1]];
    let both = app.http.post(app.url("/token")).basic_auth(id, Some(secret)).form(&form);
    let refused = error_of(both.send().await.unwrap()).await;
    assert_eq!(refused, (StatusCode::BAD_REQUEST, "invalid_request".to_owned()));
}

/// CAUTH-05: an assertion authenticates one request, the first at any endpoint, also after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_is_spent_by_its_first_use() {
    let app = TestApp::start().await;
    let registered = Registered::with_key(&app, "EdDSA").await;
    let Proof::Key(key) = &registered.proof else { unreachable!() };
    let assertion = key.assertion(&app, &registered.client.id);
    let send = |path: &str| {
        let mut form = assertion::form(assertion.clone()).to_vec();
        form.extend([("token", "rt_unknown".to_owned())]);
        form.extend(REFRESH.map(|(name, value)| (name, value.to_owned())));
        app.http.post(app.url(path)).form(&form).send()
    };
    let answers = futures_util::future::join_all((0..8).map(|_| send("/token"))).await;
    let statuses: Vec<u16> = answers.into_iter().map(|answer| answer.unwrap().status().as_u16()).collect();
    // The authenticated request gets the error about its refresh token.
    assert_eq!(statuses.iter().filter(|status| **status == 400).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 7, "{statuses:?}");
    assert_eq!(send("/revoke").await.unwrap().status(), 401);
    assert!(app.has_event("client.auth_failed", Some("client_assertion_replayed")));
    let app = app.restart().await;
    let form = assertion::form(assertion.clone());
    let again = app.http.post(app.url("/revoke")).form(&form).send().await.unwrap();
    assert_eq!(error_of(again).await.1, "invalid_client");
}

/// CAUTH-05, CAUTH-06: invalid assertions over HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_assertion_is_an_invalid_client() {
    let app = TestApp::start().await;
    let registered = Registered::with_key(&app, "ES256").await;
    let Proof::Key(key) = &registered.proof else { unreachable!() };
    let id = registered.client.id.as_str();
    let claim = |name: &str, value: Value| {
        let mut claims = assertion::claims(&app, id);
        claims[name] = value;
        key.sign(&key.header(), &claims)
    };
    let head = |name: &str, value: Value| {
        let mut header = key.header();
        header[name] = value;
        key.sign(&header, &assertion::claims(&app, id))
    };
    let now = app.clock.now().seconds();
    for assertion in [
        claim("aud", json!(app.url("/token"))),
        claim("aud", json!([app.origin])),
        claim("aud", json!([app.origin, "https://other.example"])),
        claim("iss", json!("dyn_other")),
        claim("sub", json!("dyn_other")),
        claim("exp", json!(now + 361)),
        claim("exp", json!(now - 60)),
        claim("nbf", json!(now + 61)),
        claim("jti", Value::Null),
        head("typ", json!("at+jwt")),
        head("alg", json!("none")),
        head("alg", json!("HS256")),
        head("jwk", key.jwks()["keys"][0].clone()),
        head("jku", json!("https://evil.example/jwks.json")),
        head("crit", json!(["exp"])),
        head("kid", json!("another")),
        "x".to_owned(),
    ] {
        let mut form = assertion::form(assertion.clone()).to_vec();
        form.extend(REFRESH.map(|(name, value)| (name, value.to_owned())));
        let refused = app.http.post(app.url("/token")).form(&form).send().await.unwrap();
        assert_eq!(error_of(refused).await.1, "invalid_client", "{assertion}");
    }
    let accepted = registered.post(&app, "/token", &REFRESH).await;
    assert_eq!(error_of(accepted).await.1, "invalid_grant");
}

/// AUDIT-06: a flood of strangers neither fills the disk nor goes unrecorded, at any endpoint; one kind does
/// not use up another's records.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_strangers_is_counted() {
    let app = TestApp::start().await;
    let strange = [("client_id", "nobody"), REFRESH[0], REFRESH[1]];
    let client = app.client().await;
    let public = [("client_id", client.id.as_str()), ("token", "rt_unknown"), REFRESH[0], REFRESH[1]];
    let post = |path: &str, form: &[(&str, &str)]| app.http.post(app.url(path)).form(form).send();
    for _ in 0..130 {
        assert_eq!(post("/token", &strange).await.unwrap().status(), 401);
        assert_eq!(post("/token", &public).await.unwrap().status(), 400);
        assert_eq!(post("/revoke", &public).await.unwrap().status(), 200);
        assert_eq!(app.register(&json!({})).await.status(), 400);
        assert_eq!(app.get("/authorize").await.status(), 400);
        assert_eq!(post("/consent", &[]).await.unwrap().status(), 403);
        assert_eq!(post("/login/finish", &[]).await.unwrap().status(), 403);
        assert_eq!(post("/sign-out", &[]).await.unwrap().status(), 403);
    }
    let app = app.restart().await;
    for event in [
        "client.auth_failed",
        "token.refused",
        "token.revoked",
        "client.registered",
        "authz.error",
        "authz.denied",
        "webauthn.failed",
        "session.ended",
    ] {
        let refused: Vec<Value> = app
            .audit()
            .into_iter()
            .filter(|record| record["event"] == event && record["outcome"] != "allowed")
            .collect();
        assert_eq!(refused.len(), 121, "{event}");
        assert_eq!(
            (&refused[120]["reason"], &refused[120]["detail"]["count"]),
            (&json!("flood"), &json!(10))
        );
    }
}
