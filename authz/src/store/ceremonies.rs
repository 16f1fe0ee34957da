//! WebAuthn ceremonies in progress (WEBAUTHN-03). Each row is deleted the first time it is presented.

use shared::db::{Row, params};
use shared::share::{self, Full, Holder};
use shared::{Digest, Fault, Timestamp, Tx, UserId};

use crate::current::Current;

/// The purpose of a ceremony, with the data to complete it.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    /// The first administrator's passkey.
    Setup { link: Digest, name: String, handle: Vec<u8> },
    /// An assertion by any passkey; for a transaction if there is one.
    SignIn { transaction: Option<String> },
    /// An assertion by this user, in order to add a passkey.
    StepUp { user: UserId },
    /// A passkey for this user, with an administrator's enrolment link (ENROL-02).
    Enrol { link: Digest, user: UserId },
    /// A further passkey of this user.
    AddPasskey { user: UserId },
    /// An assertion by this user that confirms a decision; `binding` is a digest of what it confirms
    /// (CONSENT-08).
    Consent { user: UserId, transaction: String, binding: Digest },
    /// An assertion by this user that confirms a change of their account; `binding` is a digest of the change
    /// (SESSION-01).
    Change { user: UserId, binding: Digest },
}

/// A ceremony as stored.
#[derive(Clone, Debug)]
pub(crate) struct Ceremony {
    pub browser: Digest,
    pub purpose: Purpose,
    /// webauthn-rs's own state, as JSON.
    pub state: String,
    pub expires_at: Timestamp,
}

/// Stores a ceremony for a purpose that was checked in this job; `holder` is the address that asked. If the
/// table is full, the holder with most ceremonies makes room (RATE-06).
pub(crate) fn insert(
    tx: &Tx<'_>,
    digest: &Digest,
    ceremony: &Current<'_, Ceremony>,
    from: &Holder,
) -> Result<Result<(), Full>, Fault> {
    sweep(tx)?;
    let columns = Columns::of(&ceremony.purpose);
    let user = columns.user.map(Holder::user);
    let holder = user.as_ref().unwrap_or(from);
    if let Err(full) = share::make_room(tx, &share::CEREMONIES, holder)? {
        return Ok(Err(full));
    }
    tx.execute(
        "INSERT INTO ceremony (digest, purpose, browser, user_id, transaction_id, link, user_name, user_handle, binding, state,
         expires_at, holder, network) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        params![
            digest,
            columns.purpose,
            ceremony.browser,
            columns.user,
            columns.transaction,
            columns.link,
            columns.name,
            columns.handle,
            columns.binding,
            ceremony.state,
            ceremony.expires_at,
            holder.name(),
            holder.network()
        ],
    )?;
    Ok(Ok(()))
}

/// Deletes expired ceremonies.
pub(crate) fn sweep(tx: &Tx<'_>) -> Result<(), Fault> {
    tx.execute("DELETE FROM ceremony WHERE expires_at < ?1", params![tx.now()])?;
    Ok(())
}

/// The columns of a purpose.
#[derive(Default)]
struct Columns<'a> {
    purpose: &'static str,
    user: Option<&'a UserId>,
    transaction: Option<&'a String>,
    link: Option<&'a Digest>,
    name: Option<&'a String>,
    handle: Option<&'a Vec<u8>>,
    binding: Option<&'a Digest>,
}

impl<'a> Columns<'a> {
    fn of(purpose: &'a Purpose) -> Self {
        let none = Self::default();
        match purpose {
            Purpose::Setup { link, name, handle } => {
                Self { purpose: "setup", link: Some(link), name: Some(name), handle: Some(handle), ..none }
            }
            Purpose::Enrol { link, user } => {
                Self { purpose: "enrol", user: Some(user), link: Some(link), ..none }
            }
            Purpose::SignIn { transaction } => {
                Self { purpose: "sign_in", transaction: transaction.as_ref(), ..none }
            }
            Purpose::StepUp { user } => Self { purpose: "step_up", user: Some(user), ..none },
            Purpose::Change { user, binding } => {
                Self { purpose: "step_up", user: Some(user), binding: Some(binding), ..none }
            }
            Purpose::AddPasskey { user } => Self { purpose: "add_passkey", user: Some(user), ..none },
            Purpose::Consent { user, transaction, binding } => Self {
                purpose: "consent",
                user: Some(user),
                transaction: Some(transaction),
                binding: Some(binding),
                ..none
            },
        }
    }
}

/// Takes a ceremony: it is deleted, even if its verification fails later.
pub(crate) fn take(tx: &Tx<'_>, digest: &Digest) -> Result<Option<Ceremony>, Fault> {
    tx.query_row(
        "DELETE FROM ceremony WHERE digest = ?1
         RETURNING purpose, browser, user_id, transaction_id, link, user_name, user_handle, state, expires_at, binding",
        params![digest],
        ceremony,
    )
}

fn ceremony(row: &Row<'_>) -> Result<Ceremony, Fault> {
    let purpose = match row.get::<String>(0)?.as_str() {
        "setup" => Purpose::Setup { link: row.get(4)?, name: row.get(5)?, handle: row.get(6)? },
        "enrol" => Purpose::Enrol { link: row.get(4)?, user: row.get(2)? },
        "sign_in" => Purpose::SignIn { transaction: row.get(3)? },
        "step_up" => match row.get(9)? {
            Some(binding) => Purpose::Change { user: row.get(2)?, binding },
            None => Purpose::StepUp { user: row.get(2)? },
        },
        "add_passkey" => Purpose::AddPasskey { user: row.get(2)? },
        "consent" => Purpose::Consent { user: row.get(2)?, transaction: row.get(3)?, binding: row.get(9)? },
        other => return Err(Fault::Corrupt(format!("a ceremony for {other}"))),
    };
    Ok(Ceremony { browser: row.get(1)?, purpose, state: row.get(7)?, expires_at: row.get(8)? })
}
