//! The MCP conformance suite (npm `@modelcontextprotocol/conformance`), run against the program.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::browser::Story;
use crate::process::{Driver, clients, node};

/// The suite's checks in one scenario.
struct Checks(Vec<Value>);

impl Checks {
    /// Reads the results of the only scenario in this folder whose name contains `name`.
    fn read(folder: &Path, name: &str) -> Self {
        let mut results = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let results = results.find(|path| path.to_str().unwrap().contains(name)).expect("results");
        Self(serde_json::from_slice(&fs::read(results.join("checks.json")).unwrap()).unwrap())
    }

    fn passed(&self) -> usize {
        self.0.iter().filter(|check| check["status"] == "SUCCESS").count()
    }

    /// The failed checks, with their messages.
    fn complaints(&self) -> Vec<(&str, &str)> {
        let bad = self.0.iter().filter(|check| check["status"] == "FAILURE" || check["status"] == "WARNING");
        bad.map(|check| (check["id"].as_str().unwrap(), check["errorMessage"].as_str().unwrap())).collect()
    }
}

fn suite(arguments: &[&str], results: &Path) -> Command {
    let folder = clients().join("conformance");
    let mut command = node();
    command
        .arg(folder.join("node_modules/@modelcontextprotocol/conformance/dist/index.js"))
        .args(arguments)
        .arg("--output-dir")
        .arg(results)
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

/// Runs the scenarios of a revision against the MCP endpoint as a signed-in client. Each has a minimum number
/// of passed checks, so that one that ends early is noticed.
fn serves(revision: &str, scenarios: &[(&str, usize)]) {
    let mut story = Story::begin();
    let mut client = story.client("legacy");
    let connected = client.connect(&mut story.browser, "approve");
    assert_eq!(connected["ok"], true, "{connected}");
    let tokens = client.ok(&json!({"op": "tokens"}));
    // The suite's server mode has no option for a token.
    let mut proxy = node();
    proxy.arg("bearer-proxy.mjs").arg(&story.server.mcp_url).current_dir(clients().join("conformance"));
    proxy.env("BEARER", tokens["access_token"].as_str().unwrap());
    let mut proxy = Driver::spawn(proxy);
    let proxied = proxy.receive();

    for (scenario, at_least) in scenarios {
        let results = story.dir.path().join(scenario);
        let url = proxied["url"].as_str().unwrap();
        let arguments = ["server", "--url", url, "--spec-version", revision, "--scenario", scenario];
        let baseline = ["--expected-failures", "expected-failures.yml"];
        let output = suite(&[&arguments[..], &baseline].concat(), &results).output().unwrap();
        assert!(output.status.success(), "{scenario}: {}", String::from_utf8_lossy(&output.stdout));
        let checks = Checks::read(&results, scenario);
        assert!(checks.passed() >= *at_least, "{scenario}: {:?}", checks.0);
        for (check, why) in checks.complaints() {
            let excused = why.starts_with("Not testable: server does not list the diagnostic tool 'test_");
            assert!(excused, "{check}: {why}");
        }
    }
}

/// MCP-01, MCP-10, MCP-12, MCP-14: the suite's scenarios for 2025-11-25.
#[test]
fn the_endpoint_conforms_to_2025_11_25() {
    serves(
        "2025-11-25",
        &[
            ("server-initialize", 3),
            ("server-session-lifecycle", 3),
            ("ping", 2),
            ("tools-list", 3),
            ("dns-rebinding-protection", 2),
        ],
    );
}

/// MCP-01, MCP-03, MCP-05, MCP-06, MCP-10, MCP-14: the suite's scenarios for 2026-07-28.
#[test]
fn the_endpoint_conforms_to_2026_07_28() {
    serves(
        "2026-07-28",
        &[
            ("tools-list", 4),
            ("dns-rebinding-protection", 2),
            ("caching", 8),
            ("http-header-validation", 14),
            ("server-stateless", 20),
            ("server-sse-multiple-streams", 1),
        ],
    );
}

/// META-05, AUTHZ-02, TOKEN-04: the suite's two scenarios. It requests no scope.
#[test]
fn the_authorization_server_conforms() {
    let mut story = Story::begin();
    let issuer = story.server.origin.clone();
    // The suite must be told its port.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let registered: Value = reqwest::blocking::Client::new()
        .post(format!("{issuer}/register"))
        .json(&json!({
            "client_name": "MCP conformance suite",
            "redirect_uris": [format!("http://127.0.0.1:{port}/callback")],
            "token_endpoint_auth_method": "none",
        }))
        .send()
        .unwrap()
        .json()
        .unwrap();
    let client_id = registered["client_id"].as_str().unwrap();

    for resource in [Some(story.server.mcp_url.clone()), None] {
        let results = story.dir.path().join(if resource.is_some() { "with" } else { "without" });
        let mut command = suite(&["authorization", "--url", &issuer, "--client-id", client_id], &results);
        command.args(["--port", &port.to_string()]).stdout(Stdio::piped());
        if let Some(resource) = resource {
            command.args(["--resource", &resource]);
        }
        let mut running = command.spawn().unwrap();
        // It prints the URL for the user and waits.
        let mut said = BufReader::new(running.stdout.take().unwrap());
        let mut line = String::new();
        while !line.starts_with(&format!("{issuer}/authorize?")) {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "the suite ended");
        }
        story.browser.ok(&json!({"op": "authorize", "url": line.trim_end(), "decision": "approve"}));
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        assert!(running.wait().unwrap().success(), "{rest}");
        for scenario in ["authorization-server-metadata-endpoint", "authorization-code-grant"] {
            let checks = Checks::read(&results, scenario);
            assert!(checks.passed() >= 1, "{scenario}: {:?}", checks.0);
            // A SHOULD, reported as a warning while clients cannot be known by a document.
            let excused = |(check, _): &(&str, &str)| *check == "authorization-server-metadata-cimd";
            assert!(checks.complaints().iter().all(excused), "{scenario}: {:?}", checks.0);
        }
    }
}
