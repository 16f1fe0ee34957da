//! `portcullis.toml`: where it is found, which setting takes precedence, and what `check` says about it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::process::{Bare, Process, complaint, program};

const RULES: &str = r#"
    listen = "localhost:8123"
    data_dir = "data"
    docs = "handbook"

    [groups]
    archivists = ["docs.archive"]

    [scopes."docs.archive"]
    title = "Read what is kept for the record"
    risk = "high"

    [tools.docs_read]
    scope = ["docs.read", "docs.archive"]
"#;

/// A folder with a configuration and the documents that it names.
fn folder(configuration: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("handbook")).unwrap();
    fs::write(dir.path().join("portcullis.toml"), configuration).unwrap();
    dir
}

fn command(dir: &Path, arguments: &[&str]) -> Command {
    // As root the default is the machine's own data directory, so name another one.
    let mut command = program();
    command.args(arguments).current_dir(dir).bare().env("HOME", dir).stdin(Stdio::null());
    command
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    command(dir, arguments).output().unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The error line.
fn line(output: &Output) -> String {
    let said = complaint(output);
    let line = said.lines().find_map(|line| line.strip_prefix("portcullis: "));
    assert!(!output.status.success() && line.is_some(), "{said}");
    line.unwrap().to_owned()
}

#[test]
fn check_explains_what_is_built_in() {
    let dir = tempfile::tempdir().unwrap();
    let report = report(&run(dir.path(), &["check", "--json", "--data-dir", "data"]));
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!((&report["config"], &report["docs"]), (&Value::Null, &Value::Null));
    assert_eq!(report["issuer"], "http://localhost:8080");
    assert_eq!(report["groups"], json!({ "everyone": ["docs.read"] }));
    assert_eq!(
        report["scopes"],
        json!([{ "name": "docs.read", "title": "Search and read the documentation", "risk": "low", "default": true }])
    );
    assert_eq!(
        report["tools"],
        json!([
            { "name": "docs_read", "scopes": ["docs.read"], "groups": ["everyone"] },
            { "name": "docs_search", "scopes": ["docs.read"], "groups": ["everyone"] },
            { "name": "whoami", "scopes": null, "groups": ["everyone"] },
        ])
    );
    assert_eq!(report["memory"], json!({ "all": 256 << 20, "one_address": 64 << 20 }));
    assert_eq!(report["access_token_lifetime"], 900);
    // It only reads and leaves nothing behind.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn check_explains_who_reaches_which_tool() {
    let dir = folder(RULES);
    let output = run(dir.path(), &["check"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    for part in [
        "Configuration  portcullis.toml\n",
        "Issuer         http://localhost:8123\n",
        "Documents      handbook\n",
        "Memory         256 MiB for connections, 64 MiB for those of one address\n",
        "Access tokens  live 900 seconds\n",
        "  archivists  docs.archive\n  everyone    docs.read\n",
        "  docs.archive  high risk                       Read what is kept for the record\n",
        "  docs.read     low risk, asked for by default  Search and read the documentation\n",
        "  docs_read    needs docs.archive docs.read  for archivists\n",
        "  docs_search  needs docs.read               for everyone\n",
        "  whoami       needs a valid token           for everyone\n",
        "No problems.\n",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

/// Precedence: command line, environment, file, default.
#[test]
fn the_more_specific_setting_takes_precedence() {
    let dir = folder("issuer = \"https://file.example\"\nlisten = \"localhost:1\"");
    let other = dir.path().join("other.toml");
    fs::write(&other, "issuer = \"https://other.example\"").unwrap();
    let issuer = |output: Output| report(&output)["issuer"].clone();
    let check = ["check", "--json"];
    assert_eq!(issuer(run(dir.path(), &check)), "https://file.example");
    let mut environment = command(dir.path(), &check);
    environment.env("PORTCULLIS_CONFIG", &other);
    assert_eq!(issuer(environment.output().unwrap()), "https://other.example");
    environment.env("PORTCULLIS_ISSUER", "https://env.example");
    assert_eq!(issuer(environment.output().unwrap()), "https://env.example");
    environment.args(["--issuer", "https://line.example"]);
    assert_eq!(issuer(environment.output().unwrap()), "https://line.example");
    let named = ["--config", "other.toml", "check", "--json"];
    let report = report(&run(dir.path(), &named));
    assert_eq!((&report["config"], &report["listen"]), (&json!("other.toml"), &json!("localhost:8080")));
}

/// OPS-03: `check` and `serve` give the same one-line error and stop.
#[test]
fn check_reports_the_same_mistakes_as_serve() {
    let dir = tempfile::tempdir().unwrap();
    let wide = dir.path().join("wide");
    fs::create_dir(&wide).unwrap();
    fs::set_permissions(&wide, fs::Permissions::from_mode(0o755)).unwrap();
    for (configuration, says) in [
        ("isuer = \"https://a.example\"", "unknown key `isuer` at portcullis.toml:1; did you mean `issuer`?"),
        ("issuer = \"http://a.example\"", "portcullis.toml:1: issuer `http://a.example` is http"),
        ("issuer = \"http://localhost:1\"\nlisten = \"localhost:0\"", "has a different port"),
        ("listen = \"0.0.0.0:0\"", "TLS is not configured"),
        ("data_dir = \"wide\"\nlisten = \"0\"", "wide can be read by others (mode 755); run: chmod 700 wide"),
        (
            "data_dir = \"portcullis.toml/x\"\nlisten = \"0\"",
            "cannot use the data directory portcullis.toml/x",
        ),
        ("data_dir = \"data\"\ndocs = \"none\"\nlisten = \"0\"", "--docs none: the folder does not exist"),
    ] {
        fs::write(dir.path().join("portcullis.toml"), configuration).unwrap();
        let checked = run(dir.path(), &["check"]);
        let json = report(&run(dir.path(), &["check", "--json"]));
        let (check, serve) = (line(&checked), line(&run(dir.path(), &["serve"])));
        assert!(check.contains(says), "{configuration}: {check}");
        // One of them has a random port, and another the system's own message.
        if !configuration.contains("localhost:0") {
            assert_eq!(check, serve, "{configuration}");
        }
        assert_eq!((&json["ok"], &json["problems"]), (&json!(false), &json!([check])), "{configuration}");
    }
}

/// KEYS-05: `check` warns while the sealing key is beside the data that it opens, and reports a missing one.
#[test]
fn check_looks_after_the_seal_key() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Process::start(&data, "localhost:0", None);
    let listen = server.listen();
    assert_eq!(server.stop(), Some(0));
    let check = ["check", "--json", "--listen", &listen, "--data-dir", data.to_str().unwrap()];
    let good = report(&run(dir.path(), &check));
    assert_eq!(good["ok"], true, "{good}");
    assert!(
        good["warnings"][0]
            .as_str()
            .unwrap()
            .starts_with("seal.key is in the same directory as the database"),
        "{good}"
    );
    fs::remove_file(data.join("seal.key")).unwrap();
    let serve = ["serve", "--listen", "localhost:0", "--data-dir", data.to_str().unwrap()];
    assert_eq!(line(&run(dir.path(), &check)), line(&run(dir.path(), &serve)));
}

/// A rule that cannot take effect is reported, and is not an error.
#[test]
fn check_warns_of_unusable_items() {
    let dir = folder("data_dir = \"data\"\n[scopes.spare]\ntitle = \"Nothing\"\n[groups]\neveryone = []");
    let report = report(&run(dir.path(), &["check", "--json"]));
    assert_eq!(report["ok"], true);
    assert_eq!(
        report["warnings"],
        json!([
            "no tool needs the scope `spare`",
            "nobody may call the tool `docs_read`: no group has the scopes it needs; add docs.read to one of [groups]",
            "nobody may call the tool `docs_search`: no group has the scopes it needs; add docs.read to one of [groups]",
        ])
    );
}

/// POL-05: doubtful rules are reported with their line and a correction; unusable rules are errors: two that
/// tie, an unknown tool or argument.
#[test]
fn check_finds_rules_that_cannot_work() {
    let rules = "data_dir = \"data\"\n[tools]\n\"ci_*\" = \"docs.read\"\n[tools.\"docs_*\"]\nscope = \"docs.read\"\n\
                 args = { \"/query\" = { match = \"[a-z ]*\" } }\n";
    let dir = folder(rules);
    assert_eq!(
        line(&run(dir.path(), &["check"])),
        "the rule [tools.\"docs_*\"] at portcullis.toml:4 names the argument /query, and the tool `docs_read` has no such argument; remove it, or write the name as the tool has it"
    );

    let dir = folder(
        "data_dir = \"data\"\n[tools]\n\"ci_*\" = \"docs.read\"\ndocs_search = { hidden = true }\ndocs_read = []\n",
    );
    assert_eq!(
        line(&run(dir.path(), &["check"])),
        "the tool `docs_read` at portcullis.toml:5 has no scope; write scope = \"\u{2026}\""
    );
    let dir =
        folder("data_dir = \"data\"\n[tools]\n\"ci_*\" = \"docs.read\"\ndocs_search = { hidden = true }\n");
    let good = report(&run(dir.path(), &["check", "--json"]));
    assert_eq!(good["ok"], true, "{good}");
    assert_eq!(
        good["warnings"],
        json!([
            "the rule [tools.\"ci_*\"] at portcullis.toml:3 matches no existing tool; remove it, or correct its name"
        ])
    );
    let search = good["tools"].as_array().unwrap().iter().find(|tool| tool["name"] == "docs_search").unwrap();
    assert_eq!((&search["hidden"], &search["groups"]), (&json!(true), &json!([])));

    let dir =
        folder("data_dir = \"data\"\n[tools]\n\"docs_*\" = \"docs.read\"\n\"*_read\" = \"docs.read\"\n");
    let tied = line(&run(dir.path(), &["check"]));
    assert_eq!(
        tied,
        "two rules match the tool `docs_read` and neither is more specific: [tools.\"*_read\"] at portcullis.toml:4 and [tools.\"docs_*\"] at portcullis.toml:3; write [tools.docs_read] to say which one counts"
    );
    assert_eq!(line(&run(dir.path(), &["serve"])), tied);
}

/// The file configures `serve`: its data directory, and the scope of the first challenge (META-07).
#[test]
fn serve_follows_the_file() {
    let dir = folder(
        "data_dir = \"here\"\nlisten = \"localhost:0\"\n[scopes.\"docs.read\"]\ndefault = false\n\
         [scopes.all]\ntitle = \"All\"\ndefault = true\n[tools.docs_read]\nscope = \"all\"\n",
    );
    let server = Process::spawn(command(dir.path(), &["serve", "--json"]));
    assert!(dir.path().join("here/portcullis.db").exists());
    let challenge =
        reqwest::blocking::Client::builder().no_proxy().build().unwrap().post(&server.mcp_url).send();
    let challenge = challenge.unwrap().headers()["www-authenticate"].to_str().unwrap().to_owned();
    assert!(challenge.ends_with("scope=\"all\""), "{challenge}");
    // It configures the other commands too.
    let link = run(dir.path(), &["setup-link"]);
    assert!(link.status.success(), "{}", complaint(&link));
    assert_eq!(server.stop(), Some(0));
}
