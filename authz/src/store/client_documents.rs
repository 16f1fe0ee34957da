//! Client id metadata documents, byte for byte (CIMD-05, CIMD-08), and the disabled entries of the built-in
//! catalogue (CIMD-13).

use shared::db::{Conn, Row, params};
use shared::share::{self, Full, Holder};
use shared::{Digest, Fault, Timestamp, Tx};

/// The origin of a document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// An administrator imported it.
    Imported,
    /// It was fetched, and is valid until then (CIMD-08).
    Fetched { expires_at: Timestamp },
}

/// A stored document.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// The client id, or the pattern of a family of ids (CIMD-13).
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

/// Imported documents for families of client ids (CIMD-13).
pub(crate) fn imported_families(conn: &Conn<'_>) -> Result<Vec<Stored>, Fault> {
    let sql = format!("{COLUMNS} WHERE source = 'imported' AND instr(url, '{{') > 0 ORDER BY url");
    conn.query(&sql, [], stored)
}

/// Whether there is any imported document.
pub(crate) fn any_imported(conn: &Conn<'_>) -> Result<bool, Fault> {
    let found =
        conn.query_row("SELECT 1 FROM client_document WHERE source = 'imported' LIMIT 1", [], |_| Ok(()))?;
    Ok(found.is_some())
}

/// Stores an imported document, replacing any other of its URL.
pub(crate) fn import(tx: &Tx<'_>, url: &str, body: &[u8], importer: &str) -> Result<(), Fault> {
    put(tx, url, body, Some(importer), None)
}

/// Stores a fetched document; `holder` is the address whose request caused the fetch. Documents that expired
/// before `useless_before` make room, then the holder that caused most of them (RATE-06). An imported document
/// is not replaced.
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
    // A document that is fetched again keeps its holder: another requester does not take it over.
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

/// Deletes an imported document; false if there is none for this URL.
pub(crate) fn remove_imported(tx: &Tx<'_>, url: &str) -> Result<bool, Fault> {
    let changed =
        tx.execute("DELETE FROM client_document WHERE url = ?1 AND source = 'imported'", params![url])?;
    Ok(changed == 1)
}

/// The disabled entries of the catalogue.
pub(crate) fn disabled_entries(conn: &Conn<'_>) -> Result<Vec<String>, Fault> {
    conn.query("SELECT url FROM catalogue_disabled ORDER BY url", [], |row| row.get(0))
}

/// Whether this entry of the catalogue is disabled.
pub(crate) fn is_disabled(conn: &Conn<'_>, url: &str) -> Result<bool, Fault> {
    let found =
        conn.query_row("SELECT 1 FROM catalogue_disabled WHERE url = ?1", params![url], |_| Ok(()))?;
    Ok(found.is_some())
}

/// Disables an entry of the catalogue; false if it already is.
pub(crate) fn disable_entry(tx: &Tx<'_>, url: &str) -> Result<bool, Fault> {
    let changed = tx.execute(
        "INSERT INTO catalogue_disabled (url, disabled_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        params![url, tx.now()],
    )?;
    Ok(changed == 1)
}

/// Enables an entry of the catalogue; false if it already is.
pub(crate) fn enable_entry(tx: &Tx<'_>, url: &str) -> Result<bool, Fault> {
    Ok(tx.execute("DELETE FROM catalogue_disabled WHERE url = ?1", params![url])? == 1)
}
