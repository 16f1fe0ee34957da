//! What a person can end on the account page (SESSION-07, REVOKE-07): one change, from its form or from the page's script.

use serde_json::{Value, json};
use shared::audit::Name;
use shared::{ClientId, Digest, ResourceUri};

use crate::Authz;
use crate::session::{self, SignedIn};

/// What the tokens of the page's forms are for.
pub(super) const FORM: &str = "account";

/// What a person ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// All that an application may do for them, and every answer that it was given.
    Disconnect(ClientId),
    /// An answer that was kept.
    Forget(ClientId, ResourceUri),
    /// One browser's session, by the name that the page gives it.
    SignOut(String),
    /// Every browser's but this one's.
    SignOutElsewhere,
    SignOutEverywhere,
    /// A passkey, by the digest of its id; if it was stolen, all that they allowed ends with it.
    RemovePasskey {
        passkey: Digest,
        stolen: bool,
    },
}

impl Change {
    /// The change that a form asks for; `None` if there is no such change.
    pub(super) fn parse<'a>(field: impl Fn(&'static str) -> Option<&'a str>) -> Option<Self> {
        let client = || ClientId::parse(field("client")?);
        Some(match field("action")? {
            "disconnect" => Self::Disconnect(client()?),
            "forget" => Self::Forget(client()?, ResourceUri::parse(field("resource")?).ok()?),
            "sign_out" => Self::SignOut(field("session")?.to_owned()),
            "sign_out_elsewhere" => Self::SignOutElsewhere,
            "sign_out_everywhere" => Self::SignOutEverywhere,
            "remove_passkey" => Self::RemovePasskey {
                passkey: Digest::from_hex(field("passkey")?)?,
                stolen: field("stolen").is_some(),
            },
            _ => return None,
        })
    }

    /// Whether a passkey must be used for it: for every one on loopback, where a session alone only reads
    /// (SESSION-01), and elsewhere for what changes how one signs in (WEBAUTHN-12).
    pub(super) fn takes_a_passkey(&self, authz: &Authz) -> bool {
        authz.issuer.is_loopback() || matches!(self, Self::RemovePasskey { .. })
    }

    /// What an assertion for it confirms, as a digest: this, of this person, in this session.
    pub(super) fn binding(&self, signed_in: &SignedIn) -> Digest {
        let what = match self {
            Self::Disconnect(client) => json!(["disconnect", client]),
            Self::Forget(client, resource) => json!(["forget", client, resource]),
            Self::SignOut(session) => json!(["sign_out", session]),
            Self::SignOutElsewhere => json!(["sign_out_elsewhere"]),
            Self::SignOutEverywhere => json!(["sign_out_everywhere"]),
            Self::RemovePasskey { passkey, stolen } => json!(["remove_passkey", passkey.hex(), stolen]),
        };
        let session = signed_in.session.digest.hex();
        Digest::of(json!(["account", signed_in.user.id, session, what]).to_string().as_bytes())
    }

    /// What its refusals are called on record.
    pub(super) fn name(&self) -> Name {
        match self {
            Self::Disconnect(_) | Self::Forget(..) => Name::ConsentWithdrawn,
            Self::SignOut(_) | Self::SignOutElsewhere | Self::SignOutEverywhere => Name::SessionEnded,
            Self::RemovePasskey { .. } => Name::WebauthnFailed,
        }
    }

    /// What the page says when it is done, with the word by which it is sent back there.
    pub(super) fn done(&self) -> (&'static str, &'static str) {
        match self {
            Self::Disconnect(_) => DONE[0],
            Self::Forget(..) => DONE[1],
            Self::SignOut(_) => DONE[2],
            Self::SignOutElsewhere | Self::SignOutEverywhere => DONE[3],
            Self::RemovePasskey { stolen: false, .. } => DONE[4],
            Self::RemovePasskey { stolen: true, .. } => DONE[5],
        }
    }
}

const DONE: [(&str, &str); 6] = [
    ("disconnected", "Application disconnected. Its requests are refused from now on."),
    ("forgotten", "Answer forgotten. You will be asked the next time."),
    ("signed out", "That browser is signed out."),
    ("signed out elsewhere", "Every other browser is signed out."),
    ("passkey removed", "The passkey is removed, and every other browser is signed out."),
    (
        "passkey reported",
        "The passkey is removed, every application is disconnected, and every other browser is signed out.",
    ),
];

/// What was just done in this session. The address has a token for it, so that nobody else's link says it.
pub(super) fn done(authz: &Authz, session: &Digest, presented: Option<&str>) -> Option<&'static str> {
    let found = DONE.iter().find(|(word, _)| session::csrf_matches(authz, session, word, presented));
    found.map(|(_, sentence)| *sentence)
}

/// The fields of a change, as the page's script sends them before the form.
pub(super) fn from_json(fields: &Value) -> Option<Change> {
    Change::parse(|name| fields[name].as_str().filter(|value| !value.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_page_offers_is_a_change() {
        let parse = |fields: Value| from_json(&fields);
        let client = ClientId::random();
        let disconnect = json!({"action": "disconnect", "client": client});
        assert_eq!(parse(disconnect), Some(Change::Disconnect(client)));
        for nothing in [
            json!({}),
            json!([]),
            json!({"action": "disconnect"}),
            json!({"action": "disconnect", "client": ""}),
            json!({"action": "disconnect", "client": "a b"}),
            json!({"action": "forget", "client": "c_a"}),
            json!({"action": "forget", "client": "c_a", "resource": "nonsense"}),
            json!({"action": "sign_out"}),
            json!({"action": "remove_passkey", "passkey": "9f86d081"}),
            json!({"action": "delete", "client": "c_a"}),
        ] {
            assert_eq!(parse(nothing.clone()), None, "{nothing}");
        }
    }
}
