use axum::body::Body;
use http::Request as HttpRequest;
use http::request::Builder;
use serde_json::json;
use shared::{AccessToken, Issuer};

use crate::testing::{self, Answer, App, MODERN, bearer};

#[path = "tests/audit.rs"] // this file is compiled under two names
mod audit;
#[path = "tests/bounds.rs"]
mod bounds;
#[path = "tests/calls.rs"]
mod calls;
#[path = "tests/endings.rs"]
mod endings;
#[path = "tests/eras.rs"]
mod eras;
#[path = "tests/front.rs"]
mod front;
#[path = "tests/items.rs"]
mod items;
#[path = "tests/limits.rs"]
mod limits;
#[path = "tests/profiles.rs"]
mod profiles;
#[path = "tests/replies.rs"]
mod replies;
#[path = "tests/rules.rs"]
mod rules;
#[path = "tests/sessions.rs"]
mod sessions;

/// These tests are compiled twice, for `/mcp` and for a profile: its path, and the URL of its document.
const IS_MAIN: bool = module_path!().len() == "resource::gate::tests".len();
const PATH: &str = if IS_MAIN { "/mcp" } else { "/mcp/all" };
const METADATA: &str = if IS_MAIN {
    "http://localhost:8080/.well-known/oauth-protected-resource/mcp"
} else {
    "http://localhost:8080/.well-known/oauth-protected-resource/mcp/all"
};

/// A request to the endpoint, as clients send it.
fn post() -> Builder {
    testing::post().uri(PATH)
}

/// A valid token for the endpoint with these scopes.
fn token(scope: &str) -> AccessToken {
    let resource = shared::ResourceUri::at(&Issuer::localhost(8080), PATH);
    AccessToken { aud: resource, ..testing::token(scope) }
}

/// A valid token in a valid header.
fn authorized(token: &AccessToken) -> Builder {
    post().header("authorization", bearer(token))
}

fn with(request: Builder, body: &str) -> HttpRequest<Body> {
    request.body(Body::from(body.to_owned())).unwrap()
}

fn rpc(method: &str, params: &serde_json::Value) -> String {
    json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params }).to_string()
}

/// A complete modern request.
fn modern(request: Builder, method: &str, mut params: serde_json::Value) -> HttpRequest<Body> {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let mut request = request.header("mcp-protocol-version", MODERN).header("mcp-method", method);
    if let Some(name) = params["name"].as_str().or(params["uri"].as_str()) {
        request = request.header("mcp-name", name);
    }
    with(request, &rpc(method, &params))
}

/// A legacy request after `initialize`.
fn legacy(request: Builder, method: &str, params: &serde_json::Value) -> HttpRequest<Body> {
    with(request.header("mcp-protocol-version", "2025-11-25"), &rpc(method, params))
}

fn call(name: &str, arguments: &serde_json::Value) -> serde_json::Value {
    json!({ "name": name, "arguments": arguments })
}

/// RS-01, RS-02: without a token nothing is answered, whatever is asked, and the body is not read.
#[tokio::test]
async fn without_a_token_there_is_a_challenge() {
    let app = App::start();
    let expected = format!("Bearer resource_metadata=\"{METADATA}\", scope=\"docs.read\"");
    let initialize = rpc("initialize", &json!({ "protocolVersion": "2025-11-25" }));
    let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    for body in [initialize.as_str(), note, "[]", "", "{", &rpc("tools/list", &json!({}))] {
        let answer = app.send(with(post(), body)).await;
        assert_eq!(answer.status, 401, "{body}");
        assert_eq!(answer.header("www-authenticate"), expected);
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("content-type"), "application/json");
    }
    let answer = app.send(with(post().header("authorization", "Basic eDp5"), note)).await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, expected.as_str()));
    assert!(app.records("rs.denied").is_empty());
}

