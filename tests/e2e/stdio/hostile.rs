//! A hostile program behind a real server: what belongs to the gateway and to other programs is closed to it (SRC-11).

use std::sync::Arc;

use serde_json::{Value, json};
use shared::rate::Limits;

use super::program::{call, scripted, text, until};
use crate::harness::TestApp;
use crate::process::{Process, program_on};

/// A server in a process of its own, with these sources, and a token for it.
pub struct Scene {
    pub process: Process,
    pub app: TestApp,
    pub token: String,
    pub dir: Arc<tempfile::TempDir>,
}

impl Scene {
    pub async fn start(toml: &str, sources: &[&str]) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let config = dir.path().join("portcullis.toml");
        // Many users call from one address here.
        let unlimited = Limits::NAMES.join(" = \"off\"\n") + " = \"off\"\n";
        let all = format!("listen = \"localhost:0\"\n[rate]\n{unlimited}{toml}");
        std::fs::write(&config, all).unwrap();
        std::fs::create_dir(dir.path().join("tmp")).unwrap();
        let mut command = program_on(&dir.path().join("data"));
        command.arg("--config").arg(&config).args(["serve", "--json"]).env("TMPDIR", dir.path().join("tmp"));
        let process = Process::spawn(command);
        let app = TestApp::beside(&process, Arc::clone(&dir));
        let token = crate::sources::token(&app).await;
        for source in sources {
            until("it has listed", || app.console(&["source", "show", source])["tools"] != 0).await;
        }
        Self { process, app, token, dir }
    }
}

/// SRC-11, SRC-15: a program opens neither the keys nor the database nor another program's environment, and a command that
/// it sends to the control socket is refused, also where it may use sockets.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_program_reaches_nothing_of_the_gateway() {
    let toml = scripted("bad", "legacy", "")
        + &scripted("worse", "legacy", "unix_sockets = true")
        + &scripted("victim", "modern", "env = { SECRET = \"canary\" }");
    let scene = Scene::start(&toml, &["bad", "worse", "victim"]).await;
    let Scene { process, app, token, .. } = &scene;
    let data = app.data_dir();
    let victim: u32 = text(app, token, "victim_pid", json!({})).await.parse().unwrap();
    let request = json!({"v": 1, "control_key": "ctl_guessed", "command": "user-add", "name": "mallory",
        "groups": [], "role": "admin"});
    let arguments =
        json!({ "data": data, "victim": victim, "gateway": process.id(), "request": request.to_string() });
    for source in ["bad", "worse"] {
        let answer = call(app, token, &format!("{source}_attack"), arguments.clone()).await;
        let tried = answer["structuredContent"].as_object().unwrap_or_else(|| panic!("{answer}"));
        assert_eq!(tried.len(), 13);
        println!("{source}: {}", serde_json::to_string_pretty(tried).unwrap());
        for (what, came) in tried {
            let came = came.as_str().unwrap();
            let refused = came.starts_with("PermissionError");
            match what.as_str() {
                "use a pair of sockets" => assert_eq!(came, "done: x"),
                // Landlock may not restrict these sockets; the server behind it asks for a key.
                "add a user" if source == "worse" => {
                    assert!(refused || came.contains("\"unproven\""), "{what}: {came}");
                }
                _ => assert!(refused, "{source}: {what}: {came}"),
            }
        }
    }
    let users = app.console(&["user", "list"]);
    assert!(!users.to_string().contains("mallory"), "{users}");
    assert!(!data.join("new").exists());
    assert_eq!(text(app, token, "victim_echo", json!({ "text": "x" })).await, "x");
}

/// SRC-11: nobody can read the environment of a supervisor or a launcher either, and no argument shows a secret.
#[tokio::test(flavor = "multi_thread")]
async fn no_process_between_shows_a_secret() {
    let secret = format!("secret-{}", shared::id::random_128());
    let scene = Scene::start(
        &scripted("one", "legacy", "secrets = { TOKEN = \"env:ONE_TOKEN\" }")
            .replace("env:ONE_TOKEN", "secret:one"),
        &[],
    )
    .await;
    let set = crate::secrets::secret(&scene.app, &["set", "one"], &secret);
    assert!(set.status.success());
    scene.app.console(&["source", "restart", "one"]);
    // Written backwards, because the secret itself is not passed on (SRC-10).
    let reversed = json!({ "reversed": true });
    let environment: Value = call(&scene.app, &scene.token, "one_environment", reversed).await;
    assert_eq!(environment["structuredContent"]["TOKEN"], secret.chars().rev().collect::<String>());
    let environment: Value = call(&scene.app, &scene.token, "one_environment", json!({})).await;
    assert_eq!(environment["structuredContent"]["TOKEN"], "[secret]");
    let pid: u32 = text(&scene.app, &scene.token, "one_pid", json!({})).await.parse().unwrap();
    assert_eq!(super::program::marked(&secret), [pid]);
}
