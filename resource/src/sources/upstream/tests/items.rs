//! Prompts, resources and completions of a server behind the gate, as it is asked for them.

use super::*;
use crate::catalogue::{ItemRule, Pattern, Rules};

const LISTS: [(&str, &str); 4] = [
    ("tools/list", "tools"),
    ("prompts/list", "prompts"),
    ("resources/list", "resources"),
    ("resources/templates/list", "resourceTemplates"),
];

fn listed(list: &str) -> Value {
    match list {
        "tools" => json!([tool("greet")]),
        "prompts" => json!([{ "name": "re view", "arguments": [{ "name": "a" }] }]),
        "resources" => json!([{ "uri": "db://Host/1", "name": "one" }]),
        _ => json!([{ "uriTemplate": "db://Host/made/{id}", "name": "made" }]),
    }
}

/// What a server of this era with everything answers to all but requests for items.
fn everything(request: &ReceivedRequest, era: &str) -> Option<Reply> {
    let capabilities = json!({ "tools": {}, "prompts": {}, "resources": {}, "completions": {} });
    let list = LISTS.iter().find(|(method, _)| *method == request.method()).map(|(_, list)| *list);
    match (request.method(), list) {
        ("server/discover", _) if era == MODERN => {
            let found = json!({ "supportedVersions": [MODERN], "capabilities": capabilities });
            Some(Reply::Json(200, result(request, &found)))
        }
        ("initialize", _) => {
            let agreed = json!({ "protocolVersion": era, "capabilities": capabilities,
                "serverInfo": { "name": "old", "version": "1" } });
            Some(Reply::Session("s1", result(request, &agreed)))
        }
        (_, Some(list)) => Some(Reply::Json(200, result(request, &json!({ list: listed(list) })))),
        (method, _) if method.starts_with("notifications/") => Some(Reply::Json(202, Value::Null)),
        ("server/discover", _) => Some(Reply::Json(404, Value::Null)),
        _ => None,
    }
}

/// A gate with this source behind it, everything of which is for `docs.read`.
async fn gate(upstream: &TestServer) -> (App, AccessToken) {
    let rule = || ItemRule { at: Some("f:1".to_owned()), ..ItemRule::needing("docs.read".parse().unwrap()) };
    let mut rules = Rules::default();
    rules.tools.set(Pattern::parse("up_*").unwrap(), rule());
    rules.prompts.set(Pattern::parse("up_*").unwrap(), rule());
    rules.resources.set(Pattern::parse_for_resources("up_*").unwrap(), rule());
    let app = App::upstream_under(rules, async |db| source(db, upstream).await).await;
    app.upstream.clone().unwrap().walk().await.unwrap();
    app.resource.registry().refresh();
    (app, token("docs.read"))
}

