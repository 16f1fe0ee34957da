//! Clients of either era use programs of either era (SRC-06, SRC-07).

use serde_json::{Value, json};

use super::program::{call, modern, scripted, started, text};
use crate::clients::refused;
use crate::harness::TestApp;

/// SRC-06, SRC-07: whatever a program speaks is found out, and clients of both eras get the same answers in their own form.
#[tokio::test(flavor = "multi_thread")]
async fn each_era_is_found_out_and_served_to_both() {
    let kinds = ["modern", "legacy", "oldest", "exits"];
    let toml: String = kinds.iter().map(|speaks| scripted(speaks, speaks, "")).collect();
    let (app, token) = started(&toml).await;
    for speaks in kinds {
        let tool = format!("{speaks}_echo");
        let arguments = json!({ "text": "grüß dich \u{2028} 👋" });
        let of_modern = modern(&app, &token, &tool, arguments.clone()).await;
        assert_eq!(
            (&of_modern["resultType"], &of_modern["content"][0]["text"]),
            (&json!("complete"), &arguments["text"])
        );
        let of_legacy = call(&app, &token, &tool, arguments.clone()).await;
        assert_eq!((of_legacy.get("resultType"), &of_legacy["content"]), (None, &of_modern["content"]));
        let era = if speaks == "modern" { "2026-07-28" } else { "legacy" };
        let shown = app.console(&["source", "show", speaks]);
        assert_eq!((&shown["era"], &shown["tools"]), (&json!(era), &json!(15)), "{speaks}");
    }
    assert_eq!(
        super::program::records(&app, "source.crashed"),
        Vec::<Value>::new(),
        "a probe is nobody's crash"
    );
}

/// SRC-07: `era` says what a program speaks, and no question is asked then; a wrong one is told in one line.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_asked_is_taken_at_its_word() {
    let toml =
        scripted("silent", "silent", "era = \"legacy\"") + &scripted("new", "modern", "era = \"2026-07-28\"");
    let (app, token) = started(&toml).await;
    assert_eq!(text(&app, &token, "silent_echo", json!({ "text": "x" })).await, "x");
    assert_eq!(text(&app, &token, "new_echo", json!({ "text": "x" })).await, "x");
    drop(app);
    let app = TestApp::start_configured(&scripted("old", "legacy", "era = \"2026-07-28\"")).await;
    let why = refused(&app, &["source", "test", "old"]);
    assert!(why.contains("does not speak 2026-07-28"), "{why}");
}

/// SRC-02, SRC-07: the era and the lists are remembered, and the lists are there before the program is.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_out_outlives_a_restart() {
    let (app, token) = started(&scripted("one", "legacy", "")).await;
    let app = app.restart_configured(&scripted("one", "broken", "")).await;
    drop(token);
    // Another command line is another source.
    assert_eq!(app.console(&["source", "show", "one"])["tools"], 0);
    let app = app.restart_configured(&scripted("one", "legacy", "")).await;
    super::program::until("it has listed", || app.console(&["source", "show", "one"])["tools"] == 15).await;
    let app = app.restart().await;
    assert_eq!(app.console(&["source", "show", "one"])["tools"], 15);
}
