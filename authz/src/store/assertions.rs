//! Used client assertions, kept until they expire (CAUTH-05). Deleting one earlier would allow a replay, so
//! instead each holder has a limit (RATE-03, RATE-06).

use shared::db::params;
use shared::share::{Holder, held};
use shared::{ClientId, Digest, Fault, Timestamp, Tx};

/// The most for one client that an administrator added: a resource server may sign one for every question.
const MOST_OF_A_CLIENT: u32 = 100_000;
/// The most for all self-registered clients of one address.
const MOST_OF_A_STRANGER: u32 = 500;
/// The most for all addresses of one network.
const MOST_OF_A_NETWORK: u32 = 1000;
/// The most for all self-registered clients. Beyond it each address and network has a small share, and beyond
/// [`FULL`] they are all refused.
const MOST_OF_STRANGERS: u32 = 10_000;
const SHARE_OF_A_STRANGER: u32 = 10;
const SHARE_OF_A_NETWORK: u32 = 100;
const FULL: u32 = 2 * MOST_OF_STRANGERS;
/// The names under which the schema counts assertions of self-registered and of other clients.
const STRANGERS: &str = "client_assertion";
const CLIENTS: &str = "client_assertion of clients";

/// The holder of an assertion.
pub(crate) enum AssertionHolder<'a> {
    /// A client that an administrator added.
    Client(&'a ClientId),
    /// A self-registered client, counted by its address.
    Stranger(Holder),
}

/// The result of spending an assertion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Spent {
    Now,
    Before,
    /// Its holder has reached the limit.
    NoRoom,
}

/// Spends an assertion. Check and mark are one statement: of two requests that race, one wins.
///
/// `whose` is the holder that it counts for.
pub(crate) fn spend(
    tx: &Tx<'_>,
    digest: &Digest,
    whose: &AssertionHolder<'_>,
    until: Timestamp,
) -> Result<Spent, Fault> {
    sweep(tx)?;
    let sql = "SELECT 1 FROM client_assertion WHERE digest = ?1";
    if tx.query_row(sql, params![digest], |_| Ok(()))?.is_some() {
        return Ok(Spent::Before);
    }
    let (room, holder, network) = match whose {
        AssertionHolder::Client(id) => {
            (held(tx, CLIENTS, id.as_str(), id.as_str())? < MOST_OF_A_CLIENT, id.as_str(), id.as_str())
        }
        AssertionHolder::Stranger(holder) => {
            let (most, of_network) = most_of_a_stranger(held(tx, STRANGERS, "", "")?);
            let room = held(tx, STRANGERS, holder.network(), holder.name())? < most
                && held(tx, STRANGERS, holder.network(), "")? < of_network;
            (room, holder.name(), holder.network())
        }
    };
    if !room {
        return Ok(Spent::NoRoom);
    }
    let stranger = matches!(whose, AssertionHolder::Stranger(_));
    tx.execute(
        "INSERT INTO client_assertion (digest, holder, network, stranger, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![digest, holder, network, stranger, until],
    )?;
    Ok(Spent::Now)
}

/// The limits of one address and of one network, given the number of all assertions of self-registered clients.
/// Small holders find room until that number reaches [`FULL`].
fn most_of_a_stranger(all: u32) -> (u32, u32) {
    match all {
        0..MOST_OF_STRANGERS => (MOST_OF_A_STRANGER, MOST_OF_A_NETWORK),
        MOST_OF_STRANGERS..FULL => (SHARE_OF_A_STRANGER, SHARE_OF_A_NETWORK),
        _ => (0, 0),
    }
}

/// Deletes assertions that are refused for their age anyway.
pub(crate) fn sweep(tx: &Tx<'_>) -> Result<(), Fault> {
    tx.execute("DELETE FROM client_assertion WHERE expires_at <= ?1", params![tx.now()])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::rate::Origin;
    use shared::{Clock, Db};

    use super::*;

    /// RATE-03, RATE-06, CAUTH-05: an address that fills the table is refused; other addresses are not, and
    /// clients that an administrator added are not affected. No assertion is deleted while it could be
    /// replayed.
    #[test]
    fn only_the_address_that_fills_the_table_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::held(Timestamp(0));
        let db = Db::open(&dir.path().join("x.db"), &shared::schema::SCHEMA, None, &clock).unwrap();
        let until = Timestamp(0) + Duration::from_mins(6);
        let mut made = 0_u32;
        let mut digest = || {
            made += 1;
            Digest::of(&made.to_be_bytes())
        };
        let stranger = |address: String| -> Holder { Origin::of(address.parse().unwrap()).into() };
        let first = digest();
        let here = AssertionHolder::Stranger(stranger("192.0.2.1".to_owned()));
        db.write_blocking(move |tx| spend(tx, &first, &here, until)).unwrap();
        let mut spend_many = |address: Option<String>, count: u32| {
            let digests: Vec<_> = (0..count).map(|_| digest()).collect();
            let holder = address.map(stranger);
            db.write_blocking(move |tx| {
                let known = ClientId::parse("c_known").unwrap();
                let whose = holder.map_or(AssertionHolder::Client(&known), AssertionHolder::Stranger);
                let mut taken = 0;
                for digest in &digests {
                    match spend(tx, digest, &whose, until)? {
                        Spent::Now => taken += 1,
                        Spent::NoRoom => {}
                        Spent::Before => return Err(Fault::Corrupt("each is new".to_owned())),
                    }
                }
                Ok(taken)
            })
            .unwrap()
        };
        let mut from = |address: &str, count| spend_many(Some(address.to_owned()), count);
        assert_eq!(from("192.0.2.1", 600), MOST_OF_A_STRANGER - 1);
        assert_eq!(from("192.0.2.2", 1), 1);
        let of_one_network: u32 = (0..4).map(|n| from(&format!("2001:db8:1:{n}::1"), 400)).sum();
        assert_eq!(of_one_network, MOST_OF_A_NETWORK);
        assert_eq!(from("2001:db8:2::1", 1), 1);
        for address in 0..MOST_OF_STRANGERS / MOST_OF_A_STRANGER {
            from(&format!("198.51.100.{address}"), MOST_OF_A_STRANGER);
        }
        assert_eq!(from("198.51.100.0", 1), 0);
        assert_eq!(from("203.0.113.1", 30), SHARE_OF_A_STRANGER);
        assert_eq!(spend_many(None, 30), 30);
        let here = AssertionHolder::Stranger(stranger("192.0.2.1".to_owned()));
        let again = db.write_blocking(move |tx| spend(tx, &first, &here, until));
        assert_eq!(again.unwrap(), Spent::Before);
        clock.advance(Duration::from_mins(6));
        db.write_blocking(sweep).unwrap();
        let counted = "SELECT count(*) FROM share";
        let left = db.read(|conn| conn.query_row(counted, [], |row| row.get::<u32>(0)));
        assert_eq!(left.unwrap(), Some(0));
        assert_eq!(most_of_a_stranger(FULL), (0, 0));
    }
}
