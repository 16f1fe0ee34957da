//! Servers that misbehave without meaning harm (SRC-11): each costs itself and nobody else.

use std::time::{Duration, Instant};

use children::Ended;
use children::conversation::NoAnswer;
use children::program::{Limits, Variable};
use serde_json::{Value, json};

use crate::harness::{Server, own_program, until};

fn null() -> Value {
    json!({})
}

/// SRC-11: the environment is exactly what was declared, and nothing of this process's.
#[tokio::test]
async fn the_environment_is_exactly_what_was_declared() {
    let server = Server::of(|program| {
        program.env.clear();
        program.env.insert("CI_URL".to_owned(), Variable::from("http://ci.lab.internal"));
        program.env.insert("TMPDIR".to_owned(), Variable::TemporaryDirectory);
    })
    .await
    .expect("started");
    let directory = server.ask("where", &null()).await.expect("answered");
    let environment = server.ask("environment", &null()).await.expect("answered");
    println!("the environment of a child: {environment}");
    assert_eq!(environment, json!({"CI_URL": "http://ci.lab.internal", "TMPDIR": directory}));
}

/// SRC-11: a server may write 10 MiB to standard error before it answers; the end of it is kept.
#[tokio::test]
async fn a_flood_on_standard_error_blocks_nothing() {
    let server = Server::start().await;
    assert_eq!(server.ask("flood-stderr", &null()).await, Ok(json!("after the flood")));
    until("the ring has the end", || server.errors.tail().ends_with("the end of the flood\n"));
    assert!(server.errors.tail().len() <= 64 << 10);
}

/// SRC-11: what is not JSON on standard output is skipped and counted.
#[tokio::test]
async fn banners_on_standard_output_are_skipped_and_counted() {
    let server = Server::start().await;
    assert_eq!(server.ask("banner", &null()).await, Ok(json!("after the banner")));
    assert_eq!(server.conversation.skipped().not_messages, 3);
}

/// SRC-11: an answer of 9 MiB fails its own call; the one beside it and the next are answered.
#[tokio::test]
async fn a_line_of_9_mib_fails_its_own_call_alone() {
    let server = Server::start().await;
    let params = null();
    let (long, beside) = tokio::join!(server.ask("long-line", &params), server.ask("echo", &params));
    assert_eq!((long, beside), (Err(NoAnswer::TooLong), Ok(null())));
    assert_eq!(server.ask("echo", &json!([1])).await, Ok(json!([1])));
}

/// SRC-15: a second answer and an answer to somebody else's request reach nobody.
#[tokio::test]
async fn answers_that_nobody_asked_for_reach_nobody() {
    let server = Server::start().await;
    assert_eq!(server.ask("twice", &null()).await, Ok(json!("first")));
    assert_eq!(server.ask("foreign", &null()).await, Ok(json!("own")));
    assert_eq!(server.ask("echo", &json!("mine")).await, Ok(json!("mine")));
    assert_eq!(server.conversation.skipped().strays, 2);
}

/// SRC-11: a call that is never answered ends when it is given up, and holds up no other.
#[tokio::test]
async fn a_call_that_is_never_answered_holds_up_no_other() {
    let server = Server::start().await;
    let mut never = server.conversation.ask("never", None).expect("queued");
    assert_eq!(server.ask("echo", &json!(1)).await, Ok(json!(1)));
    assert!(tokio::time::timeout(Duration::from_millis(10), never.answered()).await.is_err());
    assert!(!never.take_back(), "it was sent, so nobody knows what came of it");
    drop(never);
    assert_eq!(server.ask("echo", &json!(2)).await, Ok(json!(2)));
}

/// SRC-11: the end of a server is noticed within a second, and the calls it had are told.
#[tokio::test]
async fn the_end_of_a_server_is_noticed_within_a_second() {
    let server = Server::start().await;
    let mut waiting = server.conversation.ask("never", None).expect("queued");
    let exits = server.conversation.ask("exit", None).expect("queued");
    let begun = Instant::now();
    assert_eq!(waiting.answered().await.expect_err("it ended"), NoAnswer::Ended);
    assert_eq!(server.process.life().ended().await, Ended::Exited(7));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(server.ask("echo", &null()).await, Err(NoAnswer::NotAsked));
    drop(exits);
}

/// SRC-11: a server that ends at once is started, as far as anybody can tell, and has ended.
#[tokio::test]
async fn a_server_that_exits_at_once_has_ended() {
    let server = Server::of(|program| program.args = vec!["exit-at-once".to_owned()]).await.expect("started");
    assert_eq!(server.process.life().ended().await, Ended::Exited(3));
    server.conversation.over().await;
}

