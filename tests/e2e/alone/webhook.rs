//! `kind = "webhook"`, with the example of its page as written, and a receiver that checks signatures.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::service::{Arrived, Reply, Service};
use super::{call, error, example};
use crate::harness::TestApp;
use crate::sources::token;

pub const SECRET: &str = "canary-hook-77";

/// Whether OpenSSL's own command makes the same signature of what arrived.
pub fn is_signed(arrived: &Arrived, secret: &str) -> bool {
    let header = |name: &str| arrived.header(name).unwrap_or_default().to_owned();
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", secret])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let signed =
        format!("{}.{}.{}", header("portcullis-timestamp"), header("portcullis-delivery"), arrived.body);
    child.stdin.take().unwrap().write_all(signed.as_bytes()).unwrap();
    let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let made = output.trim().rsplit(' ').next().unwrap();
    header("portcullis-signature") == format!("sha256={made}")
        && header("idempotency-key") == header("portcullis-delivery")
}

/// A receiver that honours the key: each delivery is executed once.
#[derive(Clone, Default)]
pub struct Receiver(Arc<Mutex<BTreeSet<String>>>);

impl Receiver {
    /// How many deliveries it executed.
    pub fn executed(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub fn execute(&self, arrived: &Arrived) {
        assert!(is_signed(arrived, SECRET), "{arrived:?}");
        self.0.lock().unwrap().insert(arrived.header("idempotency-key").unwrap().to_owned());
    }
}

/// The example with this receiver, rules that a plain token fits, and the secret in this folder.
fn configured(url: &str, dir: &Path, timeout: &str) -> String {
    let toml = example(include_str!("../../../docs/webhook.md"));
    let secret = dir.join("ci.secret");
    std::fs::write(&secret, SECRET).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(
        toml.contains("https://ci.lab.internal")
            && toml.contains("file:ci.secret")
            && toml.contains("\"2m\"")
    );
    let toml = toml.replace("https://ci.lab.internal", url);
    let toml =
        toml.replace("file:ci.secret", &format!("file:{}", secret.display())).replace("\"2m\"", timeout);
    toml.replace("scope = \"ci.trigger\"", "scope = \"docs.read\"")
}

async fn started(service: &Service, dir: &Path, timeout: &str) -> (TestApp, String) {
    let app = TestApp::start_configured(&configured(&service.url, dir, timeout)).await;
    let token = token(&app).await;
    (app, token)
}

fn nightly() -> Value {
    json!({ "pipeline": "nightly" })
}

/// How each call of the tool ended, by the audit log.
fn results(app: &TestApp) -> Vec<String> {
    let ended = app.audit().into_iter().filter(|record| record["event"] == "mcp.result");
    ended.map(|record| record["detail"]["result"].as_str().unwrap().to_owned()).collect()
}

/// HOOK-01: a message is signed, says who and what, and is followed to its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_signed_and_followed() {
    let (dir, receiver) = (tempfile::tempdir().unwrap(), Receiver::default());
    let executes = receiver.clone();
    let service = Service::start(move |arrived, at| {
        if arrived.method == "GET" {
            assert!(is_signed(arrived, SECRET));
            let done =
                json!({ "state": if at > 3 { "succeeded" } else { "running" }, "progress": at, "log": "ok" });
            return Reply::Json(200, done);
        }
        executes.execute(arrived);
        Reply::Json(202, json!({ "queued": true }))
    });
    let (app, token) = started(&service, dir.path(), "\"30s\"").await;
    let result = call(&app, &token, "ci_trigger_pipeline", nightly()).await;
    let data = &result["structuredContent"];
    assert_eq!((&data["state"], &data["answer"]["log"]), (&json!("succeeded"), &json!("ok")), "{result}");
    let arrived = service.arrived();
    let message = arrived[0].json();
    assert_eq!(message["arguments"], json!({ "pipeline": "nightly", "branch": "main" }));
    assert_eq!((&message["tool"], &message["delivery"]), (&json!("trigger_pipeline"), &data["delivery"]));
    assert!(arrived[1].path.starts_with("/hooks/status?delivery=dlv_") && receiver.executed() == 1);
    assert!(
        !arrived.iter().any(|arrived| format!("{arrived:?}").contains(SECRET)),
        "the secret is never sent"
    );
    let events: Vec<String> = app
        .audit()
        .iter()
        .filter(|one| one["detail"]["name"] == "ci_trigger_pipeline")
        .map(|one| one["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(events, ["mcp.call", "mcp.result"], "on record before and after");
    assert!(!json!(app.audit()).to_string().contains(SECRET));
    let wrong = call(&app, &token, "ci_trigger_pipeline", json!({ "pipeline": "format" })).await;
    assert!(error(&wrong).contains("one of \"build\", \"nightly\", \"deploy\""), "{wrong}");
}

/// HOOK-01, SRC-08: a receiver that dies after it has read, or is slow, gets the same message again; it executes it once, and
/// the outcome says what is known.
#[tokio::test(flavor = "multi_thread")]
async fn one_message_is_executed_once() {
    let (dir, receiver) = (tempfile::tempdir().unwrap(), Receiver::default());
    let executes = receiver.clone();
    let service = Service::start(move |arrived, at| {
        executes.execute(arrived);
        if at % 3 == 1 { Reply::Dies } else { Reply::Json(200, json!({ "at": at })) }
    });
    let (app, token) = started(&service, dir.path(), "\"20s\"").await;
    let result = call(&app, &token, "ci_trigger_pipeline", nightly()).await;
    assert_eq!(result["structuredContent"]["state"], "accepted", "{result}");
    assert_eq!((service.arrived().len(), receiver.executed()), (2, 1), "sent twice, executed once");
    let [first, second] = &service.arrived()[..] else { panic!() };
    assert_eq!(
        (first.header("idempotency-key"), &first.body),
        (second.header("idempotency-key"), &second.body)
    );

    let (dir, receiver) = (tempfile::tempdir().unwrap(), Receiver::default());
    let executes = receiver.clone();
    let dying = Service::start(move |arrived, _| {
        executes.execute(arrived);
        Reply::Dies
    });
    let (app, token) = started(&dying, dir.path(), "\"20s\"").await;
    let lost = call(&app, &token, "ci_trigger_pipeline", nightly()).await;
    assert!(error(&lost).contains("It may have acted") && error(&lost).contains("dlv_"), "{lost}");
    assert_eq!((dying.arrived().len(), receiver.executed()), (3, 1));
    assert_eq!(results(&app), ["unknown"]);

    let (dir, receiver) = (tempfile::tempdir().unwrap(), Receiver::default());
    let executes = receiver.clone();
    let slow = Service::start(move |arrived, _| {
        executes.execute(arrived);
        Reply::Never
    });
    let (app, token) = started(&slow, dir.path(), "\"4s\"").await;
    let late = call(&app, &token, "ci_trigger_pipeline", nightly()).await;
    assert!(!error(&late).is_empty());
    assert_eq!((receiver.executed(), results(&app)), (1, vec!["unknown".to_owned()]));
}

/// HOOK-01, SRC-08: an answer of any status ends the attempts; a receiver that is not there was sent nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_not_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(|_, _| Reply::Json(500, json!({ "why": "disk full" })));
    let (app, token) = started(&service, dir.path(), "\"20s\"").await;
    let failed = call(&app, &token, "ci_trigger_pipeline", nightly()).await;
    assert!(error(&failed).contains("HTTP 500") && error(&failed).contains("disk full"), "{failed}");
    assert_eq!((service.arrived().len(), results(&app)), (1, vec!["tool_error".to_owned()]));
    let dir = tempfile::tempdir().unwrap();
    let url = format!("http://127.0.0.1:{}", crate::certificates::unused_port());
    let app = TestApp::start_configured(&configured(&url, dir.path(), "\"20s\"")).await;
    let token = self::token(&app).await;
    let down = call(&app, &token, "ci_trigger_pipeline", nightly()).await;
    assert!(error(&down).contains("Nothing was done"), "{down}");
    assert_eq!(results(&app), ["not_sent"]);
}
