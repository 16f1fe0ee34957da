//! Clients that are too large to be tested with every change: `tests/run more-clients` installs them
//! (`clients/more`, `clients/open-webui`) and runs these tests. They paste what `docs/clients.md` tells users
//! to paste.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use url::Url;

use crate::client_table::{CODEX, COPILOT, GEMINI, INSPECTOR_PAGES, OPENCODE, Row, form, to};
use crate::process::{clients, node};
use crate::step_up::{Attempt, TWO_SCOPES, Walk, asked_scopes};

mod open_webui;

/// A section of `docs/clients.md`, with our addresses instead of the documented ones.
struct Documented {
    text: String,
}

impl Documented {
    fn section(heading: &str, mcp_url: &str, model: &str) -> Self {
        let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients.md")).unwrap();
        let (_, rest) = page.split_once(&format!("\n## {heading}\n")).expect("a section");
        let section = rest.split("\n## ").next().unwrap();
        let text =
            section.replace("http://localhost:8080/mcp", mcp_url).replace("http://localhost:11434", model);
        Self { text }
    }

    /// Its code blocks in this language.
    fn blocks(&self, language: &str) -> Vec<&str> {
        let opening = format!("```{language}\n");
        self.text.split(&opening).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
    }

    /// The arguments of this program in its command lines.
    fn commands(&self, program: &str) -> Vec<Vec<&str>> {
        let lines = self.blocks("sh").into_iter().flat_map(str::lines);
        lines.filter_map(|line| Some(line.strip_prefix(program)?.split_whitespace().collect())).collect()
    }

    /// The environment variables in its command lines.
    fn exports(&self) -> Vec<(String, Value)> {
        let lines = self.blocks("sh").into_iter().flat_map(str::lines);
        lines.filter_map(|line| Some(pair(line.strip_prefix("export ")?))).collect()
    }
}

/// A client with its home directory and its language model.
struct Session {
    walk: Walk,
    model: String,
    /// The URLs that it opened in the browser, and its requests to the server.
    pages: Vec<Url>,
    exchanges: Vec<Value>,
}

impl Session {
    fn begin(program: &[&str]) -> Self {
        let walk = Walk::npm(&[&["command.mjs", "--home", "HOME", "--"], program].concat());
        let mut session = Self { walk, model: String::new(), pages: Vec::new(), exchanges: Vec::new() };
        session.think("", &json!({}));
        session
    }

    fn documented(&self, heading: &str) -> Documented {
        Documented::section(heading, &self.walk.story.server.mcp_url, &self.model)
    }

    /// Makes the model call this tool from now on.
    fn think(&mut self, tool: &str, input: &Value) {
        let thinking = self.walk.client.ok(&json!({"op": "model", "tool": tool, "input": input}));
        self.model = thinking["url"].as_str().unwrap().to_owned();
    }

