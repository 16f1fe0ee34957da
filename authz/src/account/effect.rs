//! Makes a change of the account, in one job together with its audit record (REVOKE-07, SESSION-05, SESSION-06,
//! WEBAUTHN-12).

use keys::secrets::{self, Server};
use shared::audit::{self, Event, Name};
use shared::{ClientId, Digest, Fault, Request, ResourceUri, Secret, Tx};

use super::change::Change;
use super::own_secrets;
use super::pasted::Pasted;
use crate::current::Current;
use crate::login::passkey::VerifiedPasskey;
use crate::session::{self, Browser, SignedIn};
use crate::store::grants::Reason;
use crate::store::sessions::{self, Listed};
use crate::store::transactions::CancelledRequests;
use crate::store::{consents, passkeys};
use crate::{Authz, ending};

/// How a change ended.
pub(super) enum Applied {
    /// Done. The user is still signed in, with this session; with a new cookie if they used a passkey.
    Done { session: Digest, cookie: Option<Secret> },
    /// Done. This browser is now signed out.
    SignedOutHere,
    /// This browser had already been signed out; nothing was changed.
    SignedOutBefore,
    /// The item belongs to another user or has already ended. The user is not told which.
    Unknown,
    /// Refused: without this passkey the user could not sign in again.
    LastPasskey,
    /// The passkey was used elsewhere at the same time, or it has been removed or suspended meanwhile.
    PasskeyUnusable,
}

/// The user who makes a change, and from where.
pub(super) struct ChangedBy<'a> {
    pub authz: &'a Authz,
    pub tx: &'a Tx<'a>,
    pub request: &'a Request,
    pub browser: &'a Browser,
    pub signed_in: Current<'a, SignedIn>,
}

