//! A user's browser with a passkey, and the parsing of our pages.

use std::collections::BTreeMap;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use reqwest::header::{ORIGIN, SET_COOKIE, USER_AGENT};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use webauthn_authenticator_rs::AuthenticatorBackendHashedClientData;
use webauthn_authenticator_rs::softpasskey::SoftPasskey;
use webauthn_rs_proto::{
    AllowCredentials, CreationChallengeResponse, PublicKeyCredential, RegisterPublicKeyCredential,
    RequestChallengeResponse,
};

use super::{Client, TestApp, redirect_parameter};

/// A user's browser with a passkey. It handles cookies itself, so that tests can attack them.
pub struct Browser {
    pub cookies: BTreeMap<String, String>,
    /// Whether our page is in a frame of another site.
    pub framed: bool,
    /// Its `User-Agent`.
    pub agent: Option<&'static str>,
    passkey: SoftPasskey,
    credential: Option<(Vec<u8>, Vec<u8>)>,
}

impl Browser {
    pub fn new() -> Self {
        Self {
            cookies: BTreeMap::new(),
            framed: false,
            agent: None,
            passkey: SoftPasskey::new(true),
            credential: None,
        }
    }

    /// Its session cookie on loopback, if it has one.
    pub fn session(&self) -> Option<&str> {
        let mut sessions = self.cookies.iter().filter(|(name, _)| name.starts_with("sid_"));
        let session = sessions.next().map(|(_, value)| value.as_str());
        assert!(sessions.next().is_none(), "{:?}", self.cookies.keys());
        session
    }

    /// A request with the cookies.
    pub fn with_cookies(&self, request: RequestBuilder) -> RequestBuilder {
        let request = match self.agent {
            Some(agent) => request.header(USER_AGENT, agent),
            None => request,
        };
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if cookies.is_empty() { request } else { request.header("cookie", cookies.join("; ")) }
    }

