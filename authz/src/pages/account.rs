//! What the account page shows (REVOKE-07, CONSENT-07, SESSION-06, WEBAUTHN-12).

use serde::Serialize;

use super::{Frame, Page};

/// The account: what a person lets applications do, where they are signed in, and with what.
#[derive(Clone, Debug, Serialize)]
pub struct Account {
    pub user_name: String,
    pub csrf: String,
    pub sign_out_csrf: String,
    /// Where the use of a passkey begins that a change takes.
    pub confirm_path: String,
    /// Every change takes one, and not only those of passkeys (SESSION-01).
    pub always_confirm: bool,
    /// What was just done, as a sentence.
    pub done: Option<String>,
    pub clients: Vec<ConnectedClient>,
    pub remembered: Vec<RememberedAnswer>,
    pub browsers: Vec<SignedInBrowser>,
    pub passkeys: Vec<OwnPasskey>,
}

/// An application that is connected.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectedClient {
    pub client_id: String,
    pub name: String,
    pub verified: bool,
    /// How it became known, as it follows "Not verified".
    pub source: String,
    /// Whose word its name is, as it follows the source.
    pub claim: String,
    /// An administrator stopped it.
    pub disabled: bool,
    /// What it holds, the newest first.
    pub connections: Vec<Connection>,
    /// How many more there are.
    pub more: usize,
}

/// One approval, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Connection {
    /// What it can do at this moment, each in words.
    pub scopes: Vec<String>,
    /// The tools that these open there, in words (POL-03).
    pub opens: Option<String>,
    /// What it was allowed and cannot do at this moment, because its user is not entitled to it any more or nobody
    /// vouches for the client any more.
    pub not_now: Vec<String>,
    pub resource_name: Option<String>,
    pub resource: String,
    pub connected: Moment,
    pub last_used: Option<Moment>,
    /// Where it was used from last.
    pub address: Option<String>,
    /// In how long it ends by itself, as it follows "in".
    pub ends: String,
}

/// An answer that was kept.
#[derive(Clone, Debug, Serialize)]
pub struct RememberedAnswer {
    pub client_id: String,
    pub name: String,
    pub resource: String,
    pub resource_name: Option<String>,
    pub scopes: Vec<String>,
    pub given: Moment,
    /// For how long it lets the application in without a question, as it follows "for another"; `None` if it does not.
    pub counts_for: Option<String>,
}

/// A browser that is signed in.
#[derive(Clone, Debug, Serialize)]
pub struct SignedInBrowser {
    pub id: String,
    /// It is the one that asks.
    pub this: bool,
    pub signed_in: Moment,
    pub seen: Moment,
    pub address: Option<String>,
}

/// A passkey of the person's.
#[allow(clippy::struct_excessive_bools, reason = "the template words each of them by itself")]
#[derive(Clone, Debug, Serialize)]
pub struct OwnPasskey {
    /// The digest of its id.
    pub id: String,
    /// The beginning of the digest of its id, by which the console and the audit log call it too.
    pub digest: String,
    pub added: Moment,
    pub last_used: Option<Moment>,
    /// It can be copied to other devices.
    pub copyable: bool,
    /// Its counter went back: it is shut out until an administrator has looked at it.
    pub suspended: bool,
    /// This browser was signed in with it.
    pub this: bool,
    /// Another one remains if it goes.
    pub removable: bool,
}

/// A time: as it is read, such as "2 hours ago", and exactly.
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
