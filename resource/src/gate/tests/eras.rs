//! End-to-end tests of the eras (MCP-01, 05, 06, 12 and 13); `era` has unit tests of its own.

use super::*;

pub(super) fn initialize(version: &str) -> String {
    let client = json!({ "name": "test", "version": "1" });
    rpc("initialize", &json!({ "protocolVersion": version, "capabilities": {}, "clientInfo": client }))
}

/// MCP-03: null counts as absent wherever a member is optional.
#[tokio::test]
async fn null_counts_as_absent() {
    let app = App::start();
    let token = token("docs.read");
    let client = json!({ "name": "test", "version": "1", "title": null, "websiteUrl": null, "icons": null });
    let capabilities = json!({ "roots": null, "sampling": null, "elicitation": null, "experimental": null });
    let initialize = json!({
        "protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": client, "_meta": null,
    });
    let answer = app.send(with(authorized(&token), &rpc("initialize", &initialize))).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    assert_eq!(answer.json()["result"]["protocolVersion"], "2025-11-25");
    let search = json!({
        "name": "docs_search", "arguments": { "query": "vpn", "limit": null, "path": null },
        "task": null, "inputResponses": null, "requestState": null, "_meta": { "progressToken": null },
    });
    for (method, params) in [
        ("ping", json!(null)),
        ("tools/list", json!(null)),
        ("tools/list", json!({ "cursor": null, "_meta": null })),
        ("tools/call", json!({ "name": "whoami", "arguments": null })),
        ("tools/call", json!({ "name": "whoami", "arguments": null, "_meta": null })),
        ("tools/call", search.clone()),
    ] {
        let answer = app.send(legacy(authorized(&token), method, &params)).await;
        assert_eq!(answer.status, 200, "{method} {params}");
        let json = answer.json();
        assert!(json["result"].is_object() && json["result"]["isError"] != true, "{method} {params} {json}");
    }
    for (method, params) in [
        ("tools/list", json!({ "cursor": null })),
        ("tools/call", json!({ "name": "whoami", "arguments": null })),
        ("tools/call", search),
    ] {
        let answer = app.send(modern(authorized(&token), method, params)).await;
        assert_eq!(answer.status, 200, "{method}");
        assert!(answer.json()["result"].is_object(), "{method} {}", answer.json());
    }
    for params in [json!({ "name": null }), json!({ "name": null, "arguments": null })] {
        let answer = app.send(legacy(authorized(&token), "tools/call", &params)).await;
        assert_eq!((answer.status, answer.code()), (400, -32602), "{params}");
    }
}

/// MCP-06: missing parameters of `initialize` are the client's error.
#[tokio::test]
async fn initialize_requires_its_parameters() {
    let app = App::start();
    let whole = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    for member in ["protocolVersion", "capabilities", "clientInfo"] {
        for value in [json!(null), json!(7), json!([]), json!("")] {
            let mut params = whole.clone();
            params[member] = value;
            let answer = app.send(with(authorized(&token("docs.read")), &rpc("initialize", &params))).await;
            // The status is that of the requested revision.
            let expected = match member {
                "protocolVersion" if params[member].is_string() => (200, 0),
                "protocolVersion" => (400, -32602),
                _ => (200, -32602),
            };
            let code = answer.json()["error"]["code"].as_i64().unwrap_or_default();
            assert_eq!((answer.status, code), expected, "{params} {}", answer.json());
        }
    }
}

