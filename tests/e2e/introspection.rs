//! Resource servers elsewhere: which may introspect, and what they are told.

use std::time::Duration;

use data_encoding::BASE64;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::harness::{Browser, Client, TestApp, Tokens, authorize_url, error_of, header, redirect_parameter};

const WIKI: &str = "https://wiki.lab.internal/mcp";

/// A resource server's credentials.
#[derive(Clone)]
pub struct Server {
    id: String,
    secret: String,
}

impl Server {
    pub fn add(app: &TestApp, name: &str, audience: &str) -> Self {
        Self::of(&app.console(&["rs", "add", name, "--audience", audience]))
    }

    fn of(answer: &Value) -> Self {
        Self {
            id: answer["resource_server"]["id"].as_str().unwrap().to_owned(),
            secret: answer["client_secret"].as_str().unwrap().to_owned(),
        }
    }

    fn basic(&self) -> String {
        format!("Basic {}", BASE64.encode(format!("{}:{}", self.id, self.secret).as_bytes()))
    }

    fn asking(&self, app: &TestApp, token: &str) -> RequestBuilder {
        let form = [("token", token)];
        app.http.post(app.url("/introspect")).header("authorization", self.basic()).form(&form)
    }

    pub async fn ask(&self, app: &TestApp, token: &str) -> Value {
        let answer = self.asking(app, token).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }
}

fn inactive() -> Value {
    json!({ "active": false })
}

/// A user with tokens for our own endpoint, and a resource server for it.
async fn asked() -> (TestApp, Browser, Client, Tokens, Server) {
    let app = TestApp::start().await;
    let server = Server::add(&app, "gateway", &app.mcp_url());
    let mut browser = app.admin().await;
    let client = app.client().await;
    let tokens = app.tokens(&mut browser, &client).await;
    (app, browser, client, tokens, server)
}

/// Tokens for a resource elsewhere.
async fn tokens_for(app: &TestApp, browser: &mut Browser, client: &Client, resource: &str) -> Tokens {
    let mut request = client.request(app);
    request.insert("resource", resource.to_owned());
    let page = browser.consent_page(app, &authorize_url(app, &request)).await;
    let answer = browser.decide(app, &page, "approve").await;
    let code = redirect_parameter(&answer, "code").unwrap();
    let response = app.redeem(client, &code).await;
    assert_eq!(response.status(), 200);
    Tokens::of(response).await
}

/// INTRO-02, INTRO-07, INTRO-08: an active token is described in full, as JSON for any `Accept`.
#[tokio::test(flavor = "multi_thread")]
async fn a_good_token_is_described() {
    let (app, _, client, tokens, server) = asked().await;
    let answer = server.asking(&app, &tokens.access).header("accept", "application/token-introspection+jwt");
    let answer = answer.header("origin", "https://elsewhere.example").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(header(answer.headers(), "content-type"), Some("application/json"));
    assert_eq!(header(answer.headers(), "cache-control"), Some("no-store"));
    assert_eq!(header(answer.headers(), "access-control-allow-origin"), None);
    let claims = tokens.claims();
    let expected = json!({
        "active": true, "scope": "docs.read", "client_id": client.id, "token_type": "Bearer",
        "exp": claims["exp"], "iat": claims["iat"], "sub": claims["sub"], "aud": app.mcp_url(),
        "iss": app.origin, "jti": claims["jti"], "auth_time": claims["auth_time"], "acr": "aal2",
        "amr": claims["amr"], "grant_id": claims["grant_id"], "entitled_scope": "docs.read",
    });
    assert_eq!(answer.json::<Value>().await.unwrap(), expected);
    let hinted = [("token", tokens.access.as_str()), ("token_type_hint", "refresh_token")];
    let in_form = [("client_id", server.id.as_str()), ("client_secret", &server.secret)];
    let post = app.http.post(app.url("/introspect")).form(&[hinted, in_form].concat());
    assert_eq!(post.send().await.unwrap().json::<Value>().await.unwrap(), expected);
}

