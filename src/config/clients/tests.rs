use std::os::unix::fs::PermissionsExt;

use crate::config::File;

use super::*;

const SHA256: &str = "f2ca1bb6c7e907d06dafe4687e579fce76b37e4e93b7605022da52e6ccc26fd2";

/// A folder with one file of each kind.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str, mode: u32| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    write("good", &format!("cs_{}\n", "A".repeat(43)), 0o600);
    write("wide", &format!("cs_{}", "A".repeat(43)), 0o640);
    write("guessable", "hunter2\n", 0o600);
    write("binary", "", 0o600);
    fs::write(dir.path().join("binary"), [0xFF]).unwrap();
    write(
        "keys",
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
        0o644,
    );
    write("open", "{}", 0o666);
    write("private", r#"{"keys":[{"kty":"oct","k":"AA"}]}"#, 0o600);
    fs::create_dir(dir.path().join("folder")).unwrap();
    dir
}

fn load(dir: &Path, text: &str) -> anyhow::Result<Vec<Configured>> {
    let path = dir.join("p.toml");
    fs::write(&path, text).unwrap();
    File::load(Some(&path)).map(|file| file.clients)
}

#[test]
fn every_key_is_read() {
    let dir = folder();
    let text = format!(
        r#"
        [clients.portal]
        title = "Ticket portal"
        redirect_uris = ["https://portal.example/cb", "http://localhost/cb"]
        secret_sha256 = "{SHA256}"
        secret_file = "good"
        grants = "authorization_code"

        [clients.robot]
        jwks_file = "keys"
        scope = "docs.read"

        [clients.tv]
        public = true
        device = true
        "#
    );
    let clients = load(dir.path(), &text).unwrap();
    let ids: Vec<&str> = clients.iter().map(|client| client.id().as_str()).collect();
    assert_eq!(ids, ["c_portal", "c_robot", "c_tv"]);
    let portal = clients[0].wanted();
    assert_eq!((portal.name(), portal.auth_method()), ("Ticket portal", "client_secret_basic"));
    assert!(portal.redirect_uris().eq(["http://localhost/cb", "https://portal.example/cb"]));
    assert_eq!(portal.grant_types(), ["authorization_code"]);
    let robot = clients[1].wanted();
    assert_eq!((robot.name(), robot.auth_method()), ("robot", "private_key_jwt"));
    assert_eq!(
        (robot.grant_types(), robot.scope().to_string()),
        (&["client_credentials".to_owned()][..], "docs.read".to_owned())
    );
    assert_eq!(clients[2].wanted().auth_method(), "none");
}