/// RS-03: one challenge for all invalid tokens, and another for expired ones.
#[tokio::test]
async fn an_invalid_token_gets_invalid_token() {
    let app = App::start();
    let list = |authorization: &str| {
        with(post().header("authorization", authorization), &rpc("tools/list", &json!({})))
    };
    let challenge = |words: &str| {
        format!(
            "Bearer error=\"invalid_token\", error_description=\"{words}\", resource_metadata=\"{METADATA}\", scope=\"docs.read\""
        )
    };
    let mut elsewhere = token("docs.read");
    elsewhere.aud = shared::ResourceUri::parse("http://localhost:8080").unwrap();
    let dead = token("docs.read");
    app.stage.kill(dead.jti.as_str());
    for bad in ["Bearer abc".to_owned(), bearer(&elsewhere), bearer(&dead)] {
        let answer = app.send(list(&bad)).await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.header("www-authenticate"), challenge("The access token is not valid here."));
    }
    let good = token("docs.read");
    app.clock.advance(std::time::Duration::from_secs(961));
    let answer = app.send(list(&bearer(&good))).await;
    assert_eq!(answer.header("www-authenticate"), challenge("The access token has expired."));
}

/// RS-04: two headers are refused; a token in the query is ignored.
#[tokio::test]
async fn a_token_is_taken_from_one_header_only() {
    let app = App::start();
    let good = bearer(&token("docs.read"));
    let body = rpc("tools/list", &json!({}));
    let twice = post().header("authorization", &good).header("authorization", &good);
    for request in [twice, post().header("authorization", "Bearer a b")] {
        let answer = app.send(with(request, &body)).await;
        assert_eq!(answer.status, 400);
        assert!(answer.header("www-authenticate").starts_with("Bearer error=\"invalid_request\", "));
    }
    let in_query = format!("/mcp?access_token={}", &good["Bearer ".len()..]);
    let answer = app.send(with(post().uri(in_query), &body)).await;
    assert_eq!(answer.status, 401);
    assert!(!answer.header("www-authenticate").contains("error"));
}

/// RS-01, RS-02: programs that look before they post get the challenge, with any method.
#[tokio::test]
async fn requests_without_a_token_get_the_challenge_with_any_method() {
    let app = App::start();
    let expected = format!("Bearer resource_metadata=\"{METADATA}\", scope=\"docs.read\"");
    for method in ["GET", "HEAD", "DELETE"] {
        for accept in ["text/event-stream", "application/json", "text/html"] {
            let mut request = post().method(method).body(Body::empty()).unwrap();
            request.headers_mut().insert("accept", accept.parse().unwrap());
            let answer = app.send(request).await;
            assert_eq!(answer.status, 401, "{method}");
            assert_eq!(answer.header("www-authenticate"), expected, "{method}");
            assert_eq!(answer.header("cache-control"), "no-store", "{method}");
        }
        let request =
            post().method(method).header("authorization", "Bearer abc").body(Body::empty()).unwrap();
        let answer = app.send(request).await;
        assert_eq!(answer.status, 401, "{method}");
        assert!(answer.header("www-authenticate").starts_with("Bearer error=\"invalid_token\""), "{method}");
    }
    for method in ["PUT", "PATCH"] {
        let answer = app.send(post().method(method).body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status, answer.header("allow")), (405, "POST, OPTIONS"), "{method}");
    }
}

/// MCP-02: POST only.
#[tokio::test]
async fn other_methods_are_refused() {
    let app = App::start();
    for method in ["GET", "DELETE", "PUT", "PATCH", "HEAD"] {
        let request = authorized(&token("docs.read")).method(method).body(Body::empty()).unwrap();
        let answer = app.send(request).await;
        assert_eq!((answer.status, answer.header("allow")), (405, "POST, OPTIONS"), "{method}");
        assert_eq!(answer.header("content-type"), "application/json");
    }
}

