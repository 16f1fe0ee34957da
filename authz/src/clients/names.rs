//! What a client may be called (DCR-13): the same for those who register and those whom an administrator adds.

use shared::db::Conn;
use shared::{ClientId, Fault, Issuer};

use crate::store::clients::{self, Source};
use crate::visible::reads_like;

/// Whose name a client would be read as.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// This server's.
    Ours,
    /// A client's that an administrator vouches for.
    Verified(ClientId),
}

/// Whether a person would take a client of this name for this server, or for a verified client; not for those
/// that `ignore` names by id and source.
///
/// # Errors
/// The database's fault.
pub(crate) fn taken(
    issuer: &Issuer,
    conn: &Conn<'_>,
    name: &str,
    ignore: impl Fn(&ClientId, Source) -> bool,
) -> Result<Option<Taken>, Fault> {
    if is_ours(name) || reads_like(name, &server_name(issuer)) {
        return Ok(Some(Taken::Ours));
    }
    let other = clients::verified(conn)?
        .into_iter()
        .find(|other| !ignore(&other.id, other.source) && reads_like(name, &other.name));
    Ok(other.map(|other| Taken::Verified(other.id)))
}

/// What this server is called on its pages: its host.
pub(crate) fn server_name(issuer: &Issuer) -> String {
    if issuer.is_loopback() { "Portcullis".to_owned() } else { issuer.host().to_owned() }
}

/// Whether a name is what this server is called wherever it runs.
pub(crate) fn is_ours(name: &str) -> bool {
    reads_like(name, "Portcullis")
}