/// OPS-03, CAUTH-06, CC-01: each of these prevents the start with one line.
#[test]
#[allow(clippy::too_many_lines, reason = "one table of mistakes, best read in one piece")]
fn every_mistake_has_its_line() {
    let dir = folder();
    let here = dir.path().display().to_string();
    let uri = "redirect_uris = \"https://a.example/cb\"";
    let public = format!("public = true\n{uri}");
    let client = |rest: &str| format!("[clients.x]\n{rest}");
    let twin = |rest: &str| format!("[clients.a]\n{rest}\n[clients.b]\n{rest}\n");
    let other =
        format!("secret_sha256 = [\"{}\", \"{SHA256}\"]\nsecret_file = \"good\"\n{uri}", "0".repeat(64));
    for (text, says) in [
        ("clients = 1".to_owned(), "`clients` at DIR/p.toml:1 must be a table, not integer"),
        ("clients.x = 1".to_owned(), "`x` at DIR/p.toml:1 must be a table, not integer"),
        (
            client("redirect_uri = 1"),
            "unknown key `redirect_uri` at DIR/p.toml:2; did you mean `redirect_uris`?",
        ),
        (client("publik = true"), "unknown key `publik` at DIR/p.toml:2; did you mean `public`?"),
        (
            client("secret = \"hunter2\""),
            "`secret` at DIR/p.toml:2 would be visible to everybody who reads this file; write secret_sha256, which `portcullis client new-secret` prints, or secret_file",
        ),
        (client("client_secret = \"hunter2\""), "`client_secret` at DIR/p.toml:2 would be visible to"),
        ("[clients.X]".to_owned(), "the client `X` at DIR/p.toml:1 needs another name: a letter, then"),
        (
            "[clients.\"a b\"]".to_owned(),
            "the client `a b` at DIR/p.toml:1 needs another name: a letter, then",
        ),
        (
            client(uri),
            "the client `x` at DIR/p.toml:1 has no authentication method; write public = true, secret_sha256, secret_file or jwks_file",
        ),
        (
            client(&format!("{public}\nsecret_file = \"good\"")),
            "the client `x` at DIR/p.toml:1 has two authentication methods",
        ),
        (
            client(&format!("{public}\njwks_file = \"keys\"")),
            "the client `x` at DIR/p.toml:1 has two authentication methods",
        ),
        (client(&other), "the client `x` at DIR/p.toml:1 has more than two secrets"),
        (
            client("secret_sha256 = \"abc\""),
            "`secret_sha256` at DIR/p.toml:2 is not a SHA-256 digest: write the 64 hexadecimal digits",
        ),
        (client("\nsecret_sha256 = [\n7]"), "`secret_sha256` at DIR/p.toml:4 must be a string, not integer"),
        (
            client("secret_file = \"none\""),
            "cannot read DIR/none, set by `secret_file` at DIR/p.toml:2: No such file",
        ),
        (client("secret_file = \"folder\""), "DIR/folder at DIR/p.toml:2 is not a file"),
        (
            client("secret_file = \"wide\""),
            "DIR/wide can be read by others (mode 640); run: chmod 600 DIR/wide",
        ),
        (
            client("secret_file = \"guessable\""),
            "DIR/guessable at DIR/p.toml:2 does not contain a client secret: cs_ and 43 characters",
        ),
        (
            client("secret_file = \"binary\""),
            "cannot read DIR/binary, set by `secret_file` at DIR/p.toml:2: stream did not contain valid UTF-8",
        ),
        (
            client("jwks_file = \"open\""),
            "DIR/open can be changed by everybody (mode 666); run: chmod o-w DIR/open",
        ),
        (
            client(&format!("{uri}\njwks_file = \"private\"")),
            "the client `x` at DIR/p.toml:3: its keys are not a valid JWK set: it holds a private or a shared key",
        ),
        (
            client(&format!("{uri}\njwks_file = \"good\"")),
            "the client `x` at DIR/p.toml:3: its keys are not a valid JWK set: it is not JSON",
        ),
        (client("public = \"yes\""), "`public` at DIR/p.toml:2 must be true or false, not string"),
        (client("public = false"), "has no authentication method"),
        (client("public = true"), "the client `x` at DIR/p.toml:1: it would have no use"),
        (
            client("public = true\nredirect_uris = [\n\"https://a.example/cb\",\n\"http://a.example/cb\"]"),
            "the client `x` at DIR/p.toml:5: the redirect URI `http://a.example/cb` is http to another computer",
        ),
        (
            client(&format!("{public}\ngrants = [\"authorization_code\",\n\"password\"]")),
            "the client `x` at DIR/p.toml:5: unknown grant type `password`",
        ),
        (
            client(&format!("{public}\nscope = \"docs.read\"")),
            "the client `x` at DIR/p.toml:1: client_credentials needs a client that can prove who it is",
        ),
        (
            client("secret_file = \"good\"\nscope = \"docs.reed\""),
            "the client `x` at DIR/p.toml:3 names an unknown scope `docs.reed`; did you mean `docs.read`?",
        ),
        (
            client(&format!("{public}\ntitle = \"Port-Cullis\"")),
            "the client `x` at DIR/p.toml:1 looks like this server's name; give it another title",
        ),
        (
            client(&format!("{public}\ntitle = \"c_x\"")),
            "the client `x` at DIR/p.toml:1: `c_x` is not a valid client name",
        ),
        (
            twin(&format!("{public}\ntitle = \"Twin\"")),
            "the clients `a` and `b` at DIR/p.toml:5 look alike; give one of them another title",
        ),
        (
            twin(&format!("secret_file = \"good\"\n{uri}")),
            "the clients `a` and `b` at DIR/p.toml:4 have the same secret; give each client its own",
        ),
    ] {
        let line = format!("{:#}", load(dir.path(), &text).unwrap_err()).replace(&here, "DIR");
        assert!(line.starts_with(says) || line.contains(says), "{text}\n{line}");
        assert!(!line.contains('\n') && !line.contains("hunter2"), "{line}");
    }
}
