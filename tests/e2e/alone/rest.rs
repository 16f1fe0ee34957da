//! `kind = "rest"`, with the example of its page as written.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use super::service::{Arrived, Reply, Service};
use super::{call, error, example, listed, opened};
use crate::harness::TestApp;
use crate::sources::token;

const CANARY: &str = "canary-1f7c93";

/// Answers in the shapes of Jira Data Center, GitLab, Jenkins and Gitea.
fn shapes(request: &Arrived, _: usize) -> Reply {
    let path = request.path.split('?').next().unwrap();
    match (request.method.as_str(), path) {
        ("GET", "/rest/api/2/issue/OPS-1") => Reply::Json(
            200,
            json!({
                "expand": "renderedFields", "id": "10001", "self": "https://jira.lab.internal/rest/api/2/issue/10001", "key": "OPS-1",
                "fields": {
                    "summary": "Disk full", "status": { "name": "Open", "id": "1" }, "assignee": null,
                    "description": "node-7", "comment": { "comments": [{ "body": "Seen.", "author": { "emailAddress": "x@lab" } }] },
                },
                "sent": request.headers,
            }),
        ),
        ("GET", "/rest/api/2/issue/OPS-404") => Reply::Json(
            404,
            json!({ "errorMessages": ["Issue Does Not Exist"], "errors": {}, "sent": request.headers }),
        ),
        ("GET", "/rest/api/2/issue/OPS-302") => Reply::With(302, "location: http://127.0.0.1:1/elsewhere"),
        ("GET", "/rest/api/2/search") => {
            let issues: Vec<Value> = (0..20).map(|at| json!({ "key": format!("OPS-{at}"), "fields": { "summary": "s", "status": { "name": "Open" } } })).collect();
            Reply::Json(200, json!({ "startAt": 0, "maxResults": 20, "total": 20, "issues": issues }))
        }
        ("POST", "/rest/api/2/issue/OPS-1/comment") => {
            Reply::Json(201, json!({ "id": "7", "created": "2026-01-01", "body": "x" }))
        }
        ("POST", "/rest/api/2/issue/OPS-9/comment") => Reply::Dies,
        ("GET", "/api/v4/projects/5/merge_requests") => Reply::Json(
            200,
            json!([{ "iid": 3, "title": "Fix", "author": { "username": "ada", "id": 1 }, "web_url": "u" }]),
        ),
        ("GET", "/job/nightly/lastBuild/api/json") => Reply::Json(
            200,
            json!({ "_class": "x", "number": 12, "result": "SUCCESS", "building": false, "timestamp": 1, "url": "u" }),
        ),
        ("POST", "/api/v1/repos/lab/tools/issues") => {
            Reply::Json(201, json!({ "number": 4, "html_url": "u", "id": 9 }))
        }
        _ => Reply::Json(500, json!({ "path": path })),
    }
}

/// The example with this service in the place of all four, and their secrets in this folder.
fn configured(service: &Service, dir: &Path) -> String {
    let mut toml =
        opened(&example(include_str!("../../../docs/rest.md")), &["tickets.read", "tickets.write"]);
    for host in ["jira", "gitlab", "jenkins", "git"] {
        let documented = format!("https://{host}.lab.internal");
        assert!(toml.contains(&documented));
        toml = toml.replace(&format!("url = \"{documented}"), &format!("url = \"{}", service.url));
    }
    for (name, value) in [
        ("jira.token", CANARY.to_owned()),
        ("gitlab.token", CANARY.to_owned()),
        ("jenkins.basic", format!("Basic {CANARY}")),
        ("gitea.token", format!("token {CANARY}")),
    ] {
        let path = dir.join(name);
        std::fs::write(&path, value).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        toml = toml.replace(&format!("file:{name}"), &format!("file:{}", path.display()));
    }
    toml
}