/// MCP-03: bodies that are not one unambiguous JSON-RPC object are refused.
#[tokio::test]
async fn bodies_that_can_be_read_two_ways_are_refused() {
    let app = App::start();
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"ping","params":{{"a":{}{}}}}}"#,
        "[".repeat(40),
        "]".repeat(40)
    );
    let many: Vec<_> = (0..1001).map(|i| format!("\"{i}\":0")).collect();
    let many = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"ping","params":{{{}}}}}"#, many.join(","));
    for (body, code) in [
        ("", -32700),
        ("nonsense", -32700),
        ("{\"jsonrpc\":\"2.0\"", -32700),
        ("[]", -32600),
        (r#"[{"jsonrpc":"2.0","id":7,"method":"ping"}]"#, -32600),
        ("7", -32600),
        ("{}", -32600),
        (r#"{"jsonrpc":"2.0","id":7,"method":"ping","method":"tools/list"}"#, -32600),
        (
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"whoami","name":"docs_read"}}"#,
            -32600,
        ),
        (r#"{"jsonrpc":"2.0","id":7,"method":"ping","Method":"tools/list"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":7,"method":"ping","PARAMS":{}}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":7,"result":{}}"#, -32600),
        (&deep, -32600),
        (&many, -32600),
    ] {
        let answer = app.send(with(authorized(&token("docs.read")), body)).await;
        assert_eq!((answer.status, answer.code()), (400, code), "{body:.80}");
        assert_ne!(answer.json().get("id"), Some(&serde_json::Value::Null), "{body:.80}");
    }
    let mut not_utf8 = rpc("ping", &json!({})).into_bytes();
    not_utf8.extend(b" \xff");
    let request = authorized(&token("docs.read")).body(Body::from(not_utf8)).unwrap();
    let answer = app.send(request).await;
    assert_eq!((answer.status, answer.code()), (400, -32700));
}

/// MCP-03: a call without an id is refused and not executed.
#[tokio::test]
async fn a_call_without_an_id_is_refused() {
    let app = App::start();
    let body = r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"whoami"}}"#;
    let answer = app.send(with(authorized(&token("docs.read")), body)).await;
    assert_eq!((answer.status, answer.code()), (400, -32600));
    assert!(app.records("mcp.call").is_empty());
}

/// MCP-03, HTTP-09: a body over 1 MiB is refused, declared or not, with or without a token.
#[tokio::test]
async fn large_bodies_are_refused() {
    let app = App::start();
    let body = format!("{}{}", rpc("ping", &json!({})), " ".repeat(1 << 20));
    let said = app.send(with(post().header("content-length", body.len()), &body)).await;
    assert_eq!(said.status, 413);
    let unsaid = app.send(with(authorized(&token("docs.read")), &body)).await;
    assert_eq!(unsaid.status, 413);
    assert_eq!(unsaid.code(), -32600);
    let mut fits = rpc("ping", &json!({}));
    fits.push_str(&" ".repeat((1 << 20) - fits.len()));
    assert_eq!(app.send(with(authorized(&token("docs.read")), &fits)).await.status, 200);
}

const BOTH: Option<&str> = Some("application/json, text/event-stream");

/// MCP-04: request and response media types are checked.
#[tokio::test]
async fn media_types_are_checked() {
    let app = App::start();
    let token = token("docs.read");
    let request = |content: &[&str], accept: Option<&str>| {
        let mut request =
            HttpRequest::post(PATH).header("host", "localhost").header("authorization", bearer(&token));
        for content in content {
            request = request.header("content-type", *content);
        }
        if let Some(accept) = accept {
            request = request.header("accept", accept);
        }
        with(request, &rpc("ping", &json!({})))
    };
    for content in [
        &[][..],
        &["text/plain"],
        &["application/x-www-form-urlencoded"],
        &["application/json-rpc"],
        &["application/jsonx"],
        &["application/json; charset=utf-16"],
        &["application/json", "text/plain"],
    ] {
        assert_eq!(app.send(request(content, BOTH)).await.status, 415, "{content:?}");
    }
    for accept in [
        "",
        "text/event-stream",
        "text/*",
        "application/json;q=0.000, text/event-stream",
        "application/json; q=0, */*",
        "application/*;q=0, */*;q=1",
        "application/jsonx, text/event-streams",
        "application, json, */json",
    ] {
        let answer = app.send(request(&["application/json"], Some(accept))).await;
        assert_eq!((answer.status, answer.code()), (406, -32600), "{accept:?}");
    }
    for (content, accept) in [
        ("application/json", None),
        ("application/json", Some("*/*")),
        ("application/json", Some("application/json")),
        ("application/json", Some("Application/JSON; charset=utf-8;q=0.001")),
        ("application/json", Some("application/json, text/event-stream;q=0")),
        ("application/json", Some("application/json, */*;q=0")),
        ("application/json", Some("text/html;q=0.9, application/*;q=0.1")),
        ("Application/JSON; charset=UTF-8", Some("text/event-stream;q=0.5,application/*;v=1")),
    ] {
        assert_eq!(app.send(request(&[content], accept)).await.status, 200, "{accept:?}");
    }
}

