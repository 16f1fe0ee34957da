//! Readiness (OPS-05): whether the server can do its work, measured on the program with a file size limit,
//! which acts like a full disk.

use std::time::{Duration, Instant};

use reqwest::StatusCode;

use crate::harness::TestApp;
use crate::process::Process;

async fn ready(app: &TestApp) -> StatusCode {
    app.get("/readyz").await.status()
}

/// Probes until the status is this one; a verdict is cached for a few seconds.
async fn becomes(app: &TestApp, expected: StatusCode) {
    let begun = Instant::now();
    while ready(app).await != expected {
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not become {expected}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// OPS-05, HTTP-10: not ready while nothing can be stored, but alive, and ready again when it can. A volume can
/// be full before the database notices, because it has allocated room.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_can_store_nothing_is_not_ready() {
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let process = Process::start(&dir.path().join("data"), "localhost:0", None);
    let app = TestApp::beside(&process, dir);
    assert_eq!(ready(&app).await, StatusCode::OK);
    // With the first limit nothing can be written; with the second, files cannot grow by much, which the
    // database's log does not need.
    for most in [4096, 900 * 1024] {
        process.limit_files(Some(most));
        becomes(&app, StatusCode::SERVICE_UNAVAILABLE).await;
        assert_eq!(app.get("/healthz").await.status(), StatusCode::OK);
        if most == 4096 {
            let refused =
                app.register(&serde_json::json!({ "redirect_uris": ["http://localhost/cb"] })).await;
            assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        }
        process.limit_files(None);
        becomes(&app, StatusCode::OK).await;
        app.client().await;
    }
    assert!(process.log().contains("the database cannot be written"), "{}", process.log());
    assert_eq!(process.stop(), Some(0));
}
