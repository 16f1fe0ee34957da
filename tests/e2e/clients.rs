//! Client commands of administrators, with and without a running server.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Client, TestApp, error_of, header, redirect_parameter};
use crate::process::{Process, complaint, portcullis};

/// The one-line error of a command that is refused.
pub fn refused(app: &TestApp, arguments: &[&str]) -> String {
    let data = app.data_dir();
    let mut all = arguments.to_vec();
    all.extend(["--data-dir", data.to_str().unwrap()]);
    let output = portcullis(&all);
    let said = complaint(&output);
    let lines: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("portcullis: ")).collect();
    assert!(!output.status.success() && lines.len() == 1, "{arguments:?}: {said}");
    lines[0].to_owned()
}

pub async fn whoami(app: &TestApp, token: &str) -> StatusCode {
    app.call_tool(token, "whoami", json!({})).await.status()
}

/// A self-registered client with this name and these redirect URIs.
async fn registered(app: &TestApp, name: &str, redirect_uris: &[&str]) -> Client {
    let metadata = json!({
        "client_name": name,
        "redirect_uris": redirect_uris,
        "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": "none",
    });
    let response = app.register(&metadata).await;
    assert_eq!(response.status(), 201);
    let body: Value = response.json().await.unwrap();
    Client { id: body["client_id"].as_str().unwrap().to_owned(), redirect_uri: redirect_uris[0].to_owned() }
}

/// AUTHZ-17, REFRESH-08, RS-08: after a client is disabled, its live tokens, refresh tokens, pending codes and
/// new requests are refused. Enabling it restores none of them, nor does a restart.
#[tokio::test(flavor = "multi_thread")]
async fn disabling_a_client_refuses_its_next_request() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let client = app.client().await;
    let tokens = app.tokens(&mut ada, &client).await;
    let code = ada.authorize(&app, &client).await;
    let waiting = ada.consent_page(&app, &client.authorize_url(&app)).await;
    assert_eq!(whoami(&app, &tokens.access).await, 200);

    let disabled = app.console(&["client", "disable", &client.id]);
    assert_eq!(disabled["client"]["disabled_because"], "administrator");
    assert_eq!(disabled["client"]["access"], json!([]));
    let call = app.call_tool(&tokens.access, "whoami", json!({})).await;
    assert_eq!(call.status(), 401);
    assert!(header(call.headers(), "www-authenticate").unwrap().contains("invalid_token"));
    assert_eq!(error_of(app.refresh(&client, &tokens.refresh).await).await.1, "invalid_client");
    assert_eq!(error_of(app.redeem(&client, &code).await).await.1, "invalid_client");
    let page = ada.get(&app, &client.authorize_url(&app)).await;
    assert_eq!(page.status(), 400);
    assert!(page.text().await.unwrap().contains("An administrator disabled this application."));
    let decided = ada.decide(&app, &waiting, "approve").await;
    assert_eq!(redirect_parameter(&decided, "error").as_deref(), Some("access_denied"));

    app.console(&["client", "enable", &client.id]);
    assert_eq!(whoami(&app, &tokens.access).await, 401);
    assert_eq!(error_of(app.refresh(&client, &tokens.refresh).await).await.1, "invalid_grant");
    assert_eq!(error_of(app.redeem(&client, &code).await).await.1, "invalid_grant");
    let again = app.tokens(&mut ada, &client).await;
    assert_eq!(whoami(&app, &again.access).await, 200);

    app.console(&["client", "disable", "Test client"]);
    let app = app.restart().await;
    assert_eq!(whoami(&app, &again.access).await, 401);
    let events: Vec<Value> =
        app.audit().into_iter().filter(|record| record["event"] == "client.disabled").collect();
    assert_eq!(events.len(), 2);
    assert_eq!(
        (&events[0]["client_id"], &events[0]["detail"]["grants_ended"]),
        (&json!(client.id), &json!(2))
    );
    assert_eq!(events[0]["actor"]["type"], "console");
}

/// REFRESH-08, RS-08: a deleted client's rows are gone, and its tokens stay dead over a restart, although no
/// row says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_clients_tokens_stay_revoked() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let client = app.client().await;
    let tokens = app.tokens(&mut ada, &client).await;
    assert_eq!(whoami(&app, &tokens.access).await, 200);
    assert_eq!(app.console(&["client", "delete", &client.id, "--yes"])["client"]["id"], client.id.as_str());
    assert_eq!(whoami(&app, &tokens.access).await, 401);
    assert_eq!(error_of(app.refresh(&client, &tokens.refresh).await).await.1, "invalid_client");
    let app = app.restart().await;
    assert_eq!(whoami(&app, &tokens.access).await, 401);
    assert_eq!(app.console(&["client", "list"])["clients"], json!([]));
    let unknown = refused(&app, &["client", "show", &client.id]);
    assert!(unknown.contains("no client") && unknown.contains("client list"), "{unknown}");
    assert!(app.has_event("client.deleted", None) && app.has_event("token.issued", None));
}

