//! Scope arithmetic: whatever is requested, ticked, narrowed and taken away, no grant, token or call exceeds
//! requested ∩ entitled ∩ the client's ceiling ∩ ticked.

use std::fmt::Write as _;
use std::path::PathBuf;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::cimd;
use crate::harness::{
    Browser, Client, ConsentPage, TestApp, Tokens, authorize_url, error_of, redirect_parameter,
};
use crate::process::control_key;

/// A set of the scopes s0 to s4, by bits.
type Set = u8;
const ALL: Set = 0b1_1111;

fn names(set: Set) -> Vec<String> {
    (0..5).filter(|bit| set & (1 << bit) != 0).map(|bit| format!("s{bit}")).collect()
}

fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> Set {
    names.into_iter().map(|name| 1 << name.strip_prefix('s').unwrap().parse::<u8>().unwrap()).sum()
}

/// A site's configuration.
#[derive(Clone, Debug)]
struct Policy {
    high: Set,
    everyone: Set,
    groups: [Set; 3],
    /// What each of two tools needs; a scope that neither needs is not a scope here.
    tools: [Set; 2],
}

impl Policy {
    fn toml(&self) -> String {
        let mut toml = format!(
            "[registration]\nremote_redirects = true\n[groups]\neveryone = {:?}\n",
            names(self.everyone)
        );
        for (i, group) in self.groups.iter().enumerate() {
            writeln!(toml, "g{i} = {:?}", names(*group)).unwrap();
        }
        for name in names(ALL) {
            let risk = if set([name.as_str()]) & self.high != 0 { "risk = \"high\"\n" } else { "" };
            write!(toml, "[scopes.{name}]\ntitle = \"Scope {name}\"\n{risk}").unwrap();
        }
        for (tool, needs) in ["docs_read", "docs_search"].into_iter().zip(self.tools) {
            writeln!(toml, "[tools.{tool}]\nscope = {:?}", names(needs)).unwrap();
        }
        toml
    }

    /// Of a user in these groups.
    fn entitled(&self, groups: u8) -> Set {
        let theirs = (0..3).filter(|bit| groups & (1 << bit) != 0).map(|bit| self.groups[bit]);
        theirs.fold(self.everyone, |all, group| all | group) & (self.tools[0] | self.tools[1])
    }

    fn below(&self, trust: Trust) -> Set {
        if trust == Trust::Unverified { !self.high } else { ALL }
    }
}

