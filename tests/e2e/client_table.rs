//! The table in `docs/clients.md`. Each row describes a client; the client's own test compares it with the
//! observed traffic.

use std::fs;
use std::path::Path;

use serde_json::Value;
use url::{Url, form_urlencoded};

use crate::process::clients;

const PAGE: &str = "docs/clients.md";
const BEGIN: &str = "<!-- made by tests/e2e/client_table.rs: PORTCULLIS_BLESS=1 tests/run client_table -->\n";
const END: &str = "<!-- end -->\n";

pub struct Row {
    pub client: &'static str,
    /// The version of the tested package, from its lock file.
    pub version: fn() -> String,
    /// The version and the date, if the test does not run with every change (`more_clients.rs`).
    pub tested: Option<(&'static str, &'static str)>,
    pub registers_by: &'static str,
    /// Its port differs each time and is written `PORT`.
    pub redirect_uri: &'static str,
    pub protocol_version: &'static str,
    /// The `scope` of its authorization request.
    pub scopes: &'static str,
    /// When it uses its refresh token.
    pub refreshes: &'static str,
    /// How it gets more scope; compared by `step_up.rs`.
    pub step_up: &'static str,
    pub result: &'static str,
}

const ROWS: [&Row; 13] = [
    &CLAUDE_CODE,
    &CODEX,
    &COPILOT,
    &GEMINI,
    &OPENCODE,
    &INSPECTOR,
    &INSPECTOR_PAGES,
    &MCP_REMOTE,
    &OPEN_WEBUI,
    &PYTHON_MCP,
    &FASTMCP,
    &TYPESCRIPT_1,
    &TYPESCRIPT_2,
];

pub const CODEX: Row = Row {
    client: "Codex CLI",
    version: || more_npm("@openai/codex"),
    tested: Some(("0.171.0", "2026-11-29")),
    registers_by: "metadata document https://chatgpt.com/oauth/codex/client.json",
    redirect_uri: "http://127.0.0.1:PORT/callback",
    protocol_version: "2025-06-18",
    scopes: "docs.read offline_access",
    refreshes: "after a 401",
    step_up: "never: it reports the refusal",
    result: "works",
};

pub const COPILOT: Row = Row {
    client: "GitHub Copilot CLI",
    version: || more_npm("@github/copilot"),
    tested: Some(("1.0.102", "2026-11-29")),
    registers_by: "metadata document https://github.com/copilot/cli/client-metadata.json",
    redirect_uri: "http://127.0.0.1:PORT/callback",
    protocol_version: "2026-07-28",
    scopes: "docs.read offline_access",
    refreshes: "when it is time",
    step_up: "after a 403",
    result: "works; signing in needs a terminal",
};

pub const GEMINI: Row = Row {
    client: "Gemini CLI",
    version: || more_npm("@google/gemini-cli"),
    tested: Some(("0.61.0", "2026-11-29")),
    registers_by: "registration",
    redirect_uri: "http://localhost:PORT/oauth/callback",
    protocol_version: "2025-06-18",
    scopes: "docs.full docs.read offline_access",
    refreshes: "when it is time",
    step_up: "never: it reports the refusal",
    result: "works; it asks for every scope there is",
};

pub const OPENCODE: Row = Row {
    client: "opencode",
    version: || more_npm("opencode-linux-x64"),
    tested: Some(("1.18.33", "2026-11-29")),
    registers_by: "registration",
    redirect_uri: "http://127.0.0.1:19876/mcp/oauth/callback",
    protocol_version: "2025-11-25",
    scopes: "docs.read offline_access",
    refreshes: "after a 401",
    step_up: "never: it refreshes and gives up",
    result: "works; two cannot sign in at a time",
};

