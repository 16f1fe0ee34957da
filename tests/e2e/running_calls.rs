//! Ending access ends the running calls: each killer, with calls of both revisions in flight at a server behind the
//! gate, some that never answer and some that answer right after it (RS-08, RS-10).

mod slow;

use std::time::{Duration, Instant};

use reqwest::Response;
use serde_json::{Value, json};

use crate::harness::{Browser, Client, TestApp, Tokens, authorize_url, redirect_parameter};
use crate::process::{complaint, portcullis};
use slow::{SECRET, SlowServer};

/// RS-10.
const WITHIN: Duration = Duration::from_secs(2);

/// What ends access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Killer {
    UserDisabled,
    UserDeleted,
    ClientDisabled,
    ClientDeleted,
    GrantRevoked,
    TokenRevoked,
    Lockdown,
    KeyRemoved,
    AccessTokenRevoked,
    RefreshTokenRevoked,
    Disconnected,
    /// The clock goes past the end of the token.
    Expired,
    GroupLeft,
    /// The group has the scope no longer.
    ScopeTaken,
    /// The tools are kept from everybody.
    Hidden,
    /// The tools need something that the user does not have.
    Ruled,
}

impl Killer {
    /// Whether the token outlives it, and the user is no longer entitled.
    fn takes_entitlement(self) -> bool {
        matches!(self, Self::GroupLeft | Self::ScopeTaken | Self::Hidden | Self::Ruled)
    }

    /// The word on record for it.
    fn word(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::KeyRemoved => "key_removed",
            Self::Hidden => "hidden",
            other if other.takes_entitlement() => "not_entitled",
            _ => "revoked",
        }
    }
}

/// The configuration; reloads change a part of it.
fn configured(url: &str, users: &str, rule: &str) -> String {
    let rules = ["reads", "writes", "late"].map(|tool| {
        let effect = if tool == "writes" { "write" } else { "read" };
        format!("[tools.up_{tool}]\neffect = \"{effect}\"\n{rule}\n")
    });
    format!(
        "[rate]\nmcp = \"off\"\n[scopes.\"up.use\"]\ntitle = \"Use\"\n[scopes.\"up.more\"]\ntitle = \"More\"\n\
         [groups]\neveryone = [\"docs.read\"]\nusers = [{users}]\n\
         [sources.up]\nkind = \"mcp-http\"\nurl = \"{url}\"\n{}",
        rules.concat()
    )
}

const USERS: &str = "\"up.use\"";
const RULE: &str = "scope = \"up.use\"";

/// A server with its upstream, and somebody who may use it.
struct Scene {
    app: TestApp,
    slow: SlowServer,
    ines: Browser,
    client: Client,
    tokens: Tokens,
}

impl Scene {
    async fn set() -> Self {
        let slow = SlowServer::start().await;
        let app = TestApp::start_configured(&configured(&slow.url, USERS, RULE)).await;
        app.admin().await;
        let mut ines = app.enrol("ines", &["users"]).await;
        let client = app.client().await;
        let mut request = client.request(&app);
        request.insert("scope", "docs.read up.use".to_owned());
        let page = ines.consent_page(&app, &authorize_url(&app, &request)).await;
        let code = redirect_parameter(&ines.decide(&app, &page, "approve").await, "code").unwrap();
        let tokens = Tokens::of(app.redeem(&client, &code).await).await;
        while !app.audit().iter().any(|record| record["event"] == "source.changed") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { app, slow, ines, client, tokens }
    }