/// INTRO-03, INTRO-05: every other token is inactive, without details.
#[tokio::test(flavor = "multi_thread")]
async fn everything_else_is_inactive() {
    let (app, mut browser, client, tokens, server) = asked().await;
    let code = browser.authorize(&app, &client).await;
    let (head, signature) = tokens.access.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}", signature.chars().rev().collect::<String>());
    for bad in ["x", "a.b.c", "ey.ey.ey", &tokens.refresh, &code, &forged, &tokens.access[1..], "\u{fc}"] {
        assert_eq!(server.ask(&app, bad).await, inactive(), "{bad}");
    }
    assert_eq!(app.redeem(&client, &code).await.status(), 200, "asking used nothing up");
    assert_eq!(app.refresh(&client, &tokens.refresh).await.status(), 200);
    assert_eq!(server.ask(&app, &tokens.access).await["active"], true);
    app.clock.advance(Duration::from_mins(15));
    assert_eq!(server.ask(&app, &tokens.access).await, inactive(), "expired, without leeway");
}

/// INTRO-04: a resource server is told only about tokens for its own resources.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_for_others_are_inactive() {
    let (app, mut browser, client, tokens, gateway) = asked().await;
    let wiki = Server::add(&app, "wiki", WIKI);
    let both = app.console(&["rs", "add", "both", "--audience", WIKI, "--audience", &app.mcp_url()]);
    let both = Server::of(&both);
    let of_wiki = tokens_for(&app, &mut browser, &client, WIKI).await;
    assert_eq!(of_wiki.claims()["aud"], WIKI);
    assert_eq!(wiki.ask(&app, &of_wiki.access).await["aud"], WIKI);
    assert_eq!(wiki.ask(&app, &tokens.access).await, inactive());
    assert_eq!(gateway.ask(&app, &of_wiki.access).await, inactive());
    for token in [&tokens.access, &of_wiki.access] {
        assert_eq!(both.ask(&app, token).await["active"], true);
    }
    assert_eq!(app.call_tool(&of_wiki.access, "whoami", json!({})).await.status(), 401);
}

/// AUTHZ-14, TOKEN-11: a resource elsewhere can be requested while a resource server for it exists.
#[tokio::test(flavor = "multi_thread")]
async fn a_resource_elsewhere_is_one_to_ask_for() {
    let (app, mut browser, client, _, _) = asked().await;
    let mut request = client.request(&app);
    request.insert("resource", WIKI.to_owned());
    request.insert("redirect_uri", client.redirect_uri.clone());
    let refused = browser.get(&app, &authorize_url(&app, &request)).await;
    assert_eq!(redirect_parameter(&refused, "error").unwrap(), "invalid_target");
    let wiki = Server::add(&app, "Team wiki", WIKI);
    let page = browser.consent_page(&app, &authorize_url(&app, &request)).await;
    assert!(page.html.contains("Team wiki") && page.html.contains(WIKI));
    let tokens = tokens_for(&app, &mut browser, &client, WIKI).await;
    let tokens = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
    assert_eq!(wiki.ask(&app, &tokens.access).await["active"], true);
    app.console(&["rs", "delete", "Team wiki", "--yes"]);
    assert_eq!(error_of(app.refresh(&client, &tokens.refresh).await).await.1, "invalid_grant");
    assert_eq!(error_of(wiki.asking(&app, &tokens.access).send().await.unwrap()).await.1, "invalid_client");
}

