//! What a client may be called (DCR-13): the same for those who register and those whom an administrator adds.

use shared::db::Conn;
use shared::{ClientId, Fault};

use crate::Authz;
use crate::store::clients;
use crate::visible::reads_like;

/// Whose name a client would be read as.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// This server's.
    Ours,
    /// A client's that an administrator vouches for.
    Verified(ClientId),
}

/// Whether a person would take a client of this name for this server, or for a verified client other than
/// `itself`.
///
/// # Errors
/// The database's fault.
pub(crate) fn taken(
    authz: &Authz,
    conn: &Conn<'_>,
    name: &str,
    itself: Option<&ClientId>,
) -> Result<Option<Taken>, Fault> {
    if is_ours(name) || reads_like(name, &authz.server_name()) {
        return Ok(Some(Taken::Ours));
    }
    let verified = clients::verified(conn)?.into_iter();
    let other = verified.filter(|(id, _)| Some(id) != itself).find(|(_, other)| reads_like(name, other));
    Ok(other.map(|(id, _)| Taken::Verified(id)))
}

/// Whether a name is what this server is called wherever it runs.
pub(crate) fn is_ours(name: &str) -> bool {
    reads_like(name, "Portcullis")
}