/// MCP-01, MCP-10: a modern list.
#[tokio::test]
async fn a_modern_list_is_stateless_and_private() {
    let app = App::start();
    // MCP-12: this era ignores session ids.
    let request = authorized(&token("docs.read")).header("mcp-session-id", "whatever");
    let answer = app.send(modern(request, "tools/list", json!({}))).await;
    let result = &answer.json()["result"];
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["id"], 7);
    assert_eq!(result["resultType"], "complete");
    assert_eq!(result["ttlMs"], 60_000);
    assert_eq!(result["cacheScope"], "private");
    assert_eq!(result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "portcullis");
    assert_eq!(result["tools"][0]["annotations"]["readOnlyHint"], true);
    assert!(result["tools"][0]["outputSchema"].is_object());
    assert!(answer.header("mcp-session-id").is_empty());
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[tokio::test]
async fn discovery_names_every_revision() {
    let app = App::start();
    let answer = app.send(modern(authorized(&token("")), "server/discover", json!({}))).await;
    let result = &answer.json()["result"];
    assert_eq!(result["supportedVersions"], json!(["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"]));
    assert_eq!(result["cacheScope"], "private");
    assert_eq!(
        result["capabilities"],
        json!({ "completions": {}, "prompts": {}, "resources": {}, "tools": {} })
    );
}

/// MCP-09, MCP-10: every caller is told the same capabilities, and can ask for each list that is declared, whether there is
/// something in it or not. Only sessions can be told of changes.
#[tokio::test]
async fn every_declared_list_can_be_asked_for() {
    let app = App::start();
    let changes = json!({ "listChanged": true });
    let expected = json!({ "completions": {}, "prompts": changes, "resources": changes, "tools": changes });
    for entitled in ["", "docs.read"] {
        app.stage.entitle(entitled);
        let begun = app.send(with(authorized(&token("")), &initialize("2025-11-25"))).await;
        assert_eq!(begun.json()["result"]["capabilities"], expected, "{entitled}");
        let found = app.send(modern(authorized(&token("")), "server/discover", json!({}))).await;
        let declared = found.json()["result"]["capabilities"].as_object().unwrap().clone();
        assert!(declared.keys().eq(expected.as_object().unwrap().keys()), "{declared:?}");
        assert!(declared.values().all(|one| *one == json!({})), "{declared:?}");
        for (method, list) in [
            ("tools/list", "tools"),
            ("prompts/list", "prompts"),
            ("resources/list", "resources"),
            ("resources/templates/list", "resourceTemplates"),
        ] {
            let answer = app.send(modern(authorized(&token("")), method, json!({}))).await;
            assert!(answer.json()["result"][list].is_array(), "{method}: {:?}", answer.json());
        }
    }
}

/// MCP-01: every legacy revision, from `initialize` to a call, without sessions and in JSON.
#[tokio::test]
async fn every_legacy_revision_works() {
    let app = App::start();
    let token = token("docs.read");
    for version in ["2025-03-26", "2025-06-18", "2025-11-25"] {
        let answer = app.send(with(authorized(&token), &initialize(version))).await;
        assert_eq!(answer.json()["result"]["protocolVersion"], version);
        assert_eq!(answer.json()["result"]["serverInfo"]["name"], "portcullis");
        // It offers a session, which this test ignores.
        assert!(!answer.header("mcp-session-id").is_empty());
        let request = || authorized(&token).header("mcp-protocol-version", version);
        let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        let answer = app.send(with(request(), note)).await;
        assert_eq!((answer.status, answer.body.len()), (202, 0));
        let answer = app.send(with(request(), &rpc("tools/list", &json!({})))).await;
        let result = &answer.json()["result"];
        assert_eq!(result["tools"].as_array().unwrap().len(), 3);
        for newer in ["resultType", "ttlMs", "cacheScope", "_meta"] {
            assert!(result.get(newer).is_none(), "{newer} in {version}");
        }
        let answer = app.send(with(request(), &rpc("tools/call", &call("whoami", &json!({}))))).await;
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.json()["result"]["structuredContent"]["user"], token.sub);
    }
}