/// INTRO-01: a caller that does not authenticate, or is not a resource server, is told nothing.
#[tokio::test(flavor = "multi_thread")]
async fn only_resource_servers_ask() {
    let (app, browser, client, tokens, server) = asked().await;
    let report =
        app.console(&["client", "add", "Report", "--secret", "--client-credentials", "--scope", "docs.read"]);
    let report = Server {
        id: report["client"]["id"].as_str().unwrap().to_owned(),
        secret: report["client_secret"].as_str().unwrap().to_owned(),
    };
    let wrong_role = report.asking(&app, &tokens.access).send().await.unwrap();
    assert_eq!(error_of(wrong_role).await, (StatusCode::FORBIDDEN, "access_denied".to_owned()));
    let silent = app.console(&["rs", "add", "silent", "--audience", &app.mcp_url(), "--expiry-only"]);
    let silent = silent["resource_server"]["id"].as_str().unwrap();
    let wrong = Server { secret: format!("{}x", server.secret), ..server.clone() };
    let other = Server { id: report.id.clone(), ..server.clone() };
    let nobody = Server { id: "c_nobody".to_owned(), ..server.clone() };
    let cookies: Vec<String> = browser.cookies.iter().map(|(n, v)| format!("{n}={v}")).collect();
    let post = || app.http.post(app.url("/introspect")).header("cookie", cookies.join("; "));
    let token = ("token", tokens.access.as_str());
    for request in [
        post().form(&[token]),
        post().form(&[token]).bearer_auth(&tokens.access),
        post().form(&[token, ("client_id", &client.id)]),
        post().form(&[token, ("client_id", &server.id)]),
        post().form(&[token, ("client_id", silent)]),
        wrong.asking(&app, &tokens.access),
        other.asking(&app, &tokens.access),
        nobody.asking(&app, &tokens.access),
        post().form(&[token]).header("authorization", "Basic !"),
    ] {
        let answer = request.send().await.unwrap();
        let challenge = header(answer.headers(), "www-authenticate").map(str::to_owned);
        let body: Value = {
            assert_eq!(answer.status(), 401);
            answer.json().await.unwrap()
        };
        assert_eq!(body["error"], "invalid_client");
        assert!(challenge.is_none_or(|challenge| challenge.starts_with("Basic")));
        app.clock.advance(Duration::from_secs(7)); // or the failures would be too many for one address
    }
    let failed = app.audit().iter().filter(|r| r["event"] == "client.auth_failed").count();
    let refused = app.audit().iter().filter(|r| r["event"] == "introspect.refused").count();
    assert_eq!((failed, refused), (7, 3), "what was refused is on record");
}

/// INTRO-01: the form of a request.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_questions_are_refused() {
    let (app, _, _, tokens, server) = asked().await;
    let post = || app.http.post(app.url("/introspect")).header("authorization", server.basic());
    let token = ("token", tokens.access.as_str());
    for request in [
        post().form(&[("token", "")]),
        post().form(&[token, token]),
        post().json(&json!({ "token": tokens.access })),
        app.http.post(app.url(&format!("/introspect?token={}", tokens.access))).form(&[token]),
        post().form(&[token, ("client_id", &server.id), ("client_secret", &server.secret)]),
    ] {
        let (status, error) = error_of(request.send().await.unwrap()).await;
        assert_eq!((status, error.as_str()), (StatusCode::BAD_REQUEST, "invalid_request"));
    }
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let answer = app.http.request(method.clone(), app.url("/introspect")).send().await.unwrap();
        assert_eq!(answer.status(), 405, "{method}");
        assert_eq!(header(answer.headers(), "access-control-allow-origin"), None);
    }
}

