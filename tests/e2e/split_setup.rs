//! Setting up a gateway elsewhere: its configuration, and the documented steps.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::gateway::{AUDIENCE, GatewayAddress, ORIGIN, write_secret};
use crate::harness::TestApp;
use crate::process::{Process, complaint, portcullis};
use crate::split::tokens;

/// `portcullis check`, as JSON.
pub fn check(arguments: &[&str]) -> Value {
    let output = portcullis(&[&["check", "--json", "--listen", "localhost:0"], arguments].concat());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// OPS-03: `check --only resource` reports what would prevent a gateway from starting, and `serve` reports the
/// same. An unreachable authorization server is not a configuration error.
#[test]
fn check_knows_what_a_gateway_needs() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let secret = |name: &str, text: &str, mode: u32| write_secret(&dir.path().join(name), text, mode);
    secret("secret", "cs_x", 0o600);
    secret("open", "cs_x", 0o644);
    secret("empty", "", 0o600);
    std::fs::write(path("no.pem"), "nothing").unwrap();
    let issuer = crate::certificates::Authority::new().issue(&["auth.lab.internal"], 90);
    std::fs::write(path("ca.pem"), issuer.authority).unwrap();
    let good = "issuer = \"https://auth.lab.internal\"\norigin = \"https://gateway.lab.internal\"\ntrusted_proxies = [\"127.0.0.1\"]\n\
        [remote]\nclient_id = \"c_x\"\nsecret_file = \"secret\"\nca = \"ca.pem\"\n";
    let (config, data) = (path("gw.toml"), path("data"));
    let arguments = ["--only", "resource", "--config", &config, "--data-dir", &data];
    std::fs::write(&config, format!("{good}cache = \"2s\"\n[remote.checks]\n\"docs.read\" = \"always\"\n"))
        .unwrap();
    let checked = check(&arguments);
    assert_eq!(
        (&checked["ok"], &checked["problems"], &checked["warnings"]),
        (&json!(true), &json!([]), &json!([]))
    );
    assert_eq!(
        checked["gateway"],
        json!({"origin": "https://gateway.lab.internal", "client_id": "c_x", "cache_ms": 2000, "checks": {"docs.read": "always"}})
    );
    let words = portcullis(&[&["check"], &arguments[..]].concat());
    let words = String::from_utf8(words.stdout).unwrap();
    assert!(
        words.contains("Origin         https://gateway.lab.internal") && words.contains("docs.read: always"),
        "{words}"
    );

    for (was, is, says) in [
        ("issuer = \"https://auth.lab.internal\"\n", "", "--only resource needs --issuer"),
        ("https://auth.lab.internal", "http://auth.lab.internal", "auth.lab.internal"),
        ("https://auth.lab.internal", "auth.lab.internal", "issuer"),
        ("https://auth.lab.internal", "https://gateway.lab.internal", "own address"),
        ("origin = \"https://gateway.lab.internal\"\n", "", "no origin is set"),
        ("https://gateway.lab.internal", "https://gateway.lab.internal/mcp", "gateway.lab.internal/mcp"),
        (
            "trusted_proxies = [\"127.0.0.1\"]\n",
            "",
            "the origin https://gateway.lab.internal is https, but TLS is not configured",
        ),
        ("client_id = \"c_x\"\n", "", "portcullis rs add"),
        ("c_x", "c:x", "is not a valid client_id"),
        ("secret_file = \"secret\"\n", "", "portcullis rs add"),
        ("secret_file = \"secret\"", "secret_file = \"missing\"", "cannot read the secret in"),
        ("secret_file = \"secret\"", "secret_file = \"open\"", "chmod 600"),
        ("secret_file = \"secret\"", "secret_file = \"empty\"", "does not contain exactly one secret"),
        ("secret_file = \"secret\"", "secret = \"cs_x\"", "unknown key"),
        ("ca.pem", "missing.pem", "`ca` cannot be read"),
        ("ca.pem", "no.pem", "contains no PEM certificate"),
        ("ca = ", "cache = \"61s\"\nca = ", "at most 60 seconds"),
        ("ca = ", "checks = { \"docs.raed\" = \"always\" }\nca = ", "unknown scope"),
        ("ca = ", "checks = { \"docs.read\" = \"never\" }\nca = ", "expiry-only"),
    ] {
        std::fs::write(&config, good.replacen(was, is, 1)).unwrap();
        let checked = check(&arguments);
        assert_eq!(checked["ok"], false, "{says}");
        let problems: Vec<&str> =
            checked["problems"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(problems.iter().any(|problem| problem.contains(says)), "{says}: {problems:?}");
        let served = portcullis(&[&["serve", "--listen", "localhost:0"], &arguments[..]].concat());
        assert_eq!(served.status.code(), Some(1), "{says}");
        assert!(complaint(&served).contains(says), "{says}: {}", complaint(&served));
    }
    // Without the option, the message says so.
    std::fs::write(&config, good).unwrap();
    let whole = check(&arguments[2..]);
    let warned = whole["warnings"].as_array().unwrap().iter().filter_map(Value::as_str);
    assert_eq!(warned.filter(|warning| warning.contains("--only resource")).count(), 1);
}

/// The code blocks of a page in one language.
fn blocks(page: &'static str, language: &str) -> Vec<&'static str> {
    let begins = format!("```{language}\n");
    let blocks = page.split(begins.as_str()).skip(1);
    blocks.filter_map(|rest| rest.split_once("```")).map(|(block, _)| block.trim()).collect()
}

/// A command as the page shows it, in a folder, with the environment of this test.
fn as_written(line: &str, folder: &std::path::Path, environment: &[(&str, String)]) -> std::process::Command {
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some("portcullis"), "{line}");
    let mut command = crate::process::program();
    command.args(words).current_dir(folder);
    command.envs(environment.iter().map(|(name, value)| (*name, value)));
    command
}

/// RS-02, RS-16: the steps in `docs/gateways.md` work as written; only host names and folders that do not exist
/// here are replaced through the environment.
#[tokio::test(flavor = "multi_thread")]
async fn the_documented_way_leads_there() {
    let page = include_str!("../../docs/gateways.md");
    let (commands, files) = (blocks(page, "sh"), blocks(page, "toml"));
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let authz = Process::start(&dir.path().join("data"), "localhost:0", None);
    let app = TestApp::beside(&authz, std::sync::Arc::clone(&dir));
    let mut browser = app.admin().await;

    let data = dir.path().join("data").to_str().unwrap().to_owned();
    let added = as_written(commands[0], dir.path(), &[("PORTCULLIS_DATA_DIR", data)]).output().unwrap();
    let added = String::from_utf8(added.stdout).unwrap();
    let printed = |start: &str| {
        let word = added.split_whitespace().find(|word| word.starts_with(start));
        word.unwrap_or_else(|| panic!("no {start}… in {added}")).to_owned()
    };
    let (id, secret) = (printed("c_"), printed("cs_"));

    let machine = dir.path().join("machine");
    std::fs::create_dir_all(machine.join("handbook")).unwrap();
    std::fs::write(machine.join("handbook/a.md"), "# Passkeys\n\nEverybody has a passkey.\n").unwrap();
    write_secret(&machine.join("gateway.secret"), &secret, 0o600);
    let documented = "c_3yi6mwnrgdgxmmvh5xeoibbpki";
    assert!(files[0].contains(documented));
    std::fs::write(machine.join("portcullis.toml"), files[0].replace(documented, &id)).unwrap();
    let authority = crate::certificates::Authority::new();
    let identity = authority.issue(&["gateway.lab.internal"], 90);
    std::fs::write(machine.join("lab-ca.pem"), &identity.authority).unwrap();
    let [certificate, key] = identity.write(&machine, "gateway");
    let port = crate::certificates::unused_port();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let environment = [
        ("PORTCULLIS_ISSUER", app.origin.clone()),
        ("PORTCULLIS_LISTEN", format!("127.0.0.1:{port}")),
        ("PORTCULLIS_TLS_CERT", text(&certificate)),
        ("PORTCULLIS_TLS_KEY", text(&key)),
        ("PORTCULLIS_DATA_DIR", text(&machine.join("data"))),
        ("PORTCULLIS_DOCS", text(&machine.join("handbook"))),
    ];
    let checked = as_written(commands[1], &machine, &environment).output().unwrap();
    assert!(checked.status.success(), "{}", complaint(&checked));
    let mut serve = as_written(commands[2], &machine, &environment);
    serve.arg("--json");
    let gateway = Process::spawn(serve);
    assert_eq!(gateway.mcp_url, AUDIENCE);

    let http = reqwest::Client::builder()
        .no_proxy()
        .add_root_certificate(reqwest::Certificate::from_pem(&identity.authority).unwrap())
        .resolve("gateway.lab.internal", ([127, 0, 0, 1], port).into());
    let door = GatewayAddress { http: http.build().unwrap(), url: format!("{ORIGIN}:{port}") };
    let challenge = door.request(Method::POST, "/mcp").json(&json!({})).send().await.unwrap();
    assert_eq!(challenge.status(), 401);
    let client = app.client().await;
    let tokens = tokens(&app, &mut browser, &client).await;
    let found = door.search(&tokens.access).await;
    assert_eq!(found.status(), 200);
    assert!(found.text().await.unwrap().contains("Everybody has a"));

    // The other blocks are only parsed.
    let described = "\n[scopes.\"ci.trigger\"]\ntitle = \"Start a pipeline\"\nrisk = \"high\"\n";
    let more = dir.path().join("more.toml");
    std::fs::write(&more, format!("{}{described}", files[1])).unwrap();
    let read = portcullis::config::File::load(Some(&more)).unwrap().remote;
    assert_eq!((read.cache, read.checks.len()), (Duration::from_secs(5), 2));
    assert_eq!((commands.len(), files.len()), (3, 2), "what was added to the page is tested here, too");
}