/// DCR-05, DCR-08, AUTHZ-12: verifying a client allows its remote redirect URIs; withdrawing the verification
/// ends the grants that it allowed.
#[tokio::test(flavor = "multi_thread")]
async fn verifying_a_client_lets_its_answers_leave_the_computer() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let client = registered(&app, "Web thing", &["https://app.example/cb"]).await;
    let shown = app.console(&["client", "show", "Web thing"]);
    assert_eq!(shown["client"]["trust"], "unverified");
    assert_eq!(shown["client"]["redirect_uris"], json!([{"uri": "https://app.example/cb", "usable": false}]));
    let page = ada.get(&app, &client.authorize_url(&app)).await;
    assert_eq!(page.status(), 400);
    assert!(page.text().await.unwrap().contains("portcullis client verify "));

    let verified = app.console(&["client", "verify", &client.id]);
    assert_eq!(verified["client"]["trust"], "verified");
    assert_eq!(verified["client"]["redirect_uris"][0]["usable"], true);
    let tokens = app.tokens(&mut ada, &client).await;
    assert_eq!(whoami(&app, &tokens.access).await, 200);
    // Errors for a verified client are redirected at once.
    let mut wrong = client.request(&app);
    wrong.insert("response_type", "token".to_owned());
    let answer = ada.get(&app, &crate::harness::authorize_url(&app, &wrong)).await;
    assert_eq!(redirect_parameter(&answer, "error").as_deref(), Some("unsupported_response_type"));

    assert_eq!(app.console(&["client", "unverify", &client.id])["client"]["trust"], "unverified");
    assert_eq!(whoami(&app, &tokens.access).await, 401);
    assert_eq!(error_of(app.refresh(&client, &tokens.refresh).await).await.1, "invalid_grant");
    assert_eq!(ada.get(&app, &client.authorize_url(&app)).await.status(), 400);
    let record = app.audit().into_iter().find(|record| record["event"] == "client.verified").unwrap();
    assert_eq!(record["detail"]["before"], "unverified");
    assert_eq!(record["detail"]["after"], "verified");
    let record = app.audit().into_iter().find(|record| record["event"] == "client.updated").unwrap();
    assert_eq!(record["detail"]["changed_fields"], json!(["trust"]));
    assert_eq!(record["detail"]["grants_ended"], 1);
}

/// DCR-13: a name that looks like a verified client's or like this server's is refused, at registration and at
/// verification.
#[tokio::test(flavor = "multi_thread")]
async fn two_verified_clients_cannot_have_confusable_names() {
    let app = TestApp::start().await;
    let first = registered(&app, "Web thing", &["http://localhost/a"]).await;
    let second = registered(&app, "WEB-thing", &["http://localhost/b"]).await;
    app.console(&["client", "verify", &first.id]);
    let line = refused(&app, &["client", "verify", &second.id]);
    assert!(
        line.contains("looks like the name of the verified client") && line.contains(&first.id),
        "{line}"
    );
    for name in ["Web thing", "web\u{200b} Thing", "\u{ff37}eb thing", "Portcullis"] {
        let metadata = json!({"client_name": name, "redirect_uris": ["http://localhost/c"]});
        assert_eq!(error_of(app.register(&metadata).await).await.1, "invalid_client_metadata", "{name}");
    }
    // Verifying it again does not conflict with itself.
    app.console(&["client", "verify", &first.id]);
    app.console(&["client", "unverify", &first.id]);
    registered(&app, "Web thing", &["http://localhost/c"]).await;
}

