//! Verifies the chain: whether each record is as it was written.

use serde_json::Value;

use super::{Head, canonical, chain, exported};
use crate::db::{Conn, Fault, params};

/// An intact chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// The number of records.
    pub records: i64,
    /// The hash of the last record. Stored elsewhere, it also reveals truncation.
    pub head: String,
}

/// The first record that is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("audit record {seq} {what}")]
pub struct FirstBadRecord {
    /// The row's number.
    pub seq: i64,
    /// What is wrong with it.
    pub what: &'static str,
}

/// A record that fits the chain.
pub struct Entry<'e> {
    /// Its number.
    pub seq: i64,
    /// Its content.
    pub record: &'e Value,
}

/// Verifies the whole chain (AUDIT-03): altered, missing and reordered records are detected.
///
/// # Errors
/// A database fault; the inner result is the verdict.
pub fn verify(conn: &Conn<'_>) -> Result<Result<Verified, FirstBadRecord>, Fault> {
    verify_each(conn, |_| Ok(Ok(())))
}

/// Like [`verify`], with a further check of each intact record: its error says what is wrong.
///
/// # Errors
/// A database fault; the inner result is the verdict.
pub fn verify_each(
    conn: &Conn<'_>,
    mut each: impl FnMut(&Entry<'_>) -> Result<Result<(), &'static str>, Fault>,
) -> Result<Result<Verified, FirstBadRecord>, Fault> {
    let mut records = 0;
    let mut head = Head::genesis().hash().to_owned();
    let mut broken = None;
    conn.for_each("SELECT seq, record, hash FROM audit ORDER BY seq", [], |row| {
        let seq: i64 = row.get(0)?;
        // Tampering can also change a value's type. That is a verdict, not a fault.
        let (Ok(record), Ok(hash)) = (row.get::<String>(1), row.get::<Vec<u8>>(2)) else {
            broken = Some(FirstBadRecord { seq, what: "was changed: a value has another type" });
            return Ok(false);
        };
        let verdict = match check(records + 1, seq, &record, &hash, &head) {
            Ok(record) => each(&Entry { seq, record: &record })?,
            Err(what) => Err(what),
        };
        records += 1;
        head = data_encoding::HEXLOWER.encode(&hash);
        broken = verdict.err().map(|what| FirstBadRecord { seq, what });
        Ok(broken.is_none())
    })?;
    Ok(broken.map_or(Ok(Verified { records, head }), Err))
}

fn check(expected: i64, seq: i64, record: &str, hash: &[u8], prev: &str) -> Result<Value, &'static str> {
    if seq != expected {
        return Err("follows a gap: the record before it is missing");
    }
    if chain(prev, record) != hash {
        return Err("was changed: its hash does not match");
    }
    let value: Value = serde_json::from_str(record).map_err(|_| "was changed: it is not valid JSON")?;
    if value["seq"] != seq || value["prev"] != prev || canonical(&value) != record {
        return Err("was changed: it names another position in the chain");
    }
    Ok(value)
}

/// The records after number `after` up to number `to`, oldest first, as exported JSON.
///
/// # Errors
/// A database fault.
pub fn range(conn: &Conn<'_>, after: i64, to: i64) -> Result<Vec<Value>, Fault> {
    conn.query(
        "SELECT record, hash FROM audit WHERE seq > ?1 AND seq <= ?2 ORDER BY seq",
        params![after, to],
        |row| exported(&row.get::<String>(0)?, &row.get::<Vec<u8>>(1)?),
    )
}

/// The last `count` records, oldest first, as exported JSON.
///
/// # Errors
/// A database fault.
pub fn tail(conn: &Conn<'_>, count: u32, after: i64) -> Result<Vec<Value>, Fault> {
    let mut records = conn.query(
        "SELECT record, hash FROM audit WHERE seq > ?1 ORDER BY seq DESC LIMIT ?2",
        params![after, count],
        |row| exported(&row.get::<String>(0)?, &row.get::<Vec<u8>>(1)?),
    )?;
    records.reverse();
    Ok(records)
}
