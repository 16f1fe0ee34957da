//! What setup and enrolment pages learn of their link when they open: whose it is, or why it does not work.

use serde_json::{Value, json};

use crate::browser::Story;
use crate::harness::{Browser, TestApp};
use crate::process::{Driver, portcullis};

fn token(link: &str) -> &str {
    link.split_once('#').unwrap().1
}

async fn look(app: &TestApp, browser: &mut Browser, path: &str, token: &str) -> (u16, Value) {
    let answer = browser.post_json(app, path, &json!({ "token": token })).await;
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// ENROL-02: looking says whose the link is and spends nothing, however often; a link that is dead says what helps.
#[tokio::test(flavor = "multi_thread")]
async fn looking_at_a_link_names_its_user_and_does_not_spend_it() {
    let app = TestApp::start().await;
    let setup = app.setup_link.clone().unwrap();
    let mut ada = Browser::new();
    for _ in 0..3 {
        assert_eq!(look(&app, &mut ada, "/setup/look", token(&setup)).await, (200, json!({ "name": null })));
    }
    assert_eq!(ada.set_up(&app, &setup, "ada").await.status(), 200);
    let (status, dead) = look(&app, &mut Browser::new(), "/setup/look", token(&setup)).await;
    assert_eq!((status, &dead["error"]), (400, &json!("link_invalid")));
    let said = dead["message"].as_str().unwrap();
    assert!(said.contains("`portcullis setup-link`") && !said.contains("your administrator"), "{said}");

    let link = app.console(&["user", "add", "Ines"])["link"].as_str().unwrap().to_owned();
    let mut ines = Browser::new();
    for _ in 0..3 {
        assert_eq!(
            look(&app, &mut ines, "/enrol/look", token(&link)).await,
            (200, json!({ "name": "Ines" }))
        );
    }
    assert_eq!(app.console(&["user", "show", "Ines"])["user"]["passkeys"], 0);
    // Somebody else who is signed in is told so, and not whose it is.
    let (status, other) = look(&app, &mut ada, "/enrol/look", token(&link)).await;
    assert_eq!((status, &other["error"]), (403, &json!("signed_in_as_another")));
    assert!(!other.to_string().contains("Ines"), "{other}");
    assert_eq!(ines.follow_link(&app, &link).await.status(), 200);
    let (status, dead) = look(&app, &mut Browser::new(), "/enrol/look", token(&link)).await;
    assert_eq!(status, 400);
    assert!(dead["message"].as_str().unwrap().contains("Ask your administrator"), "{dead}");
    assert!(app.has_event("webauthn.failed", Some("link_invalid")));
}

/// WEBAUTHN-15: only our own page looks, and a link of one kind is unknown as the other.
#[tokio::test(flavor = "multi_thread")]
async fn looking_is_for_our_own_page() {
    let app = TestApp::start().await;
    app.admin().await;
    let link = app.console(&["user", "add", "Ines"])["link"].as_str().unwrap().to_owned();
    let body = json!({ "token": token(&link) });
    for path in ["/setup/look", "/enrol/look"] {
        let url = app.url(path);
        let foreign = app.http.post(&url).header("origin", "https://evil.example").json(&body);
        assert_eq!(foreign.send().await.unwrap().status(), 403, "{path}");
        assert_eq!(app.http.post(&url).json(&body).send().await.unwrap().status(), 403, "{path}");
        let form = app.http.post(&url).header("origin", &app.origin).form(&[("token", token(&link))]);
        assert!(form.send().await.unwrap().status().is_client_error(), "{path}");
        assert_eq!(app.http.get(&url).send().await.unwrap().status(), 405, "{path}");
    }
    assert_eq!(look(&app, &mut Browser::new(), "/setup/look", token(&link)).await.0, 400);
}

/// ENROL-01, ENROL-02: in a browser, the page says whose the link is before anything is pressed; opened again after its use
/// it says that at once, with commands as code, and no longer that the link works. The button keeps the focus.
#[test]
fn the_enrolment_page_names_the_user_of_its_link() {
    let mut story = Story::begin();
    let data = story.dir.path().join("data");
    let done = story.browser.ok(&json!({"op": "text", "selector": "[data-testid=welcome]"}));
    assert!(done["text"].as_str().unwrap().contains("You are the administrator"), "{done}");
    let added = portcullis(&["user", "add", "Ines", "--json", "--data-dir", data.to_str().unwrap()]);
    let added: Value = serde_json::from_slice(&added.stdout).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let mut browser = Driver::browser(scratch.path());
    browser.ok(&json!({"op": "open", "url": added["link"]}));
    let told = browser.ok(&json!({"op": "text", "selector": "[data-testid=link-for]:visible"}));
    assert_eq!(told["text"], "This link is for Ines.");
    assert_eq!(browser.ok(&json!({"op": "inspect"}))["problems"], json!([]));
    browser.ok(&json!({"op": "text", "selector": "[data-link-works]:visible"}));
    browser.ok(&json!({"op": "setup", "url": added["link"], "name": "Ines"}));
    let welcome = browser.ok(&json!({"op": "text", "selector": "[data-testid=welcome]"}));
    assert!(!welcome["text"].as_str().unwrap().contains("administrator"), "{welcome}");
    browser.close();

    let scratch = tempfile::tempdir().unwrap();
    let mut again = Driver::browser(scratch.path());
    again.ok(&json!({"op": "open", "url": added["link"]}));
    let refused = again.ok(&json!({"op": "text", "selector": "[data-testid=error]:visible"}));
    let refused = refused["text"].as_str().unwrap();
    assert!(refused.contains("This link was used") && !refused.contains('`'), "{refused}");
    let code = again.ok(&json!({"op": "text", "selector": "[data-testid=error] code"}));
    assert_eq!(code["text"], "portcullis user link");
    let hidden =
        json!({"op": "evaluate", "expression": "document.querySelector('[data-link-works]').hidden"});
    assert_eq!(again.ok(&hidden)["value"], true);
    again.ok(&json!({"op": "click", "testid": "passkey-register"}));
    let focused = json!({"op": "evaluate", "expression": "document.activeElement.dataset.testid || ''"});
    assert_eq!(again.ok(&focused)["value"], "passkey-register");
    again.close();
}
