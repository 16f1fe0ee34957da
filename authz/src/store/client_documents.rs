//! Client id metadata documents, byte for byte (CIMD-05, CIMD-08), and the entries of the built-in catalogue
//! that the site has switched off (CIMD-13).

use shared::db::{Conn, Row, params};
use shared::share::{self, Full, Holder};
use shared::{Digest, Fault, Timestamp, Tx};

/// Where a document came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// An administrator brought it.
    Imported,
    /// It was read from the network, and is good until then (CIMD-08).
    Fetched { expires_at: Timestamp },
}

/// A document as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// The client id; with a placeholder in it, a family of them (CIMD-13).
    pub url: String,
    pub body: Vec<u8>,
    pub origin: Origin,
}

const COLUMNS: &str = "SELECT url, body, source, expires_at FROM client_document";

fn stored(row: &Row<'_>) -> Result<Stored, Fault> {
    let source: String = row.get(2)?;
    let expires_at: Option<Timestamp> = row.get(3)?;
    let origin = match (source.as_str(), expires_at) {
        ("imported", None) => Origin::Imported,
        ("fetched", Some(expires_at)) => Origin::Fetched { expires_at },
        _ => return Err(Fault::Corrupt(format!("a document that was {source}"))),
    };
    Ok(Stored { url: row.get(0)?, body: row.get(1)?, origin })
}

/// The document of this URL.
pub(crate) fn find(conn: &Conn<'_>, url: &str) -> Result<Option<Stored>, Fault> {
    conn.query_row(&format!("{COLUMNS} WHERE url = ?1"), params![url], stored)
}

/// Documents that an administrator imported for families of client ids (CIMD-13).
pub(crate) fn imported_families(conn: &Conn<'_>) -> Result<Vec<Stored>, Fault> {
    let sql = format!("{COLUMNS} WHERE source = 'imported' AND instr(url, '{{') > 0 ORDER BY url");
    conn.query(&sql, [], stored)
}

/// Whether an administrator imported any.
pub(crate) fn any_imported(conn: &Conn<'_>) -> Result<bool, Fault> {
    let found =
        conn.query_row("SELECT 1 FROM client_document WHERE source = 'imported' LIMIT 1", [], |_| Ok(()))?;
    Ok(found.is_some())
}

/// Keeps a document that an administrator imported, in place of any other of its URL.
pub(crate) fn import(tx: &Tx<'_>, url: &str, body: &[u8], importer: &str) -> Result<(), Fault> {
    put(tx, url, body, Some(importer), None)
}

/// Keeps a document that was fetched for whoever asked from this address. Those that expired before `useless_before`
/// make room, then whoever had most of them fetched (RATE-06). What an administrator imported meanwhile stays.
pub(crate) fn keep_fetched(
    tx: &Tx<'_>,
    url: &str,
    body: &[u8],
    expires_at: Timestamp,
    useless_before: Timestamp,
    holder: &Holder,
) -> Result<Result<(), Full>, Fault> {
    let before = find(tx, url)?;
    if before.as_ref().is_some_and(|stored| stored.origin == Origin::Imported) {
        return Ok(Ok(()));
    }
    tx.execute(
        "DELETE FROM client_document WHERE source = 'fetched' AND expires_at < ?1",
        params![useless_before],
    )?;
    // A document that is fetched anew stays whose it was: nobody makes it theirs by asking for it.
    if before.is_none()
        && let Err(full) = share::make_room(tx, &share::DOCUMENTS, holder)?
    {
        return Ok(Err(full));
    }
    put(tx, url, body, None, Some((expires_at, holder)))?;
    Ok(Ok(()))
}

fn put(
    tx: &Tx<'_>,
    url: &str,
    body: &[u8],
    importer: Option<&str>,
    fetched: Option<(Timestamp, &Holder)>,
) -> Result<(), Fault> {
    let source = if fetched.is_some() { "fetched" } else { "imported" };
    let expires_at = fetched.map(|(expires_at, _)| expires_at);
    let holder = fetched.map(|(_, holder)| holder.name());
    let network = fetched.map(|(_, holder)| holder.network());
    tx.execute(
        "INSERT INTO client_document (url, body, sha256, source, imported_by, imported_at, expires_at, holder, network)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (url) DO UPDATE SET
         body = ?2, sha256 = ?3, source = ?4, imported_by = ?5, imported_at = ?6, expires_at = ?7,
         holder = iif(?4 = 'fetched', coalesce(holder, ?8), NULL), network = iif(?4 = 'fetched', coalesce(network, ?9), NULL)",
        params![url, body, Digest::of(body), source, importer, tx.now(), expires_at, holder, network],
    )?;
    Ok(())
}

/// Removes an imported document; false if there is none of this URL.
pub(crate) fn remove_imported(tx: &Tx<'_>, url: &str) -> Result<bool, Fault> {
    let changed =
        tx.execute("DELETE FROM client_document WHERE url = ?1 AND source = 'imported'", params![url])?;
    Ok(changed == 1)
}

/// The catalogue's entries that the site has switched off.
pub(crate) fn disabled_entries(conn: &Conn<'_>) -> Result<Vec<String>, Fault> {
    conn.query("SELECT url FROM catalogue_disabled ORDER BY url", [], |row| row.get(0))
}

/// Whether the site has switched this entry of the catalogue off.
pub(crate) fn is_disabled(conn: &Conn<'_>, url: &str) -> Result<bool, Fault> {
    let found =
        conn.query_row("SELECT 1 FROM catalogue_disabled WHERE url = ?1", params![url], |_| Ok(()))?;
    Ok(found.is_some())
}

/// Switches an entry of the catalogue off; false if it is off already.
pub(crate) fn disable_entry(tx: &Tx<'_>, url: &str) -> Result<bool, Fault> {
    let changed = tx.execute(
        "INSERT INTO catalogue_disabled (url, disabled_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        params![url, tx.now()],
    )?;
    Ok(changed == 1)
}

/// Switches an entry of the catalogue on again; false if it is on.
pub(crate) fn enable_entry(tx: &Tx<'_>, url: &str) -> Result<bool, Fault> {
    Ok(tx.execute("DELETE FROM catalogue_disabled WHERE url = ?1", params![url])? == 1)
}
