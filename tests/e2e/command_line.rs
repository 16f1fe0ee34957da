//! The command line: errors say what to do and exit with a non-zero code.

mod files;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use serde_json::{Value, json};

use crate::process::{Bare, Process, complaint, control_key, portcullis, program};

fn refused(arguments: &[&str], says: &[&str]) {
    let output = portcullis(arguments);
    let complaint = complaint(&output);
    assert!(!output.status.success(), "{arguments:?} went through");
    for part in says {
        assert!(complaint.contains(part), "{arguments:?} said: {complaint}");
    }
    assert!(complaint.lines().filter(|line| line.starts_with("portcullis: ")).count() <= 1, "{complaint}");
}

/// ADMIN-05: if the server ends before it answers, the command says that the result is unknown and where to
/// look.
#[test]
fn a_broken_connection_to_the_server_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    Process::start(&data, "localhost:0", None).stop();
    let socket = data.join("control.sock");
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    let server = std::thread::spawn(move || {
        let mut asked = String::new();
        BufReader::new(listener.accept().unwrap().0).read_line(&mut asked).unwrap();
        asked
    });
    refused(
        &["lockdown", "--yes", "--data-dir", data.to_str().unwrap()],
        &["stopped before it answered", "portcullis audit tail"],
    );
    assert!(server.join().unwrap().contains("\"lockdown\""));
}

/// OPS-03: each unsafe or impossible configuration gives one clear line.
#[test]
fn impossible_starts_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    let serve =
        |extra: &[&'static str]| [&["serve", "--data-dir", data, "--listen", "localhost:0"], extra].concat();
    refused(&serve(&["--issuer", "https://10.0.0.1"]), &["IP address", "name"]);
    refused(&serve(&["--issuer", "http://portal.example"]), &["use https"]);
    refused(&serve(&["--issuer", "https://portal.example/path"]), &["origin"]);
    refused(&serve(&["--issuer", "http://localhost:1"]), &["port"]);
    refused(&serve(&["--docs", "/nowhere/at/all"]), &["--docs"]);
    refused(&["serve", "--data-dir", data, "--listen", "nonsense"], &["--listen"]);
    refused(&["serve", "--data-dir", data, "--listen", "0.0.0.0:0"], &["TLS"]);
    refused(
        &["serve", "--data-dir", "/proc/nope", "--listen", "localhost:0"],
        &["data directory", "--data-dir"],
    );
    refused(&serve(&["--nonsense"]), &["--nonsense", "--help"]);
    refused(&["audit", "verify", "--data-dir", "/nowhere/at/all"], &["/nowhere/at/all", "serve"]);
    refused(&["setup-link", "--data-dir", "/nowhere/at/all"], &["/nowhere/at/all", "serve"]);
}

/// STORE-05, ADMIN-05: a directory has one server; a port has one owner.
#[test]
fn a_second_server_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (data, other) = (dir.path().join("data"), dir.path().join("other"));
    let server = Process::start(&data, "localhost:0", None);
    refused(
        &["serve", "--data-dir", data.to_str().unwrap(), "--listen", "localhost:0"],
        &["in use", "another portcullis"],
    );
    refused(
        &["serve", "--data-dir", other.to_str().unwrap(), "--listen", &server.listen()],
        &["in use", "--listen"],
    );
    assert_eq!(server.stop(), Some(0));
}

/// KEYS-05, OPS-03: weak permissions and a lost sealing key are refused.
#[test]
fn weak_permissions_and_a_lost_seal_key_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    assert_eq!(Process::start(&data, "localhost:0", None).stop(), Some(0));
    let serve = ["serve", "--data-dir", data.to_str().unwrap(), "--listen", "localhost:0"];
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    refused(&serve, &["chmod 700"]);
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(data.join("seal.key"), fs::Permissions::from_mode(0o644)).unwrap();
    refused(&serve, &["seal.key", "600"]);
    fs::remove_file(data.join("seal.key")).unwrap();
    refused(&serve, &["seal.key"]);
}

