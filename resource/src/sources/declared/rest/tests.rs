use serde_json::json;
use shared::outbound::{Destination, Security};

use super::*;
use crate::item::SourceName;
use crate::sources::declared::{ParamKind, Projection};

fn param(name: &str) -> Param {
    let kind = ParamKind::Text { longest: None, pattern: None, choices: Vec::new() };
    Param { name: name.to_owned(), description: None, required: false, default: None, kind }
}

fn operation(path: &str, params: &[&str]) -> Operation {
    let text = ToolText { name: "get".to_owned(), title: None, description: "Reads something.".to_owned() };
    Operation {
        text,
        method: Method::GET,
        path: PathTemplate::parse(path).unwrap(),
        query: Vec::new(),
        headers: Vec::new(),
        body: None,
        params: params.iter().map(|name| Param { required: true, ..param(name) }).collect(),
        result: Projection::default(),
        most: 1 << 16,
    }
}

fn built(operation: &Operation, arguments: &Value) -> Result<Outgoing, String> {
    request::of(operation, "/base", &arguments.as_object().unwrap().clone().into(), &[])
}

/// REST-01: for every value of an argument, the request goes to the declared host, and its path has the declared segments; an
/// argument that could be read as something else is refused before anything is sent.
#[test]
fn an_argument_cannot_leave_its_segment() {
    let get = operation("/issue/{key}/comment", &["key"]);
    for (key, path) in [
        ("OPS-1", "/base/issue/OPS-1/comment"),
        ("a b", "/base/issue/a%20b/comment"),
        ("a@b:80", "/base/issue/a%40b%3A80/comment"),
        ("über", "/base/issue/%C3%BCber/comment"),
        ("a=1&b=2", "/base/issue/a%3D1%26b%3D2/comment"),
        ("...", "/base/issue/.../comment"),
        ("127.0.0.1", "/base/issue/127.0.0.1/comment"),
    ] {
        let outgoing = built(&get, &json!({ "key": key })).unwrap();
        assert_eq!(outgoing.path, path);
        assert!(!outgoing.headers.contains_key("host"), "the connection says it");
    }
    for key in [
        "",
        ".",
        "..",
        "%2e%2e",
        "%2E",
        "../admin",
        "..\\admin",
        "a/b",
        "/",
        "//evil.example",
        "a%2fb",
        "a%252fb",
        "..;",
        "a;jsessionid=1",
        "a?x=1",
        "a#b",
        "a\r\nX-Evil: 1",
        "a\nb",
        "a\0b",
        "http://evil.example",
        "user@evil.example/",
        "\u{ff0f}\u{ff0f}evil.example",
        "a\u{2044}\u{ff0f}b",
        "\u{ff0e}\u{ff0e}",
        "\u{2024}\u{2024}",
        "[::1]/",
    ] {
        assert!(built(&get, &json!({ "key": key })).is_err(), "{key:?}");
    }
    let split = operation("/x/.{tail}", &["tail"]);
    assert!(built(&split, &json!({ "tail": "." })).is_err(), "two parts together make dots");
    assert_eq!(built(&split, &json!({ "tail": "git" })).unwrap().path, "/base/x/.git");
}

/// REST-01: arguments in queries, headers and bodies stay what they are.
#[test]
fn an_argument_is_one_value() {
    let mut post = operation("/x", &["q", "h", "b"]);
    post.method = Method::POST;
    post.query = vec![("q".to_owned(), Slot::parse("{q}")), ("fixed".to_owned(), Slot::parse("a b"))];
    post.headers = vec![(HeaderName::from_static("x-note"), Slot::parse("{h}"))];
    post.body = Some(BodyTemplate::new(json!({ "b": "{b}", "deep": [{ "c": "{b}" }, 1], "kept": "b" })));
    for param in &mut post.params {
        param.required = false;
    }
    let outgoing =
        built(&post, &json!({ "q": "a&b=c#\r\n/é", "h": "one line", "b": "\"}, \"x\": {\"" })).unwrap();
    assert_eq!(outgoing.path, "/base/x?q=a%26b%3Dc%23%0D%0A%2F%C3%A9&fixed=a%20b");
    assert_eq!(outgoing.headers["x-note"], "one line");
    let body: Value = serde_json::from_slice(&outgoing.body).unwrap();
    let quoted = "\"}, \"x\": {\"";
    assert_eq!(body, json!({ "b": quoted, "deep": [{ "c": quoted }, 1], "kept": "b" }));
    assert!(!outgoing.repeatable, "a request that may change something is sent once");
    // What was left out is left out.
    let outgoing = built(&post, &json!({})).unwrap();
    assert_eq!(outgoing.path, "/base/x?fixed=a%20b");
    assert!(!outgoing.headers.contains_key("x-note"));
    assert_eq!(
        serde_json::from_slice::<Value>(&outgoing.body).unwrap(),
        json!({ "deep": [{}, 1], "kept": "b" })
    );
    for h in ["a\r\nX-Evil: 1", "a\nb", "a\u{0}", "é", "a\u{2028}b", "\t"] {
        let refused = built(&post, &json!({ "h": h })).unwrap_err();
        assert!(refused.starts_with("`h` must be visible ASCII"), "{h:?}: {refused}");
    }
    assert!(built(&post, &json!({ "q": "x".repeat(9000) })).unwrap_err().contains("more than 8192 bytes"));
}

