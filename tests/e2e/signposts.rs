//! Pages for people who opened an address that is not for them: another host, plain http, an address for MCP clients.

use reqwest::Method;
use serde_json::json;

use crate::gateway::LocalGateway;
use crate::harness::TestApp;
use crate::raw::{Answer, Raw};

const BROWSER: &str = "Accept: text/html,application/xhtml+xml\r\n";

async fn get(origin: &str, path: &str, headers: &str) -> Answer {
    let mut raw = Raw::open(origin).await;
    raw.send(format!("GET {path} HTTP/1.1\r\n{headers}\r\n")).await;
    raw.answer().await.unwrap()
}

fn is_page(answer: &Answer) -> bool {
    answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html"))
}

/// HTTP-03, HTTP-08: under another host name a browser reads the right address; the status and a program's JSON stay, and
/// nothing of the wrong name is repeated.
#[tokio::test]
async fn a_browser_at_another_name_is_told_the_right_one() {
    let app = TestApp::start().await;
    for path in ["/", "/setup", "/nowhere", "/mcp", "/token"] {
        let answer = get(&app.origin, path, &format!("Host: evil.example\r\n{BROWSER}")).await;
        assert_eq!(answer.status, 421, "{path}");
        assert!(is_page(&answer) && answer.text().contains(&format!("<a href=\"{0}\">{0}</a>", app.origin)));
        assert!(!answer.text().contains("evil.example"), "{}", answer.text());
        assert!(answer.header("content-security-policy").unwrap().contains("default-src 'none'"));
        let program = get(&app.origin, path, "Host: evil.example\r\nAccept: application/json\r\n").await;
        assert_eq!((program.status, program.json()["error"].is_string() || path == "/mcp"), (421, true));
    }
}

/// RS-02, MCP-02: in a browser the MCP endpoint says that it is for clients; the challenge stays, and clients get what they
/// always got.
#[tokio::test]
async fn a_browser_at_the_mcp_url_is_told_where_people_start() {
    let app = TestApp::start().await;
    let host = app.origin.strip_prefix("http://").unwrap().to_owned();
    let page = get(&app.origin, "/mcp", &format!("Host: {host}\r\n{BROWSER}")).await;
    assert_eq!(page.status, 401);
    assert!(page.header("www-authenticate").unwrap().starts_with("Bearer resource_metadata="));
    assert!(is_page(&page) && page.text().contains("This address is for MCP clients"), "{}", page.text());
    assert!(page.text().contains(&format!("start at <a href=\"{}\">", app.origin)), "{}", page.text());
    for accept in ["", "Accept: text/event-stream\r\n", "Accept: application/json\r\n"] {
        let client = get(&app.origin, "/mcp", &format!("Host: {host}\r\n{accept}")).await;
        assert_eq!((client.status, is_page(&client)), (401, false), "{accept}");
        assert_eq!(client.header("www-authenticate"), page.header("www-authenticate"));
    }
}

/// HTTP-01: plain http on a port that speaks TLS is refused; a browser reads the https address, and nothing is redirected.
#[tokio::test]
async fn a_browser_that_speaks_plain_http_is_told_the_https_address() {
    let app = TestApp::start_secured("").await;
    let page = get(&app.origin, "/x?<script>", &format!("Host: \"><script>\r\n{BROWSER}")).await;
    assert_eq!((page.status, page.header("location")), (400, None));
    assert!(is_page(&page) && page.text().contains(&format!("<a href=\"{0}\">{0}</a>", app.origin)));
    assert!(!page.text().contains("<script>"), "{}", page.text());
    let program = get(&app.origin, "/", "Host: x\r\nAccept: */*\r\n").await;
    assert_eq!((program.status, &program.json()["error"]), (400, &json!("tls_required")));
}

/// HTTP-08: a gateway alone has no pages, and tells people where the authorization server is.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_alone_sends_people_to_its_authorization_server() {
    let app = TestApp::start().await;
    let gateway = LocalGateway::start(&app, "").await;
    for (path, status, says) in [("/", 404, "This is an MCP gateway"), ("/mcp", 401, "for MCP clients")] {
        let asked = || gateway.request(Method::GET, path);
        let page = asked().header("accept", "text/html").send().await.unwrap();
        assert_eq!(page.status().as_u16(), status, "{path}");
        let html = page.text().await.unwrap();
        let start = format!("start at <a href=\"{}\">", app.origin);
        assert!(html.contains(says) && html.contains(&start), "{path}: {html}");
        let program = asked().send().await.unwrap();
        assert_eq!(
            (program.status().as_u16(), program.text().await.unwrap().contains("<html")),
            (status, false)
        );
    }
    gateway.end().await;
}
