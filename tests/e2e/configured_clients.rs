//! Clients in `portcullis.toml`, as each start applies them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use reqwest::StatusCode;
use serde_json::{Value, json};
use shared::Secret;

use crate::assertion::ClientKey;
use crate::clients::refused;
use crate::harness::{Client, TestApp, Tokens, VERIFIER, error_of};
use crate::process::{Bare, complaint, portcullis, program};

const WEB: &str = "https://portal.example/cb";

/// The file's section for a client with a secret.
fn portal(rest: &str, secrets: &[&Secret]) -> String {
    let digests: Vec<String> = secrets.iter().map(|secret| format!("{:?}", secret.digest().hex())).collect();
    format!("[clients.portal]\nsecret_sha256 = [{}]\n{rest}\n", digests.join(", "))
}

fn at(redirect_uri: &str) -> Client {
    Client { id: "c_portal".to_owned(), redirect_uri: redirect_uri.to_owned() }
}

async fn redeem(app: &TestApp, secret: &Secret, code: &str) -> reqwest::Response {
    let form = [("grant_type", "authorization_code"), ("code", code), ("code_verifier", VERIFIER)];
    let request = app.http.post(app.url("/token")).basic_auth("c_portal", Some(secret.expose()));
    request.form(&form).send().await.unwrap()
}

async fn is_accepted(app: &TestApp, secret: &Secret) -> bool {
    let (status, error) = error_of(redeem(app, secret, "ac_x").await).await;
    assert!(["invalid_client", "invalid_grant"].contains(&error.as_str()), "{status} {error}");
    error == "invalid_grant"
}

async fn whoami(app: &TestApp, token: &str) -> StatusCode {
    app.call_tool(token, "whoami", json!({})).await.status()
}

fn show(app: &TestApp) -> Value {
    app.console(&["client", "show", "c_portal"])["client"].clone()
}

/// The changed fields and the number of ended grants in the records of an event.
fn changes(app: &TestApp, event: &str) -> Vec<(Value, Value)> {
    let records = app.audit().into_iter().filter(|record| record["event"] == event);
    records.map(|r| (r["detail"]["changed_fields"].clone(), r["detail"]["grants_ended"].clone())).collect()
}

/// DCR-08, AT-03, REFRESH-08: a client exists from the first start on, under an id derived from its name; its
/// grants survive restarts and a new name, and end when its redirect URIs change or the file no longer names
/// it.
#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_followed_at_every_start() {
    let secret = Secret::random("cs_");
    let first = portal(&format!("redirect_uris = {WEB:?}"), &[&secret]);
    let app = TestApp::start_configured(&first).await;
    let mut ada = app.admin().await;
    let shown = show(&app);
    assert_eq!((&shown["source"], &shown["trust"]), (&json!("configuration"), &json!("verified")));
    assert_eq!((&shown["name"], &shown["auth_method"]), (&json!("portal"), &json!("client_secret_basic")));
    let code = ada.authorize(&app, &at(WEB)).await;
    let tokens = Tokens::of(redeem(&app, &secret, &code).await).await;
    assert_eq!(tokens.claims()["client_id"], "c_portal");

    // No change, then a new name: grants continue in both cases.
    let app = app.restart().await;
    assert_eq!(changes(&app, "client.updated"), []);
    let named = portal(&format!("title = \"Ticket portal\"\nredirect_uris = {WEB:?}"), &[&secret]);
    let app = app.restart_configured(&named).await;
    assert_eq!(show(&app)["name"], "Ticket portal");
    assert_eq!(whoami(&app, &tokens.access).await, 200);
    assert_eq!(changes(&app, "client.updated"), [(json!(["client_name"]), json!(0))]);

    // Another redirect URI: users consented to the old one (DCR-10).
    let elsewhere = "https://portal.example/other";
    let moved = portal(&format!("title = \"Ticket portal\"\nredirect_uris = {elsewhere:?}"), &[&secret]);
    let app = app.restart_configured(&moved).await;
    assert_eq!(whoami(&app, &tokens.access).await, 401);
    assert_eq!(changes(&app, "client.updated")[1], (json!(["redirect_uris"]), json!(1)));
    assert_eq!(ada.get(&app, &at(WEB).authorize_url(&app)).await.status(), 400);
    let code = ada.authorize(&app, &at(elsewhere)).await;
    let tokens = Tokens::of(redeem(&app, &secret, &code).await).await;

    // Removed from the file.
    let app = app.restart_configured("").await;
    let shown = show(&app);
    assert_eq!(
        (&shown["disabled_because"], &shown["trust"]),
        (&json!("left_configuration"), &json!("unverified"))
    );
    assert_eq!(shown["secrets"], json!([]));
    assert_eq!(whoami(&app, &tokens.access).await, 401);
    assert!(!is_accepted(&app, &secret).await);
    assert_eq!(changes(&app, "client.disabled"), [(Value::Null, json!(1))]);
    for action in ["enable", "verify"] {
        let line = refused(&app, &["client", action, "c_portal"]);
        assert!(line.contains("no longer in portcullis.toml"), "{line}");
    }

    // Added again: the client is back, its grants are not.
    let app = app.restart_configured(&moved).await;
    let shown = show(&app);
    assert_eq!((&shown["disabled"], &shown["trust"]), (&json!(false), &json!("verified")));
    assert_eq!(whoami(&app, &tokens.access).await, 401);
    let changed = json!(["client_secret", "trust", "disabled"]);
    assert_eq!(changes(&app, "client.updated")[2], (changed, json!(0)));
    let code = ada.authorize(&app, &at(elsewhere)).await;
    let tokens = Tokens::of(redeem(&app, &secret, &code).await).await;
    assert_eq!(whoami(&app, &tokens.access).await, 200);
}

