//! Signing keys: publication, rotation and removal.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use crate::harness::{Browser, Client, TestApp, Tokens, header};
use crate::process::{complaint, portcullis};

async fn jwks(app: &TestApp) -> Vec<Value> {
    let body: Value = app.get("/jwks.json").await.json().await.unwrap();
    body["keys"].as_array().unwrap().clone()
}

async fn kids(app: &TestApp) -> BTreeSet<String> {
    jwks(app).await.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

/// Waits until the key set meets a condition.
async fn until(app: &TestApp, as_it_should_be: impl Fn(&[Value]) -> bool) {
    let look = async {
        while !as_it_should_be(&jwks(app).await) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), look).await.expect("the key set changes");
}

fn kid_of(token: &str) -> String {
    let header = BASE64URL_NOPAD.decode(token.split('.').next().unwrap().as_bytes()).unwrap();
    serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
}

async fn family(app: &TestApp) -> (Browser, Client, Tokens) {
    let mut browser = app.admin().await;
    let client = app.client().await;
    let tokens = app.tokens(&mut browser, &client).await;
    (browser, client, tokens)
}

/// Refreshes until another key signs.
async fn signed_by_another(app: &TestApp, client: &Client, mut tokens: Tokens) -> Tokens {
    let first = kid_of(&tokens.access);
    let look = async {
        while kid_of(&tokens.access) == first {
            tokens = Tokens::of(app.refresh(client, &tokens.refresh).await).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), look).await.expect("the next key takes over");
    tokens
}

async fn works(app: &TestApp, tokens: &Tokens) -> u16 {
    app.call_tool(&tokens.access, "whoami", json!({})).await.status().as_u16()
}

/// The error message of a command that is refused.
fn refused(app: &TestApp, arguments: &[&str]) -> String {
    let data = app.data_dir();
    let output = portcullis(&[arguments, &["--data-dir", data.to_str().unwrap()]].concat());
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    complaint(&output)
}

/// KEYS-01, META-08: public members, names and algorithms; cacheable and readable by other origins.
#[tokio::test(flavor = "multi_thread")]
async fn the_key_set_is_published() {
    let app = TestApp::start().await;
    for path in ["/jwks.json", "/.well-known/jwks.json"] {
        let response = app.get(path).await;
        assert_eq!(response.status(), 200);
        let headers = response.headers().clone();
        assert_eq!(header(&headers, "content-type"), Some("application/json"));
        assert_eq!(header(&headers, "cache-control"), Some("public, max-age=300"));
        assert_eq!(header(&headers, "access-control-allow-origin"), Some("*"));
        let etag = header(&headers, "etag").unwrap().to_owned();
        let body: Value = response.json().await.unwrap();
        assert_ne!(body["keys"], json!([]));
        for key in body["keys"].as_array().unwrap() {
            assert_eq!(key["use"], "sig");
            assert!(key["kid"].is_string() && key["alg"].is_string() && key["kty"].is_string());
            for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
                assert!(key.get(private).is_none());
            }
        }
        let again = app.http.get(app.url(path)).header("if-none-match", &etag).send().await.unwrap();
        assert_eq!(again.status(), 304);
        let head = app.http.head(app.url(path)).send().await.unwrap();
        assert_eq!((head.status().as_u16(), header(head.headers(), "etag")), (200, Some(etag.as_str())));
        let set =
            app.http.get(app.url(path)).header("accept", "application/jwk-set+json").send().await.unwrap();
        assert_eq!(header(set.headers(), "content-type"), Some("application/jwk-set+json"));
        let post = app.http.post(app.url(path)).send().await.unwrap();
        assert_eq!((post.status().as_u16(), header(post.headers(), "allow")), (405, Some("GET,HEAD")));
    }
}

/// KEYS-02, KEYS-03: a whole rotation by the schedule: no valid token is refused at any step, and a restart in
/// between changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_by_themselves() {
    let app = TestApp::start().await;
    let (mut browser, client, tokens) = family(&app).await;
    let first = kid_of(&tokens.access);
    app.clock.advance((89 * 24 * 60 - 1) * Duration::from_mins(1));
    assert_eq!(kid_of(&app.tokens(&mut browser, &client).await.access), first);
    assert_eq!(jwks(&app).await.len(), 2);
    app.clock.advance(Duration::from_mins(1));
    until(&app, |keys| keys.len() == 4).await;
    let app = app.restart().await;
    assert_eq!(jwks(&app).await.len(), 4);
    app.clock.advance((24 * 60 - 1) * Duration::from_mins(1));
    let before = app.tokens(&mut browser, &client).await;
    assert_eq!(kid_of(&before.access), first);
    app.clock.advance(Duration::from_mins(1));
    let after = signed_by_another(&app, &client, before.clone()).await;
    assert_eq!((works(&app, &before).await, works(&app, &after).await), (200, 200));
    let app = app.restart().await;
    assert_eq!((works(&app, &before).await, works(&app, &after).await), (200, 200));
    app.clock.advance(Duration::from_mins(71));
    until(&app, |keys| keys.len() == 2).await;
    assert!(!kids(&app).await.contains(&first));
    for event in ["key.published", "key.activated", "key.retired", "key.removed"] {
        assert!(app.events().iter().any(|(name, _)| name == event), "{event}");
    }
}

