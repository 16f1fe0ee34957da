//! Every command of the program, from its own definition, so that a new command without a common property
//! fails.

use std::fs::File;
use std::io::Write;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::harness::TestApp;
use crate::process::{complaint, program, program_on};

/// Every command that does something, by its words.
fn all() -> Vec<(Vec<String>, clap::Command)> {
    fn walk(command: &clap::Command, words: &[String], found: &mut Vec<(Vec<String>, clap::Command)>) {
        for deeper in command.get_subcommands().filter(|deeper| deeper.get_name() != "help") {
            let words = [words, &[deeper.get_name().to_owned()]].concat();
            if deeper.has_subcommands() {
                walk(deeper, &words, found);
            } else {
                found.push((words, deeper.clone()));
            }
        }
    }
    let mut found = Vec::new();
    walk(&<portcullis::commands::Args as clap::CommandFactory>::command(), &[], &mut found);
    assert!(found.len() > 40, "{}", found.len());
    found
}

fn has(command: &clap::Command, id: &str) -> bool {
    command.get_arguments().any(|argument| argument.get_id() == id)
}

/// Arguments with which a command succeeds and changes nothing that another one needs; `None` for commands that
/// are not run here, because they serve or need what only other tests make.
#[allow(clippy::match_same_arms, clippy::unnested_or_patterns, reason = "a line for each noun")]
fn arguments(words: &[String]) -> Option<Vec<String>> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let fixed: &[&str] = match words.as_slice() {
        ["serve" | "check" | "setup-link"] => return None,
        // It creates a file, which would make the next run fail.
        ["audit", "export"] | ["backup"] => return None,
        ["restore"] | ["source", "show" | "test" | "log" | "restart" | "import"] => return None,
        ["client", "import-metadata" | "remove-metadata"]
        | ["client", "catalogue", "import"]
        | ["client", "approvals", "approve" | "refuse"] => return None,
        ["user", "add"] => &["walker", "--group", "walkers"],
        ["user", "show" | "link" | "disable" | "enable" | "passkeys"] => &["bob"],
        ["user", "groups"] => &["bob", "--add", "walkers"],
        ["user", "role"] => &["bob", "none"],
        ["user", "delete"] => &["cleo", "--yes"],
        ["user", "passkey", "remove" | "unsuspend"] => return None,
        ["client", "add"] => &["Walker", "--redirect-uri", "http://localhost/cb"],
        ["client", "set"] => &["Portal", "--name", "Portal"],
        ["client", "rotate-secret"] => &["Portal"],
        ["client", "show" | "verify" | "unverify" | "disable" | "enable"] => &["Portal"],
        ["client", "delete"] => &["Spare", "--yes"],
        ["client", "catalogue", "enable" | "disable"] => &["vscode"],
        ["policy", "check"] => &["--user", "bob", "--tool", "whoami"],
        ["policy", "test"] => &["/dev/null"],
        ["key", "remove"] => return None,
        ["key", "reseal" | "rotate"] | ["clock", "confirm"] | ["lockdown"] => &["--yes"],
        ["rs", "add"] => &["library", "--audience", "https://library.example/mcp"],
        ["rs", "show" | "rotate-secret"] => &["wiki"],
        ["rs", "delete"] => &["notes", "--yes"],
        ["issuer", "change"] | ["grant", "revoke"] | ["token", "revoke"] => return None,
        ["session", "end"] => &["--user", "bob"],
        ["secret", "set" | "remove"] => return None,
        ["call", "stop"] => return None,
        ["registration-token", "add"] => &["walker"],
        ["registration-token", "delete"] => &["spare", "--yes"],
        _ => &[],
    };
    Some(fixed.iter().map(|&word| word.to_owned()).collect())
}

fn run(app: &TestApp, words: &[String], more: &[String], stdout: Stdio) -> Output {
    let mut command = program_on(&app.data_dir());
    command.args(words).args(more).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

/// A server with the users, clients and other things that the commands need.
async fn furnished() -> TestApp {
    let app = TestApp::start_configured("[groups]\nwalkers = [\"docs.read\"]\n").await;
    app.admin().await;
    for name in ["bob", "cleo"] {
        app.console(&["user", "add", name]);
    }
    for name in ["Portal", "Spare"] {
        app.console(&["client", "add", name, "--redirect-uri", "https://portal.example/cb", "--secret"]);
    }
    for (name, audience) in [("wiki", "https://wiki.example/mcp"), ("notes", "https://notes.example/mcp")] {
        app.console(&["rs", "add", name, "--audience", audience]);
    }
    app.console(&["registration-token", "add", "spare"]);
    app
}

/// Every command and every option has a help text.
#[test]
fn every_command_and_option_is_explained() {
    for (words, command) in all() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(about.len() >= 15, "{words:?}: `{about}`");
        for argument in
            command.get_arguments().filter(|a| !["help", "version"].contains(&a.get_id().as_str()))
        {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.len() >= 10, "{words:?} {}: `{help}`", argument.get_id());
        }
        let help = program().args(&words).arg("--help").output().unwrap();
        assert!(help.status.success() && !help.stdout.is_empty() && help.stderr.is_empty(), "{words:?}");
    }
}

