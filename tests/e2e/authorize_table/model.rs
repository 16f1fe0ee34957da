//! A model of the decision table (standards §3.1), written independently of the server, and random requests for
//! it.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::harness::{TestApp, challenge};

/// The clients that a request may name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    /// On the user's own computer, with two redirect URIs.
    Local,
    /// Verified; its only redirect URI has a query.
    Verified,
    /// Unverified, with a remote redirect URI.
    Remote,
    Disabled,
    /// Without the grant type.
    NoCodes,
    /// An unregistered or malformed client id.
    Nobody(&'static str),
    Empty,
}

const LOCAL: [&str; 2] = ["http://localhost/callback", "com.example.app:/cb"];
const VERIFIED: &str = "https://app.example/cb?tenant=7";
const REMOTE: &str = "https://remote.example/cb";

pub struct World {
    pub app: TestApp,
    local: String,
    verified: String,
    remote: String,
    disabled: String,
    no_codes: String,
}

impl World {
    pub async fn begin() -> Self {
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

    pub fn registered(&self, id: &str) -> &'static [&'static str] {
        match id {
            id if id == self.local || id == self.disabled || id == self.no_codes => &LOCAL,
            id if id == self.verified => &[VERIFIED],
            id if id == self.remote => &[REMOTE],
            _ => &[],
        }
    }
}

/// Runs SQL that no command could.
fn sql(app: &TestApp, statement: &str) {
    let db = rusqlite::Connection::open(app.data_dir().join("portcullis.db")).unwrap();
    db.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    db.execute_batch(statement).unwrap();
}

/// A request: each parameter any number of times, in any order.
#[derive(Clone, Debug)]
pub struct Asked {
    clients: Vec<Name>,
    others: Vec<(&'static str, String)>,
    pub post: bool,
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

/// Usually once, with the value `good`; sometimes missing, repeated, or with another value.
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

/// Redirect URIs that no client registered, although they look similar.
const FOREIGN: [&str; 24] = [
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
];

pub fn asked(resource: &str) -> impl Strategy<Value = Asked> + use<> {
    let challenge = challenge();
    let (upper, slash) = (resource.replace("http://", "HTTP://"), format!("{resource}/"));
    let long = "x".repeat(4096);
    let too_long = "x".repeat(4097);
    let others = (
        parameter(
            "redirect_uri",
            60,
            &["http://localhost/callback", "http://localhost:5123/callback", VERIFIED, "com.example.app:/cb"],
            &FOREIGN,
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

/// The result according to the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A page for the user, without a redirect.
    Page,
    /// One of these errors, at this redirect URI.
    Error(&'static [&'static str], String),
    SignIn,
}

impl Asked {
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.others.iter().filter(move |(n, _)| *n == name).map(|(_, value)| value.as_str())
    }

    /// An empty parameter counts as absent.
    fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        if name == "resource" {
            return self.all(name).find(|value| !value.is_empty());
        }
        self.all(name).next().filter(|value| !value.is_empty())
    }

    fn repeated(&self) -> Vec<&'static str> {
        let twice = |name: &&'static str| match *name {
            // Equal resources count once (AUTHZ-03), also in another spelling (AUTHZ-14).
            "resource" => {
                let plain = |value: &str| value.replace("HTTP://", "http://");
                let mut named = self.all(name).filter(|value| !value.is_empty()).map(plain);
                let first = named.next();
                named.any(|other| Some(other) != first)
            }
            name => self.all(name).nth(1).is_some(),
        };
        self.others.iter().map(|(name, _)| *name).filter(twice).collect()
    }

    /// Applies the table row by row (standards §3.1).
    pub fn outcome(&self, resource: &str) -> Outcome {
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

    /// Rows 5 to 11; several errors if the table does not say which comes first.
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

    pub fn encoded(&self, world: &World) -> String {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        let half = self.others.len() / 2;
        form.extend_pairs(&self.others[..half]);
        form.extend_pairs(self.clients.iter().map(|name| ("client_id", world.id(*name))));
        form.extend_pairs(&self.others[half..]).finish()
    }
}

/// REDIR-01, REDIR-02, written independently of the server: the same text, or `http` on one of three hosts with
/// or without a port.
pub fn is_same_place(registered: &str, asked: &str) -> bool {
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
