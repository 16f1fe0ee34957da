//! The work that strangers can cause is bounded at every endpoint (RATE-05).

use std::collections::{BTreeMap, BTreeSet};

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::json;
use shared::share::{self, Growth};
use shared::work::{self, Work};

use crate::assertion::{self, ClientKey};
use crate::harness::{Browser, TestApp};
use crate::raw::Raw;
use crate::routes::{ALL, endpoints};
use crate::worst::{self, RequestParser};

/// The number of requests accepted before the address is rate limited; 200 stands for unlimited.
async fn until_limited(request: impl AsyncFn() -> RequestBuilder) -> usize {
    for through in 0..200 {
        if request().await.send().await.unwrap().status() == StatusCode::TOO_MANY_REQUESTS {
            return through;
        }
    }
    200
}

/// RATE-05, RATE-01: a success that a stranger can get with their own client and key counts like a refusal, at
/// every endpoint with refunds.
#[tokio::test(flavor = "multi_thread")]
async fn free_requests_of_strangers_are_not_refunded() {
    let app = TestApp::start_configured(
        "device = true\n[rate]\nclient_auth = \"off\"\ntoken_client = \"off\"\ntoken_address = 20",
    )
    .await;
    let own = app.client().await;
    let key = ClientKey::generate("ES256");
    let metadata = json!({
        "redirect_uris": ["http://localhost/callback"],
        "token_endpoint_auth_method": "private_key_jwt",
        "jwks": key.jwks(),
    });
    let registered: serde_json::Value = app.register(&metadata).await.json().await.unwrap();
    let keyed = registered["client_id"].as_str().unwrap();
    let device = app.console(&["client", "add", "Lab console", "--device"])["client"]["id"].clone();
    let device = device.as_str().unwrap();
    // Every bucket refills between the cases.
    let rest = || app.clock.advance(std::time::Duration::from_mins(2));
    let post = |path: &str| app.http.post(app.url(path));

    let junk = async || post("/revoke").form(&[("token", "rt_junk"), ("client_id", own.id.as_str())]);
    assert_eq!(until_limited(junk).await, 20, "/revoke by a client of one's own");
    rest();
    let signed = async || {
        let [kind, assertion] = key.form(&app, keyed);
        post("/revoke").form(&[kind, assertion, ("token", "rt_junk".to_owned())])
    };
    assert_eq!(until_limited(signed).await, 20, "/revoke with a key of one's own");
    rest();
    let same = async || post("/register").json(&metadata);
    assert_eq!(until_limited(same).await, 20, "/register, the same again");
    rest();
    let refused = async || post("/register").json(&json!({"redirect_uris": ["javascript:1"]}));
    assert_eq!(until_limited(refused).await, 20, "/register, refused");
    rest();
    let codes = async || post("/device_authorization").form(&[("client_id", device)]);
    assert_eq!(until_limited(codes).await, 20, "/device_authorization of a client without a secret");
    rest();
    let malformed = async || post("/introspect").body("%");
    assert_eq!(until_limited(malformed).await, 20, "/introspect that cannot be read");
}

/// RATE-05: a signature is never verified on the writer's thread, where a debug build would panic. Of ten
/// unnamed keys only the first few are tried, and an assertion by any of those is accepted.
#[tokio::test]
async fn signatures_are_checked_before_the_job_and_few_are_tried() {
    let app = TestApp::start().await;
    let keys: Vec<ClientKey> = (0..10).map(|_| ClientKey::generate("ES256")).collect();
    let nameless = |key: &ClientKey| {
        let mut key = key.jwks()["keys"][0].clone();
        key.as_object_mut().unwrap().remove("kid");
        key
    };
    let metadata = json!({
        "redirect_uris": ["http://localhost/callback"],
        "token_endpoint_auth_method": "private_key_jwt",
        "jwks": { "keys": keys.iter().map(nameless).collect::<Vec<_>>() },
    });
    let registered: serde_json::Value = app.register(&metadata).await.json().await.unwrap();
    let id = registered["client_id"].as_str().unwrap();
    let revoke = async |key: &ClientKey| {
        let text = key.sign(&json!({ "alg": "ES256" }), &assertion::claims(&app, id));
        let [kind, assertion] = assertion::form(text);
        let before = work::so_far(Work::Signature);
        let form = [kind, assertion, ("token", "rt_junk".to_owned())];
        let status = app.http.post(app.url("/revoke")).form(&form).send().await.unwrap().status();
        (status.as_u16(), work::so_far(Work::Signature) - before)
    };
    assert_eq!(revoke(&keys[0]).await, (200, 1));
    assert_eq!(revoke(&keys[1]).await, (200, 2));
    assert_eq!(revoke(&keys[9]).await, (401, 2));
    assert_eq!(revoke(&ClientKey::generate("ES256")).await, (401, 2));
}

