//! Clients that an administrator adds, with a secret or a key, and refused descriptions.

use std::time::Duration;

use reqwest::Response;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::assertion::ClientKey;
use crate::clients::{refused, whoami};
use crate::harness::{Client, TestApp, Tokens, VERIFIER, error_of, redirect_parameter};
use crate::process::portcullis;

const WEB: &str = "https://portal.example/cb";

/// An administrator's client, with its secret.
struct Confidential {
    client: Client,
    secret: String,
}

impl Confidential {
    fn add(app: &TestApp, name: &str) -> Self {
        Self::of(&app.console(&["client", "add", name, "--redirect-uri", WEB, "--secret"]))
    }

    fn of(added: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Self {
            client: Client { id: text(&added["client"]["id"]), redirect_uri: WEB.to_owned() },
            secret: text(&added["client_secret"]),
        }
    }

    /// Posts a form to an endpoint, with the secret in the header.
    async fn post(&self, app: &TestApp, path: &str, secret: &str, form: &[(&str, &str)]) -> Response {
        let request = app.http.post(app.url(path)).basic_auth(&self.client.id, Some(secret));
        request.form(form).send().await.unwrap()
    }

    async fn redeem(&self, app: &TestApp, code: &str) -> Response {
        let form = [("grant_type", "authorization_code"), ("code", code), ("code_verifier", VERIFIER)];
        self.post(app, "/token", &self.secret, &form).await
    }

    async fn refresh(&self, app: &TestApp, token: &str) -> Response {
        let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
        self.post(app, "/token", &self.secret, &form).await
    }

    /// Whether a secret is this client's, by the token endpoint's answer to an unknown code.
    async fn is_accepted(&self, app: &TestApp, secret: &str) -> bool {
        let form = [("grant_type", "authorization_code"), ("code", "ac_x"), ("code_verifier", VERIFIER)];
        match error_of(self.post(app, "/token", secret, &form).await).await {
            (status, error) if status == 400 && error == "invalid_grant" => true,
            (status, error) if status == 401 && error == "invalid_client" => false,
            other => panic!("{other:?}"),
        }
    }
}

/// CAUTH-01, CAUTH-03, CAUTH-04, AT-03, DCR-08: a client with a secret, added by an administrator: sign-in,
/// call, refresh, revocation, and refusal after it was disabled. Its secret is sent in the header or the form,
/// is shown once and never stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_secret_from_first_to_last() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let added = app.console(&["client", "add", "Ticket portal", "--redirect-uri", WEB, "--secret"]);
    let portal = Confidential::of(&added);
    assert!(
        portal.client.id.starts_with("c_") && portal.secret.starts_with("cs_") && portal.secret.len() == 46
    );
    let client = &added["client"];
    assert_eq!((&client["source"], &client["trust"]), (&json!("administrator"), &json!("verified")));
    assert_eq!(client["grant_types"], json!(["authorization_code", "refresh_token"]));
    assert_eq!(client["redirect_uris"], json!([{"uri": WEB, "usable": true}]));
    assert_eq!(client["secrets"][0]["expires_at"], Value::Null);

    let page = ada.consent_page(&app, &portal.client.authorize_url(&app)).await;
    assert!(page.html.contains("Ticket portal") && page.html.contains("portal.example"));
    let code = redirect_parameter(&ada.decide(&app, &page, "approve").await, "code").unwrap();
    // Neither a missing nor a wrong secret uses up the code.
    let (status, error) = error_of(app.redeem(&portal.client, &code).await).await;
    assert_eq!((status.as_u16(), error.as_str()), (401, "invalid_client"));
    assert!(!portal.is_accepted(&app, &portal.secret[..45]).await);
    let tokens = Tokens::of(portal.redeem(&app, &code).await).await;
    assert_eq!(tokens.claims()["client_id"], portal.client.id.as_str());
    assert_eq!(whoami(&app, &tokens.access).await, 200);

    let refreshed = Tokens::of(portal.refresh(&app, &tokens.refresh).await).await;
    let by_form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", &refreshed.refresh),
        ("client_id", &portal.client.id),
        ("client_secret", &portal.secret),
    ];
    let refreshed = Tokens::of(app.token(&by_form).await).await;
    assert_eq!(whoami(&app, &refreshed.access).await, 200);
    let revoked = portal.post(&app, "/revoke", &portal.secret, &[("token", &refreshed.refresh)]).await;
    assert_eq!(revoked.status(), 200);
    assert_eq!(whoami(&app, &refreshed.access).await, 401);
    assert_eq!(error_of(portal.refresh(&app, &refreshed.refresh).await).await.1, "invalid_grant");

    let code = ada.authorize(&app, &portal.client).await;
    let tokens = Tokens::of(portal.redeem(&app, &code).await).await;
    app.console(&["client", "disable", "Ticket portal"]);
    assert_eq!(whoami(&app, &tokens.access).await, 401);
    assert!(!portal.is_accepted(&app, &portal.secret).await);

    let shown = app.console(&["client", "show", "Ticket portal"]).to_string();
    assert!(!shown.contains(&portal.secret[..12]), "{shown}");
    let files =
        ["portcullis.db", "portcullis.db-wal"].map(|file| std::fs::read(app.data_dir().join(file)).unwrap());
    let holds =
        |bytes: &[u8]| files.iter().any(|file| file.windows(bytes.len()).any(|window| window == bytes));
    assert!(!holds(portal.secret.as_bytes()));
    assert!(holds(&Sha256::digest(&portal.secret)), "its digest is there");
}

