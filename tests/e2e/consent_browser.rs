//! The consent page in a real Chromium with an authenticator.

use reqwest::blocking::Client as Http;
use serde_json::{Value, json};

use crate::browser::Story;
use crate::harness::{VERIFIER, challenge};
use crate::process::portcullis;

/// Here `docs.full` is high-risk, and all users may have it.
const RULES: &str = "[registration]\nremote_redirects = true\n[groups]\neveryone = [\"docs.read\", \"docs.full\"]\n\
                     [scopes.\"docs.full\"]\ntitle = \"Read whole documents\"\nrisk = \"high\"\n[tools.docs_read]\nscope = \"docs.full\"\n";
const APPROVE: &str = "[data-testid=consent-approve]";

/// A self-registered client that requests both scopes.
struct Asking {
    http: Http,
    origin: String,
    id: String,
    redirect_uri: String,
}

impl Asking {
    fn register(story: &Story, name: &str, redirect_uri: &str) -> Self {
        let http = Http::builder().no_proxy().build().unwrap();
        let origin = story.server.origin.clone();
        let metadata = json!({"client_name": name, "redirect_uris": [redirect_uri], "token_endpoint_auth_method": "none"});
        let registered = http.post(format!("{origin}/register")).json(&metadata).send().unwrap();
        let registered: Value = registered.json().unwrap();
        let id = registered["client_id"].as_str().unwrap().to_owned();
        Self { http, origin, id, redirect_uri: redirect_uri.to_owned() }
    }

    fn url(&self) -> String {
        let parameters = [
            ("response_type", "code"),
            ("client_id", &self.id),
            ("redirect_uri", &self.redirect_uri),
            ("code_challenge", &challenge()),
            ("code_challenge_method", "S256"),
            ("scope", "docs.read docs.full"),
        ];
        url::Url::parse_with_params(&format!("{}/authorize", self.origin), parameters).unwrap().to_string()
    }

    /// Redeems the code in the redirect; returns the scope of the tokens.
    fn redeem(&self, redirected_to: &str) -> String {
        let url = url::Url::parse(redirected_to).unwrap();
        let code = url.query_pairs().find(|(name, _)| name == "code").expect("a code").1.into_owned();
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", &self.id),
            ("code", &code),
            ("code_verifier", VERIFIER),
        ];
        let body: Value =
            self.http.post(format!("{}/token", self.origin)).form(&form).send().unwrap().json().unwrap();
        body["scope"].as_str().unwrap_or_else(|| panic!("no scope in {body}")).to_owned()
    }
}

/// Opens the request and signs in; waits until the consent page's button is enabled.
fn to_the_question(story: &mut Story, asking: &Asking) {
    story.browser.ok(&json!({"op": "open", "url": asking.url()}));
    story.browser.ok(&json!({"op": "click", "testid": "passkey-login"}));
    story.browser.ok(&json!({"op": "text", "selector": format!("{APPROVE}:enabled")}));
}

fn evaluate(story: &mut Story, expression: &str) -> Value {
    story.browser.ok(&json!({"op": "evaluate", "expression": expression}))["value"].take()
}

fn tick(story: &mut Story, scope: &str, ticked: bool) {
    story.browser.ok(&json!({"op": "tick", "scope": scope, "ticked": ticked}));
}

/// Presses a button that leads to the client; returns the URL.
fn leave(story: &mut Story, testid: &str) -> String {
    let left = story.browser.ok(&json!({"op": "leave", "testid": testid}));
    left["redirected_to"].as_str().unwrap().to_owned()
}

fn events(story: &Story) -> Vec<String> {
    let data = story.dir.path().join("data");
    let tail = portcullis(&["audit", "tail", "-n", "10000", "--json", "--data-dir", data.to_str().unwrap()]);
    let lines = String::from_utf8(tail.stdout).unwrap();
    let records = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.map(|record| record["event"].as_str().unwrap().to_owned()).collect()
}

