//! The decision table of the authorization endpoint: one function per row, in the order of the table.

use std::borrow::Cow;

use shared::{ClientId, Fault, RedirectUri, Request, ResourceUri, Scope, shell};

use super::{PageStop, Stop};
use crate::Authz;
use crate::answer::{Refused, Return};
use crate::clients::metadata_document::approvals;
use crate::clients::redirects::Mismatch;
use crate::clients::{self, LookupPurpose, Resolved};
use crate::error::Code;
use crate::form::{Params, Unreadable};
use crate::grants::GrantType;
use crate::oxide::{self, Refusal, Steps};
use crate::pages::{ErrorPage, Labelled};
use crate::scope::{LONGEST_SCOPE, OFFLINE_ACCESS};
use crate::session::Browser;
use crate::store::clients::{Client, Source};

/// Longer values could not be echoed safely (AUTHZ-11), in bytes.
const LONGEST_STATE: usize = 4096;

/// The texts of an error page: its title, what happened, and what to do next.
type PageText<'a> = [&'a str; 3];

const START_AGAIN: &str =
    "Start again from your application. If this happens again, the application needs an update.";

const ADD_AGAIN: &str = "Remove the server from your application and add it again, so that it registers the address it uses now. In Claude Code:";

/// The state of the checks: the request, and what they have found so far.
pub(super) struct Checks<'a> {
    pub(super) authz: &'a Authz,
    pub(super) request: &'a Request,
    pub(super) browser: &'a Browser,
    pub(super) params: Params,
    pub(super) client: Option<Client>,
    pub(super) redirect_uri: Option<RedirectUri>,
    /// Stored for the exchange; no answer and no log line contains it (PKCE-06).
    pub(super) code_challenge: Option<String>,
    pub(super) resource: Option<ResourceUri>,
    pub(super) prompt: Prompt,
    pub(super) max_age: Option<i64>,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Prompt {
    pub(super) login: bool,
    pub(super) consent: bool,
    pub(super) none: bool,
}

impl<'a> Checks<'a> {
    pub(super) fn new(
        authz: &'a Authz,
        request: &'a Request,
        browser: &'a Browser,
        text: &str,
    ) -> Result<Self, Stop> {
        let mut checks = Self {
            authz,
            request,
            browser,
            params: Params::default(),
            client: None,
            redirect_uri: None,
            code_challenge: None,
            resource: None,
            prompt: Prompt::default(),
            max_age: None,
        };
        checks.params = Params::parse(text).map_err(|why| {
            let what = match why {
                Unreadable::Malformed => "The request's parameters are not valid UTF-8 text.",
                Unreadable::TooMany => "The request has more than 64 parameters.",
            };
            let words = ["This sign-in link is invalid", what, START_AGAIN];
            checks.page("malformed", Code::InvalidRequest, words, |_| {})
        })?;
        checks.only_one_client()?;
        Ok(checks)
    }

    /// Row 2: exactly one `client_id`.
    fn only_one_client(&self) -> Result<(), Stop> {
        if self.params.is_repeated("client_id") || self.params.get("client_id").is_none() {
            let words = [
                "Which application is asking?",
                "The request has no client_id, or more than one.",
                START_AGAIN,
            ];
            return Err(self.page("client_id_missing", Code::InvalidClient, words, |_| {}));
        }
        Ok(())
    }

    /// Rows 2 and 3: the client exists and is enabled; if its id is a URL, its document is known.
    fn find_client(&self, client_id: &str) -> Result<Client, Stop> {
        let redirect_uri =
            self.params.get("redirect_uri").filter(|_| !self.params.is_repeated("redirect_uri"));
        let found = match ClientId::parse(client_id) {
            Some(id) => self
                .authz
                .db
                .read(|conn| clients::resolve(self.authz, conn, &id, LookupPurpose::Request(redirect_uri)))?,
            None => Resolved::Unknown,
        };
        let (words, fix) = match found {
            Resolved::Client(client) if !client.disabled => return Ok(*client),
            Resolved::Client(_) => (
                [
                    "This application is disabled",
                    "An administrator disabled this application. Nothing was sent to it.",
                    "If you need it, ask an administrator to enable it with this command:",
                ],
                format!("portcullis client enable {}", shell::word(client_id)),
            ),
            Resolved::Undocumented(undocumented) => {
                let (page, client_id) = approvals::page(
                    self.authz,
                    self.request,
                    self.browser,
                    client_id,
                    redirect_uri,
                    undocumented,
                )?;
                return Err(Stop::Page(Box::new(PageStop { reason: undocumented.reason, client_id, page })));
            }
            Resolved::Unknown => (
                [
                    "This application is not registered here",
                    "No client with this id is registered. It may have been removed because it was never used.",
                    ADD_AGAIN,
                ],
                self.add_again(),
            ),
        };
        Err(self.page("client_unknown", Code::InvalidClient, words, |page| {
            page.received =
                Some(Labelled { label: "Client ID received".to_owned(), value: client_id.to_owned() });
            page.copyable_fix = Some(fix);
        }))
    }

