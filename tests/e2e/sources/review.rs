//! `check`, `policy check` and `policy test` use the sources' stored lists (POL-05, POL-06).

use std::time::Duration;

use serde_json::{Value, json};

use super::hostile::{CallBehaviour, HostileServer};
use super::{configured, token, walked};
use crate::clients::refused;
use crate::harness::TestApp;
use crate::process::{complaint, portcullis, program_on};

/// What `check` reports for a file, with the data directory of this server.
fn checked(app: &TestApp, toml: &str) -> Value {
    let file = app.data_dir().with_file_name("other.toml");
    std::fs::write(&file, toml).unwrap();
    let mut command = program_on(&app.data_dir());
    command.args(["check", "--json", "--listen", "localhost:0", "--config"]).arg(&file);
    serde_json::from_slice(&command.output().unwrap().stdout).unwrap()
}

fn says(report: &Value, list: &str, words: &str) -> bool {
    report[list].as_array().unwrap().iter().any(|one| one.as_str().unwrap().contains(words))
}

const RULED: &str = "[tools.one_greet]\nscope = \"docs.read\"\n[tools.one_unruled]\nhidden = true\n";

/// POL-05: with a source's stored lists, `check` finds rules that match nothing, arguments that the schema
/// excludes, tools without a rule, and scopes that no group has, each with its place and what to write.
#[tokio::test(flavor = "multi_thread")]
async fn check_knows_what_a_server_listed() {
    let (hostile, never) = (HostileServer::start().await, HostileServer::start().await);
    let app =
        TestApp::start_configured(&configured("one", &hostile.url, "", &["one_greet".to_owned()])).await;
    walked(&app, "source.changed", 1).await;
    let source = |name: &str, url: &str, more: &str| {
        format!("[sources.{name}]\nkind = \"mcp-http\"\nurl = \"{url}\"\n{more}\n")
    };
    let one = source("one", &hostile.url, "");
    let good = checked(&app, &format!("{one}{RULED}"));
    assert_eq!((&good["ok"], &good["warnings"].as_array().unwrap().len()), (&json!(true), &1), "{good}");
    let tools: Vec<_> =
        good["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert!(tools.contains(&"one_greet") && tools.contains(&"one_unruled"), "{tools:?}");

    let report = checked(
        &app,
        &format!("{one}[tools.one_gret]\nscope = \"docs.read\"\n[tools.\"one_x*\"]\nscope = \"docs.read\"\n"),
    );
    assert!(says(&report, "warnings", "the rule [tools.one_gret] at"), "{report}");
    assert!(says(&report, "warnings", "the rule [tools.\"one_x*\"] at"), "{report}");
    assert!(
        says(
            &report,
            "warnings",
            "nobody may call the tool `one_greet`: no rule says what it needs; write [tools.one_greet]"
        ),
        "{report}"
    );

    let scopes = "[scopes.\"one.run\"]\ntitle = \"Run\"\n[tools.one_greet]\nscope = \"one.run\"\n[tools.one_unruled]\nhidden = true\n";
    let report = checked(&app, &format!("{one}{scopes}"));
    assert!(
        says(
            &report,
            "warnings",
            "nobody may call the tool `one_greet`: no group has the scopes it needs; add one.run to one of [groups]"
        ),
        "{report}"
    );

    // Its schema is open, so this is a warning.
    let arguments = format!("{one}{RULED}[tools.one_greet.args]\n\"/branch\" = {{ match = \"x\" }}\n");
    let report = checked(&app, &arguments);
    assert!(
        says(&report, "warnings", "names the argument /branch, which the tool `one_greet` does not declare"),
        "{report}"
    );
    // Closed, it is an error, for `check` and for `reload`.
    hostile.will(CallBehaviour::Close);
    app.console(&["source", "test", "one"]);
    let report = checked(&app, &arguments);
    assert_eq!(report["ok"], false);
    assert!(says(&report, "problems", "and the tool `one_greet` has no such argument"), "{report}");
    std::fs::write(app.data_dir().with_file_name("portcullis.toml"), &arguments).unwrap();
    assert!(refused(&app, &["reload"]).contains("and the tool `one_greet` has no such argument"));

    // If two sources offer the same name, the earlier one keeps it.
    let twice = format!(
        "{}{}",
        source("one", &hostile.url, "names = \"bare\""),
        source("two", &never.url, "names = \"bare\"")
    );
    std::fs::write(app.data_dir().with_file_name("portcullis.toml"), &twice).unwrap();
    app.console(&["reload"]);
    app.console(&["source", "test", "one"]);
    app.console(&["source", "test", "two"]);
    let report = checked(&app, &twice);
    assert!(
        says(
            &report,
            "warnings",
            "the tool `greet` of the source `two` is left out: the source `one` has a tool of that name"
        ),
        "{report}"
    );

    // A source that was never reached has no lists, and the report says so.
    let elsewhere = source("late", "https://late.lab.internal/mcp", "bearer = \"secret:late\"");
    let report = checked(
        &app,
        &format!(
            "{elsewhere}[tools.\"late_*\"]\nscope = \"docs.read\"\n[tools.late_get]\nscope = \"docs.read\"\n"
        ),
    );
    assert!(says(&report, "warnings", "the server `late` has never listed its tools here"), "{report}");
    assert!(!says(&report, "warnings", "matches no tool"), "{report}");
    assert!(
        says(
            &report,
            "warnings",
            "uses the secret `late`, which is not set; run: portcullis secret set late"
        ),
        "{report}"
    );
}

/// POL-06, POL-03: `policy check` decides at a profile as the gate does.
#[tokio::test(flavor = "multi_thread")]
async fn policy_check_asks_at_a_profile() {
    let hostile = HostileServer::start().await;
    let toml = configured("one", &hostile.url, "", &["one_greet".to_owned()]);
    let app = TestApp::start_configured(&format!(
        "{toml}[profiles.one]\nitems = \"one_*\"\n[profiles.docs]\nitems = \"docs_*\"\n"
    ))
    .await;
    app.admin().await;
    walked(&app, "source.changed", 1).await;
    let check = |tool: &str, profile: &str| -> Value {
        let data = app.data_dir();
        let output = portcullis(&[
            "policy",
            "check",
            "--user",
            "ada",
            "--tool",
            tool,
            "--profile",
            profile,
            "--json",
            "--data-dir",
            data.to_str().unwrap(),
        ]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| json!(complaint(&output)))
    };
    for (tool, profile, decision) in [
        ("one_greet", "one", "allow"),
        ("whoami", "one", "allow"),
        ("docs_read", "one", "unknown"),
        ("docs_read", "docs", "allow"),
        ("one_greet", "docs", "unknown"),
    ] {
        let answer = check(tool, profile);
        assert_eq!((&answer["decision"], &answer["profile"]), (&json!(decision), &json!(profile)), "{tool}");
    }
    let there =
        "no tool `docs_read` at the profile `one`; the tools there are one_greet, one_unruled, whoami";
    assert_eq!(check("docs_read", "one")["rule"], json!(there));
    let none = check("whoami", "none");
    assert!(none.as_str().unwrap().contains("there is no profile `none`; the profiles: docs, one"), "{none}");
}

/// POL-06: `policy test` decides recorded calls by the source's stored lists.
#[tokio::test(flavor = "multi_thread")]
async fn policy_test_knows_what_a_server_listed() {
    let hostile = HostileServer::start().await;
    let toml = configured("one", &hostile.url, "", &["one_greet".to_owned()]);
    let app = TestApp::start_configured(&toml).await;
    let token = token(&app).await;
    walked(&app, "source.changed", 1).await;
    app.call_tool(&token, "one_greet", json!({})).await;
    app.clock.advance(Duration::from_secs(1));
    let other = app.data_dir().with_file_name("other.toml");
    let config = app.data_dir().with_file_name("portcullis.toml");
    let test = |text: &str| -> Value {
        std::fs::write(&other, text).unwrap();
        let mut command = program_on(&app.data_dir());
        command.arg("--config").arg(&config).args(["policy", "test", "--json"]).arg(&other);
        let output = command.output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", complaint(&output)))
    };
    let same = test(&toml);
    assert_eq!((&same["calls"], &same["changed"]), (&json!(1), &json!([])));
    let hidden = test(&toml.replace("scope = \"docs.read\"", "hidden = true"));
    let change = &hidden["changed"][0];
    assert_eq!(
        (&change["name"], &change["before"], &change["after"]),
        (&json!("one_greet"), &json!("allow"), &json!("hidden"))
    );
    let gone = test("");
    assert_eq!(gone["changed"][0]["after"], json!("unknown"));
}
