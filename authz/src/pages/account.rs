//! What the account page shows (REVOKE-07, CONSENT-07, SESSION-06, WEBAUTHN-12).

use serde::Serialize;

use super::{Frame, Page};

/// The account page: connected applications, sessions and passkeys.
#[derive(Clone, Debug, Serialize)]
pub struct Account {
    pub user_name: String,
    pub csrf: String,
    pub sign_out_csrf: String,
    /// Where the passkey assertion for a change starts.
    pub confirm_path: String,
    /// Every change takes an assertion, not only changes of passkeys (SESSION-01).
    pub always_confirm: bool,
    /// The change that was just made, as a sentence.
    pub done: Option<String>,
    pub clients: Vec<ConnectedClient>,
    pub remembered: Vec<RememberedAnswer>,
    pub browsers: Vec<SignedInBrowser>,
    pub passkeys: Vec<OwnPasskey>,
    pub secrets: Vec<ServerSecret>,
}

/// A server to which the person gives a secret of their own, or gave one.
#[derive(Clone, Debug, Serialize)]
pub struct ServerSecret {
    /// Its name in the configuration.
    pub source: String,
    /// What they may call there, in words.
    pub opens: Option<String>,
    /// When they gave the secret that it has.
    pub given: Option<Moment>,
    /// It is reached elsewhere since, so that another one is needed.
    pub moved: bool,
    /// It takes one, and they may call it.
    pub wanted: bool,
}

/// A connected application.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectedClient {
    pub client_id: String,
    pub name: String,
    pub verified: bool,
    /// How it became known, as it follows "Not verified".
    pub source: String,
    /// Who chose its name, as it follows the source.
    pub claim: String,
    /// An administrator disabled it.
    pub disabled: bool,
    /// Its grants, the newest first.
    pub connections: Vec<Connection>,
    /// The number of further grants.
    pub more: usize,
}

/// A grant.
#[derive(Clone, Debug, Serialize)]
pub struct Connection {
    /// The scopes that it allows at this moment, in words.
    pub scopes: Vec<String>,
    /// The tools that these open, in words (POL-03).
    pub opens: Option<String>,
    /// Granted scopes that it does not allow at this moment, because the user is no longer entitled to them or
    /// the client is no longer verified.
    pub not_now: Vec<String>,
    pub resource_name: Option<String>,
    pub resource: String,
    pub connected: Moment,
    pub last_used: Option<Moment>,
    /// The address of its last use.
    pub address: Option<String>,
    /// When it ends by itself, as it follows "in".
    pub ends: String,
}

/// A remembered consent.
#[derive(Clone, Debug, Serialize)]
pub struct RememberedAnswer {
    pub client_id: String,
    pub name: String,
    pub resource: String,
    pub resource_name: Option<String>,
    pub scopes: Vec<String>,
    pub given: Moment,
    /// How long it replaces the question, as it follows "for another"; `None` if it does not.
    pub counts_for: Option<String>,
}

/// A signed-in browser.
#[derive(Clone, Debug, Serialize)]
pub struct SignedInBrowser {
    pub id: String,
    /// It is the current browser.
    pub this: bool,
    pub signed_in: Moment,
    pub seen: Moment,
    pub address: Option<String>,
    /// What it calls itself, such as "Firefox on Linux".
    pub name: Option<String>,
}

/// A passkey of the user.
#[allow(clippy::struct_excessive_bools, reason = "the template words each of them by itself")]
#[derive(Clone, Debug, Serialize)]
pub struct OwnPasskey {
    /// The digest of its id.
    pub id: String,
    /// The first digits of that digest, as shown by the commands and the audit log.
    pub digest: String,
    /// Its name.
    pub label: Option<String>,
    pub added: Moment,
    pub last_used: Option<Moment>,
    /// It can be copied to other devices.
    pub copyable: bool,
    /// Its counter went back: it is suspended until an administrator has looked at it.
    pub suspended: bool,
    /// This browser was signed in with it.
    pub this: bool,
    /// The user has another passkey, so this one can be removed.
    pub removable: bool,
}

/// A time: in words, such as "2 hours ago", and exactly.
#[derive(Clone, Debug, Serialize)]
pub struct Moment {
    pub words: String,
    pub exact: String,
}

impl Page for Account {
    const TEMPLATE: &'static str = "account.html";
    fn frame(&self) -> Frame {
        Frame::Account
    }
}