pub const CLAUDE_CODE: Row = Row {
    client: "Claude Code",
    version: || npm("@anthropic-ai/claude-code"),
    tested: None,
    registers_by: "metadata document https://claude.ai/oauth/claude-code-client-metadata",
    redirect_uri: "http://localhost:PORT/callback",
    protocol_version: "2026-07-28",
    scopes: "docs.read offline_access",
    refreshes: "after a 401",
    step_up: "when its user signs in again, as it tells them to",
    result: "works; signing in needs a terminal",
};

pub const INSPECTOR: Row = Row {
    client: "MCP Inspector, command line",
    version: || npm("@modelcontextprotocol/inspector"),
    tested: None,
    registers_by: "registration",
    redirect_uri: "http://127.0.0.1:PORT/oauth/callback",
    protocol_version: "2025-11-25",
    scopes: "docs.read offline_access",
    refreshes: "after a 401",
    step_up: "never: it refreshes and gives up",
    result: "works; `--protocol-era modern` speaks 2026-07-28",
};

pub const INSPECTOR_PAGES: Row = Row {
    client: "MCP Inspector, pages",
    version: || npm("@modelcontextprotocol/inspector"),
    tested: Some(("2.12.0", "2026-11-29")),
    registers_by: "registration",
    redirect_uri: "http://127.0.0.1:PORT/oauth/callback",
    protocol_version: "2025-11-25",
    scopes: "docs.read offline_access",
    refreshes: "after a 401",
    step_up: "after a 403",
    result: "works; it asks before it steps up",
};

pub const MCP_REMOTE: Row = Row {
    client: "mcp-remote",
    version: || npm("mcp-remote"),
    tested: None,
    registers_by: "registration",
    redirect_uri: "http://localhost:PORT/oauth/callback",
    protocol_version: "2025-11-25",
    scopes: "docs.read offline_access",
    refreshes: "after a 401",
    step_up: "after a 403",
    result: "works; `--protocol auto` speaks 2026-07-28",
};

pub const OPEN_WEBUI: Row = Row {
    client: "Open WebUI",
    version: || pinned("open-webui", "open-webui"),
    tested: Some(("0.12.4", "2026-11-29")),
    registers_by: "registration",
    redirect_uri: "http://localhost:PORT/oauth/clients/mcp:portcullis/callback",
    protocol_version: "2026-07-28",
    scopes: "docs.read",
    refreshes: "when it is time",
    step_up: "never: it reports the refusal",
    result: "works; an administrator registers it for all of its users",
};

pub const PYTHON_MCP: Row = Row {
    client: "Python SDK (mcp)",
    version: || pip("mcp"),
    tested: None,
    registers_by: "registration",
    redirect_uri: "http://localhost:PORT/callback",
    protocol_version: "2026-07-28",
    scopes: "docs.read offline_access",
    refreshes: "when it is time",
    step_up: "after a 403",
    result: "works; a 401 sends its user to the browser",
};

pub const FASTMCP: Row = Row {
    client: "fastmcp",
    version: || pip("fastmcp"),
    tested: None,
    registers_by: "registration",
    redirect_uri: "http://localhost:PORT/callback",
    protocol_version: "2026-07-28",
    scopes: "docs.read offline_access",
    refreshes: "when it is time",
    step_up: "after a 403",
    result: "works; a 401 sends its user to the browser",
};

pub const TYPESCRIPT_1: Row = Row {
    client: "TypeScript SDK 1",
    version: || npm("@modelcontextprotocol/sdk"),
    tested: None,
    registers_by: "registration",
    redirect_uri: "http://localhost:PORT/callback",
    protocol_version: "2025-11-25",
    scopes: "docs.read",
    refreshes: "after a 401",
    step_up: "never: it refreshes and gives up",
    result: "works",
};

pub const TYPESCRIPT_2: Row = Row {
    client: "TypeScript SDK 2",
    version: || npm("@modelcontextprotocol/client"),
    tested: None,
    registers_by: "registration",
    redirect_uri: "http://localhost:PORT/callback",
    protocol_version: "2025-11-25",
    scopes: "docs.read offline_access",
    refreshes: "after a 401",
    step_up: "after a 403",
    result: "works; told to negotiate, it speaks 2026-07-28",
};