/// RS-11: entitled, but not granted: 403 with all scopes to request and the request's id.
#[tokio::test]
async fn a_missing_scope_asks_for_a_step_up() {
    let app = App::start();
    let token = token("other.read");
    for request in [
        modern(authorized(&token), "tools/call", call("docs_search", &json!({ "query": "vpn" }))),
        legacy(authorized(&token), "tools/call", &call("docs_search", &json!({ "query": "vpn" }))),
    ] {
        let answer = app.send(request).await;
        assert_eq!(answer.status, 403);
        assert_eq!(
            answer.header("www-authenticate"),
            format!(
                "Bearer error=\"insufficient_scope\", scope=\"docs.read other.read\", resource_metadata=\"{METADATA}\""
            )
        );
        assert_eq!(answer.json()["id"], 7);
        assert_eq!(answer.json()["error"]["data"]["scope"], "docs.read other.read");
    }
}

/// MCP-09: an unknown tool and a forbidden one get the same answer.
#[tokio::test]
async fn unknown_and_forbidden_tools_look_the_same() {
    let app = App::start();
    app.stage.entitle("");
    let token = token("docs.read");
    let ask = |name: &str| call(name, &json!({ "query": "vpn" }));
    for era in [true, false] {
        let mut answers = Vec::new();
        for name in ["docs_search", "docs_nothin"] {
            let request = if era {
                modern(authorized(&token), "tools/call", ask(name))
            } else {
                legacy(authorized(&token), "tools/call", &ask(name))
            };
            let answer = app.send(request).await;
            assert_eq!((answer.status, answer.code()), (200, -32602));
            assert_eq!(answer.json()["error"]["message"], format!("Unknown tool: {name}"));
            assert_eq!(answer.json()["id"], 7);
            let text = String::from_utf8(answer.body).unwrap().replace(name, "NAME");
            answers.push((format!("{:?}", answer.headers), text));
        }
        assert_eq!(answers[0], answers[1]);
    }
    // Invalid arguments do not reveal that the tool exists either.
    let odd =
        app.send(modern(authorized(&token), "tools/call", call("docs_search", &json!({ "x": 1 })))).await;
    assert_eq!(odd.json()["error"]["message"], "Unknown tool: docs_search");
}

/// MCP-08: names are exact.
#[tokio::test]
async fn tool_names_are_exact() {
    let app = App::start();
    for name in ["Whoami", "whoami ", "who\u{430}mi", "", "whoami\u{0}", "../whoami"] {
        let request = legacy(authorized(&token("docs.read")), "tools/call", &call(name, &json!({})));
        let answer = app.send(request).await;
        assert_eq!((answer.status, answer.code()), (200, -32602), "{name:?}");
    }
}

/// MCP-10: lists show what the user is entitled to, whatever the token's scope, in a stable order.
#[tokio::test]
async fn lists_follow_entitlement_not_scope() {
    let app = App::start();
    let listed = async |token: &AccessToken| -> Vec<String> {
        let answer = app.send(modern(authorized(token), "tools/list", json!({}))).await;
        let tools = answer.json()["result"]["tools"].as_array().unwrap().clone();
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    };
    for scope in ["", "docs.read", "other"] {
        assert_eq!(listed(&token(scope)).await, ["docs_read", "docs_search", "whoami"], "{scope}");
    }
    app.stage.entitle("other");
    assert_eq!(listed(&token("docs.read")).await, ["whoami"]);
}

/// REFRESH-06: a token's use is recorded once, before anything is decided with it; otherwise 503.
#[tokio::test]
async fn a_token_is_marked_as_seen_first() {
    let app = App::start();
    let token = token("docs.read");
    app.stage.unseen(&token);
    for _ in 0..2 {
        assert_eq!(app.send(legacy(authorized(&token), "ping", &json!({}))).await.status, 200);
    }
    assert_eq!(app.stage.marked(), [token.jti.to_string()]);
    app.stage.unseen(&token);
    app.stage.break_down();
    let answer = app.send(legacy(authorized(&token), "ping", &json!({}))).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "2"));
    assert_eq!(answer.code(), -32603);
}

