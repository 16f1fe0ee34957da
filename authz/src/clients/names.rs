//! Which names a client may have (DCR-13), the same for registrations and for administrators' clients.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use shared::db::Conn;
use shared::{ClientId, Fault, Issuer};

use crate::store::clients::{self, Source};
use crate::visible::Reading;

/// The product's name.
const PRODUCT: &str = "Portcullis";
static PRODUCT_READS: LazyLock<Reading> = LazyLock::new(|| Reading::of(PRODUCT));
/// How names of verified clients read. Reading one takes some 50 µs, and each registration compares its name with all of them on the
/// writer's thread, for which other requests wait (RATE-05). Only administrators choose these names.
static VERIFIED_READ: LazyLock<Mutex<HashMap<String, Arc<Reading>>>> = LazyLock::new(Mutex::default);
/// The most such names.
const MOST: usize = 10_000;

/// Who already has a name that looks like the client's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NameConflict {
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
) -> Result<Option<NameConflict>, Fault> {
    let read = Reading::of(name);
    if is_this_server(issuer, &read) {
        return Ok(Some(NameConflict::Ours));
    }
    Ok(verified_like(conn, &read, ignore)?.map(NameConflict::Verified))
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
        .find(|other| !ignore(&other.id, other.source) && name.is_like(&verified(&other.name)));
    Ok(other.map(|other| other.id))
}

/// How the name of a verified client reads.
fn verified(name: &str) -> Arc<Reading> {
    let mut known = VERIFIED_READ.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(reading) = known.get(name) {
        return Arc::clone(reading);
    }
    if known.len() >= MOST {
        known.clear();
    }
    let reading = Arc::new(Reading::of(name));
    known.insert(name.to_owned(), Arc::clone(&reading));
    reading
}

/// This server's name on its pages: its host.
pub(crate) fn server_name(issuer: &Issuer) -> String {
    if issuer.is_loopback() { PRODUCT.to_owned() } else { issuer.host().to_owned() }
}

/// Whether a name is the name of this product.
pub(crate) fn is_ours(name: &str) -> bool {
    Reading::of(name).is_like(&PRODUCT_READS)
}

#[cfg(test)]
mod tests {
    use shared::work::{self, Work};

    use super::*;
    use crate::testing::TestServer;

    /// RATE-05: of all names that a registration's is compared with, none is read again.
    #[test]
    fn a_registration_reads_no_name_but_its_own() {
        let house = TestServer::new();
        (0..50).for_each(|n| drop(house.client(&format!("c_{n}"))));
        let compare = |name| {
            let before = work::so_far(Work::Name);
            let like = house.db.read(|conn| verified_like(conn, &Reading::of(name), |_, _| false)).unwrap();
            (like.map(|id| id.to_string()), work::so_far(Work::Name) - before)
        };
        assert_eq!(compare("Some program").0, None);
        assert_eq!(compare("Another program"), (None, 1));
        assert_eq!(compare("C 49"), (Some("c_49".to_owned()), 1));
    }
}
