//! The story of `examples/team`: three third-party servers, an engineer and an intern.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::process::{Driver, Process, clients, node, portcullis, program};

/// The headers that the gate sends; an upstream must receive no other.
const HEADERS: [&str; 9] = [
    "accept",
    "content-length",
    "content-type",
    "host",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "user-agent",
];

/// One of the example's servers, in a separate process.
pub struct Upstream {
    child: Child,
    pub url: String,
    log: PathBuf,
}

impl Upstream {
    fn start(mut command: Command, log: PathBuf) -> Self {
        let errors = fs::File::create(&log).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("http://127.0.0.1:"), "{command:?}: {url}");
        Self { child, url: url.trim().to_owned(), log }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The number of requests with this method.
    pub fn asked(&self, method: &str) -> usize {
        self.requests().iter().filter(|request| request["method"] == method).count()
    }

    /// Its log of requests.
    fn requests(&self) -> Vec<Value> {
        let log = fs::read_to_string(&self.log).unwrap();
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The number of calls of this tool.
    fn calls(&self, tool: &str) -> usize {
        self.requests().iter().filter(|request| request["name"] == tool).count()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/team").join(name)
}

/// The issue tracker, with the packages of the tests' clients, on this port or any.
pub fn jira(dir: &Path, port: u16) -> Upstream {
    fs::create_dir(dir).unwrap();
    fs::copy(example("jira.ts"), dir.join("jira.ts")).unwrap();
    fs::copy(example("package.json"), dir.join("package.json")).unwrap();
    std::os::unix::fs::symlink(clients().join("node_modules"), dir.join("node_modules")).unwrap();
    let mut jira = node();
    jira.arg(dir.join("jira.ts")).arg(port.to_string());
    Upstream::start(jira, dir.join("jira.log"))
}

/// The three servers.
fn upstreams(dir: &Path) -> [Upstream; 3] {
    let mut database = Command::new(clients().join("python/.venv/bin/python"));
    database.arg(example("database.py"));
    let mut ci = Command::new("python3");
    ci.arg(example("ci.py"));
    let [database, ci] = [("database", database), ("ci", ci)]
        .map(|(name, command)| Upstream::start(command, dir.join(format!("{name}.log"))));
    [jira(&dir.join("jira"), 0), database, ci]
}

/// The example's configuration with the servers' addresses.
fn configuration(upstreams: &[Upstream; 3]) -> String {
    let mut toml = fs::read_to_string(example("portcullis.toml")).unwrap();
    for (port, upstream) in [9101, 9102, 9103].into_iter().zip(upstreams) {
        let documented = format!("http://127.0.0.1:{port}/mcp");
        assert!(toml.contains(&documented));
        toml = toml.replace(&documented, &upstream.url);
    }
    toml
}

fn records(data: &Path) -> Vec<Value> {
    let tail = portcullis(&["audit", "tail", "-n", "10000", "--json", "--data-dir", data.to_str().unwrap()]);
    let lines = String::from_utf8(tail.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A user with a browser and a client.
struct Member {
    browser: Driver,
    client: Driver,
    _dir: tempfile::TempDir,
}

impl Member {
    fn join(name: &str, link: &Value, mcp_url: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut browser = Driver::browser(dir.path());
        browser.ok(&json!({"op": "setup", "url": link, "name": name}));
        let mut client = Driver::typescript(mcp_url, "legacy", dir.path());
        assert_eq!(client.connect(&mut browser, "approve")["ok"], true);
        Self { browser, client, _dir: dir }
    }

    fn call(&mut self, tool: &str, arguments: &Value) -> Value {
        self.client.attempt(&json!({"op": "call", "name": tool, "arguments": arguments}))
    }
}

/// MCP-08, MCP-09, RS-11, SRC-01, SRC-03, LIMIT-01: an intern and an engineer use three servers through one URL. The
/// intern's client does not list the tool that starts pipelines, and learns nothing by calling it; the
/// engineer's is told which scopes it needs, requests them in the browser, and calls all three. The servers
/// receive no token, cookie or address of a user.
#[test]
fn an_intern_and_an_engineer_share_three_servers() {
    let dir = tempfile::tempdir().unwrap();
    let upstreams = upstreams(dir.path());
    let (data, config) = (dir.path().join("data"), dir.path().join("portcullis.toml"));
    fs::write(&config, configuration(&upstreams)).unwrap();
    let mut command = program();
    command.args(["serve", "--json", "--listen", "localhost:0", "--config"]).arg(&config);
    command.arg("--data-dir").arg(&data);
    let server = Process::spawn(command);
    let console = |arguments: &[&str]| -> Value {
        let place = ["--json", "--config", config.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
        let output = portcullis(&[arguments, &place].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let [jira, database, ci] = &upstreams;
    let pipeline = json!({"pipeline": "nightly"});

    let added = console(&["user", "add", "ines"]);
    let mut ines = Member::join("ines", &added["link"], &server.mcp_url);
    let names = ines.client.ok(&json!({"op": "list"}))["names"].take();
    let reading = [
        "ci_list_pipelines",
        "database_cores",
        "database_machines",
        "docs_read",
        "docs_search",
        "jira_read_issue",
        "jira_search_issues",
        "whoami",
    ];
    assert_eq!(names, json!(reading));
    let [denied, unknown] = ["ci_trigger_pipeline", "ci_trigger_pipelime"]
        .map(|name| ines.call(name, &pipeline).to_string().replace(name, "NAME"));
    assert!(denied.contains("-32602") && denied == unknown, "{denied} {unknown}");
    let denials: Vec<Value> =
        records(&data).into_iter().filter(|record| record["event"] == "mcp.denied").collect();
    let decisions: Vec<_> =
        denials.iter().map(|record| record["detail"]["decision"].as_str().unwrap()).collect();
    assert_eq!(decisions, ["not_entitled", "unknown"]);
    let found = ines.call("jira_search_issues", &json!({"text": "backup"}));
    assert!(found.to_string().contains("OPS-1"), "{found}");

    let added = console(&["user", "add", "alice", "--group", "engineers"]);
    let mut alice = Member::join("alice", &added["link"], &server.mcp_url);
    let trigger = json!({"op": "call", "name": "ci_trigger_pipeline", "arguments": pipeline});
    alice.client.send(&trigger);
    let asked = alice.client.receive();
    assert_eq!(asked["event"], "authorize", "{asked}");
    assert_eq!(ci.calls("trigger_pipeline"), 0, "what was refused never arrived");
    alice.browser.ok(&json!({"op": "authorize", "url": asked["url"], "decision": "approve"}));
    let started = alice.client.receive();
    assert!(started.to_string().contains("Run 1 of nightly started."), "{started}");
    let exchanges = alice.client.ok(&json!({"op": "http"}))["exchanges"].take();
    let challenge = exchanges.as_array().unwrap().iter().find(|exchange| exchange["status"] == 403).unwrap();
    let challenge = challenge["www_authenticate"].as_str().unwrap();
    for scope in ["ci.read", "ci.trigger", "database.read", "docs.read", "jira.read"] {
        assert!(challenge.contains(scope), "{challenge}");
    }
    // Three an hour, and then a time to come back, which a model can read.
    for _ in 0..2 {
        assert!(alice.call("ci_trigger_pipeline", &pipeline).to_string().contains("started."));
    }
    let over = alice.call("ci_trigger_pipeline", &pipeline).to_string();
    let says = "Limit reached: 3 calls of the tool ci_trigger_pipeline in 1 hour for each user. Nothing was done. Try again at";
    assert!(over.contains(says) && !over.contains("-32"), "{over}");
    let cores = alice.call("database_cores", &json!({}));
    assert!(cores.to_string().contains("100"), "{cores}");
    let read = alice.call("jira_read_issue", &json!({"key": "OPS-2"}));
    assert!(read.to_string().contains("Replaced, ends in a year."), "{read}");
    assert_eq!((ci.calls("trigger_pipeline"), jira.calls("read_issue")), (3, 1));

    for upstream in [jira, database, ci] {
        let requests = upstream.requests();
        assert!(!requests.is_empty());
        for request in requests {
            let headers: Vec<&str> =
                request["headers"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            let foreign: Vec<_> = headers.into_iter().filter(|header| !HEADERS.contains(header)).collect();
            assert!(foreign.is_empty(), "{foreign:?} arrived at {}", upstream.url);
        }
    }
    // A tool that may change something is recorded before and after the call; one that only reads, once.
    let of = |tool: &str| -> Vec<String> {
        let all = records(&data);
        let about =
            all.iter().filter(|record| record["detail"]["name"] == tool && record["event"] != "mcp.denied");
        about.map(|record| record["event"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(of("ci_trigger_pipeline"), ["mcp.call", "mcp.result"].repeat(3));
    assert_eq!(of("jira_read_issue"), ["mcp.call"]);
    ines.client.close();
    alice.client.close();
}
