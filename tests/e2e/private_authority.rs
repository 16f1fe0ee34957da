//! A private certificate authority, made with the commands of docs/tls.md, used by the strictest clients.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::certificates::{Authority, HOST};
use crate::process::complaint;

/// A handshake in Python with `ssl.create_default_context` as of 3.13.
const STRICT: &str = r"
import ssl, sys
authority, certificate, key, host = sys.argv[1:]
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain(certificate, key)
client = ssl.create_default_context(cafile=authority)
client.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
ends = [client.wrap_bio(back, there, server_hostname=host), server.wrap_bio(there, back, server_side=True)]
for _ in range(10):
    for end in list(ends):
        try:
            end.do_handshake()
            ends.remove(end)
        except ssl.SSLWantReadError:
            pass
sys.exit(len(ends))
";

fn done(output: &Output) {
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), complaint(output));
}

fn is_accepted(dir: &Path, authority: &str, certificate: &str, key: &str, host: &str) {
    let verify = ["verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", host, "-CAfile"];
    done(
        &Command::new("openssl")
            .args(verify)
            .args([authority, certificate])
            .current_dir(dir)
            .output()
            .unwrap(),
    );
    let handshake = ["-c", STRICT, authority, certificate, key, host];
    done(&Command::new("python3").args(handshake).current_dir(dir).output().unwrap());
}

/// OPS-08: the documented commands make certificates that strict clients accept, and keys that only their owner
/// can read.
#[test]
fn the_documented_authority_is_accepted_by_strict_clients() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tls.md")).unwrap();
    let section = page.split("### A certification authority of your own").nth(1).unwrap();
    let commands = section.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let dir = tempfile::tempdir().unwrap();
    done(&Command::new("sh").args(["-e", "-c", commands]).current_dir(dir.path()).output().unwrap());
    is_accepted(dir.path(), "authority.pem", "portcullis.pem", "portcullis.key", "portcullis.lab.internal");
    for key in ["authority.key", "portcullis.key"] {
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(dir.path().join(key)).unwrap());
        assert_eq!(mode & 0o077, 0, "{key}");
    }
}

/// OPS-08: the same for the certificate authority of these tests.
#[test]
fn the_tests_own_authority_is_accepted_by_strict_clients() {
    let dir = tempfile::tempdir().unwrap();
    Authority::new().issue(&[HOST], 90).write(dir.path(), "gate");
    is_accepted(dir.path(), "gate.ca", "gate.pem", "gate.key", HOST);
}