/// KEYS-03: on demand the next key is published at once, and signs when all caches have it.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_on_demand_breaks_nothing() {
    let app = TestApp::start().await;
    let (_, client, tokens) = family(&app).await;
    let first = kid_of(&tokens.access);
    let rotated = app.console(&["key", "rotate"])["rotated"].clone();
    assert_eq!((&rotated["state"], &rotated["alg"]), (&json!("next"), &json!("ES256")));
    let next = rotated["kid"].as_str().unwrap().to_owned();
    assert!(kids(&app).await.contains(&next));
    let early = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
    assert_eq!(kid_of(&early.access), first);
    let listed = app.console(&["key", "list"])["keys"].clone();
    let mut states: Vec<_> =
        listed.as_array().unwrap().iter().map(|key| key["state"].as_str().unwrap()).collect();
    states.sort_unstable();
    assert_eq!(states, ["active", "active", "next"]);
    assert_eq!(listed.as_array().unwrap().iter().filter(|key| key["signs"] == true).count(), 1);

    app.clock.advance(Duration::from_mins(10));
    let late = signed_by_another(&app, &client, early.clone()).await;
    assert_eq!(kid_of(&late.access), next);
    assert_eq!((works(&app, &early).await, works(&app, &late).await), (200, 200));

    // At once, for the other algorithm, and only with a confirmation.
    assert!(refused(&app, &["key", "rotate", "--now"]).contains("--yes"));
    let rotated = app.console(&["key", "rotate", "--alg", "RS256", "--now", "--yes"])["rotated"].clone();
    assert_eq!((&rotated["state"], &rotated["alg"]), (&json!("active"), &json!("RS256")));
    assert!(refused(&app, &["key", "rotate", "--alg", "EdDSA"]).contains("signing_alg"));
    assert_eq!(works(&app, &late).await, 200);
}

