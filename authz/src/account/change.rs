//! The changes that a user can make on the account page (SESSION-07, REVOKE-07), parsed from its form or its
//! script.

use serde_json::{Value, json};
use shared::audit::Name;
use shared::{ClientId, Digest, ResourceUri};

use super::label::Label;
use super::pasted::Pasted;
use crate::Authz;
use crate::session::{self, SignedIn};

/// The purpose of the CSRF tokens in the page's forms.
pub(super) const FORM: &str = "account";

/// One change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// Ends all grants of an application and forgets its remembered consents.
    Disconnect(ClientId),
    /// Forgets one remembered consent.
    Forget(ClientId, ResourceUri),
    /// Ends one browser session, by the name shown on the page.
    SignOut(String),
    /// Ends all browser sessions except the current one.
    SignOutElsewhere,
    SignOutEverywhere,
    /// Removes a passkey, by the digest of its id. If it was stolen, all of the user's grants end too.
    RemovePasskey {
        passkey: Digest,
        stolen: bool,
    },
    /// Names a passkey, by the digest of its id.
    RenamePasskey(Digest, Label),
    /// Gives a server a secret of theirs, in the place of one that it may have (SRC-10).
    SetSecret(String, Pasted),
    /// Takes it back.
    RemoveSecret(String),
}

impl Change {
    /// The change that a form asks for; `None` if it names no known change.
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
            "rename_passkey" => Self::RenamePasskey(
                Digest::from_hex(field("passkey")?)?,
                Label::of(field("name").unwrap_or_default()),
            ),
            "set_secret" => {
                Self::SetSecret(field("source")?.to_owned(), Pasted::of(field("secret").unwrap_or_default()))
            }
            "remove_secret" => Self::RemoveSecret(field("source")?.to_owned()),
            _ => return None,
        })
    }

    /// Whether this change takes a passkey assertion. On loopback every change does, because a session alone
    /// only reads (SESSION-01); elsewhere only changes of passkeys (WEBAUTHN-12) and
    /// giving a server a secret (SRC-10) do.
    pub(super) fn takes_a_passkey(&self, authz: &Authz) -> bool {
        authz.issuer.is_loopback() || matches!(self, Self::RemovePasskey { .. } | Self::SetSecret(..))
    }

    /// Why what was typed for this change cannot be stored: a keyword, a title, and words for the user.
    pub(super) fn unfit(&self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::SetSecret(_, pasted) => {
                pasted.secret().err().map(|why| ("unfit_secret", "This secret cannot be kept", why))
            }
            Self::RenamePasskey(_, label) => {
                label.text().err().map(|why| ("unfit_name", "This name cannot be used", why))
            }
            _ => None,
        }
    }

    /// A digest of what an assertion for this change confirms: the change, its user and the session.
    pub(super) fn binding(&self, signed_in: &SignedIn) -> Digest {
        let what = match self {
            Self::Disconnect(client) => json!(["disconnect", client]),
            Self::Forget(client, resource) => json!(["forget", client, resource]),
            Self::SignOut(session) => json!(["sign_out", session]),
            Self::SignOutElsewhere => json!(["sign_out_elsewhere"]),
            Self::SignOutEverywhere => json!(["sign_out_everywhere"]),
            Self::RemovePasskey { passkey, stolen } => json!(["remove_passkey", passkey.hex(), stolen]),
            Self::RenamePasskey(passkey, label) => {
                json!(["rename_passkey", passkey.hex(), label.text().unwrap_or_default()])
            }
            Self::SetSecret(source, pasted) => json!(["set_secret", source, pasted.digest().hex()]),
            Self::RemoveSecret(source) => json!(["remove_secret", source]),
        };
        let session = signed_in.session.digest.hex();
        Digest::of(json!(["account", signed_in.user.id, session, what]).to_string().as_bytes())
    }

    /// The audit event for its refusals.
    pub(super) fn name(&self) -> Name {
        match self {
            Self::Disconnect(_) | Self::Forget(..) => Name::ConsentWithdrawn,
            Self::SignOut(_) | Self::SignOutElsewhere | Self::SignOutEverywhere => Name::SessionEnded,
            Self::RemovePasskey { .. } | Self::RenamePasskey(..) => Name::WebauthnFailed,
            Self::SetSecret(..) => Name::SecretSet,
            Self::RemoveSecret(_) => Name::SecretRemoved,
        }
    }

    /// The sentence that the page shows afterwards, and the keyword that is passed back to the page for it.
    pub(super) fn done(&self) -> (&'static str, &'static str) {
        match self {
            Self::Disconnect(_) => DONE[0],
            Self::Forget(..) => DONE[1],
            Self::SignOut(_) => DONE[2],
            Self::SignOutElsewhere | Self::SignOutEverywhere => DONE[3],
            Self::RemovePasskey { stolen: false, .. } => DONE[4],
            Self::RemovePasskey { stolen: true, .. } => DONE[5],
            Self::SetSecret(..) => DONE[6],
            Self::RemoveSecret(_) => DONE[7],
            Self::RenamePasskey(..) => DONE[8],
        }
    }
}

const DONE: [(&str, &str); 9] = [
    ("disconnected", "Application disconnected. Its requests are refused from now on."),
    ("forgotten", "Answer forgotten. You will be asked the next time."),
    ("signed out", "That browser is signed out."),
    ("signed out elsewhere", "Every other browser is signed out."),
    ("passkey removed", "The passkey is removed, and every other browser is signed out."),
    (
        "passkey reported",
        "The passkey is removed, every application is disconnected, and every other browser is signed out.",
    ),
    ("secret set", "The secret is kept. Calls to that server use it from now on."),
    (
        "secret removed",
        "The secret is removed. That server gets no call of yours until you give it another one.",
    ),
    ("passkey renamed", "The passkey has its new name."),
];

/// The change that was just made in this session. The address carries a token for it, so that a link from
/// elsewhere cannot make the page claim a change.
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
            json!({"action": "rename_passkey", "passkey": "9f86d081", "name": "blue"}),
            json!({"action": "rename_passkey", "name": "blue"}),
            json!({"action": "delete", "client": "c_a"}),
            json!({"action": "set_secret", "secret": "x"}),
            json!({"action": "remove_secret"}),
        ] {
            assert_eq!(parse(nothing.clone()), None, "{nothing}");
        }
    }
}