    fn home(&self) -> PathBuf {
        self.walk.story.dir.path().join("home")
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.home().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Runs it with these arguments; the user allows what it requests. Returns the text of both output streams.
    fn run(&mut self, operation: &Value) -> String {
        let (ended, pages) = self.walk.act(operation);
        assert_eq!(ended["ok"], true, "{operation}: {ended}");
        self.pages.extend(pages);
        self.exchanges.extend(self.walk.overhear());
        format!("{}{}", ended["stdout"].as_str().unwrap(), ended["stderr"].as_str().unwrap())
    }

    /// Uses a tool that needs more scope than was granted; returns the table's cell for it.
    fn exceed(&mut self, operation: &Value) -> (&'static str, String) {
        let (pages, before) = (self.pages.len(), self.exchanges.len());
        let said = self.run(operation);
        let (pages, exchanges) = (self.pages[pages..].to_vec(), self.exchanges[before..].to_vec());
        (Attempt { worked: said.contains("launches at dawn"), pages, exchanges }.words(), said)
    }

    /// Compares all observations with the row; the resource was always named (RFC 8707).
    fn compare(&self, row: &Row) {
        row.compare(self.pages[0].as_str(), &self.exchanges);
        let resource = ("resource".to_owned(), self.walk.story.server.mcp_url.clone());
        let asked = self.pages.iter().map(|page| page.query_pairs().into_owned().collect());
        for request in self.exchanges.iter().filter_map(form).chain(asked) {
            assert!(request.contains(&resource), "{request:?}");
        }
    }

    /// Clicks on a page of the client.
    fn click(&mut self, role: &str, name: &str) {
        self.walk.story.browser.ok(&json!({"op": "use", "role": role, "name": name}));
    }

    /// The client's page has redirected to the sign-in page in the same tab.
    fn sign_in_here(&mut self) {
        let browser = &mut self.walk.story.browser;
        browser.ok(
            &json!({"op": "text", "selector": "[data-testid=passkey-login], [data-testid=consent-approve]"}),
        );
        let frames = browser.ok(&json!({"op": "frames"}));
        self.pages.push(Url::parse(frames["frames"][0].as_str().unwrap()).unwrap());
        browser.ok(&json!({"op": "allow"}));
    }

    /// How often it has registered.
    fn registrations(&self) -> usize {
        self.exchanges.iter().filter(|exchange| to(exchange, "/register")).count()
    }

    /// Makes a first sign-in request the second scope too.
    fn ask_for_both_at_once(&mut self) {
        let toml = TWO_SCOPES.replace("title = ", "default = true\ntitle = ");
        fs::write(self.walk.story.dir.path().join("portcullis.toml"), toml).unwrap();
        self.walk.story.restart();
    }

    fn expire(&mut self) {
        self.walk.client.ok(&json!({"op": "expire"}));
    }
}

/// The path of a program that `tests/run more-clients` installed.
fn installed(path: &str) -> String {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    let target = if cfg!(target_arch = "aarch64") { "aarch64" } else { "x86_64" };
    let path = path.replace("ARCHITECTURE", architecture).replace("TARGET", target);
    let found: PathBuf = clients().join(&path);
    assert!(found.exists(), "{path} is not installed: tests/run more-clients says why");
    found.to_str().unwrap().to_owned()
}

/// Codex has a metadata document URL as its client id. It only reports an insufficient scope; the documented
/// command requests more, without a new registration.
#[test]
#[ignore = "tests/run more-clients installs it"]
fn codex_signs_in() {
    let program = installed(
        "more/node_modules/@openai/codex-linux-ARCHITECTURE/vendor/TARGET-unknown-linux-musl/bin/codex",
    );
    let mut session = Session::begin(&[&program]);
    session.think("mcp__portcullis/docs_search", &json!({"query": "falcon dawn"}));
    let documented = session.documented("Codex CLI");
    session.write(".codex/config.toml", documented.blocks("toml")[0]);
    let run = |arguments: &[&str]| json!({"op": "run", "arguments": arguments});
    let [add, log_in, more] = &documented.commands("codex ")[..] else { panic!("{}", documented.text) };
    session.run(&run(add));
    let said = session.run(&run(log_in));
    assert!(said.contains("Successfully logged in to MCP server 'portcullis'"), "{said}");

    let converse = run(&["exec", "--skip-git-repo-check", "When does it launch?"]);
    let said = session.run(&converse);
    assert!(said.contains("launches at **dawn**"), "{said}");
    session.expire();
    let said = session.run(&converse);
    assert!(said.contains("launches at **dawn**"), "{said}");
    session.compare(&CODEX);

    session.think("mcp__portcullis/docs_read", &json!({"path": "falcon.md"}));
    session.write(
        ".codex/config.toml",
        &[session.documented("Codex CLI").blocks("toml")[0], &servers(&session)].concat(),
    );
    let (outcome, said) = session.exceed(&converse);
    assert_eq!(outcome, CODEX.step_up, "{said}");
    session.run(&run(more));
    assert_eq!(asked_scopes(session.pages.last().unwrap()), ["docs.full", "docs.read"]);
    let said = session.run(&converse);
    assert!(said.contains("launches at dawn"), "{said}");
    assert_eq!(session.registrations(), 0);
    session.walk.end();
}

/// Copilot, without an account: its terminal opens the page, and opens it again when a tool needs more scope.
#[test]
#[ignore = "tests/run more-clients installs it"]
fn copilot_signs_in_and_steps_up() {
    let program = installed("more/node_modules/@github/copilot-linux-ARCHITECTURE/copilot");
    let mut session = Session::begin(&[&program]);
    session.think("portcullis-docs_search", &json!({"query": "falcon dawn"}));
    // It asks before it works in a folder.
    let trusted = json!({"trustedFolders": [session.home()]});
    session.write(".copilot/config.json", &trusted.to_string());
    let documented = session.documented("GitHub Copilot CLI");
    let [add] = &documented.commands("copilot ")[..] else { panic!("{}", documented.text) };
    session.run(&json!({"op": "run", "arguments": add}));
    // Makes it believe that its access token is about to expire.
    session.walk.client.ok(&json!({"op": "hasten"}));

    let converse = |session: &Session, question: &str| {
        let mut environment = session.documented("GitHub Copilot CLI").exports();
        environment.extend(["TERM=xterm-256color", "COPILOT_AUTO_UPDATE=false"].map(pair));
        json!({
            "op": "run",
            "arguments": ["--allow-all-tools"],
            "terminal": true,
            "env": serde_json::Map::from_iter(environment),
            "typed": [
                {"after": "? help", "answered": "tools/list", "keys": question},
                {"after": question, "keys": "\r"},
                {"after": "from pad seven", "keys": "/exit"},
                {"after": "/exit", "keys": "\r"},
            ],
        })
    };
    for question in ["When does it launch", "From which pad"] {
        let operation = converse(&session, question);
        let said = session.run(&operation);
        assert!(said.contains("matches \"falcon dawn\""), "{said}");
    }
    session.compare(&COPILOT);

    session.think("portcullis-docs_read", &json!({"path": "falcon.md"}));
    let operation = converse(&session, "Read it");
    let (outcome, said) = session.exceed(&operation);
    assert_eq!(outcome, COPILOT.step_up, "{said}");
    session.walk.end();
}

/// Gemini CLI requests every scope, unless configured. It refreshes in time, and reports a refusal.
#[test]
#[ignore = "tests/run more-clients installs it"]
fn gemini_signs_in() {
    let program = installed("more/node_modules/@google/gemini-cli/bundle/gemini.js");
    let node = node();
    let mut session = Session::begin(&[node.get_program().to_str().unwrap(), &program]);
    session.think("mcp_portcullis_docs_search", &json!({"query": "falcon dawn"}));
    let run = |session: &Session, arguments: &[&str]| {
        let mut environment = session.documented("Gemini CLI").exports();
        environment.push(pair("TERM=xterm-256color"));
        json!({
            "op": "run",
            "arguments": arguments,
            "env": serde_json::Map::from_iter(environment),
            "terminal": true,
            "typed": [{"after": "[Y/n]", "keys": "y\r"}],
        })
    };
    let say = |session: &Session, words: &str| {
        run(session, &["-m", "gemini-2.5-flash", "--yolo", "--skip-trust", "-p", words])
    };
    let documented = session.documented("Gemini CLI");
    let [add] = &documented.commands("gemini ")[..] else { panic!("{}", documented.text) };
    session.write(".gemini/settings.json", documented.blocks("json")[0]);
    session.run(&run(&session, add));
    let settings = fs::read_to_string(session.home().join(".gemini/settings.json")).unwrap();
    assert!(settings.contains(&session.walk.story.server.mcp_url), "{settings}");
    session.walk.client.ok(&json!({"op": "hasten"}));
    let log_in = say(&session, "/mcp auth portcullis");
    let said = session.run(&log_in);
    assert!(said.contains("Successfully authenticated"), "{said}");
    let converse = say(&session, "When does it launch?");
    let said = session.run(&converse);
    assert!(said.contains("launches at **dawn**"), "{said}");
    session.compare(&GEMINI);
    session.think("mcp_portcullis_docs_read", &json!({"path": "falcon.md"}));
    let converse = say(&session, "When does it launch?");
    let said = session.run(&converse);
    assert!(said.contains("launches at dawn"), "{said}");

    session.write(".gemini/settings.json", documented.blocks("json")[1]);
    session.run(&log_in);
    assert_eq!(asked_scopes(session.pages.last().unwrap()), ["docs.read"]);
    let (outcome, said) = session.exceed(&converse);
    assert_eq!(outcome, GEMINI.step_up, "{said}");
    session.write(".gemini/settings.json", &settings);
    session.run(&log_in);
    assert_eq!(asked_scopes(session.pages.last().unwrap()), ["docs.full", "docs.read"]);
    let said = session.run(&converse);
    assert!(said.contains("launches at dawn"), "{said}");
    session.walk.end();
}

/// The pages of the Inspector: everything happens in one tab, and the page asks before it requests more scope.
#[test]
#[ignore = "tests/run more-clients installs it"]
fn inspector_pages_sign_in_and_step_up() {
    let launcher =
        clients().join("node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js");
    let node = node();
    let program = [node.get_program().to_str().unwrap(), launcher.to_str().unwrap()];
    let mut session =
        Session::begin(&[&program[..], &["--web", "--server-url", "URL", "--transport", "http"]].concat());
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let told = json!({"CLIENT_PORT": free.to_string(), "MCP_INSPECTOR_SECRET_STORE": "file", "MCP_AUTO_OPEN_ENABLED": "true"});
    let started = session.walk.client.ok(&json!({"op": "start", "env": told}));
    session.walk.story.browser.ok(&json!({"op": "open", "url": started["url"]}));

    session.click("switch", "Connect or disconnect");
    session.sign_in_here();
    session.walk.story.browser.ok(&json!({"op": "text", "selector": "text=\"Connected\""}));
    session.click("text", "Tools");
    session.click("button", "whoami");
    session.click("button", "Execute Tool");
    session.walk.story.browser.ok(&json!({"op": "text", "selector": "text=Scopes of the token"}));
    session.expire();
    let call = |session: &mut Session, tool: &str, argument: &str, value: &str| {
        session.click("button", tool);
        session
            .walk
            .story
            .browser
            .ok(&json!({"op": "use", "role": "textbox", "name": argument, "text": value}));
        session.click("button", "Execute Tool");
    };
    call(&mut session, "docs_search", "query", "falcon dawn");
    session.walk.story.browser.ok(&json!({"op": "text", "selector": "text=launches at"}));
    session.exchanges.extend(session.walk.overhear());
    session.compare(&INSPECTOR_PAGES);

    let (pages, before) = (session.pages.len(), session.exchanges.len());
    call(&mut session, "docs_read", "path", "falcon.md");
    session.click("button", "Authorize");
    session.sign_in_here();
    session.click("text", "Tools");
    call(&mut session, "docs_read", "path", "falcon.md");
    session.walk.story.browser.ok(&json!({"op": "text", "selector": "text=launches at dawn"}));
    session.exchanges.extend(session.walk.overhear());
    let (pages, exchanges) = (session.pages[pages..].to_vec(), session.exchanges[before..].to_vec());
    assert_eq!(Attempt { worked: true, pages, exchanges }.words(), INSPECTOR_PAGES.step_up);
    assert_eq!(session.registrations(), 1);
    session.walk.end();
}

/// A variable of an environment.
fn pair(variable: &str) -> (String, Value) {
    let (name, value) = variable.split_once('=').unwrap();
    (name.to_owned(), json!(value))
}

/// The configuration that `codex mcp add` wrote.
fn servers(session: &Session) -> String {
    format!("\n[mcp_servers.portcullis]\nurl = \"{}\"\n", session.walk.story.server.mcp_url)
}

/// opencode registers itself and refreshes. When a tool needs more scope it refreshes and gives up, until the
/// server requests the scope in the first challenge.
#[test]
#[ignore = "tests/run more-clients installs it"]
fn opencode_signs_in() {
    let program = installed("more/node_modules/opencode-linux-ARCHITECTURE/bin/opencode");
    let mut session = Session::begin(&[&program]);
    session.think("portcullis_docs_search", &json!({"query": "falcon dawn"}));
    let documented = session.documented("opencode");
    let configuration = ".config/opencode/opencode.json";
    session.write(configuration, documented.blocks("json")[0]);
    let quiet = json!({"OPENCODE_DISABLE_MODELS_FETCH": "1"});
    let run = |arguments: &[&str]| json!({"op": "run", "arguments": arguments, "env": quiet});
    let [log_in, log_out, again] = &documented.commands("opencode ")[..] else {
        panic!("{}", documented.text)
    };
    let said = session.run(&run(log_in));
    assert!(said.contains("Authentication successful"), "{said}");

    let converse = run(&["run", "When does it launch?"]);
    let said = session.run(&converse);
    assert!(said.contains("launches at **dawn**"), "{said}");
    session.expire();
    let said = session.run(&converse);
    assert!(said.contains("launches at **dawn**"), "{said}");
    session.compare(&OPENCODE);

    session.think("portcullis_docs_read", &json!({"path": "falcon.md"}));
    session.write(configuration, session.documented("opencode").blocks("json")[0]);
    let (outcome, said) = session.exceed(&converse);
    assert_eq!(outcome, OPENCODE.step_up, "{said}");
    session.ask_for_both_at_once();
    session.run(&run(log_out));
    session.run(&run(again));
    assert_eq!(asked_scopes(session.pages.last().unwrap()), ["docs.full", "docs.read"]);
    let said = session.run(&converse);
    assert!(said.contains("launches at dawn"), "{said}");
    session.walk.end();
}