/// If standard output is full or closed, each command and its help print one line and exit with 1, as text and
/// as JSON; and `--json` prints JSON.
#[tokio::test(flavor = "multi_thread")]
async fn every_command_reports_that_its_output_is_closed() {
    let app = furnished().await;
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let unread = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    let one_line = |words: &[String], output: &Output| {
        let said = complaint(output);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        assert!(
            !said.contains("panicked") && said.contains("cannot write to standard output"),
            "{words:?}: {said}"
        );
        assert_eq!(
            said.lines().filter(|line| line.starts_with("portcullis: ")).count(),
            1,
            "{words:?}: {said}"
        );
    };
    let (last, mut order): (Vec<_>, Vec<_>) =
        all().into_iter().partition(|(words, _)| words[0] == "lockdown");
    order.extend(last);
    for (words, command) in order {
        for closed in [full(), unread()] {
            one_line(&words, &run(&app, &words, &["--help".to_owned()], closed));
        }
        let Some(more) = arguments(&words) else { continue };
        // First with closed output: a command that works only once does its work then, and only the prompt is
        // tested with --json afterwards.
        if !has(&command, "yes") && words.last().unwrap() != "add" {
            for closed in [full(), unread()] {
                one_line(&words, &run(&app, &words, &more, closed));
            }
        } else {
            one_line(&words, &run(&app, &words, &more, full()));
        }
        if has(&command, "json") && !["delete", "add", "confirm"].contains(&words.last().unwrap().as_str()) {
            let output =
                run(&app, &words, &[more.as_slice(), &["--json".to_owned()]].concat(), Stdio::piped());
            let said = String::from_utf8(output.stdout.clone()).unwrap();
            assert!(output.status.success(), "{words:?}: {}", complaint(&output));
            for line in said.lines() {
                assert!(serde_json::from_str::<Value>(line).is_ok(), "{words:?}: {line}");
            }
        }
    }
    app.stop().await;
}

/// An irreversible command asks for confirmation. Without a terminal nothing is done, and the message says how
/// to continue.
#[tokio::test(flavor = "multi_thread")]
async fn every_removal_asks() {
    let app = furnished().await;
    let before = app.audit().len();
    for (words, command) in all() {
        let removes =
            ["delete", "remove", "remove-metadata", "lockdown"].contains(&words.last().unwrap().as_str());
        assert!(!removes || has(&command, "yes"), "{words:?} does not ask");
    }
    for (kind, name) in
        [("user", "bob"), ("client", "Portal"), ("rs", "wiki"), ("registration-token", "spare")]
    {
        let words = [kind, "delete", name].map(str::to_owned);
        let output = run(&app, &words, &[], Stdio::piped());
        let said = complaint(&output);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(said.contains(name) && said.contains("nothing was done") && said.contains("--yes"), "{said}");
    }
    assert_eq!(app.audit().len(), before, "something was done");
    app.stop().await;
}

/// An unknown name is refused with the command that lists the existing ones, including this command's options.
#[tokio::test(flavor = "multi_thread")]
async fn every_unknown_name_is_refused_with_what_to_do() {
    let app = furnished().await;
    let config = app.data_dir().parent().unwrap().join("portcullis.toml");
    let (config, data) = (config.to_str().unwrap().to_owned(), app.data_dir().to_str().unwrap().to_owned());
    let options = format!("--config {config} --data-dir {data}");
    let mut asked = 0;
    for (words, command) in all() {
        let named = command.get_positionals().next().map(|first| first.get_id().to_string());
        let noun = match named.as_deref() {
            Some("user") => "user list",
            Some("client") => "client list",
            _ => continue,
        };
        let more: &[&str] = match words.last().unwrap().as_str() {
            "role" => &["none"],
            "set" => &["--name", "Nobody"],
            "remove" | "unsuspend" => &["aabbccdd"],
            _ => &[],
        };
        let yes: &[&str] = if has(&command, "yes") { &["--yes"] } else { &[] };
        let output = program_on(&app.data_dir())
            .args(&words)
            .arg("nobody-at-all")
            .args(more)
            .args(yes)
            .args(["--config", &config, "--data-dir", &data])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = complaint(&output);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        assert!(said.contains(&format!("portcullis {noun} {options}")), "{words:?}: {said}");
        asked += 1;
    }
    assert!(asked > 10, "{asked}");
    app.stop().await;
}

