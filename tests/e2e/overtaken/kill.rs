//! Kills: jobs that end a user, a session, a passkey, a client, a grant or a token.

use std::time::Duration;

use authz::clients::{administration, initial_access};
use authz::people::{self, passkeys};
use authz::{Authz, access, resource_servers};
use shared::db::params;
use shared::{Fault, Tx};

/// The operating-system user at the console.
const UID: u32 = 0;

/// What a request is about. A kill whose field is empty does not apply.
#[derive(Clone, Debug, Default)]
pub struct Whose {
    pub user: Option<String>,
    /// The digest of the passkey that the user uses.
    pub passkey: Option<String>,
    pub client: Option<String>,
    /// Whether the client has a secret.
    pub secret: bool,
    pub grant: Option<String>,
    pub jti: Option<String>,
    /// The label of an initial access token.
    pub invitation: Option<String>,
    /// The name of a resource server.
    pub server: Option<String>,
    /// Whether the user, or the first administrator, has a link.
    pub link: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kill {
    UserDisabled,
    UserDeleted,
    PasskeyRemoved,
    PasskeySuspended,
    SessionsEnded,
    GroupLeft,
    LinkReplaced,
    ClientDisabled,
    ClientDeleted,
    SecretReplaced,
    GrantRevoked,
    TokenRevoked,
    InvitationDeleted,
    ServerDeleted,
    ServerSecretReplaced,
    Lockdown,
}

impl Kill {
    pub const ALL: [Self; 16] = [
        Self::UserDisabled,
        Self::UserDeleted,
        Self::PasskeyRemoved,
        Self::PasskeySuspended,
        Self::SessionsEnded,
        Self::GroupLeft,
        Self::LinkReplaced,
        Self::ClientDisabled,
        Self::ClientDeleted,
        Self::SecretReplaced,
        Self::GrantRevoked,
        Self::TokenRevoked,
        Self::InvitationDeleted,
        Self::ServerDeleted,
        Self::ServerSecretReplaced,
        Self::Lockdown,
    ];

    /// Whether the request has what this kill ends.
    pub fn applies(self, whose: &Whose) -> bool {
        match self {
            Self::UserDisabled | Self::UserDeleted | Self::SessionsEnded | Self::GroupLeft => {
                whose.user.is_some()
            }
            Self::PasskeyRemoved | Self::PasskeySuspended => whose.passkey.is_some(),
            Self::LinkReplaced => whose.link,
            Self::ClientDisabled | Self::ClientDeleted => whose.client.is_some(),
            Self::SecretReplaced => whose.secret,
            Self::GrantRevoked => whose.grant.is_some(),
            Self::TokenRevoked => whose.jti.is_some(),
            Self::InvitationDeleted => whose.invitation.is_some(),
            Self::ServerDeleted | Self::ServerSecretReplaced => whose.server.is_some(),
            Self::Lockdown => true,
        }
    }

    /// Does it. The inner error is a refusal, and then nothing is ended.
    pub fn strike(self, authz: &Authz, tx: &Tx<'_>, whose: &Whose) -> Result<Result<(), String>, Fault> {
        fn done<T, E: ToString>(answer: Result<T, E>) -> Result<(), String> {
            answer.map(drop).map_err(|refusal| refusal.to_string())
        }
        let named = |name: &Option<String>| name.clone().expect("the kill applies");
        let (user, client) = (&whose.user, &whose.client);
        Ok(match self {
            Self::UserDisabled => done(people::disable(authz, tx, UID, &named(user))?),
            Self::UserDeleted => done(people::delete(authz, tx, UID, &named(user))?),
            Self::PasskeyRemoved => {
                done(passkeys::remove(authz, tx, UID, &named(user), &named(&whose.passkey), false)?)
            }
            Self::PasskeySuspended => {
                // As after a counter went backwards; there is no command for it.
                let suspend = "UPDATE passkey SET suspended_at = ?2
                               WHERE user_id = (SELECT id FROM user WHERE name = ?1)";
                tx.execute(suspend, params![named(user), tx.now()])?;
                Ok(())
            }
            Self::SessionsEnded => done(access::end_sessions_of(tx, UID, &named(user))?),
            Self::GroupLeft => {
                done(people::regroup(authz, tx, UID, &named(user), &[], &["readers".to_owned()])?)
            }
            Self::LinkReplaced => match user {
                Some(user) => done(people::link(authz, tx, UID, user)?),
                None => authz.setup_link(tx, UID)?.map(drop).ok_or_else(|| "there is one".to_owned()),
            },
            Self::ClientDisabled => done(administration::disable(authz, tx, UID, &named(client))?),
            Self::ClientDeleted => done(administration::delete(authz, tx, UID, &named(client))?),
            Self::SecretReplaced => {
                done(administration::rotate_secret(authz, tx, UID, &named(client), Duration::ZERO, None)?)
            }
            Self::GrantRevoked => done(access::revoke_grant(authz, tx, UID, &named(&whose.grant))?),
            Self::TokenRevoked => {
                let named = access::NamedToken::read(authz, &named(&whose.jti));
                done(access::revoke_token(authz, tx, UID, &named)?)
            }
            Self::InvitationDeleted => done(initial_access::delete(tx, UID, &named(&whose.invitation))?),
            Self::ServerDeleted => done(resource_servers::delete(authz, tx, UID, &named(&whose.server))?),
            Self::ServerSecretReplaced => {
                let server = named(&whose.server);
                done(resource_servers::rotate_secret(authz, tx, UID, &server, Duration::ZERO)?)
            }
            Self::Lockdown => access::lock_down(authz, tx, UID).map(|_| Ok(()))?,
        })
    }
}