/// KEYS-04: a removed key disappears from the set, and its tokens are refused from then on; the command first
/// says who is affected, and asks.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_key_takes_its_tokens_with_it() {
    let app = TestApp::start().await;
    let (_, client, tokens) = family(&app).await;
    assert_eq!(works(&app, &tokens).await, 200);
    let old = kid_of(&tokens.access);
    let remove = ["key", "remove", "--kid", &old, "--reason", "the laptop was stolen"];
    let complaint = refused(&app, &remove);
    assert!(complaint.contains("nothing was done") && complaint.contains("--yes"), "{complaint}");
    assert_eq!(works(&app, &tokens).await, 200);

    let removed = app.console(&[&remove[..], &["--yes"]].concat())["removed"].clone();
    // The next request.
    assert_eq!(works(&app, &tokens).await, 401);
    assert_eq!((&removed["was"], &removed["alg"]), (&json!("active"), &json!("ES256")));
    let blast = &removed["blast"];
    assert_eq!((&blast["grants"], &blast["users"], &blast["clients"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!(blast["expires_by"], json!(app.clock.now().0 + 15 * 60 * 1000));
    let successor = removed["successor"].as_str().unwrap();
    let published = kids(&app).await;
    assert!(!published.contains(&old) && published.contains(successor));
    let fresh = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
    assert_eq!(kid_of(&fresh.access), successor);
    assert_eq!(works(&app, &fresh).await, 200);
    let audit = app.audit();
    let record = audit.iter().find(|record| record["event"] == "key.removed").unwrap();
    assert_eq!(record["detail"]["reason"], "the laptop was stolen");
    assert_eq!((&record["detail"]["kid"], &record["detail"]["alg"]), (&json!(old), &json!("ES256")));
    assert!(record["actor"]["id"].as_str().unwrap().starts_with("uid "));

    let app = app.restart().await;
    assert_eq!((works(&app, &tokens).await, works(&app, &fresh).await), (401, 200));
    let mut again = remove.to_vec();
    again.push("--yes");
    assert!(refused(&app, &again).contains("no signing key"));
    assert!(
        refused(&app, &["key", "remove", "--kid", successor, "--reason", " ", "--yes"])
            .contains("give a reason")
    );
    assert_eq!(works(&app, &fresh).await, 200);
}

/// KEYS-04: only grants that may have a token of this key are counted.
#[tokio::test(flavor = "multi_thread")]
async fn the_blast_radius_is_of_this_key() {
    let app = TestApp::start().await;
    let (_, client, tokens) = family(&app).await;
    let old = kid_of(&tokens.access);
    app.console(&["key", "rotate", "--now", "--yes"]);
    let new = kid_of(&Tokens::of(app.refresh(&client, &tokens.refresh).await).await.access);
    let grants = |kid: &str| {
        let data = app.data_dir();
        let output = portcullis(&[
            "key",
            "remove",
            "--kid",
            kid,
            "--reason",
            "x",
            "--data-dir",
            data.to_str().unwrap(),
        ]);
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(grants(&old).contains("on 1 grants"), "{}", grants(&old));
    assert!(grants(&new).contains("on 1 grants"));
    app.clock.advance(Duration::from_mins(16));
    assert!(grants(&old).contains("No valid token was signed by it"));
    assert!(
        grants(&new).contains("No valid token was signed by it")
            && grants(&new).contains("A new key signs at once")
    );
}

/// ADMIN-05, KEYS-04: the same without a server, under the lock; the next server finds it done.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_changed_while_nothing_runs() {
    let app = TestApp::start().await;
    let (_, client, tokens) = family(&app).await;
    let old = kid_of(&tokens.access);
    let stopped = app.stop().await;
    let command = |arguments: &[&str]| -> Value {
        let output = portcullis(
            &[arguments, &["--json", "--data-dir", stopped.data_dir().to_str().unwrap()]].concat(),
        );
        assert!(output.status.success(), "{}", complaint(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    assert_eq!(command(&["key", "list"])["keys"].as_array().unwrap().len(), 2);
    let next = command(&["key", "rotate"])["rotated"]["kid"].clone();
    let removed = command(&["key", "remove", "--kid", &old, "--reason", "x", "--yes"]);
    let app = stopped.start().await;
    let published = kids(&app).await;
    assert!(published.contains(next.as_str().unwrap()) && !published.contains(&old));
    assert_eq!(works(&app, &tokens).await, 401);
    let fresh = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
    assert_eq!(kid_of(&fresh.access), removed["removed"]["successor"].as_str().unwrap());
    assert_eq!(works(&app, &fresh).await, 200);
}

/// AT-01, KEYS-03: another algorithm is configured with one line; Ed25519 by either name.
#[tokio::test(flavor = "multi_thread")]
async fn the_algorithm_is_configured() {
    for (name, alg) in [("RS256", "RS256"), ("EdDSA", "EdDSA"), ("Ed25519", "EdDSA")] {
        let app = TestApp::start_configured(&format!("[keys]\nsigning_alg = \"{name}\"\n")).await;
        let (_, _, tokens) = family(&app).await;
        let kid = kid_of(&tokens.access);
        let keys = jwks(&app).await;
        let key = keys.iter().find(|key| key["kid"] == kid.as_str()).unwrap();
        assert_eq!(key["alg"], alg);
        assert_eq!(works(&app, &tokens).await, 200);
    }
}

/// All source files of the program, except tests.
fn sources(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "tests") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

/// KEYS-06: our RSA keys are used only by OpenSSL, which signs in constant time with blinding, unless disabled
/// by unsafe code, which this project forbids. Nothing decrypts with RSA. The other linked implementation is
/// the passkey library's, which has only public keys.
#[test]
fn rsa_signs_in_openssl_and_decrypts_nowhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for crate_ in ["src", "authz/src", "keys/src", "resource/src", "shared/src"] {
        sources(&root.join(crate_), &mut found);
    }
    assert!(found.len() > 100);
    let mut generates = 0;
    for (path, text) in &found {
        for never in [
            "jwe",
            "private_decrypt",
            "private_encrypt",
            "Decrypter",
            ".decrypt(",
            "decrypt_init",
            "Padding",
            "unsafe {",
            "extern \"C\"",
        ] {
            assert!(!text.contains(never), "{never} in {}", path.display());
        }
        assert_eq!(
            text.matches("rsa::").count(),
            text.matches("openssl::rsa::Rsa").count(),
            "{}",
            path.display()
        );
        generates += text.matches("Rsa::generate").count();
    }
    assert_eq!(generates, 1);
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"forbid\""));
    let lock = std::fs::read_to_string(root.join("Cargo.lock")).unwrap();
    let packages: Vec<&str> = lock.split("[[package]]").collect();
    let users: Vec<&&str> = packages.iter().filter(|package| package.contains("\n \"rsa\",")).collect();
    assert_eq!(users.len(), 1, "{users:?}");
    assert!(users[0].contains("name = \"crypto-glue\""), "{}", users[0]);
}