/// RATE-05: every route is tested below, with each of its methods; and what is tested is a route.
#[tokio::test]
async fn every_route_is_walked() {
    let app = TestApp::start_configured(ALL).await;
    let mut routes = BTreeSet::new();
    for (rule, method) in endpoints(&app).await {
        let walked =
            |(of, path, _): &&(&str, &str, RequestParser)| (*of, *path) == (method.as_str(), rule.path);
        let Some((_, _, takes)) = worst::ENDPOINTS.iter().find(walked) else {
            panic!("{method} {} is not in worst::ENDPOINTS", rule.path);
        };
        assert!(
            *takes != RequestParser::Nothing || method != Method::POST,
            "{method} {} takes a body",
            rule.path
        );
        routes.insert((method.to_string(), rule.path));
    }
    for (method, path, _) in worst::ENDPOINTS {
        assert!(routes.contains(&((*method).to_owned(), *path)), "{method} {path} is no route");
    }
}

/// RATE-05: for any 16 KB of input an endpoint reads a bounded number of parameters and members, and verifies
/// at most one signature of an unknown sender. Counted and not timed, so that it holds on any machine.
#[tokio::test]
async fn the_worst_input_is_little_work_everywhere() {
    let app = TestApp::start_configured(ALL).await;
    let client = app.client().await;
    let host = app.origin.trim_start_matches("http://").to_owned();
    for worst in worst::requests(&app.origin, &client.id) {
        let before = [Work::Parameter, Work::Member, Work::Signature].map(work::so_far);
        let mut raw = Raw::open(&app.origin).await;
        raw.send(worst.bytes(&host)).await;
        let status = raw.answer().await.map_or(0, |answer| answer.status);
        let done = [Work::Parameter, Work::Member, Work::Signature].map(work::so_far);
        let [parameters, members, signatures] = std::array::from_fn(|i| done[i] - before[i]);
        let what = format!("{} with {}: {status}", worst.endpoint, worst.how);
        assert!((200..500).contains(&status), "{what}");
        // A form is parsed by the limiter, by the endpoint, and by the redirect of POST /authorize.
        assert!(parameters <= 4 * 64, "{what}, {parameters} parameters");
        assert!(members <= 1000, "{what}, {members} members");
        assert!(signatures <= 1, "{what}, {signatures} signatures");
    }
}

/// The number of rows in each table.
fn rows(app: &TestApp) -> BTreeMap<&'static str, u32> {
    let db = rusqlite::Connection::open(app.data_dir().join("portcullis.db")).unwrap();
    let count = |table: &str| -> u32 {
        db.query_row(&format!("SELECT count(*) FROM \"{table}\""), [], |row| row.get(0)).unwrap()
    };
    share::GROWTH.iter().map(|(table, _)| (*table, count(table))).collect()
}

/// RATE-06: whatever strangers send, they cause rows only in the tables listed as growing by strangers.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_fill_no_table_that_is_not_bounded() {
    let app = TestApp::start_configured(ALL).await;
    let device = app.console(&["client", "add", "Lab console", "--device"])["client"]["id"].clone();
    let known = app.client().await;
    let before = rows(&app);
    let host = app.origin.trim_start_matches("http://").to_owned();
    for worst in worst::requests(&app.origin, &known.id) {
        let mut raw = Raw::open(&app.origin).await;
        raw.send(worst.bytes(&host)).await;
        raw.answer().await;
    }
    // Also with every success that a stranger can get.
    let key = ClientKey::generate("ES256");
    let own = json!({
        "redirect_uris": ["http://localhost/callback"],
        "token_endpoint_auth_method": "private_key_jwt",
        "jwks": key.jwks(),
    });
    let keyed: serde_json::Value = app.register(&own).await.json().await.unwrap();
    let secret = json!({ "redirect_uris": ["http://localhost/callback"] });
    app.register(&secret).await;
    let [kind, assertion] = key.form(&app, keyed["client_id"].as_str().unwrap());
    let revoke = app.http.post(app.url("/revoke")).form(&[kind, assertion, ("token", "rt_junk".to_owned())]);
    assert_eq!(revoke.send().await.unwrap().status(), 200);
    let mut browser = Browser::new();
    assert_eq!(browser.get(&app, &known.authorize_url(&app)).await.status(), 200);
    assert_eq!(browser.post_json(&app, "/login/start", &json!({})).await.status(), 200);
    let form = [("client_id", device.as_str().unwrap()), ("resource", &app.mcp_url())];
    let asked = app.http.post(app.url("/device_authorization")).form(&form);
    let asked: serde_json::Value = asked.send().await.unwrap().json().await.unwrap();
    let typed = [("user_code", asked["user_code"].as_str().unwrap())];
    assert_eq!(browser.post_form(&app, "/device", &typed).await.status(), 303);
    let after = rows(&app);
    let mut grew = Vec::new();
    for (table, growth) in share::GROWTH {
        if after[table] > before[table] {
            grew.push(*table);
            assert!(!matches!(growth, Growth::NotByStrangers(_)), "{table}");
        }
    }
    for table in
        ["ceremony", "authorization_transaction", "device_authorization", "device_transaction", "client"]
    {
        assert!(grew.contains(&table), "{table} did not grow: {grew:?}");
    }
}
