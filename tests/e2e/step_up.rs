//! What third-party clients do when a tool needs more scope than they have: a 403 tells them what to request
//! (RS-11). Not all of them do; the table in `docs/clients.md` says which.

use serde_json::{Value, json};
use url::Url;

use crate::browser::Story;
use crate::client_table::{self, Row, form, to};
use crate::npm_clients;
use crate::process::{Driver, clients, node};
use crate::python_clients::{FASTMCP, Library, MCP};

/// All users may have both scopes; the first sign-in requests one.
pub const TWO_SCOPES: &str = "[groups]\neveryone = [\"docs.read\", \"docs.full\"]\n\
     [scopes.\"docs.full\"]\ntitle = \"Read whole documents\"\n[tools.docs_read]\nscope = \"docs.full\"\n";

/// A user and a client that was granted the first scope.
pub struct Walk {
    pub story: Story,
    pub client: Driver,
}

impl Walk {
    fn begin(start: impl FnOnce(&Story) -> Driver) -> Self {
        Self::begin_configured(TWO_SCOPES, start)
    }

    pub fn begin_configured(toml: &str, start: impl FnOnce(&Story) -> Driver) -> Self {
        let story = Story::begin_configured(toml);
        let client = start(&story);
        Self { story, client }
    }

    pub fn npm(arguments: &[&str]) -> Self {
        Self::begin(|story| npm_clients::start(story, arguments))
    }

    /// Runs an operation; the user allows what the client requests meanwhile. Returns the result and the opened
    /// URLs.
    pub fn act(&mut self, operation: &Value) -> (Value, Vec<Url>) {
        let mut pages = Vec::new();
        self.client.send(operation);
        let mut answer = self.client.receive();
        while answer["event"] == "authorize" {
            self.story.browser.ok(&json!({"op": "authorize", "url": answer["url"], "decision": "approve"}));
            pages.push(Url::parse(answer["url"].as_str().unwrap()).unwrap());
            answer = self.client.receive();
        }
        (answer, pages)
    }

    /// The recorded traffic since the last call of this function.
    pub fn overhear(&mut self) -> Vec<Value> {
        self.client.ok(&json!({"op": "http"}))["exchanges"].as_array().unwrap().clone()
    }

    pub fn end(self) {
        self.client.close();
        self.story.browser.close();
    }
}

/// What was observed of one attempt to use the tool.
pub struct Attempt {
    pub worked: bool,
    pub pages: Vec<Url>,
    pub exchanges: Vec<Value>,
}

impl Attempt {
    /// The table's cell. For every client it asserts that the refusal named the needed and the granted scopes,
    /// and that only a new decision of the user allowed the call.
    pub fn words(&self) -> &'static str {
        let refused = self.exchanges.iter().position(|e| to(e, "/mcp") && e["status"] == 403);
        let refused = refused.expect("the first call is refused");
        let challenge = self.exchanges[refused]["www_authenticate"].as_str().unwrap();
        assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
        assert!(challenge.contains("scope=\"docs.full docs.read\""), "{challenge}");
        let refresh = ("grant_type".to_owned(), "refresh_token".to_owned());
        let refreshed =
            self.exchanges[refused..].iter().any(|e| form(e).is_some_and(|form| form.contains(&refresh)));
        match (self.worked, &self.pages[..], refreshed) {
            (true, [page], false) => {
                assert_eq!(asked_scopes(page), ["docs.full", "docs.read"]);
                "after a 403"
            }
            (false, [], true) => "never: it refreshes and gives up",
            (false, [], false) => "never: it reports the refusal",
            other => panic!("{other:?}: {:?}", self.exchanges),
        }
    }
}

pub fn asked_scopes(page: &Url) -> Vec<String> {
    let (_, scope) = page.query_pairs().find(|(name, _)| name == "scope").unwrap();
    let mut scopes: Vec<_> = scope.split(' ').filter(|s| *s != "offline_access").map(str::to_owned).collect();
    scopes.sort();
    scopes
}

/// An application that calls the tool, and calls it again, which then requests nothing.
fn an_application_steps_up(mut walk: Walk, row: &Row) {
    let (connected, pages) = walk.act(&json!({"op": "connect"}));
    assert_eq!((&connected["ok"], pages.len()), (&json!(true), 1), "{connected}");
    assert_eq!(asked_scopes(&pages[0]), ["docs.read"]);
    walk.overhear();
    let read = json!({"op": "call", "name": "docs_read", "arguments": {"path": "falcon.md"}});
    let (answer, pages) = walk.act(&read);
    let seen = Attempt { worked: answer["ok"] == true, pages, exchanges: walk.overhear() };
    assert_eq!(seen.words(), row.step_up, "{answer}");
    let (again, pages) = walk.act(&read);
    assert_eq!((again["ok"] == true, pages.len()), (seen.worked, 0), "{again}");
    if seen.worked {
        let text = again["result"]["structuredContent"]["text"].as_str().unwrap();
        assert!(text.contains("launches at dawn"), "{again}");
    }
    walk.end();
}