/// REST-01, SRC-08, SRC-10: the page's example works as written against services of these four shapes. What is not named is
/// not shown, an error of the service is the model's to read, and the credential is found nowhere but at the service.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_works_as_written() {
    let (service, dir) = (Service::start(shapes), tempfile::tempdir().unwrap());
    let app = TestApp::start_configured(&configured(&service, dir.path())).await;
    let token = token(&app).await;
    let mut seen = String::new();
    for (name, arguments, body) in [
        (
            "jira_get_issue",
            json!({ "key": "OPS-1" }),
            json!({ "key": "OPS-1", "fields": { "summary": "Disk full", "status": { "name": "Open" }, "description": "node-7",
                "comment": { "comments": [{ "body": "Seen." }] } } }),
        ),
        (
            "jira_add_comment",
            json!({ "key": "OPS-1", "text": "Line\n\"two\"" }),
            json!({ "id": "7", "created": "2026-01-01" }),
        ),
        (
            "gitlab_merge_requests",
            json!({ "project": 5 }),
            json!([{ "iid": 3, "title": "Fix", "author": { "username": "ada" }, "web_url": "u" }]),
        ),
        (
            "jenkins_last_build",
            json!({ "job": "nightly" }),
            json!({ "number": 12, "result": "SUCCESS", "building": false, "timestamp": 1, "url": "u" }),
        ),
        (
            "gitea_create_issue",
            json!({ "owner": "lab", "repo": "tools", "title": "T" }),
            json!({ "number": 4, "html_url": "u" }),
        ),
    ] {
        let result = call(&app, &token, name, arguments).await;
        assert_eq!(result["structuredContent"]["body"], body, "{name}: {result}");
        assert_eq!(result["structuredContent"]["truncated"], false);
        seen += &result.to_string();
    }
    let found =
        call(&app, &token, "jira_search", json!({ "jql": "project = \"A&B\" AND x=1#", "limit": 5 })).await;
    assert_eq!(found["structuredContent"]["body"]["issues"].as_array().unwrap().len(), 20);
    let arrived = service.arrived();
    let search = arrived.last().unwrap();
    assert_eq!(
        search.path,
        "/rest/api/2/search?jql=project%20%3D%20%22A%26B%22%20AND%20x%3D1%23&maxResults=5&fields=summary%2Cstatus"
    );
    assert!(arrived.iter().all(|request| request.headers.iter().any(|(_, value)| value.contains(CANARY))));
    assert_eq!(arrived[1].json(), json!({ "body": "Line\n\"two\"" }));
    assert_eq!(arrived[4].json(), json!({ "title": "T", "labels": [] }));

    let missing = call(&app, &token, "jira_get_issue", json!({ "key": "OPS-404" })).await;
    assert!(
        error(&missing).contains("HTTP 404") && error(&missing).contains("Issue Does Not Exist"),
        "{missing}"
    );
    let moved = call(&app, &token, "jira_get_issue", json!({ "key": "OPS-302" })).await;
    assert!(error(&moved).contains("redirects to another address"), "{moved}");
    let died = call(&app, &token, "jira_add_comment", json!({ "key": "OPS-9", "text": "x" })).await;
    assert!(error(&died).contains("may have acted"), "{died}");
    let sent = |request: &&Arrived| request.path.ends_with("/OPS-9/comment");
    assert_eq!(service.arrived().iter().filter(sent).count(), 1, "what may have run is not sent again");
    seen += &[missing.to_string(), moved.to_string(), died.to_string()].concat();

    for listed in listed(&app, &token).await {
        if listed["name"].as_str().unwrap().starts_with("jira_") {
            assert_eq!(listed["outputSchema"]["required"], json!(["status", "body", "truncated"]));
        }
    }
    let records: Vec<Value> = app.audit();
    let outcome = |record: &Value| record["detail"]["result"].as_str().map(str::to_owned);
    let results: Vec<_> = records.iter().filter_map(outcome).collect();
    assert!(
        ["ok", "tool_error", "error", "unknown"].iter().all(|known| results.iter().any(|one| one == known)),
        "{results:?}"
    );
    seen += &json!(records).to_string();
    assert!(!seen.contains(CANARY), "the credential leaked");
}

/// REST-01: none of these arguments makes a byte leave, and each is answered with words that help.
#[tokio::test(flavor = "multi_thread")]
async fn an_argument_that_leads_elsewhere_reaches_nobody() {
    let service = Service::start(shapes);
    let toml = format!(
        "[sources.s]\nkind = \"rest\"\nurl = \"{}\"\n[sources.s.tools.get]\ndescription = \"d\"\npath = \"/x/{{p}}\"\n\
         headers = {{ X-Note = \"{{h}}\" }}\nparams.p = \"string\"\nparams.h = {{ required = false }}\n\
         [sources.away]\nkind = \"rest\"\nurl = \"{0}\"\nnetworks = [\"192.0.2.0/24\"]\n[sources.away.tools.get]\ndescription = \"d\"\npath = \"/x\"\n\
         [sources.named]\nkind = \"rest\"\nurl = \"{1}\"\nnetworks = [\"192.0.2.0/24\"]\n[sources.named.tools.get]\ndescription = \"d\"\npath = \"/x\"\n\
         [tools]\n\"s_*\" = \"docs.read\"\n\"away_*\" = \"docs.read\"\n\"named_*\" = \"docs.read\"\n",
        service.url,
        service.url.replace("127.0.0.1", "localhost"),
    );
    let app = TestApp::start_configured(&toml).await;
    let token = token(&app).await;
    for p in [
        "..",
        "a/b",
        "//evil",
        "a%2fb",
        "%2e%2e",
        "a\r\nHost: evil",
        "a?x",
        "a#x",
        "\u{ff0f}\u{ff0f}evil",
        "user@evil/",
        "a\\b",
        "..;",
    ] {
        let refused = call(&app, &token, "s_get", json!({ "p": p })).await;
        assert!(error(&refused).contains("`p` must not"), "{p:?}: {refused}");
    }
    for h in ["a\r\nX-Evil: 1", "é", "a\n"] {
        let refused = call(&app, &token, "s_get", json!({ "p": "a", "h": h })).await;
        assert!(error(&refused).contains("visible ASCII"), "{h:?}: {refused}");
    }
    for (arguments, says) in [
        (json!({}), "`p` is required"),
        (json!({ "p": 7 }), "`p` must be"),
        (json!({ "p": "a", "host": "evil" }), "`host` is not an argument"),
    ] {
        let refused = call(&app, &token, "s_get", arguments).await;
        assert!(error(&refused).contains(says), "{refused}");
    }
    for name in ["away_get", "named_get"] {
        let away = call(&app, &token, name, json!({})).await;
        assert!(
            error(&away).contains("not in its allowed networks") && error(&away).contains("Nothing was done"),
            "{away}"
        );
    }
    assert_eq!(service.connections(), 0, "no byte left");
}