/// INTRO-06, RS-08: the answer is current: anything revoked, disabled or removed no longer counts at the next
/// question.
#[tokio::test(flavor = "multi_thread")]
async fn introspection_returns_the_current_state() {
    let app = TestApp::start_configured(
        "[groups]\neveryone = []\nreaders = [\"docs.read\"]\neditors = [\"docs.write\", \"docs.read\"]\n\
         [scopes.\"docs.write\"]\ntitle = \"Write\"\n[tools.docs_read]\nscope = \"docs.write\"\n",
    )
    .await;
    let server = Server::add(&app, "gateway", &app.mcp_url());
    app.admin().await;
    let mut browser = app.enrol("bob", &["editors"]).await;
    let client = app.client().await;
    let request = {
        let mut request = client.request(&app);
        request.insert("scope", "docs.read docs.write".to_owned());
        authorize_url(&app, &request)
    };
    let page = browser.consent_page(&app, &request).await;
    let code = redirect_parameter(&browser.decide(&app, &page, "approve").await, "code").unwrap();
    let tokens = Tokens::of(app.redeem(&client, &code).await).await;
    let asked = server.ask(&app, &tokens.access).await;
    assert_eq!(
        (&asked["scope"], &asked["entitled_scope"]),
        (&json!("docs.read docs.write"), &json!("docs.read docs.write"))
    );
    app.console(&["user", "groups", "bob", "--add", "readers", "--remove", "editors"]);
    let asked = server.ask(&app, &tokens.access).await;
    assert_eq!((&asked["scope"], &asked["entitled_scope"]), (&json!("docs.read"), &json!("docs.read")));
    app.console(&["user", "groups", "bob", "--remove", "readers"]);
    assert_eq!(server.ask(&app, &tokens.access).await, inactive(), "nothing of its scope is left");
    app.console(&["user", "groups", "bob", "--add", "editors"]);
    assert_eq!(server.ask(&app, &tokens.access).await["scope"], "docs.read docs.write");
    app.console(&["user", "disable", "bob"]);
    assert_eq!(server.ask(&app, &tokens.access).await, inactive());
    app.console(&["user", "enable", "bob"]);
    assert_eq!(server.ask(&app, &tokens.access).await, inactive(), "the grant stays ended");
    let tokens = app.tokens(&mut browser, &client).await;
    assert_eq!(server.ask(&app, &tokens.access).await["active"], true);
    let form = [("token", tokens.access.as_str()), ("client_id", &client.id)];
    assert_eq!(app.http.post(app.url("/revoke")).form(&form).send().await.unwrap().status(), 200);
    assert_eq!(server.ask(&app, &tokens.access).await, inactive());
    let tokens = app.tokens(&mut browser, &client).await;
    assert_eq!(server.ask(&app, &tokens.access).await["active"], true);
    app.console(&["client", "disable", &client.id]);
    assert_eq!(server.ask(&app, &tokens.access).await, inactive());
}

/// REFRESH-06: a token that was introspected was received, and so was the refresh token issued with it.
#[tokio::test(flavor = "multi_thread")]
async fn an_introspected_token_counts_as_received() {
    let (app, mut browser, client, _, _) = asked().await;
    let wiki = Server::add(&app, "wiki", WIKI);
    let first = tokens_for(&app, &mut browser, &client, WIKI).await;
    let second = Tokens::of(app.refresh(&client, &first.refresh).await).await;
    app.clock.advance(Duration::from_mins(2));
    assert_eq!(app.refresh(&client, &first.refresh).await.status(), 200, "nothing of it was used");
    assert_eq!(wiki.ask(&app, &second.access).await["active"], true);
    let app = app.restart().await;
    assert_eq!(error_of(app.refresh(&client, &first.refresh).await).await.1, "invalid_grant");
    assert_eq!(wiki.ask(&app, &second.access).await, inactive());
}

/// REFRESH-06: if the resource server does not introspect, a refresh token works once.
#[tokio::test(flavor = "multi_thread")]
async fn without_introspection_a_refresh_token_works_once() {
    let (app, mut browser, client, _, _) = asked().await;
    app.console(&["rs", "add", "wiki", "--audience", WIKI, "--expiry-only"]);
    let first = tokens_for(&app, &mut browser, &client, WIKI).await;
    let second = Tokens::of(app.refresh(&client, &first.refresh).await).await;
    assert_eq!(error_of(app.refresh(&client, &first.refresh).await).await.1, "invalid_grant");
    assert_eq!(error_of(app.refresh(&client, &second.refresh).await).await.1, "invalid_grant");
}

/// CAUTH-04: two secrets overlap for the given time; deleting a resource server takes effect at once; a restart
/// changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_overlap_and_end() {
    let (app, _, _, tokens, first) = asked().await;
    let second = Server::of(&app.console(&["rs", "rotate-secret", "gateway"]));
    let third = Server::of(&app.console(&["rs", "rotate-secret", "gateway", "--overlap", "1h"]));
    let refused = async |app: &TestApp, server: &Server| {
        error_of(server.asking(app, &tokens.access).send().await.unwrap()).await.0 == 401
    };
    assert!(refused(&app, &first).await, "a third secret is one too many");
    let app = app.restart().await;
    for server in [&second, &third] {
        assert_eq!(server.ask(&app, &tokens.access).await["active"], true);
    }
    app.clock.advance(Duration::from_hours(1));
    assert!(refused(&app, &second).await);
    assert_eq!(third.ask(&app, "x").await, inactive());
    let fourth = Server::of(&app.console(&["rs", "rotate-secret", "gateway", "--overlap", "0"]));
    assert!(refused(&app, &third).await);
    assert_eq!(fourth.ask(&app, "x").await, inactive());
    app.console(&["client", "disable", "gateway"]);
    assert!(refused(&app, &fourth).await);
    app.console(&["client", "enable", "gateway"]);
    assert_eq!(fourth.ask(&app, "x").await, inactive());
    app.console(&["client", "delete", "gateway", "--yes"]);
    assert!(refused(&app, &fourth).await);
}