/// MCP-01: an unknown proposed version is answered with our newest.
#[tokio::test]
async fn initialize_answers_with_what_there_is() {
    let app = App::start();
    for proposed in [MODERN, "2024-11-05", "2099-12-31"] {
        let answer = app.send(with(authorized(&token("")), &initialize(proposed))).await;
        assert_eq!(answer.json()["result"]["protocolVersion"], "2025-11-25", "{proposed}");
    }
    // Invalid parameters are refused.
    let odd = json!({ "protocolVersion": "2025-11-25", "capabilities": 7 });
    let answer = app.send(with(authorized(&token("")), &rpc("initialize", &odd))).await;
    assert_eq!(answer.code(), -32602);
}

/// MCP-01: an unknown version gets the list of known ones.
#[tokio::test]
async fn an_unknown_version_lists_the_known_ones() {
    let app = App::start();
    let request = authorized(&token("")).header("mcp-protocol-version", "1900-01-01");
    let answer = app.send(with(request, &rpc("tools/list", &json!({})))).await;
    assert_eq!((answer.status, answer.code()), (400, -32022));
    let supported = ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"];
    assert_eq!(answer.json()["error"]["data"], json!({ "supported": supported, "requested": "1900-01-01" }));
    assert_eq!(answer.json()["id"], 7);
}

/// MCP-01, MCP-03: a request that mixes eras is refused without effect.
#[tokio::test]
async fn modern_and_legacy_requests_do_not_mix() {
    let app = App::start();
    let meta = |version: &str| {
        json!({ "name": "whoami", "_meta": {
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientCapabilities": {},
        }})
    };
    let request = || authorized(&token("")).header("mcp-method", "tools/call").header("mcp-name", "whoami");
    let version = |version: &str| request().header("mcp-protocol-version", version);
    for (request, params, code) in [
        (request(), meta(MODERN), -32020),
        (version("2025-11-25"), meta(MODERN), -32020),
        (version(MODERN), meta("2025-11-25"), -32020),
        (version(MODERN).header("mcp-protocol-version", MODERN), meta(MODERN), -32020),
        (version("2025-11-25"), meta("2025-11-25"), -32600),
        (version(MODERN), json!({ "name": "whoami" }), -32602),
    ] {
        let answer = app.send(with(request, &rpc("tools/call", &params))).await;
        assert_eq!((answer.status, answer.code()), (400, code), "{params}");
    }
    let mut initialize = meta(MODERN);
    initialize["protocolVersion"] = "2025-11-25".into();
    let answer = app.send(with(authorized(&token("")), &rpc("initialize", &initialize))).await;
    assert_eq!((answer.status, answer.code()), (400, -32020));
    // As a complete modern request, the method does not exist in that revision.
    let answer = app.send(modern(authorized(&token("")), "initialize", initialize)).await;
    assert_eq!((answer.status, answer.code()), (404, -32601));
    assert!(app.records("mcp.call").is_empty());
}

/// MCP-05: headers must match the body.
#[tokio::test]
async fn mirrored_headers_must_agree() {
    let app = App::start();
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let body = rpc("tools/call", &json!({ "name": "whoami", "arguments": {}, "_meta": meta }));
    let send = async |headers: &[(&str, &str)]| {
        let mut request = authorized(&token("")).header("mcp-protocol-version", MODERN);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        app.send(with(request, &body)).await
    };
    let method = ("mcp-method", "tools/call");
    for bad in [
        &[][..],
        &[method],
        &[("mcp-name", "whoami")],
        &[("mcp-method", "tools/list"), ("mcp-name", "whoami")],
        &[("mcp-method", "Tools/call"), ("mcp-name", "whoami")],
        &[method, ("mcp-name", "docs_read")],
        &[method, ("mcp-name", "WHOAMI")],
        &[method, ("mcp-name", "whoami"), ("mcp-name", "docs_read")],
        &[method, method, ("mcp-name", "whoami")],
        &[method, ("mcp-name", "=?base64?%%?=")],
    ] {
        let answer = send(bad).await;
        assert_eq!((answer.status, answer.code(), &answer.json()["id"]), (400, -32020, &json!(7)), "{bad:?}");
    }
    for good in [
        &[("mcp-method", " tools/call "), ("mcp-name", "whoami")][..],
        &[method, ("mcp-name", "=?base64?d2hvYW1p?=")],
        &[method, ("mcp-name", "whoami"), ("mcp-param-unknown", "x")],
    ] {
        assert_eq!(send(good).await.status, 200, "{good:?}");
    }
}

