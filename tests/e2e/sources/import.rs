//! `portcullis source import`: servers in clients' files become `[sources]`, and their secrets go into the
//! sealed store (SRC-14). The files have the formats of the clients' documentation.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};

use super::hostile::HostileServer;
use crate::harness::TestApp;
use crate::process::{complaint, program_on};

const CLAUDE_CODE: &str = r#"{
  "mcpServers": {
    "Jira Cloud": {
      "type": "http", "url": "URL/mcp",
      "headers": { "Authorization": "Bearer canary-jira", "X-Team": "canary-team" }
    },
    "from-environment": {
      "type": "http", "url": "URL/mcp", "headers": { "Authorization": "Bearer ${JIRA_TOKEN}", "X-Key": "${OTHER_KEY:-canary-default}" }
    },
    "filesystem": { "command": "npx", "args": ["-y", "server-filesystem", "/srv"], "env": { "TOKEN": "canary-env", "EMPTY": "", "OTHER": "${OTHER}" } },
    "secret-argument": { "command": "/opt/db", "args": ["--api-key", "canary-argument"] },
    "secret-address": { "command": "/opt/db", "args": ["postgres://me:canary-password@db/x"] },
    "variable": { "command": "/opt/db", "args": ["${HOME}/x"] },
    "relative": { "command": "./server" },
    "old": { "type": "sse", "url": "https://old.example/sse" },
    "helped": { "type": "http", "url": "https://x.example/mcp", "headersHelper": "/opt/get-headers" }
  }
}"#;

const VS_CODE: &str = r#"{
  // A value that VS Code asks for once.
  "inputs": [
    { "type": "promptString", "id": "github-token", "description": "GitHub token", "password": true },
  ],
  "servers": {
    "github": { "type": "http", "url": "URL/mcp", "headers": { "Authorization": "Bearer ${input:github-token}" } },
    "mixed": { "type": "http", "url": "URL/mcp", "headers": { "Authorization": "Basic ${input:github-token}x" } },
    "memory": { "type": "stdio", "command": "npx", "args": ["server-memory"], "envFile": "${workspaceFolder}/.env" }, /* last */
  },
}"#;

const CURSOR: &str = r#"{
  "mcpServers": {
    "wiki": { "url": "URL/mcp", "headers": { "Authorization": "Basic canary-wiki" } },
    "docs": { "url": "URL/mcp" },
    "bearer": { "url": "URL/mcp", "headers": { "Authorization": "Bearer ${env:WIKI_TOKEN}" } },
    "inUrl": { "url": "URL/mcp?api_key=canary-url" },
    "variable": { "url": "https://${env:HOST}/mcp" },
    "plain": { "url": "http://wiki.lab.internal/mcp", "headers": { "Authorization": "Bearer canary-plain" } },
    "password": { "url": "https://me:canary-password@wiki.example/mcp" },
    "off": { "url": "URL/mcp", "disabled": true }
  }
}"#;

const CODEX: &str = r#"
model = "gpt-5"
[mcp_servers.figma]
url = "URL/mcp"
bearer_token_env_var = "FIGMA_TOKEN"
http_headers = { "X-Figma-Region" = "canary-region" }
env_http_headers = { "X-Trace" = "TRACE_KEY" }
startup_timeout_sec = 20
[mcp_servers.local]
command = "npx"
args = ["-y", "server"]
cwd = "/srv"
env_vars = ["LANG"]
[mcp_servers.local.env]
API_KEY = "canary-codex"
[mcp_servers.unused]
url = "URL/mcp"
enabled = false
"#;

struct Import {
    app: TestApp,
    dir: tempfile::TempDir,
    server: HostileServer,
}

impl Import {
    async fn start() -> Self {
        let app = TestApp::start_configured("# ours\n[rate]\nmcp = \"off\"").await;
        app.admin().await;
        Self { app, dir: tempfile::tempdir().unwrap(), server: HostileServer::start().await }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        let base = self.server.url.trim_end_matches("/mcp");
        std::fs::write(&path, text.replace("URL", base)).unwrap();
        path
    }

    fn config(&self) -> PathBuf {
        self.app.data_dir().with_file_name("portcullis.toml")
    }

