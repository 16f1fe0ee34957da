//! Commands for documents: import and catalogue, and which grants each ends.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    CLAUDE_CODE, REPORTS, STRANGER, claude_code, client, file, import, listed, reports, stranger, whoami,
};
use crate::clients::refused;
use crate::harness::{TestApp, error_of};
use crate::process::portcullis;

fn record(app: &TestApp, event: &str) -> Value {
    let mut records = app.audit().into_iter().filter(|record| record["event"] == event);
    records.next_back().unwrap_or_else(|| panic!("no {event}"))
}

/// CIMD-05: an import first shows its changes and does nothing without confirmation; each import is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_shown_first_and_recorded() {
    let app = TestApp::start().await;
    app.admin().await;
    let path = file(&app, "document.json", &reports());
    let shown = app.console(&["client", "import-metadata", &path]);
    assert_eq!(shown["change"]["applied"], false);
    assert_eq!(shown["change"]["before"], Value::Null);
    assert_eq!(shown["change"]["after"]["redirect_uris"], reports()["redirect_uris"]);
    assert!(listed(&app, REPORTS).is_none() && !app.has_event("cimd.imported", None));
    // Standard input is closed, so no confirmation can be given.
    let asked =
        portcullis(&["client", "import-metadata", &path, "--data-dir", app.data_dir().to_str().unwrap()]);
    assert!(!asked.status.success());
    let said = String::from_utf8(asked.stdout).unwrap();
    assert!(said.contains(REPORTS) && said.contains("+ redirect_uris"), "{said}");
    assert!(listed(&app, REPORTS).is_none());

    import(&app, &reports());
    let recorded = record(&app, "cimd.imported");
    let digest = Sha256::digest(reports().to_string());
    assert_eq!(recorded["detail"]["doc_sha256"], data_encoding::HEXLOWER.encode(&digest));
    assert_eq!(recorded["detail"]["url"], REPORTS);
    assert_eq!(recorded["actor"]["type"], "console");
    let row = listed(&app, REPORTS).unwrap();
    assert_eq!((&row["source"], &row["trust"]), (&json!("imported"), &json!("known")));

    let mut newer = reports();
    newer["redirect_uris"] = json!(["http://localhost/other"]);
    newer["client_name"] = json!("Reports 2");
    let change = import(&app, &newer);
    assert_eq!(change["changed_fields"], json!(["client_name", "redirect_uris"]));
    assert_eq!(change["before"]["client_name"], "Reports");
    assert_eq!(record(&app, "cimd.imported")["detail"]["changed_fields"], change["changed_fields"]);
}

/// CIMD-04, CIMD-05: an invalid document, or another client's, is refused with an explanation and recorded.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_document_is_refused() {
    let app = TestApp::start().await;
    app.admin().await;
    let with = |member: &str, value: Value| {
        let mut document = reports();
        document[member] = value;
        document
    };
    for (document, says) in [
        (json!([]), "`client_id`"),
        (json!({"client_name": "x"}), "`client_id`"),
        (with("client_id", json!("http://reports.corp.example/x")), "is not https"),
        (with("client_secret", json!("x")), "cannot have a secret"),
        (with("redirect_uris", json!([])), "`redirect_uris`"),
        (with("token_endpoint_auth_method", json!("client_secret_basic")), "`none` or `private_key_jwt`"),
        (with("client_name", json!("Portcullis")), "own name"),
        (with("padding", json!("x".repeat(6000))), "larger than 5 KiB"),
    ] {
        let path = file(&app, "bad.json", &document);
        let why = refused(&app, &["client", "import-metadata", &path, "--yes"]);
        assert!(why.contains(says), "{document}: {why}");
    }
    let good = file(&app, "good.json", &reports());
    let why = refused(&app, &["client", "import-metadata", &good, "--url", STRANGER, "--yes"]);
    assert!(why.contains("client_id is"), "{why}");
    let why = refused(&app, &["client", "import-metadata", REPORTS, "--yes"]);
    assert!(why.contains("[[cimd.allow]]"), "nothing is fetched that was not allowed: {why}");
    let why = refused(&app, &["client", "remove-metadata", REPORTS, "--yes"]);
    assert!(why.contains("no imported document"), "{why}");
    assert!(app.has_event("cimd.refused", Some("document_not_taken")));
    assert!(listed(&app, REPORTS).is_none() && !app.has_event("cimd.imported", None));
}

