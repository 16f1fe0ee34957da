//! Issues setup and enrolment links (ENROL-01…03).

use std::time::Duration;

use shared::audit::{self, Event, Name};
use shared::{Fault, Issuer, Secret, Tx, UserId, shell};

use crate::Authz;
use crate::store::links;
use crate::store::users::{self, User};

/// The lifetime of a setup link.
const SETUP_LINK: Duration = Duration::from_hours(1);
/// The lifetime of an enrolment link.
const ENROL_LINK: Duration = Duration::from_hours(24);

/// Makes a new setup link and voids earlier ones; `None` if an administrator exists.
pub(crate) fn issue_setup(authz: &Authz, tx: &Tx<'_>, uid: u32) -> Result<Option<String>, Fault> {
    if users::admin_exists(tx)? {
        return Ok(None);
    }
    let secret = Secret::random("enr_");
    links::replace_setup(tx, &secret.digest(), tx.now() + SETUP_LINK)?;
    audit::append(tx, Event::allowed(Name::LinkIssued).by_console(uid).detail("purpose", "setup"))?;
    // The secret is in the fragment, which browsers do not send, so it is in no server log and no Referer.
    Ok(Some(format!("{}#{}", authz.issuer.url("/setup"), secret.expose())))
}

/// A link with which an administrator can sign in.
#[derive(Clone, Debug)]
pub struct AdministratorLink {
    pub link: String,
    /// Its user; `None` if there is no administrator yet.
    pub user: Option<String>,
}

/// Why no link was made, and what to do instead.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoLink {
    #[error(
        "the administrator `{name}` can sign in already, at {issuer}/. If they lost their passkey, `portcullis user link {word}` prints a link for a new one"
    )]
    SignIn { name: String, word: String, issuer: Issuer },
    #[error("no administrator can sign in. Print a link for one of them: {0}")]
    Several(String),
    #[error(
        "every administrator is disabled. Run `portcullis user enable {0}`, then `portcullis user link {0}`"
    )]
    Disabled(String),
}

/// See [`Authz::way_in`].
pub(crate) fn way_in(
    authz: &Authz,
    tx: &Tx<'_>,
    uid: u32,
) -> Result<Result<AdministratorLink, NoLink>, Fault> {
    if let Some(link) = issue_setup(authz, tx, uid)? {
        return Ok(Ok(AdministratorLink { link, user: None }));
    }
    let administrators = users::administrators_standing(tx)?;
    if let Some((user, _)) = administrators.iter().find(|(_, usable)| *usable) {
        let (name, word, issuer) = (user.name.clone(), shell::word(&user.name), authz.issuer.clone());
        return Ok(Err(NoLink::SignIn { name, word, issuer }));
    }
    let enabled: Vec<&User> =
        administrators.iter().map(|(user, _)| user).filter(|user| !user.disabled).collect();
    Ok(match enabled.as_slice() {
        [] => Err(NoLink::Disabled(
            administrators.first().map_or_else(String::new, |(user, _)| user.id.to_string()),
        )),
        [only] => {
            Ok(AdministratorLink { link: issue(authz, tx, uid, &only.id)?, user: Some(only.name.clone()) })
        }
        several => {
            let command = |user: &&User| format!("`portcullis user link {}`", shell::word(&user.name));
            Err(NoLink::Several(several.iter().take(5).map(command).collect::<Vec<_>>().join(", ")))
        }
    })
}

/// See [`Authz::is_locked_out`].
pub(crate) fn is_locked_out(tx: &Tx<'_>) -> Result<bool, Fault> {
    let administrators = users::administrators_standing(tx)?;
    Ok(!administrators.is_empty() && administrators.iter().all(|(_, usable)| !usable))
}

/// Makes a new enrolment link for a user and voids their earlier ones. The user makes the passkey; an
/// administrator never has one (ENROL-04).
pub(crate) fn issue(authz: &Authz, tx: &Tx<'_>, uid: u32, user: &UserId) -> Result<String, Fault> {
    let secret = Secret::random("enr_");
    links::replace_enrol(tx, &secret.digest(), user, tx.now() + ENROL_LINK)?;
    let issued = Event::allowed(Name::LinkIssued).by_console(uid).subject(user.as_str());
    audit::append(tx, issued.detail("purpose", "enrol"))?;
    Ok(format!("{}#{}", authz.issuer.url("/enrol"), secret.expose()))
}