/// CAUTH-05, CAUTH-06, CAUTH-01, DCR-08: a client with a key, added by an administrator: sign-in, call,
/// refresh, revocation, and refusal after it was disabled. Its private half is never shown, and is refused if
/// it is given.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_key_from_first_to_last() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let (key, other) = (ClientKey::generate("ES256"), ClientKey::generate("ES256"));
    let file = app.data_dir().with_file_name("keys.json");
    std::fs::write(&file, key.jwks().to_string()).unwrap();
    let jwks = ["--jwks", file.to_str().unwrap()];
    let added = app.console(&[&["client", "add", "Portal", "--redirect-uri", WEB][..], &jwks].concat());
    let client =
        Client { id: added["client"]["id"].as_str().unwrap().to_owned(), redirect_uri: WEB.to_owned() };
    assert_eq!(added["client"]["auth_method"], "private_key_jwt");
    assert_eq!(added["client"]["keys"], json!([key.jwks()["keys"][0]["kid"]]));
    assert_eq!((&added["client_secret"], &added["client"]["secrets"]), (&Value::Null, &json!([])));

    let post = async |path: &str, by: &ClientKey, form: &[(&str, &str)]| {
        let proof = by.form(&app, &client.id);
        let proof = proof.iter().map(|(name, value)| (*name, value.as_str()));
        let form: Vec<(&str, &str)> = form.iter().copied().chain(proof).collect();
        app.http.post(app.url(path)).form(&form).send().await.unwrap()
    };
    let code = ada.authorize(&app, &client).await;
    let redemption =
        [("grant_type", "authorization_code"), ("code", code.as_str()), ("code_verifier", VERIFIER)];
    assert_eq!(error_of(post("/token", &other, &redemption).await).await.1, "invalid_client");
    assert_eq!(error_of(app.redeem(&client, &code).await).await.1, "invalid_client");
    let tokens = Tokens::of(post("/token", &key, &redemption).await).await;
    assert_eq!(whoami(&app, &tokens.access).await, 200);
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.as_str())];
    let tokens = Tokens::of(post("/token", &key, &refresh).await).await;
    assert_eq!(whoami(&app, &tokens.access).await, 200);
    assert_eq!(post("/revoke", &key, &[("token", &tokens.refresh)]).await.status(), 200);
    assert_eq!(whoami(&app, &tokens.access).await, 401);

    let code = ada.authorize(&app, &client).await;
    let redemption =
        [("grant_type", "authorization_code"), ("code", code.as_str()), ("code_verifier", VERIFIER)];
    app.console(&["client", "disable", "Portal"]);
    assert_eq!(error_of(post("/token", &key, &redemption).await).await.1, "invalid_client");

    let mut private = key.jwks();
    private["keys"][0]["d"] = "AQAB".into();
    let add = ["client", "add", "Other", "--redirect-uri", WEB, jwks[0], jwks[1]];
    for (text, says) in [
        (private.to_string(), "it holds a private or a shared key"),
        ("{\"keys\":[]}".to_owned(), "it has no public key"),
        ("-----BEGIN PUBLIC KEY-----".to_owned(), "it is not JSON"),
    ] {
        std::fs::write(&file, text).unwrap();
        assert!(refused(&app, &add).contains(says), "{says}");
    }
    std::fs::remove_file(&file).unwrap();
    assert!(refused(&app, &add).contains("cannot read the keys"));
    let line = refused(&app, &["client", "rotate-secret", "Portal"]);
    assert!(line.contains("it authenticates by private_key_jwt"), "{line}");
}

