//! Prompts, resources, templates and completions: listed, decided, done and put on record as tools are (MCP-08 to 10, SRC-04).

use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::catalogue::{ArgumentRule, Conditions, ItemRule, Kind, Pattern, Rules};
use crate::testing::TestSource;

/// One item of each kind for this scope; the other resource belongs to no user.
fn rules(scope: &str) -> Rules {
    let mut rules = Rules::default();
    let rule = || ItemRule { at: Some("f:1".to_owned()), ..ItemRule::needing(scope.parse().unwrap()) };
    rules.prompts.set(Pattern::parse("staged_prompt").unwrap(), rule());
    for pattern in ["staged_db://host/[Rr]ow*", "staged_db://host/Row/*", "staged_db://host/made/*"] {
        rules.resources.set(Pattern::parse_for_resources(pattern).unwrap(), rule());
    }
    rules.tools.set(Pattern::parse("staged_tool").unwrap(), rule());
    rules
}

fn app(links: &'static [&'static str]) -> (App, Arc<TestSource>) {
    let staged = TestSource::of_every_kind(links);
    (App::staged_under(&staged, &rules("docs.read")), staged)
}

fn completion(kind: &str, name: &str) -> Value {
    let member = if kind == "ref/prompt" { "name" } else { "uri" };
    json!({ "ref": { "type": kind, member: name }, "argument": { "name": "topic", "value": "a" } })
}

/// Every way to use an item that is there, with a name for it that is not.
fn uses() -> Vec<(&'static str, Value, Value)> {
    vec![
        ("prompts/get", json!({ "name": "staged_prompt" }), json!({ "name": "staged_other" })),
        ("resources/read", json!({ "uri": "Db://Host/Row/1" }), json!({ "uri": "db://host/Row/2" })),
        ("resources/read", json!({ "uri": "db://host/made/7" }), json!({ "uri": "db://host/made/7/8" })),
        (
            "completion/complete",
            completion("ref/prompt", "staged_prompt"),
            completion("ref/prompt", "staged_nothing"),
        ),
        (
            "completion/complete",
            completion("ref/resource", "db://host/made/{id}"),
            completion("ref/resource", "db://host/made/{+id}"),
        ),
        (
            "completion/complete",
            completion("ref/resource", "Db://Host/Row/1"),
            completion("ref/resource", "db://host/no"),
        ),
    ]
}

