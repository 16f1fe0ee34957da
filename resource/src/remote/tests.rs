use std::sync::Mutex as StdMutex;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use shared::Timestamp;

use super::*;
use crate::testing;

/// An authorization server that a test controls, with counters.
#[derive(Default)]
struct Stage {
    issuer: String,
    jwks: Vec<u8>,
    max_age: u32,
    down: bool,
    said: Option<(u16, Value)>,
    /// The number of requests for metadata, key set and introspection.
    asked: [usize; 3],
    last: String,
}

type Shared = Arc<StdMutex<Stage>>;

struct Fake {
    stage: Shared,
    issuer: Issuer,
}

impl Fake {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = Issuer::localhost(listener.local_addr().unwrap().port());
        let jwks = testing::keys().jwks().body.to_vec();
        let stage = Stage { issuer: issuer.to_string(), jwks, max_age: 300, ..Stage::default() };
        let stage = Arc::new(StdMutex::new(stage));
        let routes = Router::new()
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .route("/jwks.json", get(jwks_json))
            .route("/introspect", post(introspect))
            .with_state(Arc::clone(&stage));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { stage, issuer }
    }

    fn change(&self, change: impl FnOnce(&mut Stage)) {
        change(&mut self.stage.lock().unwrap());
    }

    fn asked(&self) -> [usize; 3] {
        self.stage.lock().unwrap().asked
    }

    fn remote(&self, clock: &Clock, checks: &[(&str, Check)]) -> Arc<Remote> {
        let config = Config {
            issuer: self.issuer.clone(),
            client_id: "c_gateway".to_owned(),
            client_secret: Secret::presented("cs_secret"),
            ca: None,
            cache: Duration::from_secs(5),
            checks: checks.iter().map(|(scope, check)| ((*scope).to_owned(), *check)).collect(),
        };
        let scopes = [("low".to_owned(), Risk::Low), ("high".to_owned(), Risk::High)];
        Remote::new(config, scopes, clock.clone()).unwrap()
    }
}

