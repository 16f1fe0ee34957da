//! A server, and valid requests to it with the things that they are about.

mod tokens;

use std::time::Duration;

use authz::clients::preregistered::{Authentication, Description};
use authz::clients::{administration, initial_access};
use authz::people;
use reqwest::RequestBuilder;
use reqwest::header::ORIGIN;
use serde_json::{Value, json};
use shared::{Fault, Tx};

use super::case::Case;
use super::kill::{Kill, Whose};
use crate::cimd::approvals;
use crate::device;
use crate::harness::{Browser, Client, TestApp, Writer, account_csrf, attribute, authorize_url};

pub const CONFIGURATION: &str = r#"
device = true
[registration]
management = true
[cimd]
unknown = "ask"
[groups]
everyone = []
readers = ["docs.read", "docs.full"]
[scopes."docs.full"]
title = "Read whole documents"
risk = "high"
[tools.docs_read]
scope = "docs.full"
"#;

const HTTPS: &str = "issuer = \"https://auth.example\"\ntrusted_proxies = [\"127.0.0.1\", \"::1\"]\n";
const WEB: &str = "https://portal.example/cb";
const INVITED_ONLY: &str = "[registration]\nmode = \"token\"";

/// A request that was not sent yet.
pub struct Prepared {
    pub request: RequestBuilder,
    pub whose: Whose,
    /// What the answer says if it went well, where the status does not tell.
    pub good: Option<&'static str>,
}

/// A user with a browser.
struct Person {
    browser: Browser,
    whose: Whose,
}

/// A server, and access to its database.
pub struct Scene {
    pub writer: Writer,
    app: TestApp,
    count: u32,
    /// What the requests of this scene are about.
    about: Option<Whose>,
}

impl Scene {
    pub async fn set(case: Case) -> Self {
        let toml = match case {
            Case::Register => INVITED_ONLY.to_owned(),
            // If an earlier session counts, the page asks its user.
            Case::ConsentPage => format!("{HTTPS}{CONFIGURATION}"),
            _ => CONFIGURATION.to_owned(),
        };
        let (app, writer) = TestApp::start_with_writer(&toml).await;
        let scene = Self { writer, app, count: 0, about: None };
        if !matches!(case, Case::SetupStart | Case::Setup) {
            let link = scene.app.setup_link.clone().unwrap();
            assert_eq!(Browser::new().set_up(&scene.app, &link, "ada").await.status(), 200);
        }
        scene
    }

    /// Advances the clock after a lockdown, which ends everything made up to its moment.
    pub fn go_on(&self, kill: Option<Kill>) {
        if kill == Some(Kill::Lockdown) {
            self.app.clock.advance(Duration::from_secs(2));
        }
    }

    /// A request of this kind; `None` if it has nothing that the kill ends.
    pub async fn prepare(&mut self, case: Case, kill: Option<Kill>) -> Option<Prepared> {
        if let (Some(about), Some(kill)) = (&self.about, kill)
            && !kill.applies(about)
        {
            return None;
        }
        let prepared = match case {
            Case::Code | Case::Refresh | Case::DeviceToken | Case::ClientCredentials | Case::Revoke => {
                self.at_token(case).await
            }
            Case::Authorize
            | Case::AuthorizeForm
            | Case::ConsentPage
            | Case::Remembered
            | Case::Consent
            | Case::ConfirmedConsent
            | Case::Confirm => self.at_authorize(case).await,
            Case::SignInStart | Case::SignIn | Case::SignInForClient => self.at_login(case).await,
            Case::SetupStart | Case::Setup | Case::EnrolStart | Case::Enrol => self.with_link(case).await,
            Case::ClientRequest | Case::Home | Case::Account => self.on_page(case).await,
            Case::ChangeStart
            | Case::Change
            | Case::PasskeyStart
            | Case::PasskeyConfirm
            | Case::PasskeyFinish => self.at_account(case).await,
            Case::DeviceAuthorization | Case::DeviceCode | Case::DeviceDecision => self.at_device(case).await,
            Case::Register | Case::ClientUpdate | Case::ClientRemoval => self.at_register(case).await,
            Case::Initialize | Case::Introspect => self.with_token(case).await,
        };
        self.about = Some(prepared.whose.clone());
        Some(prepared)
    }

    /// Runs a job.
    async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&authz::Authz, &Tx<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> T {
        let authz = self.writer.authz.clone();
        self.writer.db.write(move |tx| job(&authz, tx)).await.unwrap()
    }

    fn name(&mut self, what: &str) -> String {
        self.count += 1;
        format!("{what}{}", self.count)
    }