/// What a request through the gate comes to, from a client of the newest revision.
async fn ask(app: &App, token: &AccessToken, method: &str, params: &Value) -> Value {
    let mut params = params.clone();
    params["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {}, "progressToken": "theirs", "x": "theirs" });
    params["more"] = json!("theirs");
    let mut request = post().header("authorization", bearer(token)).header("mcp-protocol-version", MODERN);
    request = request.header("mcp-method", method);
    if let Some(name) = params["name"].as_str().or(params["uri"].as_str()) {
        request = request.header("mcp-name", name);
    }
    let body = json!({ "jsonrpc": "2.0", "id": "theirs", "method": method, "params": params });
    app.send(request.body(Body::from(body.to_string())).unwrap()).await.json()
}

/// MCP-05, MCP-07, SRC-03, SRC-04: a server is asked in its own names, with URIs as they were sent, in the way of its era,
/// and nothing else of what a client sent reaches it.
#[tokio::test]
async fn a_server_is_asked_in_its_own_names() {
    let context = json!({ "arguments": { "b": "x" } });
    let completing = |reference: Value| json!({ "ref": reference, "argument": { "name": "a", "value": "v", "z": 1 }, "context": context, "z": 1 });
    let argument = json!({ "name": "a", "value": "v" });
    for era in [MODERN, "2025-11-25"] {
        let upstream = TestServer::start(move |request| {
            everything(request, era)
                .unwrap_or_else(|| Reply::Json(200, result(request, &json!({ "came": true }))))
        })
        .await;
        let (app, token) = gate(&upstream).await;
        for (method, sent, arrives, named) in [
            (
                "prompts/get",
                json!({ "name": "up_re_view", "arguments": { "a": "x" } }),
                json!({ "name": "re view", "arguments": { "a": "x" } }),
                Some("re view"),
            ),
            (
                "resources/read",
                json!({ "uri": "DB://host/1" }),
                json!({ "uri": "DB://host/1" }),
                Some("DB://host/1"),
            ),
            (
                "resources/read",
                json!({ "uri": "db://Host/made/%C3%A9" }),
                json!({ "uri": "db://Host/made/%C3%A9" }),
                Some("db://Host/made/%C3%A9"),
            ),
            (
                "completion/complete",
                completing(json!({ "type": "ref/prompt", "name": "up_re_view", "title": "theirs" })),
                json!({ "ref": { "type": "ref/prompt", "name": "re view" }, "argument": argument, "context": context }),
                None,
            ),
            (
                "completion/complete",
                completing(json!({ "type": "ref/resource", "uri": "db://Host/made/{id}" })),
                json!({ "ref": { "type": "ref/resource", "uri": "db://Host/made/{id}" }, "argument": argument, "context": context }),
                None,
            ),
        ] {
            let answered = ask(&app, &token, method, &sent).await;
            assert_eq!(answered["result"]["came"], true, "{method}: {answered}");
            assert_eq!(answered["id"], "theirs");
            let arrived = upstream.arrived().pop().unwrap();
            assert_eq!(arrived.method(), method);
            let mut params = arrived.body["params"].clone();
            let meta = params.as_object_mut().unwrap().remove("_meta").unwrap();
            assert_eq!(params, arrives, "{method} {era}");
            assert_eq!(meta["progressToken"], arrived.body["id"], "ours: {meta}");
            assert!(!arrived.body.to_string().contains("theirs") && !arrived.headers.contains_key("dpop"));
            let expected = if era == MODERN { named.unwrap_or_default() } else { "" };
            assert_eq!(arrived.header("mcp-name"), expected, "{method} {era}");
        }
    }
}

/// SRC-05: a completion that a server does not know has no values, because another server behind the same gate may.
#[tokio::test]
async fn a_server_without_completion_completes_nothing() {
    for status in [200, 404] {
        let upstream = TestServer::start(move |request| {
            everything(request, MODERN).unwrap_or_else(|| Reply::Json(status, error(request, -32601)))
        })
        .await;
        let (app, token) = gate(&upstream).await;
        let reference = json!({ "type": "ref/prompt", "name": "up_re_view" });
        let params = json!({ "ref": reference, "argument": { "name": "a", "value": "" } });
        let answered = ask(&app, &token, "completion/complete", &params).await;
        let nothing = json!({ "values": [], "total": 0, "hasMore": false });
        assert_eq!(answered["result"]["completion"], nothing, "{answered}");
    }
}

/// SRC-04, SRC-15: a link in a real result is routed to the source that showed it, for whom it was shown to.
#[tokio::test]
async fn a_link_in_a_result_can_be_read() {
    let upstream = TestServer::start(|request| {
        everything(request, MODERN).unwrap_or_else(|| {
            let link = json!({ "type": "resource_link", "uri": "x://shown/1", "name": "n" });
            Reply::Json(200, result(request, &json!({ "content": [link], "contents": [] })))
        })
    })
    .await;
    let (app, ann) = gate(&upstream).await;
    let (bob, read) = (token("docs.read"), json!({ "uri": "x://shown/1" }));
    assert_eq!(ask(&app, &ann, "resources/read", &read).await["error"]["code"], -32602);
    ask(&app, &ann, "tools/call", &json!({ "name": "up_greet" })).await;
    assert_eq!(ask(&app, &ann, "resources/read", &read).await["result"]["contents"], json!([]));
    assert_eq!(ask(&app, &bob, "resources/read", &read).await["error"]["code"], -32602);
}

/// SRC-02: the walk of one list fails, and the others are taken; after a restart all that was taken is there.
#[tokio::test]
async fn a_broken_list_takes_no_other_with_it() {
    let broken = Arc::new(AtomicUsize::new(LISTS.len()));
    let which = Arc::clone(&broken);
    let upstream = TestServer::start(move |request| {
        let at = LISTS.iter().position(|(method, _)| *method == request.method());
        if at == Some(which.load(Ordering::SeqCst)) {
            return Reply::Json(200, error(request, -32603));
        }
        everything(request, MODERN).unwrap()
    })
    .await;
    for (nth, (method, _)) in LISTS.iter().enumerate() {
        let app = App::start();
        let source = source(&app.db, &upstream).await;
        broken.store(nth, Ordering::SeqCst);
        let why = source.walk().await.unwrap_err();
        assert!(why.contains(method), "{why}");
        assert_eq!(source.offered().offers.len(), 3, "{method}");
        assert!(source.health().await.stale.is_some());
        let again = super::source(&app.db, &upstream).await;
        assert_eq!(again.offered().offers.len(), 3, "{method}");
        broken.store(LISTS.len(), Ordering::SeqCst);
        source.walk().await.unwrap();
        assert_eq!((source.offered().offers.len(), source.health().await.stale), (4, None), "{method}");
        assert_eq!(app.records("source.changed").len(), 2);
    }
}