    /// How to make Claude Code register again. Other applications have a button for that.
    fn add_again(&self) -> String {
        let url = self.authz.issuer.url("/mcp");
        format!("claude mcp remove portcullis\nclaude mcp add --transport http portcullis {url}")
    }

    /// Row 4: the redirect URI is one the client registered (REDIR-01, REDIR-02).
    fn match_redirect_uri(&self, client: &Client, asked: Option<&str>) -> Result<RedirectUri, Stop> {
        if self.params.is_repeated("redirect_uri") {
            return Err(self.redirect_uri_page(client, "redirect_uri_repeated", asked));
        }
        match self.authz.config.redirects.choose(client, asked) {
            Ok(uri) => Ok(uri),
            Err(Mismatch::Missing) => Err(self.redirect_uri_page(client, "redirect_uri_missing", None)),
            Err(Mismatch::Unmatched) => Err(self.redirect_uri_page(client, "redirect_uri_unmatched", asked)),
            Err(Mismatch::Unusable(uri)) => Err(self.unusable_page(client, &uri)),
        }
    }

    /// A link from a stranger must not send a code over the network, or to an application that claims a private
    /// scheme (DCR-05, REDIR-05).
    fn unusable_page(&self, client: &Client, uri: &RedirectUri) -> Stop {
        let received =
            || Some(Labelled { label: "Redirect URI received".to_owned(), value: uri.to_string() });
        if !self.authz.config.redirects.admit(uri) {
            let what = format!(
                "“{}” uses a redirect URI scheme that any program on the computer can claim, and this server does not allow that scheme.",
                client.name
            );
            let next = "If you know this program, ask an administrator to add the scheme to app_schemes in portcullis.toml.";
            let words = ["This application's redirect URI is not allowed", &what, next];
            return self.page("redirect_uri_scheme", Code::InvalidRequest, words, |page| {
                page.received = received();
            });
        }
        let what = format!(
            "“{}” uses a redirect URI on another computer. An administrator must verify the application first.",
            client.name
        );
        let words = [
            "This application is not verified",
            &what,
            "If you know this address, ask an administrator to verify the application with this command:",
        ];
        self.page("redirect_uri_remote", Code::InvalidRequest, words, |page| {
            page.received = received();
            page.expected_label = "Allowed without approval".to_owned();
            page.expected =
                vec!["http://localhost, http://127.0.0.1 or http://[::1], on any port".to_owned()];
            page.copyable_fix = Some(format!("portcullis client verify {}", shell::word(client.id.as_str())));
        })
    }

    fn redirect_uri_page(&self, client: &Client, reason: &'static str, asked: Option<&str>) -> Stop {
        let what = format!(
            "“{}” sent a redirect URI that it did not register. Nothing was sent there.",
            client.name
        );
        let next = match client.source {
            Source::SelfRegistered | Source::UnknownUrl => ADD_AGAIN,
            Source::Administrator => {
                "Compare the two addresses letter by letter: a different ending or port is enough to fail. If you know that the first one is the application's, an administrator can set it with this command, which replaces all addresses of the application:"
            }
            Source::Configuration => {
                "Compare the two addresses letter by letter: a different ending or port is enough to fail. If you know that the first one is the application's, an administrator can change redirect_uris of this application in portcullis.toml and run:"
            }
            Source::Catalogue | Source::Imported | Source::Fetched => {
                "Its addresses come from its client ID metadata document. If the application is newer than the document on this server, ask an administrator to import the new one."
            }
        };
        self.page(reason, Code::InvalidRequest, ["The redirect URI does not match", &what, next], |page| {
            page.copyable_fix = match client.source {
                Source::SelfRegistered | Source::UnknownUrl => Some(self.add_again()),
                // The address is left to the administrator: what was received may come from a stranger's link.
                Source::Administrator => {
                    let id = shell::word(client.id.as_str());
                    Some(format!("portcullis client set {id} \\\n  --redirect-uri URI"))
                }
                Source::Configuration => Some("portcullis reload".to_owned()),
                Source::Catalogue | Source::Imported | Source::Fetched => None,
            };
            page.received = Some(Labelled {
                label: "Redirect URI received".to_owned(),
                value: asked.unwrap_or("none").to_owned(),
            });
            page.expected_label = "Redirect URIs registered".to_owned();
            page.expected = client.redirect_uris.iter().map(ToString::to_string).collect();
        })
    }