impl Row {
    /// Compares the row with the traffic of a sign-in and later requests. `page` is the URL that it opened in
    /// the browser.
    pub fn compare(&self, page: &str, exchanges: &[Value]) {
        let page = Url::parse(page).unwrap();
        let fixed_port = Url::parse(self.redirect_uri).ok().and_then(|uri| uri.port());
        let seen = [
            registers_by(&page, exchanges),
            redirect_uri(&page, fixed_port),
            protocol_version(exchanges),
            parameter(&page, "scope"),
            refreshes(exchanges).to_owned(),
        ];
        let said = [self.registers_by, self.redirect_uri, self.protocol_version, self.scopes, self.refreshes];
        let line = |e: &Value| format!("{} {} {}\n", e["method"], e["url"], e["status"]);
        assert_eq!(seen, said, "{}:\n{}", self.client, exchanges.iter().map(line).collect::<String>());
    }

    fn cells(&self) -> [String; 10] {
        let code = |text: &str| format!("`{text}`");
        [
            self.client.to_owned(),
            (self.version)(),
            self.tested.map_or("with every change", |(_, day)| day).to_owned(),
            self.registers_by.to_owned(),
            code(self.redirect_uri),
            self.protocol_version.to_owned(),
            code(self.scopes),
            self.refreshes.to_owned(),
            self.step_up.to_owned(),
            self.result.to_owned(),
        ]
    }
}

fn parameter(url: &Url, name: &str) -> String {
    let found = url.query_pairs().find(|(given, _)| given == name);
    found.map_or_else(String::new, |(_, value)| value.into_owned())
}

fn registers_by(page: &Url, exchanges: &[Value]) -> String {
    if exchanges.iter().any(|exchange| to(exchange, "/register") && exchange["status"] == 201) {
        return "registration".to_owned();
    }
    let client_id = parameter(page, "client_id");
    if client_id.starts_with("https://") { format!("metadata document {client_id}") } else { client_id }
}

/// Replaces the port by `PORT`, unless it is fixed.
fn redirect_uri(page: &Url, fixed: Option<u16>) -> String {
    let uri = parameter(page, "redirect_uri");
    let port = Url::parse(&uri).unwrap().port().filter(|port| Some(*port) != fixed);
    port.map_or(uri.clone(), |port| uri.replace(&format!(":{port}/"), ":PORT/"))
}

/// The protocol version of the last answered request.
fn protocol_version(exchanges: &[Value]) -> String {
    let answered =
        exchanges.iter().rev().filter(|exchange| to(exchange, "/mcp") && exchange["status"] == 200);
    let mut versions = answered.filter_map(|exchange| exchange["headers"]["mcp-protocol-version"].as_str());
    versions.next().map_or_else(|| initialized_with(exchanges), str::to_owned)
}

/// The protocol version of `initialize`, for clients that omit the header later.
fn initialized_with(exchanges: &[Value]) -> String {
    let bodies = exchanges.iter().filter(|exchange| to(exchange, "/mcp")).filter_map(|e| e["body"].as_str());
    let messages = bodies.filter_map(|body| serde_json::from_str::<Value>(body).ok());
    let mut asked = messages.filter_map(|m| m["params"]["protocolVersion"].as_str().map(str::to_owned));
    asked.next().unwrap_or_default()
}

fn refreshes(exchanges: &[Value]) -> &'static str {
    let refresh = ("grant_type".to_owned(), "refresh_token".to_owned());
    let refreshed =
        |exchange: &Value| exchange["status"] == 200 && form(exchange).is_some_and(|f| f.contains(&refresh));
    let Some(first) = exchanges.iter().position(refreshed) else { return "never" };
    // Some clients first ask without a token although they have one. A client that signed in again has a new
    // one.
    let with_token =
        |exchange: &Value| to(exchange, "/mcp") && exchange["headers"]["authorization"].is_string();
    let signed_in = |exchange: &Value| exchange["status"] == 200 && form(exchange).is_some();
    let before = exchanges[..first].iter().rev().find(|exchange| with_token(exchange) || signed_in(exchange));
    if before.is_some_and(|exchange| exchange["status"] == 401) { "after a 401" } else { "when it is time" }
}

