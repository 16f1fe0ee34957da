//! `docs/policy.md` and `docs/upstreams.md`, followed literally: each configuration is checked, and each command run.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::TestApp;
use crate::process::{complaint, portcullis, program_on};
use crate::sources::hostile::HostileServer;
use crate::sources::items::everything_of;
use crate::sources::walked;

const PAGES: [(&str, &str); 2] = [
    ("docs/policy.md", include_str!("../../docs/policy.md")),
    ("docs/upstreams.md", include_str!("../../docs/upstreams.md")),
];

/// The blocks of a page in this language.
fn blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let begins = format!("```{language}\n");
    page.split(begins.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// The commands of a page, from its blocks and from its text.
fn commands(page: &str) -> Vec<&str> {
    let in_blocks = blocks(page, "sh").into_iter().flat_map(str::lines);
    let text = page.split("```").step_by(2);
    let in_text = text.flat_map(|text| text.split('`').skip(1).step_by(2));
    let all = in_blocks.chain(in_text).filter(|line| line.starts_with("portcullis "));
    all.map(|line| line.split(" #").next().unwrap().trim()).collect()
}

/// A block as a whole file: the scopes and sources that other blocks of the page define are added, and the folders that it
/// names are made here.
fn whole(block: &str, dir: &Path) -> String {
    let mut file = block.to_owned();
    for named in ["/opt/mcp/venv", "/srv/repos", "/var/cache/repos"] {
        let here = dir.join(&named[1..]);
        fs::create_dir_all(here.join("handbook")).unwrap();
        fs::create_dir_all(here.join("bin")).unwrap();
        fs::write(here.join("bin/mcp-server-git"), "").unwrap();
        file = file.replace(named, here.to_str().unwrap());
    }
    for scope in ["ci.run", "ci.read", "jira.read"] {
        let table = format!("[scopes.\"{scope}\"]");
        if !block.contains(&table) {
            file += &["\n", &table, "\ntitle = \"x\"\n"].concat();
        }
    }
    for source in ["ci", "jira"] {
        let table = format!("[sources.{source}]\n");
        if !block.contains(&table) {
            let more = format!("\n{table}kind = \"mcp-http\"\nurl = \"https://{source}.lab.internal/mcp\"\n");
            file += &more;
        }
    }
    file
}

/// POL-01, POL-02, POL-03, LIMIT-01: every configuration that the pages show is one.
#[test]
fn every_documented_configuration_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let (mut checked, mut wrong) = (0, Vec::new());
    for (name, page) in PAGES {
        for block in blocks(page, "toml") {
            let file = dir.path().join("portcullis.toml");
            fs::write(&file, whole(block, dir.path())).unwrap();
            let output = portcullis(&[
                "check",
                "--config",
                file.to_str().unwrap(),
                "--data-dir",
                dir.path().join("data").to_str().unwrap(),
            ]);
            if !output.status.success() {
                wrong.push(format!("{name}: {}\n{block}", complaint(&output)));
            }
            checked += 1;
        }
    }
    assert!(checked >= 7 && wrong.is_empty(), "{checked}: {wrong:#?}");
}

/// Runs a documented command as it is written, in this folder, and answers what it asks.
fn run(app: &TestApp, folder: &Path, line: &str) -> (String, String, Option<i32>) {
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some("portcullis"), "{line}");
    let mut command: Command = program_on(&app.data_dir());
    let config = app.data_dir().with_file_name("portcullis.toml");
    // What a shell and a reader do.
    command.args(words.map(|word| word.replace('~', folder.to_str().unwrap()).replace("NAME", "jira")));
    command.env("PORTCULLIS_CONFIG", config).current_dir(folder);
    command.env("PORTCULLIS_LISTEN", app.origin.trim_start_matches("http://"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(b"a-secret");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    (said, String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
}

/// POL-04, POL-05, POL-06, SRC-14: every command that the pages show does something here: two servers, a profile, a file of
/// arguments, another configuration and a client's file are there.
#[tokio::test(flavor = "multi_thread")]
async fn every_documented_command_runs() {
    let (ci, jira) = (HostileServer::start().await, HostileServer::start().await);
    let toml = format!(
        "{}{}[profiles.ci]\nitems = \"ci_*\"\n",
        everything_of("ci", &ci.url, ""),
        everything_of("jira", &jira.url, "bearer = \"user\"")
    );
    let app = TestApp::start_configured(&toml).await;
    app.admin().await;
    app.enrol("ines", &[]).await;
    walked(&app, "source.changed", 2).await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("call.json"), "{\"branch\": \"release/1.0\"}").unwrap();
    fs::write(folder.join("new.toml"), &toml).unwrap();
    fs::create_dir(folder.join(".cursor")).unwrap();
    let server = r#"{"mcpServers": {"wiki": {"url": "https://wiki.lab.internal/mcp"}}}"#;
    fs::write(folder.join(".cursor/mcp.json"), server).unwrap();
    fs::write(app.data_dir().with_file_name("portcullis.toml"), &toml).unwrap();
    let (mut ran, mut wrong) = (0, Vec::new());
    for (name, page) in PAGES {
        for line in commands(page) {
            let (said, complained, code) = run(&app, folder, line);
            // A question may be answered in the negative, nothing is removed without a word, and no call runs.
            let fits = match line {
                _ if line.starts_with("portcullis policy") => matches!(code, Some(0 | 1)) && !said.is_empty(),
                _ if line.starts_with("portcullis secret remove") => complained.contains("--yes"),
                _ if line.starts_with("portcullis call stop") => complained.contains("no call 7 runs"),
                _ => code == Some(0) && !said.is_empty(),
            };
            if !fits {
                wrong.push(format!("{name}: {line}: {code:?} {said} {complained}"));
            }
            ran += 1;
        }
    }
    assert!(ran >= 20 && wrong.is_empty(), "{ran}: {wrong:#?}");
}
