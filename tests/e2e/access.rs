//! Ending access with the administrator's commands: grants, tokens, browser sessions, and everything at once.

use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use shared::db::params;
use shared::schema::SCHEMA;
use shared::{Clock, Db, Digest, GrantId};

use crate::harness::{Browser, Client, TestApp, Tokens, error_of};
use crate::process::{complaint, portcullis, program_on};

async fn someone() -> (TestApp, Browser, Client, Tokens) {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let tokens = app.tokens(&mut browser, &client).await;
    (app, browser, client, tokens)
}

async fn works(app: &TestApp, tokens: &Tokens) -> bool {
    app.call_tool(&tokens.access, "whoami", json!({})).await.status() == 200
}

/// The error message of a command that is refused.
fn refused(app: &TestApp, arguments: &[&str]) -> String {
    let data = app.data_dir();
    let output = portcullis(&[arguments, &["--data-dir", data.to_str().unwrap()]].concat());
    assert!(!output.status.success(), "{arguments:?}");
    complaint(&output)
}

/// Runs a command with standard input.
fn with_input(app: &TestApp, arguments: &[&str], input: &str) -> Output {
    let mut command = program_on(&app.data_dir());
    command.args(arguments).arg("--json");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn grant_of(tokens: &Tokens) -> String {
    tokens.claims()["grant_id"].as_str().unwrap().to_owned()
}

/// REVOKE-07: an administrator sees the grants of users to clients with all details.
#[tokio::test(flavor = "multi_thread")]
async fn grants_are_listed() {
    let (app, mut ada, client, tokens) = someone().await;
    let mut bob = app.enrol("bob", &[]).await;
    let other = app.client().await;
    let of_bob = app.tokens(&mut bob, &client).await;
    let last = app.tokens(&mut ada, &other).await;
    app.clock.advance(Duration::from_mins(5));
    let refreshed = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
    let listed = |arguments: &[&str]| -> Vec<Value> {
        let answer = app.console(&[&["grant", "list"], arguments].concat());
        answer["grants"].as_array().unwrap().clone()
    };
    let ids = |arguments: &[&str]| -> Vec<String> {
        let mut ids: Vec<_> =
            listed(arguments).iter().map(|g| g["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    assert_eq!(ids(&[]), sorted(vec![grant_of(&tokens), grant_of(&of_bob), grant_of(&last)]));
    assert_eq!(ids(&["--user", "ada"]), sorted(vec![grant_of(&tokens), grant_of(&last)]));
    assert_eq!(ids(&["--client", &client.id]), sorted(vec![grant_of(&tokens), grant_of(&of_bob)]));
    assert_eq!(ids(&["--client", &other.id, "--user", "bob"]), Vec::<String>::new());
    let grant = listed(&["--user", "ada", "--client", &client.id])[0].clone();
    assert_eq!((&grant["user"], &grant["client"]), (&json!("ada"), &json!("Test client")));
    assert_eq!((&grant["scope"], &grant["resource"]), (&json!("docs.read"), &json!(app.mcp_url())));
    assert_eq!(grant["last_used_at"].as_i64().unwrap() - grant["created_at"].as_i64().unwrap(), 300_000);
    assert_eq!(grant["address"], "127.0.0.1");
    assert!(works(&app, &refreshed).await);
    assert!(refused(&app, &["grant", "list", "--user", "nobody"]).contains("user list"));
    assert!(
        refused(&app, &["grant", "list", "--client", "Test client"]).contains("client list"),
        "two have it"
    );
}

/// REVOKE-07, REFRESH-08, RS-08: a revoked grant is refused at its next request; others continue, and the
/// record names the console.
#[tokio::test(flavor = "multi_thread")]
async fn one_grant_is_ended() {
    let (app, mut browser, client, tokens) = someone().await;
    let other = app.tokens(&mut browser, &client).await;
    assert!(works(&app, &tokens).await);
    app.console(&["grant", "revoke", &grant_of(&tokens)]);
    assert!(!works(&app, &tokens).await);
    assert_eq!(error_of(app.refresh(&client, &tokens.refresh).await).await.1, "invalid_grant");
    assert!(works(&app, &other).await);
    let record = app.audit().into_iter().find(|r| r["event"] == "token.revoked").unwrap();
    assert_eq!(
        (&record["actor"]["type"], &record["grant_id"]),
        (&json!("console"), &json!(grant_of(&tokens)))
    );
    for unknown in [grant_of(&tokens).as_str(), "g_aaaaaaaaaaaaaaaaaaaaaaaaaa", "x", "g_"] {
        assert!(refused(&app, &["grant", "revoke", unknown]).contains("grant list"), "{unknown}");
    }
}

/// REVOKE-07: a single access token is ended by its `jti` or its text; a refresh token ends its whole grant.
#[tokio::test(flavor = "multi_thread")]
async fn single_tokens_are_ended() {
    let (app, _, client, first) = someone().await;
    let second = Tokens::of(app.refresh(&client, &first.refresh).await).await;
    let third = Tokens::of(app.refresh(&client, &second.refresh).await).await;
    let jti = first.claims()["jti"].as_str().unwrap().to_owned();
    assert_eq!(app.console(&["token", "revoke", &jti])["revoked"]["access_token"], jti);
    assert!(!works(&app, &first).await && works(&app, &second).await);
    let ended = with_input(&app, &["token", "revoke"], &format!("{}\n", second.access));
    assert!(ended.status.success(), "{}", complaint(&ended));
    assert!(!works(&app, &second).await && works(&app, &third).await);
    for (input, says) in [
        (second.access.as_str(), "already expired or been revoked"),
        ("", "standard input is empty"),
        ("rt_unknown", "neither a token from this server"),
        (&third.access[1..], "neither a token from this server"),
        ("3yuupoygj2bnrezpak254f2sjy", "neither a token from this server"),
    ] {
        let output = with_input(&app, &["token", "revoke"], input);
        assert!(
            !output.status.success() && complaint(&output).contains(says),
            "{input}: {}",
            complaint(&output)
        );
    }
    assert!(refused(&app, &["token", "revoke", &third.access]).contains("standard input"));
    let ended = with_input(&app, &["token", "revoke"], &third.refresh);
    let ended: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(ended["revoked"]["grant"], grant_of(&third));
    assert!(!works(&app, &third).await);
    let app = app.restart().await;
    assert!(!works(&app, &first).await, "by its jti alone, over a restart too");
    let records = app.audit();
    let revoked = records.iter().filter(|r| r["event"] == "token.revoked" && r["actor"]["type"] == "console");
    assert_eq!(revoked.count(), 3);
    let logged = records.iter().map(Value::to_string).collect::<String>();
    assert!(!logged.contains(&third.access) && !logged.contains(&third.refresh), "no token is on record");
}

/// SESSION-06, REFRESH-08: signed-in browsers are listed and signed out; their users' grants continue.
#[tokio::test(flavor = "multi_thread")]
async fn browser_sessions_are_ended() {
    let (app, mut ada, _, tokens) = someone().await;
    // On loopback, answering a client ended the session.
    ada.sign_in(&app, None).await;
    let mut bob = app.enrol("bob", &[]).await;
    let listed = |arguments: &[&str]| -> Vec<Value> {
        let answer = app.console(&[&["session", "list"], arguments].concat());
        answer["sessions"].as_array().unwrap().clone()
    };
    assert_eq!(listed(&[]).len(), 2);
    let of_bob = listed(&["--user", "bob"]);
    assert_eq!((of_bob.len(), &of_bob[0]["user"]), (1, &json!("bob")));
    let is_signed_in = async |browser: &mut Browser| {
        let home = browser.get(&app, &app.url("/")).await.text().await.unwrap();
        home.contains("data-testid=\"user-name\"")
    };
    assert!(is_signed_in(&mut bob).await && is_signed_in(&mut ada).await);
    let id = of_bob[0]["id"].as_str().unwrap();
    app.console(&["session", "end", id]);
    assert!(!is_signed_in(&mut bob).await && is_signed_in(&mut ada).await);
    assert!(refused(&app, &["session", "end", id]).contains("session list"));
    assert_eq!(app.console(&["session", "end", "--user", "ada"])["ended"].as_array().unwrap().len(), 1);
    assert!(!is_signed_in(&mut ada).await);
    assert!(works(&app, &tokens).await);
    let ended = |r: &&Value| r["event"] == "session.ended" && r["actor"]["type"] == "console";
    assert_eq!(app.audit().iter().filter(ended).count(), 2);
}

/// REFRESH-08, RS-08, STORE-06: everything ends at once, after a confirmation, and a restart does not restore
/// it.
#[tokio::test(flavor = "multi_thread")]
async fn a_lockdown_ends_everything() {
    let (app, mut ada, client, tokens) = someone().await;
    let robot =
        app.console(&["client", "add", "Robot", "--secret", "--client-credentials", "--scope", "docs.read"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (id, secret) = (text(&robot["client"]["id"]), text(&robot["client_secret"]));
    let own = async |app: &TestApp| {
        let mcp = app.mcp_url();
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &id),
            ("client_secret", &secret),
            ("resource", &mcp),
        ];
        text(&app.token(&form).await.json::<Value>().await.unwrap()["access_token"])
    };
    let search = async |app: &TestApp, token: &str| {
        app.call_tool(token, "docs_search", json!({"query": "falcon"})).await.status()
    };
    let token = own(&app).await;
    assert_eq!(search(&app, &token).await, 200);
    ada.sign_in(&app, None).await;
    let link = text(&app.console(&["user", "add", "bob"])["link"]);
    let code = ada.authorize(&app, &client).await;
    ada.sign_in(&app, None).await;

    let asked = with_input(&app, &["lockdown"], "");
    assert!(!asked.status.success());
    assert!(
        complaint(&asked).contains("2 grants (1 user, 1 client), 1 grant of a client to itself"),
        "{}",
        complaint(&asked)
    );
    assert!(works(&app, &tokens).await, "it was only asked");

    let ended = app.console(&["lockdown", "--yes"]);
    assert_eq!((&ended["ended"]["grants"], &ended["ended"]["links"]), (&json!(2), &json!(1)));
    assert!(!works(&app, &tokens).await);
    assert_eq!(search(&app, &token).await, 401);
    assert_eq!(error_of(app.refresh(&client, &tokens.refresh).await).await.1, "invalid_grant");
    assert_eq!(error_of(app.redeem(&client, &code).await).await.1, "invalid_grant");
    let home = ada.get(&app, &app.url("/")).await.text().await.unwrap();
    assert!(!home.contains("data-testid=\"user-name\""));
    let mut bob = Browser::new();
    assert_ne!(bob.follow_link(&app, &link).await.status(), StatusCode::OK);
    let record = app.audit().into_iter().find(|r| r["event"] == "token.revoked").unwrap();
    assert_eq!(
        (&record["actor"]["type"], &record["detail"]["token"]),
        (&json!("console"), &json!("everything"))
    );

    let app = app.restart().await;
    assert!(!works(&app, &tokens).await);
    assert_eq!(search(&app, &token).await, 401);
    app.clock.advance(Duration::from_secs(1));
    assert_eq!(search(&app, &own(&app).await).await, 200, "its credentials stay");
    assert!(works(&app, &app.tokens(&mut ada, &client).await).await, "passkeys stay");
    let app = app.restart().await;
    assert_eq!(search(&app, &token).await, 401);
}

/// Copies the only grant and its refresh token this many times. The server is not running.
async fn multiply(
    data: &Path,
    clock: &Clock,
    count: usize,
    secret: impl Fn(usize) -> String + Send + 'static,
) {
    let db = Db::open(&data.join("portcullis.db"), &SCHEMA, None, clock).unwrap();
    let multiplied = db.write(move |tx| {
        for n in 0..count {
            let id = GrantId::random();
            tx.execute(
                "INSERT INTO access_grant (id, user_id, client_id, resource, scope, amr, auth_time, created_at, expires_at)
                 SELECT ?1, user_id, client_id, resource, scope, amr, auth_time, created_at, expires_at FROM access_grant LIMIT 1",
                params![id],
            )?;
            tx.execute(
                "INSERT INTO refresh_token (digest, grant_id, generation, created_at, expires_at)
                 SELECT ?1, id, 0, created_at, expires_at FROM access_grant WHERE id = ?2",
                params![Digest::of(secret(n).as_bytes()), id],
            )?;
        }
        Ok(())
    });
    multiplied.await.unwrap();
}

/// REFRESH-08, RS-08: twenty thousand grants end as one does and stay ended; later grants work.
#[tokio::test(flavor = "multi_thread")]
async fn a_lockdown_ends_any_number_of_grants() {
    let (app, mut ada, client, tokens) = someone().await;
    let secret = |n: usize| format!("rt_{n:043}");
    let stopped = app.stop().await;
    multiply(&stopped.data_dir(), &stopped.clock, 20_000, secret).await;
    let app = stopped.start().await;
    let alive = |app: &TestApp| app.console(&["grant", "list"])["grants"].as_array().unwrap().len();
    assert_eq!(alive(&app), 1000, "it shows no more at once");
    let refreshed = app.refresh(&client, &secret(1)).await;
    let refreshed = Tokens::of(refreshed).await;
    assert!(works(&app, &refreshed).await);
    app.clock.advance(Duration::from_secs(1));

    let ended = app.console(&["lockdown", "--yes"])["ended"].clone();
    assert_eq!(
        (&ended["grants"], &ended["users"], &ended["clients"]),
        (&json!(20_001), &json!(1), &json!(1)),
        "{ended}"
    );
    let mut app = app;
    for _ in 0..2 {
        assert_eq!(alive(&app), 0);
        assert!(!works(&app, &tokens).await && !works(&app, &refreshed).await);
        for token in [&tokens.refresh, &refreshed.refresh, &secret(0), &secret(9_999), &secret(19_999)] {
            let (status, error) = error_of(app.refresh(&client, token).await).await;
            assert_eq!((status, error.as_str()), (StatusCode::BAD_REQUEST, "invalid_grant"));
        }
        assert!(refused(&app, &["grant", "revoke", &grant_of(&tokens)]).contains("no active grant"));
        let shown = app.console(&["client", "show", &client.id]);
        assert_eq!(shown["client"]["users"], 0, "{shown}");
        app = app.restart().await;
    }

    let again = app.console(&["lockdown", "--yes"])["ended"].clone();
    assert_eq!(again["grants"], 0, "what has ended does not end twice: {again}");
    app.clock.advance(Duration::from_secs(1));
    let new = app.tokens(&mut ada, &client).await;
    assert!(works(&app, &new).await);
    assert_eq!(alive(&app), 1);
    assert_eq!(app.refresh(&client, &new.refresh).await.status(), 200);
}

/// DCR-01: a lockdown voids initial access tokens, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_lockdown_voids_initial_access_tokens() {
    let app = TestApp::start_configured("[registration]\nmode = \"token\"").await;
    let added = app.console(&["registration-token", "add", "platform team"]);
    let token = added["initial_access_token"].as_str().unwrap();
    let register = || {
        let metadata =
            json!({"redirect_uris": ["http://localhost/callback"], "token_endpoint_auth_method": "none"});
        app.http.post(app.url("/register")).bearer_auth(token).json(&metadata).send()
    };
    assert_eq!(register().await.unwrap().status(), 201);
    let asked = with_input(&app, &["lockdown"], "");
    assert!(complaint(&asked).contains("1 registration token"), "{}", complaint(&asked));
    let ended = app.console(&["lockdown", "--yes"]);
    assert_eq!(ended["ended"]["registration_tokens"], 1);
    let (status, error) = error_of(register().await.unwrap()).await;
    assert_eq!((status, error.as_str()), (StatusCode::UNAUTHORIZED, "invalid_token"));
    assert_eq!(app.console(&["registration-token", "list"])["registration_tokens"], json!([]));
    let record = app.audit().into_iter().find(|record| record["event"] == "token.revoked").unwrap();
    assert_eq!(record["detail"]["registration_tokens_voided"], 1);
}

/// ADMIN-05: the same without a server, under the directory's lock; the next server finds everything ended.
#[tokio::test(flavor = "multi_thread")]
async fn grants_revoked_without_a_server_stay_revoked() {
    let (app, mut browser, client, first) = someone().await;
    let second = app.tokens(&mut browser, &client).await;
    let third = app.tokens(&mut browser, &client).await;
    let (grant, jti) = (grant_of(&first), second.claims()["jti"].as_str().unwrap().to_owned());
    let data = app.data_dir();
    let stopped = app.stop().await;
    for arguments in [&["grant", "revoke", &grant][..], &["token", "revoke", &jti]] {
        let output = portcullis(&[arguments, &["--data-dir", data.to_str().unwrap()]].concat());
        assert!(output.status.success(), "{}", complaint(&output));
    }
    let app = stopped.start().await;
    assert!(!works(&app, &first).await && !works(&app, &second).await && works(&app, &third).await);
    let stopped = app.stop().await;
    let output = portcullis(&["lockdown", "--yes", "--data-dir", data.to_str().unwrap()]);
    assert!(output.status.success(), "{}", complaint(&output));
    let app = stopped.start().await;
    assert!(!works(&app, &third).await);
}

/// OPS-04: a lockdown while the clock was ahead does not last until that time.
#[tokio::test(flavor = "multi_thread")]
async fn a_lockdown_in_a_wrong_time_ends_with_it() {
    let (app, mut browser, client, before) = someone().await;
    let right = app.clock.now();
    app.clock.set(right + Duration::from_hours(24));
    let within = app.tokens(&mut browser, &client).await;
    app.console(&["lockdown", "--yes"]);
    app.clock.set(right + Duration::from_mins(1));
    app.console(&["clock", "confirm", "--yes"]);
    app.clock.advance(Duration::from_secs(1));
    let after = app.tokens(&mut browser, &client).await;
    assert!(works(&app, &after).await && !works(&app, &within).await);
    let app = app.restart().await;
    assert!(works(&app, &after).await && !works(&app, &within).await);
    // Confirming the clock revives nothing from before the lockdown, whether made in the right or the wrong
    // time.
    for ended in [&before, &within] {
        assert_eq!(error_of(app.refresh(&client, &ended.refresh).await).await.1, "invalid_grant");
    }
    assert_eq!(app.refresh(&client, &after.refresh).await.status(), 200);
}
