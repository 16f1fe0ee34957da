//! Documents fetched from hosts that the site allows.

mod origin;

use std::time::Duration;

use serde_json::json;

use super::{CLAUDE_CODE, claude_code, client, is_row_3, listed, whoami};
use crate::clients::refused;
use crate::harness::{Client, TestApp, Tokens, error_of};
use crate::process::{complaint, portcullis};
use origin::Origin;

async fn started() -> (TestApp, Origin, Client) {
    let origin = Origin::start().await;
    origin.serve(&origin.document(), 3600);
    let app = TestApp::start_configured(&origin.toml()).await;
    let client = client(&origin.client_id(), "http://localhost:4711/cb");
    (app, origin, client)
}

/// CIMD-01, CIMD-06, CIMD-07, CIMD-08: a document is fetched once, kept while it is valid, and then fetched
/// again.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_fetched_and_kept() {
    let (app, origin, client) = started().await;
    let mut ada = app.admin().await;
    let tokens = app.tokens(&mut ada, &client).await;
    assert_eq!(whoami(&app, &tokens).await, 200);
    let second = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
    assert_eq!(app.http.get(client.authorize_url(&app)).send().await.unwrap().status(), 200);
    assert_eq!(origin.requests(), 1);
    let row = listed(&app, &client.id).unwrap();
    assert_eq!(
        (&row["source"], &row["trust"], &row["name"]),
        (&json!("fetched"), &json!("known"), &json!("Ticket desk"))
    );
    let fetched = app.audit().into_iter().find(|record| record["event"] == "cimd.fetched").unwrap();
    assert_eq!(fetched["detail"]["url"], client.id);
    assert_eq!(fetched["detail"]["doc_sha256"].as_str().unwrap().len(), 64);

    let app = app.restart().await;
    assert_eq!(app.refresh(&client, &second.refresh).await.status(), 200);
    assert_eq!(origin.requests(), 1, "it is kept over a restart");
    app.clock.advance(Duration::from_secs(3601));
    let mut newer = origin.document();
    newer["client_name"] = json!("Ticket desk 2");
    origin.serve(&newer, 3600);
    let page = ada.consent_page(&app, &client.authorize_url(&app)).await;
    assert!(page.html.contains("Ticket desk 2"));
    assert_eq!(origin.requests(), 2);
    // A client that is known otherwise causes no fetch.
    assert_eq!(app.http.get(claude_code().authorize_url(&app)).send().await.unwrap().status(), 200);
    assert_eq!(origin.requests(), 2);
}

/// CIMD-08: while the origin is down, existing grants continue for a day with the last document; new sign-ins
/// are refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_copy_serves_grants_for_a_day() {
    let (app, origin, client) = started().await;
    let mut ada = app.admin().await;
    let mut tokens = app.tokens(&mut ada, &client).await;
    origin.down();
    app.clock.advance(Duration::from_secs(3601));
    is_row_3(ada.get(&app, &client.authorize_url(&app)).await, "localhost").await;
    assert!(app.has_event("cimd.refused", Some("unreachable")));
    assert!(app.has_event("authz.error", Some("document_unavailable")));
    for _ in 0..2 {
        tokens = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
        app.clock.advance(Duration::from_hours(11));
    }
    app.clock.advance(Duration::from_hours(3));
    assert_eq!(error_of(app.refresh(&client, &tokens.refresh).await).await.1, "invalid_client");
    // The client works again when the origin is back.
    origin.serve(&origin.document(), 3600);
    assert_eq!(app.refresh(&client, &tokens.refresh).await.status(), 200);
}

