//! `portcullis policy check` agrees with the gate, and explains why.

use serde_json::{Value, json};

use crate::clients::refused;
use crate::harness::{Client, TestApp, Tokens, authorize_url, redirect_parameter};
use crate::process::portcullis;

const TEAM: &str = r#"
[groups]
engineers = ["docs.full"]
archivists = ["docs.full", "docs.old"]

[scopes."docs.full"]
title = "Read whole documents"

[scopes."docs.old"]
title = "Read old documents"
risk = "high"

[tools.docs_read]
scope = "docs.full"

[tools.docs_search]
scope = ["docs.read", "docs.old"]
"#;

fn check(app: &TestApp, user: &str, tool: &str, client: Option<&Client>) -> Value {
    let mut arguments = vec!["policy", "check", "--user", user, "--tool", tool];
    arguments.extend(client.iter().flat_map(|client| ["--client", client.id.as_str()]));
    let data = app.data_dir();
    arguments.extend(["--json", "--data-dir", data.to_str().unwrap()]);
    // A negative answer exits with 1.
    serde_json::from_slice(&portcullis(&arguments).stdout).unwrap()
}

/// The result of a call, in the words of the check.
async fn called(app: &TestApp, token: &str, tool: &str) -> &'static str {
    let response = app.call_tool(token, tool, json!({"path": "falcon.md", "query": "falcon"})).await;
    let status = response.status().as_u16();
    let body = response.text().await.unwrap();
    match status {
        401 => "dead",
        403 => "scope_missing",
        200 if body.contains("-32602") => "unknown_or_not_entitled",
        200 if body.contains("client verify") => "above_ceiling",
        200 => "allow",
        other => panic!("{other}: {body}"),
    }
}

/// MCP-09, DCR-08: for every kind of decision the check agrees with a call, and names the rule.
#[tokio::test(flavor = "multi_thread")]
async fn the_check_agrees_with_the_gate() {
    let app = TestApp::start_configured(TEAM).await;
    app.admin().await;
    let client = app.client().await;
    let mut intern = app.enrol("ines", &[]).await;
    let mut engineer = app.enrol("ernie", &["engineers"]).await;

    // Without a grant it decides as if everything were granted.
    let answer = check(&app, "ernie", "docs_read", Some(&client));
    assert_eq!((&answer["decision"], &answer["client"]["granted"]), (&json!("allow"), &Value::Null));

    let tokens = app.tokens(&mut intern, &client).await;
    for (tool, decision, rule) in [
        ("whoami", "allow", "the tool needs only a valid token"),
        (
            "docs_read",
            "not_entitled",
            "none of the user's groups has docs.full; it is in: archivists, engineers",
        ),
        ("docs_search", "not_entitled", "none of the user's groups has docs.old; it is in: archivists"),
        ("docs_rexd", "unknown", "no tool `docs_rexd`; the tools are docs_read, docs_search, whoami"),
    ] {
        let answer = check(&app, "ines", tool, Some(&client));
        assert_eq!((&answer["decision"], &answer["rule"]), (&json!(decision), &json!(rule)));
        assert_eq!(answer["allowed"], decision == "allow");
        let seen = called(&app, &tokens.access, tool).await;
        assert_eq!(seen == "allow", decision == "allow", "{tool}: {seen}");
    }
    assert_eq!(check(&app, "ines", "docs_read", None)["item"]["needs"], "docs.full");

    // Entitled, but the client's grant lacks the scope; then it has it.
    let tokens = app.tokens(&mut engineer, &client).await;
    let answer = check(&app, "ernie", "docs_read", Some(&client));
    assert_eq!(
        (&answer["decision"], &answer["client"]["granted"]),
        (&json!("scope_missing"), &json!("docs.read"))
    );
    assert_eq!(called(&app, &tokens.access, "docs_read").await, "scope_missing");
    assert_eq!(check(&app, "ernie", "docs_read", None)["decision"], "allow");
    let mut wide = client.request(&app);
    wide.insert("scope", "docs.read docs.full".to_owned());
    let page = engineer.consent_page(&app, &authorize_url(&app, &wide)).await;
    let code = redirect_parameter(&engineer.decide(&app, &page, "approve").await, "code").unwrap();
    let tokens = Tokens::of(app.redeem(&client, &code).await).await;
    let answer = check(&app, "ernie", "docs_read", Some(&client));
    assert_eq!(answer["decision"], "allow");
    assert!(answer["rule"].as_str().unwrap().starts_with("every scope that the tool needs is granted"));
    assert_eq!(called(&app, &tokens.access, "docs_read").await, "allow");

    app.console(&["client", "disable", &client.id]);
    assert_eq!(check(&app, "ernie", "docs_read", Some(&client))["decision"], "client_disabled");
    assert_eq!(called(&app, &tokens.access, "docs_read").await, "dead");
    app.console(&["user", "disable", "ernie"]);
    assert_eq!(check(&app, "ernie", "docs_read", None)["decision"], "user_disabled");
    // Checks are not recorded.
    assert!(!app.audit().iter().any(|record| record.to_string().contains("policy")));
}

