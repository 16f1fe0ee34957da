//! Open WebUI: an administrator adds the server once, and each user signs in from the chat.

use std::net::TcpListener;

use serde_json::{Map, Value, json};

use super::{Session, installed};
use crate::client_table::{OPEN_WEBUI, to};
use crate::step_up::{Attempt, asked_scopes};

/// Open WebUI on its own port, and its administrator, who also uses it.
struct OpenWebUi {
    session: Session,
    url: String,
}

impl OpenWebUi {
    /// Starts it like its slim image, with the documented settings, and creates the administrator.
    fn begin() -> Self {
        let program = installed("open-webui/.venv/bin/open-webui");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let mut session = Session::begin(&[&program, "serve", "--host", "127.0.0.1", "--port", &port]);
        session.think("portcullis_docs_search", &json!({"query": "falcon dawn"}));
        let url = format!("http://localhost:{port}");
        let mut environment = Map::from_iter(session.documented("Open WebUI").exports());
        let data_dir = session.home().join("data");
        let ours = [
            ("WEBUI_URL", url.as_str()),
            ("DATA_DIR", data_dir.to_str().unwrap()),
            ("USE_SLIM_DOCKER", "true"),
            ("ENABLE_OLLAMA_API", "false"),
        ];
        environment.extend(ours.map(|(name, value)| (name.to_owned(), json!(value))));
        session.walk.client.ok(&json!({"op": "start", "url": format!("{url}/health"), "env": environment}));
        let mut started = Self { session, url };
        started.sign_up();
        started
    }

    /// Its first user is its administrator.
    fn sign_up(&mut self) {
        self.open();
        self.session.click("button", "Get started");
        for (name, text) in
            [("Name", "Ada"), ("Email", "ada@example.org"), ("Password", "correct horse battery")]
        {
            self.fill(name, text);
        }
        self.session.click("button", "Create Admin Account");
        self.see("#chat-input");
        // Mark this version's news as read: it would cover the chat.
        let read = json!({"ui": {"version": (OPEN_WEBUI.version)()}});
        self.administer("/api/v1/users/user/settings/update", &read);
    }

    /// Does what the administrator's pages do, through their API.
    fn administer(&mut self, path: &str, body: &Value) -> Value {
        let request = format!(
            "fetch('{path}', {{method: 'POST', body: JSON.stringify({body}), headers: \
             {{'content-type': 'application/json', authorization: `Bearer ${{localStorage.token}}`}}}})"
        );
        let expression = format!("{request}.then(async (answer) => [answer.status, await answer.json()])");
        let answer = self.session.walk.story.browser.ok(&json!({"op": "evaluate", "expression": expression}));
        assert_eq!(answer["value"][0], 200, "{path}: {answer}");
        answer["value"][1].clone()
    }

    /// **Register client** and **Save** of the documented form.
    fn register(&mut self) {
        let mcp_url = self.session.walk.story.server.mcp_url.clone();
        let client = json!({"url": mcp_url, "client_id": "portcullis"});
        let registered = self.administer("/api/v1/configs/oauth/clients/register?type=mcp", &client);
        let connection = json!({
            "type": "mcp",
            "url": mcp_url,
            "path": "",
            "auth_type": "oauth_2.1",
            "key": "",
            "config": {"enable": true},
            "info": {
                "id": "portcullis",
                "name": "Portcullis",
                "oauth_client_info": registered["oauth_client_info"],
            },
        });
        self.administer("/api/v1/configs/tool_servers", &json!({"TOOL_SERVER_CONNECTIONS": [connection]}));
    }

    /// Opens a new chat.
    fn open(&mut self) {
        self.session.walk.story.browser.ok(&json!({"op": "open", "url": self.url}));
    }

    /// Opens the list of tools in a new chat.
    fn open_tools(&mut self) {
        self.open();
        self.session.click("button", "Integrations");
        self.session.click("menuitem", "Tools");
    }

