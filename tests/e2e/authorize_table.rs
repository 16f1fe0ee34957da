//! The authorization endpoint's decision table against a model of it, for requests that nobody would think of: what is
//! missing, repeated, malformed or foreign, in any combination. Whatever comes, no answer goes where it must not.

use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reqwest::Response;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::harness::{TestApp, challenge, header};

/// The clients that a request may name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Name {
    /// On the user's own computer, with two addresses.
    Local,
    /// An administrator vouches for it; its one address has a query.
    Verified,
    /// It would be answered over the network, and nobody vouches for it.
    Remote,
    Disabled,
    /// Without the grant type.
    NoCodes,
    /// One that was never registered, or no name at all.
    Nobody(&'static str),
    Empty,
}

const LOCAL: [&str; 2] = ["http://localhost/callback", "com.example.app:/cb"];
const VERIFIED: &str = "https://app.example/cb?tenant=7";
const REMOTE: &str = "https://remote.example/cb";

struct World {
    app: TestApp,
    local: String,
    verified: String,
    remote: String,
    disabled: String,
    no_codes: String,
}

impl World {
    async fn begin() -> Self {
        let app = TestApp::start_configured("device = true\n").await;
        let register = async |uris: &[&str]| {
            let metadata = json!({"redirect_uris": uris, "token_endpoint_auth_method": "none", "software_id": shared::id::random_128()});
            let body: Value = app.register(&metadata).await.json().await.unwrap();
            body["client_id"].as_str().unwrap().to_owned()
        };
        let (local, verified) = (register(&LOCAL).await, register(&[VERIFIED]).await);
        let (remote, disabled) = (register(&[REMOTE]).await, register(&LOCAL).await);
        sql(&app, &format!("UPDATE client SET trust = 'verified' WHERE id IN ('{local}', '{verified}')"));
        app.console(&["client", "disable", &disabled]);
        let added = app.console(&["client", "add", "Console", "--device"]);
        let no_codes = added["client"]["id"].as_str().unwrap().to_owned();
        for uri in LOCAL {
            sql(&app, &format!("INSERT INTO client_redirect_uri VALUES ('{no_codes}', '{uri}')"));
        }
        Self { app, local, verified, remote, disabled, no_codes }
    }

    fn id(&self, name: Name) -> &str {
        match name {
            Name::Local => &self.local,
            Name::Verified => &self.verified,
            Name::Remote => &self.remote,
            Name::Disabled => &self.disabled,
            Name::NoCodes => &self.no_codes,
            Name::Nobody(id) => id,
            Name::Empty => "",
        }
    }

    fn registered(&self, id: &str) -> &'static [&'static str] {
        match id {
            id if id == self.local || id == self.disabled || id == self.no_codes => &LOCAL,
            id if id == self.verified => &[VERIFIED],
            id if id == self.remote => &[REMOTE],
            _ => &[],
        }
    }
}

/// As no command can.
fn sql(app: &TestApp, statement: &str) {
    let db = rusqlite::Connection::open(app.data_dir().join("portcullis.db")).unwrap();
    db.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    db.execute_batch(statement).unwrap();
}