/// A name identifies a client only while no other client has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_two_clients_have_names_neither() {
    let app = TestApp::start().await;
    let first = registered(&app, "Twin", &["http://localhost/a"]).await;
    let second = registered(&app, "Twin", &["http://localhost/b"]).await;
    for action in ["show", "verify", "unverify", "disable", "enable", "delete"] {
        let line = refused(&app, &["client", action, "Twin"]);
        assert!(line.contains("2 clients are called `Twin`") && line.contains(&second.id), "{line}");
        let line = refused(&app, &["client", action, "Nobody"]);
        assert!(line.contains("no client `Nobody`"), "{line}");
    }
    let lookalike = registered(&app, "P\u{43e}rtal", &["http://localhost/c"]).await;
    registered(&app, "Portal", &["http://localhost/d"]).await;
    for name in ["Portal", "P\u{43e}rtal", "PORTAL"] {
        let line = refused(&app, &["client", "disable", name]);
        assert!(line.contains("Use the id") && line.contains("look like"), "{line}");
    }
    assert!(refused(&app, &["client", "delete", "Portal"]).contains(&lookalike.id));
    let line = refused(&app, &["grant", "list", "--client", "Twin"]);
    assert!(line.contains("2 clients are called `Twin`"), "{line}");
    assert_eq!(app.console(&["client", "show", &first.id])["client"]["disabled"], false);
    assert_eq!(app.console(&["client", "list"])["clients"].as_array().unwrap().len(), 4);
}

/// REVOKE-07: an administrator sees which users granted what to a client, since when, and until when.
#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_sees_who_uses_a_client() {
    let app = TestApp::start().await;
    app.admin().await;
    let client = app.client().await;
    let mut ines = app.enrol("ines", &[]).await;
    let before = app.console(&["client", "show", &client.id])["client"].clone();
    assert_eq!(
        (&before["users"], &before["last_used_at"], &before["access"]),
        (&json!(0), &Value::Null, &json!([]))
    );
    app.tokens(&mut ines, &client).await;
    let shown = app.console(&["client", "show", &client.id])["client"].clone();
    assert_eq!((&shown["users"], &shown["last_used_at"]), (&json!(1), &json!(app.clock.now().0)));
    assert_eq!((&shown["source"], &shown["auth_method"]), (&json!("self_registered"), &json!("none")));
    let access = &shown["access"][0];
    assert_eq!((&access["user"], &access["scope"]), (&json!("ines"), &json!("docs.read")));
    assert_eq!(access["resource"], app.mcp_url());
    assert_eq!(access["created_at"], app.clock.now().0);

    let output = portcullis(&["client", "show", &client.id, "--data-dir", app.data_dir().to_str().unwrap()]);
    let words = String::from_utf8(output.stdout).unwrap();
    for part in ["Test client (enabled)\n", "known by       registration\n", "USED BY", "ines     docs.read"]
    {
        assert!(words.contains(part), "{part}: {words}");
    }
}

/// ADMIN-05, OPS-07: the same commands with a server, without one, and after each was killed: acknowledged
/// changes persist, and a lock without a server that answers is an error.
#[test]
fn commands_work_with_a_server_and_without() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let at = ["--json", "--data-dir", data.to_str().unwrap()];
    let console = |arguments: &[&str]| -> Value {
        let output = portcullis(&[arguments, &at].concat());
        assert!(output.status.success(), "{arguments:?}: {}", complaint(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let missing = portcullis(&[&["client", "list"][..], &at].concat());
    assert!(!missing.status.success() && complaint(&missing).contains("portcullis serve"));

    let mut server = Process::start(&data, "localhost:0", None);
    let added =
        console(&["client", "add", "Portal", "--redirect-uri", "https://portal.example/cb", "--secret"]);
    let id = added["client"]["id"].as_str().unwrap();
    server.kill();
    // Without a server, under the lock.
    assert_eq!(console(&["client", "show", id])["client"]["name"], "Portal");
    let rotated = console(&["client", "rotate-secret", id, "--overlap", "1h"]);
    assert_ne!(rotated["client_secret"], added["client_secret"]);
    console(&["client", "disable", id]);
    let mut server = Process::start(&data, "localhost:0", None);
    let shown = console(&["client", "show", id]);
    assert_eq!(
        (&shown["client"]["disabled"], &shown["client"]["secrets"]),
        (&json!(true), &rotated["client"]["secrets"])
    );
    console(&["client", "enable", id]);
    console(&["client", "delete", id, "--yes"]);
    server.kill();
    assert_eq!(console(&["client", "list"])["clients"], json!([]));
    let verified = portcullis(&["audit", "verify", "--data-dir", data.to_str().unwrap()]);
    assert!(verified.status.success(), "{}", complaint(&verified));

    let held = std::fs::File::open(data.join("lock")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let locked = portcullis(&[&["client", "list"][..], &at].concat());
    assert!(!locked.status.success() && complaint(&locked).contains("in use by another portcullis"));
}