/// CIMD-09: an import at once ends grants given to the unknown URL, or to the catalogue entry, that it
/// replaces; later grants continue.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_ends_what_was_given_without_it() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    for client in [stranger(), claude_code()] {
        let before = app.tokens(&mut ada, &client).await;
        let code = ada.authorize(&app, &client).await;
        assert_eq!(whoami(&app, &before).await, 200);
        let mut document = reports();
        document["client_id"] = json!(client.id);
        document["redirect_uris"] = json!([client.redirect_uri]);
        let path = file(&app, "document.json", &document);
        let shown = app.console(&["client", "import-metadata", &path]);
        assert_eq!(shown["change"]["grants_ended"], 2, "{shown}");
        assert_eq!(whoami(&app, &before).await, 200, "so far it was only shown");
        assert_eq!(import(&app, &document)["grants_ended"], 2);
        assert_eq!(whoami(&app, &before).await, 401);
        assert_eq!(error_of(app.refresh(&client, &before.refresh).await).await.1, "invalid_grant");
        assert_eq!(error_of(app.redeem(&client, &code).await).await.1, "invalid_grant");
        assert_eq!(listed(&app, &client.id).unwrap()["source"], "imported");

        let after = app.tokens(&mut ada, &client).await;
        // A newer version of the same document needs a new consent and ends no grant.
        document["client_name"] = json!("Reports 2");
        assert_eq!(import(&app, &document)["grants_ended"], 0);
        assert_eq!(whoami(&app, &after).await, 200);
        let page = ada.consent_page(&app, &client.authorize_url(&app)).await;
        assert!(page.html.contains("Reports 2"));
    }
}