    /// Rows 5 and 6, and AUTHZ-11: `response_type`, repeated parameters, control characters.
    fn check_shape(&self) -> Result<(), Stop> {
        if self.params.all("state").any(|state| state.len() > LONGEST_STATE) {
            let what = "The application's state value is longer than 4096 bytes.";
            let words = ["This sign-in request is too long", what, START_AGAIN];
            return Err(self.page("state_oversized", Code::InvalidRequest, words, |_| {}));
        }
        match self.params.repeated() {
            Some("resource") => {
                return Err(self.redirect(Code::InvalidTarget, "only one resource parameter is allowed"));
            }
            Some(_) => return Err(self.redirect(Code::InvalidRequest, "a parameter is repeated")),
            None => {}
        }
        if self.params.has_control_characters() {
            return Err(self.redirect(Code::InvalidRequest, "a parameter contains a control character"));
        }
        if self.params.get("scope").is_some_and(|scope| scope.len() > LONGEST_SCOPE) {
            return Err(self.redirect(Code::InvalidScope, "the scope is longer than 4096 bytes"));
        }
        if self.params.get("response_type").is_none() {
            return Err(self.redirect(Code::InvalidRequest, "response_type is missing"));
        }
        // AUTHZ-04: no other response type exists.
        if self.params.get("response_type") != Some("code") {
            return Err(self.redirect(Code::UnsupportedResponseType, "only response_type=code is supported"));
        }
        Ok(())
    }

    /// Row 7: the client may use the authorization code grant.
    fn check_grant_type(&self) -> Result<(), Stop> {
        match &self.client {
            Some(client) if GrantType::AuthorizationCode.is_allowed(client) => Ok(()),
            _ => {
                Err(self.redirect(Code::UnauthorizedClient, "the client did not register authorization_code"))
            }
        }
    }

    /// Row 8: the code challenge (PKCE-01, PKCE-02, PKCE-03).
    fn check_challenge(&mut self) -> Result<(), Stop> {
        self.code_challenge = oxide::code_challenge(&self.params);
        if self.code_challenge.is_none() {
            return Err(self.redirect(
                Code::InvalidRequest,
                "code_challenge with code_challenge_method=S256 is required",
            ));
        }
        Ok(())
    }

    /// Row 9: `response_mode`, request objects, `prompt` and `max_age` (AUTHZ-05, AUTHZ-06, AUTHZ-16).
    fn check_options(&mut self) -> Result<(), Stop> {
        if self.params.get("request").is_some() {
            return Err(self.redirect(Code::RequestNotSupported, "request objects are not supported"));
        }
        if self.params.get("request_uri").is_some() {
            return Err(self.redirect(Code::RequestUriNotSupported, "request_uri is not supported"));
        }
        if self.params.get("response_mode").is_some_and(|mode| mode != "query") {
            return Err(self.redirect(Code::InvalidRequest, "only response_mode=query is supported"));
        }
        let prompts: Vec<&str> =
            self.params.get("prompt").unwrap_or_default().split_ascii_whitespace().collect();
        let has = |value| prompts.contains(&value);
        // Signing in with a passkey selects an account, so `select_account` is treated as `login`.
        let login = has("login") || has("select_account");
        self.prompt = Prompt { login, consent: has("consent"), none: has("none") };
        if self.prompt.none && prompts.len() > 1 {
            return Err(
                self.redirect(Code::InvalidRequest, "prompt=none cannot be combined with other values")
            );
        }
        if let Some(max_age) = self.params.get("max_age") {
            let max_age = max_age.parse().ok().filter(|age: &u32| i64::from(*age) >= 0);
            match max_age {
                // `max_age=0`: an older sign-in in the same second would pass a comparison in seconds.
                Some(0) => self.prompt.login = true,
                Some(age) => self.max_age = Some(i64::from(age)),
                None => return Err(self.redirect(Code::InvalidRequest, "max_age is not a number of seconds")),
            }
        }
        Ok(())
    }

