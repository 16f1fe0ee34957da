//! TLS in the process: who can connect and how, and new, changed and expired certificates.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use openssl::hash::MessageDigest;
use openssl::ssl::SslVersion;
use openssl::symm::Cipher;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::certificates::{Authority, HOST, Issued, unused_port};
use crate::harness::{TestApp, header};
use crate::process::{Bare, Process, complaint, program};
use crate::raw::{Handshake, Raw, assert_after, port};

const OLD: SslVersion = SslVersion::TLS1;
const TLS12: SslVersion = SslVersion::TLS1_2;
const TLS13: SslVersion = SslVersion::TLS1_3;

/// The authority of a server's certificate.
fn authority(app: &TestApp) -> Vec<u8> {
    fs::read(app.data_dir().parent().unwrap().join("gate.ca")).unwrap()
}

/// HTTP-01: everything works over TLS alone, from the setup link to a tool's result, under an https issuer with
/// a port.
#[tokio::test]
async fn a_whole_story_over_tls() {
    let app = TestApp::start_secured("").await;
    assert!(app.origin.starts_with("https://gate.example:"));
    let mut browser = app.admin().await;
    // SESSION-01: the cookies have the `__Host-` prefix.
    assert!(browser.cookies.contains_key("__Host-sid"), "{:?}", browser.cookies);
    let client = app.client().await;
    let tokens = app.tokens(&mut browser, &client).await;
    assert_eq!(tokens.claims()["iss"], app.origin);
    assert_eq!(app.call_tool(&tokens.access, "whoami", json!({})).await.status(), 200);
    assert_eq!(app.refresh(&client, &tokens.refresh).await.status(), 200);
    for path in ["/", "/jwks.json", "/mcp", "/nothing", "/authorize", "/healthz"] {
        let answer = app.get(path).await;
        assert_eq!(header(answer.headers(), "strict-transport-security"), Some("max-age=31536000"), "{path}");
    }
}

/// HTTP-01: TLS 1.2 and 1.3, the newer one if both sides support it; only forward secrecy and authenticated
/// encryption.
#[tokio::test]
async fn only_sane_protocols_are_spoken() {
    let app = TestApp::start_secured("").await;
    let authority = authority(&app);
    let shake = async |versions, ciphers| {
        let handshake = Handshake { versions: Some(versions), ciphers, ..Handshake::new(&authority) };
        handshake.shake(&app.origin).await
    };
    let newest = shake((TLS12, TLS13), None).await.unwrap();
    assert_eq!(newest.ssl().version_str(), "TLSv1.3");
    let older = shake((TLS12, TLS12), None).await.unwrap();
    assert_eq!(older.ssl().version_str(), "TLSv1.2");
    let name = older.ssl().current_cipher().unwrap().name();
    assert!(name.starts_with("ECDHE-") && name.contains("GCM"), "{name}");
    assert!(shake((OLD, SslVersion::TLS1_1), None).await.is_err());
    for weak in [
        "AES128-SHA",
        "AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-ECDSA-AES256-SHA384",
        "NULL:eNULL",
    ] {
        assert!(shake((TLS12, TLS12), Some(weak)).await.is_err(), "{weak}");
    }
    // Sessions are not resumed, so there is no ticket key to steal.
    assert!(older.ssl().session().is_some_and(|session| session.id().is_empty()));
}

/// HTTP-01: a client of another protocol is refused.
#[tokio::test]
async fn protocols_are_agreed_on() {
    let app = TestApp::start_secured("").await;
    let authority = authority(&app);
    let agreed = async |protocols: &'static [u8]| {
        let handshake = Handshake { protocols, ..Handshake::new(&authority) };
        let stream = handshake.shake(&app.origin).await?;
        Ok::<_, String>(stream.ssl().selected_alpn_protocol().map(<[u8]>::to_vec))
    };
    assert_eq!(agreed(b"").await, Ok(None));
    assert_eq!(agreed(b"\x08http/1.1").await, Ok(Some(b"http/1.1".to_vec())));
    assert_eq!(agreed(b"\x08http/1.1\x02h2").await, Ok(Some(b"h2".to_vec())));
    let refused = agreed(b"\x04smtp").await.unwrap_err();
    assert!(refused.contains("no application protocol"), "{refused}");
}

/// HTTP-01: plain HTTP is refused, and not redirected.
#[tokio::test]
async fn plain_http_is_refused() {
    let app = TestApp::start_secured("").await;
    for request in [
        "GET / HTTP/1.1\r\nHost: gate.example\r\n\r\n",
        "POST /token HTTP/1.1\r\nHost: x\r\n\r\n",
        "\r\n\r\n",
    ] {
        let mut raw = Raw::open(&app.origin).await;
        raw.send(request).await;
        let answer = raw.answer().await.unwrap();
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("tls_required")));
        assert_eq!((answer.header("location"), answer.header("connection")), (None, Some("close")));
        assert!(raw.is_over().await);
    }
}

