//! One context per page: everything that its template shows. Strings are not escaped here; the template escapes
//! them.

use serde::Serialize;

use super::{Frame, Page, answer_source};

/// The sign-in page, for a client's request (`transaction`) or without one.
#[derive(Clone, Debug, Serialize)]
pub struct Login {
    pub server_name: String,
    pub transaction: Option<String>,
    /// The client's name; `None` on a plain sign-in page.
    pub client_name: Option<String>,
    /// How an unverified client became known.
    pub client_source: Option<String>,
    /// Who chose its name, as it follows the source.
    pub client_claim: Option<String>,
    /// An administrator verified the client.
    pub client_verified: bool,
    /// The user was signed in when the page before this one was shown.
    pub signed_out_meanwhile: bool,
    /// The receiver of the answer: a host, or "this computer".
    pub redirect_host: Option<String>,
    pub resource_name: Option<String>,
    /// A passkey must be used now, even if the user is signed in.
    pub fresh: bool,
    /// The name of the page to show afterwards.
    pub destination: Option<&'static str>,
}

impl Page for Login {
    const TEMPLATE: &'static str = "login.html";
    fn frame(&self) -> Frame {
        Frame::Authorization { answer_source: None }
    }
}

/// The consent page (CONSENT-01).
#[derive(Clone, Debug, Serialize)]
pub struct Consent {
    pub transaction: String,
    pub csrf: String,
    pub client_name: String,
    pub client_id: String,
    /// Who chose the client's name, if its id is a URL (CIMD-11).
    pub client_id_host: Option<String>,
    pub client_verified: bool,
    /// How an unverified client became known: "self-registered", "known from the built-in catalogue".
    pub client_source: String,
    /// Who chose its name, as it follows the source.
    pub client_claim: String,
    /// A host, or "this computer" for loopback and app schemes.
    pub redirect_host: String,
    pub redirect_uri: String,
    pub resource_name: String,
    pub resource: String,
    pub scopes: Vec<ConsentScope>,
    /// Requested scopes that the user is not entitled to, in words.
    pub not_entitled: Vec<String>,
    /// Requested scopes that this client may not have, in words.
    pub above_ceiling: Vec<String>,
    pub user_name: String,
    /// In words, as they follow "lasts": "15 minutes".
    pub access_lifetime: String,
    /// In words, as they follow "can be renewed for": "30 days"; `None` if the client does not renew.
    pub refresh_lifetime: Option<String>,
    /// How long the answer replaces the question, as it follows "for" (CONSENT-04).
    pub remembered_for: Option<String>,
    pub warnings: Vec<String>,
    /// Where to start the passkey assertion for a high-risk scope (CONSENT-08).
    pub confirm_path: Option<String>,
    pub sign_out_csrf: Option<String>,
}

/// A scope that may be ticked.
#[derive(Clone, Debug, Serialize)]
pub struct ConsentScope {
    pub name: String,
    pub title: String,
    pub high_risk: bool,
    /// The warning for a high-risk scope, as a sentence.
    pub risk_text: String,
    pub ticked: bool,
    /// It cannot be unticked.
    pub required: bool,
    /// The tools that it opens at the requested endpoint, in words (POL-03).
    pub opens: Option<String>,
}

impl Page for Consent {
    const TEMPLATE: &'static str = "consent.html";
    fn frame(&self) -> Frame {
        Frame::Authorization { answer_source: answer_source(&self.redirect_uri) }
    }
}

/// The page for a device's code (RFC 8628 §3.3).
#[derive(Clone, Debug, Serialize)]
pub struct DeviceCode {
    pub server_name: String,
    /// The code in the link, for comparison: the person types the code that the device shows.
    pub linked_code: Option<String>,
    /// What was typed last, to be corrected.
    pub typed: String,
    /// Why the code that was typed last was not accepted.
    pub problem: Option<String>,
}

impl Page for DeviceCode {
    const TEMPLATE: &'static str = "device.html";
    fn frame(&self) -> Frame {
        Frame::Account
    }
}

