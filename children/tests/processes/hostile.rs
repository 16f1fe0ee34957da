//! Servers that mean harm (SRC-11). Every attack is made for real, by a confined child and by one that is not, so that a
//! refusal means something.

use std::collections::BTreeMap;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use children::program::{Access, Program, Sandbox, Variable};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Server, own_program};

/// A gateway's data directory with its secrets, and sockets that are not a child's to use.
struct Gateway {
    dir: TempDir,
    abstract_name: String,
    _sockets: [UnixListener; 2],
}

impl Gateway {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["seal.key", "portcullis.db"] {
            std::fs::write(dir.path().join(name), "a secret").expect("written");
        }
        let program = dir.path().join("program");
        std::fs::copy("/bin/true", &program).expect("copied");
        std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o700)).expect("executable");
        let abstract_name = format!("children-testing-{:032x}", rand::random::<u128>());
        let address = SocketAddr::from_abstract_name(&abstract_name).expect("a name");
        let sockets = [
            UnixListener::bind(dir.path().join("control.sock")).expect("bound"),
            UnixListener::bind_addr(&address).expect("bound"),
        ];
        Self { dir, abstract_name, _sockets: sockets }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Has a server try everything on a file of this directory and on another server.
    async fn attacked_by(&self, server: &Server, file: &str, victim: &Server) -> BTreeMap<String, String> {
        self.attacked(server, file, victim, parent(server.process.pid)).await
    }

    /// The same without an attack on its own supervisor if that is 0.
    async fn attacked(
        &self,
        server: &Server,
        file: &str,
        victim: &Server,
        supervisor: i32,
    ) -> BTreeMap<String, String> {
        let params = json!({
            "dir": self.dir.path(), "secret": self.path(file), "program": self.path("program"),
            "socket": self.path("control.sock"), "abstract": self.abstract_name,
            "victim": victim.process.pid, "supervisor": supervisor, "scratch": server.scratch.path(),
        });
        let outcomes = server.ask("attack", &params).await.expect("answered");
        serde_json::from_value(outcomes).expect("outcomes")
    }
}

fn parent(pid: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
    line.trim().parse().expect("a number")
}

const ALLOWED: [&str; 4] = [
    "execute a program of the system",
    "make a pair of sockets",
    "use its temporary directory",
    "use the network",
];

async fn victim() -> Server {
    Server::of(|program| {
        program.env.insert("TOKEN".to_owned(), Variable::from("of the victim"));
    })
    .await
    .expect("started")
}

/// SRC-11: a confined child opens neither the data directory nor other processes, signals nobody, and reaches no socket in
/// the file system.
#[tokio::test]
async fn a_confined_child_reaches_nothing_that_was_not_declared() {
    let (gateway, victim) = (Gateway::new(), victim().await);
    for file in ["seal.key", "portcullis.db"] {
        let server = Server::of(|program| program.keep_out = vec![gateway.dir.path().to_owned()])
            .await
            .expect("started");
        let outcomes = gateway.attacked_by(&server, file, &victim).await;
        let done: Vec<&str> =
            outcomes.iter().filter(|(_, said)| *said == "done").map(|(what, _)| what.as_str()).collect();
        assert_eq!(done, ALLOWED, "{outcomes:#?}");
        assert_eq!(std::fs::read(gateway.path(file)).expect("it is still there"), b"a secret");
    }
    assert_eq!(victim.ask("echo", &json!(1)).await, Ok(json!(1)), "it still runs");
}

/// The same attacks without the sandbox work, so the test above tests something. What is left even then: no privileges.
#[tokio::test]
async fn the_same_attacks_work_without_the_sandbox() {
    let (gateway, victim) = (Gateway::new(), victim().await);
    let server = Server::of(|program| program.sandbox = Sandbox::Off).await.expect("started");
    // Killing its supervisor would work, and would be its own end.
    let outcomes = gateway.attacked(&server, "seal.key", &victim, 0).await;
    let failed: Vec<&str> =
        outcomes.iter().filter(|(_, said)| *said != "done").map(|(what, _)| what.as_str()).collect();
    // The secret is gone after it was deleted.
    let expected = ["gain privileges", "link the secret", "rename the secret"];
    let others: Vec<_> = failed.iter().filter(|what| !expected.contains(what)).collect();
    assert!(others.is_empty(), "{outcomes:#?}");
    assert_eq!(outcomes["gain privileges"], "Operation not permitted (os error 1)");
}

/// SRC-11: a declared path can be read, or written, as it was declared, and its neighbours cannot.
#[tokio::test]
async fn declared_paths_are_open_as_declared() {
    let gateway = Gateway::new();
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("seal.key"), "not secret").expect("written");
    let (declared, outside) = (dir.path().to_owned(), gateway.dir.path().to_owned());
    let attempts = [
        "read the secret",
        "write the secret",
        "truncate the secret",
        "list the directory",
        "create a file",
        "delete the secret",
    ];
    for (path, access, expected) in [
        (&declared, Access::Read, [true, false, false, true, false, false]),
        (&declared, Access::Write, [true, true, true, true, true, true]),
        (&outside, Access::Write, [false; 6]),
    ] {
        let server = Server::of(|program| {
            program.paths.insert(path.clone(), access);
        })
        .await
        .expect("started");
        let params =
            json!({"dir": declared, "secret": declared.join("seal.key"), "supervisor": 0, "victim": 0});
        let outcomes: Value = server.ask("attack", &params).await.expect("answered");
        let done = attempts.map(|what| outcomes[what] == "done");
        assert_eq!(done, expected, "{} {access:?}", path.display());
    }
}

/// SRC-11: a path that contains the gateway's own files is refused, whatever it is declared for.
#[tokio::test]
async fn a_child_that_may_use_the_data_directory_does_not_start() {
    let gateway = Gateway::new();
    let data = gateway.dir.path();
    let above = data.parent().expect("a parent").to_owned();
    let declare = |path: &Path, program: &mut Program| {
        program.keep_out = vec![data.to_owned()];
        program.paths.insert(path.to_owned(), Access::Read);
    };
    for path in [above.as_path(), data, &gateway.path("seal.key")] {
        let refused = Server::of(|program| declare(path, program)).await.err().expect("refused");
        assert!(refused.0.contains("the gateway's own files"), "{}", refused.0);
    }
    let refused = Server::of(|program| {
        program.keep_out = vec![data.to_owned()];
        program.cwd = Some(data.to_owned());
    });
    assert!(refused.await.err().expect("refused").0.contains("the gateway's own files"));
    let missing = Server::of(|program| declare(Path::new("/nowhere"), program)).await.err().expect("refused");
    assert_eq!(
        missing.0,
        "it may use /nowhere, which cannot be opened: No such file or directory (os error 2)"
    );
}

/// SRC-11: what a child executes gains nothing, and as root it has nothing.
#[tokio::test]
async fn a_child_has_no_privileges_and_gains_none() {
    let server = Server::of(|program| program.sandbox = Sandbox::Off).await.expect("started");
    let status = server.ask("status", &json!({})).await.expect("answered");
    let status = status.as_str().expect("text");
    for line in [
        "NoNewPrivs:\t1",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
    ] {
        // As another user than root the bounding set cannot be emptied, and does not matter.
        assert!(status.contains(line) || (line.starts_with("CapBnd") && !is_root()), "{line}\n{status}");
    }
    assert!(Path::new(own_program()).is_absolute());
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
