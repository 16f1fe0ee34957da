//! Client assertions that were used, until they have run out (CAUTH-05). None can be forgotten before, or it would be good
//! once more. So nobody takes more room than a share (RATE-03, RATE-06).

use shared::db::params;
use shared::{Digest, Fault, Timestamp, Tx};

/// How many are remembered for one client that the site knows: a resource server may sign one for every question.
const MOST_OF_A_CLIENT: u32 = 100_000;
/// How many for all clients of one address that registered themselves.
const MOST_OF_A_STRANGER: u32 = 500;
/// How many for all of those together. Beyond it each address has a small share, and once strangers hold [`FULL`] there is
/// room for none of them.
const MOST_OF_STRANGERS: u32 = 10_000;
const SHARE_OF_A_STRANGER: u32 = 10;
const FULL: u32 = 2 * MOST_OF_STRANGERS;
/// Under what name the schema counts those of all strangers.
const STRANGERS: &str = "strangers";

/// What became of an assertion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Spent {
    Now,
    Before,
    /// Its holder has as many as are remembered.
    NoRoom,
}

/// Spends an assertion. Check and mark are one statement: of two requests that race, one wins.
///
/// `holder` answers for it; a stranger is a client that registered itself, by the address that it comes from.
pub(crate) fn spend(
    tx: &Tx<'_>,
    digest: &Digest,
    holder: &str,
    stranger: bool,
    until: Timestamp,
) -> Result<Spent, Fault> {
    sweep(tx)?;
    let sql = "SELECT 1 FROM client_assertion WHERE digest = ?1";
    if tx.query_row(sql, params![digest], |_| Ok(()))?.is_some() {
        return Ok(Spent::Before);
    }
    let most = if stranger { most_of_a_stranger(held(tx, STRANGERS)?) } else { MOST_OF_A_CLIENT };
    if held(tx, holder)? >= most {
        return Ok(Spent::NoRoom);
    }
    tx.execute(
        "INSERT INTO client_assertion (digest, holder, stranger, expires_at) VALUES (?1, ?2, ?3, ?4)",
        params![digest, holder, stranger, until],
    )?;
    Ok(Spent::Now)
}

/// Who comes in small numbers finds room until strangers hold twice what they should.
fn most_of_a_stranger(all: u32) -> u32 {
    match all {
        0..MOST_OF_STRANGERS => MOST_OF_A_STRANGER,
        MOST_OF_STRANGERS..FULL => SHARE_OF_A_STRANGER,
        _ => 0,
    }
}

/// How many are remembered for one holder, or for [`STRANGERS`]: counted as they come and go, so that nobody's request
/// counts through them.
fn held(tx: &Tx<'_>, holder: &str) -> Result<u32, Fault> {
    let sql = "SELECT held FROM client_assertion_share WHERE holder = ?1";
    Ok(tx.query_row(sql, params![holder], |row| row.get(0))?.unwrap_or(0))
}

/// Forgets assertions that are refused for their age anyway.
pub(crate) fn sweep(tx: &Tx<'_>) -> Result<(), Fault> {
    tx.execute("DELETE FROM client_assertion WHERE expires_at <= ?1", params![tx.now()])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::{Clock, Db};

    use super::*;

    /// RATE-03, RATE-06, CAUTH-05: who fills the table hurts themselves: a busy stranger is refused, others are not, and
    /// clients that the site knows never hear of it. Nothing is forgotten while it could be used again.
    #[test]
    fn whoever_fills_the_table_is_refused_and_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::held(Timestamp(0));
        let db = Db::open(&dir.path().join("x.db"), &shared::schema::SCHEMA, None, &clock).unwrap();
        let until = Timestamp(0) + Duration::from_mins(6);
        let mut made = 0_u32;
        let mut digest = || {
            made += 1;
            Digest::of(&made.to_be_bytes())
        };
        let first = digest();
        db.write_blocking(move |tx| spend(tx, &first, "192.0.2.1", true, until)).unwrap();
        let mut spend_many = |holder: String, stranger: bool, count: u32| {
            let digests: Vec<_> = (0..count).map(|_| digest()).collect();
            db.write_blocking(move |tx| {
                let mut taken = 0;
                for digest in &digests {
                    match spend(tx, digest, &holder, stranger, until)? {
                        Spent::Now => taken += 1,
                        Spent::NoRoom => {}
                        Spent::Before => return Err(Fault::Corrupt("each is new".to_owned())),
                    }
                }
                Ok(taken)
            })
            .unwrap()
        };
        assert_eq!(spend_many("192.0.2.1".to_owned(), true, 600), MOST_OF_A_STRANGER - 1);
        assert_eq!(spend_many("192.0.2.2".to_owned(), true, 1), 1);
        for address in 0..MOST_OF_STRANGERS / MOST_OF_A_STRANGER {
            spend_many(format!("198.51.100.{address}"), true, MOST_OF_A_STRANGER);
        }
        assert_eq!(spend_many("198.51.100.0".to_owned(), true, 1), 0);
        assert_eq!(spend_many("203.0.113.1".to_owned(), true, 30), SHARE_OF_A_STRANGER);
        assert_eq!(spend_many("c_known".to_owned(), false, 30), 30);
        let again = db.write_blocking(move |tx| spend(tx, &first, "192.0.2.1", true, until));
        assert_eq!(again.unwrap(), Spent::Before);
        clock.advance(Duration::from_mins(6));
        db.write_blocking(sweep).unwrap();
        let counted = "SELECT count(*) FROM client_assertion_share";
        let left = db.read(|conn| conn.query_row(counted, [], |row| row.get::<u32>(0)));
        assert_eq!(left.unwrap(), Some(0));
        assert_eq!(most_of_a_stranger(FULL), 0);
    }
}