fn policy() -> impl Strategy<Value = Policy> {
    let any = || 0..=ALL;
    let some = || 1..=ALL;
    (any(), any(), [any(), any(), some()], [some(), some()])
        .prop_map(|(high, everyone, groups, tools)| Policy { high, everyone, groups, tools })
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trust {
    Unverified,
    Known,
    Verified,
}

/// The steps of one client from the request to its calls, with its user's groups at each step.
#[derive(Clone, Debug)]
struct ClientRun {
    trust: Trust,
    asked: Set,
    /// Beside what there is: what there is not.
    noise: bool,
    ticked: Set,
    /// At the page, the decision, the redemption, the refresh, the call.
    groups: [u8; 5],
    narrowed: Option<Set>,
}

fn way() -> impl Strategy<Value = ClientRun> {
    let trust = prop::sample::select(vec![Trust::Unverified, Trust::Known, Trust::Verified]);
    let set = || prop_oneof![2 => Just(ALL), 3 => 1..=ALL];
    let ticked = prop_oneof![4 => Just(ALL), 5 => 0..=ALL];
    let groups =
        (0u8..8, prop::collection::vec(prop_oneof![3 => Just(None), 1 => (0u8..8).prop_map(Some)], 4));
    let groups = groups.prop_map(|(first, changes)| {
        let mut groups = [first; 5];
        for (i, change) in changes.into_iter().enumerate() {
            groups[i + 1] = change.unwrap_or(groups[i]);
        }
        groups
    });
    (trust, set(), any::<bool>(), ticked, groups, prop::option::of(1..=ALL)).prop_map(
        |(trust, asked, noise, ticked, groups, narrowed)| ClientRun {
            trust,
            asked,
            noise,
            ticked,
            groups,
            narrowed,
        },
    )
}

/// A server, with a signed-in user and three clients.
struct World {
    policy: Policy,
    app: TestApp,
    ada: Browser,
    clients: [Client; 3],
    groups: u8,
}

impl World {
    async fn begin(policy: Policy) -> Self {
        // Off loopback one sign-in is enough for all.
        let app = TestApp::start_https(&policy.toml()).await;
        let ada = app.admin().await;
        let mut clients = Vec::new();
        for uri in ["https://app.example/cb", "http://localhost/cb", "https://app.example/cb"] {
            let metadata = json!({
                "redirect_uris": [uri], "token_endpoint_auth_method": "none", "software_id": shared::id::random_128(),
                "grant_types": ["authorization_code", "refresh_token"],
            });
            let body: Value = app.register(&metadata).await.json().await.unwrap();
            let id = body["client_id"].as_str().unwrap().to_owned();
            clients.push(Client { id, redirect_uri: uri.to_owned() });
        }
        app.console(&["client", "verify", &clients[2].id]);
        let clients = clients.try_into().unwrap();
        Self { policy, app, ada, clients, groups: 0 }
    }

    fn client(&self, trust: Trust) -> Client {
        self.clients[trust as usize].clone()
    }

    /// Sets the user's groups, like `portcullis user groups`.
    async fn regroup(&mut self, groups: u8) {
        if groups == self.groups {
            return;
        }
        let named = |groups: u8| {
            (0..3).filter(|bit| groups & (1 << bit) != 0).map(|bit| format!("g{bit}")).collect::<Vec<_>>()
        };
        let (add, remove) = (named(groups & !self.groups), named(self.groups & !groups));
        let data = self.app.data_dir();
        let key = control_key(&data);
        let command = json!({"v": 1, "control_key": key, "command": "user-groups", "user": "ada", "add": add, "remove": remove});
        let answer = command_at(data.join("control.sock"), &command).await;
        assert!(answer["ok"].is_object(), "{answer}");
        self.groups = groups;
    }

    async fn walk(&mut self, way: &ClientRun) {
        let known = self.policy.tools[0] | self.policy.tools[1];
        let client = self.client(way.trust);
        let below = self.policy.below(way.trust);
        self.regroup(way.groups[0]).await;
        let mut request = client.request(&self.app);
        let noise = if way.noise { " made.up offline_access" } else { "" };
        request.insert("scope", names(way.asked).join(" ") + noise);
        request.insert("prompt", "consent".to_owned());
        let page = self.ada.get(&self.app, &authorize_url(&self.app, &request)).await;
        if way.asked & known == 0 {
            assert!(redirect_parameter(&page, "code").is_none() && page.status() != 200);
            return;
        }
        assert_eq!(page.status(), 200);
        let page = ConsentPage::of(String::new(), page.text().await.unwrap());
        let offered = way.asked & self.policy.entitled(way.groups[0]) & below;
        assert_eq!(set(page.scopes.iter().map(String::as_str)), offered, "what is offered");

        self.regroup(way.groups[1]).await;
        let granted = way.asked & self.policy.entitled(way.groups[1]) & below & way.ticked;
        let Some(code) = self.decide(&page, way.ticked, granted).await else {
            assert_eq!(granted, 0, "what was allowed and not given");
            return;
        };
        assert_ne!(granted, 0, "nothing was allowed");

        self.regroup(way.groups[2]).await;
        let redeemed = self.app.redeem(&client, &code).await;
        let left = granted & self.policy.entitled(way.groups[2]);
        let Some(tokens) = holding(redeemed, left).await else { return };
        self.calls(&tokens, left, way.groups[2], below).await;

        self.regroup(way.groups[3]).await;
        let wanted = way.narrowed.map(|narrowed| names(narrowed).join(" "));
        let mut form = vec![
            ("grant_type", "refresh_token"),
            ("refresh_token", tokens.refresh.as_str()),
            ("client_id", &client.id),
        ];
        form.extend(wanted.iter().map(|wanted| ("scope", wanted.as_str())));
        let refreshed = self.app.token(&form).await;
        let wanted = way.narrowed.unwrap_or(granted);
        // A scope wider than the grant is refused, not narrowed (TOKEN-12).
        let left = if wanted & !granted == 0 { wanted & self.policy.entitled(way.groups[3]) } else { 0 };
        let Some(tokens) = holding(refreshed, left).await else { return };

        self.regroup(way.groups[4]).await;
        self.calls(&tokens, left, way.groups[4], below).await;
    }

    /// Allows what is ticked, with a passkey where that takes one: the code, if there is one.
    async fn decide(&mut self, page: &ConsentPage, ticked: Set, granted: Set) -> Option<String> {
        let (ticked, granted_names) = (names(ticked), names(granted));
        let ticked: Vec<&str> = ticked.iter().map(String::as_str).chain(["made.up"]).collect();
        let mut confirmed = None;
        if granted & self.policy.high != 0 {
            let unconfirmed = self.ada.allow(&self.app, page, &ticked, None).await;
            assert_eq!(unconfirmed.status(), 400, "high risk without a passkey");
            assert!(redirect_parameter(&unconfirmed, "code").is_none());
            let granted: Vec<&str> = granted_names.iter().map(String::as_str).collect();
            confirmed = Some(self.ada.confirm(&self.app, page, &granted).await);
        }
        let answer = self.ada.allow(&self.app, page, &ticked, confirmed.as_ref()).await;
        redirect_parameter(&answer, "code")
    }

    /// The gate lets through what every one of the parts allows at this moment, and that is all.
    async fn calls(&self, tokens: &Tokens, token: Set, groups: u8, below: Set) {
        let present = token & self.policy.entitled(groups) & below;
        let arguments = [json!({"path": "falcon.md"}), json!({"query": "falcon"})];
        let tools = ["docs_read", "docs_search"].into_iter().zip(arguments);
        for ((tool, arguments), needs) in tools.zip(self.policy.tools) {
            let answer = self.app.call_tool(&tokens.access, tool, arguments).await;
            let status = answer.status();
            assert!(status == 200 || status == 403, "{status}");
            let body: Value = answer.json().await.unwrap();
            let allowed = body["result"]["isError"] == json!(false);
            assert_eq!(allowed, needs & !present == 0, "{tool}: {body}");
        }
    }
}

/// Sends a command to the running server.
async fn command_at(socket: PathBuf, command: &Value) -> Value {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(format!("{command}\n").as_bytes()).await.unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.unwrap();
    serde_json::from_str(&line).unwrap()
}

/// Tokens for exactly this, said in the answer and in the token alike; a refusal if it is nothing.
async fn holding(response: reqwest::Response, expected: Set) -> Option<Tokens> {
    if expected == 0 {
        assert!(matches!(error_of(response).await.1.as_str(), "invalid_grant" | "invalid_scope"));
        return None;
    }
    assert_eq!(response.status(), 200, "{:?} was to be had", names(expected));
    let tokens = Tokens::of(response).await;
    assert_eq!(tokens.body["scope"], names(expected).join(" "));
    assert_eq!(tokens.claims()["scope"], names(expected).join(" "));
    Some(tokens)
}

/// AUTHZ-13, AT-04, CONSENT-05, CONSENT-08, TOKEN-12, TOKEN-15, DCR-08, MCP-09: a thousand cases, with sixteen
/// configurations.
#[test]
fn a_scope_never_grows_from_request_to_token() {
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                let runtime = Runtime::new().unwrap();
                for _ in 0..4 {
                    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
                    let mut runner = TestRunner::new(config);
                    let policy = policy().new_tree(&mut runner).unwrap().current();
                    let world = tokio::sync::Mutex::new(runtime.block_on(World::begin(policy.clone())));
                    let walked = runner.run(&way(), |way| {
                        runtime.block_on(async { world.lock().await.walk(&way).await });
                        Ok(())
                    });
                    walked.unwrap_or_else(|error| panic!("{error} under {policy:?}"));
                }
            });
        }
    });
}