/// RS-11: it has a refresh token, so it refreshes, which adds no scope, and gives up.
#[test]
fn typescript_sdk_1_does_not_step_up() {
    let walk = Walk::npm(&["typescript-1.mjs", "--url", "URL", "--state", "STATE"]);
    an_application_steps_up(walk, &client_table::TYPESCRIPT_1);
}

/// RS-11
#[test]
fn typescript_sdk_2_steps_up() {
    let walk = Walk::npm(&["typescript-2.mjs", "--url", "URL", "--state", "STATE"]);
    an_application_steps_up(walk, &client_table::TYPESCRIPT_2);
}

/// RS-11
#[test]
fn mcp_remote_steps_up() {
    let walk = Walk::npm(&["mcp-remote.mjs", "--url", "URL", "--state", "HOME"]);
    an_application_steps_up(walk, &client_table::MCP_REMOTE);
}

fn a_library_steps_up(library: &Library) {
    an_application_steps_up(Walk::begin(|story| library.start(story, "auto")), library.row);
}

/// RS-11
#[test]
fn python_mcp_steps_up() {
    a_library_steps_up(&MCP);
}

/// RS-11
#[test]
fn fastmcp_steps_up() {
    a_library_steps_up(&FASTMCP);
}

/// RS-11: the Inspector refreshes like the library that it uses, and reports that as unexpected.
#[test]
fn inspector_does_not_step_up() {
    let node = node();
    let launcher =
        clients().join("node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js");
    let program = [
        &["command.mjs", "--home", "HOME", "--", node.get_program().to_str().unwrap()],
        &[launcher.to_str().unwrap(), "--cli", "URL", "--format", "json"],
        &["--callback-url", "http://127.0.0.1:0/oauth/callback"][..],
    ];
    let mut walk = Walk::npm(&program.concat());
    let told = json!({"MCP_AUTO_OPEN_ENABLED": "true", "MCP_INSPECTOR_SECRET_STORE": "file"});
    let run = |arguments: &[&str]| json!({"op": "run", "arguments": arguments, "env": told});
    let (listed, pages) = walk.act(&run(&["--method", "tools/list"]));
    assert_eq!((&listed["code"], pages.len()), (&json!(0), 1), "{listed}");
    walk.overhear();
    let (ended, pages) = walk.act(&run(&[
        "--method",
        "tools/call",
        "--tool-name",
        "docs_read",
        "--tool-arg",
        "path=falcon.md",
    ]));
    let seen = Attempt { worked: ended["code"] == 0, pages, exchanges: walk.overhear() };
    assert_eq!(seen.words(), client_table::INSPECTOR.step_up, "{ended}");
    let why = ended["stderr"].as_str().unwrap();
    assert!(why.contains("auth() returned AUTHORIZED without authorization code"), "{why}");
    walk.end();
}

/// RS-11: Claude Code tells its user which scope is missing and what to do; the next sign-in requests it,
/// without a new registration, and then the call works.
#[test]
fn claude_code_steps_up_when_its_user_signs_in_again() {
    let mut walk = Walk::npm(&["command.mjs", "--home", "HOME", "--", &npm_clients::claude_code()]);
    let quiet = json!({"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1"});
    let run = |arguments: &[&str], terminal: bool| json!({"op": "run", "arguments": arguments, "env": quiet, "terminal": terminal});
    let mcp_url = walk.story.server.mcp_url.clone();
    walk.act(&run(&["mcp", "add", "--transport", "http", "portcullis", &mcp_url], false));
    let sign_in = run(&["mcp", "login", "portcullis"], true);
    let (_, pages) = walk.act(&sign_in);
    assert_eq!(asked_scopes(&pages[0]), ["docs.read"]);
    let tool = "mcp__portcullis__docs_read";
    walk.client.ok(&json!({"op": "model", "tool": tool, "input": {"path": "falcon.md"}}));
    walk.overhear();
    let converse = run(&["-p", "When does it launch?", "--allowedTools", tool], false);
    let (ended, pages) = walk.act(&converse);
    let said = ended["stdout"].as_str().unwrap();
    assert!(said.contains("needs additional permissions") && said.contains("docs.full docs.read"), "{said}");
    let worked = said.contains("launches at dawn");
    let seen = Attempt { worked, pages, exchanges: walk.overhear() };
    assert_eq!(seen.words(), "never: it reports the refusal", "{ended}");
    assert_eq!(client_table::CLAUDE_CODE.step_up, "when its user signs in again, as it tells them to");

    let (_, pages) = walk.act(&sign_in);
    assert_eq!(asked_scopes(&pages[0]), ["docs.full", "docs.read"]);
    assert!(!walk.overhear().iter().any(|exchange| to(exchange, "/register")));
    let (ended, pages) = walk.act(&converse);
    assert!(ended["stdout"].as_str().unwrap().contains("launches at dawn"), "{ended}");
    assert!(pages.is_empty());
    walk.end();
}