/// AUDIT-06, AUDIT-08: answers are recorded as counts, for each resource server and minute.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_recorded_as_counts() {
    let (app, _, _, tokens, server) = asked().await;
    let other = Server::add(&app, "other", WIKI);
    for _ in 0..3 {
        server.ask(&app, &tokens.access).await;
    }
    server.ask(&app, "x").await;
    other.ask(&app, &tokens.access).await;
    let app = app.restart().await;
    let recorded: Vec<_> = app.audit().into_iter().filter(|r| r["event"] == "introspect.ok").collect();
    assert_eq!(recorded.len(), 2);
    let of = |server: &Server| recorded.iter().find(|r| r["client_id"] == server.id.as_str()).unwrap();
    assert_eq!(
        (&of(&server)["detail"]["active"], &of(&server)["detail"]["inactive"]),
        (&json!(3), &json!(1))
    );
    assert_eq!((&of(&other)["detail"]["active"], &of(&other)["detail"]["inactive"]), (&json!(0), &json!(1)));
}

/// INTRO-07: 64 questions may be in flight; the next one must be repeated later. Rate limits do not apply.
#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_may_be_in_flight() {
    let (app, _, client, mut tokens, server) = asked().await;
    let mut unseen = Vec::new();
    for _ in 0..64 {
        tokens = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
        unseen.push(tokens.access.clone());
        app.clock.advance(Duration::from_secs(2)); // a client refreshes thirty times a minute at most
    }
    // While another connection writes, the first question about each generation waits for the writer.
    let database = Connection::open(app.data_dir().join("portcullis.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waiting: Vec<_> =
        unseen.iter().map(|token| tokio::spawn(server.asking(&app, token).send())).collect();
    let too_many = loop {
        let answer = server.asking(&app, "x").send().await.unwrap();
        if answer.status() != 200 {
            break answer;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(header(too_many.headers(), "retry-after"), Some("1"));
    let told = (StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable".to_owned());
    assert_eq!(error_of(too_many).await, told);
    database.execute_batch("ROLLBACK").unwrap();
    for answer in waiting {
        let answer: Response = answer.await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(server.ask(&app, &tokens.access).await["active"], true);
    for _ in 0..200 {
        assert_eq!(server.ask(&app, &tokens.access).await["active"], true, "no limit for who is known");
    }
    let app = app.restart().await;
    assert!(app.has_event("introspect.refused", Some("too_many_in_flight")));
}

/// AUDIT-04: if the use of a token cannot be recorded, the question is not answered.
#[tokio::test(flavor = "multi_thread")]
async fn without_storage_a_first_question_is_not_answered() {
    let (app, _, _, tokens, server) = asked().await;
    let database = Connection::open(app.data_dir().join("portcullis.db")).unwrap();
    database.execute_batch("ALTER TABLE access_grant RENAME TO away").unwrap();
    let answer = server.asking(&app, &tokens.access).send().await.unwrap();
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(error_of(answer).await.0, StatusCode::SERVICE_UNAVAILABLE);
    database.execute_batch("ALTER TABLE away RENAME TO access_grant").unwrap();
    assert_eq!(server.ask(&app, &tokens.access).await["active"], true);
}

/// META-04: the metadata has the endpoint and the authentication methods of resource servers.
#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_names_the_endpoint() {
    let app = TestApp::start().await;
    let metadata: Value = app.get("/.well-known/oauth-authorization-server").await.json().await.unwrap();
    assert_eq!(metadata["introspection_endpoint"], app.url("/introspect"));
    assert_eq!(
        metadata["introspection_endpoint_auth_methods_supported"],
        json!(["client_secret_basic", "client_secret_post", "private_key_jwt"])
    );
}