/// CONSENT-08, CONSENT-05: a high-risk scope is unticked until the user ticks it; then a passkey assertion for
/// exactly this is required. If the user cancels it, nothing is decided and the page is unchanged.
#[test]
fn a_high_risk_scope_takes_a_tap() {
    let mut story = Story::begin_configured(RULES);
    let asking = Asking::register(&story, "Laptop tool", "http://localhost:1/callback");
    to_the_question(&mut story, &asking);
    let ticked = "[...document.querySelectorAll('input[name=scope]:checked')].map((box) => box.value)";
    assert_eq!(evaluate(&mut story, ticked), json!(["docs.read"]));
    tick(&mut story, "docs.full", true);

    story.browser.ok(&json!({"op": "owner", "present": false}));
    story.browser.ok(&json!({"op": "click", "testid": "consent-approve"}));
    let told = story.browser.ok(&json!({"op": "text", "selector": "[data-testid=error]:visible"}));
    assert!(!told["text"].as_str().unwrap().is_empty());
    assert!(!events(&story).iter().any(|event| event == "authz.approved" || event == "session.step_up"));
    assert_eq!(evaluate(&mut story, ticked), json!(["docs.full", "docs.read"]));

    story.browser.ok(&json!({"op": "owner", "present": true}));
    story.browser.ok(&json!({"op": "text", "selector": format!("{APPROVE}:enabled")}));
    let redirected_to = leave(&mut story, "consent-approve");
    assert!(redirected_to.starts_with("http://localhost:1/callback?code="), "{redirected_to}");
    assert_eq!(asking.redeem(&redirected_to), "docs.full docs.read");
    let events = events(&story);
    let tap = events.iter().position(|event| event == "session.step_up").expect("a tap on record");
    assert!(events[tap..].iter().any(|event| event == "authz.approved"), "{events:?}");
}

/// CONSENT-05: unticked scopes are not granted; with nothing ticked, the page says what that means.
#[test]
fn unticked_scopes_are_not_granted() {
    let mut story = Story::begin_configured(RULES);
    let asking = Asking::register(&story, "Laptop tool", "http://localhost:1/callback");
    to_the_question(&mut story, &asking);
    let redirected_to = leave(&mut story, "consent-approve");
    assert_eq!(asking.redeem(&redirected_to), "docs.read");
    assert!(!events(&story).iter().any(|event| event == "session.step_up"), "nothing high-risk was ticked");

    to_the_question(&mut story, &asking);
    tick(&mut story, "docs.read", false);
    // With nothing ticked the button is disabled, its description and a live region say why, and Enter in a
    // checkbox, which presses a form's first button, presses none.
    let hint = story.browser.ok(&json!({"op": "text", "selector": "[data-hint]"}));
    assert_eq!(hint["text"], "Tick something to allow access.");
    let button = "(() => { const one = document.querySelector('[data-testid=consent-approve]'); const why = document.getElementById(one.getAttribute('aria-describedby')); return [one.disabled, why.textContent, why.getAttribute('aria-live')]; })()";
    assert_eq!(evaluate(&mut story, button), json!([true, "Tick something to allow access.", "polite"]));
    let at = evaluate(&mut story, "location.href");
    evaluate(&mut story, "document.querySelector('input[value=\"docs.read\"]').focus()");
    story.browser.ok(&json!({"op": "press", "key": "Enter"}));
    assert_eq!(evaluate(&mut story, "new Promise((done) => setTimeout(() => done(location.href), 700))"), at);
    assert_eq!(evaluate(&mut story, button)[0], true, "time alone does not wake it");
    story.browser.ok(&json!({"op": "press", "key": "Space"}));
    assert_eq!(evaluate(&mut story, button), json!([false, "Untick what it does not need.", "polite"]));
    tick(&mut story, "docs.read", false);
    let redirected_to = leave(&mut story, "consent-deny");
    assert!(redirected_to.starts_with("http://localhost:1/callback?error=access_denied&"), "{redirected_to}");
}

/// CONSENT-05: if nothing is ticked initially, the page says what to do before its script runs, and the button
/// stays disabled after the half second. CONSENT-08: the warning is the site's own, or makes no claim.
#[test]
fn a_page_with_nothing_ticked_waits_for_a_tick() {
    let rules = RULES.replace("risk = \"high\"", "risk = \"high\"\nrisk_text = \"It shows drafts, too.\"");
    let mut story = Story::begin_configured(&rules);
    let asking = Asking::register(&story, "Laptop tool", "http://localhost:1/callback");
    let url = asking.url().replace("scope=docs.read+docs.full", "scope=docs.full");
    assert!(url.contains("scope=docs.full"), "{url}");
    story.browser.ok(&json!({"op": "open", "url": url}));
    story.browser.ok(&json!({"op": "click", "testid": "passkey-login"}));
    let hint = story.browser.ok(&json!({"op": "text", "selector": "[data-hint]"}));
    assert_eq!(hint["text"], "Tick something to allow access.");
    let risk = story.browser.ok(&json!({"op": "text", "selector": ".risk"}))["text"].take();
    assert!(risk.as_str().unwrap().starts_with("High risk. It shows drafts, too."), "{risk}");
    let disabled = "new Promise((done) => setTimeout(() => done(document.querySelector('[data-testid=consent-approve]').disabled), 700))";
    assert_eq!(evaluate(&mut story, disabled), true);
    tick(&mut story, "docs.full", true);
    let redirected_to = leave(&mut story, "consent-approve");
    assert_eq!(asking.redeem(&redirected_to), "docs.full");
}

