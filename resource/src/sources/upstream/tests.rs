mod items;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::body::Body;
use children::Executable;
use children::pool::ChildSlots;
use serde_json::{Value, json};
use shared::outbound::memory::Memory;
use shared::{AccessToken, Issuer};

use super::super::endpoint::Address;
use super::super::identity::{Carrier, Credential, Credentials, SecretLocation};
use super::super::mcp::processes::Launching;
use super::super::mcp::testing::{ReceivedRequest, Reply, TestServer, error, legacy, modern, result};
use super::*;
use crate::store::snapshots;
use crate::testing::{Answer, App, MODERN, NOW, bearer, post, token};

/// A tool that an upstream lists.
fn tool(name: &str) -> Value {
    json!({ "name": name, "inputSchema": { "type": "object" }, "vendor": [1] })
}

/// A server's reaction to a call.
type Act = Box<dyn Fn(&ReceivedRequest) -> Reply + Send + Sync>;

fn settings(upstream: &TestServer) -> SourceSettings {
    SourceSettings {
        name: "up".to_owned(),
        endpoint: Endpoint::Http(Address {
            url: format!("http://127.0.0.1:{}/mcp", upstream.port),
            path: "/mcp".to_owned(),
            destination: upstream.destination(),
            identity: false,
        }),
        names: Names::Prefixed,
        timeout: Duration::from_secs(30),
        own_secret: false,
    }
}

fn means(db: &Db) -> Means {
    Means {
        identities: None,
        secrets: None,
        issuer: Issuer::localhost(8080),
        db: db.clone(),
        clock: Clock::held(NOW),
        memory: Memory::default(),
        launching: Launching {
            executable: Executable::default(),
            keep_out: Vec::new(),
            places: ChildSlots::new(8),
        },
    }
}

/// A source with the state in this database.
async fn source(db: &Db, upstream: &TestServer) -> Upstream {
    let settings = settings(upstream);
    let configured = [(settings.name.clone(), settings.target())];
    let mut stored = db.write(move |tx| snapshots::follow(tx, &configured)).await.unwrap();
    let stored = stored.remove(0);
    let definitions = db.read(|conn| snapshots::definitions(conn, &stored.id)).unwrap();
    let none = Credentials::none("up", settings.target(), &Issuer::localhost(8080));
    let credentials = Arc::new(none);
    let changed = watch::Sender::new(0);
    let configured = Configured { source: settings, credentials: Vec::new(), lists_with: None };
    Upstream::new(configured, credentials, (stored, &definitions), &changed, &means(db))
}

fn names(source: &Upstream) -> Vec<String> {
    source.offered().offers.iter().map(|offer| offer.name.to_string()).collect()
}

/// The answer to a call through the gate, from a client of this era.
async fn call(app: &App, token: &AccessToken, era: &str, name: &str) -> Answer {
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": era,
        "io.modelcontextprotocol/clientCapabilities": {} });
    let mut params = json!({ "name": name, "arguments": { "a": 1 } });
    let mut request = post().header("authorization", bearer(token)).header("mcp-protocol-version", era);
    if era == MODERN {
        params["_meta"] = meta;
        request = request.header("mcp-method", "tools/call").header("mcp-name", name);
    }
    request =
        request.header("cookie", "session=1").header("x-forwarded-for", "192.0.2.1").header("dpop", "x");
    let body = json!({ "jsonrpc": "2.0", "id": "mine", "method": "tools/call", "params": params });
    app.send(request.body(Body::from(body.to_string())).unwrap()).await
}

/// A gate with this source, after its first listing.
async fn gate(upstream: &TestServer) -> (App, Upstream, AccessToken) {
    let app = App::upstream(&[("up_greet", "docs.read")], async |db| source(db, upstream).await).await;
    let source = app.upstream.clone().unwrap();
    source.walk().await.unwrap();
    app.resource.registry().refresh();
    (app, source, token("docs.read"))
}

