//! Commands about clients that are known by a document.

use authz::Authz;
use authz::client_documents::{self, Command};
use shared::{Fault, Tx};

use super::Answer;

/// Does it, in one transaction.
pub(super) fn execute(authz: &Authz, tx: &Tx<'_>, uid: u32, command: Command) -> Result<Answer, Fault> {
    Ok(match client_documents::execute(authz, tx, uid, command)? {
        Ok(answer) => Answer::Ok(answer),
        Err(refusal) => Answer::error("refused", &refusal.to_string()),
    })
}