/// A request: each parameter any number of times, in any order.
#[derive(Clone, Debug)]
struct Asked {
    clients: Vec<Name>,
    others: Vec<(&'static str, String)>,
    post: bool,
}

fn client() -> impl Strategy<Value = Name> {
    prop_oneof![
        12 => Just(Name::Local),
        8 => Just(Name::Verified),
        2 => Just(Name::Remote),
        1 => Just(Name::Disabled),
        2 => Just(Name::NoCodes),
        1 => prop::sample::select(vec![
            "dyn_AAAAAAAAAAAAAAAAAAAAAA", "c", "https://evil.example/client.json?x", "https://localhost", "x\ny", "%00", "…",
        ]).prop_map(Name::Nobody),
        1 => Just(Name::Empty),
    ]
}

/// Mostly once, and as `good` says; now and then missing, twice, or one of the others.
fn parameter(
    name: &'static str,
    often: u32,
    good: &[&str],
    other: &[&str],
) -> impl Strategy<Value = Vec<(&'static str, String)>> + use<> {
    let owned = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    let value = prop_oneof![
        14 => prop::sample::select(owned(good)),
        1 => prop::sample::select([owned(good), owned(other)].concat()),
    ];
    let times = prop_oneof![often => Just(1usize), 4 => Just(0usize), 1 => Just(2usize)];
    times.prop_flat_map(move |times| prop::collection::vec(value.clone().prop_map(move |v| (name, v)), times))
}

fn asked(resource: &str) -> impl Strategy<Value = Asked> + use<> {
    let challenge = challenge();
    let (upper, slash) = (resource.replace("http://", "HTTP://"), format!("{resource}/"));
    let long = "x".repeat(4096);
    let too_long = "x".repeat(4097);
    let others = (
        parameter(
            "redirect_uri",
            60,
            &["http://localhost/callback", "http://localhost:5123/callback", VERIFIED, "com.example.app:/cb"],
            &[
                "",
                REMOTE,
                "http://localhost:0/callback",
                "http://localhost:70000/callback",
                "http://127.0.0.1/callback",
                "http://LOCALHOST/callback",
                "http://localhost/callback/",
                "http://localhost/callback?x",
                "http://localhost//callback",
                "http://localhost/%63allback",
                "http://localhost/callback#f",
                "http://localhost@evil.example/callback",
                "http://localhost.evil.example/callback",
                "https://localhost/callback",
                "https://app.example/cb",
                "https://app.example/cb?tenant=7&x",
                "https://app.example.evil.example/cb?tenant=7",
                "https://evil.example/",
                "//evil.example",
                "javascript:alert(1)",
                "com.example.app://cb",
                "com.example.app:/cb/..",
                "callback",
                "\n",
            ],
        ),
        parameter("response_type", 60, &["code"], &["", "token", "code token", "CODE", "code\n"]),
        parameter(
            "code_challenge",
            60,
            &[&challenge],
            &["", "short", &challenge[1..], &format!("{challenge}A"), &challenge.replace('A', "=")],
        ),
        parameter("code_challenge_method", 60, &["S256"], &["", "plain", "s256", "none"]),
        parameter("state", 20, &["s", "st ate&1=#?", "ü\u{1f980}%41+"], &["", "a\nb", &long, &too_long]),
        parameter(
            "scope",
            20,
            &["docs.read", "docs.read made.up offline_access"],
            &["", "made.up", "offline_access", "a\"b", "a\\b", "docs.read  docs.read", "ü"],
        ),
        parameter(
            "resource",
            20,
            &[resource],
            &[
                "",
                &upper,
                &slash,
                "mcp",
                "https://evil.example/mcp",
                &format!("{resource}#f"),
                &format!("{resource}?x"),
            ],
        ),
        parameter(
            "prompt",
            1,
            &["", "login", "consent", "select_account", "anything"],
            &["none", "none login"],
        ),
        parameter("max_age", 1, &["", "0", "60", "4294967295"], &["-1", "soon", "4294967296", "1.5", " 1"]),
        parameter("response_mode", 1, &["", "query"], &["fragment", "form_post", "query.jwt"]),
    );
    let rare = prop::collection::vec(
        prop::sample::select(vec![
            ("request", "eyJ"),
            ("request", ""),
            ("request_uri", "https://evil.example/r"),
            ("request_uri", ""),
            ("login_hint", "x"),
            ("nonce", "x"),
            ("login_hint", "a\u{0}b"),
            ("ui_locales", "\u{85}"),
            ("iss", "https://evil.example"),
            ("code", "ac_x"),
            ("error", "x"),
            ("dpop_jkt", "x"),
            ("x\r\ny", "x"),
        ]),
        0..3,
    );
    let rare = prop_oneof![3 => Just(Vec::new()), 1 => rare];
    let clients =
        prop_oneof![40 => prop::collection::vec(client(), 1), 1 => prop::collection::vec(client(), 0..3)];
    (clients, others, rare, any::<bool>(), any::<u64>()).prop_map(|(clients, o, rare, post, order)| {
        let mut others = [o.0, o.1, o.2, o.3, o.4, o.5, o.6, o.7, o.8, o.9].concat();
        others.extend(rare.into_iter().map(|(name, value)| (name, value.to_owned())));
        let middle = usize::try_from(order % (others.len() as u64 + 1)).unwrap();
        others.rotate_left(middle);
        Asked { clients, others, post }
    })
}

/// What the table says.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Outcome {
    /// A page for the person, and no redirect.
    Page,
    /// This error, at this address.
    Error(&'static [&'static str], String),
    SignIn,
}