    async fn link(&mut self, name: &str) -> String {
        let name = name.to_owned();
        let readers = ["readers".to_owned()];
        self.write(move |authz, tx| people::add(authz, tx, 0, &name, &readers)).await.unwrap().1
    }

    /// A new, signed-in user with a second passkey.
    async fn person(&mut self) -> Person {
        let name = self.name("person");
        let link = self.link(&name).await;
        let mut browser = Browser::new();
        assert_eq!(browser.follow_link(&self.app, &link).await.status(), 200);
        let again = name.clone();
        let second = self.write(move |authz, tx| people::link(authz, tx, 0, &again)).await.unwrap();
        assert_eq!(Browser::new().follow_link(&self.app, &second).await.status(), 200);
        let (user, passkey) = (Some(name), Some(browser.passkey_digest()));
        Person { browser, whose: Whose { user, passkey, ..Whose::default() } }
    }

    /// A client that an administrator added.
    async fn added(
        &mut self,
        authentication: Authentication,
        grants: &[&str],
        device: bool,
    ) -> (Client, String) {
        let description = Description {
            name: self.name("Program "),
            redirect_uris: if device || !grants.is_empty() { Vec::new() } else { vec![WEB.to_owned()] },
            authentication,
            grants: grants.iter().map(|&grant| grant.to_owned()).collect(),
            device,
            scope: if grants.is_empty() { shared::Scope::empty() } else { "docs.read".parse().unwrap() },
        };
        let added = self.write(move |authz, tx| administration::add(authz, tx, 0, &description, None)).await;
        let (details, secret) = added.unwrap();
        let secret = secret.map(|secret| secret.expose().to_owned()).unwrap_or_default();
        (Client { id: details.summary.id.to_string(), redirect_uri: String::new() }, secret)
    }

    async fn device_client(&mut self) -> Client {
        self.added(Authentication::Public, &[], true).await.0
    }

