//! Acknowledged writes persist after a kill and on a full disk.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::process::{Process, complaint, portcullis, program};

fn register(http: &reqwest::blocking::Client, origin: &str, name: &str) -> Option<(u16, Value)> {
    let metadata = json!({"client_name": name, "redirect_uris": ["http://localhost/callback"], "contacts": ["x".repeat(200)]});
    let response = http.post(format!("{origin}/register")).json(&metadata).send().ok()?;
    let status = response.status().as_u16();
    Some((status, response.json().unwrap_or(Value::Null)))
}

fn known(data: &std::path::Path) -> Vec<String> {
    let db = rusqlite::Connection::open(data.join("portcullis.db")).unwrap();
    let mut statement = db.prepare("SELECT id FROM client").unwrap();
    let ids = statement.query_map([], |row| row.get(0)).unwrap();
    ids.map(Result::unwrap).collect()
}

fn chain_holds(data: &std::path::Path) {
    let verified = portcullis(&["audit", "verify", "--data-dir", data.to_str().unwrap()]);
    assert!(verified.status.success(), "{}", complaint(&verified));
}

/// STORE-02, OPS-07: `kill -9` under load loses no acknowledged write, ten times in a row.
#[test]
fn a_killed_server_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..10 {
        let mut server = Process::start(&data, "localhost:0", None);
        let stop = Arc::new(AtomicBool::new(false));
        let callers: Vec<_> = (0..8)
            .map(|caller| {
                let (origin, stop) = (server.origin.clone(), Arc::clone(&stop));
                std::thread::spawn(move || {
                    let http = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
                    let mut mine = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let name = format!("client {round} {caller}");
                        let Some((201, body)) = register(&http, &origin, &name) else { break };
                        mine.push(body["client_id"].as_str().unwrap().to_owned());
                    }
                    mine
                })
            })
            .collect();
        // Killed at a moment that depends on the load and not on the clock.
        let http = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
        for _ in 0..=round {
            register(&http, &server.origin, "bystander");
        }
        server.kill();
        stop.store(true, Ordering::Relaxed);
        acknowledged.extend(callers.into_iter().flat_map(|caller| caller.join().unwrap()));
        let known = known(&data);
        for id in &acknowledged {
            assert!(known.contains(id), "round {round}: {id} was acknowledged and is gone");
        }
        chain_holds(&data);
    }
    assert!(acknowledged.len() > 20, "only {} were acknowledged", acknowledged.len());
}

/// STORE-02, AUDIT-04: if a file may not grow (here by a file size limit, like a quota), requests get 503, no
/// acknowledged write is lost, the chain stays intact, and the server continues once there is room.
#[test]
fn a_full_disk_is_answered_503_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // SIGXFSZ is ignored, so that a write beyond the limit is an error and does not end the process.
    let script =
        "trap '' XFSZ; ulimit -f 1024; exec \"$0\" serve --json --listen localhost:0 --data-dir \"$1\"";
    let mut command = Command::new("bash");
    command.args(["-c", script]).arg(program().get_program()).arg(&data);
    let mut server = Process::spawn(command);
    let http = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    for i in 0..5000 {
        let (status, body) =
            register(&http, &server.origin, &format!("client {i}")).expect("the server is alive");
        match status {
            201 => acknowledged.push(body["client_id"].as_str().unwrap().to_owned()),
            503 => {
                assert_eq!(body["error"], "temporarily_unavailable");
                refused += 1;
            }
            other => panic!("{other}: {body}"),
        }
        if refused == 5 {
            break;
        }
    }
    assert_eq!(refused, 5, "the limit was never met; {} clients fit", acknowledged.len());
    assert!(!acknowledged.is_empty());
    assert_eq!(http.get(format!("{}/healthz", server.origin)).send().unwrap().status(), 200);
    server.kill();
    // With room again, every acknowledged client exists.
    let server = Process::start(&data, "localhost:0", None);
    assert_eq!(register(&http, &server.origin, "after").unwrap().0, 201);
    assert_eq!(server.stop(), Some(0));
    let known = known(&data);
    // Beyond a thousand, never-approved clients make room for newer ones, so only the newest must exist.
    for id in acknowledged.iter().rev().take(900) {
        assert!(known.contains(id), "{id} was acknowledged and is gone");
    }
    chain_holds(&data);
}