/// CIMD-08: an origin that answers without a document is not down. Failures are not cached either.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_removed_by_its_origin_serves_no_client() {
    let (app, origin, client) = started().await;
    let mut ada = app.admin().await;
    let tokens = app.tokens(&mut ada, &client).await;
    app.clock.advance(Duration::from_secs(3601));
    let mut poisoned = origin.document();
    poisoned["client_secret"] = json!("x");
    for (reason, spoil) in [
        ("status", Box::new(|| origin.gone()) as Box<dyn Fn()>),
        ("holds_a_secret", Box::new(|| origin.serve(&poisoned, 3600))),
    ] {
        spoil();
        assert_eq!(error_of(app.refresh(&client, &tokens.refresh).await).await.1, "invalid_client");
        is_row_3(ada.get(&app, &client.authorize_url(&app)).await, "localhost").await;
        assert!(app.has_event("cimd.refused", Some(reason)), "{reason}");
    }
    assert!(app.has_event("client.auth_failed", Some("client_unknown")));
    let asked = origin.requests();
    origin.serve(&origin.document(), 3600);
    assert_eq!(app.refresh(&client, &tokens.refresh).await.status(), 200, "the next one asks again");
    assert_eq!(origin.requests(), asked + 1);
}

/// CIMD-07: the cause of a failure is recorded and not shown on the page.
#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_failure_is_not_described_to_the_requester() {
    let (app, origin, client) = started().await;
    origin.answer(
        "HTTP/1.1 302 Found\r\nLocation: https://internal.corp.example/secret\r\nContent-Length: 0\r\n\r\n",
    );
    let redirected =
        is_row_3(app.http.get(client.authorize_url(&app)).send().await.unwrap(), "localhost").await;
    origin.down();
    let down = is_row_3(app.http.get(client.authorize_url(&app)).send().await.unwrap(), "localhost").await;
    let told = |page: &str| page.split("If you ask for help").next().unwrap().to_owned();
    assert_eq!(told(&redirected), told(&down));
    assert!(!redirected.contains("302") && !redirected.contains("internal.corp.example"));
    assert!(
        app.has_event("cimd.refused", Some("status")) && app.has_event("cimd.refused", Some("unreachable"))
    );
    // For a host whose documents can be fetched, no unknown-URL record is made.
    assert!(listed(&app, &client.id).is_none());
}

/// CIMD-06: other hosts, ports and addresses are never contacted, whatever the client id is.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_named_host_is_contacted() {
    let origin = Origin::start().await;
    origin.serve(&origin.document(), 3600);
    let elsewhere = origin.toml().replace("\"127.0.0.1/32\", \"::1/128\"", "\"10.0.0.0/8\"");
    let app = TestApp::start_configured(&elsewhere).await;
    let here = client(&origin.client_id(), "http://localhost:1/cb");
    is_row_3(app.http.get(here.authorize_url(&app)).send().await.unwrap(), "localhost").await;
    assert!(app.has_event("cimd.refused", Some("address_not_allowed")));

    let app = TestApp::start_configured(&origin.toml()).await;
    for id in [
        format!("https://127.0.0.1:{}/oauth/client.json", origin.port),
        format!("https://[::1]:{}/oauth/client.json", origin.port),
        format!("https://localhost.:{}/oauth/client.json", origin.port),
        "https://localhost/oauth/client.json".to_owned(),
    ] {
        // Not an allowed host, so it is treated like any unknown URL.
        let page =
            app.http.get(client(&id, "http://localhost:1/cb").authorize_url(&app)).send().await.unwrap();
        assert_eq!(page.status(), 200, "{id}");
    }
    assert_eq!(origin.requests(), 0);
    assert!(!app.has_event("cimd.refused", Some("address_not_allowed")));
}

/// CIMD-07: concurrent requests share one fetch; one address can cause ten fetches a minute.
#[tokio::test(flavor = "multi_thread")]
async fn an_origin_is_not_flooded() {
    let (app, origin, client) = started().await;
    let url = client.authorize_url(&app);
    let asking = (0..8).map(|_| app.http.get(&url).send());
    for answer in futures_util::future::join_all(asking).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    assert_eq!(origin.requests(), 1);
    app.clock.advance(Duration::from_hours(2));
    origin.gone();
    for _ in 0..15 {
        is_row_3(app.http.get(&url).send().await.unwrap(), "localhost").await;
    }
    assert_eq!(origin.requests(), 11);
    app.clock.advance(Duration::from_mins(1));
    is_row_3(app.http.get(&url).send().await.unwrap(), "localhost").await;
    assert_eq!(origin.requests(), 12);
}

