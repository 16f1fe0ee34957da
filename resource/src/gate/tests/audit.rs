//! Audit records of calls and refusals (AUDIT-04, 05, 06 and 08).

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::ConnectInfo;

use super::*;

/// AUDIT-08: one record for a call, with the decision and the outcome.
#[tokio::test]
async fn a_call_is_on_record_when_its_answer_leaves() {
    let app = App::start();
    let token = token("docs.read");
    let mut request =
        modern(authorized(&token), "tools/call", call("docs_search", &json!({ "query": "vpn", "limit": 1 })));
    request.extensions_mut().insert(ConnectInfo::<SocketAddr>("192.0.2.7:4711".parse().unwrap()));
    let answer = app.send(request).await;
    let [record] = &app.records("mcp.call")[..] else { panic!("one record") };
    assert_eq!(record["outcome"], "allowed");
    assert_eq!(record["actor"], json!({ "type": "user", "id": token.sub }));
    assert_eq!(record["client_id"], json!(token.client_id));
    assert_eq!(record["grant_id"], json!(token.grant_id));
    assert_eq!(record["jti"], token.jti.to_string());
    assert_eq!(record["resource"], format!("http://localhost:8080{PATH}"));
    assert_eq!(record["scope"], "docs.read");
    assert_eq!(record["src_ip"], "192.0.2.7");
    assert!(record["request_id"].as_str().unwrap().starts_with("r_"));
    let detail = &record["detail"];
    assert_eq!(detail["method"], "tools/call");
    assert_eq!(detail["name"], "docs_search");
    assert_eq!(detail["decision"], "allow");
    assert_eq!(detail["scopes_needed"], json!(["docs.read"]));
    assert_eq!(detail["result"], "ok");
    assert_eq!(detail["bytes"], answer.body.len());
    assert!(detail["ms"].is_u64());
    // The SHA-256 of the sorted arguments; the arguments themselves are not recorded (AUDIT-05).
    let digest = shared::Digest::of(br#"{"limit":1,"query":"vpn"}"#);
    assert_eq!(detail["args_sha256"], data_encoding::HEXLOWER.encode(&digest.0));
    assert!(!record.to_string().contains("vpn"));
}

#[tokio::test]
async fn a_tool_error_is_recorded_as_one() {
    let app = App::start();
    app.send(legacy(
        authorized(&token("docs.read")),
        "tools/call",
        &call("docs_read", &json!({ "path": "x" })),
    ))
    .await;
    assert_eq!(app.records("mcp.call")[0]["detail"]["result"], "tool_error");
}

/// MCP-09: the record distinguishes cases that the answer does not.
#[tokio::test]
async fn denials_are_recorded_truthfully() {
    let app = App::start();
    let ask = async |token: &AccessToken, name: &str| {
        app.send(legacy(authorized(token), "tools/call", &call(name, &json!({})))).await
    };
    ask(&token(""), "docs_read").await;
    ask(&token("docs.read"), "nothing").await;
    app.stage.entitle("");
    ask(&token("docs.read"), "docs_read").await;
    let records = app.records("mcp.denied");
    let reasons: Vec<_> = records.iter().map(|record| record["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["scope_missing", "unknown", "not_entitled"]);
    assert_eq!(records[2]["detail"]["scopes_needed"], json!(["docs.read"]));
    assert!(app.records("mcp.call").is_empty());
}

/// AUDIT-04: if a call cannot be recorded, it is not answered.
#[tokio::test]
async fn without_a_record_there_is_no_answer() {
    let app = App::start();
    let good = token("docs.read");
    app.break_audit().await;
    for request in [
        modern(authorized(&good), "tools/call", call("whoami", &json!({}))),
        legacy(authorized(&good), "tools/call", &call("whoami", &json!({}))),
        legacy(authorized(&good), "tools/call", &call("nothing", &json!({}))),
        legacy(authorized(&token("")), "tools/call", &call("docs_read", &json!({}))),
        with(post().header("authorization", "Bearer abc"), "{}"),
    ] {
        let answer = app.send(request).await;
        assert_eq!((answer.status, answer.header("retry-after"), answer.code()), (503, "2", -32603));
        assert!(answer.header("www-authenticate").is_empty());
    }
    // A request without a record does not need the log.
    assert_eq!(app.send(with(post(), "{}")).await.status, 401);
}

/// AUDIT-05: a refused token is recorded by a part of its hash, or by its `jti` if this server signed it.
#[tokio::test]
async fn refused_tokens_are_recorded_without_being_shown() {
    let app = App::start();
    app.send(with(post().header("authorization", "Bearer secret-token"), "{}")).await;
    let mut expired = token("docs.read");
    expired.exp = expired.iat;
    expired.iat -= 900;
    app.clock.advance(Duration::from_secs(100));
    app.send(with(authorized(&expired), "{}")).await;
    let records = app.records("rs.denied");
    assert_eq!(records[0]["reason"], "not_a_jwt");
    assert_eq!(records[0]["detail"]["token_sha256_8"], shared::Digest::of(b"secret-token").short());
    assert!(records[0].get("actor").is_none());
    assert_eq!(records[1]["reason"], "expired");
    assert_eq!(records[1]["jti"], expired.jti.to_string());
    assert!(!json!(records).to_string().contains("secret-token"));
}

/// AUDIT-06: a flood is counted.
#[tokio::test]
async fn a_flood_of_bad_tokens_is_counted() {
    let app = App::start();
    let bad = || with(post().header("authorization", "Bearer abc"), "{}");
    for _ in 0..125 {
        assert_eq!(app.send(bad()).await.status, 401);
    }
    assert_eq!(app.records("rs.denied").len(), 120);
    app.clock.advance(Duration::from_mins(1));
    app.send(bad()).await;
    let records = app.records("rs.denied");
    assert_eq!(records.len(), 122);
    assert_eq!((&records[120]["reason"], &records[120]["detail"]["count"]), (&json!("flood"), &json!(5)));
    for _ in 0..121 {
        app.send(bad()).await;
    }
    app.resource.flush().await;
    app.resource.flush().await;
    let records = app.records("rs.denied");
    assert_eq!(records.last().unwrap()["detail"]["count"], 2);
    assert_eq!(records.len(), 122 + 119 + 1);
}