/// MCP-08, MCP-10, SRC-04, SRC-05: each list shows what its source wrote, of what the caller may have, for both eras.
#[tokio::test]
async fn each_kind_has_its_list() {
    let (app, _) = app(&[]);
    let docs = r#"{"uriTemplate":"docs:///{+path}{#heading}""#;
    for (method, member, written) in [
        ("prompts/list", "prompts", r#"{"name":"staged_prompt","arguments":[{"name":"topic"}],"x":1.0}"#),
        ("resources/list", "resources", r#"{"uri":"Db://Host/Row/1","name":"row"}"#),
        (
            "resources/templates/list",
            "resourceTemplates",
            r#"{"uriTemplate":"db://host/made/{id}","name":"made"}"#,
        ),
    ] {
        let newer = app.send(modern(authorized(&token("")), method, json!({}))).await;
        assert_eq!(newer.json()["result"]["cacheScope"], "private", "{method}");
        assert!(
            newer.json()["result"]["ttlMs"].is_u64() && newer.json()["result"]["resultType"] == "complete"
        );
        let older = app.send(legacy(authorized(&token("")), method, &json!({}))).await;
        assert!(older.json()["result"].get("ttlMs").is_none(), "{method}");
        for answer in [newer, older] {
            let text = String::from_utf8(answer.body.clone()).unwrap();
            assert!(text.contains(written), "{text}");
            assert!(!text.contains("secret"), "{text}");
            assert!(answer.json()["result"][member].is_array(), "{text}");
            assert_eq!(text.contains(docs), method == "resources/templates/list", "{text}");
        }
    }
    app.stage.entitle("");
    for method in ["prompts/list", "resources/list", "resources/templates/list"] {
        let answer = app.send(legacy(authorized(&token("docs.read")), method, &json!({}))).await;
        let result = answer.json()["result"].clone();
        assert!(result.as_object().unwrap().values().all(|list| *list == json!([])), "{result}");
    }
}

/// MCP-09, RS-11, SRC-04: an item that does not exist, that no user may use, or that this caller may not use looks the same, byte for byte, and reaches
/// no source; who lacks a scope only is told which.
#[tokio::test]
async fn an_item_that_a_caller_may_not_use_looks_unknown() {
    let (app, staged) = app(&[]);
    for (method, there, other) in uses() {
        app.stage.entitle("docs.read");
        let lacking = app.send(legacy(authorized(&token("")), method, &there)).await;
        assert_eq!((lacking.status, lacking.code()), (403, 403), "{method}");
        assert!(lacking.header("www-authenticate").contains("insufficient_scope"), "{method}");
        app.stage.entitle("");
        let name = |params: &Value| {
            let reference = params.get("ref").unwrap_or(params);
            reference["name"].as_str().or(reference["uri"].as_str()).unwrap().to_owned()
        };
        let (hidden, unknown) = (name(&there), name(&other));
        for era in ["modern", "legacy"] {
            let ask = async |params: &Value| match era {
                "modern" => app.send(modern(authorized(&token("docs.read")), method, params.clone())).await,
                _ => app.send(legacy(authorized(&token("docs.read")), method, params)).await,
            };
            let (theirs, none) = (ask(&there).await, ask(&other).await);
            let theirs_text = String::from_utf8(theirs.body.clone()).unwrap().replace(&hidden, "NAME");
            let none_text = String::from_utf8(none.body.clone()).unwrap().replace(&unknown, "NAME");
            assert_eq!((theirs.status, &theirs_text), (none.status, &none_text), "{method}");
            let code = if method == "resources/read" && era == "legacy" { -32002 } else { -32602 };
            assert_eq!((theirs.status, theirs.code()), (200, code), "{method} {era}");
        }
    }
    assert_eq!(staged.calls(), 0);
    let reasons: Vec<_> = app.records("mcp.denied").iter().map(|one| one["reason"].clone()).collect();
    for (nth, reason) in reasons.chunks(5).enumerate() {
        let expected = ["scope_missing", "not_entitled", "unknown", "not_entitled", "unknown"];
        assert_eq!(reason, expected, "{nth}");
    }
}

/// SRC-04: a URI that differs from a listed one by more than the case of scheme or host is unknown, and never rewritten.
#[tokio::test]
async fn a_uri_that_can_be_read_two_ways_is_unknown() {
    let (app, staged) = app(&["db://host/made/../secret", "db://host/Row/%2e"]);
    let read = async |uri: &str| {
        app.send(legacy(authorized(&token("docs.read")), "resources/read", &json!({ "uri": uri }))).await
    };
    for uri in [
        "db://host/made/../Row/1",
        "db://host/made/%2e%2e",
        "db://host/made/a%2Fb",
        "db://host/made/a%2fb",
        "db://host/made\\7",
        "db://host/made/%37",
        "db://host/row/1",
        "db://host//Row/1",
        "db://host/Row/1/",
        "db://host/Row/1?",
        "db://host:1/Row/1",
        "/Row/1",
        "",
    ] {
        let answer = read(uri).await;
        assert_eq!((answer.status, answer.code()), (200, -32002), "{uri}");
        assert_eq!(answer.json()["error"]["data"]["uri"], uri);
    }
    assert_eq!(staged.calls(), 0);
    for uri in ["Db://Host/Row/1", "db://host/Row/1", "DB://HOST/Row/1", "db://HOST/made/7"] {
        assert_eq!(read(uri).await.json()["result"]["from"], "staged", "{uri}");
    }
    assert_eq!(staged.calls(), 4);
}

/// SRC-04, SRC-15: a link that a source showed says where it goes, for whom it was shown to; who may read it is for the
/// rules to say.
#[tokio::test]
async fn a_shown_link_is_routed_only_for_the_principal_who_saw_it() {
    let (app, staged) = app(&["db://host/Row/99", "db://host/hidden", "db://host/made/1"]);
    let (ann, bob) = (token("docs.read"), token("docs.read"));
    let read = async |token: &AccessToken, uri: &str| {
        app.send(modern(authorized(token), "resources/read", json!({ "uri": uri }))).await
    };
    assert_eq!(read(&ann, "db://host/Row/99").await.code(), -32602);
    let called = app.send(modern(authorized(&ann), "tools/call", call("staged_tool", &json!({})))).await;
    assert_eq!(called.json()["result"]["from"], "staged");
    assert_eq!(read(&ann, "DB://host/Row/99").await.json()["result"]["from"], "staged");
    assert_eq!(read(&bob, "db://host/Row/99").await.code(), -32602);
    // It was shown, and no rule is about it.
    assert_eq!(read(&ann, "db://host/hidden").await.code(), -32602);
    assert_eq!(staged.calls(), 2);
    let denied = app.records("mcp.denied");
    let reasons: Vec<_> = denied.iter().map(|one| one["reason"].clone()).collect();
    assert_eq!(reasons, ["unknown", "unknown", "not_entitled"]);
    assert_eq!(denied[2]["detail"]["upstream"], "staged");
}

/// AUDIT-04, AUDIT-08: reading leaves one record, with the method, what was named and the source; a rule can make it two.
#[tokio::test]
async fn reading_a_resource_makes_one_record() {
    let staged = TestSource::of_every_kind(&[]);
    let mut rules = rules("docs.read");
    let writes = ItemRule {
        effect: Some(crate::item::Effect::Writes),
        ..rules.prompts.get("staged_prompt").unwrap().clone()
    };
    let app = App::staged_under(&staged, &rules);
    for (method, there, _) in uses() {
        let answer = app.send(modern(authorized(&token("docs.read")), method, there)).await;
        assert_eq!(answer.json()["result"]["from"], "staged", "{method}");
    }
    let records = app.records("mcp.call");
    assert_eq!((records.len(), app.records("mcp.result").len()), (6, 0));
    for (record, (method, ..)) in records.iter().zip(uses()) {
        let detail = &record["detail"];
        assert_eq!((&detail["method"], &detail["upstream"]), (&json!(method), &json!("staged")));
        assert_eq!((&detail["result"], &detail["decision"]), (&json!("ok"), &json!("allow")));
        assert!(detail["args_sha256"].as_str().unwrap().len() == 64, "{detail}");
    }
    assert_eq!(records[1]["detail"]["name"], "Db://Host/Row/1");
    rules.prompts.set(Pattern::parse("staged_prompt").unwrap(), writes);
    let app = App::staged_under(&staged, &rules);
    let get = json!({ "name": "staged_prompt", "arguments": { "topic": "x" } });
    app.send(modern(authorized(&token("docs.read")), "prompts/get", get)).await;
    // To complete what a prompt takes is to read, whatever the prompt does.
    let complete = completion("ref/prompt", "staged_prompt");
    app.send(modern(authorized(&token("docs.read")), "completion/complete", complete)).await;
    assert_eq!((app.records("mcp.call").len(), app.records("mcp.result").len()), (2, 1));
}

/// POL-02: rules about arguments hold for prompts; the error says which one and what is allowed.
#[tokio::test]
async fn a_prompt_with_a_forbidden_argument_is_refused() {
    let staged = TestSource::of_every_kind(&[]);
    let mut rules = rules("docs.read");
    let conditions = Conditions { matches: Some("[a-z]+".to_owned()), ..Conditions::default() };
    let arguments = [ArgumentRule::new("/topic", conditions).unwrap()].into_iter().collect();
    let rule = ItemRule { arguments, ..rules.prompts.get("staged_prompt").unwrap().clone() };
    rules.prompts.set(Pattern::parse("staged_prompt").unwrap(), rule);
    let app = App::staged_under(&staged, &rules);
    for arguments in [json!({}), json!({ "topic": "7" }), json!({ "topic": "a", "Topic": "b" })] {
        let get = json!({ "name": "staged_prompt", "arguments": arguments });
        let answer = app.send(modern(authorized(&token("docs.read")), "prompts/get", get)).await;
        assert_eq!((answer.status, answer.code()), (200, -32602), "{arguments}");
        let words = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(words.contains("is not allowed here") && words.contains("opic"), "{words}");
    }
    assert_eq!(staged.calls(), 0);
    let good = json!({ "name": "staged_prompt", "arguments": { "topic": "tea" } });
    let answer = app.send(modern(authorized(&token("docs.read")), "prompts/get", good)).await;
    assert_eq!((answer.json()["result"]["from"].clone(), staged.calls()), (json!("staged"), 1));
    assert_eq!(app.records("mcp.denied").len(), 3);
}

/// MCP-05: in 2026-07-28 the header says the prompt's name, or the URI.
#[tokio::test]
async fn headers_name_prompts_and_resources() {
    let (app, staged) = app(&[]);
    for (method, params, header) in [
        ("prompts/get", json!({ "name": "staged_prompt" }), Some("staged_tool")),
        ("prompts/get", json!({ "name": "staged_prompt" }), None),
        ("resources/read", json!({ "uri": "db://host/made/7" }), Some("db://host/made/8")),
        ("resources/read", json!({ "uri": "db://host/made/7" }), Some("DB://host/made/7")),
        ("resources/read", json!({ "uri": "db://host/made/7" }), None),
    ] {
        let mut request = modern(authorized(&token("docs.read")), method, params);
        request.headers_mut().remove("mcp-name");
        if let Some(header) = header {
            request.headers_mut().insert("mcp-name", header.parse().unwrap());
        }
        let answer = app.send(request).await;
        assert_eq!((answer.status, answer.code()), (400, -32020), "{method} {header:?}");
    }
    assert_eq!(staged.calls(), 0);
}

/// MCP-06: requests that do not fit their method are refused before anything is decided.
#[tokio::test]
async fn malformed_requests_are_refused() {
    let (app, staged) = app(&[]);
    let argument = json!({ "name": "topic", "value": "a" });
    let prompt = json!({ "type": "ref/prompt", "name": "staged_prompt" });
    for (method, params) in [
        ("prompts/get", json!({})),
        ("prompts/get", json!({ "name": 7 })),
        ("prompts/get", json!({ "name": "staged_prompt", "arguments": { "topic": 7 } })),
        ("prompts/get", json!({ "name": "staged_prompt", "arguments": [] })),
        ("prompts/get", json!({ "name": "staged_prompt", "requestState": "x" })),
        ("resources/read", json!({})),
        ("resources/read", json!({ "uri": ["db://host/made/7"] })),
        ("resources/read", json!({ "uri": "db://host/made/7", "inputResponses": {} })),
        ("completion/complete", json!({ "argument": argument })),
        ("completion/complete", json!({ "ref": { "type": "ref/tool", "name": "x" }, "argument": argument })),
        ("completion/complete", json!({ "ref": { "type": "ref/prompt", "uri": "x" }, "argument": argument })),
        ("completion/complete", json!({ "ref": prompt })),
        ("completion/complete", json!({ "ref": prompt, "argument": { "name": "topic" } })),
        ("completion/complete", json!({ "ref": prompt, "argument": { "name": "topic", "value": 7 } })),
        ("completion/complete", json!({ "ref": prompt, "argument": argument, "context": [] })),
        (
            "completion/complete",
            json!({ "ref": prompt, "argument": argument, "context": { "arguments": { "a": 7 } } }),
        ),
        ("prompts/list", json!({ "cursor": "x" })),
        ("resources/list", json!({ "cursor": 7 })),
        ("resources/templates/list", json!({ "cursor": "" })),
    ] {
        let answer = app.send(legacy(authorized(&token("docs.read")), method, &params)).await;
        assert_eq!((answer.status, answer.code()), (400, -32602), "{method} {params}");
    }
    assert_eq!(staged.calls(), 0);
}

/// POL-03: a profile selects items of every kind.
#[tokio::test]
async fn a_profile_has_its_own_items_of_every_kind() {
    let staged = TestSource::of_every_kind(&[]);
    let mut rules = rules("docs.read");
    let items = vec![Pattern::parse_for_resources("staged_db://host/made/*").unwrap()];
    rules.profiles.insert("some".to_owned(), crate::catalogue::ProfileRule { items, ..Default::default() });
    let app = App::staged_under(&staged, &rules);
    let resource = shared::ResourceUri::at(&Issuer::localhost(8080), "/mcp/some");
    let token = AccessToken { aud: resource, ..testing::token("docs.read") };
    let ask = async |method: &str, params: Value| {
        app.send(legacy(authorized(&token).uri("/mcp/some"), method, &params)).await.json()
    };
    assert_eq!(ask("prompts/list", json!({})).await["result"], json!({ "prompts": [] }));
    assert_eq!(ask("resources/list", json!({})).await["result"], json!({ "resources": [] }));
    let templates = ask("resources/templates/list", json!({})).await["result"]["resourceTemplates"].clone();
    assert_eq!(templates, json!([{ "uriTemplate": "db://host/made/{id}", "name": "made" }]));
    assert_eq!(ask("prompts/get", json!({ "name": "staged_prompt" })).await["error"]["code"], -32602);
    assert_eq!(ask("resources/read", json!({ "uri": "Db://Host/Row/1" })).await["error"]["code"], -32002);
    let made = ask("resources/read", json!({ "uri": "db://host/made/7" })).await;
    assert_eq!((&made["result"]["from"], staged.calls()), (&json!("staged"), 1));
}

/// DOCS-01: a section is a resource behind the scope of the tool that reads it, and what limits that tool is not left out
/// by asking for the resource.
#[tokio::test]
async fn sections_are_resources_behind_the_scope_of_their_tool() {
    let app = App::start();
    let ask = async |app: &App, method: &str, params: Value| {
        app.send(legacy(authorized(&token("docs.read")), method, &params)).await.json()
    };
    let listed = ask(&app, "resources/list", json!({})).await["result"]["resources"].clone();
    let uris: Vec<_> = listed.as_array().unwrap().iter().map(|one| one["uri"].as_str().unwrap()).collect();
    assert!(uris.contains(&"docs:///guides/backup.md#Backup%20%3E%20Restore"), "{uris:?}");
    let read = async |app: &App, uri: &str| ask(app, "resources/read", json!({ "uri": uri })).await;
    for uri in uris.iter().copied().chain(["docs:///guides/backup.md", "docs:///guides/backup.md#Restore"]) {
        let found = read(&app, uri).await["result"]["contents"].clone();
        assert_eq!(found[0]["uri"], uri);
        assert!(!found[0]["text"].as_str().unwrap().is_empty(), "{uri}");
    }
    for uri in
        ["docs:///no.md", "docs:///guides/backup.md#No", "docs://host/notes.txt", "docs:///../notes.txt"]
    {
        assert_eq!(read(&app, uri).await["error"]["code"], -32002, "{uri}");
    }
    let mut completing = completion("ref/resource", "docs:///{+path}{#heading}");
    completing["argument"] = json!({ "name": "path", "value": "guides/" });
    let completed = ask(&app, "completion/complete", completing).await["result"]["completion"].clone();
    assert_eq!(completed["values"], json!(["guides/backup.md", "guides/vpn.md"]));
    app.stage.entitle("");
    assert_eq!(read(&app, "docs:///notes.txt").await["error"]["code"], -32002);
    let conditions = Conditions { matches: Some("guides/.*".to_owned()), ..Conditions::default() };
    let mut rules = Rules::default();
    let arguments = [ArgumentRule::new("/path", conditions).unwrap()].into_iter().collect();
    let limited = ItemRule { arguments, ..ItemRule::needing("docs.read".parse().unwrap()) };
    rules.tools.set(Pattern::parse("docs_read").unwrap(), limited.clone());
    let limited = App::ruled(&rules);
    limited.stage.entitle("docs.read");
    assert_eq!(ask(&limited, "resources/list", json!({})).await["result"], json!({ "resources": [] }));
    assert_eq!(read(&limited, "docs:///notes.txt").await["error"]["code"], -32002);
    let guides = Pattern::parse_for_resources("docs_docs:///guides/*").unwrap();
    let rule = ItemRule { at: Some("f:1".to_owned()), ..ItemRule::needing("docs.read".parse().unwrap()) };
    rules.of_mut(Kind::Resource).set(guides, rule);
    let chosen = App::ruled(&rules);
    chosen.stage.entitle("docs.read");
    assert_eq!(read(&chosen, "docs:///notes.txt").await["error"]["code"], -32002);
    assert_eq!(
        read(&chosen, "docs:///guides/vpn.md").await["result"]["contents"][0]["mimeType"],
        "text/markdown"
    );
}

/// MCP-10, SRC-02: a list with more than a thousand items has another page, and every item is on exactly one.
#[tokio::test]
async fn a_long_list_has_pages() {
    let tools: Vec<_> = (0..1_500).map(|n| format!("staged_{n:04}")).collect();
    let named: Vec<_> = tools.iter().map(|name| (name.as_str(), crate::item::Effect::ReadOnly)).collect();
    let mut rules = Rules::default();
    rules.tools.set(Pattern::parse("staged_*").unwrap(), ItemRule::needing("docs.read".parse().unwrap()));
    let app = App::staged_under(&TestSource::prompt(&named), &rules);
    let (mut seen, mut cursor, mut pages) = (Vec::new(), Value::Null, 0);
    loop {
        let answer =
            app.send(legacy(authorized(&token("")), "tools/list", &json!({ "cursor": cursor }))).await;
        let result = answer.json()["result"].clone();
        let names = result["tools"].as_array().unwrap().iter();
        seen.extend(names.map(|tool| tool["name"].as_str().unwrap().to_owned()));
        pages += 1;
        cursor = result["nextCursor"].clone();
        if cursor.is_null() {
            break;
        }
        // It belongs to this list.
        let elsewhere = legacy(authorized(&token("")), "prompts/list", &json!({ "cursor": cursor }));
        assert_eq!(app.send(elsewhere).await.code(), -32602);
    }
    assert_eq!(pages, 2);
    assert_eq!(seen.iter().filter(|name| name.starts_with("staged_")).count(), 1_500);
    assert!(seen.is_sorted_by(|a, b| a < b), "each once, in order");
}
