//! Which names a client may have (DCR-13), the same for registrations and for administrators' clients.

use shared::db::Conn;
use shared::{ClientId, Fault, Issuer};

use crate::store::clients::{self, Source};
use crate::visible::reads_like;

/// Who already has a name that looks like the client's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// This server.
    Ours,
    /// A verified client.
    Verified(ClientId),
}

/// Whether a person would mistake a client with this name for this server or for a verified client. Clients
/// that `ignore` names, by id and source, are left out.
///
/// # Errors
/// A database fault.
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

/// This server's name on its pages: its host.
pub(crate) fn server_name(issuer: &Issuer) -> String {
    if issuer.is_loopback() { "Portcullis".to_owned() } else { issuer.host().to_owned() }
}

/// Whether a name is the name of this product.
pub(crate) fn is_ours(name: &str) -> bool {
    reads_like(name, "Portcullis")
}