    /// Switches the tool on, which makes its user sign in; the chat continues afterwards. Returns the requested
    /// scopes.
    fn switch_on_and_sign_in(&mut self) -> Vec<String> {
        // Before the sign-in, an overlay covers it that leads there.
        let tool = json!({"op": "use", "role": "menuitem", "name": "Portcullis", "force": true});
        self.session.walk.story.browser.ok(&tool);
        self.session.sign_in_here();
        asked_scopes(self.session.pages.last().unwrap())
    }

    /// Asks in the chat with the tool on, until the answer has this text. Needs no other computer.
    fn ask(&mut self, question: &str, awaited: &str) {
        self.see("[aria-label='Available Tools']");
        self.fill("How can I help you today?", question);
        self.session.walk.story.browser.ok(&json!({"op": "press", "key": "Enter"}));
        self.see(&format!("text={awaited}"));
        let heard = self.session.walk.client.ok(&json!({"op": "http"}));
        assert_eq!(heard["refused"], json!([]));
        self.session.exchanges.extend(heard["exchanges"].as_array().unwrap().iter().cloned());
    }

    fn fill(&mut self, name: &str, text: &str) {
        let fill = json!({"op": "use", "role": "textbox", "name": name, "text": text});
        self.session.walk.story.browser.ok(&fill);
    }

    fn see(&mut self, selector: &str) {
        self.session.walk.story.browser.ok(&json!({"op": "text", "selector": selector}));
    }
}

/// DCR-02, REFRESH-02, RS-11: Open WebUI registers once with a secret for all users. It refreshes in time, and
/// reports a refusal; it requests more scope after its administrator registers it again.
#[test]
#[ignore = "tests/run more-clients installs it"]
fn open_webui_signs_in() {
    let mut webui = OpenWebUi::begin();
    webui.register();
    webui.open_tools();
    assert_eq!(webui.switch_on_and_sign_in(), ["docs.read"]);
    webui.ask("When does it launch?", "launches at dawn");
    let registration = webui.session.exchanges.iter().find(|exchange| to(exchange, "/register")).unwrap();
    let body = registration["body"].as_str().unwrap();
    assert!(body.contains("\"token_endpoint_auth_method\": \"client_secret_post\""), "{body}");

    webui.session.think("portcullis_docs_read", &json!({"path": "falcon.md"}));
    let before = webui.session.exchanges.len();
    webui.open_tools();
    webui.session.click("menuitemcheckbox", "Portcullis");
    webui.ask("Read it", "Insufficient scope: this tool needs docs.full. Sign in again and allow it.");
    let exchanges = webui.session.exchanges[before..].to_vec();
    assert_eq!(Attempt { worked: false, pages: Vec::new(), exchanges }.words(), OPEN_WEBUI.step_up);

    // A token that is refused before it expires.
    webui.session.think("portcullis_docs_search", &json!({"query": "falcon dawn"}));
    webui.session.expire();
    webui.open_tools();
    webui.session.click("menuitemcheckbox", "Portcullis");
    webui.ask("When does it launch?", "Failed to connect to MCP server 'portcullis'");
    webui.session.walk.client.ok(&json!({"op": "hasten"}));
    webui.open_tools();
    webui.session.click("button", "Disconnect OAuth");
    assert_eq!(webui.switch_on_and_sign_in(), ["docs.read"]);
    webui.ask("When does it launch?", "launches at dawn");
    webui.session.compare(&OPEN_WEBUI);

    webui.session.think("portcullis_docs_read", &json!({"path": "falcon.md"}));
    webui.session.ask_for_both_at_once();
    webui.register();
    webui.open_tools();
    assert_eq!(webui.switch_on_and_sign_in(), ["docs.full", "docs.read"]);
    webui.ask("Read it", "launches at dawn");
    assert_eq!(webui.session.registrations(), 2);
    webui.session.walk.end();
}