/// CIMD-01, CIMD-05: an imported document takes precedence over the network; it can be fetched for the import.
#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_fetches_and_pins() {
    let (app, origin, client) = started().await;
    let mut ada = app.admin().await;
    let tokens = app.tokens(&mut ada, &client).await;
    let config = app.data_dir().parent().unwrap().join("portcullis.toml");
    let config = config.to_str().unwrap();
    let shown = app.console(&["client", "import-metadata", &client.id, "--config", config]);
    assert_eq!(shown["change"]["before"]["source"], "fetched");
    assert_eq!(shown["change"]["grants_ended"], 1);
    app.console(&["client", "import-metadata", &client.id, "--config", config, "--yes"]);
    assert_eq!(whoami(&app, &tokens).await, 401);
    let asked = origin.requests();
    origin.gone();
    app.clock.advance(Duration::from_hours(30 * 24));
    let tokens = app.tokens(&mut ada, &client).await;
    assert_eq!(whoami(&app, &tokens).await, 200);
    assert_eq!(origin.requests(), asked);
    let why = refused(&app, &["client", "import-metadata", &client.id, "--config", config, "--yes"]);
    assert!(why.contains("status 404"), "{why}");
    let why = refused(&app, &["client", "import-metadata", CLAUDE_CODE, "--config", config, "--yes"]);
    assert!(why.contains("not in the list of hosts"), "{why}");
}

/// CIMD-01, TOKEN-15: without mode `fetch`, fetched documents are no longer valid.
#[tokio::test(flavor = "multi_thread")]
async fn turning_fetching_off_deletes_fetched_documents() {
    let (app, origin, client) = started().await;
    let mut ada = app.admin().await;
    let tokens = app.tokens(&mut ada, &client).await;
    let app = app.restart_configured("").await;
    assert_eq!(whoami(&app, &tokens).await, 401);
    assert_eq!(error_of(app.refresh(&client, &tokens.refresh).await).await.1, "invalid_client");
    assert_eq!(origin.requests(), 1);
}

/// CIMD-06, OPS-03: a configuration with which fetching cannot work is refused in one line.
#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_fetch_is_refused() {
    let origin = Origin::start().await;
    let good = origin.toml();
    let path = origin.ca().with_file_name("portcullis.toml");
    let complaint_about = |toml: &str| {
        std::fs::write(&path, toml).unwrap();
        let output = portcullis(&[
            "check",
            "--config",
            path.to_str().unwrap(),
            "--data-dir",
            "/nonexistent-portcullis",
        ]);
        (output.status.success(), complaint(&output))
    };
    assert!(!complaint_about(&good).1.contains("cimd"), "{}", complaint_about(&good).1);
    for (was, is, says) in [
        ("mode = \"fetch\"", "mode = \"import\"", "has no effect"),
        ("mode = \"fetch\"", "mode = \"all\"", "write \"import\", \"fetch\" or \"off\""),
        ("host = \"localhost\"", "host = \"https://localhost\"", "not a host"),
        ("host = \"localhost\"", "host = \"LOCALHOST\"", "not a host"),
        ("host = \"localhost\"\n", "", "has no `host`"),
        ("127.0.0.1/32", "127.0.0.1", "is not a valid network"),
        ("127.0.0.1/32", "127.0.0.1/8", "is not a valid network"),
        ("cidr", "cdir", "did you mean `cidr`"),
        ("ca.pem", "missing.pem", "missing.pem"),
        ("[[cimd.allow]]", "[cimd.allow]", "[[allow]]"),
    ] {
        assert!(good.contains(was));
        let (_, said) = complaint_about(&good.replacen(was, is, 1));
        assert!(said.contains(says), "{is}: {said}");
    }
    let (_, said) = complaint_about("[cimd]\nmode = \"fetch\"\n");
    assert!(said.contains("add [[cimd.allow]]"), "{said}");
    let (_, said) = complaint_about(good.split("ca = ").next().unwrap());
    assert!(said.contains("has no `ca`"), "{said}");
    std::fs::write(origin.ca(), "nothing").unwrap();
    let (fine, said) = complaint_about(&good);
    assert!(!fine && said.contains("no PEM certificate"), "{said}");
}
