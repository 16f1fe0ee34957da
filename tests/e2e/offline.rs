//! Commands while no server runs: they take the directory's lock themselves (ADMIN-05).

use serde_json::Value;

use crate::process::{Process, complaint, portcullis};

/// ADMIN-05: the same command works with and without a server; a lock without a server that answers is an error.
#[test]
fn people_are_managed_without_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let at = ["--json", "--data-dir", data.to_str().unwrap()];
    let run = |arguments: &[&str]| portcullis(&[arguments, &at].concat());
    let never = run(&["user", "list"]);
    assert!(!never.status.success() && complaint(&never).contains("serve"), "{}", complaint(&never));

    let server = Process::start(&data, "localhost:0", None);
    let origin = server.origin.clone();
    assert!(run(&["user", "add", "ines"]).status.success());
    assert_eq!(server.stop(), Some(0));

    let added = run(&["user", "add", "omar"]);
    assert!(added.status.success(), "{}", complaint(&added));
    let added: Value = serde_json::from_slice(&added.stdout).unwrap();
    assert!(added["link"].as_str().unwrap().starts_with(&format!("{origin}/enrol#enr_")), "{added}");
    let listed: Value = serde_json::from_slice(&run(&["user", "list"]).stdout).unwrap();
    let names: Vec<&str> =
        listed["users"].as_array().unwrap().iter().map(|u| u["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ines", "omar"]);

    // Another process holds the lock and does not answer.
    let lock = std::fs::File::open(data.join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let locked = run(&["user", "list"]);
    assert!(!locked.status.success() && complaint(&locked).contains("in use"), "{}", complaint(&locked));
}
