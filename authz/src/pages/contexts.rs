//! One context per page: what a template may show, and nothing else. Strings arrive raw; the template escapes them.

use serde::Serialize;

use super::{Frame, Page, answer_source};

/// Sign-in, for a client's request (`transaction`) or just to get in.
#[derive(Clone, Debug, Serialize)]
pub struct Login {
    pub server_name: String,
    pub transaction: Option<String>,
    /// Who asks; without it the page is a plain sign-in.
    pub client_name: Option<String>,
    /// How the client came to be known, where nobody vouches for it.
    pub client_source: Option<String>,
    /// Whose word its name is, as it follows the source.
    pub client_claim: Option<String>,
    /// Where the answer goes: a host, or "this computer".
    pub redirect_host: Option<String>,
    pub resource_name: Option<String>,
    /// The request wants a passkey used now, whoever is signed in.
    pub fresh: bool,
    /// The page to go on to, by its name.
    pub destination: Option<&'static str>,
}

impl Page for Login {
    const TEMPLATE: &'static str = "login.html";
    fn frame(&self) -> Frame {
        Frame::Authorization { answer_source: None }
    }
}

/// The question itself (CONSENT-01).
#[derive(Clone, Debug, Serialize)]
pub struct Consent {
    pub transaction: String,
    pub csrf: String,
    pub client_name: String,
    pub client_id: String,
    /// Whose word the client's name is, if its id is a URL (CIMD-11).
    pub client_id_host: Option<String>,
    pub client_verified: bool,
    /// How an unverified client became known: "self-registered", "known from the built-in catalogue".
    pub client_source: String,
    /// Whose word its name is, as it follows the source.
    pub client_claim: String,
    /// A host, or "this computer" for loopback and app schemes.
    pub redirect_host: String,
    pub redirect_uri: String,
    pub resource_name: String,
    pub resource: String,
    pub scopes: Vec<ConsentScope>,
    /// What was asked for and is not the user's to give, in words.
    pub not_entitled: Vec<String>,
    /// What was asked for and is not for this client, in words.
    pub above_ceiling: Vec<String>,
    pub user_name: String,
    /// In words, as they follow "lasts": "15 minutes".
    pub access_lifetime: String,
    /// In words, as they follow "can be renewed for": "30 days"; `None` if the client does not renew.
    pub refresh_lifetime: Option<String>,
    /// For how long the answer lets the client in without a question, as it follows "for" (CONSENT-04).
    pub remembered_for: Option<String>,
    pub warnings: Vec<String>,
    /// Where to start the passkey assertion that a high-risk scope needs for this decision (CONSENT-08).
    pub confirm_path: Option<String>,
    pub sign_out_csrf: Option<String>,
}

/// One line that may be ticked.
#[derive(Clone, Debug, Serialize)]
pub struct ConsentScope {
    pub name: String,
    pub title: String,
    pub high_risk: bool,
    /// What to think of before a high-risk one is allowed, as a sentence.
    pub risk_text: String,
    pub ticked: bool,
    /// Cannot be unticked; shown as such.
    pub required: bool,
    /// The tools that it opens where it is asked for, in words (POL-03).
    pub opens: Option<String>,
}

impl Page for Consent {
    const TEMPLATE: &'static str = "consent.html";
    fn frame(&self) -> Frame {
        Frame::Authorization { answer_source: answer_source(&self.redirect_uri) }
    }
}

/// Where a device's code is typed (RFC 8628 §3.3).
#[derive(Clone, Debug, Serialize)]
pub struct DeviceCode {
    pub server_name: String,
    /// The code of the link that was opened. It is there to be compared: the person types what the device shows.
    pub linked_code: Option<String>,
    /// Why the code that was typed last leads nowhere.
    pub problem: Option<String>,
}

impl Page for DeviceCode {
    const TEMPLATE: &'static str = "device.html";
    fn frame(&self) -> Frame {
        Frame::Account
    }
}

/// The question of a device (CONSENT-01).
#[derive(Clone, Debug, Serialize)]
pub struct DeviceConsent {
    pub transaction: String,
    pub csrf: String,
    pub client_name: String,
    pub client_id: String,
    pub client_verified: bool,
    /// Whose word an unverified client's name is, as it follows "Not verified".
    pub client_claim: String,
    /// The address that asked.
    pub address: String,
    /// When it asked, in words: "2 minutes ago".
    pub asked: String,
    /// The same exactly.
    pub asked_at: String,
    pub resource_name: String,
    pub resource: String,
    /// What may be ticked; with none of it the page says so, and only refuses.
    pub scopes: Vec<ConsentScope>,
    /// What was asked for and this user may not give, in words.
    pub not_entitled: Vec<String>,
    /// What was asked for and no device is ever given, in words (DEV-01).
    pub high_risk: Vec<String>,
    pub user_name: String,
    pub sign_out_csrf: Option<String>,
    /// In words, as they follow "lasts": "15 minutes".
    pub access_lifetime: String,
    /// The same for renewing; `None` if the client does not renew.
    pub refresh_lifetime: Option<String>,
}