/// ENROL-01: a new link while there is no administrator, for a data directory with a long path.
#[test]
fn setup_link_asks_the_running_server() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("d".repeat(120));
    let server = Process::start(&data, "localhost:0", None);
    let output = portcullis(&["setup-link", "--data-dir", data.to_str().unwrap()]);
    let link = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && link.starts_with(&format!("{}/setup#enr_", server.origin)), "{link}");
    assert_ne!(Some(link.trim()), server.setup_link.as_deref());
    let socket = fs::metadata(data.join("control.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
}

/// SRC-11, ADMIN-05: being able to connect to the control socket is not enough. A command that does not show the key in the
/// data directory is refused, whatever it asks for.
#[test]
fn a_command_without_the_control_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let _server = Process::start(&data, "localhost:0", None);
    let key = control_key(&data);
    let mode = fs::metadata(data.join("control.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let send = |command: &Value| {
        let mut stream = UnixStream::connect(data.join("control.sock")).unwrap();
        writeln!(stream, "{command}").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        serde_json::from_str::<Value>(&answer).unwrap()
    };
    let mut add = json!({"v": 1, "command": "user-add", "name": "mallory", "groups": [], "role": "admin"});
    for wrong in [
        None,
        Some(String::new()),
        Some(key.to_uppercase()),
        Some(format!("{key} ")),
        Some(key[..46].to_owned()),
    ] {
        add["control_key"] = json!(wrong);
        let answer = send(&add);
        assert_eq!(answer["error"]["code"], "unproven", "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("control.key"), "{answer}");
    }
    let list = |key: &Value| send(&json!({"v": 1, "control_key": key, "command": "user-list"}));
    assert_eq!(list(&json!(1))["error"]["code"], "unknown_command");
    assert!(!list(&json!(key))["ok"].to_string().contains("mallory"));
    fs::remove_file(data.join("control.key")).unwrap();
    refused(&["user", "list", "--data-dir", data.to_str().unwrap()], &["control.key"]);
}

/// AUDIT-03: the chain is verified beside a running server; one changed byte is an error that names its row.
#[test]
fn audit_verify_names_a_changed_row() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Process::start(&data, "localhost:0", None);
    let at = ["--data-dir", data.to_str().unwrap()];
    let verified = portcullis(&["audit", "verify", "--json", at[0], at[1]]);
    let verdict: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(verdict["ok"], true);
    let tail = portcullis(&["audit", "tail", "-n", "3", "--json", at[0], at[1]]);
    let records: Vec<Value> = String::from_utf8(tail.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(records.len(), 3);
    assert_eq!(server.stop(), Some(0));

    let raw = rusqlite::Connection::open(data.join("portcullis.db")).unwrap();
    let seq =
        raw.query_row("SELECT seq FROM audit WHERE event = 'server.start'", [], |row| row.get::<_, i64>(0));
    let seq = seq.unwrap();
    raw.execute(
        "UPDATE audit SET record = replace(record, 'server.start', 'server.stort') WHERE seq = ?1",
        [seq],
    )
    .unwrap();
    drop(raw);
    let broken = portcullis(&["audit", "verify", at[0], at[1]]);
    assert!(!broken.status.success());
    assert!(complaint(&broken).contains(&format!("audit record {seq} ")), "{broken:?}");
}

/// The server needs no terminal, home directory or configuration; its output says what to do next.
#[test]
fn serve_says_what_to_do_next() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = program()
        .args(["serve", "--listen", "localhost:0"])
        .bare()
        .env("PORTCULLIS_DATA_DIR", dir.path().join("data"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    while let Some(Ok(line)) = lines.next() {
        said.push_str(&line);
        said.push('\n');
        if line.starts_with("Stop with") {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for part in
        ["MCP URL    http://localhost:", "/setup#enr_", "claude mcp add --transport http", "mcp-remote"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
}

/// OPS-03: a server that cannot start, because its documents are not there, leaves no data directory behind.
#[test]
fn a_server_without_its_documents_makes_no_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let nothing = dir.path().join("nothing");
    let mut command = program();
    command.args(["serve", "--listen", "localhost:0", "--docs"]).arg(&nothing).arg("--data-dir").arg(&data);
    let output = command.output().unwrap();
    assert!(!output.status.success() && complaint(&output).contains("the folder does not exist"));
    assert!(!data.exists());
}