/// HTTP-09, HTTP-10: incomplete or invalid handshakes occupy a connection for ten seconds at most.
#[tokio::test]
async fn an_unfinished_handshake_times_out() {
    let app = TestApp::start_secured("").await;
    let mut waiting = Vec::new();
    for start in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let mut stream = TcpStream::connect(("127.0.0.1", port(&app.origin))).await.unwrap();
        stream.write_all(start).await.unwrap();
        waiting.push(stream);
    }
    assert_eq!(app.get("/healthz").await.status(), 200);
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    for mut stream in waiting {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    assert_after(begun, 10);
}

/// OPS-07: at a stop, idle connections are closed properly, and a request in progress is answered.
#[tokio::test]
async fn a_stop_is_graceful_over_tls() {
    let app = TestApp::start_secured("").await;
    let authority = authority(&app);
    let connect =
        async || Raw::over(Handshake::new(&authority).shake(&app.origin).await.unwrap(), &app.origin);
    let (mut idle, mut asking, mut fresh) = (connect().await, connect().await, connect().await);
    idle.ask("GET /healthz", "", "").await;
    assert_eq!(idle.answer().await.unwrap().status, 200);
    asking.ask("POST /register", "Content-Type: application/json\r\nContent-Length: 2\r\n", "{").await;
    assert_eq!(app.get("/healthz").await.status(), 200);
    let stopping = tokio::spawn(app.stop());
    assert!(idle.is_over().await && fresh.is_over().await);
    asking.send("}").await;
    let answer = asking.answer().await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (400, Some("close")));
    assert!(asking.is_over().await);
    stopping.await.unwrap();
}

/// A server in a separate process with TLS, configured from this directory.
fn serve(dir: &Path, port: u16) -> Command {
    let mut command = program();
    command.current_dir(dir).bare().args(["serve", "--json", "--data-dir", "data"]);
    command.args(["--listen", &format!("127.0.0.1:{port}"), "--issuer", &format!("https://{HOST}:{port}")]);
    command.args(["--tls-cert", "gate.pem", "--tls-key", "gate.key"]);
    command
}

/// Waits until the server presents this certificate.
async fn shows(origin: &str, issued: &Issued) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(30) {
        if let Ok(stream) = Handshake::new(&issued.authority).shake(origin).await
            && let Some(shown) = stream.ssl().peer_certificate()
            && shown.digest(MessageDigest::sha256()).unwrap().to_vec() == issued.digest()
        {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

/// OPS-08: a new certificate is used without a restart, by itself or on demand; an unusable one is not, and
/// open connections continue.
#[tokio::test]
async fn certificates_are_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let issue = || authority.issue(&[HOST], 90);
    let first = issue();
    first.write(dir.path(), "gate");
    let server = Process::spawn(serve(dir.path(), unused_port()));
    assert!(shows(&server.origin, &first).await);
    let stream = Handshake::new(&first.authority).shake(&server.origin).await.unwrap();
    let mut open = Raw::over(stream, &server.origin);

    let second = issue();
    second.write(dir.path(), "gate");
    assert!(shows(&server.origin, &second).await, "the files changed");

    // Half a pair: a certificate without its key.
    let third = issue();
    fs::write(dir.path().join("gate.pem"), &third.certificate).unwrap();
    server.signal(rustix::process::Signal::HUP);
    assert!(shows(&server.origin, &second).await);
    fs::write(dir.path().join("gate.pem"), "no PEM certificate").unwrap();
    server.signal(rustix::process::Signal::HUP);
    fs::remove_file(dir.path().join("gate.key")).unwrap();
    server.signal(rustix::process::Signal::HUP);
    assert!(shows(&server.origin, &second).await);

    third.write(dir.path(), "gate");
    server.signal(rustix::process::Signal::HUP);
    assert!(shows(&server.origin, &third).await, "it was told");

    open.ask("GET /healthz", "", "").await;
    assert_eq!(open.answer().await.unwrap().status, 200);
    let log = server.log();
    assert!(log.contains("the new TLS certificate cannot be used; the previous one stays in use"), "{log}");
    assert!(log.contains("the TLS key gate.key does not belong to the certificate gate.pem"), "{log}");
    assert_eq!(server.stop(), Some(0));

    let mut audit = program();
    audit.current_dir(dir.path()).bare().args(["audit", "tail", "--json", "--data-dir", "data"]);
    let records = String::from_utf8(audit.output().unwrap().stdout).unwrap();
    let records: Vec<Value> = records.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let changes: Vec<_> = records.iter().filter(|r| r["event"] == "server.config_changed").collect();
    assert_eq!(changes.len(), 2, "{changes:?}");
    let digest = |issued: &Issued| data_encoding::HEXLOWER.encode(&issued.digest());
    for (change, (before, after)) in changes.iter().zip([(&first, &second), (&second, &third)]) {
        assert_eq!(change["detail"]["changed"], "tls_certificate");
        assert_eq!(change["detail"]["before"], digest(before));
        assert_eq!(change["detail"]["after"], digest(after));
    }
}

/// OPS-03: an unusable or unsafe certificate prevents the start; `check` reports the same.
#[test]
fn unusable_certificates_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let mode =
        |mode| fs::set_permissions(dir.path().join("gate.key"), fs::Permissions::from_mode(mode)).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    let good = authority.issue(&[HOST], 90);
    let run = |arguments: &[&str], port: &str| {
        let mut command = program();
        command.current_dir(dir.path()).bare().args(arguments).args(["--data-dir", "data", "--listen", port]);
        command.args(["--issuer", "https://gate.example"]).stdin(Stdio::null()).output().unwrap()
    };
    let both = ["--tls-cert", "gate.pem", "--tls-key", "gate.key"];
    let refused = |options: &[&str], says: &str| {
        for command in ["serve", "check"] {
            let output = run(&[&[command], options].concat(), "localhost:0");
            let said = complaint(&output);
            assert!(!output.status.success() && said.contains(says), "{command} {options:?} {says}: {said}");
        }
    };
    refused(&both, "cannot use the TLS certificate gate.pem: No such file or directory");
    good.write(dir.path(), "gate");
    refused(&both[..2], "is set without a key; add --tls-key");
    refused(&both[2..], "is set without a certificate; add --tls-cert");
    for open in [0o644, 0o604, 0o660, 0o602] {
        mode(open);
        refused(
            &both,
            &format!("others may read or change it (mode {open:o}); run: chmod g-w,o-rwx gate.key"),
        );
    }
    mode(0o640);
    assert!(run(&[&["check"], &both[..]].concat(), "localhost:0").status.success(), "a group may read it");
    mode(0o600);
    write("gate.key", &authority.issue(&[HOST], 90).key);
    refused(&both, "the TLS key gate.key does not belong to the certificate gate.pem");
    write("gate.key", b"nonsense");
    refused(&both, "it does not contain a private key in PEM");
    let encrypted = openssl::pkey::PKey::private_key_from_pem(&good.key).unwrap();
    write(
        "gate.key",
        &encrypted.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"secret").unwrap(),
    );
    refused(&both, "it is encrypted");
    write("gate.pem", b"nonsense");
    refused(&both, "it does not contain a certificate in PEM");
    authority.issue(&[HOST], -1).write(dir.path(), "gate");
    refused(&both, "cannot use the TLS certificate gate.pem: it expired on ");
    good.write(dir.path(), "gate");
    let mut plain = program();
    plain.current_dir(dir.path()).bare().args([
        "check",
        "--data-dir",
        "data",
        "--issuer",
        "http://localhost:8080",
    ]);
    let said = complaint(&plain.args(both).output().unwrap());
    assert!(said.contains("is http, but TLS or trusted_proxies are configured"), "{said}");
}