/// Whether a request went to this path.
pub fn to(exchange: &Value, path: &str) -> bool {
    Url::parse(exchange["url"].as_str().unwrap()).unwrap().path() == path
}

/// The form of a request to the token endpoint.
pub fn form(exchange: &Value) -> Option<Vec<(String, String)>> {
    let body = exchange["body"].as_str().filter(|_| to(exchange, "/token"))?;
    Some(form_urlencoded::parse(body.as_bytes()).into_owned().collect())
}

fn npm(package: &str) -> String {
    locked("package-lock.json", package)
}

fn more_npm(package: &str) -> String {
    locked("more/package-lock.json", package)
}

fn locked(file: &str, package: &str) -> String {
    let lock = fs::read_to_string(clients().join(file)).unwrap();
    let lock: Value = serde_json::from_str(&lock).unwrap();
    lock["packages"][format!("node_modules/{package}")]["version"].as_str().unwrap().to_owned()
}

fn pip(package: &str) -> String {
    pinned("python", package)
}

fn pinned(folder: &str, package: &str) -> String {
    let lock = fs::read_to_string(clients().join(folder).join("requirements.txt")).unwrap();
    let pinned = lock.lines().find_map(|line| line.strip_prefix(package)?.strip_prefix("=="));
    pinned.unwrap().trim_end_matches('\\').trim().to_owned()
}

fn table() -> String {
    let mut table = String::from(
        "| Client | Version | Tested | Known by | Redirect URI | MCP | Scopes asked | Refreshes | Step-up | Result |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in ROWS {
        table.extend(["| ", &row.cells().join(" | "), " |\n"]);
    }
    table
}

/// A row names the tested version: changing the version requires testing it and updating the date.
#[test]
fn client_table_has_the_versions_that_were_tested() {
    for row in ROWS {
        if let Some((version, _)) = row.tested {
            assert_eq!((row.version)(), version, "{}: tests/run more-clients", row.client);
        }
    }
}

/// CIMD-13: clients that were observed to send a document URL are in the built-in catalogue, with the redirect
/// URI that they send.
#[test]
fn the_catalogue_has_what_the_tested_clients_send() {
    const CATALOGUE: &str = include_str!("../../authz/src/clients/metadata_document/catalogue.json");
    let catalogue: Value = serde_json::from_str(CATALOGUE).unwrap();
    let documents: Vec<&Value> =
        catalogue.as_array().unwrap().iter().map(|entry| &entry["document"]).collect();
    let mut found = 0;
    for row in ROWS {
        let Some(client_id) = row.registers_by.strip_prefix("metadata document ") else { continue };
        let document = documents.iter().find(|document| document["client_id"] == client_id).expect(client_id);
        let sent = Value::from(row.redirect_uri.replace(":PORT", ""));
        assert!(document["redirect_uris"].as_array().unwrap().contains(&sent), "{}: {sent}", row.client);
        found += 1;
    }
    assert_eq!(found, 3);
}

/// The table in the documentation is made from these rows.
#[test]
fn client_table_is_the_documented_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page says where the table begins");
    let (_, after) = rest.split_once(END).expect("the page says where the table ends");
    let made = [before, BEGIN, &table(), END, after].concat();
    if std::env::var_os("PORTCULLIS_BLESS").is_some() {
        fs::write(&path, &made).unwrap();
    } else {
        assert_eq!(page, made, "{PAGE} is old: run it again with PORTCULLIS_BLESS=1");
    }
}