/// RS-15, MCP-07: the protocol library gets none of the client's headers.
#[tokio::test]
async fn unknown_headers_are_not_forwarded() {
    let app = App::start();
    // Each of these would change the library's answer.
    let request = authorized(&token("docs.read"))
        .header("mcp-method", "tools/list")
        .header("mcp-name", "other")
        .header("last-event-id", "1")
        .header("x-forwarded-host", "evil.example")
        .header("cookie", "a=b");
    let answer = app.send(legacy(request, "tools/call", &call("whoami", &json!({})))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["result"]["isError"], false);
}

fn text(answer: &Answer) -> String {
    answer.json()["result"]["content"][0]["text"].as_str().unwrap().to_owned()
}

/// The tools, called by an entitled user with a sufficient token.
#[tokio::test]
async fn the_tools_answer() {
    let app = App::start();
    let token = token("docs.read");
    let ask = async |name: &str, arguments: serde_json::Value| {
        app.send(modern(authorized(&token), "tools/call", call(name, &arguments))).await
    };
    let who = ask("whoami", json!({})).await;
    assert_eq!(
        who.json()["result"]["structuredContent"],
        json!({
            "user": token.sub, "client": token.client_id, "resource": format!("http://localhost:8080{PATH}"),
            "scopes": ["docs.read"], "entitled": ["docs.read"], "withheld": [],
            "expires": token.expires().to_string(),
        })
    );
    let found = ask("docs_search", json!({ "query": "restore" })).await;
    let hits = found.json()["result"]["structuredContent"]["hits"].clone();
    assert_eq!(hits[0]["path"], "guides/backup.md");
    assert!(text(&found).contains("guides/backup.md"), "{}", text(&found));
    let elsewhere = ask("docs_search", json!({ "query": "restore", "path": "notes", "limit": 1 })).await;
    assert_eq!(elsewhere.json()["result"]["structuredContent"]["hits"], json!([]));
    assert!(text(&elsewhere).starts_with("Nothing matches"));
    let page = ask("docs_read", json!({ "path": "guides/backup.md", "limit": 9 })).await;
    assert_eq!(page.json()["result"]["structuredContent"]["next_offset"], 9);
    assert!(text(&page).contains("Call docs_read with offset 9"));
}

/// MCP-17: invalid arguments are reported to the model as a tool result.
#[tokio::test]
async fn wrong_arguments_are_tool_errors() {
    let app = App::start();
    for (name, arguments, expected) in [
        ("docs_search", json!({}), "`query` is required: a string of 1 to 1000 characters."),
        (
            "docs_search",
            json!({ "query": "x", "limit": "5" }),
            "`limit` must be an integer from 1 to 50, not the string \"5\".",
        ),
        (
            "docs_read",
            json!({ "path": ["x"] }),
            "`path` must be a string of 1 to 1000 characters, not an array.",
        ),
        ("whoami", json!({ "x": 1 }), "`x` is not an argument of this tool; it takes no arguments."),
    ] {
        for era in [true, false] {
            let token = token("docs.read");
            let request = if era {
                modern(authorized(&token), "tools/call", call(name, &arguments))
            } else {
                legacy(authorized(&token), "tools/call", &call(name, &arguments))
            };
            let answer = app.send(request).await;
            assert_eq!((answer.status, &answer.json()["result"]["isError"]), (200, &json!(true)), "{name}");
            assert_eq!(text(&answer), expected);
        }
    }
    let request =
        legacy(authorized(&token("docs.read")), "tools/call", &call("docs_read", &json!({ "path": "../x" })));
    let answer = app.send(request).await;
    assert_eq!(answer.json()["result"]["isError"], true);
}

/// The issuer's own host is used everywhere, not only on loopback.
#[tokio::test]
async fn challenges_name_the_configured_issuer() {
    let app = App::with(&Issuer::parse("https://gate.example").unwrap(), &[]);
    let request = HttpRequest::post(PATH).header("host", "gate.example");
    let answer = app.send(with(request, "{}")).await;
    let document = METADATA.replace("http://localhost:8080", "https://gate.example");
    let expected = format!("Bearer resource_metadata=\"{document}\", scope=\"docs.read\"");
    assert_eq!(answer.header("www-authenticate"), expected);
}