    /// A call in this revision, on its way.
    fn call(&self, tool: &str, revision: &'static str) -> tokio::task::JoinHandle<Response> {
        let mut params = json!({ "name": tool, "arguments": {} });
        let mut request = self.app.http.post(self.app.url("/mcp")).bearer_auth(&self.tokens.access);
        request = request.header("accept", "application/json");
        request = request.header("mcp-protocol-version", revision);
        if revision == "2026-07-28" {
            params["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": revision,
                "io.modelcontextprotocol/clientCapabilities": {} });
            request = request.header("mcp-method", "tools/call").header("mcp-name", tool);
        }
        let call = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params });
        tokio::spawn(async move { request.json(&call).send().await.unwrap() })
    }

    /// Ends it. Returns when the request that ended it has been answered.
    async fn kill(&mut self, killer: Killer) {
        let claims = self.tokens.claims();
        let claim = |name: &str| claims[name].as_str().unwrap().to_owned();
        let client = self.client.id.clone();
        match killer {
            Killer::UserDisabled => self.console(&["user", "disable", "ines"]),
            Killer::UserDeleted => self.console(&["user", "delete", "ines", "--yes"]),
            Killer::ClientDisabled => self.console(&["client", "disable", &client]),
            Killer::ClientDeleted => self.console(&["client", "delete", &client, "--yes"]),
            Killer::GrantRevoked => self.console(&["grant", "revoke", &claim("grant_id")]),
            Killer::TokenRevoked => self.console(&["token", "revoke", &claim("jti")]),
            Killer::Lockdown => self.console(&["lockdown", "--yes"]),
            Killer::KeyRemoved => {
                self.console(&["key", "remove", "--kid", &self.kid(), "--reason", "it leaked", "--yes"]);
            }
            Killer::AccessTokenRevoked => self.revoke(&self.tokens.access).await,
            Killer::RefreshTokenRevoked => self.revoke(&self.tokens.refresh).await,
            Killer::Disconnected => {
                assert_eq!(self.ines.sign_in(&self.app, None).await.status(), 200);
                let change = [("action", "disconnect"), ("client", client.as_str())];
                assert_eq!(self.ines.change(&self.app, &change).await.status(), 303);
            }
            // Its 15 minutes, and the leeway.
            Killer::Expired => self.app.clock.advance(Duration::from_secs(900 + 61)),
            Killer::GroupLeft => self.console(&["user", "groups", "ines", "--remove", "users"]),
            Killer::ScopeTaken => self.reload("", RULE),
            Killer::Hidden => self.reload(USERS, "hidden = true"),
            Killer::Ruled => self.reload(USERS, "scope = \"up.more\""),
        }
    }

    fn console(&self, words: &[&str]) {
        self.app.console(words);
    }

    fn reload(&self, users: &str, rule: &str) {
        let file = self.app.data_dir().with_file_name("portcullis.toml");
        std::fs::write(file, configured(&self.slow.url, users, rule)).unwrap();
        self.app.console(&["reload"]);
    }

    async fn revoke(&self, token: &str) {
        let form = [("token", token), ("client_id", &self.client.id)];
        let answer = self.app.http.post(self.app.url("/revoke")).form(&form).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }

    fn kid(&self) -> String {
        let head = self.tokens.access.split('.').next().unwrap();
        let head = data_encoding::BASE64URL_NOPAD.decode(head.as_bytes()).unwrap();
        serde_json::from_slice::<Value>(&head).unwrap()["kid"].as_str().unwrap().to_owned()
    }
}

/// One row of the table.
async fn ends(killer: Killer) {
    let mut scene = Scene::set().await;
    let mut calls = Vec::new();
    for revision in ["2026-07-28", "2025-11-25"] {
        for tool in ["up_reads", "up_writes", "up_late"] {
            calls.push((format!("{tool} in {revision}"), scene.call(tool, revision)));
        }
    }
    scene.slow.begun(6).await;
    scene.kill(killer).await;
    let ended = Instant::now();
    scene.slow.answer_now();
    for (call, answer) in calls {
        let answer = answer.await.unwrap();
        let took = ended.elapsed();
        assert!(took <= WITHIN, "{killer:?}: {call} ended after {took:?}");
        let (status, challenge) = (answer.status(), answer.headers().get("www-authenticate").cloned());
        let text = answer.text().await.unwrap();
        assert!(!text.contains(SECRET), "{killer:?}: {call}: {text}");
        if killer.takes_entitlement() {
            assert_eq!(status, 200, "{killer:?}: {call}: {text}");
            assert!(text.contains("-32602") && text.contains("Unknown tool"), "{killer:?}: {call}: {text}");
        } else {
            assert_eq!(status, 401, "{killer:?}: {call}: {text}");
            let challenge = challenge.expect("a challenge").to_str().unwrap().to_owned();
            assert!(challenge.contains("error=\"invalid_token\""), "{killer:?}: {call}: {challenge}");
        }
    }
    let cancelled = tokio::time::timeout(WITHIN, scene.slow.cancelled(4));
    cancelled.await.unwrap_or_else(|_| panic!("{killer:?}: the server behind the gate was not told"));
    let records = scene.app.audit();
    for tool in ["up_reads", "up_writes", "up_late"] {
        let end = if tool == "up_writes" { "mcp.result" } else { "mcp.call" };
        let ends = records.iter().filter(|record| record["event"] == end && record["detail"]["name"] == tool);
        let ends: Vec<_> = ends.collect();
        assert_eq!(ends.len(), 2, "{killer:?}: {tool} has one outcome for each call: {ends:?}");
        for record in ends {
            let result = record["detail"]["result"].as_str().unwrap();
            let expected: &[&str] =
                if tool == "up_late" { &["withheld", "cancelled"] } else { &["cancelled"] };
            assert!(expected.contains(&result), "{killer:?}: {record}");
            assert_eq!((&record["outcome"], &record["reason"]), (&json!("failed"), &json!(result)));
            assert_eq!(record["detail"]["ended_by"], killer.word(), "{killer:?}: {record}");
            assert_eq!(record["detail"]["bytes"], 0, "{killer:?}: {record}");
        }
    }
}