/// CIMD-05: consents remembered for an older document do not apply to a newer one.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_document_needs_new_consent() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    import(&app, &reports());
    app.tokens(&mut ada, &client(REPORTS, "http://localhost:1/cb")).await;
    let database = rusqlite::Connection::open(app.data_dir().join("portcullis.db")).unwrap();
    let remembered = || {
        let count = database.query_row("SELECT count(*) FROM consent", [], |row| row.get::<_, u32>(0));
        count.unwrap()
    };
    for (member, value) in [
        ("redirect_uris", json!(["http://localhost/other"])),
        ("client_name", json!("Reports 2")),
        (
            "jwks",
            json!({"keys": [{"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}),
        ),
    ] {
        let user =
            "INSERT OR IGNORE INTO consent (user_id, client_id, resource, scope, client_state, granted_at)
             SELECT id, ?1, 'https://a.example/mcp', 'docs.read', x'00', 0 FROM user LIMIT 1";
        database.execute(user, [REPORTS]).unwrap();
        let mut document = reports();
        document[member] = value;
        if member == "jwks" {
            document["token_endpoint_auth_method"] = json!("private_key_jwt");
        }
        import(&app, &reports());
        database.execute(user, [REPORTS]).unwrap();
        assert_ne!(remembered(), 0);
        import(&app, &reports());
        assert_ne!(remembered(), 0, "the same document again changes nothing");
        import(&app, &document);
        assert_eq!(remembered(), 0, "{member}");
    }
}

/// CIMD-01: removing a document ends its grants; the catalogue's entry applies again.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_document_is_no_longer_accepted() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let mut document = reports();
    document["client_id"] = json!(CLAUDE_CODE);
    document["redirect_uris"] = json!(["http://localhost/elsewhere"]);
    import(&app, &document);
    let elsewhere = client(CLAUDE_CODE, "http://localhost:1/elsewhere");
    let tokens = app.tokens(&mut ada, &elsewhere).await;
    assert_eq!(ada.get(&app, &claude_code().authorize_url(&app)).await.status(), 400, "overridden");
    let shown = app.console(&["client", "remove-metadata", CLAUDE_CODE]);
    assert_eq!(shown["change"]["after"]["source"], "catalogue");
    app.console(&["client", "remove-metadata", CLAUDE_CODE, "--yes"]);
    assert_eq!(whoami(&app, &tokens).await, 401);
    assert_eq!(error_of(app.refresh(&elsewhere, &tokens.refresh).await).await.1, "invalid_client");
    assert_eq!(ada.get(&app, &elsewhere.authorize_url(&app)).await.status(), 400);
    let again = app.tokens(&mut ada, &claude_code()).await;
    assert_eq!(whoami(&app, &again).await, 200);

    import(&app, &reports());
    app.console(&["client", "delete", REPORTS, "--yes"]);
    let url = client(REPORTS, "https://reports.corp.example/cb").authorize_url(&app);
    super::is_row_3(ada.get(&app, &url).await, "reports.corp.example").await;
    let app = app.restart().await;
    assert_eq!(whoami(&app, &tokens).await, 401);
    assert_eq!(whoami(&app, &again).await, 200);
}

/// CIMD-13: a disabled entry's clients cannot sign in, not as unknown URLs either, and their grants end at
/// once; enabling it does not restore them.
#[tokio::test(flavor = "multi_thread")]
async fn disabling_a_catalogue_entry_refuses_its_next_request() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let codex = |id: &str| {
        client(
            &format!("https://chatgpt.com/oauth/codex/{id}/client.json"),
            &format!("http://127.0.0.1:1/callback/{id}"),
        )
    };
    let (one, other) = (codex("4-bzS8rt42zJ"), codex("AAAAAAAAAAAA"));
    let family = [app.tokens(&mut ada, &one).await, app.tokens(&mut ada, &other).await];
    let untouched = app.tokens(&mut ada, &claude_code()).await;
    let waiting = ada.consent_page(&app, &one.authorize_url(&app)).await;
    let off = app.console(&["client", "catalogue", "disable", "codex"]);
    assert_eq!((&off["state"], &off["grants_ended"]), (&json!("disabled"), &json!(2)));
    for tokens in &family {
        assert_eq!(whoami(&app, tokens).await, 401);
        assert_eq!(error_of(app.refresh(&one, &tokens.refresh).await).await.1, "invalid_client");
    }
    super::is_row_3(ada.get(&app, &one.authorize_url(&app)).await, "chatgpt.com").await;
    // A consent page that was open meanwhile decides nothing.
    let late = ada.decide(&app, &waiting, "approve").await;
    assert_eq!(crate::harness::redirect_parameter(&late, "error").unwrap(), "access_denied");
    assert_eq!(whoami(&app, &untouched).await, 200);
    assert!(app.has_event("client.disabled", None));

    let app = app.restart().await;
    super::is_row_3(ada.get(&app, &other.authorize_url(&app)).await, "chatgpt.com").await;
    assert_eq!(whoami(&app, &family[0]).await, 401);
    app.console(&["client", "catalogue", "enable", "codex"]);
    assert_eq!(whoami(&app, &family[0]).await, 401);
    let again = app.tokens(&mut ada, &one).await;
    assert_eq!(whoami(&app, &again).await, 200);
    let why = refused(&app, &["client", "catalogue", "disable", "nothing"]);
    assert!(why.contains("no entry"), "{why}");
}

/// CIMD-13: a site imports a newer catalogue, including families; its documents take precedence over the
/// built-in ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_catalogue_can_be_imported() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let tokens = app.tokens(&mut ada, &claude_code()).await;
    let entry = |name: &str, id: &str, uri: &str| {
        json!({"name": name, "source": "https://wiki.corp.example/clients", "date": "2026-11-20", "document": {
            "client_id": id, "client_name": name, "redirect_uris": [uri],
            "grant_types": ["authorization_code", "refresh_token"], "token_endpoint_auth_method": "none"}})
    };
    let family = "https://agents.corp.example/{callback_id}/client.json";
    let catalogue = json!([
        entry("Newer Claude Code", CLAUDE_CODE, "http://localhost/newer"),
        entry("Agents", family, "http://127.0.0.1/{callback_id}"),
    ]);
    let path = file(&app, "catalogue.json", &catalogue);
    let shown = app.console(&["client", "catalogue", "import", &path]);
    assert_eq!((shown["applied"].clone(), shown["changes"].as_array().unwrap().len()), (json!(false), 2));
    assert_eq!(whoami(&app, &tokens).await, 200);
    assert_eq!(app.console(&["client", "catalogue", "import", &path, "--yes"])["applied"], true);
    assert_eq!(whoami(&app, &tokens).await, 401);
    let listed = app.console(&["client", "catalogue", "list"]);
    let states: Vec<&str> = listed["catalogue"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["name"] == "claude-code")
        .map(|e| e["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["overridden"]);
    let newer = client(CLAUDE_CODE, "http://localhost:3/newer");
    let agent =
        client("https://agents.corp.example/abcdefghijkl/client.json", "http://127.0.0.1:3/abcdefghijkl");
    for client in [newer, agent] {
        let tokens = app.tokens(&mut ada, &client).await;
        assert_eq!(whoami(&app, &tokens).await, 200);
    }
    let wrong =
        client("https://agents.corp.example/abcdefghijkl/client.json", "http://127.0.0.1:3/AAAAAAAAAAAA");
    assert_eq!(ada.get(&app, &wrong.authorize_url(&app)).await.status(), 400);
    // Importing it again changes nothing; an incomplete catalogue is refused.
    assert_eq!(app.console(&["client", "catalogue", "import", &path, "--yes"])["changes"], json!([]));
    let mut bad = catalogue.clone();
    bad[1]["document"]["client_secret"] = json!("x");
    bad[0]["document"]["client_name"] = json!("Never");
    let why = refused(&app, &["client", "catalogue", "import", &file(&app, "bad.json", &bad), "--yes"]);
    assert!(why.contains("cannot have a secret"), "{why}");
    let names = app.console(&["client", "list"]).to_string();
    assert!(!names.contains("Never"));
}

/// CIMD-04, CAUTH-05: a client whose document has keys must authenticate with them.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_keys_proves_who_it_is() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let mut document = reports();
    document["token_endpoint_auth_method"] = json!("private_key_jwt");
    document["jwks"] = json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "1",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]});
    import(&app, &document);
    let client = client(REPORTS, "http://localhost:1/cb");
    let code = ada.authorize(&app, &client).await;
    assert_eq!(error_of(app.redeem(&client, &code).await).await.1, "invalid_client");
}