/// CAUTH-04: two secrets in the file while one replaces the other; grants continue.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_take_over_in_the_file() {
    let (old, new) = (Secret::random("cs_"), Secret::random("cs_"));
    let uri = format!("redirect_uris = {WEB:?}");
    let app = TestApp::start_configured(&portal(&uri, &[&old])).await;
    let mut ada = app.admin().await;
    let code = ada.authorize(&app, &at(WEB)).await;
    let tokens = Tokens::of(redeem(&app, &old, &code).await).await;
    assert!(!is_accepted(&app, &new).await);
    let app = app.restart_configured(&portal(&uri, &[&old, &new])).await;
    assert!(is_accepted(&app, &old).await && is_accepted(&app, &new).await);
    let app = app.restart_configured(&portal(&uri, &[&new])).await;
    assert!(!is_accepted(&app, &old).await && is_accepted(&app, &new).await);
    assert_eq!(whoami(&app, &tokens.access).await, 200);
    assert_eq!(changes(&app, "client.updated"), vec![(json!(["client_secret"]), json!(0)); 2]);
    let line = refused(&app, &["client", "rotate-secret", "c_portal"]);
    assert!(line.contains("is defined in portcullis.toml; change it there"), "{line}");

    // Moved to another client in one step.
    let moved = portal(&uri, &[&new]).replace("clients.portal", "clients.gate");
    let app = app.restart_configured(&moved).await;
    assert!(!is_accepted(&app, &new).await);
    assert_eq!(app.console(&["client", "show", "c_gate"])["client"]["secrets"].as_array().unwrap().len(), 1);
}

/// CAUTH-06, DCR-10: keys from a separate file; other keys end the grants.
#[tokio::test(flavor = "multi_thread")]
async fn keys_come_from_a_file() {
    let (key, other) = (ClientKey::generate("ES256"), ClientKey::generate("EdDSA"));
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let jwks = app.data_dir().with_file_name("portal.jwks");
    fs::write(&jwks, key.jwks().to_string()).unwrap();
    let toml = format!("[clients.portal]\nredirect_uris = {WEB:?}\njwks_file = \"portal.jwks\"\n");
    let app = app.restart_configured(&toml).await;
    assert_eq!(show(&app)["keys"], json!([key.jwks()["keys"][0]["kid"]]));
    let code = ada.authorize(&app, &at(WEB)).await;
    let redemption =
        [("grant_type", "authorization_code"), ("code", code.as_str()), ("code_verifier", VERIFIER)];
    let proof = key.form(&app, "c_portal");
    let proof = proof.iter().map(|(name, value)| (*name, value.as_str()));
    let form: Vec<(&str, &str)> = redemption.into_iter().chain(proof).collect();
    let tokens = Tokens::of(app.token(&form).await).await;
    let app = app.restart_configured(&toml).await;
    assert_eq!(whoami(&app, &tokens.access).await, 200);
    fs::write(&jwks, other.jwks().to_string()).unwrap();
    let app = app.restart_configured(&toml).await;
    assert_eq!(whoami(&app, &tokens.access).await, 401);
    assert_eq!(changes(&app, "client.updated"), [(json!(["jwks"]), json!(1))]);
}

