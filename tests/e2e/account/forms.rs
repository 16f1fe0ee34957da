//! The account page's forms.

use super::*;

/// The fields of the form around a button, as a browser without scripts sends them.
fn form_of<'h>(html: &'h str, testid: &str) -> Vec<(&'h str, &'h str)> {
    let (before, _) = html.split_once(&format!("data-testid=\"{testid}\"")).expect("the button is there");
    let (_, form) = before.rsplit_once("<form ").unwrap();
    assert!(form.starts_with("method=\"post\" action=\"/account/change\" data-change>"), "{form}");
    let value = |tag: &'h str, name: &str| {
        let (_, rest) = tag.split_once(&format!(" {name}=\"")).unwrap();
        rest.split('"').next().unwrap()
    };
    form.split("<input").skip(1).map(|tag| (value(tag, "name"), value(tag, "value"))).collect()
}

/// REVOKE-07, SESSION-06: with an `https` issuer the page's forms work without a script.
#[tokio::test(flavor = "multi_thread")]
async fn the_forms_need_no_script() {
    let app = TestApp::start_https("").await;
    let mut ada = app.admin().await;
    let added = app.console(&["client", "add", "Portal", "--redirect-uri", "https://portal.example/cb"]);
    let client = Client {
        id: added["client"]["id"].as_str().unwrap().to_owned(),
        redirect_uri: "https://portal.example/cb".to_owned(),
    };
    ada.authorize(&app, &client).await;
    let _laptop = another(&app, "ada").await;
    for (testid, leads_to) in [
        ("forget", "/account?done="),
        ("disconnect", "/account?done="),
        ("sign-out-elsewhere", "/account?done="),
        ("end-session", "/"),
    ] {
        let html = ada.account(&app).await;
        let answer = ada.post_form(&app, CHANGE, &form_of(&html, testid)).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{testid}");
        let location = header(answer.headers(), "location").unwrap().to_owned();
        assert!(location.starts_with(leads_to), "{testid}: {location}");
        let next = ada.get(&app, &app.url(&location)).await.text().await.unwrap();
        assert_eq!(next.contains("data-testid=\"done\""), leads_to != "/", "{testid}");
    }
    ada.sign_in(&app, None).await;
    let mut laptop = another(&app, "ada").await;
    let html = laptop.account(&app).await;
    laptop.post_form(&app, CHANGE, &form_of(&html, "sign-out-everywhere")).await;
    assert!(!is_signed_in(&app, &mut laptop).await && !is_signed_in(&app, &mut ada).await);
}

/// SESSION-01, SESSION-02, WEBAUTHN-03: on loopback a session alone only reads. Each change takes a passkey
/// assertion for exactly that change, once; afterwards the session has a new id.
#[tokio::test(flavor = "multi_thread")]
async fn on_loopback_a_change_takes_the_passkey() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let (client, other) = (app.client().await, app.client().await);
    let held = tokens(&app, &mut ada, &client).await;
    let of_other = tokens(&app, &mut ada, &other).await;
    assert_eq!(ada.sign_in(&app, None).await.status(), 200);
    let page = ada.account(&app).await;
    assert!(page.contains("Each change here needs your passkey") && page.contains("data-confirm"));
    let csrf = account_csrf(&page);
    let form = |client: &Client| -> Vec<(String, String)> {
        let form = [("csrf", csrf.as_str()), ("action", "disconnect"), ("client", &client.id)];
        form.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let post = async |ada: &mut Browser, mut form: Vec<(String, String)>, confirmed: Option<&[String; 2]>| {
        if let Some([ceremony, assertion]) = confirmed {
            form.extend([
                ("ceremony".to_owned(), ceremony.clone()),
                ("assertion".to_owned(), assertion.clone()),
            ]);
        }
        ada.send(app.http.post(app.url(CHANGE)).header("origin", &app.origin).form(&form)).await
    };
    let bare = post(&mut ada, form(&client), None).await;
    assert_eq!(bare.status(), StatusCode::FORBIDDEN);
    assert!(bare.text().await.unwrap().contains("step_up_required"));
    let for_other = [("csrf", csrf.as_str()), ("action", "disconnect"), ("client", other.id.as_str())];
    let confirmed = ada.confirm_change(&app, &for_other).await;
    assert_eq!(post(&mut ada, form(&client), Some(&confirmed)).await.status(), StatusCode::BAD_REQUEST);
    // The assertion is used up, also for the change that it was made for.
    assert_eq!(post(&mut ada, form(&other), Some(&confirmed)).await.status(), StatusCode::BAD_REQUEST);
    assert!(works(&app, &held).await && works(&app, &of_other).await);
    // An assertion for adding a passkey confirms nothing else.
    let started = ada.post_json(&app, "/account/passkeys/start", &json!({})).await;
    let started: Value = started.json().await.unwrap();
    let assertion = serde_json::to_string(&ada.assert(&app, started["options"].clone())).unwrap();
    let added = [started["ceremony"].as_str().unwrap().to_owned(), assertion];
    assert_eq!(post(&mut ada, form(&client), Some(&added)).await.status(), StatusCode::BAD_REQUEST);
    for (csrf, status) in [("x", StatusCode::FORBIDDEN), (csrf.as_str(), StatusCode::BAD_REQUEST)] {
        let fields = json!({"csrf": csrf, "action": "delete"});
        assert_eq!(ada.post_json(&app, "/account/change/start", &fields).await.status(), status);
    }
    assert!(works(&app, &held).await);

    let before = ada.cookies.clone();
    let answer = ada.change(&app, &disconnect(&client)).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    assert!(!works(&app, &held).await && works(&app, &of_other).await);
    let location = header(answer.headers(), "location").unwrap().to_owned();
    assert!(
        ada.get(&app, &app.url(&location)).await.text().await.unwrap().contains("Application disconnected.")
    );
    let mut old = Browser::new();
    old.cookies = before;
    assert!(!is_signed_in(&app, &mut old).await);
    let step_up = records(&app, "session.step_up", "allowed");
    assert_eq!((step_up.len(), &step_up[0]["detail"]["for"]), (1, &json!("account")));
    assert_eq!(records(&app, "webauthn.failed", "failed").len(), 5);
}
