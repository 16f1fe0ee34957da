//! Walks over every route in the server's own table, so that a new route that lacks a property fails.

use reqwest::header::{ACCEPT, ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use shared::route::{Audience, Cors, Host, Limit, Rule};

use crate::harness::TestApp;
use crate::raw::Raw;

/// The configuration with every optional route.
pub const ALL: &str = "device = true\n[registration]\nmanagement = true\n[profiles.x]\nitems = \"*\"\n";

/// A path that matches the rule.
pub fn path(rule: &Rule) -> String {
    rule.path
        .split('/')
        .map(|part| if part.starts_with('{') { "x" } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

/// The methods of a path, from the `Allow` header for an unknown method.
async fn methods(app: &TestApp, rule: &Rule) -> Vec<Method> {
    if rule.host == shared::route::Host::ByHandler {
        return vec![Method::POST];
    }
    let refused = app.http.request(Method::PATCH, app.url(&path(rule))).send().await.unwrap();
    if refused.status() == StatusCode::NOT_FOUND {
        return vec![Method::GET];
    }
    assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED, "{}", rule.path);
    let allowed = refused.headers()[ALLOW].to_str().unwrap().to_owned();
    let methods = allowed.split(',').map(|method| method.trim().parse().unwrap());
    methods.filter(|method| !matches!(*method, Method::HEAD | Method::OPTIONS)).collect()
}

/// Every route with each of its methods.
pub async fn endpoints(app: &TestApp) -> Vec<(Rule, Method)> {
    let mut endpoints = Vec::new();
    for rule in app.table.rules() {
        endpoints.extend(methods(app, rule).await.into_iter().map(|method| (*rule, method)));
    }
    assert!(endpoints.len() > 40, "{endpoints:?}");
    endpoints
}

fn ask(app: &TestApp, rule: &Rule, method: &Method) -> RequestBuilder {
    app.http.request(method.clone(), app.url(&path(rule)))
}

async fn code(response: Response) -> String {
    let told: serde_json::Value = response.json().await.unwrap_or_default();
    told["error"].as_str().unwrap_or_default().to_owned()
}

/// RATE-01: repeated requests are rate limited, on every path with a limit by address; a path without one says
/// why.
#[tokio::test(flavor = "multi_thread")]
async fn every_limit_is_reached() {
    let limits =
        shared::rate::Limits::NAMES.iter().map(|name| format!("{name} = 5")).collect::<Vec<_>>().join("\n");
    let app = TestApp::start_configured(&format!("{ALL}[rate]\n{limits}")).await;
    for (rule, method) in endpoints(&TestApp::start_configured(ALL).await).await {
        if let Limit::Free(why) = rule.limit {
            assert!(why.len() > 5, "{}", rule.path);
            continue;
        }
        if !rule.limit.counts(&method) {
            continue;
        }
        app.clock.advance(std::time::Duration::from_mins(10));
        let mut statuses = Vec::new();
        for _ in 0..8 {
            let mut asked =
                ask(&app, &rule, &method).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            if rule.limit == Limit::Mcp {
                asked = asked.bearer_auth("junk");
            }
            statuses.push(asked.body("assertion=x&client_id=x").send().await.unwrap().status());
        }
        assert_eq!(
            statuses.last(),
            Some(&StatusCode::TOO_MANY_REQUESTS),
            "{method} {} {statuses:?}",
            rule.path
        );
    }
}

/// RATE-06: every request that may leave a row or a record has a limit, including the start of a ceremony; only
/// reading is free.
#[tokio::test]
async fn only_reading_is_free() {
    let app = TestApp::start_configured(ALL).await;
    for (rule, method) in endpoints(&app).await {
        if method != Method::GET {
            assert!(rule.limit.counts(&method), "{method} {}", rule.path);
        }
    }
}

/// RATE-05: a body one byte larger than the limit is refused for that, whatever else is wrong.
#[tokio::test]
async fn no_body_is_larger_than_its_bound() {
    let app = TestApp::start_configured(ALL).await;
    for (rule, method) in endpoints(&app).await.into_iter().filter(|(_, method)| *method != Method::GET) {
        let media = if rule.audience == Audience::Program { "application/json" } else { "text/plain" };
        for media in [media, "application/json", "application/x-www-form-urlencoded"] {
            let asked = ask(&app, &rule, &method).header(CONTENT_TYPE, media);
            let status = asked.body("a".repeat(rule.body + 1)).send().await.unwrap().status();
            // A refusal before the body is read is fine too.
            assert!(status.is_client_error(), "{method} {} {status}", rule.path);
            if rule.limit == Limit::Token || rule.limit == Limit::Client {
                assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{method} {}", rule.path);
            }
        }
    }
}

/// HTTP-06: pages of other origins can read public responses, including errors, and nothing else.
#[tokio::test]
async fn other_origins_read_what_is_declared() {
    let app = TestApp::start_configured(ALL).await;
    for (rule, method) in endpoints(&app).await {
        let allowed = |response: &Response| {
            response.headers().get("access-control-allow-origin").map(|v| v.to_str().unwrap().to_owned())
        };
        let origin = "https://elsewhere.example";
        let answer = ask(&app, &rule, &method).header(ORIGIN, origin).send().await.unwrap();
        let refused = ask(&app, &rule, &Method::PATCH).header(ORIGIN, origin).send().await.unwrap();
        let preflight = ask(&app, &rule, &Method::OPTIONS)
            .header(ORIGIN, origin)
            .header("access-control-request-method", method.as_str());
        let preflight = preflight.send().await.unwrap();
        let expected = matches!(rule.cors, Cors::Documents | Cors::Clients | Cors::Management);
        for response in [&answer, &refused, &preflight] {
            let what = format!("{method} {} {}", rule.path, response.status());
            assert_eq!(allowed(response), expected.then(|| "*".to_owned()), "{what}");
            assert!(!response.headers().contains_key("access-control-allow-credentials"), "{what}");
        }
        assert_eq!(preflight.status() == StatusCode::NO_CONTENT, expected, "{method} {}", rule.path);
        if expected {
            let methods = preflight.headers()["access-control-allow-methods"].to_str().unwrap().to_owned();
            assert!(methods.contains(method.as_str()), "{method} {} {methods}", rule.path);
        }
    }
}

/// HTTP-03, TOKEN-04: a `%` that begins no encoded byte is refused everywhere, in path, query and form, because
/// parsers disagree about it.
#[tokio::test]
async fn malformed_percent_encoding_is_refused() {
    let app = TestApp::start_configured(ALL).await;
    let raw = async |method: &Method, target: &str, accept: &str, body: &str| {
        let mut raw = Raw::open(&app.origin).await;
        let form = "Content-Type: application/x-www-form-urlencoded\r\n";
        let headers = format!("{form}Accept: {accept}\r\nContent-Length: {}\r\n", body.len());
        raw.ask(&format!("{method} {target}"), &headers, body).await;
        raw.answer().await.unwrap()
    };
    for (rule, method) in endpoints(&app).await {
        let path = path(&rule);
        for target in
            [format!("{path}?x=%zz"), format!("{path}?%4"), format!("{path}?a=b&c=%"), format!("{path}%g0")]
        {
            let answer = raw(&method, &target, "application/json", "").await;
            assert_eq!(answer.status, 400, "{method} {target} {answer:?}");
            assert_eq!(answer.json()["error"], "invalid_request", "{method} {target}");
        }
        if rule.audience == Audience::Person {
            let answer = raw(&method, &format!("{path}?x=%zz"), "text/html", "").await;
            assert_eq!(
                (answer.status, answer.header("content-type")),
                (400, Some("text/html; charset=utf-8"))
            );
        }
        if method == Method::POST {
            for body in ["x=%zz", "%=x", "client_id=x&token=%4g"] {
                let answer = raw(&method, &path, "application/json", body).await;
                assert!((400..500).contains(&answer.status), "{method} {path} {answer:?}");
                if matches!(rule.limit, Limit::Token | Limit::Client | Limit::Failures)
                    && rule.path != "/register/{id}"
                {
                    assert_eq!(
                        (answer.status, &answer.json()["error"]),
                        (400, &"invalid_request".into()),
                        "{path}"
                    );
                }
            }
        }
    }
}

/// HTTP-03: trailing slashes and another case are refused; programs are told the right address, and a page that
/// could read the response there can read this one.
#[tokio::test]
async fn an_address_that_is_nearly_right_names_the_right_one() {
    let app = TestApp::start_configured(ALL).await;
    let origin = "http://localhost:6274";
    let programs = app.table.rules().iter().filter(|rule| rule.audience == Audience::Program);
    let mut asked = 0;
    // Below `/.well-known/` every path is declared.
    let declared = |rule: &&Rule| rule.path.contains('{') || rule.path.contains("/.well-known/");
    for rule in programs.filter(|rule| !declared(rule)) {
        let (slash, upper) = (format!("{}/", rule.path), rule.path.to_uppercase());
        for (near, method) in [(&slash, Method::GET), (&slash, Method::POST), (&upper, Method::POST)] {
            let ask =
                app.http.request(method, app.url(near)).header(ORIGIN, origin).header(ACCEPT, "text/html");
            let answer = ask.send().await.unwrap();
            let readable =
                answer.headers().get("access-control-allow-origin").map(|v| v.to_str().unwrap().to_owned());
            let expected = match rule.cors {
                Cors::Closed => None,
                Cors::ByHandler => Some(origin.to_owned()),
                Cors::Documents | Cors::Clients | Cors::Management => Some("*".to_owned()),
            };
            assert_eq!(readable, expected, "{near}");
            assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{near}");
            let told: serde_json::Value = answer.json().await.unwrap();
            let words = told["error_description"].as_str().unwrap();
            assert!(words.ends_with(&format!("use {}", app.url(rule.path))), "{near} {words}");
            asked += 1;
        }
    }
    assert!(asked > 20, "{asked}");
    let page = app.http.get(app.url("/account/")).header(ACCEPT, "text/html").send().await.unwrap();
    assert_eq!(page.status(), StatusCode::NOT_FOUND);
    assert!(page.headers()[CONTENT_TYPE].to_str().unwrap().starts_with("text/html"));
}

/// HTTP-06, HTTP-08, META-03: wherever a client in a browser looks for a missing document, it can read that it
/// is missing.
#[tokio::test]
async fn a_missing_document_can_be_read_to_be_missing() {
    let app = TestApp::start_configured(ALL).await;
    for path in [
        "/.well-known",
        "/.well-known/",
        "/.well-known/openid-configuration",
        "/.well-known/openid-configuration/mcp",
        "/.well-known/oauth-authorization-server/mcp",
        "/.well-known/oauth-protected-resource/nothing",
        "/mcp/.well-known/openid-configuration",
        "/mcp/.well-known/oauth-authorization-server",
        "/mcp/.well-known/",
        "/token/.well-known/openid-configuration",
        "/a/b/.well-known/c",
    ] {
        for method in [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS] {
            let ask =
                app.http.request(method.clone(), app.url(path)).header(ORIGIN, "https://elsewhere.example");
            let answer = ask.header(ACCEPT, "text/html").send().await.unwrap();
            let headers = answer.headers();
            assert_eq!(headers["access-control-allow-origin"], "*", "{method} {path}");
            if method == Method::OPTIONS {
                assert_eq!(answer.status(), StatusCode::NO_CONTENT, "{path}");
            } else {
                assert_eq!(
                    (answer.status(), &headers[CONTENT_TYPE]),
                    (StatusCode::NOT_FOUND, &"application/json".parse().unwrap()),
                    "{method} {path}"
                );
            }
        }
    }
}

/// HTTP-06: refusals before the gate can be read by the pages that may call it, and by no others.
#[tokio::test]
async fn pages_can_read_early_refusals_of_the_gate() {
    let app = TestApp::start_configured(ALL).await;
    let (long, wide) = ("x".repeat(8200), "y".repeat(17_000));
    for (line, filler, status) in [
        ("POST /mcp?x=%zz".to_owned(), "", 400),
        (format!("POST /mcp?{long}"), "", 414),
        ("POST /mcp".to_owned(), wide.as_str(), 431),
        ("POST /mcp/".to_owned(), "", 404),
    ] {
        for (origin, shared) in [("http://localhost:6274", true), ("https://evil.example", false)] {
            let mut raw = Raw::open(&app.origin).await;
            raw.ask(&line, &format!("Origin: {origin}\r\nX-Filler: {filler}\r\nContent-Length: 0\r\n"), "")
                .await;
            let answer = raw.answer().await.unwrap();
            assert_eq!(answer.status, status, "{line:.20}");
            let readable = answer.header("access-control-allow-origin");
            // A head that was not read completely has no known origin.
            let read = !matches!(status, 414 | 431);
            assert!(readable.is_none() || readable == Some(origin) && shared, "{line:.20} {readable:?}");
            assert!(!read || readable.is_some() == shared, "{line:.20} {readable:?}");
        }
    }
}

/// HTTP-08: programs get errors in JSON, even if their `Accept` prefers HTML.
#[tokio::test]
async fn refusals_match_the_form_of_the_request() {
    let app = TestApp::start_configured(ALL).await;
    for rule in app.table.rules() {
        let asked = ask(&app, rule, &Method::PATCH).header(ACCEPT, "text/html").header(CONTENT_LENGTH, "0");
        let response = asked.send().await.unwrap();
        let kind = response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
        assert_eq!(kind, "application/json", "{}", rule.path);
        if rule.audience == Audience::Person {
            let nowhere = app.http.get(app.url("/nowhere")).header(ACCEPT, "text/html").send().await.unwrap();
            assert!(nowhere.headers()[CONTENT_TYPE].to_str().unwrap().starts_with("text/html"));
        } else {
            assert!(response.status().is_client_error(), "{}", rule.path);
        }
    }
}

/// HTTP-03, OPS-05: under a foreign host name the server answers only probes.
#[tokio::test]
async fn only_probes_are_answered_under_any_name() {
    for app in [TestApp::start_configured(ALL).await, TestApp::start_https(ALL).await] {
        for (rule, method) in endpoints(&app).await {
            for name in ["192.0.2.7:8080", "evil.example", "evil.example:80"] {
                let response = ask(&app, &rule, &method).header(HOST, name).send().await.unwrap();
                let (status, what) = (response.status(), format!("{method} {} as {name}", rule.path));
                match rule.host {
                    Host::Any => assert_eq!(status, StatusCode::OK, "{what}"),
                    Host::Known => {
                        assert_eq!(status, StatusCode::MISDIRECTED_REQUEST, "{what}");
                        assert_eq!(code(response).await, "misdirected_request", "{what}");
                    }
                    Host::ByHandler => assert!(status.is_client_error(), "{what} {status}"),
                }
            }
        }
    }
}