    /// Sends a request with the cookies, and stores the ones in the response.
    pub async fn send(&mut self, request: RequestBuilder) -> Response {
        let response = self.with_cookies(request).send().await.unwrap();
        for cookie in response.headers().get_all(SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            if cookie.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        response
    }

    pub async fn get(&mut self, app: &TestApp, url: &str) -> Response {
        self.send(app.http.get(app.reach(url))).await
    }

    /// Posts JSON as one of our own pages does.
    pub async fn post_json(&mut self, app: &TestApp, path: &str, body: &Value) -> Response {
        let request = app.http.request(Method::POST, app.url(path)).header(ORIGIN, &app.origin).json(body);
        self.send(request).await
    }

    /// Posts a form as one of our own pages does.
    pub async fn post_form(&mut self, app: &TestApp, path: &str, form: &[(&str, &str)]) -> Response {
        let request = app.http.post(app.url(path)).header(ORIGIN, &app.origin).form(form);
        self.send(request).await
    }

    /// Opens a setup link and creates a passkey.
    pub async fn set_up(&mut self, app: &TestApp, link: &str, name: &str) -> Response {
        let (page, token) = link.split_once('#').unwrap();
        assert_eq!(self.get(app, page).await.status(), 200);
        let started = self.post_json(app, "/setup/start", &json!({"token": token, "name": name})).await;
        if started.status() != 200 {
            return started;
        }
        let started: Value = started.json().await.unwrap();
        let response = self.create(app, started["options"].clone());
        self.post_json(app, "/setup/finish", &json!({"ceremony": started["ceremony"], "response": response}))
            .await
    }

    /// Opens an enrolment link and creates a passkey.
    pub async fn follow_link(&mut self, app: &TestApp, link: &str) -> Response {
        let (page, token) = link.split_once('#').unwrap();
        assert_eq!(self.get(app, page).await.status(), 200);
        let started = self.post_json(app, "/enrol/start", &json!({"token": token})).await;
        if started.status() != 200 {
            return started;
        }
        let started: Value = started.json().await.unwrap();
        let response = self.create(app, started["options"].clone());
        self.post_json(app, "/enrol/finish", &json!({"ceremony": started["ceremony"], "response": response}))
            .await
    }

    /// Creates a passkey with these options.
    pub fn create(&mut self, app: &TestApp, options: Value) -> RegisterPublicKeyCredential {
        let options: CreationChallengeResponse = serde_json::from_value(options).unwrap();
        let handle = options.public_key.user.id.clone();
        let client_data =
            client_data("webauthn.create", &options.public_key.challenge, &app.origin, self.framed);
        let hash = Sha256::digest(&client_data).to_vec();
        let mut response = self.passkey.perform_register(hash, options.public_key, 60_000).unwrap();
        response.response.client_data_json = client_data;
        self.credential = Some((response.raw_id.clone(), handle));
        response
    }

    /// Answers these request options with the passkey.
    pub fn assert(&mut self, app: &TestApp, options: Value) -> PublicKeyCredential {
        let (credential, handle) = self.credential.clone().expect("this person has a passkey");
        let mut options: RequestChallengeResponse = serde_json::from_value(options).unwrap();
        // The soft passkey cannot search its passkeys and has no user handles; a real authenticator has both.
        options.public_key.allow_credentials =
            vec![AllowCredentials { type_: "public-key".to_owned(), id: credential, transports: None }];
        let client_data =
            client_data("webauthn.get", &options.public_key.challenge, &app.origin, self.framed);
        let hash = Sha256::digest(&client_data).to_vec();
        let mut response = self.passkey.perform_auth(hash, options.public_key, 60_000).unwrap();
        response.response.client_data_json = client_data;
        response.response.user_handle = Some(handle);
        response
    }

    /// The digest of its passkey's id.
    pub fn passkey_digest(&self) -> String {
        let (credential, _) = self.credential.as_ref().expect("this person has a passkey");
        HEXLOWER.encode(&Sha256::digest(credential))
    }

    /// Signs in; for a transaction if there is one.
    pub async fn sign_in(&mut self, app: &TestApp, transaction: Option<&str>) -> Response {
        let started = self.post_json(app, "/login/start", &json!({"transaction": transaction})).await;
        assert_eq!(started.status(), 200);
        let started: Value = started.json().await.unwrap();
        let response = self.assert(app, started["options"].clone());
        self.post_json(app, "/login/finish", &json!({"ceremony": started["ceremony"], "response": response}))
            .await
    }

    /// Opens an authorization URL and signs in there; returns the next page and its URL.
    pub async fn after_sign_in(&mut self, app: &TestApp, url: &str) -> (String, Response) {
        let page = self.get(app, url).await;
        assert_eq!(page.status(), 200);
        let html = page.text().await.unwrap();
        let Some(transaction) = attribute(&html, "data-transaction") else {
            // Off loopback an earlier session counts.
            return (url.to_owned(), self.get(app, url).await);
        };
        let signed_in = self.sign_in(app, Some(&transaction)).await;
        assert_eq!(signed_in.status(), 200);
        let location: Value = signed_in.json().await.unwrap();
        let url = app.url(location["location"].as_str().unwrap());
        let next = self.get(app, &url).await;
        (url, next)
    }

    /// Opens an authorization URL and signs in there; returns the consent page.
    pub async fn consent_page(&mut self, app: &TestApp, url: &str) -> ConsentPage {
        let (url, page) = self.after_sign_in(app, url).await;
        assert_eq!(page.status(), 200);
        ConsentPage::of(url, page.text().await.unwrap())
    }

    /// Signs in, allows everything if asked, and returns the code.
    pub async fn authorize(&mut self, app: &TestApp, client: &Client) -> String {
        let (url, page) = self.after_sign_in(app, &client.authorize_url(app)).await;
        let answer = if page.status().is_redirection() {
            page // allowed before
        } else {
            let page = ConsentPage::of(url, page.text().await.unwrap());
            self.decide(app, &page, "approve").await
        };
        redirect_parameter(&answer, "code").expect("an approval redirects with a code")
    }

    /// Starts the passkey assertion for high-risk scopes.
    pub async fn start_confirmation(
        &mut self,
        app: &TestApp,
        page: &ConsentPage,
        scopes: &[&str],
    ) -> Response {
        let start = json!({"transaction": page.transaction, "csrf": page.csrf, "scopes": scopes});
        self.post_json(app, "/consent/confirm", &start).await
    }

    /// Makes the assertion for allowing these scopes; returns the form's two additional fields.
    pub async fn confirm(&mut self, app: &TestApp, page: &ConsentPage, scopes: &[&str]) -> [String; 2] {
        let started = self.start_confirmation(app, page, scopes).await;
        assert_eq!(started.status(), 200);
        let started: Value = started.json().await.unwrap();
        let assertion = self.assert(app, started["options"].clone());
        [started["ceremony"].as_str().unwrap().to_owned(), serde_json::to_string(&assertion).unwrap()]
    }

    /// Allows these scopes, with the fields of a confirmation if there is one.
    pub async fn allow(
        &mut self,
        app: &TestApp,
        page: &ConsentPage,
        scopes: &[&str],
        confirmed: Option<&[String; 2]>,
    ) -> Response {
        let mut form =
            vec![("transaction", page.transaction.as_str()), ("csrf", &page.csrf), ("decision", "approve")];
        form.extend(scopes.iter().map(|scope| ("scope", *scope)));
        if let Some([ceremony, assertion]) = confirmed {
            form.extend([("ceremony", ceremony.as_str()), ("assertion", assertion.as_str())]);
        }
        self.post_form(app, "/consent", &form).await
    }

    /// Presses a button of the consent page with every scope ticked.
    pub async fn decide(&mut self, app: &TestApp, page: &ConsentPage, decision: &str) -> Response {
        let mut form =
            vec![("transaction", page.transaction.as_str()), ("csrf", &page.csrf), ("decision", decision)];
        form.extend(page.scopes.iter().map(|scope| ("scope", scope.as_str())));
        self.post_form(app, "/consent", &form).await
    }

    /// The account page.
    pub async fn account(&mut self, app: &TestApp) -> String {
        let page = self.get(app, &app.url("/account")).await;
        assert_eq!(page.status(), 200);
        page.text().await.unwrap()
    }

    /// Sends a form of the account page, with an assertion if the page would require one.
    pub async fn change(&mut self, app: &TestApp, change: &[(&str, &str)]) -> Response {
        let csrf = account_csrf(&self.account(app).await);
        let mut form = [&[("csrf", csrf.as_str())], change].concat();
        if !app.origin.starts_with("http://")
            && !CONFIRMED.iter().any(|action| change.contains(&("action", action)))
        {
            return self.post_form(app, "/account/change", &form).await;
        }
        let confirmed = self.confirm_change(app, &form).await;
        form.extend([("ceremony", confirmed[0].as_str()), ("assertion", &confirmed[1])]);
        self.post_form(app, "/account/change", &form).await
    }

    /// Makes the assertion for a change; returns the form's two additional fields.
    pub async fn confirm_change(&mut self, app: &TestApp, form: &[(&str, &str)]) -> [String; 2] {
        let fields: BTreeMap<_, _> = form.iter().copied().collect();
        let started = self.post_json(app, "/account/change/start", &json!(fields)).await;
        assert_eq!(started.status(), 200);
        let started: Value = started.json().await.unwrap();
        let assertion = self.assert(app, started["options"].clone());
        [started["ceremony"].as_str().unwrap().to_owned(), serde_json::to_string(&assertion).unwrap()]
    }
}

/// Changes that take a passkey anywhere.
const CONFIRMED: [&str; 2] = ["remove_passkey", "set_secret"];

/// The CSRF token of the account page's forms.
pub fn account_csrf(html: &str) -> String {
    let (_, form) = html.split_once("action=\"/account/change\"").expect("the page has such forms");
    input(form, "csrf").expect("the form has a token")
}

/// The client data of a ceremony (WebAuthn §5.8.1). The soft passkey's own would spell the origin unlike any
/// browser.
fn client_data(kind: &str, challenge: &[u8], origin: &str, framed: bool) -> Vec<u8> {
    let challenge = BASE64URL_NOPAD.encode(challenge);
    json!({"type": kind, "challenge": challenge, "origin": origin, "crossOrigin": framed})
        .to_string()
        .into_bytes()
}

/// The fields of the consent page's form.
#[derive(Clone, Debug)]
pub struct ConsentPage {
    pub transaction: String,
    pub csrf: String,
    pub scopes: Vec<String>,
    pub html: String,
    /// Its URL, with the proof from the sign-in's response.
    pub url: String,
}

impl ConsentPage {
    pub fn of(url: String, html: String) -> Self {
        Self {
            transaction: input(&html, "transaction").expect("the form names its transaction"),
            csrf: input(&html, "csrf").expect("the form has a token"),
            scopes: inputs(&html, "scope"),
            html,
            url,
        }
    }
}

/// The first value of an attribute in a page.
pub fn attribute(html: &str, name: &str) -> Option<String> {
    let start = html.find(&format!("{name}=\""))? + name.len() + 2;
    let end = html[start..].find('"')?;
    Some(html[start..start + end].to_owned())
}

fn input(html: &str, name: &str) -> Option<String> {
    inputs(html, name).into_iter().next()
}

/// The values of the inputs with this name.
fn inputs(html: &str, name: &str) -> Vec<String> {
    html.split("<input")
        .skip(1)
        .filter_map(|rest| rest.split('>').next())
        .filter(|tag| attribute(tag, " name").as_deref() == Some(name))
        .filter_map(|tag| attribute(tag, " value"))
        .collect()
}