/// CONSENT-01, DCR-08: before signing in and when deciding, users see that the client chose its own name, and
/// the receiver of the answer in larger letters; a remote receiver has a warning.
#[test]
fn a_claimed_name_is_marked_and_the_host_is_large() {
    let mut story = Story::begin_configured(RULES);
    for (uri, host, warning) in [
        ("http://localhost:1/callback", "this computer", "Any program on this computer can claim this name."),
        (
            "https://tools.example/cb",
            "tools.example",
            "Nobody on this site has checked who runs tools.example.",
        ),
    ] {
        let asking = Asking::register(&story, "Grand Central Bank", uri);
        story.browser.ok(&json!({"op": "open", "url": asking.url()}));
        for page in ["sign-in", "consent"] {
            if page == "consent" {
                story.browser.ok(&json!({"op": "click", "testid": "passkey-login"}));
                story.browser.ok(&json!({"op": "text", "selector": format!("{APPROVE}:enabled")}));
            }
            let marked = story.browser.ok(&json!({"op": "text", "selector": ".seal.unproven"}));
            assert!(marked["text"].as_str().unwrap().contains("the program’s own claim"), "{page}: {marked}");
            let shown = story.browser.ok(&json!({"op": "text", "selector": "[data-testid=redirect-host]"}));
            assert_eq!(shown["text"], host, "{page}");
            let sizes = "['[data-testid=redirect-host]', 'dt', 'body'].map((one) => parseFloat(getComputedStyle(document.querySelector(one)).fontSize))";
            let sizes = evaluate(&mut story, sizes);
            let size = |i: usize| sizes[i].as_f64().unwrap();
            assert!(size(0) >= 1.2 * size(2) && size(2) >= size(1), "{page}: {sizes}");
        }
        let text = story.browser.ok(&json!({"op": "text", "selector": "main"}))["text"].take();
        assert!(text.as_str().unwrap().contains(warning), "{text}");
    }
}

/// CONSENT-09, HTTP-05: the button is disabled for half a second after the page appears and after its window
/// regains focus; the page cannot be framed and loads nothing from elsewhere.
#[test]
fn a_click_right_after_the_page_opens_allows_nothing() {
    let mut story = Story::begin_configured(RULES);
    let asking = Asking::register(&story, "Laptop tool", "http://localhost:1/callback");
    story.browser.ok(&json!({"op": "open", "url": asking.url()}));
    story.browser.ok(&json!({"op": "notice", "testid": "consent-approve"}));
    story.browser.ok(&json!({"op": "click", "testid": "passkey-login"}));
    story.browser.ok(&json!({"op": "text", "selector": format!("{APPROVE}:enabled")}));
    // [milliseconds, disabled], from the first paint on.
    let noticed = |story: &mut Story| -> Vec<(f64, bool)> {
        let noticed = evaluate(story, "window.noticed.splice(0)");
        let noticed = noticed.as_array().unwrap().iter();
        noticed.map(|one| (one[0].as_f64().unwrap(), one[1].as_bool().unwrap())).collect()
    };
    let slept = |noticed: &[(f64, bool)]| {
        let [(fell, true), .., (woke, false)] = noticed else { panic!("{noticed:?}") };
        assert!(woke - fell >= 499.0, "{noticed:?}");
    };
    slept(&noticed(&mut story));

    evaluate(&mut story, "window.dispatchEvent(new Event('blur'))");
    assert_eq!(
        evaluate(&mut story, "document.querySelector('[data-testid=consent-approve]').disabled"),
        true
    );
    evaluate(&mut story, "window.dispatchEvent(new Event('focus'))");
    story.browser.ok(&json!({"op": "text", "selector": format!("{APPROVE}:enabled")}));
    slept(&noticed(&mut story));

    let here = format!("{}/", story.server.origin);
    let loaded = evaluate(&mut story, "performance.getEntriesByType('resource').map((entry) => entry.name)");
    let loaded: Vec<String> = serde_json::from_value(loaded).unwrap();
    assert!(loaded.len() >= 2 && loaded.iter().all(|url| url.starts_with(&here)), "{loaded:?}");
    let address = evaluate(&mut story, "location.href");
    let frame =
        format!("data:text/html,<iframe src=\"{}\"></iframe>", address.as_str().unwrap().replace('&', "%26"));
    story.browser.ok(&json!({"op": "open", "url": frame}));
    let frames = story.browser.ok(&json!({"op": "frames"}));
    let frames: Vec<String> = serde_json::from_value(frames["frames"].clone()).unwrap();
    assert_eq!(frames.len(), 2, "{frames:?}");
    assert!(!frames.iter().any(|url| url.starts_with(&here)), "{frames:?}");
}
