use axum::body::Body;
use axum::routing::{get, post};
use serde_json::{Value, json};
use shared::route::{Limit, page, program};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::base::Base;
use crate::config::File;
use crate::front::address::Listen;
use crate::front::config::Config;
use crate::front::listen::Listeners;
use crate::routes::healthz;
use crate::{logging, timekeeping};

/// HTTP-03: ambiguous paths are refused.
#[test]
fn only_plain_paths_pass() {
    assert!(is_plain_path("/authorize") && is_plain_path("/.well-known/oauth-protected-resource/mcp"));
    for odd in ["//evil", "/a;b", "/a/../b", "/a/./b", "/a%2fb", "/a%5Cb", "/a%00", "/%2e%2e/", "/a\\b"] {
        assert!(!is_plain_path(odd), "{odd}");
    }
}

fn entrance() -> Entrance {
    Entrance {
        config: Config::default(),
        address: Issuer::localhost(8080),
        tls: None,
        protection: Protection::Loopback,
        reload: Arc::default(),
    }
}

/// The layer around handlers that panic, one of which knows a secret.
async fn buggy(dir: &tempfile::TempDir, port: u16) -> (Base, Application) {
    let file = File { data_dir: Some(dir.path().join("data")), ..File::default() };
    let issuer = Issuer::parse(&format!("http://localhost:{port}")).unwrap();
    let open = move || Base::open_or_create(&file, true, issuer, &timekeeping::clock().unwrap()).unwrap();
    let base = tokio::task::spawn_blocking(open).await.unwrap();
    let forgetful = async |body: String| -> Response { panic!("did not expect {body}") };
    let free = Limit::Free("a test");
    let routes = Routes::default()
        .route("/healthz", program(get(healthz), free))
        .route("/token", program(post(forgetful), free))
        .route("/account", page(get(async || -> Response { panic!("nobody thought of this") }), free));
    let halves = Halves { start: None, pages: Some(Arc::new(base.authz.clone())), sharing: None };
    let app = around(routes, base.authz.issuer().clone(), halves, &entrance());
    (base, app)
}

/// HTTP-10, HTTP-12: a panic in a handler is answered with fixed words, in JSON or as a page, and logged with
/// the request's id and the place of the panic, but without anything of the request.
#[tokio::test]
async fn a_panic_is_answered_with_500_and_logged() {
    let dir = tempfile::tempdir().unwrap();
    let (_base, app) = buggy(&dir, 8080).await;
    let log = logging::tests::CapturedLog::default();
    std::panic::set_hook(Box::new(logging::panicked));
    let _logging = tracing::subscriber::set_default(log.subscriber());
    let ask = async |method: Method, path: &str, accept: &str| {
        let request = Request::builder().method(method).uri(path).header("host", "localhost:8080");
        let request = request.header("accept", accept).body(Body::from("rt_secret")).unwrap();
        let (parts, body) = app(request).await.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (parts, String::from_utf8(body.to_vec()).unwrap())
    };
    let (parts, body) = ask(Method::POST, "/token", "*/*").await;
    assert_eq!(
        (parts.status, parts.headers["x-content-type-options"].as_bytes()),
        (StatusCode::INTERNAL_SERVER_ERROR, &b"nosniff"[..])
    );
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(told, json!({ "error": "server_error", "error_description": "internal server error" }));
    let (parts, page) = ask(Method::GET, "/account", "text/html").await;
    assert_eq!(parts.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(page.contains("data-testid=\"error\"") && !page.contains("nobody"), "{page}");

    let text = log.text();
    assert!(!text.contains("rt_secret"), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let panics: Vec<_> = lines.iter().filter(|line| !line["panic.at"].is_null()).collect();
    assert_eq!(panics.len(), 2, "{text}");
    for (panic, (path, words)) in
        panics.iter().zip([("/token", "not shown here"), ("/account", "nobody thought of this")])
    {
        assert_eq!((&panic["level"], &panic["panic.words"]), (&json!("ERROR"), &json!(words)));
        assert_eq!(panic["span"]["http.path"], path);
        assert!(panic["panic.at"].as_str().unwrap().starts_with("src/front/http/tests.rs:"), "{panic}");
    }
    // Users see this id on the page.
    let id = panics[1]["span"]["request.id"].as_str().unwrap();
    assert!(page.contains(id), "{id} {page}");
}

/// HTTP-10: the connection on which a panic happened continues, and so do others.
#[tokio::test]
async fn a_panic_does_not_end_the_connection() {
    let listeners = Listeners::bind(Listen::Loopback(0)).await.unwrap();
    let port = listeners.port().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (_base, app) = buggy(&dir, port).await;
    let stop = CancellationToken::new();
    let serving = tokio::spawn(listeners.serve(app, entrance(), stop.clone()));
    let open = async || TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let ask = async |stream: &mut TcpStream, line: &str| {
        let request = format!("{line} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        let mut rest = Vec::new();
        // No answer here is longer, and each has a recognisable end.
        while !rest.ends_with(b"ok\n") && !rest.ends_with(b"}") {
            assert!(stream.read_buf(&mut rest).await.unwrap() > 0, "the connection ended");
        }
        String::from_utf8_lossy(&status[9..]).into_owned()
    };
    let (mut first, mut second) = (open().await, open().await);
    for _ in 0..3 {
        assert_eq!(ask(&mut first, "POST /token").await, "500");
        assert_eq!(ask(&mut first, "GET /healthz").await, "200");
        assert_eq!(ask(&mut second, "GET /healthz").await, "200");
    }
    stop.cancel();
    serving.await.unwrap();
}
