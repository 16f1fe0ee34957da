//! Requests in unusual forms, and attacks.

use crate::harness::TestApp;
use crate::raw::{Answer, Raw};

async fn sent(app: &TestApp, request: &str) -> Answer {
    let mut raw = Raw::open(&app.origin).await;
    raw.send(request).await;
    raw.answer().await.unwrap_or_else(|| panic!("no answer to {request:?}"))
}

/// HTTP-03, HTTP-08: request targets in each form of RFC 9112 §3.2, and malformed ones.
#[tokio::test]
async fn targets_have_one_form() {
    let app = TestApp::start().await;
    let host = app.origin.strip_prefix("http://").unwrap();
    for (line, expected) in [
        ("GET /healthz".to_owned(), 200),
        (format!("GET http://{host}/healthz"), 200),
        (format!("GET ftp://{host}/healthz"), 400),
        (format!("GET http://evil@{host}/healthz"), 400),
        ("GET healthz".to_owned(), 400),
        ("GET \\healthz".to_owned(), 400),
        ("GET /healthz#token".to_owned(), 400),
        ("GET /healthz?a#b".to_owned(), 400),
        ("GET /healthz%00".to_owned(), 400),
        ("GET /healthz\0".to_owned(), 400),
        ("GET /%2e%2e/healthz".to_owned(), 400),
        ("GET /.%2e/healthz".to_owned(), 400),
        ("GET //healthz".to_owned(), 400),
        ("GET /healthz/".to_owned(), 404),
        ("GET /%68ealthz".to_owned(), 404),
        ("GET /HEALTHZ".to_owned(), 404),
        ("GET *".to_owned(), 404),
        ("OPTIONS *".to_owned(), 404),
        (format!("CONNECT {host}"), 404),
        ("CONNECT evil.example:443".to_owned(), 400),
        ("CONNECT /healthz".to_owned(), 405),
        ("TRACE /healthz".to_owned(), 405),
        ("get /healthz".to_owned(), 405),
        ("PRI /healthz".to_owned(), 405),
    ] {
        let answer =
            sent(&app, &format!("{line} HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\n\r\n")).await;
        assert_eq!(answer.status, expected, "{line}: {answer:?}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{line}");
        assert!(!answer.text().contains("evil"), "nothing is echoed");
    }
    for named in
        [format!("evil@{host}"), format!("{host}, evil.example"), host.replace("localhost", "localhost.")]
    {
        let answer = sent(&app, &format!("GET /jwks.json HTTP/1.1\r\nHost: {named}\r\n\r\n")).await;
        assert!(matches!(answer.status, 400 | 421), "{named}: {answer:?}");
    }
}

/// HTTP-09: heads and chunks that some parsers accept and others do not are refused, with our own error.
#[tokio::test]
async fn ambiguous_requests_are_refused() {
    let app = TestApp::start().await;
    let host = app.origin.strip_prefix("http://").unwrap();
    let long = "a".repeat(10_000);
    for lines in [
        "Content-Length: 18446744073709551615\r\n",
        "Content-Length: 18446744073709551614\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length: 0x3\r\n",
        "Content-Length: 3, 3\r\n",
        "Content-Length: \r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "X: a\r\n b\r\n",
        "X: a\rb\r\n",
        "X: a\0b\r\n",
        " X: y\r\n",
        "X : y\r\n",
    ] {
        let answer = sent(&app, &format!("POST /token HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n")).await;
        assert_eq!(
            (answer.status, answer.header("connection")),
            (400, Some("close")),
            "{lines:?}: {answer:?}"
        );
        assert_eq!(answer.json()["error"], "invalid_request", "{lines:?}");
    }
    for chunks in [
        format!("1;{long}\r\nx\r\n0\r\n\r\n"),
        format!("{}0\r\n\r\n", format!("1;{}\r\nx\r\n", &long[..100]).repeat(1_000)),
        format!("0\r\n{}\r\n", "X: y\r\n".repeat(5_000)),
        "ffffffffffffffffff\r\nx".to_owned(),
        "-1\r\nx".to_owned(),
        "0x1\r\nx\r\n0\r\n\r\n".to_owned(),
        "1\nx\n0\n\n".to_owned(),
    ] {
        let form = "Content-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n";
        let answer = sent(&app, &format!("POST /token HTTP/1.1\r\nHost: {host}\r\n{form}\r\n{chunks}")).await;
        assert_eq!(answer.status, 400, "{:?}: {answer:?}", &chunks[..chunks.len().min(40)]);
        assert_eq!(answer.header("connection"), Some("close"));
    }
    // A request for another protocol is answered in this one.
    for upgrade in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
    ] {
        let answer = sent(&app, &format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n{upgrade}\r\n")).await;
        assert_eq!((answer.status, answer.header("upgrade")), (200, None));
    }
}