/// AUTHZ-17: a client that an administrator disabled stays disabled, whatever the file says, until an
/// administrator enables it.
#[tokio::test(flavor = "multi_thread")]
async fn an_administrators_change_takes_precedence_over_the_file() {
    let toml = format!("[clients.portal]\nredirect_uris = {WEB:?}\npublic = true\n");
    let app = TestApp::start_configured(&toml).await;
    let mut ada = app.admin().await;
    app.console(&["client", "disable", "c_portal"]);
    for arguments in [&["client", "unverify", "c_portal"][..], &["client", "delete", "c_portal", "--yes"]] {
        let line = refused(&app, arguments);
        assert!(line.contains("is defined in portcullis.toml"), "{line}");
    }
    let app = app.restart().await;
    assert_eq!(show(&app)["disabled_because"], "administrator");
    let app = app.restart_configured("").await.restart_configured(&toml).await;
    let shown = show(&app);
    assert_eq!((&shown["disabled_because"], &shown["trust"]), (&json!("administrator"), &json!("verified")));
    assert_eq!(ada.get(&app, &at(WEB).authorize_url(&app)).await.status(), 400);
    app.console(&["client", "enable", "c_portal"]);
    assert_eq!(ada.get(&app, &at(WEB).authorize_url(&app)).await.status(), 200);

    let app = app.restart_configured("").await;
    app.console(&["client", "delete", "c_portal", "--yes"]);
    let app = app.restart_configured(&toml).await;
    assert_eq!(show(&app)["disabled"], false);
}

/// DCR-13, OPS-03: a file that cannot be applied stops the start with one line, which `check` prints too, and
/// changes nothing; the name of a client removed from the file is free.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_followed_stops_the_start() {
    let toml = |name: &str, title: &str| {
        format!("[clients.{name}]\ntitle = {title:?}\nredirect_uris = {WEB:?}\npublic = true\n")
    };
    let app = TestApp::start_configured(&toml("portal", "Portal")).await;
    let app = app.restart_configured(&toml("gate", "PORTAL")).await;
    assert_eq!(app.console(&["client", "show", "c_gate"])["client"]["name"], "PORTAL");
    let app = app.restart_configured("").await;
    let added = app.console(&["client", "add", "Ticket portal", "--redirect-uri", WEB]);
    let id = added["client"]["id"].as_str().unwrap().to_owned();
    let before = app.console(&["client", "list"]);

    let text = toml("tickets", "TICKET-PORTAL");
    app.configure(&text).unwrap();
    let data = app.data_dir();
    let file = data.with_file_name("portcullis.toml");
    let listen = app.origin.trim_start_matches("http://").to_owned();
    let _folder = app.stop().await;
    let common = ["--config", file.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
    let line = |output: &std::process::Output| {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = complaint(output);
        said.lines().find_map(|line| line.strip_prefix("portcullis: ")).unwrap().to_owned()
    };
    let check = portcullis(&[&["check"][..], &common, &["--listen", &listen]].concat());
    let said = line(&check);
    assert!(said.contains("c_tickets") && said.contains(&id) && said.contains("client unverify"), "{said}");
    let serve = portcullis(&[&["serve", "--listen", "localhost:0"][..], &common].concat());
    assert_eq!(line(&serve), said);
    let after = portcullis(&[&["client", "list", "--json"][..], &common].concat());
    assert_eq!(serde_json::from_slice::<Value>(&after.stdout).unwrap(), before);
}

/// OPS-03: `check` shows the configured clients, and `new-secret` prints which part belongs into the file.
#[test]
fn check_shows_configured_clients() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portcullis.toml");
    let made = portcullis(&["client", "new-secret", "--json"]);
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let secret = Secret::presented(made["client_secret"].as_str().unwrap());
    assert!(secret.is_ours("cs_") && made["secret_sha256"] == secret.digest().hex());
    fs::write(dir.path().join("robot.secret"), format!("{}\n", secret.expose())).unwrap();
    fs::set_permissions(dir.path().join("robot.secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "data_dir = \"data\"\n[clients.robot]\nsecret_file = \"robot.secret\"\nscope = \"docs.read\"\n\
         [clients.tv]\ntitle = \"Wall display\"\npublic = true\ndevice = true\n[clients.portal]\npublic = true\nredirect_uris = {WEB:?}\n"
    );
    fs::write(&path, text).unwrap();
    let check = |json: &[&str]| {
        let mut command = program();
        command.args([&["check"], json].concat()).current_dir(dir.path()).bare().env("HOME", dir.path());
        command.output().unwrap()
    };
    let report: Value = serde_json::from_slice(&check(&["--json"]).stdout).unwrap();
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(
        report["clients"][0],
        json!({"id": "c_robot", "title": "robot", "auth_method": "client_secret_basic", "redirect_uris": [],
               "grant_types": ["client_credentials"], "scope": "docs.read"})
    );
    let warning =
        "the client c_tv uses the device grant, and the server has it turned off; write device = true";
    assert!(report["warnings"].as_array().unwrap().contains(&json!(warning)), "{report}");
    let words = String::from_utf8(check(&[]).stdout).unwrap();
    for part in [
        "\nClients\n",
        "  c_robot   client_secret_basic  robot (client_credentials)\n",
        "  c_tv      none                 Wall display (refresh_token device_code)\n",
        "  c_portal  none                 portal (authorization_code refresh_token)\n",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert!(!words.contains(secret.expose()));
    // It is identified by its digest and never printed.
    assert!(!report.to_string().contains(&secret.expose()[3..]));
}