/// OPS-08: `check` warns 30, 7 and 1 days before a certificate expires, and of certificates that browsers
/// refuse.
#[test]
fn check_warns_of_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let check = |json: bool| {
        let mut command = program();
        command.current_dir(dir.path()).bare().args([
            "check",
            "--data-dir",
            "data",
            "--issuer",
            "https://gate.example",
        ]);
        command.args(["--tls-cert", "gate.pem", "--tls-key", "gate.key"]);
        if json {
            command.arg("--json");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", complaint(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    for (names, days, warning) in [
        (&[HOST][..], 90, None),
        (&["*.example"], 90, None),
        (&["other.example", HOST], 90, None),
        (&[HOST], 29, Some("expires within 30 days")),
        (&[HOST], 6, Some("expires within 7 days")),
        (&[HOST], 0, Some("expires within a day")),
        (&["other.example"], 90, Some("is for other.example, not for gate.example")),
        (&["*.gate.example"], 90, Some("not for gate.example")),
        (&[], 90, Some("is for nobody, not for gate.example")),
    ] {
        authority.issue(names, days).write(dir.path(), "gate");
        let report: Value = serde_json::from_str(&check(true)).unwrap();
        assert_eq!(report["tls"]["names"], json!(names));
        let warnings: Vec<_> =
            report["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
        match warning {
            None => assert!(warnings.is_empty(), "{warnings:?}"),
            Some(warning) => assert!(warnings.len() == 1 && warnings[0].contains(warning), "{warnings:?}"),
        }
    }
    authority.issue(&[HOST], 90).write(dir.path(), "gate");
    let said = check(false);
    assert!(said.contains("TLS            gate.pem, for gate.example, until 20"), "{said}");
    assert!(said.contains("token_address 60"), "{said}");
}

/// OPS-08: the log warns too, at the start.
#[test]
fn the_log_warns_of_certificates() {
    let dir = tempfile::tempdir().unwrap();
    Authority::new().issue(&["other.example"], 6).write(dir.path(), "gate");
    let mut child =
        serve(dir.path(), unused_port()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let mut log = String::new();
    let mut buffer = [0; 4096];
    while !(log.contains("expires within 7 days") && log.contains("not for gate.example")) {
        let read = stderr.read(&mut buffer).unwrap();
        assert!(read > 0, "{log}");
        log.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