/// A negative answer exits with 1, for scripts.
#[tokio::test(flavor = "multi_thread")]
async fn policy_check_returns_its_decision_as_an_exit_code() {
    let app = furnished().await;
    app.console(&["user", "disable", "cleo"]);
    for (user, code, says) in [("bob", 0, "may call"), ("cleo", 1, "may not call")] {
        let words = ["policy", "check", "--user", user, "--tool", "whoami"].map(str::to_owned);
        let output = run(&app, &words, &[], Stdio::piped());
        assert_eq!(output.status.code(), Some(code), "{user}");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains(says) && output.stderr.is_empty(),
            "{output:?}"
        );
        assert_eq!(run(&app, &words, &["--json".to_owned()], Stdio::piped()).status.code(), Some(code));
    }
    app.stop().await;
}

/// AUDIT-05: control characters from a stranger do not reach the terminal of the log's reader, as text and as
/// JSON.
#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_controls_do_not_reach_the_terminal() {
    let app = TestApp::start().await;
    let mut ada = app.admin().await;
    let client = app.client().await;
    let tokens = app.tokens(&mut ada, &client).await;
    app.call_tool(&tokens.access, "evil\u{202e}loot\u{9b}2J", serde_json::json!({})).await;
    for more in [vec![], vec!["--json".to_owned()]] {
        let words = ["audit", "tail", "-n", "200"].map(str::to_owned);
        let output = run(&app, &words, &more, Stdio::piped());
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("evil"), "{said}");
        assert!(!said.contains(['\u{202e}', '\u{9b}']), "{said:?}");
    }
    app.stop().await;
}

/// An empty environment variable counts as unset, for every option that a variable sets.
#[test]
fn every_empty_variable_counts_as_unset() {
    let dir = tempfile::tempdir().unwrap();
    let mut variables =
        vec!["PORTCULLIS_LOG".to_owned(), "XDG_DATA_HOME".to_owned(), "CREDENTIALS_DIRECTORY".to_owned()];
    for (_, command) in all() {
        let set = command
            .get_arguments()
            .filter_map(|a| a.get_env().map(|name| name.to_string_lossy().into_owned()));
        variables.extend(set);
    }
    assert!(variables.len() > 8, "{variables:?}");
    let mut check = program();
    check.arg("check").env("HOME", dir.path()).current_dir(dir.path());
    let plain = check.output().unwrap();
    check.envs(variables.iter().map(|name| (name, "")));
    let empty = check.output().unwrap();
    assert!(empty.status.success(), "{}", complaint(&empty));
    assert_eq!(String::from_utf8_lossy(&empty.stdout), String::from_utf8_lossy(&plain.stdout));
}

/// OPS-08: SIGHUP ends no server, with or without a certificate, however early it comes; closed outputs do not
/// end it either.
#[test]
fn a_server_survives_hangups_and_closed_outputs() {
    let dir = tempfile::tempdir().unwrap();
    let port = crate::certificates::unused_port();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for (index, deaf) in [false, true].into_iter().enumerate() {
        let mut command = program();
        command.args(["serve", "--listen", &format!("localhost:{port}"), "--data-dir"]);
        command.arg(dir.path().join(format!("data{index}"))).stdin(Stdio::null());
        let (out, err) = if deaf { (full().into(), full().into()) } else { (Stdio::null(), Stdio::null()) };
        let mut child = command.stdout(out).stderr(err).spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let hangup = || rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
        let socket = dir.path().join(format!("data{index}/lock"));
        // From the creation of its first file on, which is long before it serves.
        while !socket.exists() {
            assert!(child.try_wait().unwrap().is_none());
        }
        let answers = || {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
            let mut answer = String::new();
            std::io::Read::read_to_string(&mut stream, &mut answer).ok()?;
            (!answer.is_empty()).then_some(())
        };
        while answers().is_none() {
            hangup();
            assert!(child.try_wait().unwrap().is_none(), "a hangup ended it while it started");
        }
        for _ in 0..3 {
            hangup();
            answers().expect("it serves on");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