fn answer(stage: &mut Stage, which: usize, body: Vec<u8>) -> Response {
    stage.asked[which] += 1;
    if stage.down {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    ([("cache-control", format!("public, max-age={}", stage.max_age))], body).into_response()
}

async fn metadata(State(stage): State<Shared>) -> Response {
    let stage = &mut *stage.lock().unwrap();
    let issuer = stage.issuer.clone();
    let url = |path: &str| format!("{issuer}{path}");
    let body = json!({"issuer": issuer, "jwks_uri": url("/jwks.json"), "introspection_endpoint": url("/introspect")});
    answer(stage, 0, body.to_string().into_bytes())
}

async fn jwks_json(State(stage): State<Shared>) -> Response {
    let stage = &mut *stage.lock().unwrap();
    let body = stage.jwks.clone();
    answer(stage, 1, body)
}

async fn introspect(State(stage): State<Shared>, request: axum::extract::Request) -> Response {
    let authorization = request.headers().get("authorization").unwrap().to_str().unwrap().to_owned();
    let body = axum::body::to_bytes(request.into_body(), 100_000).await.unwrap();
    let stage = &mut *stage.lock().unwrap();
    stage.last = format!("{authorization} {}", String::from_utf8_lossy(&body));
    let (status, said) = stage.said.clone().unwrap_or((200, json!({"active": false})));
    let mut response = answer(stage, 2, said.to_string().into_bytes());
    if response.status() == StatusCode::OK {
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
    }
    response
}

fn clock() -> Clock {
    Clock::held(Timestamp(1_795_435_200_000))
}

fn active(token: &AccessToken) -> Value {
    json!({"active": true, "scope": "low", "entitled_scope": "low high", "sub": token.sub,
        "jti": token.jti.to_string(), "client_id": token.client_id})
}

fn is_live(standing: &Result<Standing, Unavailable>) -> Option<bool> {
    standing.as_ref().ok().map(|standing| matches!(standing, Standing::Live { .. }))
}

/// KEYS-07, RS-09: the key set is fetched once for its lifetime, then again; without an answer it is not used
/// longer.
#[tokio::test]
async fn the_key_set_is_kept_for_its_lifetime() {
    let (fake, clock) = (Fake::start().await, clock());
    let remote = fake.remote(&clock, &[]);
    let signed = testing::keys().sign(&testing::token("low")).unwrap();
    for _ in 0..3 {
        remote.keys().await.unwrap();
    }
    assert_eq!(fake.asked(), [1, 1, 0]);
    assert!(remote.verifier().verify(&signed.text).is_ok());
    clock.advance(Duration::from_secs(299));
    fake.change(|stage| stage.down = true);
    remote.keys().await.unwrap();
    clock.advance(Duration::from_secs(1));
    assert_eq!(remote.keys().await, Err(Unavailable));
    let asked = fake.asked();
    assert_eq!(remote.keys().await, Err(Unavailable));
    assert_eq!(fake.asked(), asked, "one silence is not waited for by everybody");
    fake.change(|stage| stage.down = false);
    clock.advance(PAUSE);
    remote.keys().await.unwrap();
}

/// KEYS-07: an unknown key causes at most one fetch in thirty seconds.
#[tokio::test]
async fn an_unknown_key_is_looked_for_now_and_then() {
    let (fake, clock) = (Fake::start().await, clock());
    let remote = fake.remote(&clock, &[]);
    remote.keys().await.unwrap();
    assert_eq!(remote.look_again().await, Ok(true));
    for _ in 0..20 {
        assert_eq!(remote.look_again().await, Ok(false));
    }
    assert_eq!(fake.asked()[1], 2);
    clock.advance(COOLDOWN);
    assert_eq!(remote.look_again().await, Ok(true));
    assert_eq!(fake.asked()[1], 3);
}

/// RS-08: an answer is reused as long as the check allows; the strictest scope decides.
#[tokio::test]
async fn an_answer_is_as_old_as_its_check_allows() {
    let (fake, clock) = (Fake::start().await, clock());
    let remote = fake.remote(&clock, &[]);
    let (token, text) = (testing::token("low"), Secret::presented("a.b+c=="));
    let scope = |text: &str| -> Scope { text.parse().unwrap() };
    assert_eq!(remote.check_for(Some(&scope("low"))), Check::Cached);
    assert_eq!(remote.check_for(Some(&scope("low high"))), Check::Always);
    assert_eq!(remote.check_for(Some(&scope("nobody.knows"))), Check::Always);
    assert_eq!(remote.check_for(None), Check::Cached);
    assert_eq!(remote.check_for(Some(&Scope::empty())), Check::Cached);

    fake.change(|stage| stage.said = Some((200, active(&token))));
    for _ in 0..3 {
        let Ok(Standing::Live { entitled, .. }) = remote.ask(&text, &token, Check::Cached).await else {
            panic!("it is live")
        };
        assert_eq!(entitled.to_string(), "high low");
    }
    assert_eq!(fake.asked()[2], 1);
    assert_eq!(fake.stage.lock().unwrap().last, "Basic Y19nYXRld2F5OmNzX3NlY3JldA== token=a.b%2Bc%3D%3D");
    assert_eq!(is_live(&remote.ask(&text, &token, Check::Always).await), Some(true));
    assert_eq!(fake.asked()[2], 2);

    fake.change(|stage| stage.said = None);
    clock.advance(Duration::from_millis(4999));
    assert_eq!(is_live(&remote.ask(&text, &token, Check::Cached).await), Some(true));
    assert_eq!(is_live(&remote.ask(&text, &token, Check::Always).await), Some(false));
    // An answer to a strict question is cached for the other checks too.
    assert_eq!(is_live(&remote.ask(&text, &token, Check::Cached).await), Some(false));
    assert!(matches!(remote.standing(&token, "kid"), Standing::Dead));
    clock.advance(Duration::from_secs(5));
    fake.change(|stage| stage.said = Some((200, active(&token))));
    assert!(matches!(remote.standing(&token, "kid"), Standing::Dead), "nobody has said anything");
    assert_eq!(is_live(&remote.ask(&text, &token, Check::Cached).await), Some(true));
}

/// RS-08, REFRESH-06: with `ExpiryOnly` no answer is waited for, and stricter checks are not affected.
#[tokio::test]
async fn expiry_only_mode_sends_no_status_request() {
    let (fake, clock) = (Fake::start().await, clock());
    let (token, text) = (testing::token("low"), Secret::presented("x"));
    assert_eq!(fake.remote(&clock, &[]).floor(), Check::Cached);
    let remote = fake.remote(&clock, &[("low", Check::ExpiryOnly)]);
    assert_eq!(remote.floor(), Check::ExpiryOnly);
    assert_eq!(remote.check_for(Some(&"low high".parse().unwrap())), Check::Always);
    let Ok(Standing::Live { entitled, .. }) = remote.ask(&text, &token, Check::ExpiryOnly).await else {
        panic!("it is live")
    };
    assert_eq!(*entitled, token.scope);
    // The use of the token is reported once, and the answer changes nothing.
    let told = async {
        while fake.asked()[2] == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), told).await.unwrap();
    for _ in 0..3 {
        assert_eq!(is_live(&remote.ask(&text, &token, Check::ExpiryOnly).await), Some(true));
        clock.advance(Duration::from_mins(1));
    }
    assert_eq!(fake.asked()[2], 1);
}

