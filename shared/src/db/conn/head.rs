//! The end of the audit chain as part of a transaction: it is rolled back with its savepoint (AUDIT-02).

use super::Conn;
use crate::db::{Fault, params};

/// `prev` of the first record.
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The end of the chain, on which the next record builds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    seq: i64,
    hash: String,
}

impl Head {
    pub(crate) fn new(seq: i64, hash: String) -> Self {
        Self { seq, hash }
    }

    /// The end of a chain without records.
    pub(crate) fn genesis() -> Self {
        Self::new(0, GENESIS.to_owned())
    }

    /// The last record's number.
    pub fn seq(&self) -> i64 {
        self.seq
    }

    /// Its hash, in hexadecimal.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The end of the chain as it was when this was the last record.
    pub(crate) fn at(conn: &Conn<'_>, seq: i64) -> Result<Option<Self>, Fault> {
        let hash = conn
            .query_row("SELECT hash FROM audit WHERE seq = ?1", params![seq], |row| row.get::<Vec<u8>>(0))?;
        Ok(hash.map(|hash| Self::new(seq, data_encoding::HEXLOWER.encode(&hash))))
    }

    pub(crate) fn load(conn: &Conn<'_>) -> Result<Self, Fault> {
        let last = conn.query_row("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1", [], |row| {
            Ok(Self::new(row.get(0)?, data_encoding::HEXLOWER.encode(&row.get::<Vec<u8>>(1)?)))
        })?;
        Ok(last.unwrap_or_else(Self::genesis))
    }
}
