//! A server behind a gateway that runs alone and asks an authorization server elsewhere (`serve --only resource`).

use serde_json::{Value, json};

use super::hostile::HostileServer;
use super::items::everything_of;
use crate::gateway::LocalGateway;
use crate::harness::TestApp;
use crate::split::tokens;

/// SRC-01, SRC-05, RS-16, MCP-09: such a gateway passes calls of every kind on as the whole program does, hands on no token,
/// and hides what it hides.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_alone_guards_servers() {
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let server = HostileServer::start().await;
    let rules = format!("{}[tools.bad_unruled]\nhidden = true\n", everything_of("bad", &server.url, ""));
    let gateway = LocalGateway::start(&app, &rules).await;
    let client = app.client().await;
    let token = tokens(&app, &mut browser, &client).await.access;
    let ask = async |method: &str, params: Value| -> Value {
        gateway.ask(&token, method, params).await.json().await.unwrap()
    };
    let begun = std::time::Instant::now();
    while !ask("tools/list", json!({})).await.to_string().contains("bad_greet") {
        assert!(begun.elapsed().as_secs() < 30, "the server's lists are read");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    for (method, params) in [
        ("tools/call", json!({ "name": "bad_greet", "arguments": {} })),
        ("prompts/get", json!({ "name": "bad_greet" })),
        ("resources/read", json!({ "uri": "bad://host/greet" })),
        (
            "completion/complete",
            json!({ "ref": { "type": "ref/prompt", "name": "bad_greet" }, "argument": { "name": "a", "value": "" } }),
        ),
    ] {
        let answer = ask(method, params).await;
        assert!(answer["result"].to_string().contains("hello"), "{method}: {answer}");
    }
    let listed = ask("tools/list", json!({})).await.to_string();
    assert!(!listed.contains("unruled"), "{listed}");
    let calls = server.calls().len();
    let [hidden, unknown] =
        ["bad_unruled", "bad_unknown"].map(|name| json!({ "name": name, "arguments": {} }));
    let hidden = ask("tools/call", hidden).await.to_string().replace("unruled", "unknown");
    assert_eq!(hidden, ask("tools/call", unknown).await.to_string());
    assert_eq!(server.calls().len(), calls, "what was refused never arrived");
    for (headers, message) in server.arrived() {
        assert!(!headers.contains_key("authorization") && !message.to_string().contains(&token));
    }
    assert!(
        gateway
            .events()
            .iter()
            .any(|event| { event["event"] == "mcp.denied" && event["detail"]["decision"] == "hidden" })
    );
    gateway.end().await;
}
