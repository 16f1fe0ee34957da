//! The MCP clients on npm, installed as users install them, against the program as users run it.
//!
//! A proxy that each client is configured with (`clients/wire.mjs`) records its requests.

use serde_json::{Value, json};
use url::Url;

use crate::browser::{Story, first_path, search};
use crate::client_table::{self, Row, form, to};
use crate::process::{Driver, clients, node};

const TOOLS: [&str; 3] = ["docs_read", "docs_search", "whoami"];

/// A user's session with one client, and its recorded traffic.
struct Walk {
    story: Story,
    client: Driver,
    exchanges: Vec<Value>,
    pages: Vec<String>,
}

impl Walk {
    /// Starts one of `clients/*.mjs`. In its arguments, `HOME` is replaced by a directory of its own, `STATE`
    /// by a file, and `URL` by the server's URL.
    fn begin(arguments: &[&str]) -> Self {
        let story = Story::begin();
        let client = start(&story, arguments);
        Self { story, client, exchanges: Vec::new(), pages: Vec::new() }
    }

    /// Stops the client and starts it again.
    fn again(&mut self, arguments: &[&str]) {
        self.overhear();
        let next = start(&self.story, arguments);
        std::mem::replace(&mut self.client, next).close();
    }

    fn end(self) {
        self.client.close();
        self.story.browser.close();
    }

    /// Runs an operation. The user allows what the client requests meanwhile.
    fn ok(&mut self, operation: &Value) -> Value {
        self.client.send(operation);
        let mut answer = self.client.receive();
        while answer["event"] == "authorize" {
            self.story.browser.ok(&json!({"op": "authorize", "url": answer["url"], "decision": "approve"}));
            self.pages.push(answer["url"].as_str().unwrap().to_owned());
            answer = self.client.receive();
        }
        assert_eq!(answer["ok"], true, "{operation}: {answer}");
        self.overhear();
        answer
    }

    fn overhear(&mut self) {
        let heard = self.client.ok(&json!({"op": "http"}));
        self.exchanges.extend_from_slice(heard["exchanges"].as_array().unwrap());
        // The proxy shows that the client needs no internet access.
        assert!(heard["refused"].as_array().is_none_or(Vec::is_empty), "{}", heard["refused"]);
    }

    /// Connects, lists, and searches before and after its access token expires. Behind the proxy clients are
    /// told of the expiry; the tokens of others are removed.
    fn use_tools(&mut self, expire: &str) {
        self.ok(&json!({"op": "connect"}));
        assert_eq!(self.ok(&json!({"op": "list"}))["names"], json!(TOOLS));
        assert_eq!(first_path(&search(&mut self.client, "falcon dawn")), Some("falcon.md"));
        self.ok(&json!({"op": expire}));
        assert_eq!(first_path(&search(&mut self.client, "pad seven")), Some("falcon.md"));
    }

    /// Compares all observations. The client registered once, unless its id is a URL, signed in once, and
    /// always named the resource (RFC 8707).
    fn compare(&self, row: &Row) {
        let [page] = &self.pages[..] else { panic!("{} pages were opened", self.pages.len()) };
        row.compare(page, &self.exchanges);
        let registered = self.exchanges.iter().filter(|exchange| to(exchange, "/register")).count();
        assert_eq!(registered, usize::from(row.registers_by == "registration"));
        let resource = ("resource".to_owned(), self.story.server.mcp_url.clone());
        let asked: Vec<_> = Url::parse(page).unwrap().query_pairs().into_owned().collect();
        for request in self.exchanges.iter().filter_map(form).chain([asked]) {
            assert!(request.contains(&resource), "{request:?}");
        }
    }
}

/// The path of Claude Code.
pub fn claude_code() -> String {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    let claude =
        clients().join(format!("node_modules/@anthropic-ai/claude-code-linux-{architecture}/claude"));
    claude.to_str().unwrap().to_owned()
}