/// REST-01: a path that could be read in two ways is not a template.
#[test]
fn a_template_is_one_path() {
    for (path, why) in [
        ("issue", "must begin with `/`"),
        ("//host/x", "two slashes"),
        ("/a//b", "two slashes"),
        ("/a/../b", "dots"),
        ("/a/%2E%2e/b", "dots"),
        ("/a?x=1", "percent-encoded"),
        ("/a#b", "percent-encoded"),
        ("/a\\b", "percent-encoded"),
        ("/a b", "percent-encoded"),
        ("/é", "percent-encoded"),
        ("/a%2", "hexadecimal"),
        ("/a{", "has no `}`"),
        ("/a{b c}", "the name of an argument"),
        ("/{}", "the name of an argument"),
    ] {
        let refused = PathTemplate::parse(path).unwrap_err();
        assert!(refused.contains(why), "{path}: {refused}");
    }
    for path in ["/", "/a", "/a/", "/{a}.{b}", "/api/v4/projects/lab%2Fnode/issues/{iid}"] {
        PathTemplate::parse(path).unwrap();
    }
}

/// REST-01: what an operation declares and what it uses are the same.
#[test]
fn declarations_that_do_not_fit_are_refused() {
    let rest = |operation: Operation| {
        let security = Security::Plain;
        let destination = Destination {
            host: "localhost".to_owned(),
            port: 1,
            authority: "localhost:1".to_owned(),
            security,
            networks: Vec::new(),
        };
        let operations = vec![operation];
        tools("jira", &RestSource { url: String::new(), prefix: String::new(), destination, operations })
    };
    let mut unused = operation("/x", &["a"]);
    let mut optional = operation("/x/{a}", &["a"]);
    optional.params[0].required = false;
    let mut reading = operation("/x", &[]);
    reading.body = Some(BodyTemplate::new(json!({})));
    let mut long = operation("/x", &[]);
    long.text.name = "x".repeat(70);
    let mut pattern = operation("/x/{a}", &["a"]);
    pattern.params[0].kind =
        ParamKind::Text { longest: None, pattern: Some("(".to_owned()), choices: Vec::new() };
    for (operation, why) in [
        (operation("/x/{b}", &["a"]), "uses {b}, which is not among its `params`"),
        (unused.clone(), "does not use it"),
        (optional, "must be required or have a default"),
        (reading, "has a `body`, and GET carries none"),
        (long, "is not a name for a tool"),
        (pattern, "the arguments of `jira_get`"),
    ] {
        let refused = rest(operation).err().unwrap();
        assert!(refused.contains(why), "{refused}");
    }
    unused.params.clear();
    assert_eq!(&*rest(unused).unwrap()[0].offer.name, "jira_get");
}

fn told(outcome: &Outcome) -> (String, bool) {
    let Outcome::Result { members, is_error, .. } = outcome else { panic!("{outcome:?}") };
    (String::from_utf8(members.clone()).unwrap(), *is_error)
}

/// REST-01, SRC-10: an error of the service is the model's to read, and no answer shows a credential.
#[test]
fn what_a_service_says_is_shown_without_secrets() {
    let source = SourceName::from("jira");
    let credentials = Credentials::none("jira", String::new(), &shared::Issuer::localhost(8080));
    let secret = "Bearer canary-5f2c\"x";
    let headers = vec![(http::header::AUTHORIZATION, http::HeaderValue::from_static(secret))];
    let mut get = operation("/x", &[]);
    get.result = Projection::parse(["/key"]).unwrap();
    get.most = 1024;
    let answer = |status, body: String| {
        answer::outcome(
            &source,
            &credentials,
            &get,
            &headers,
            Answered { status, location: status == 302, body: body.into() },
        )
    };
    let echoed = json!({ "key": { "sent": secret, "token": "canary-5f2c\"x" }, "other": 1 });
    let (text, is_error) = told(&answer(200, echoed.to_string()));
    assert!(
        !is_error && !text.contains("canary") && text.contains("[secret]") && !text.contains("other"),
        "{text}"
    );
    assert!(text.contains(r#""structuredContent":{"status":200,"body":"#), "{text}");
    let (text, is_error) =
        told(&answer(404, json!({ "errorMessages": ["Issue Does Not Exist"] }).to_string()));
    assert!(
        is_error && text.contains("answered HTTP 404") && text.contains("Issue Does Not Exist"),
        "{text}"
    );
    let (text, is_error) = told(&answer(500, format!("<h1>{secret}</h1>")));
    assert!(is_error && !text.contains("canary"), "{text}");
    let (text, _) = told(&answer(401, String::new()));
    assert!(text.contains("Your own sign-in is not the problem"), "{text}");
    let (text, is_error) = told(&answer(200, json!({ "key": "x".repeat(90_000) }).to_string()));
    assert!(!is_error && text.contains(r#""truncated":true"#) && text.len() < 4096);
    assert_eq!(answer(302, String::new()).as_str(), "error");
}
