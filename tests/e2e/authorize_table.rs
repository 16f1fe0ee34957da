//! The authorization endpoint's decision table against a model of it, with random requests: parameters missing,
//! repeated, malformed or foreign, in any combination. No response may go to a wrong place.

mod model;

use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reqwest::Response;
use tokio::runtime::Runtime;

use crate::harness::header;
use model::{Outcome, World, asked, is_same_place};

async fn send(world: &World, text: &str, post: bool) -> Response {
    let form = "application/x-www-form-urlencoded";
    let request = if post {
        world.app.http.post(world.app.url("/authorize")).header("content-type", form).body(text.to_owned())
    } else {
        world.app.http.get(world.app.url(&format!("/authorize?{text}")))
    };
    request.send().await.unwrap()
}

/// The parameters of a redirect, and its target: the text before the added parameters.
fn read(location: &str) -> (String, Vec<(String, String)>) {
    let at = location.find("error=").unwrap_or_else(|| panic!("neither code nor error: {location}"));
    let pairs = url::form_urlencoded::parse(&location.as_bytes()[at..]).into_owned().collect();
    (location[..at - 1].to_owned(), pairs)
}

/// Asserts that a redirect goes only to a URI that the named client registered, and that it has `iss` and
/// `state`.
fn stays_in_bounds(world: &World, text: &str, post: bool, response: &Response) {
    let status = response.status().as_u16();
    assert!(matches!(status, 200 | 302 | 303 | 400 | 414), "{status} for {text}");
    let Some(location) = header(response.headers(), "location") else {
        assert!(status != 302 && status != 303, "{text}");
        return;
    };
    assert_eq!(status, if post { 303 } else { 302 }, "{text}");
    let (to, pairs) = read(location);
    let sent: Vec<(String, String)> = url::form_urlencoded::parse(text.as_bytes()).into_owned().collect();
    let of = |name: &str| sent.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
    let clients = of("client_id");
    let [id] = clients.as_slice() else { panic!("{clients:?} led to {location}") };
    let is_registered = world.registered(id).iter().any(|one| is_same_place(one, &to));
    assert!(is_registered || may_register_itself(id, &to), "{text} led to {location}");
    let back =
        |name: &str| pairs.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
    assert_eq!(back("iss"), [world.app.origin.as_str()], "{location}");
    let state: Vec<&str> = of("state").into_iter().take(1).filter(|state| !state.is_empty()).collect();
    assert_eq!(back("state"), state, "{location}");
    assert_eq!(
        (back("error").len(), back("error_description").len(), back("code").len()),
        (1, 1, 0),
        "{location}"
    );
    assert_eq!(pairs.len(), 3 + state.len(), "{location}");
    assert!(!location.contains('#'), "{location}");
}

/// CIMD-09: a client whose URL nobody knows may use a redirect URI on its user's own computer.
fn may_register_itself(id: &str, to: &str) -> bool {
    let (Ok(id), Ok(to)) = (url::Url::parse(id), url::Url::parse(to)) else { return false };
    let is_document = id.scheme() == "https" && id.path().len() > 1 && id.query().is_none();
    is_document && to.scheme() == "http" && matches!(to.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
}

fn world() -> &'static (Runtime, World) {
    static WORLD: OnceLock<(Runtime, World)> = OnceLock::new();
    WORLD.get_or_init(|| {
        let runtime = Runtime::new().unwrap();
        let world = runtime.block_on(World::begin());
        (runtime, world)
    })
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

/// AUTHZ-02, AUTHZ-03, AUTHZ-04, AUTHZ-05, AUTHZ-06, AUTHZ-08, AUTHZ-09, AUTHZ-10, AUTHZ-11, AUTHZ-14, PKCE-01,
/// PKCE-02, REDIR-01, REDIR-02, REDIR-07: two thousand combinations of valid and invalid parameters are
/// answered as the table says, each by the first row that applies.
#[test]
fn the_table_holds() {
    let (runtime, world) = world();
    let resource = world.app.mcp_url();
    let mut seen = std::collections::BTreeMap::new();
    let seen_cell = std::cell::RefCell::new(&mut seen);
    runner(2000)
        .run(&asked(&resource), |asked| {
            let text = asked.encoded(world);
            let expected = asked.outcome(&resource);
            // Longer URLs are refused before (HTTP-09).
            prop_assume!(asked.post || text.len() < 8000);
            let response = runtime.block_on(send(world, &text, asked.post));
            stays_in_bounds(world, &text, asked.post, &response);
            let kind = match &expected {
                Outcome::Page => {
                    prop_assert_eq!(response.status().as_u16(), 400);
                    "page".to_owned()
                }
                Outcome::SignIn => {
                    prop_assert_eq!(response.status().as_u16(), 200);
                    let html = runtime.block_on(response.text()).unwrap();
                    prop_assert!(html.contains("passkey-login"), "{}", html);
                    "sign-in".to_owned()
                }
                Outcome::Error(errors, to) => {
                    let location = header(response.headers(), "location").map(read);
                    prop_assert!(location.is_some(), "{:?} at {}", errors, to);
                    let (went, pairs) = location.unwrap();
                    prop_assert_eq!(&went, to);
                    let error = &pairs.iter().find(|(name, _)| name == "error").unwrap().1;
                    prop_assert!(errors.contains(&error.as_str()), "{} where {:?}", error, errors);
                    error.clone()
                }
            };
            *seen_cell.borrow_mut().entry(kind).or_insert(0) += 1;
            Ok(())
        })
        .unwrap();
    // Every row was reached.
    assert!(seen.len() >= 9 && seen["sign-in"] > 100, "{seen:?}");
}

/// AUTHZ-02, AUTHZ-08, HTTP-10: a thousand damaged queries and forms, with bytes removed, inserted and doubled.
#[test]
fn arbitrary_requests_never_redirect_to_an_unregistered_uri() {
    let (runtime, world) = world();
    let resource = world.app.mcp_url();
    let piece = prop_oneof![
        prop::sample::select(vec![
            "&",
            "=",
            "%",
            "%00",
            "%0d%0a",
            "%ff",
            "%C0%AF",
            "+",
            "#",
            "?",
            ";",
            "%26",
            "client_id=",
            "&client_id=x",
            "&redirect_uri=",
            "&redirect_uri=https://evil.example/",
            "redirect_uri",
            "&state",
            "&state=y",
            "&&",
            "%2523",
            "\\",
            "//",
        ])
        .prop_map(str::to_owned),
        "[!-~]{1,6}",
    ];
    let edits = prop::collection::vec((any::<prop::sample::Index>(), 0usize..6, piece), 1..4);
    runner(1000)
        .run(&(asked(&resource), edits), |(asked, edits)| {
            let mut text = asked.encoded(world);
            for (at, cut, piece) in edits {
                let at = at.index(text.len() + 1);
                let end = (at + cut).min(text.len());
                text.replace_range(at..end, &piece);
            }
            // A client sends no fragment, and here it would cut off the rest.
            let text = text.replace('#', "%23");
            let response = runtime.block_on(send(world, &text, asked.post));
            stays_in_bounds(world, &text, asked.post, &response);
            Ok(())
        })
        .unwrap();
}