macro_rules! table {
    ($($(#[$doc:meta])* $name:ident: $killer:ident;)*) => {$(
        $(#[$doc])*
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            ends(Killer::$killer).await;
        }
    )*};
}

table! {
    /// RS-08, RS-10
    disabling_a_user_ends_their_calls: UserDisabled;
    /// RS-08, RS-10
    deleting_a_user_ends_their_calls: UserDeleted;
    /// RS-08, RS-10
    disabling_a_client_ends_its_calls: ClientDisabled;
    /// RS-08, RS-10
    deleting_a_client_ends_its_calls: ClientDeleted;
    /// RS-08, RS-10, REVOKE-07
    revoking_a_grant_ends_its_calls: GrantRevoked;
    /// RS-08, RS-10, REVOKE-07
    revoking_a_jti_ends_its_calls: TokenRevoked;
    /// RS-08, RS-10
    a_lockdown_ends_all_calls: Lockdown;
    /// RS-08, RS-10, KEYS-04
    removing_a_key_ends_the_calls_of_its_tokens: KeyRemoved;
    /// RS-08, RS-10, REVOKE-04
    revoking_the_access_token_ends_its_calls: AccessTokenRevoked;
    /// RS-08, RS-10, REVOKE-04
    revoking_the_refresh_token_ends_the_calls: RefreshTokenRevoked;
    /// RS-08, RS-10
    disconnecting_a_client_ends_its_calls: Disconnected;
    /// RS-10
    a_token_that_expires_ends_its_calls: Expired;
    /// RS-10, MCP-09
    leaving_a_group_ends_the_calls: GroupLeft;
    /// RS-10, POL-04
    a_reload_that_takes_a_scope_ends_the_calls: ScopeTaken;
    /// RS-10, POL-04
    a_reload_that_hides_tools_ends_their_calls: Hidden;
    /// RS-10, POL-04
    a_reload_that_asks_for_more_ends_the_calls: Ruled;
}

/// LIMIT-04: an administrator sees what runs and whose it is, and stops one call: its client is told, the server behind the gate
/// too, and both the command and the end are on record. A number that is not there is refused.
#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_stops_a_call() {
    let scene = Scene::set().await;
    assert_eq!(scene.app.console(&["call", "list"])["calls"], json!([]));
    let call = scene.call("up_writes", "2025-11-25");
    scene.slow.begun(1).await;
    let listed = scene.app.console(&["call", "list"])["calls"].take();
    let claims = scene.tokens.claims();
    let said = ["name", "source", "user", "client"].map(|key| &listed[0][key]);
    assert_eq!(said, [&json!("up_writes"), &json!("up"), &claims["sub"], &json!(scene.client.id)]);
    let unknown = portcullis(&["call", "stop", "999", "--data-dir", scene.app.data_dir().to_str().unwrap()]);
    assert!(complaint(&unknown).contains("no call 999 runs"), "{unknown:?}");
    scene.app.console(&["call", "stop", &listed[0]["id"].to_string()]);
    let answer: Value = call.await.unwrap().json().await.unwrap();
    let text = &answer["result"]["content"][0]["text"];
    assert!(
        text.as_str().unwrap().starts_with("An administrator stopped this call of the tool."),
        "{answer}"
    );
    scene.slow.cancelled(1).await;
    assert_eq!(scene.app.console(&["call", "list"])["calls"], json!([]));
    let records = scene.app.audit();
    let of = |event: &str| records.iter().find(|record| record["event"] == event).unwrap();
    assert_eq!(of("mcp.result")["detail"]["result"], "stopped");
    let stopped = of("call.stopped");
    assert_eq!((&stopped["actor"]["type"], &stopped["subject"]), (&json!("console"), &claims["sub"]));
    assert_eq!(stopped["detail"]["request_id"], of("mcp.call")["request_id"]);
}