/// MCP-05: older revisions ignore these headers.
#[tokio::test]
async fn older_revisions_ignore_the_mirror() {
    let app = App::start();
    let request = authorized(&token("")).header("mcp-method", "server/discover").header("mcp-name", "x");
    assert_eq!(app.send(legacy(request, "ping", &json!({}))).await.json()["result"], json!({}));
}

/// MCP-06: unknown methods, and methods of the other era, are refused.
#[tokio::test]
async fn unknown_methods_are_not_handed_on() {
    let app = App::start();
    for method in
        ["nonsense", "ping", "resources/subscribe", "logging/setLevel", "subscriptions/listen", "tools/Call"]
    {
        let answer = app.send(modern(authorized(&token("")), method, json!({}))).await;
        assert_eq!(
            (answer.status, answer.code(), &answer.json()["id"]),
            (404, -32601, &json!(7)),
            "{method}"
        );
    }
    for method in ["nonsense", "server/discover", "resources/subscribe", "logging/setLevel", "tools/call/x"] {
        let answer = app.send(legacy(authorized(&token("")), method, &json!({}))).await;
        assert_eq!(
            (answer.status, answer.code(), &answer.json()["id"]),
            (200, -32601, &json!(7)),
            "{method}"
        );
    }
}

/// MCP-06: the required metadata of a modern request.
#[tokio::test]
async fn incomplete_metadata_is_refused() {
    let app = App::start();
    let version = "io.modelcontextprotocol/protocolVersion";
    let capabilities = "io.modelcontextprotocol/clientCapabilities";
    for meta in [
        json!(null),
        json!({}),
        json!({ version: MODERN }),
        json!({ capabilities: {} }),
        json!({ version: MODERN, capabilities: "x" }),
    ] {
        let request =
            authorized(&token("")).header("mcp-protocol-version", MODERN).header("mcp-method", "tools/list");
        let answer = app.send(with(request, &rpc("tools/list", &json!({ "_meta": meta })))).await;
        assert_eq!((answer.status, answer.code()), (400, -32602), "{meta}");
    }
}

/// MCP-13: no handles are issued, so none is accepted; the same for cursors.
#[tokio::test]
async fn handles_that_were_never_issued_are_refused() {
    let app = App::start();
    for (method, params) in [
        ("tools/list", json!({ "cursor": "x" })),
        ("tools/call", json!({ "name": "whoami", "requestState": "x" })),
        ("tools/call", json!({ "name": "whoami", "inputResponses": {} })),
        ("tools/call", json!({ "name": "whoami", "arguments": [] })),
        ("tools/call", json!({})),
    ] {
        let answer = app.send(legacy(authorized(&token("")), method, &params)).await;
        assert_eq!((answer.status, answer.code()), (400, -32602), "{params}");
    }
}

/// MCP-12: an unknown legacy session gets 404, so that the client starts again.
#[tokio::test]
async fn a_stale_session_is_gone() {
    let app = App::start();
    let request = || authorized(&token("")).header("mcp-session-id", "from-before");
    let answer = app.send(legacy(request(), "tools/list", &json!({}))).await;
    assert_eq!(answer.status, 404);
    assert_eq!(app.send(with(request(), &initialize("2025-11-25"))).await.status, 200);
}

/// Ids of both types are returned unchanged.
#[tokio::test]
async fn ids_come_back_unchanged() {
    let app = App::start();
    for id in [json!("a\u{0}\"é"), json!("7"), json!(7), json!(-1), json!(i64::MAX), json!("")] {
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": "ping" }).to_string();
        let answer = app.send(with(authorized(&token("")), &body)).await;
        assert_eq!(answer.json()["id"], id);
    }
}