    fn run(&self, file: &PathBuf, more: &[&str]) -> Output {
        let mut command = program_on(&self.app.data_dir());
        command.arg("--config").arg(self.config()).args(["source", "import"]).arg(file).args(more);
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), complaint(&output));
        assert!(!said.contains("canary"), "{said}");
        output
    }

    fn json(&self, file: &PathBuf, more: &[&str]) -> Value {
        let output = self.run(file, &[more, &["--json"]].concat());
        assert!(output.status.success(), "{}", complaint(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn secrets(&self) -> Vec<String> {
        let listed = self.app.console(&["secret", "list"]);
        let names = listed["secrets"].as_array().unwrap().iter();
        names.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    }
}

fn left_out(imported: &Value) -> Vec<(&str, &str)> {
    let all = imported["left_out"].as_array().unwrap().iter();
    all.map(|one| (one["name"].as_str().unwrap(), one["why"].as_str().unwrap())).collect()
}

/// SRC-14: each client's file becomes sources; servers that are left out are named with the reason; a dry run
/// stores nothing.
#[tokio::test(flavor = "multi_thread")]
async fn each_client_s_file_is_understood() {
    let import = Import::start().await;
    let url = &import.server.url;
    let file = import.file("claude.json", CLAUDE_CODE);
    let trial = import.json(&file, &["--dry-run"]);
    assert_eq!(
        trial["toml"],
        json!(
            format!(
                "[sources.jira-cloud]\nkind = \"mcp-http\"\nurl = \"{url}\"\nbearer = \"secret:jira-cloud\"\nheaders = {{ \"X-Team\" = \"secret:jira-cloud.x-team\" }}\n"
            ) + &format!(
                "\n[sources.from-environment]\nkind = \"mcp-http\"\nurl = \"{url}\"\nbearer = \"env:JIRA_TOKEN\"\nheaders = {{ \"X-Key\" = \"secret:from-environment.x-key\" }}\n"
            ) + "\n[sources.filesystem]\nkind = \"mcp-stdio\"\ncommand = \"npx\"\nargs = [\"-y\", \"server-filesystem\", \"/srv\"]\nenv = { \"EMPTY\" = \"\" }\nsecrets = { \"TOKEN\" = \"secret:filesystem.token\", \"OTHER\" = \"env:OTHER\" }\n"
        )
    );
    assert_eq!(trial["secrets"], json!(["jira-cloud", "jira-cloud.x-team", "filesystem.token"]));
    assert_eq!(trial["to_set"], json!(["from-environment.x-key"]));
    let reasons = left_out(&trial);
    for (name, why) in [
        ("secret-argument", "its arguments hold a secret (`--api-key`)"),
        ("secret-address", "an address with a password"),
        ("variable", "an argument has a variable in it"),
        ("relative", "write an absolute path"),
        ("old", "older HTTP+SSE transport"),
        ("helped", "headersHelper"),
    ] {
        assert!(reasons.iter().any(|(n, w)| *n == name && w.contains(why)), "{name}: {reasons:?}");
    }
    assert!(import.secrets().is_empty(), "a trial keeps nothing");

    let vs_code = import.json(&import.file("mcp.json", VS_CODE), &["--dry-run"]);
    let toml = vs_code["toml"].as_str().unwrap();
    assert!(toml.contains("[sources.github]") && toml.contains("bearer = \"secret:github\""), "{toml}");
    assert!(toml.contains("[sources.mixed]") && toml.contains("authorization = \"secret:mixed\""), "{toml}");
    assert_eq!((&vs_code["secrets"], &vs_code["to_set"]), (&json!([]), &json!(["github", "mixed"])));
    assert!(left_out(&vs_code)[0].1.contains("envFile"), "{vs_code}");
    assert_eq!(left_out(&vs_code).len(), 1);

    let cursor = import.json(&import.file("cursor.json", CURSOR), &["--dry-run"]);
    let mut sources: Vec<_> =
        cursor["sources"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    sources.sort_unstable();
    assert_eq!(sources, ["bearer", "docs-2", "wiki"]);
    assert!(cursor["toml"].as_str().unwrap().contains("bearer = \"env:WIKI_TOKEN\""));
    assert!(cursor["toml"].as_str().unwrap().contains("authorization = \"secret:wiki\""));
    let reasons = left_out(&cursor);
    for (name, why) in [
        ("inUrl", "holds a secret (`api_key`)"),
        ("variable", "has a variable in it"),
        ("plain", "plain http"),
        ("password", "holds a password"),
        ("off", "switched off"),
    ] {
        assert!(reasons.iter().any(|(n, w)| *n == name && w.contains(why)), "{name}: {reasons:?}");
    }

    let codex = import.json(&import.file("config.toml", CODEX), &["--dry-run"]);
    assert_eq!(codex["sources"], json!(["figma", "local"]));
    let toml = codex["toml"].as_str().unwrap();
    assert!(toml.contains("bearer = \"env:FIGMA_TOKEN\""), "{toml}");
    assert!(toml.contains("\"X-Figma-Region\" = \"secret:figma.x-figma-region\""), "{toml}");
    assert!(toml.contains("\"X-Trace\" = \"env:TRACE_KEY\""), "{toml}");
    let local = "[sources.local]\nkind = \"mcp-stdio\"\ncommand = \"npx\"\nargs = [\"-y\", \"server\"]\ncwd = \"/srv\"\nsecrets = { \"API_KEY\" = \"secret:local.api_key\", \"LANG\" = \"env:LANG\" }\n";
    assert!(toml.contains(local), "{toml}");
    assert_eq!(codex["secrets"], json!(["figma.x-figma-region", "local.api_key"]));
    assert_eq!(left_out(&codex).len(), 1);
}

/// SRC-14, SRC-10: the tables are added in one step, the file keeps its content, and the source is reached with
/// the client's secret. A second import adds nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_imported_server_works() {
    let import = Import::start().await;
    let text = r#"{ "mcpServers": { "jira": { "type": "http", "url": "URL/mcp", "headers": { "Authorization": "Bearer canary-jira" } } } }"#;
    let file = import.file("mcp.json", text);
    std::fs::set_permissions(import.config(), std::fs::Permissions::from_mode(0o640)).unwrap();
    let before = std::fs::read_to_string(import.config()).unwrap();
    let output = import.run(&file, &["--write"]);
    assert!(output.status.success(), "{}", complaint(&output));
    let said = complaint(&output);
    assert!(said.contains("Kept in the sealed store: jira") && said.contains("Added to "), "{said}");
    let after = std::fs::read_to_string(import.config()).unwrap();
    assert!(
        after.starts_with(&format!("{before}\n\n[sources.jira]\n")) && !after.contains("canary"),
        "{after}"
    );
    let mode = std::fs::metadata(import.config()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    let beside: Vec<_> = std::fs::read_dir(import.config().parent().unwrap())
        .unwrap()
        .map(|one| one.unwrap().file_name())
        .collect();
    assert!(!beside.iter().any(|name| name.to_string_lossy().starts_with(".portcullis")), "{beside:?}");
    assert_eq!(import.app.console(&["reload"])["changed"], json!(["sources"]));
    assert_eq!(import.app.console(&["source", "test", "jira"])["tools"].as_array().unwrap().len(), 2);
    let arrived = import.server.arrived();
    assert!(arrived.iter().all(|(headers, _)| headers["authorization"] == "Bearer canary-jira"));

    let again = import.json(&file, &["--write"]);
    assert_eq!((&again["sources"], &again["written"]), (&json!([]), &Value::Null));
    assert!(left_out(&again)[0].1.contains("has [sources.jira] already"));
    // An existing secret with that name is not overwritten.
    std::fs::write(import.config(), &before).unwrap();
    let refused = import.run(&file, &["--write"]);
    assert!(complaint(&refused).contains("there is a secret `jira` already"), "{}", complaint(&refused));
    assert_eq!(std::fs::read_to_string(import.config()).unwrap(), before);
}

/// SRC-14: other files are refused in one line that does not repeat their content.
#[tokio::test(flavor = "multi_thread")]
async fn other_files_are_refused() {
    let import = Import::start().await;
    for (name, text, says) in [
        ("a.json", "{ \"mcpServers\": \"canary\" }", "has neither `mcpServers`"),
        ("b.json", "{ canary", "is not JSON (line 1"),
        ("c.json", "[]", "has neither `mcpServers`"),
        ("d.toml", "[servers.x]\nurl = \"canary\"", "has no [mcp_servers.NAME]"),
        ("e.toml", "x = canary", "syntax error at"),
        ("f.json", "{ \"mcpServers\": {} }", "names no MCP server"),
    ] {
        let output = import.run(&import.file(name, text), &["--write"]);
        assert!(
            !output.status.success() && complaint(&output).contains(says),
            "{name}: {}",
            complaint(&output)
        );
    }
    let missing = import.run(&import.dir.path().join("none.json"), &[]);
    assert!(complaint(&missing).contains("cannot read"), "{}", complaint(&missing));
    // An invalid configuration is not changed.
    let good = import
        .file("good.json", r#"{ "servers": { "a": { "url": "URL/mcp", "headers": { "X-K": "canary" } } } }"#);
    std::fs::write(import.config(), "sources = { b = { kind = \"mcp-http\", url = \"https://b/mcp\" } }\n")
        .unwrap();
    let output = import.run(&good, &["--write"]);
    assert!(complaint(&output).contains("cannot be added to the configuration"), "{}", complaint(&output));
    assert!(import.secrets().is_empty(), "and no secret was kept for it");
}