/// RS-09: an error, or an answer about another token, is never accepted as valid.
#[tokio::test]
async fn a_missing_status_answer_refuses_the_token() {
    let (fake, clock) = (Fake::start().await, clock());
    let remote = fake.remote(&clock, &[]);
    let (token, text) = (testing::token("low"), Secret::presented("x"));
    let with = |name: &str, value: Value| {
        let mut said = active(&token);
        said[name] = value;
        said
    };
    for (status, said) in [
        (200, json!("active")),
        (200, json!({})),
        (200, json!({"active": "true"})),
        (200, json!({"active": true})),
        (200, with("sub", json!("u_somebody"))),
        (200, with("jti", json!("another.0"))),
        (200, with("client_id", json!("dyn_another"))),
        (200, with("entitled_scope", json!(["low"]))),
        (401, json!({"error": "invalid_client"})),
        (403, json!({"error": "access_denied"})),
        (429, json!({"error": "temporarily_unavailable"})),
        (503, active(&token)),
        (302, active(&token)),
    ] {
        fake.change(|stage| stage.said = Some((status, said.clone())));
        for check in [Check::Cached, Check::Always] {
            assert_eq!(is_live(&remote.ask(&text, &token, check).await), None, "{status} {said}");
            clock.advance(PAUSE);
        }
    }
    fake.change(|stage| stage.said = Some((200, active(&token))));
    assert_eq!(is_live(&remote.ask(&text, &token, Check::Always).await), Some(true));
    fake.change(|stage| stage.issuer = "http://localhost:1".to_owned());
    clock.advance(Duration::from_hours(1));
    assert_eq!(is_live(&remote.ask(&text, &token, Check::Always).await), None, "metadata of another issuer");
}

/// RS-08: an answer to an earlier question does not replace one to a later question.
#[test]
fn a_late_answer_overwrites_nothing_newer() {
    let clock = clock();
    let config = Config {
        issuer: Issuer::localhost(1),
        client_id: "c".to_owned(),
        client_secret: Secret::presented("s"),
        ca: None,
        cache: Duration::from_mins(1),
        checks: BTreeMap::new(),
    };
    let remote = Remote::new(config, [], clock).unwrap();
    let token = testing::token("low");
    let at = Duration::from_secs;
    remote.remember(&token.jti, TimedAnswer { at: at(2), standing: Standing::Dead });
    remote.remember(&token.jti, TimedAnswer { at: at(1), standing: unasked(&token) });
    assert!(matches!(remote.standing(&token, "kid"), Standing::Dead));
}

mod tls {
    use openssl::asn1::Asn1Time;
    use openssl::bn::BigNum;
    use openssl::hash::MessageDigest;
    use openssl::pkey::{PKey, Private};
    use openssl::ssl::{Ssl, SslAcceptor};
    use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
    use openssl::x509::{X509, X509Builder, X509NameBuilder};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn certificate(name: &str) -> (X509, PKey<Private>) {
        let key = PKey::from_rsa(openssl::rsa::Rsa::generate(2048).unwrap()).unwrap();
        let mut subject = X509NameBuilder::new().unwrap();
        subject.append_entry_by_text("CN", name).unwrap();
        let subject = subject.build();
        let mut builder = X509Builder::new().unwrap();
        builder.set_version(2).unwrap();
        builder.set_serial_number(&BigNum::from_u32(1).unwrap().to_asn1_integer().unwrap()).unwrap();
        builder.set_subject_name(&subject).unwrap();
        builder.set_issuer_name(&subject).unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
        builder.append_extension(BasicConstraints::new().ca().build().unwrap()).unwrap();
        let names = SubjectAlternativeName::new().dns(name).build(&builder.x509v3_context(None, None));
        builder.append_extension(names.unwrap()).unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        (builder.build(), key)
    }

