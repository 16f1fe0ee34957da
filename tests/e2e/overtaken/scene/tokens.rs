//! Requests with credentials of a client or a resource server.

use authz::clients::preregistered::Authentication;
use authz::resource_servers;
use data_encoding::BASE64;
use serde_json::{Value, json};

use super::{Prepared, Scene};
use crate::device;
use crate::harness::Tokens;
use crate::overtaken::case::Case;
use crate::overtaken::kill::Whose;

impl Scene {
    pub(super) async fn at_token(&mut self, case: Case) -> Prepared {
        if matches!(case, Case::ClientCredentials | Case::Revoke) {
            return self.of_client_itself(case).await;
        }
        let mut person = self.person().await;
        let client =
            if case == Case::DeviceToken { self.device_client().await } else { self.app.client().await };
        let app = &self.app;
        let request = app.http.post(app.url("/token"));
        let request = match case {
            Case::Code => {
                let code = person.browser.authorize(app, &client).await;
                request.form(&client.redemption(&code))
            }
            Case::Refresh => {
                let tokens = app.tokens(&mut person.browser, &client).await;
                request.form(&[
                    ("grant_type", "refresh_token"),
                    ("refresh_token", &tokens.refresh),
                    ("client_id", &client.id),
                ])
            }
            _ => {
                let asked = device::ask(app, &client).await;
                device::approve(app, &mut person.browser, &asked).await;
                request.form(&asked.poll(&client))
            }
        };
        let (grant, client) = (Some(self.grant(&client)), Some(client.id));
        Prepared { request, whose: Whose { client, grant, ..person.whose }, good: None }
    }

    async fn of_client_itself(&mut self, case: Case) -> Prepared {
        let (client, secret) = self.added(Authentication::Secret, &["client_credentials"], false).await;
        let basic = format!("Basic {}", BASE64.encode(format!("{}:{secret}", client.id).as_bytes()));
        let app = &self.app;
        let own = app.http.post(app.url("/token")).header("authorization", &basic);
        let own = own.form(&[("grant_type", "client_credentials"), ("resource", &app.mcp_url())]);
        let whose = Whose { client: Some(client.id), secret: true, ..Whose::default() };
        if case == Case::ClientCredentials {
            return Prepared { request: own, whose, good: None };
        }
        let token: Value = own.send().await.unwrap().json().await.unwrap();
        let request = app.http.post(app.url("/revoke")).header("authorization", &basic);
        let request = request.form(&[("token", token["access_token"].as_str().unwrap())]);
        Prepared { request, whose, good: None }
    }

    /// With an access token that was not used yet, so that its first use must be recorded.
    pub(super) async fn with_token(&mut self, case: Case) -> Prepared {
        let mut person = self.person().await;
        let client = self.app.client().await;
        let tokens: Tokens = self.app.tokens(&mut person.browser, &client).await;
        let text = |name: &str| tokens.claims()[name].as_str().map(str::to_owned);
        let (grant, jti) = (text("grant_id"), text("jti"));
        let whose = Whose { grant, jti, client: Some(client.id), ..person.whose };
        if case == Case::Introspect {
            return self.introspection(&tokens, whose).await;
        }
        let app = &self.app;
        let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}});
        let request = app.http.post(app.url("/mcp")).bearer_auth(&tokens.access);
        let request = request.header("accept", "application/json").json(&initialize);
        Prepared { request, whose, good: None }
    }

    async fn introspection(&mut self, tokens: &Tokens, whose: Whose) -> Prepared {
        let (name, audience) = (self.name("server"), self.app.mcp_url());
        let added = name.clone();
        let added = self
            .write(move |authz, tx| {
                resource_servers::add(authz, tx, 0, (&added, &[audience]), &resource_servers::Proof::Secret)
            })
            .await;
        let (server, secret) = added.unwrap();
        let request = self.app.http.post(self.app.url("/introspect"));
        let request = request.basic_auth(server.id, Some(secret.unwrap().expose()));
        let request = request.form(&[("token", &tokens.access)]);
        Prepared { request, whose: Whose { server: Some(name), ..whose }, good: Some("\"active\":true") }
    }
}