impl Asked {
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.others.iter().filter(move |(n, _)| *n == name).map(|(_, value)| value.as_str())
    }

    /// An empty one counts as absent.
    fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next().filter(|value| !value.is_empty())
    }

    fn repeated(&self) -> Vec<&'static str> {
        let twice = |name: &&'static str| self.all(name).nth(1).is_some();
        self.others.iter().map(|(name, _)| *name).filter(twice).collect()
    }

    /// Row by row (standards §3.1).
    fn outcome(&self, resource: &str) -> Outcome {
        let [client] = self.clients.as_slice() else { return Outcome::Page };
        let registered: &[&str] = match client {
            Name::Local | Name::NoCodes => &LOCAL,
            Name::Verified => &[VERIFIED],
            Name::Remote | Name::Disabled | Name::Nobody(_) | Name::Empty => return Outcome::Page,
        };
        if self.all("redirect_uri").nth(1).is_some() {
            return Outcome::Page;
        }
        let to = match (self.get("redirect_uri"), registered) {
            (None, [only]) => (*only).to_owned(),
            (Some(uri), _) if registered.iter().any(|one| is_same_place(one, uri)) => uri.to_owned(),
            _ => return Outcome::Page,
        };
        if self.all("state").any(|state| state.len() > 4096) {
            return Outcome::Page;
        }
        match self.error(*client, resource) {
            [] => Outcome::SignIn,
            errors => Outcome::Error(errors, to),
        }
    }

    /// Rows 5 to 11; more than one where the table does not say which comes first.
    fn error(&self, client: Name, resource: &str) -> &'static [&'static str] {
        match self.repeated().as_slice() {
            [] => {}
            twice if twice.iter().all(|name| *name == "resource") => return &["invalid_target"],
            twice if twice.contains(&"resource") => return &["invalid_target", "invalid_request"],
            _ => return &["invalid_request"],
        }
        if self.others.iter().any(|(name, value)| name.chars().chain(value.chars()).any(char::is_control)) {
            return &["invalid_request"];
        }
        match self.get("response_type") {
            None => return &["invalid_request"],
            Some("code") => {}
            Some(_) => return &["unsupported_response_type"],
        }
        if client == Name::NoCodes {
            return &["unauthorized_client"];
        }
        if self.get("code_challenge") != Some(&challenge())
            || self.get("code_challenge_method") != Some("S256")
        {
            return &["invalid_request"];
        }
        if self.get("request").is_some() {
            return &["request_not_supported"];
        }
        if self.get("request_uri").is_some() {
            return &["request_uri_not_supported"];
        }
        let prompt: Vec<&str> = self.get("prompt").unwrap_or_default().split(' ').collect();
        let bad_age = self.get("max_age").is_some_and(|age| age.parse::<u32>().is_err());
        let bad_mode = self.get("response_mode").is_some_and(|mode| mode != "query");
        if bad_mode || bad_age || prompt.len() > 1 {
            return &["invalid_request"];
        }
        let same = |asked: &str| asked == resource || asked == resource.replace("http://", "HTTP://");
        if !self.get("resource").is_none_or(same) {
            return &["invalid_target"];
        }
        match self.get("scope") {
            Some("made.up" | "a\"b" | "a\\b" | "ü") => &["invalid_scope"],
            _ if prompt == ["none"] => &["login_required"],
            _ => &[],
        }
    }

    fn encoded(&self, world: &World) -> String {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        let half = self.others.len() / 2;
        form.extend_pairs(&self.others[..half]);
        form.extend_pairs(self.clients.iter().map(|name| ("client_id", world.id(*name))));
        form.extend_pairs(&self.others[half..]).finish()
    }
}

/// REDIR-01, REDIR-02 in other words than the server's: the same text, or `http` on one of three hosts, where a port may
/// stand or not.
fn is_same_place(registered: &str, asked: &str) -> bool {
    let without_port = |uri: &str| {
        ["localhost", "127.0.0.1", "[::1]"].iter().find_map(|host| {
            let rest = uri.strip_prefix("http://")?.strip_prefix(host)?;
            let (port, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let good = port.is_empty() || port.strip_prefix(':')?.parse::<u16>().ok()? > 0;
            good.then(|| (*host, path.to_owned()))
        })
    };
    registered == asked || without_port(registered).is_some_and(|bare| without_port(asked) == Some(bare))
}

async fn send(world: &World, text: &str, post: bool) -> Response {
    let form = "application/x-www-form-urlencoded";
    let request = if post {
        world.app.http.post(world.app.url("/authorize")).header("content-type", form).body(text.to_owned())
    } else {
        world.app.http.get(world.app.url(&format!("/authorize?{text}")))
    };
    request.send().await.unwrap()
}

/// What a redirect says, and where to: the text before the parameters that were added.
fn read(location: &str) -> (String, Vec<(String, String)>) {
    let at = location.find("error=").unwrap_or_else(|| panic!("neither code nor error: {location}"));
    let pairs = url::form_urlencoded::parse(&location.as_bytes()[at..]).into_owned().collect();
    (location[..at - 1].to_owned(), pairs)
}

/// Nothing leaves for an address that the one client which was named has not registered, and what leaves says who sends
/// it and which request it answers.
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
    assert!(world.registered(id).iter().any(|one| is_same_place(one, &to)), "{text} led to {location}");
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

/// AUTHZ-02, AUTHZ-03, AUTHZ-04, AUTHZ-05, AUTHZ-06, AUTHZ-08, AUTHZ-09, AUTHZ-10, AUTHZ-11, AUTHZ-14, PKCE-01, PKCE-02,
/// REDIR-01, REDIR-02, REDIR-07: two thousand combinations of good and bad are answered as the table says, each by the
/// first row that it meets.
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
            // Longer addresses never come here (HTTP-09).
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
    // Every row was met.
    assert!(seen.len() >= 9 && seen["sign-in"] > 100, "{seen:?}");
}

/// AUTHZ-02, AUTHZ-08, HTTP-10: a thousand queries and forms that are hardly any: bytes cut out, put in and doubled.
#[test]
fn no_garbage_leads_astray() {
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
            // A client sends no fragment, and this one would cut the rest off.
            let text = text.replace('#', "%23");
            let response = runtime.block_on(send(world, &text, asked.post));
            stays_in_bounds(world, &text, asked.post, &response);
            Ok(())
        })
        .unwrap();
}