    /// The only grant of this client.
    fn grant(&self, client: &Client) -> String {
        let sql = "SELECT id FROM access_grant WHERE client_id = ?1";
        let found = |conn: &shared::db::Conn<'_>| {
            conn.query_row(sql, shared::db::params![client.id], |row| row.get(0))
        };
        self.writer.db.read(found).unwrap().expect("there is one")
    }

    async fn at_authorize(&mut self, case: Case) -> Prepared {
        let Person { mut browser, whose } = self.person().await;
        let (app, client) = (&self.app, self.app.client().await);
        let whose = Whose { client: Some(client.id.clone()), ..whose };
        let mut parameters = client.request(app);
        if matches!(case, Case::Confirm | Case::ConfirmedConsent) {
            parameters.insert("scope", "docs.full docs.read".to_owned());
        }
        let url = authorize_url(app, &parameters);
        let nobody = Whose { client: whose.client.clone(), ..Whose::default() };
        match case {
            Case::Authorize => {
                let request = browser.with_cookies(app.http.get(&url));
                return Prepared { request, whose: nobody, good: None };
            }
            Case::AuthorizeForm => {
                let request = app.http.post(app.url("/authorize")).form(&parameters);
                return Prepared { request: browser.with_cookies(request), whose: nobody, good: None };
            }
            Case::ConsentPage => {
                let signed_out = std::mem::take(&mut browser.cookies);
                let html = browser.get(app, &url).await.text().await.unwrap();
                let transaction = attribute(&html, "data-transaction").unwrap();
                browser.cookies.extend(signed_out.into_iter().filter(|(name, _)| name.contains("sid")));
                let request = app.http.get(app.url(&format!("/consent?transaction={transaction}")));
                let good = Some("data-testid=\"sign-out\"");
                return Prepared { request: browser.with_cookies(request), whose, good };
            }
            Case::Remembered => return self.remembered(browser, whose).await,
            _ => {}
        }
        let page = browser.consent_page(app, &url).await;
        let scopes: Vec<&str> = page.scopes.iter().map(String::as_str).collect();
        if case == Case::Confirm {
            let start = json!({"transaction": page.transaction, "csrf": page.csrf, "scopes": scopes});
            return Prepared { request: self.json(&browser, "/consent/confirm", &start), whose, good: None };
        }
        let mut form = vec![
            ("transaction", page.transaction.clone()),
            ("csrf", page.csrf.clone()),
            ("decision", "approve".to_owned()),
        ];
        form.extend(scopes.iter().map(|&scope| ("scope", scope.to_owned())));
        if case == Case::ConfirmedConsent {
            let [ceremony, assertion] = browser.confirm(app, &page, &scopes).await;
            form.extend([("ceremony", ceremony), ("assertion", assertion)]);
        }
        Prepared { request: self.form(&browser, "/consent", &form), whose, good: Some("code=") }
    }

    /// The page of a client that was allowed this before: it is answered at once.
    async fn remembered(&mut self, mut browser: Browser, whose: Whose) -> Prepared {
        let mut client = self.added(Authentication::Secret, &[], false).await.0;
        client.redirect_uri = WEB.to_owned();
        let app = &self.app;
        browser.authorize(app, &client).await;
        let html = browser.get(app, &client.authorize_url(app)).await.text().await.unwrap();
        let transaction = attribute(&html, "data-transaction").unwrap();
        let signed_in = browser.sign_in(app, Some(&transaction)).await;
        let location: Value = signed_in.json().await.unwrap();
        let request = app.http.get(app.url(location["location"].as_str().unwrap()));
        let (grant, client) = (Some(self.grant(&client)), Some(client.id));
        let request = browser.with_cookies(request);
        Prepared { request, whose: Whose { client, grant, ..whose }, good: Some("code=") }
    }

    /// Posts JSON as one of our own pages does.
    fn json(&self, browser: &Browser, path: &str, body: &Value) -> RequestBuilder {
        let app = &self.app;
        browser.with_cookies(app.http.post(app.url(path)).header(ORIGIN, &app.origin).json(body))
    }

    /// Posts a form as one of our own pages does.
    fn form(&self, browser: &Browser, path: &str, form: &[(&str, String)]) -> RequestBuilder {
        let app = &self.app;
        browser.with_cookies(app.http.post(app.url(path)).header(ORIGIN, &app.origin).form(form))
    }

    async fn at_login(&mut self, case: Case) -> Prepared {
        let Person { mut browser, whose } = self.person().await;
        let (app, client) = (&self.app, self.app.client().await);
        let transaction = if case == Case::SignIn {
            None
        } else {
            let html = browser.get(app, &client.authorize_url(app)).await.text().await.unwrap();
            attribute(&html, "data-transaction")
        };
        let start = json!({"transaction": transaction});
        if case == Case::SignInStart {
            let request = self.json(&browser, "/login/start", &start);
            return Prepared { request, whose: Whose::default(), good: None };
        }
        let started: Value = browser.post_json(app, "/login/start", &start).await.json().await.unwrap();
        let response = browser.assert(app, started["options"].clone());
        let finish = json!({"ceremony": started["ceremony"], "response": response});
        Prepared { request: self.json(&browser, "/login/finish", &finish), whose, good: None }
    }

    async fn with_link(&mut self, case: Case) -> Prepared {
        let setup = matches!(case, Case::SetupStart | Case::Setup);
        let name = self.name("newcomer");
        let link = if setup {
            self.write(|authz, tx| authz.setup_link(tx, 0)).await
        } else {
            Some(self.link(&name).await)
        };
        let Some(link) = link else {
            // There is an administrator now, so start another server.
            *self = Self { count: self.count, about: self.about.take(), ..Self::set(case).await };
            return Box::pin(self.with_link(case)).await;
        };
        let user = (!setup).then(|| name.clone());
        let whose = Whose { user, link: true, ..Whose::default() };
        let (page, token) = link.split_once('#').unwrap();
        let mut browser = Browser::new();
        assert_eq!(browser.get(&self.app, page).await.status(), 200);
        let start = if setup { json!({"token": token, "name": name}) } else { json!({"token": token}) };
        let (start_at, finish_at) =
            if setup { ("/setup/start", "/setup/finish") } else { ("/enrol/start", "/enrol/finish") };
        if matches!(case, Case::SetupStart | Case::EnrolStart) {
            return Prepared { request: self.json(&browser, start_at, &start), whose, good: None };
        }
        let started: Value = browser.post_json(&self.app, start_at, &start).await.json().await.unwrap();
        let response = browser.create(&self.app, started["options"].clone());
        let finish = json!({"ceremony": started["ceremony"], "response": response});
        Prepared { request: self.json(&browser, finish_at, &finish), whose, good: None }
    }

    async fn on_page(&mut self, case: Case) -> Prepared {
        let Person { mut browser, whose } = self.person().await;
        let app = &self.app;
        let (path, good) = match case {
            Case::Home => ("/", "connect-client"),
            Case::Account => ("/account", "sign-out-everywhere"),
            _ => {
                let id =
                    format!("https://{}.example.net/client.json", shared::id::random_128().to_lowercase());
                let client = Client { id, redirect_uri: "http://127.0.0.1:4711/cb".to_owned() };
                let html = browser.get(app, &client.authorize_url(app)).await.text().await.unwrap();
                let form = approvals::form(&html);
                let form: Vec<(&str, String)> =
                    form.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
                let request = self.form(&browser, "/account/client-requests", &form);
                return Prepared { request, whose, good: Some("Request saved") };
            }
        };
        // After this its use is stored again.
        app.clock.advance(Duration::from_mins(2));
        let request = browser.with_cookies(app.http.get(app.url(path)));
        Prepared { request, whose, good: Some(good) }
    }

    async fn at_account(&mut self, case: Case) -> Prepared {
        let Person { mut browser, whose } = self.person().await;
        let app = &self.app;
        if matches!(case, Case::ChangeStart | Case::Change) {
            let csrf = account_csrf(&browser.account(app).await);
            let change = [("csrf", csrf.as_str()), ("action", "sign_out_elsewhere")];
            if case == Case::ChangeStart {
                let start = json!({"csrf": csrf, "action": "sign_out_elsewhere"});
                return Prepared {
                    request: self.json(&browser, "/account/change/start", &start),
                    whose,
                    good: None,
                };
            }
            let [ceremony, assertion] = browser.confirm_change(app, &change).await;
            let mut form: Vec<_> = change.iter().map(|&(name, value)| (name, value.to_owned())).collect();
            form.extend([("ceremony", ceremony), ("assertion", assertion)]);
            return Prepared { request: self.form(&browser, "/account/change", &form), whose, good: None };
        }
        let start = json!({});
        if case == Case::PasskeyStart {
            return Prepared {
                request: self.json(&browser, "/account/passkeys/start", &start),
                whose,
                good: None,
            };
        }
        let started = browser.post_json(app, "/account/passkeys/start", &start).await;
        let started: Value = started.json().await.unwrap();
        let response = browser.assert(app, started["options"].clone());
        let confirm = json!({"ceremony": started["ceremony"], "response": response});
        if case == Case::PasskeyConfirm {
            return Prepared {
                request: self.json(&browser, "/account/passkeys/confirm", &confirm),
                whose,
                good: None,
            };
        }
        let options = browser.post_json(app, "/account/passkeys/confirm", &confirm).await;
        let options: Value = options.json().await.unwrap();
        let response = Browser::new().create(app, options["options"].clone());
        let finish = json!({"ceremony": options["ceremony"], "response": response});
        Prepared { request: self.json(&browser, "/account/passkeys/finish", &finish), whose, good: None }
    }

    async fn at_device(&mut self, case: Case) -> Prepared {
        let client = self.device_client().await;
        let whose = Whose { client: Some(client.id.clone()), ..Whose::default() };
        if case == Case::DeviceAuthorization {
            let request = self.app.http.post(self.app.url("/device_authorization"));
            let request = request.form(&[("client_id", client.id.as_str()), ("scope", "docs.read")]);
            return Prepared { request, whose, good: None };
        }
        let asked = device::ask(&self.app, &client).await;
        if case == Case::DeviceCode {
            let form = [("user_code", asked.user_code)];
            let request = self.form(&Browser::new(), "/device", &form);
            return Prepared { request, whose, good: None };
        }
        let mut person = self.person().await;
        let page = device::question(&self.app, &mut person.browser, &asked).await;
        let mut form =
            vec![("transaction", page.transaction), ("csrf", page.csrf), ("decision", "approve".to_owned())];
        form.extend(page.scopes.into_iter().map(|scope| ("scope", scope)));
        let request = self.form(&person.browser, "/device/decision", &form);
        let whose = Whose { client: whose.client, ..person.whose };
        Prepared { request, whose, good: Some("Go back to your device") }
    }

    async fn at_register(&mut self, case: Case) -> Prepared {
        let label = self.name("team");
        let mut metadata = json!({
            "client_name": label, "redirect_uris": ["http://localhost/callback"],
            "grant_types": ["authorization_code", "refresh_token"], "token_endpoint_auth_method": "none",
        });
        let app = &self.app;
        if case == Case::Register {
            let invitation = Some(label.clone());
            let token = self
                .write(move |_, tx| initial_access::add(tx, 0, &label, Duration::from_hours(24)))
                .await
                .unwrap()
                .1;
            let request = app.http.post(app.url("/register")).bearer_auth(token.expose()).json(&metadata);
            return Prepared { request, whose: Whose { invitation, ..Whose::default() }, good: None };
        }
        let registered: Value = app.register(&metadata).await.json().await.unwrap();
        let text = |name: &str| registered[name].as_str().unwrap();
        let uri = text("registration_client_uri");
        let request = if case == Case::ClientUpdate {
            metadata["client_id"] = registered["client_id"].clone();
            metadata["client_uri"] = json!("https://home.example/");
            app.http.put(uri).json(&metadata)
        } else {
            app.http.delete(uri)
        };
        let request = request.bearer_auth(text("registration_access_token"));
        let client = Some(text("client_id").to_owned());
        Prepared { request, whose: Whose { client, ..Whose::default() }, good: None }
    }
}