    /// Answers every request with the same few bytes.
    async fn serve(certificate: X509, key: PKey<Private>) -> u16 {
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        acceptor.set_private_key(&key).unwrap();
        acceptor.set_certificate(&certificate).unwrap();
        let acceptor = acceptor.build();
        let listener = tokio::net::TcpListener::bind("localhost:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let mut stream = SslStream::new(Ssl::new(acceptor.context()).unwrap(), tcp).unwrap();
                tokio::spawn(async move {
                    if Pin::new(&mut stream).accept().await.is_err() {
                        return;
                    }
                    let mut head = [0; 4096];
                    while matches!(stream.read(&mut head).await, Ok(read) if read > 0) {
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        let _ = stream.write_all(answer).await;
                    }
                });
            }
        });
        port
    }

    use openssl::ssl::SslMethod;
    use shared::outbound::{Failure, NotSent};
    use std::pin::Pin;
    use tokio_openssl::SslStream;

    /// OPS-08, RS-07: the host's certificate must be from a named authority and for the right name.
    #[tokio::test]
    async fn a_host_must_present_a_valid_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let (right, key) = certificate("localhost");
        let (other, other_key) = certificate("elsewhere.example");
        let pem = |name: &str, certificate: &X509| {
            let path = dir.path().join(name);
            std::fs::write(&path, certificate.to_pem().unwrap()).unwrap();
            path
        };
        let (ca, other_ca) = (pem("ca.pem", &right), pem("other.pem", &other));
        let port = serve(right, key).await;
        let misnamed = serve(other, other_key).await;
        let origin = |port: u16, ca: Option<PathBuf>| {
            Origin::new(&Issuer::parse(&format!("https://localhost:{port}")).unwrap(), ca)
        };
        let good = origin(port, Some(ca.clone()));
        for _ in 0..3 {
            assert_eq!(good.get("/x").await.unwrap().body, "ok");
        }
        for (port, ca) in [
            (port, Some(other_ca.clone())),
            (misnamed, Some(other_ca)),
            (port, Some(dir.path().join("missing.pem"))),
            (port, None),
        ] {
            let refused = origin(port, ca.clone()).get("/x").await.err().unwrap();
            assert!(
                matches!(
                    refused,
                    origin::NoAnswer::Failed(Failure::NotSent(NotSent::Unproven(_) | NotSent::TrustStore(_)))
                ),
                "{ca:?}: {refused}"
            );
        }
        // A replaced certificate is used for the next connection.
        let replaced = origin(port, Some(dir.path().join("missing.pem")));
        assert!(replaced.get("/x").await.is_err());
        std::fs::copy(&ca, dir.path().join("missing.pem")).unwrap();
        assert_eq!(replaced.get("/x").await.unwrap().body, "ok");
    }
}

/// RS-09, RATE-06: a bad answer about one token refuses that one alone, and an authorization server that cannot be reached
/// refuses all for a moment.
#[tokio::test]
async fn a_bad_answer_about_one_token_refuses_nobody_else() {
    let (fake, clock) = (Fake::start().await, clock());
    let remote = fake.remote(&clock, &[]);
    let (one, other, text) = (testing::token("low"), testing::token("low"), Secret::presented("x"));
    for (status, said) in [
        (200, json!({"active": "true"})),
        (200, active(&other)),
        (200, json!("x".repeat(300_000))),
        (401, json!({"error": "invalid_client"})),
        (500, json!({})),
        (302, active(&one)),
    ] {
        fake.change(|stage| stage.said = Some((status, said.clone())));
        assert_eq!(is_live(&remote.ask(&text, &one, Check::Always).await), None, "{status}");
        fake.change(|stage| stage.said = Some((200, active(&other))));
        assert_eq!(is_live(&remote.ask(&text, &other, Check::Always).await), Some(true), "{status}");
    }
}
