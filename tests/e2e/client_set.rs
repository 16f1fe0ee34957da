//! `portcullis client set`: what may be changed of a client, and what ends with it.

use serde_json::json;

use crate::clients::{refused, whoami};
use crate::harness::{Client, TestApp, error_of, redirect_parameter};

const BEFORE: &str = "http://localhost/before";
const AFTER: &str = "http://localhost/after";

fn added(app: &TestApp, name: &str) -> Client {
    let added = app.console(&["client", "add", name, "--redirect-uri", BEFORE]);
    Client { id: added["client"]["id"].as_str().unwrap().to_owned(), redirect_uri: BEFORE.to_owned() }
}

/// DCR-10, AUDIT-08, REDIR-01: other redirect URIs end what people granted and what they were asked; the old URI is refused,
/// the new one works, and the record says what was before and is now.
#[tokio::test(flavor = "multi_thread")]
async fn changing_redirect_uris_revokes_grants() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let mut client = added(&app, "Portal");
    let tokens = app.tokens(&mut ada, &client).await;
    let code = ada.authorize(&app, &client).await;
    let page = ada.consent_page(&app, &client.authorize_url(&app)).await;
    assert_eq!(whoami(&app, &tokens.access).await, 200);

    let changed = app.console(&["client", "set", "Portal", "--redirect-uri", AFTER]);
    assert_eq!(changed["changed_fields"], json!(["redirect_uris"]));
    assert!(changed["grants_ended"].as_u64().unwrap() >= 1, "{changed}");
    assert_eq!(changed["client"]["redirect_uris"], json!([{"uri": AFTER, "usable": true}]));
    assert_eq!((&changed["client"]["id"], &changed["client"]["access"]), (&json!(client.id), &json!([])));
    assert_eq!(whoami(&app, &tokens.access).await, 401);
    assert_eq!(error_of(app.refresh(&client, &tokens.refresh).await).await.1, "invalid_grant");
    assert_eq!(error_of(app.redeem(&client, &code).await).await.1, "invalid_grant");
    // What was asked before must not be answered at an address that is no longer registered.
    let late = ada.decide(&app, &page, "approve").await;
    assert_eq!((late.status().as_u16(), redirect_parameter(&late, "code")), (400, None));

    let refused_page = ada.get(&app, &client.authorize_url(&app)).await;
    assert_eq!(refused_page.status(), 400);
    let html = refused_page.text().await.unwrap();
    assert!(
        html.contains(&format!("portcullis client set {} \\\n  --redirect-uri URI", client.id)),
        "{html}"
    );
    client.redirect_uri = AFTER.to_owned();
    app.tokens(&mut ada, &client).await;

    let record = app.audit().into_iter().rfind(|record| record["event"] == "client.updated").unwrap();
    let detail = &record["detail"];
    assert_eq!(detail["before"], json!({"name": "Portal", "redirect_uris": [BEFORE]}));
    assert_eq!(detail["after"], json!({"name": "Portal", "redirect_uris": [AFTER]}));
    assert_eq!(
        (&detail["changed_fields"], &detail["source"]),
        (&json!(["redirect_uris"]), &json!("administrator"))
    );
}

/// DCR-13: another name ends no token and is shown from then on; what is as it was leaves no record.
#[tokio::test(flavor = "multi_thread")]
async fn changing_the_name_revokes_nothing() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let client = added(&app, "Portal");
    let tokens = app.tokens(&mut ada, &client).await;
    let changed = app.console(&["client", "set", "Portal", "--name", "Tickets"]);
    assert_eq!((&changed["changed_fields"], &changed["grants_ended"]), (&json!(["client_name"]), &json!(0)));
    assert_eq!(whoami(&app, &tokens.access).await, 200);
    let page = ada.consent_page(&app, &client.authorize_url(&app)).await;
    assert!(page.html.contains(">Tickets</bdi>"), "{}", page.html);
    let records = app.audit().len();
    let again = app.console(&["client", "set", "Tickets", "--name", "Tickets", "--redirect-uri", BEFORE]);
    assert_eq!(again["changed_fields"], json!([]));
    assert_eq!(app.audit().len(), records, "nothing changed, so nothing is on record");
}

/// DCR-13, REDIR-03, REDIR-05: what a client may not become is refused, and so are clients that others describe. Nothing
/// changes.
#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_change_are_refused() {
    let secret = shared::Secret::random("cs_").digest().hex();
    let toml = format!(
        "[clients.wiki]\ntitle = \"Wiki\"\nsecret_sha256 = [\"{secret}\"]\nredirect_uris = [\"https://wiki.example/cb\"]\n"
    );
    let app = TestApp::start_configured(&toml).await;
    app.admin().await;
    let client = added(&app, "Portal");
    added(&app, "Other");
    app.console(&["client", "add", "Console", "--device"]);
    let own = app.client().await;
    let records = app.audit().len();
    for (arguments, says) in [
        (&["Portal", "--name", "Portcullis"][..], "is this server's own name"),
        (&["Portal", "--name", "0ther"], "looks like the name of the verified client"),
        (&["Portal", "--name", "wiki"], "looks like the name of the verified client"),
        (&["Portal", "--name", "c_x"], "is not a valid client name"),
        (&["Portal", "--redirect-uri", "http://elsewhere.example/cb"], "the redirect URI"),
        (&["Portal", "--redirect-uri", "javascript:alert(1)"], "the redirect URI"),
        (&["Portal", "--redirect-uri", "zed://cb"], "has a scheme that any program can claim"),
        (&["Console", "--redirect-uri", AFTER], "which is not among its grants"),
        (&["c_wiki", "--redirect-uri", AFTER], "change it there and run: portcullis reload"),
        (&[&own.id, "--redirect-uri", AFTER], "registered itself"),
        (&["Nobody", "--name", "X"], "no client `Nobody`"),
    ] {
        let said = refused(&app, &[&["client", "set"], arguments].concat());
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
    assert_eq!(app.audit().len(), records);
    let shown = app.console(&["client", "show", &client.id]);
    assert_eq!(shown["client"]["redirect_uris"], json!([{"uri": BEFORE, "usable": true}]));
    // A name that is taken names the command that changes the other client.
    let said = refused(&app, &["client", "add", "Portal", "--redirect-uri", AFTER]);
    assert!(
        said.contains("portcullis client set ") && said.contains(&format!(" {} --redirect-uri", client.id)),
        "{said}"
    );
}