/// SRC-02, SRC-03: after a restart, the last listing is available while the source is down.
#[tokio::test]
async fn the_last_good_list_is_there_at_start() {
    let up = Arc::new(AtomicBool::new(true));
    let is_up = Arc::clone(&up);
    let upstream = TestServer::start(move |request| {
        if is_up.load(Ordering::SeqCst) {
            modern(request, &json!([tool("b.c"), tool("a")])).unwrap()
        } else {
            Reply::Json(503, Value::Null)
        }
    })
    .await;
    let app = App::start();
    let before = source(&app.db, &upstream).await;
    assert!(names(&before).is_empty() && before.health().await.walked_at.is_none());
    before.walk().await.unwrap();
    assert_eq!(names(&before), ["up_b_c", "up_a"]);
    let again = before.walk().await;
    assert_eq!((again, app.records("source.changed").len()), (Ok(()), 1));
    up.store(false, Ordering::SeqCst);
    let after = source(&app.db, &upstream).await;
    assert_eq!(names(&after), ["up_b_c", "up_a"]);
    assert!(after.walk().await.is_err());
    assert!(after.walk().await.is_err());
    assert_eq!(names(&after), ["up_b_c", "up_a"]);
    let health = after.health().await;
    assert_eq!((health.walked_at, health.stale.as_ref().map(|stale| stale.since)), (Some(NOW), Some(NOW)));
    assert_eq!(app.records("source.stale").len(), 1, "once, and not at every try");
    up.store(true, Ordering::SeqCst);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
    after.walk().await.unwrap();
    assert_eq!((app.records("source.recovered").len(), after.health().await.stale), (1, None));
}

/// SRC-02: an incomplete listing changes nothing.
#[tokio::test]
async fn an_incomplete_list_is_not_used() {
    let broken = Arc::new(AtomicBool::new(false));
    let is_broken = Arc::clone(&broken);
    let upstream =
        TestServer::start(move |request| match (request.method(), is_broken.load(Ordering::SeqCst)) {
            ("tools/list", true) => {
                let cursor = json!({ "tools": [tool("new")], "nextCursor": "again" });
                Reply::Json(200, result(request, &cursor))
            }
            _ => modern(request, &json!([tool("old")])).unwrap(),
        })
        .await;
    let app = App::start();
    let source = source(&app.db, &upstream).await;
    source.walk().await.unwrap();
    broken.store(true, Ordering::SeqCst);
    let why = source.walk().await.unwrap_err();
    assert!(why.contains("circle"), "{why}");
    assert_eq!(names(&source), ["up_old"]);
}