    /// Row 10, first half: the resource (AUTHZ-14).
    fn check_resource(&mut self) -> Result<(), Stop> {
        let asked = self.params.get("resource");
        match self.authz.db.read(|conn| self.authz.asked_resource(conn, asked))? {
            Some(endpoint) => {
                self.resource = Some(endpoint.resource);
                Ok(())
            }
            None if asked.is_none() => {
                let missing = self.authz.resource_missing();
                Err(self.redirect(missing.code, missing.description))
            }
            None => {
                Err(self
                    .redirect(Code::InvalidTarget, "the resource is not one this server issues tokens for"))
            }
        }
    }

    /// An error page instead of a redirect; `fill` adds details beside the texts.
    fn page(
        &self,
        reason: &'static str,
        code: Code,
        words: PageText<'_>,
        fill: impl FnOnce(&mut ErrorPage),
    ) -> Stop {
        let [title, what_happened, next_step] = words;
        let mut page = ErrorPage::new(code.as_str(), &self.request.id, title, what_happened, next_step);
        fill(&mut page);
        let client_id = self.client.as_ref().map(|client| client.id.clone());
        Stop::Page(Box::new(PageStop { reason, client_id, page }))
    }

    pub(super) fn back(&self) -> Result<Return, Stop> {
        match (&self.client, &self.redirect_uri) {
            (Some(client), Some(redirect_uri)) => {
                Ok(Return::new(client, redirect_uri, self.params.get("state")))
            }
            _ => Err(Self::bug()),
        }
    }

    pub(super) fn redirect(&self, code: Code, description: impl Into<Cow<'static, str>>) -> Stop {
        match self.back() {
            Ok(to) => Stop::Return(Box::new(to), Refused::new(code, description)),
            Err(stop) => stop,
        }
    }

    pub(super) fn bug() -> Stop {
        Stop::Fault(Fault::Storage("an authorization request went on without its checks".to_owned()))
    }
}

impl Steps for Checks<'_> {
    type Stop = Stop;

    /// AUTHZ-02: the client, then its redirect URI, before anything that could be answered by a redirect.
    fn bind(&mut self, client_id: &str, redirect_uri: Option<&str>) -> Result<RedirectUri, Stop> {
        let client = self.find_client(client_id)?;
        self.client = Some(client.clone());
        let uri = self.match_redirect_uri(&client, redirect_uri)?;
        self.redirect_uri = Some(uri.clone());
        self.check_shape()?;
        Ok(uri)
    }

    fn extend(&mut self) -> Result<(), Stop> {
        self.check_grant_type()?;
        self.check_challenge()?;
        self.check_options()?;
        self.check_resource()
    }

    /// Row 10, second half: unknown scopes are dropped; an absent scope means the default (AUTHZ-13).
    fn negotiate(&mut self, scope: Option<Scope>) -> Result<Scope, Stop> {
        let default = match &self.resource {
            Some(resource) => self.authz.resource(resource).map(|e| e.default_scope).unwrap_or_default(),
            None => Scope::empty(),
        };
        let known = self.authz.grantable();
        let asked: Scope = scope.iter().flat_map(Scope::iter).filter(|s| *s != OFFLINE_ACCESS).collect();
        let granted = if asked.is_empty() { default } else { asked.intersection(&known) };
        if granted.is_empty() {
            let words = if asked.is_empty() {
                "no scope was requested, and this resource has no default; name the scopes to ask for"
            } else {
                "none of the requested scopes exists on this server"
            };
            return Err(self.redirect(Code::InvalidScope, words));
        }
        Ok(granted)
    }

    fn refuse(&mut self, refusal: Refusal) -> Stop {
        match refusal {
            Refusal::InvalidScope => self.redirect(Code::InvalidScope, "the scope is malformed"),
            Refusal::UnsupportedResponseType => {
                self.redirect(Code::UnsupportedResponseType, "only response_type=code is supported")
            }
            Refusal::Unusable | Refusal::InvalidRequest | Refusal::InvalidGrant => {
                let asked = self.params.get("redirect_uri").unwrap_or("none").to_owned();
                let words = [
                    "The redirect URI is invalid",
                    "The request's redirect URI is not a valid URI.",
                    START_AGAIN,
                ];
                self.page("redirect_uri_malformed", Code::InvalidRequest, words, |page| {
                    page.received =
                        Some(Labelled { label: "Redirect URI received".to_owned(), value: asked });
                })
            }
        }
    }
}