/// The consent page for a device (CONSENT-01).
#[derive(Clone, Debug, Serialize)]
pub struct DeviceConsent {
    pub transaction: String,
    pub csrf: String,
    pub client_name: String,
    pub client_id: String,
    pub client_verified: bool,
    /// Who chose an unverified client's name, as it follows "Not verified".
    pub client_claim: String,
    /// The device's address.
    pub address: String,
    /// When the device asked, in words: "2 minutes ago".
    pub asked: String,
    /// The exact time.
    pub asked_at: String,
    pub resource_name: String,
    pub resource: String,
    /// The scopes that may be ticked. If there are none, the page says so and only refuses.
    pub scopes: Vec<ConsentScope>,
    /// Requested scopes that this user may not grant, in words.
    pub not_entitled: Vec<String>,
    /// Requested scopes that devices never get, in words (DEV-01).
    pub high_risk: Vec<String>,
    pub user_name: String,
    pub sign_out_csrf: Option<String>,
    /// In words, as they follow "lasts": "15 minutes".
    pub access_lifetime: String,
    /// How long tokens can be renewed; `None` if the client does not renew.
    pub refresh_lifetime: Option<String>,
}

impl Page for DeviceConsent {
    const TEMPLATE: &'static str = "device_consent.html";
    fn frame(&self) -> Frame {
        Frame::Account
    }
}

/// An error page: what happened, what was received and expected, and what to do.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorPage {
    /// The OAuth error code, such as `invalid_client`, for the administrator.
    pub code: String,
    pub title: String,
    pub what_happened: String,
    pub received: Option<Labelled>,
    pub expected_label: String,
    pub expected: Vec<String>,
    pub next_step: String,
    /// Words of `next_step` that are a link, and where it goes.
    pub linked: Option<Labelled>,
    /// A command or a piece of configuration that fixes it.
    pub copyable_fix: Option<String>,
    pub request_id: String,
    /// The form to ask an administrator to approve the client (CIMD-09).
    pub ask: Option<AskForApproval>,
}

/// The form of an approval request.
#[derive(Clone, Debug, Serialize)]
pub struct AskForApproval {
    pub action: &'static str,
    pub csrf: String,
    pub client_id: String,
    pub redirect_uri: String,
    /// The user who asks.
    pub user_name: String,
}

impl ErrorPage {
    /// A page with the common parts; the caller fills in the rest.
    pub fn new(
        code: &str,
        request_id: &str,
        title: &str,
        what_happened: impl Into<String>,
        next_step: &str,
    ) -> Self {
        Self {
            code: code.to_owned(),
            title: title.to_owned(),
            what_happened: what_happened.into(),
            received: None,
            expected_label: String::new(),
            expected: Vec::new(),
            next_step: next_step.to_owned(),
            linked: None,
            copyable_fix: None,
            request_id: request_id.to_owned(),
            ask: None,
        }
    }