impl Page for DeviceConsent {
    const TEMPLATE: &'static str = "device_consent.html";
    fn frame(&self) -> Frame {
        Frame::Account
    }
}

/// A refusal that explains itself: what happened, what was received beside what was expected, what to do.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorPage {
    /// The OAuth code, such as `invalid_client`: for whoever is asked for help.
    pub code: String,
    pub title: String,
    pub what_happened: String,
    pub received: Option<Labelled>,
    pub expected_label: String,
    pub expected: Vec<String>,
    pub next_step: String,
    /// A command or a piece of configuration that mends it.
    pub copyable_fix: Option<String>,
    pub request_id: String,
    /// An administrator may be asked to approve the client (CIMD-09).
    pub ask: Option<AskForApproval>,
}

/// The form that asks an administrator for a client.
#[derive(Clone, Debug, Serialize)]
pub struct AskForApproval {
    pub action: &'static str,
    pub csrf: String,
    pub client_id: String,
    pub redirect_uri: String,
    /// Who asks.
    pub user_name: String,
}

impl ErrorPage {
    /// A page with what every one of them says; the rest is filled in where there is something to say.
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
            copyable_fix: None,
            request_id: request_id.to_owned(),
            ask: None,
        }
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
        // A form has to say where it comes from.
        if self.ask.is_some() { Frame::Authorization { answer_source: None } } else { Frame::Reading }
    }
}

/// Nothing of what was asked for can be allowed: why, and who can change that (AUTHZ-13).
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
    /// Empty if what it asked for has left the configuration.
    pub scopes: Vec<WithheldScope>,
    /// Who can help, as it follows "ask": "ada or bob".
    pub administrators: String,
    /// The commands that would change it.
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

/// The answer to a decision, sent on by a page of its own (CONSENT-10).
#[derive(Clone, Debug, Serialize)]
pub struct Onward {
    pub client_name: String,
    /// The redirect URI with the answer's parameters.
    pub uri: String,
}

impl Page for Onward {
    const TEMPLATE: &'static str = "onward.html";
    fn frame(&self) -> Frame {
        Frame::Reading
    }
}

/// An error on its way to an unverified https redirect URI: it waits for the person (AUTHZ-12).
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

/// The first passkey: `/setup` for the first administrator, `/enrol` for everybody after.
#[derive(Clone, Debug, Serialize)]
pub struct Setup {
    pub server_name: String,
    pub heading: String,
    /// The name in the field, or the name enrolled if it is settled already (`needs_name` false); may be empty.
    pub name_suggestion: String,
    pub needs_name: bool,
    pub start_path: String,
    pub finish_path: String,
    /// Who is signed in here, who may not be whom the link is for (ENROL-03).
    pub signed_in: Option<SignedInHere>,
}

/// Whoever is signed in in this browser, and the way out.
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

/// Home, signed in: how to connect, what may be used, the passkeys.
#[derive(Clone, Debug, Serialize)]
pub struct Connect {
    pub server_name: String,
    pub user_name: String,
    /// `None` if there is not one address for everybody.
    pub mcp_url: Option<String>,
    /// The tools are elsewhere, and not known here.
    pub elsewhere: bool,
    pub snippets: Vec<Snippet>,
    pub passkeys: u32,
    /// Ask for a second passkey (WEBAUTHN-12).
    pub show_nudge: bool,
    pub sign_out_csrf: String,
    pub what: Vec<UsableTool>,
    /// The endpoints beside the one above, each with a selection of the tools (POL-03).
    pub profiles: Vec<UsableProfile>,
}

/// How one client is connected.
#[derive(Clone, Debug, Serialize)]
pub struct Snippet {
    pub client: String,
    /// What to do with the code: "Run in a terminal".
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
}

impl Page for Connect {
    const TEMPLATE: &'static str = "connect.html";
    fn frame(&self) -> Frame {
        Frame::Account
    }
}

/// Home for nobody in particular: whose server this is, and the way in.
#[derive(Clone, Debug, Serialize)]
pub struct SignedOut {
    pub server_name: String,
    pub mcp_url: Option<String>,
    /// There is no administrator: the setup link comes first.
    pub setup_pending: bool,
    /// Somebody has something to sign in with.
    pub can_sign_in: bool,
}

impl Page for SignedOut {
    const TEMPLATE: &'static str = "signed_out.html";
    fn frame(&self) -> Frame {
        Frame::Account
    }
}

/// Anything else worth saying.
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