pub fn start(story: &Story, arguments: &[&str]) -> Driver {
    let home = story.dir.path().join("home");
    let state = story.dir.path().join("state.json");
    let mut command = node();
    command.args(arguments.iter().map(|&argument| match argument {
        "HOME" => home.to_str().unwrap(),
        "STATE" => state.to_str().unwrap(),
        "URL" => &story.server.mcp_url,
        other => other,
    }));
    command.current_dir(clients()).env("TMPDIR", story.dir.path());
    Driver::spawn(command)
}

/// An application on an SDK: it signs in, refreshes after a 401, and continues after a restart.
fn an_sdk_signs_in(arguments: &[&str], row: &Row) {
    let mut walk = Walk::begin(arguments);
    walk.use_tools("forget_access");
    assert_eq!(walk.ok(&json!({"op": "refresh"}))["refresh_token_changed"], true);
    walk.again(arguments);
    assert_eq!(walk.ok(&json!({"op": "connect"}))["protocol_version"], row.protocol_version);
    walk.ok(&json!({"op": "list"}));
    walk.compare(row);
    walk.end();
}

/// The SDK that most published clients use. Unlike its successor it requests exactly the scope of the challenge
/// (RS-02, META-05, DCR-02, REFRESH-02).
#[test]
fn typescript_sdk_1_signs_in() {
    an_sdk_signs_in(&["typescript-1.mjs", "--url", "URL", "--state", "STATE"], &client_table::TYPESCRIPT_1);
}

/// Its successor without protocol negotiation; `browser.rs` tests it with.
#[test]
fn typescript_sdk_2_signs_in() {
    an_sdk_signs_in(&["typescript-2.mjs", "--url", "URL", "--state", "STATE"], &client_table::TYPESCRIPT_2);
}

/// mcp-remote, used by an application that speaks only stdio. Restarted, also in the newer revision, it neither
/// registers nor asks the user.
#[test]
fn mcp_remote_signs_in() {
    let arguments = ["mcp-remote.mjs", "--url", "URL", "--state", "HOME"];
    let mut walk = Walk::begin(&arguments);
    walk.use_tools("expire");
    walk.again(&arguments);
    walk.ok(&json!({"op": "connect"}));
    walk.ok(&json!({"op": "list"}));
    walk.compare(&client_table::MCP_REMOTE);

    walk.again(&[&arguments[..], &["--", "--protocol", "auto"]].concat());
    walk.ok(&json!({"op": "connect"}));
    assert_eq!(walk.ok(&json!({"op": "list"}))["names"], json!(TOOLS));
    walk.compare(&Row { protocol_version: "2026-07-28", ..client_table::MCP_REMOTE });
    walk.end();
}

/// The Inspector without its pages. Without a terminal it starts a sign-in only if told to.
#[test]
fn inspector_signs_in() {
    let node = node();
    let launcher = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js";
    let launcher = clients().join(launcher);
    // Port 0 is any: two tests could not share 6276, its default.
    let program = [
        &["command.mjs", "--home", "HOME", "--", node.get_program().to_str().unwrap()],
        &[launcher.to_str().unwrap(), "--cli", "URL", "--format", "json"],
        &["--callback-url", "http://127.0.0.1:0/oauth/callback"][..],
    ];
    let mut walk = Walk::begin(&program.concat());

    let refused = walk.ok(&json!({"op": "run", "arguments": ["--method", "tools/list"]}));
    assert_eq!(refused["code"], 3, "{refused}");
    let why = refused["stderr"].as_str().unwrap();
    assert!(why.contains("auth_required") && why.contains("requires a TTY"), "{why}");

    let told = json!({"MCP_AUTO_OPEN_ENABLED": "true", "MCP_INSPECTOR_SECRET_STORE": "file"});
    let run = |walk: &mut Walk, arguments: &[&str]| -> Value {
        let ended = walk.ok(&json!({"op": "run", "arguments": arguments, "env": told}));
        assert_eq!(ended["code"], 0, "{ended}");
        serde_json::from_str(ended["stdout"].as_str().unwrap()).unwrap()
    };
    let listed = run(&mut walk, &["--method", "tools/list"]);
    let tools = listed["result"]["tools"].as_array().unwrap();
    assert_eq!(tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect::<Vec<_>>(), TOOLS);
    let search = ["--method", "tools/call", "--tool-name", "docs_search", "--tool-arg", "query=falcon"];
    assert_eq!(first_path(&run(&mut walk, &search)), Some("falcon.md"));
    walk.ok(&json!({"op": "expire"}));
    assert_eq!(first_path(&run(&mut walk, &search)), Some("falcon.md"));
    walk.compare(&client_table::INSPECTOR);

    let modern = [&search[..], &["--protocol-era", "modern"]].concat();
    assert_eq!(first_path(&run(&mut walk, &modern)), Some("falcon.md"));
    walk.compare(&Row { protocol_version: "2026-07-28", ..client_table::INSPECTOR });
    walk.end();
}