/// DCR-08, TOKEN-15: a scope that became high-risk after it was allowed is in no new token of an unverified
/// client, by a pending code or by a refresh; a trusted client keeps it.
#[tokio::test(flavor = "multi_thread")]
async fn a_scope_that_became_high_risk_is_not_renewed() {
    let rules = |risk: &str| {
        format!(
            "[groups]\neveryone = [\"docs.read\", \"docs.full\"]\n[scopes.\"docs.full\"]\ntitle = \"Read whole documents\"\n{risk}[tools.docs_read]\nscope = \"docs.full\"\n"
        )
    };
    let app = TestApp::start_configured(&rules("")).await;
    let mut ada = app.admin().await;
    let mut given = Vec::new();
    for client in [cimd::stranger(), app.client().await] {
        for scope in ["docs.full docs.read", "docs.full"] {
            let mut request = client.request(&app);
            request.insert("scope", scope.to_owned());
            let mut codes = Vec::new();
            for _ in 0..2 {
                let page = ada.consent_page(&app, &authorize_url(&app, &request)).await;
                codes.push(redirect_parameter(&ada.decide(&app, &page, "approve").await, "code").unwrap());
            }
            let tokens = Tokens::of(app.redeem(&client, &codes[0]).await).await;
            assert_eq!(tokens.body["scope"], scope);
            given.push((client.clone(), scope, tokens.refresh, codes.remove(1)));
        }
    }
    let app = app.restart_configured(&rules("risk = \"high\"\n")).await;
    for (client, scope, refresh, code) in given {
        let left = match (client.id == cimd::STRANGER, scope) {
            (false, scope) => Some(scope),
            (true, "docs.full") => None,
            (true, _) => Some("docs.read"),
        };
        for answer in [app.refresh(&client, &refresh).await, app.redeem(&client, &code).await] {
            match left {
                Some(left) => {
                    let tokens = Tokens::of(answer).await;
                    assert_eq!(
                        (&tokens.body["scope"], &tokens.claims()["scope"]),
                        (&json!(left), &json!(left))
                    );
                }
                None => assert_eq!(error_of(answer).await.1, "invalid_grant"),
            }
        }
    }
}