/// CAUTH-04: two secrets are live while one replaces the other, never three, and each ends at its time.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_overlap_and_end() {
    let app = TestApp::start().await;
    let portal = Confidential::add(&app, "Portal");
    let rotate = |options: &[&str]| {
        let answer = app.console(&[&["client", "rotate-secret", "Portal"], options].concat());
        (answer["client_secret"].as_str().unwrap().to_owned(), answer)
    };
    let first = portal.secret.clone();
    app.clock.advance(Duration::from_mins(1));
    let (second, answer) = rotate(&[]);
    let end = app.clock.now().0 + 24 * 3_600_000;
    assert_eq!(answer["previous_ends_at"], end);
    let secrets = &answer["client"]["secrets"];
    assert_eq!((&secrets[0]["expires_at"], &secrets[1]["expires_at"]), (&json!(end), &Value::Null));
    app.clock.advance(Duration::from_hours(24) - Duration::from_millis(1));
    assert!(portal.is_accepted(&app, &first).await && portal.is_accepted(&app, &second).await);
    app.clock.advance(Duration::from_millis(1));
    assert!(!portal.is_accepted(&app, &first).await && portal.is_accepted(&app, &second).await);

    // With a third one the oldest ends at once, before its time.
    let (third, _) = rotate(&["--overlap", "2h"]);
    app.clock.advance(Duration::from_mins(1));
    let (fourth, answer) = rotate(&["--overlap", "1h", "--expires", "90m"]);
    assert_eq!(answer["previous_ends_at"], app.clock.now().0 + 3_600_000);
    assert_eq!(answer["client"]["secrets"].as_array().unwrap().len(), 2);
    assert!(!portal.is_accepted(&app, &second).await);
    assert!(portal.is_accepted(&app, &third).await && portal.is_accepted(&app, &fourth).await);
    // A longer overlap does not extend an earlier end.
    app.clock.advance(Duration::from_hours(1));
    assert!(!portal.is_accepted(&app, &third).await && portal.is_accepted(&app, &fourth).await);
    let (fifth, answer) = rotate(&["--overlap", "24h"]);
    assert_eq!(answer["previous_ends_at"], app.clock.now().0 + 30 * 60_000);
    app.clock.advance(Duration::from_mins(30));
    assert!(!portal.is_accepted(&app, &fourth).await && portal.is_accepted(&app, &fifth).await);

    let (sixth, answer) = rotate(&["--overlap", "0"]);
    assert_eq!(answer["previous_ends_at"], Value::Null);
    assert!(!portal.is_accepted(&app, &fifth).await && portal.is_accepted(&app, &sixth).await);
    let changed: Vec<Value> = app
        .audit()
        .into_iter()
        .filter(|record| record["event"] == "client.updated")
        .map(|record| record["detail"]["changed_fields"].clone())
        .collect();
    assert_eq!(changed, vec![json!(["client_secret"]); 5]);
    for secret in [first, second, third, fourth, fifth, sixth] {
        assert!(!app.audit().iter().any(|record| record.to_string().contains(&secret[3..])));
    }
}