/// SRC-11: what cannot be executed says so in one line.
#[tokio::test]
async fn a_program_that_cannot_run_says_why() {
    for (command, why) in [
        ("/nowhere/server", "/nowhere/server"),
        ("no-such-program", "`no-such-program` is not in any directory of /usr/local/bin:/usr/bin:/bin"),
        ("./relative", "`./relative` is neither an absolute path nor a name without a slash"),
        ("/etc/passwd", "/etc/passwd cannot be executed: Permission denied"),
    ] {
        let refused =
            Server::of(|program| program.command = command.to_owned()).await.err().expect("refused");
        assert!(refused.0.contains(why), "{}", refused.0);
        assert!(!refused.0.contains('\n'));
    }
}

/// SRC-11: what a server forks goes with it, in a session of its own and deaf to signals as it is; so do its files.
#[tokio::test]
async fn a_daemon_that_a_server_forks_ends_with_it() {
    let server = Server::start().await;
    assert_eq!(server.ask("fork-daemon", &null()).await, Ok(json!("forked")));
    until("the daemon runs", || server.processes() >= 2);
    let _ = server.ask("exit", &null()).await;
    server.process.life().gone().await;
    assert_eq!(server.processes(), 0);
    let left: Vec<_> = std::fs::read_dir(server.scratch.path()).expect("listed").collect();
    assert!(left.is_empty(), "{left:?}");
}

/// SRC-11: a server is asked to end by the end of its input; one that does not is ended.
#[tokio::test]
async fn a_server_is_asked_to_end_before_it_is_made_to() {
    let polite = Server::start().await;
    polite.conversation.close();
    polite.process.stop();
    assert_eq!(polite.process.life().ended().await, Ended::Exited(0));
    let deaf = Server::of(|program| program.grace = Duration::from_millis(100)).await.expect("started");
    deaf.ask("ignore-the-end", &null()).await.expect("answered");
    deaf.conversation.close();
    deaf.process.stop();
    assert_eq!(deaf.process.life().ended().await, Ended::Killed(9));
    deaf.process.life().gone().await;
    assert_eq!(deaf.processes(), 0);
}

/// SRC-11: letting go of a child kills it with all that it started.
#[tokio::test]
async fn letting_go_of_a_child_kills_it() {
    let server = Server::start().await;
    server.ask("fork-daemon", &null()).await.expect("answered");
    let Server { process, scratch, conversation, .. } = server;
    let life = process.life();
    drop(process);
    life.gone().await;
    assert!(crate::harness::marked(&scratch.path().display().to_string()).is_empty());
    conversation.over().await;
}

/// SRC-11: a child does not outlive its supervisor either, whatever kills that, and the gateway notices.
#[tokio::test]
async fn killing_a_supervisor_kills_its_child() {
    let server = Server::start().await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process.pid)).expect("it runs");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent").trim();
    let supervisor = parent.parse().ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).expect("killed");
    assert_eq!(server.process.life().ended().await, Ended::Unknown);
    until("the child is gone", || server.processes() == 0);
}

/// SRC-11: rlimits are those of the program, and none of them is on address space.
#[tokio::test]
async fn limits_are_set_and_address_space_is_not_among_them() {
    let limits = Limits { memory: Some(1 << 30), open_files: 77, ..Limits::default() };
    let server = Server::of(|program| {
        program.limits = limits;
        // The limits are read from the process's own entry in /proc, which a confined one cannot open.
        program.sandbox = children::program::Sandbox::Off;
    })
    .await
    .expect("started");
    let text = server.ask("limits", &null()).await.expect("answered");
    let soft = |name: &str| {
        let line = text.as_str().and_then(|text| text.lines().find(|line| line.starts_with(name)));
        let values = line.and_then(|line| line.strip_prefix(name)).unwrap_or_default();
        values.split_ascii_whitespace().next().unwrap_or_default().to_owned()
    };
    assert_eq!(soft("Max open files"), "77");
    assert_eq!(soft("Max core file size"), "0");
    assert_eq!(soft("Max data size"), (1 << 30).to_string());
    assert_eq!(soft("Max address space"), "unlimited");
}

/// SRC-10: neither the arguments nor the environment of any process between us and the child shows a secret.
#[tokio::test]
async fn a_secret_is_in_the_childs_environment_alone() {
    let secret = format!("secret-{:032x}", rand::random::<u128>());
    let server = Server::of(|program| {
        program.env.insert("TOKEN".to_owned(), Variable::from(secret.as_str()));
    })
    .await
    .expect("started");
    assert_eq!(server.ask("environment", &null()).await.expect("answered")["TOKEN"], json!(secret));
    assert_eq!(crate::harness::marked(&secret), [server.process.pid]);
    assert!(own_program().starts_with('/'));
}
