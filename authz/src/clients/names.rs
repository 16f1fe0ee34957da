//! Which names a client may have (DCR-13), the same for registrations and for administrators' clients.

use std::sync::LazyLock;

use shared::db::Conn;
use shared::{ClientId, Fault, Issuer};

use crate::store::clients::{self, Source};
use crate::visible::Reading;

/// The product's name.
const PRODUCT: &str = "Portcullis";
static PRODUCT_READS: LazyLock<Reading> = LazyLock::new(|| Reading::of(PRODUCT));

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
    let read = Reading::of(name);
    if is_this_server(issuer, &read) {
        return Ok(Some(Taken::Ours));
    }
    Ok(verified_like(conn, &read, ignore)?.map(Taken::Verified))
}

/// Whether a user could mistake a client with this name for this server.
pub(crate) fn is_this_server(issuer: &Issuer, name: &Reading) -> bool {
    let host = (!issuer.is_loopback()).then(|| Reading::of(issuer.host()));
    name.is_like(&PRODUCT_READS) || host.is_some_and(|host| name.is_like(&host))
}

/// The verified client that a user could mistake one with this name for.
///
/// # Errors
/// A database fault.
pub(crate) fn verified_like(
    conn: &Conn<'_>,
    name: &Reading,
    ignore: impl Fn(&ClientId, Source) -> bool,
) -> Result<Option<ClientId>, Fault> {
    let other = clients::verified(conn)?
        .into_iter()
        .find(|other| !ignore(&other.id, other.source) && name.is_like(&Reading::of(&other.name)));
    Ok(other.map(|other| other.id))
}

/// This server's name on its pages: its host.
pub(crate) fn server_name(issuer: &Issuer) -> String {
    if issuer.is_loopback() { PRODUCT.to_owned() } else { issuer.host().to_owned() }
}

/// Whether a name is the name of this product.
pub(crate) fn is_ours(name: &str) -> bool {
    Reading::of(name).is_like(&PRODUCT_READS)
}