/// Claude Code without an account, as on a network with its own language model: it is added, signs in, and a
/// conversation calls the tool. Signing in needs a terminal. Signing out ends the grant.
///
/// REVOKE-02, REVOKE-04: a public client revokes its own tokens.
///
/// CIMD-01, CIMD-13: its client id is a URL in the built-in catalogue.
#[test]
fn claude_code_signs_in() {
    let mut walk = Walk::begin(&["command.mjs", "--home", "HOME", "--", &claude_code()]);
    let run = |walk: &mut Walk, arguments: &[&str], terminal: bool| {
        let quiet = json!({"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1"});
        let operation = json!({"op": "run", "arguments": arguments, "env": quiet, "terminal": terminal});
        let ended = walk.ok(&operation);
        (
            ended["code"] == 0,
            format!("{}{}", ended["stdout"].as_str().unwrap(), ended["stderr"].as_str().unwrap()),
        )
    };
    let status = |walk: &mut Walk| run(walk, &["mcp", "list"], false).1.lines().last().unwrap().to_owned();

    let mcp_url = walk.story.server.mcp_url.clone();
    let (added, said) = run(&mut walk, &["mcp", "add", "--transport", "http", "portcullis", &mcp_url], false);
    assert!(added, "{said}");
    let listed = status(&mut walk);
    assert!(listed.ends_with("Needs authentication"), "{listed}");
    let (signed_in, said) = run(&mut walk, &["mcp", "login", "portcullis"], false);
    assert!(!signed_in && said.contains("this isn't an interactive terminal"), "{said}");
    let (signed_in, said) = run(&mut walk, &["mcp", "login", "portcullis"], true);
    assert!(signed_in && said.contains("Authenticated with \"portcullis\""), "{said}");
    let listed = status(&mut walk);
    assert!(listed.ends_with("Connected"), "{listed}");

    walk.ok(&json!({"op": "expire"}));
    let tool = "mcp__portcullis__docs_search";
    walk.ok(&json!({"op": "model", "tool": tool, "input": {"query": "falcon dawn"}}));
    let (answered, said) = run(&mut walk, &["-p", "When does it launch?", "--allowedTools", tool], false);
    assert!(answered && said.contains("launches at **dawn** from pad seven"), "{said}");
    walk.compare(&client_table::CLAUDE_CODE);

    // It revokes its tokens at the endpoint in the metadata.
    let (signed_out, said) = run(&mut walk, &["mcp", "logout", "portcullis"], false);
    assert!(signed_out, "{said}");
    let revoked: Vec<_> = walk.exchanges.iter().filter(|exchange| to(exchange, "/revoke")).collect();
    assert!(revoked.iter().all(|exchange| exchange["status"] == 200), "{revoked:?}");
    for hint in ["refresh_token", "access_token"] {
        let hint = format!("token_type_hint={hint}");
        assert!(revoked.iter().any(|sent| sent["body"].as_str().unwrap().contains(&hint)), "{revoked:?}");
    }
    let listed = status(&mut walk);
    assert!(listed.ends_with("Needs authentication"), "{listed}");
    walk.end();
}