impl ChangedBy<'_> {
    /// Makes a change, with the passkey assertion for it if the change takes one.
    pub(super) fn apply(&self, change: &Change, used: Option<&VerifiedPasskey>) -> Result<Applied, Fault> {
        if let Some(used) = used {
            if !used.settle(self.tx)? {
                return Ok(Applied::PasskeyUnusable);
            }
            let event = used.event(Name::StepUp).by_user(&self.signed_in.user.id).request(self.request);
            audit::append(self.tx, event.detail("for", "account"))?;
        }
        let ended = match change {
            Change::Disconnect(client) => self.disconnect(client)?,
            Change::Forget(client, resource) => self.forget(client, resource)?,
            Change::SignOut(name) => self.sign_out(|listed| listed.name() == *name, "ended_by_user")?,
            Change::SignOutElsewhere => {
                let this = self.signed_in.session.digest;
                self.sign_out(|listed| listed.digest != this, "signed_out_elsewhere")?;
                true
            }
            Change::SignOutEverywhere => self.sign_out(|_| true, "signed_out_everywhere")?,
            Change::RemovePasskey { passkey, stolen } => match self.remove_passkey(passkey, *stolen)? {
                Some(removed) => removed,
                None => return Ok(Applied::LastPasskey),
            },
            Change::RenamePasskey(passkey, label) => match label.text() {
                Ok(label) => passkeys::rename(self.tx, &self.signed_in.user.id, passkey, label)?,
                Err(_) => false,
            },
            Change::SetSecret(source, pasted) => self.set_secret(source, pasted)?,
            Change::RemoveSecret(source) => self.remove_secret(source)?,
        };
        if !ended {
            return Ok(Applied::Unknown);
        }
        self.go_on(change, used)
    }

    /// Continues the session, under a new id if a passkey was used (SESSION-02), or ends it.
    fn go_on(&self, change: &Change, used: Option<&VerifiedPasskey>) -> Result<Applied, Fault> {
        let SignedIn { session, user } = &*self.signed_in;
        // The removed passkey may be the one that started this session. Another one has been used since.
        let stays = matches!(change, Change::RemovePasskey { .. })
            || sessions::find(self.tx, &session.digest)?.is_some();
        if let Some(used) = used.filter(|_| stays) {
            let (user, how) = (self.signed_in.clone().map(|signed_in| signed_in.user), used.authentication());
            let (secret, session) = session::start(self.tx, &user, how, self.browser, None, self.request)?;
            return Ok(Applied::Done { session: session.digest, cookie: Some(secret) });
        }
        if stays {
            return Ok(Applied::Done { session: session.digest, cookie: None });
        }
        if let Ok(browser) = &self.browser.id() {
            // After signing out, the next user of this browser must not answer pending requests in this one's
            // name (SESSION-09).
            session::cancel_requests(
                self.tx,
                browser,
                CancelledRequests::Of(&user.id),
                None,
                &user.id,
                self.request,
            )?;
        }
        Ok(Applied::SignedOutHere)
    }

    fn event(&self, name: Name) -> Event {
        let user = &self.signed_in.user.id;
        Event::allowed(name).by_user(user).subject(user.as_str()).request(self.request)
    }

    /// Ends everything that a client holds of this user. False if there was nothing.
    fn disconnect(&self, client: &ClientId) -> Result<bool, Fault> {
        let user = &self.signed_in.user.id;
        let (grants, forgotten) =
            ending::all_between(self.authz, self.tx, user, client, Reason::RevokedByUser)?;
        if grants.is_empty() && forgotten == 0 {
            return Ok(false);
        }
        for grant in &grants {
            let event = self.event(Name::TokenRevoked).client(client).grant(&grant.id);
            let event = event.resource(&grant.resource).scope(&grant.scope);
            audit::append(self.tx, event.detail("token", "grant"))?;
        }
        let event = self.event(Name::ConsentWithdrawn).client(client);
        audit::append(self.tx, event.detail("grants_ended", grants.len()))?;
        Ok(true)
    }

    /// Gives a server a secret of this person's. False if there is no such server for them.
    fn set_secret(&self, source: &str, pasted: &Pasted) -> Result<bool, Fault> {
        let user = &self.signed_in.user.id;
        // Asked again in this job, because their groups may have changed.
        let (Some(wanted), Ok(secret)) = (own_secrets::wanted(self.authz, user, source), pasted.secret())
        else {
            return Ok(false);
        };
        let server = Server { source, target: &wanted.target };
        let is_new = self.authz.secrets.set_of_user(self.tx, user, server, secret)?;
        let event = self.event(Name::SecretSet).detail("source", source);
        audit::append(self.tx, event.detail("replaced", !is_new))?;
        Ok(true)
    }

    /// Takes it back. False if the server has none.
    fn remove_secret(&self, source: &str) -> Result<bool, Fault> {
        if !secrets::remove_of_user(self.tx, &self.signed_in.user.id, source)? {
            return Ok(false);
        }
        audit::append(self.tx, self.event(Name::SecretRemoved).detail("source", source))?;
        Ok(true)
    }

    /// Forgets one remembered consent; the client's grants continue. False if there was none.
    fn forget(&self, client: &ClientId, resource: &ResourceUri) -> Result<bool, Fault> {
        if consents::forget(self.tx, &self.signed_in.user.id, client, Some(resource))? == 0 {
            return Ok(false);
        }
        let event = self.event(Name::ConsentWithdrawn).client(client).resource(resource);
        audit::append(self.tx, event.detail("grants_ended", 0))?;
        Ok(true)
    }

    /// Ends sessions of this user. Their grants continue (REFRESH-08). False if there were none.
    fn sign_out(&self, which: impl Fn(&Listed) -> bool, because: &'static str) -> Result<bool, Fault> {
        let (signed_in_after, seen_after) = session::alive_since(self.tx.now());
        let user = &self.signed_in.user.id;
        let alive = sessions::list(self.tx, Some(user), signed_in_after, seen_after)?;
        let mut any = false;
        for listed in alive.into_iter().filter(which) {
            sessions::delete(self.tx, &listed.digest)?;
            let event = self.event(Name::SessionEnded).detail("because", because);
            audit::append(self.tx, event.detail("session_sha256_8", listed.digest.short()))?;
            any = true;
        }
        Ok(any)
    }

    /// Removes a passkey and ends every other session. False if there is no such passkey, `None` if it must
    /// stay.
    fn remove_passkey(&self, digest: &Digest, stolen: bool) -> Result<Option<bool>, Fault> {
        let SignedIn { session, user } = &*self.signed_in;
        let listed = passkeys::of(self.tx, &user.id)?;
        let Some(gone) = listed.iter().find(|passkey| passkey.digest() == *digest) else {
            return Ok(Some(false));
        };
        if passkeys::others(&listed, gone).next().is_none() {
            return Ok(None);
        }
        // First, because deleting the passkey deletes the sessions that it started.
        self.sign_out(|other| other.digest != session.digest, "passkey_removed")?;
        passkeys::delete(self.tx, &gone.credential)?;
        let ended =
            if stolen { ending::all_of(self.authz, self.tx, &user.id, Reason::PasskeyStolen)? } else { 0 };
        let event = self.event(Name::WebauthnRemoved).detail("credential_sha256_8", digest.short());
        audit::append(self.tx, event.detail("stolen", stolen).detail("grants_ended", ended))?;
        Ok(Some(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::changing;
    use crate::people;
    use crate::testing::TestServer;

    /// SESSION-05: a change that was queued while its user was disabled changes nothing.
    #[test]
    fn a_change_does_not_outlive_its_session() {
        let house = TestServer::new();
        let ines = house.person("ines");
        let (browser, signed_in) = house.sign_in(&ines);
        house.write(|authz, tx| people::disable(authz, tx, 0, "ines")).unwrap();
        let applied = house.write(move |authz, tx| {
            let request = Request::from(None);
            changing::apply(authz, tx, &request, &browser, &signed_in, &Change::SignOutElsewhere, None)
        });
        assert!(matches!(applied, Applied::SignedOutBefore));
    }
}