/// CAUTH-04, OPS-04: secrets issued or replaced while the clock was wrong keep their duration after the
/// correction: a client's, and a resource server's, which is checked at every introspection.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_a_wrong_time_end_in_time() {
    let app = TestApp::start().await;
    let portal = Confidential::add(&app, "Portal");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let server = app.console(&["rs", "add", "elsewhere", "--audience", &app.mcp_url()]);
    let (server, first_of_server) = (text(&server["resource_server"]["id"]), text(&server["client_secret"]));
    let introspects = async |secret: &str| {
        let request = app.http.post(app.url("/introspect")).basic_auth(&server, Some(secret));
        request.form(&[("token", "x")]).send().await.unwrap().status() == 200
    };
    let right = app.clock.wall();
    app.clock.set(shared::Timestamp(2_208_988_800_000));
    let rotated = |arguments: &[&str]| text(&app.console(arguments)["client_secret"]);
    let second = rotated(&["client", "rotate-secret", "Portal", "--overlap", "1h", "--expires", "30d"]);
    let second_of_server = rotated(&["rs", "rotate-secret", "elsewhere", "--overlap", "1h"]);
    app.clock.set(right);
    app.console(&["clock", "confirm", "--yes"]);

    let minute = Duration::from_mins(1);
    app.clock.advance(Duration::from_mins(59));
    assert!(portal.is_accepted(&app, &portal.secret).await && portal.is_accepted(&app, &second).await);
    assert!(introspects(&first_of_server).await && introspects(&second_of_server).await);
    app.clock.advance(minute);
    assert!(!portal.is_accepted(&app, &portal.secret).await && portal.is_accepted(&app, &second).await);
    assert!(!introspects(&first_of_server).await && introspects(&second_of_server).await);
    app.clock.advance(Duration::from_mins((30 * 24 - 1) * 60 - 1));
    assert!(portal.is_accepted(&app, &second).await);
    app.clock.advance(minute);
    assert!(!portal.is_accepted(&app, &second).await);
    assert!(introspects(&second_of_server).await, "it has no end");
}

/// DCR-13, CC-01, REDIR-03: an invalid client is refused with one line that says why, and nothing is stored.
#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_client_description_is_refused() {
    let app = TestApp::start().await;
    Confidential::add(&app, "Portal");
    app.console(&["client", "add", "Laptop tool", "--redirect-uri", "http://localhost/cb"]);
    let uri = ["--redirect-uri", WEB];
    let with = |name: &'static str, rest: &[&'static str]| [&["client", "add", name], rest].concat();
    for (arguments, says) in [
        (with("portal!", &uri), "looks like the name of the verified client c_"),
        (with("PORTCULLIS", &uri), "this server's own name"),
        (with("c_x", &uri), "is not a valid client name"),
        (with("X", &[]), "it would have no use"),
        (with("X", &["--redirect-uri", "http://portal.example/cb"]), "is http to another computer"),
        (with("X", &["--redirect-uri", "https://portal.example/cb#f"]), "has a fragment"),
        (with("X", &["--grant", "password", uri[0], uri[1]]), "unknown grant type `password`"),
        (with("X", &["--grant", "authorization_code"]), "needs a redirect URI"),
        (with("X", &["--grant", "refresh_token"]), "neither is among its grants"),
        (with("X", &["--client-credentials", "--scope", "docs.read"]), "give it a secret or keys"),
        (
            with("X", &["--secret", "--client-credentials", "--scope", "docs.reed"]),
            "no tool needs a scope `docs.reed`",
        ),
        (with("X", &["--secret", "--client-credentials", "--scope", "a\"b"]), "--scope `a\"b`"),
        (vec!["client", "rotate-secret", "Laptop tool"], "has no secret: it authenticates by none"),
        (vec!["client", "rotate-secret", "Nobody"], "no client `Nobody`"),
    ] {
        let line = refused(&app, &arguments);
        assert!(line.contains(says), "{arguments:?}: {line}");
    }
    // An invalid command line exits with 2.
    for arguments in [
        with("X", &["--secret", "--public", uri[0], uri[1]]),
        with("X", &["--expires", "90d", uri[0], uri[1]]),
        with("X", &["--secret", "--client-credentials"]),
        with("X", &["--secret", "--scope", "docs.read"]),
        with("X", &["--secret", "--expires", "0", uri[0], uri[1]]),
        with("X", &["--secret", "--expires", "soon", uri[0], uri[1]]),
        vec!["client", "rotate-secret", "Portal", "--overlap", "1"],
        vec!["client", "add"],
    ] {
        assert_eq!(portcullis(&arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(app.console(&["client", "list"])["clients"].as_array().unwrap().len(), 2);
    assert_eq!(app.events().iter().filter(|(event, _)| event == "client.registered").count(), 2);
}