    /// Makes the words "home page" of the next step a link.
    #[must_use]
    pub fn linking_home(self) -> Self {
        Self { linked: Some(Labelled { label: "home page".to_owned(), value: "/".to_owned() }), ..self }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Labelled {
    pub label: String,
    pub value: String,
}

impl Page for ErrorPage {
    const TEMPLATE: &'static str = "error.html";
    fn frame(&self) -> Frame {
        // A page with a form must send its origin.
        if self.ask.is_some() { Frame::Authorization { answer_source: None } } else { Frame::Reading }
    }
}

/// The page shown if none of the requested scopes can be allowed: why, and who can change that (AUTHZ-13).
#[derive(Clone, Debug, Serialize)]
pub struct NothingToAllow {
    pub transaction: String,
    pub csrf: String,
    pub client_name: String,
    /// A host, or "this computer" for loopback and app schemes.
    pub redirect_host: String,
    pub redirect_uri: String,
    pub resource_name: String,
    pub user_name: String,
    pub sign_out_csrf: Option<String>,
    /// Empty if all requested scopes were removed from the configuration.
    pub scopes: Vec<WithheldScope>,
    /// Who can help, as it follows "ask": "ada or bob".
    pub administrators: String,
    /// The commands that would allow it.
    pub copyable_fix: Option<String>,
}

/// A scope that cannot be allowed, and why.
#[derive(Clone, Debug, Serialize)]
pub struct WithheldScope {
    pub name: String,
    pub title: String,
    /// A sentence.
    pub why: String,
}

impl Page for NothingToAllow {
    const TEMPLATE: &'static str = "nothing_to_allow.html";
    fn frame(&self) -> Frame {
        Frame::Authorization { answer_source: answer_source(&self.redirect_uri) }
    }
}

/// The answer to a decision, sent by a page of its own (CONSENT-10).
#[derive(Clone, Debug, Serialize)]
pub struct Onward {
    pub client_name: String,
    /// The redirect URI with the response parameters.
    pub uri: String,
}

impl Page for Onward {
    const TEMPLATE: &'static str = "onward.html";
    fn frame(&self) -> Frame {
        Frame::Reading
    }
}

/// An error for an unverified https redirect URI: it is sent when the person clicks (AUTHZ-12).
#[derive(Clone, Debug, Serialize)]
pub struct Continue {
    pub host: String,
    /// The redirect URI with the error's parameters. The link appears only if it is `https`.
    pub uri: String,
    pub error: String,
    /// As it follows a colon, without the full stop.
    pub description: String,
}

impl Page for Continue {
    const TEMPLATE: &'static str = "continue.html";
    fn frame(&self) -> Frame {
        Frame::Reading
    }
}

/// The page for the first passkey: `/setup` for the first administrator, `/enrol` for other users.
#[derive(Clone, Debug, Serialize)]
pub struct Setup {
    pub server_name: String,
    pub heading: String,
    /// The name in the field, or the fixed name (`needs_name` false); may be empty.
    pub name_suggestion: String,
    pub needs_name: bool,
    /// Where the page asks whose the link is.
    pub look_path: String,
    pub start_path: String,
    pub finish_path: String,
    /// The user who is signed in here, who may not be the link's user (ENROL-03).
    pub signed_in: Option<SignedInHere>,
}

/// The signed-in user, and the form to sign out.
#[derive(Clone, Debug, Serialize)]
pub struct SignedInHere {
    pub user_name: String,
    pub sign_out_csrf: String,
}

impl Page for Setup {
    const TEMPLATE: &'static str = "setup.html";
    fn frame(&self) -> Frame {
        Frame::Account
    }
}

/// The home page of a signed-in user: how to connect, available tools, passkeys.
#[derive(Clone, Debug, Serialize)]
pub struct Connect {
    pub server_name: String,
    pub user_name: String,
    /// `None` if there is no single address for all users.
    pub mcp_url: Option<String>,
    /// The tools are on another server and not known here.
    pub elsewhere: bool,
    pub snippets: Vec<Snippet>,
    pub passkeys: u32,
    /// Suggest a second passkey (WEBAUTHN-12).
    pub show_nudge: bool,
    pub sign_out_csrf: String,
    /// The user has just made their first passkey: `administrator`, or `user`.
    pub welcome: Option<&'static str>,
    pub what: Vec<UsableTool>,
    /// The other endpoints, each with a selection of the tools (POL-03).
    pub profiles: Vec<UsableProfile>,
}

/// The instructions for one client.
#[derive(Clone, Debug, Serialize)]
pub struct Snippet {
    pub client: String,
    /// How to use the code: "Run in a terminal".
    pub how: String,
    pub code: String,
}

/// An endpoint with a selection of the tools.
#[derive(Clone, Debug, Serialize)]
pub struct UsableProfile {
    pub name: String,
    pub url: String,
    pub what: Vec<UsableTool>,
}

#[derive(Clone, Debug, Serialize)]
pub struct UsableTool {
    pub name: String,
    pub title: String,
    /// It needs a high-risk scope.
    pub high_risk: bool,
}

impl Page for Connect {
    const TEMPLATE: &'static str = "connect.html";
    fn frame(&self) -> Frame {
        Frame::Account
    }
}

/// The home page without a session: the server's name, and the sign-in button.
#[derive(Clone, Debug, Serialize)]
pub struct SignedOut {
    pub server_name: String,
    pub mcp_url: Option<String>,
    /// There is no administrator yet: the setup link must be used first.
    pub setup_pending: bool,
    /// At least one user has a passkey.
    pub can_sign_in: bool,
}

impl Page for SignedOut {
    const TEMPLATE: &'static str = "signed_out.html";
    fn frame(&self) -> Frame {
        Frame::Account
    }
}

/// A page with a short message.
#[derive(Clone, Debug, Serialize)]
pub struct Notice {
    pub title: String,
    pub paragraphs: Vec<String>,
    pub next_step: Option<String>,
}

impl Page for Notice {
    const TEMPLATE: &'static str = "notice.html";
    fn frame(&self) -> Frame {
        Frame::Reading
    }
}