/// DCR-08: high-risk scopes are refused for an unverified client.
#[tokio::test(flavor = "multi_thread")]
async fn the_check_knows_ceilings() {
    let app = TestApp::start_configured(TEAM).await;
    app.admin().await;
    app.enrol("arno", &["archivists"]).await;
    let metadata = json!({"client_name": "Web", "redirect_uris": ["https://web.example/cb"], "token_endpoint_auth_method": "none"});
    let registered: Value = app.register(&metadata).await.json().await.unwrap();
    let id = registered["client_id"].as_str().unwrap().to_owned();
    let client = Client { id, redirect_uri: "https://web.example/cb".to_owned() };
    let answer = check(&app, "arno", "docs_search", Some(&client));
    assert_eq!(answer["decision"], "above_ceiling");
    assert_eq!(
        answer["rule"],
        "docs.old is high risk, and the client is not verified: portcullis client verify"
    );
    app.console(&["client", "verify", &client.id]);
    assert_eq!(check(&app, "arno", "docs_search", Some(&client))["decision"], "allow");
}

/// The output as text, and errors for unknown names.
#[tokio::test(flavor = "multi_thread")]
async fn the_check_is_worded() {
    let ruled =
        TEAM.replace("[tools.docs_read]\n", "[tools.docs_read]\nargs = { \"/path\" = { match = \".*\" } }\n");
    let app = TestApp::start_configured(&ruled).await;
    app.admin().await;
    let mut ernie = app.enrol("ernie", &["engineers"]).await;
    let data = app.data_dir();
    let data = ["--data-dir", data.to_str().unwrap()];
    let question = ["policy", "check", "--user", "ernie", "--tool", "docs_search"];
    let file = app.data_dir().with_file_name("portcullis.toml");
    let output = portcullis(&[&question[..], &data].concat());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().replace(file.to_str().unwrap(), "FILE"),
        "ernie may not call docs_search (not_entitled)\n  rule      none of the user's groups has docs.old; it is in: archivists\n  by        [tools.docs_search] at FILE:17\n  needs     docs.old docs.read\n  groups    engineers\n  entitled  docs.full docs.read\n"
    );
    let said = |tool: &str| {
        let question = ["policy", "check", "--user", "ernie", "--tool", tool];
        String::from_utf8(portcullis(&[&question[..], &data].concat()).stdout).unwrap()
    };
    // Without arguments, rules about them are not decided, and the answer says so.
    let read = said("docs_read");
    let first = "ernie may call docs_read (allow), if its arguments hold (/path): give them with --args";
    assert_eq!(read.lines().next(), Some(first), "{read}");
    let unknown = said("docs_rexd");
    assert!(unknown.contains("no tool `docs_rexd`") && !unknown.contains("needs"), "{unknown}");
    assert!(said("whoami").contains("  needs     no scope\n"));
    // In the audit log, a call says how it ended or which argument was refused, and through which client.
    let client = app.client().await;
    let mut wide = client.request(&app);
    wide.insert("scope", "docs.full".to_owned());
    let page = ernie.consent_page(&app, &authorize_url(&app, &wide)).await;
    let code = redirect_parameter(&ernie.decide(&app, &page, "approve").await, "code").unwrap();
    let tokens = Tokens::of(app.redeem(&client, &code).await).await;
    app.call_tool(&tokens.access, "docs_read", json!({"path": "falcon.md", "query": "x"})).await;
    app.call_tool(&tokens.access, "docs_read", json!({"path": "nothing.md"})).await;
    let tail = portcullis(&[&["audit", "tail", "-n", "5"][..], &data].concat());
    let tail = String::from_utf8(tail.stdout).unwrap();
    let line = |what: &str| {
        tail.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}: {tail}"))
    };
    let denied = line("mcp.denied");
    assert!(denied.contains("reason=argument_denied") && denied.contains("argument=/query"), "{denied}");
    let called = line("mcp.call");
    assert!(called.contains("name=docs_read  result=tool_error"), "{called}");
    let named = app.console(&["client", "show", &client.id])["client"]["name"].as_str().unwrap().to_owned();
    assert!(called.contains(&format!("client_id={named} ({})", client.id)), "{called}");
    let nobody = ["policy", "check", "--user", "nobody", "--tool", "whoami"];
    assert!(refused(&app, &nobody).contains("no user `nobody`"));
    let nothing = ["policy", "check", "--user", "ernie", "--tool", "whoami", "--client", "nothing"];
    assert!(refused(&app, &nothing).contains("no client `nothing`"));
}