/// SRC-05, SRC-06, RS-15: a result reaches clients of both eras unchanged, and nothing that a client sent
/// besides its arguments reaches the upstream.
#[tokio::test]
async fn a_result_passes_through_the_gate() {
    let written = r#"{"content":[{"type":"x","n": 1.50}],"later":{ "b":2 },"_meta":{"v.example/k":[ 1 ]}}"#;
    for era in ["modern", "legacy"] {
        let upstream = TestServer::start(move |request| {
            let tools = json!([tool("greet")]);
            let known = if era == "modern" { modern(request, &tools) } else { legacy(request, "s", &tools) };
            known.unwrap_or_else(|| {
                let id = &request.body["id"];
                Reply::Events(format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{written}}}\n\n"))
            })
        })
        .await;
        let (app, _, token) = gate(&upstream).await;
        let answer = call(&app, &token, "2025-11-25", "up_greet").await;
        let body = String::from_utf8(answer.body.clone()).unwrap();
        let whole = r#"{"jsonrpc":"2.0","id":"mine","result":{"content":[{"type":"x","n": 1.50}],"later":{ "b":2 },"_meta":{"v.example/k":[ 1 ]}}}"#;
        assert_eq!(body, whole);
        let answer = call(&app, &token, MODERN, "up_greet").await;
        let body = String::from_utf8(answer.body.clone()).unwrap();
        let members =
            r#""resultType":"complete","content":[{"type":"x","n": 1.50}],"later":{ "b":2 },"_meta":{"#;
        assert!(body.contains(members) && body.contains(r#","v.example/k":[ 1 ]}"#), "{body}");
        assert_eq!(
            answer.json()["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]["name"],
            "portcullis"
        );
        let calls: Vec<ReceivedRequest> =
            upstream.arrived().into_iter().filter(|one| one.method() == "tools/call").collect();
        assert_eq!(calls.len(), 2);
        for arrived in calls {
            for header in ["authorization", "cookie", "x-forwarded-for", "dpop", "origin", "forwarded"] {
                assert_eq!(arrived.header(header), "", "{header}");
            }
            let params = &arrived.body["params"];
            assert_eq!((&params["name"], &params["arguments"]), (&json!("greet"), &json!({ "a": 1 })));
            assert!(!arrived.body.to_string().contains("mine"));
        }
        // AUDIT-04: it may change something, so it was recorded before.
        assert_eq!([app.records("mcp.call").len(), app.records("mcp.result").len()], [2, 2]);
    }
}

/// SRC-08, SRC-06: each failure of a call has its kind, and words or a code that a client may see.
#[tokio::test]
async fn each_failure_is_of_one_class() {
    let code = |code: i64| move |request: &ReceivedRequest| Reply::Json(200, error(request, code));
    let status = |status: u16| move |_: &ReceivedRequest| Reply::Json(status, Value::Null);
    let with = |value: &'static str| {
        move |request: &ReceivedRequest| {
            Reply::Json(200, result(request, &serde_json::from_str(value).unwrap()))
        }
    };
    let cases: Vec<(Act, &str, &str)> = vec![
        (Box::new(with(r#"{"isError":true,"content":[]}"#)), "tool_error", "isError"),
        (Box::new(with(r#"{"resultType":"input_required"}"#)), "error", "asks for input"),
        (Box::new(with("7")), "error", "not a result"),
        (Box::new(code(-32602)), "error", "-32602"),
        (Box::new(code(-32042)), "error", "open a page"),
        (Box::new(code(-32021)), "error", "before it ran"),
        (Box::new(status(401)), "error", "an administrator must set `bearer`, `authorization`"),
        (Box::new(status(403)), "error", "Your own sign-in is not the problem"),
        (Box::new(status(307)), "error", "HTTP 307"),
        (Box::new(status(500)), "unknown", "It may have run"),
        (Box::new(|_| Reply::Json(200, json!({ "x": 1 }))), "unknown", "It may have run"),
        (Box::new(|_| Reply::Events("data: x\n\n".to_owned())), "unknown", "It may have run"),
        (Box::new(|_| Reply::Events(format!("data: {}", "x".repeat(9 << 20)))), "too_large", "limit"),
    ];
    for (act, class, says) in cases {
        let upstream = TestServer::start(move |request| {
            modern(request, &json!([tool("greet")])).unwrap_or_else(|| act(request))
        })
        .await;
        let (app, _, token) = gate(&upstream).await;
        let answer = call(&app, &token, MODERN, "up_greet").await;
        let said = String::from_utf8(answer.body.clone()).unwrap();
        assert_eq!(answer.status, 200, "{class} {said}");
        assert!(said.contains(says), "{says}: {said}");
        for never in ["-32002", "-32042", "-32020", "-32021", "-32022"] {
            assert!(!said.contains(never), "{said}");
        }
        let ended = app.records("mcp.result").pop().unwrap();
        assert_eq!(ended["detail"]["result"], class, "{said}");
    }
}

/// SRC-08, MCP-05: if an upstream whose definition changed refuses the headers, it is listed again and the call
/// is sent once more, with the headers that it now requires.
#[tokio::test]
async fn a_changed_definition_is_read_again() {
    let walks = Arc::new(AtomicUsize::new(0));
    let walked = Arc::clone(&walks);
    let upstream = TestServer::start(move |request| {
        let mirrored = json!({ "name": "greet", "inputSchema": { "type": "object", "properties": {
            "a": { "type": "integer", "x-mcp-header": "A" } } } });
        if request.method() == "tools/list" && walked.fetch_add(1, Ordering::SeqCst) == 0 {
            return modern(request, &json!([tool("greet")])).unwrap();
        }
        modern(request, &json!([mirrored])).unwrap_or_else(|| match request.header("mcp-param-a") {
            "1" => Reply::Json(200, result(request, &json!({ "content": [] }))),
            _ => Reply::Json(400, error(request, -32020)),
        })
    })
    .await;
    let (app, _, token) = gate(&upstream).await;
    let answer = call(&app, &token, "2025-11-25", "up_greet").await;
    assert_eq!(answer.json()["result"], json!({ "content": [] }));
    assert_eq!(walks.load(Ordering::SeqCst), 2);
}

/// MCP-09: a refused call does not reach the upstream.
#[tokio::test]
async fn a_refused_call_does_not_reach_the_upstream() {
    let upstream =
        TestServer::start(|request| modern(request, &json!([tool("greet"), tool("other")])).unwrap()).await;
    let (app, _, token) = gate(&upstream).await;
    let before = upstream.arrived().len();
    let unruled = call(&app, &token, MODERN, "up_other").await;
    assert_eq!(unruled.code(), -32602);
    app.stage.entitle("");
    assert_eq!(call(&app, &token, MODERN, "up_greet").await.code(), -32602);
    assert_eq!(upstream.arrived().len(), before);
    let reasons: Vec<Value> = app.records("mcp.denied").iter().map(|one| one["reason"].clone()).collect();
    assert_eq!(reasons, ["not_entitled", "not_entitled"]);
}

/// SRC-10: an upstream that is configured for it is told who is calling, by a token that is not accepted here.
#[tokio::test]
async fn an_upstream_is_told_who_asks() {
    let identities = crate::testing::keys().identities();
    let issuer = Issuer::localhost(8080);
    let claims = |headers: &[(http::HeaderName, http::HeaderValue)], at: usize| {
        let text = headers[at].1.to_str().unwrap().trim_start_matches("Bearer ").to_owned();
        let payload = text.split('.').nth(1).unwrap().to_owned();
        let payload = data_encoding::BASE64URL_NOPAD.decode(payload.as_bytes()).unwrap();
        serde_json::from_slice::<Value>(&payload).unwrap()
    };
    let showing = |secret: Option<&shared::Secret>| {
        let shown = |secret: &shared::Secret| Credential {
            carrier: Carrier::Header { name: http::header::AUTHORIZATION, bearer: false },
            kept: SecretLocation::Here(secret.clone()),
        };
        let shown: Vec<_> = secret.into_iter().map(shown).collect();
        Credentials::none("up", String::new(), &Issuer::localhost(8080)).showing(&shown, None, None)
    };
    let telling = |secret: Option<&shared::Secret>| {
        showing(secret).unwrap().telling(identities.clone(), issuer.clone(), "http://jira/mcp".to_owned())
    };
    let alone = telling(None).of(None, NOW).unwrap();
    assert_eq!((alone.headers[0].0.as_str(), alone.headers[0].1.is_sensitive()), ("authorization", true));
    let said = claims(&alone.headers, 0);
    assert_eq!((&said["sub"], &said["aud"]), (&json!("gateway"), &json!("http://jira/mcp")));
    let secret = shared::Secret::presented("Bearer static");
    let both = telling(Some(&secret)).of(None, NOW).unwrap();
    assert_eq!(
        (both.headers[0].1.to_str().unwrap(), both.headers[1].0.as_str()),
        ("Bearer static", "portcullis-identity")
    );
    assert!(showing(Some(&shared::Secret::presented("a\nb"))).is_none());
    let app = App::start();
    let presented = alone.headers[0].1.clone();
    assert!(app.resource.bearer().check(&presented, &token("docs.read").aud, NOW).is_err());
}
