//! The index: a `SQLite` file made from the folder, which can always be made again.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use shared::db::{Conn, OpenError, Schema, params};
use shared::{Clock, Db, Fault, Tx};

use super::folder::{Identity, Stamp};
use super::query::Query;
use super::searching::Stop;
use super::section::Document;
use super::snippet::snippet;
use super::{DocsError, Hit, Listed, Listing, ReadError, words};

/// A part of the index's identity. Increase it when documents are parsed differently.
const RECIPE: u32 = 2;

/// "PCDX" identifies its files.
const SCHEMA: Schema = Schema {
    application_id: 0x5043_4458,
    audited: false,
    // The full-text table stores no text. It is given text with CJK characters in pairs. Marks are parts of
    // words (UAX #29): Devanagari, Thai and others write vowels with them. Optional marks are removed before
    // (`words::normal`). A word in the title counts eight times. Words are collected in 8 MiB of memory before
    // they are merged, which makes a first scan a fifth faster.
    migrations: &["
CREATE TABLE origin (made_for TEXT NOT NULL) STRICT;
CREATE TABLE document (
    id       INTEGER PRIMARY KEY,
    path     TEXT NOT NULL UNIQUE,
    title    TEXT NOT NULL,
    size     INTEGER NOT NULL,
    modified INTEGER,
    changed  INTEGER,
    device   INTEGER,
    inode    INTEGER,
    hash     BLOB NOT NULL,
    text     TEXT NOT NULL
) STRICT;
CREATE TABLE section (
    id       INTEGER PRIMARY KEY,
    document INTEGER NOT NULL REFERENCES document (id) ON DELETE CASCADE,
    heading  TEXT NOT NULL,
    start    INTEGER NOT NULL,
    line     INTEGER,
    body     TEXT NOT NULL
) STRICT;
CREATE INDEX section_document ON section (document);
CREATE VIRTUAL TABLE words USING fts5 (title, heading, path, body,
    content = '', contentless_delete = 1,
    tokenize = \"unicode61 remove_diacritics 2 categories 'L* N* Co Mn Mc'\");
INSERT INTO words (words, rank) VALUES ('hashsize', 8388608);
INSERT INTO words (words, rank) VALUES ('rank', 'bm25(8.0, 6.0, 4.0, 1.0)');
"],
};

/// Opens the index for a folder; an unusable one is deleted first.
pub(super) fn open(path: &Path, origin: &str, clock: &Clock) -> Result<Db, DocsError> {
    let origin = format!("{RECIPE} {origin}");
    let why = match usable(path, &origin, clock) {
        Ok(db) => return Ok(db),
        Err(OpenError::Foreign(_)) => "it is not a search index".to_owned(),
        Err(OpenError::Newer { .. }) => "it was made by a newer version".to_owned(),
        Err(OpenError::Fault(Fault::Corrupt(why))) => why,
        Err(source) => return Err(DocsError::Index { path: path.to_owned(), source }),
    };
    discard(path, &why)?;
    usable(path, &origin, clock).map_err(|source| DocsError::Index { path: path.to_owned(), source })
}

/// Opens the file; a damaged index, or one for another folder, is reported as corrupt.
fn usable(path: &Path, origin: &str, clock: &Clock) -> Result<Db, OpenError> {
    let db = Db::open(path, &SCHEMA, None, clock)?;
    // One table at a time: for all at once, SQLite would also compare every word of the full-text table.
    for table in ["document", "section", "words_data", "words_idx", "words_docsize"] {
        let check = format!("PRAGMA quick_check({table})");
        let health: Option<String> = db.read(|c| c.query_row(&check, [], |r| r.get(0)))?;
        if health.as_deref() != Some("ok") {
            return Err(Fault::Corrupt(health.unwrap_or_default()).into());
        }
    }
    let made_for: Option<String> =
        db.read(|c| c.query_row("SELECT made_for FROM origin", [], |r| r.get(0)))?;
    match made_for {
        Some(made_for) if made_for == origin => {}
        Some(_) => return Err(Fault::Corrupt("it was made for another folder or version".to_owned()).into()),
        None => {
            let origin = origin.to_owned();
            db.write_blocking(move |tx| tx.execute("INSERT INTO origin VALUES (?1)", params![origin]))?;
        }
    }
    Ok(db)
}

/// Deletes an index, and nothing else.
pub(super) fn discard(path: &Path, why: &str) -> Result<(), DocsError> {
    if is_main_database(path) {
        return Err(DocsError::NotAnIndex(path.to_owned()));
    }
    tracing::warn!(docs.index = %path.display(), docs.why = %why, "the search index is rebuilt");
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        match std::fs::remove_file(PathBuf::from(file)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let source = OpenError::Unwritable(path.to_owned(), error);
                return Err(DocsError::Index { path: path.to_owned(), source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the path is the main database, which must not be deleted by mistake.
fn is_main_database(path: &Path) -> bool {
    // SQLite's header has the application id at byte 68.
    let mut header = [0; 72];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut header));
    read.is_ok() && header[68..] == shared::schema::SCHEMA.application_id.to_be_bytes()
}

/// What the index knows of a file.
pub(super) struct IndexedFile {
    pub id: i64,
    pub stamp: Stamp,
    pub hash: Vec<u8>,
}

pub(super) fn known(c: &Conn<'_>) -> Result<HashMap<String, IndexedFile>, Fault> {
    let rows =
        c.query("SELECT path, id, size, modified, hash, changed, device, inode FROM document", [], |r| {
            let identity = match (r.get(5)?, r.get(6)?, r.get(7)?) {
                (Some(changed), Some(device), Some(inode)) => Some(Identity { changed, device, inode }),
                _ => None,
            };
            let stamp = Stamp { size: r.get(2)?, modified: r.get(3)?, identity };
            Ok((r.get(0)?, IndexedFile { id: r.get(1)?, stamp, hash: r.get(4)? }))
        })?;
    Ok(rows.into_iter().collect())
}

/// A change of the index.
pub(super) enum Write {
    /// A document, and the row that it replaces.
    Put(Box<IndexedDocument>, Option<i64>),
    Restamp(i64, Stamp),
    Remove(i64),
}

/// A document, and its words as the full-text table is to see them.
pub(super) struct IndexedDocument {
    path: String,
    stamp: Stamp,
    hash: Vec<u8>,
    document: Document,
    path_words: String,
    title_words: String,
    /// The heading and body of each section.
    section_words: Vec<(String, String)>,
}

impl Write {
    /// Prepares a document before the writer thread is used.
    pub(super) fn put(
        path: String,
        stamp: Stamp,
        hash: Vec<u8>,
        document: Document,
        replaced: Option<i64>,
    ) -> Self {
        let section_words =
            document.sections.iter().map(|s| (words::indexed(&s.heading), words::indexed(&s.body))).collect();
        let put = IndexedDocument {
            path_words: words::indexed(&path),
            title_words: words::indexed(&document.title),
            section_words,
            path,
            stamp,
            hash,
            document,
        };
        Self::Put(Box::new(put), replaced)
    }
}

pub(super) fn apply(tx: &Tx<'_>, batch: &[Write]) -> Result<(), Fault> {
    for write in batch {
        match write {
            Write::Put(put, replaced) => {
                if let Some(id) = replaced {
                    remove(tx, *id)?;
                }
                insert(tx, put)?;
            }
            Write::Restamp(id, stamp) => {
                let [changed, device, inode] = columns(stamp.identity);
                tx.execute(
                    "UPDATE document SET size = ?2, modified = ?3, changed = ?4, device = ?5, inode = ?6 WHERE id = ?1",
                    params![id, stamp.size, stamp.modified, changed, device, inode],
                )?;
            }
            Write::Remove(id) => remove(tx, *id)?,
        }
    }
    Ok(())
}

fn remove(tx: &Tx<'_>, id: i64) -> Result<(), Fault> {
    tx.execute("DELETE FROM words WHERE rowid IN (SELECT id FROM section WHERE document = ?1)", params![id])?;
    tx.execute("DELETE FROM document WHERE id = ?1", params![id])?;
    Ok(())
}

fn insert(tx: &Tx<'_>, put: &IndexedDocument) -> Result<(), Fault> {
    let document = &put.document;
    let [changed, device, inode] = columns(put.stamp.identity);
    let id = inserted(tx.query_row(
        "INSERT INTO document (path, title, size, modified, hash, text, changed, device, inode)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) RETURNING id",
        params![
            put.path,
            document.title,
            put.stamp.size,
            put.stamp.modified,
            put.hash,
            document.text,
            changed,
            device,
            inode
        ],
        |r| r.get(0),
    )?)?;
    for (section, (heading, body)) in document.sections.iter().zip(&put.section_words) {
        let start = i64::try_from(section.start).unwrap_or(i64::MAX);
        let section = inserted(tx.query_row(
            "INSERT INTO section (document, heading, start, line, body) VALUES (?1, ?2, ?3, ?4, ?5) RETURNING id",
            params![id, section.heading, start, section.line, section.body],
            |r| r.get(0),
        )?)?;
        tx.execute(
            "INSERT INTO words (rowid, title, heading, path, body) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![section, put.title_words, heading, put.path_words, body],
        )?;
    }
    Ok(())
}

fn columns(identity: Option<Identity>) -> [Option<i64>; 3] {
    let column = |of: fn(&Identity) -> i64| identity.as_ref().map(of);
    [column(|i| i.changed), column(|i| i.device), column(|i| i.inode)]
}

fn inserted(id: Option<i64>) -> Result<i64, Fault> {
    id.ok_or_else(|| Fault::Corrupt("an inserted row has no id".to_owned()))
}

/// The best sections, one for each heading of a document; fewer if it is stopped.
pub(super) fn search(
    c: &Conn<'_>,
    stop: &Stop,
    expression: &str,
    query: &Query,
    limit: usize,
    path_prefix: &str,
) -> Result<Vec<Hit>, Fault> {
    let needles = query.needles();
    let mut hits: Vec<Hit> = Vec::new();
    c.for_each(
        "SELECT document.path, document.title, section.heading, section.line, section.body, -words.rank
         FROM words JOIN section ON section.id = words.rowid JOIN document ON document.id = section.document
         WHERE words MATCH ?1 AND substr(document.path, 1, length(?2)) = ?2 ORDER BY words.rank",
        params![expression, path_prefix],
        |r| {
            let (path, heading): (String, String) = (r.get(0)?, r.get(2)?);
            if !hits.iter().any(|hit| hit.path == path && hit.heading == heading) {
                let snippet = snippet(&r.get::<String>(4)?, &needles);
                hits.push(Hit {
                    path,
                    title: r.get(1)?,
                    heading,
                    snippet,
                    score: r.get(5)?,
                    line: r.get(3)?,
                });
            }
            Ok(hits.len() < limit && !stop.is_due())
        },
    )?;
    Ok(hits)
}

/// A document for reading.
pub(super) struct Stored {
    pub title: String,
    pub text: String,
    /// The headings of its sections and where they begin, in order.
    sections: Vec<(String, usize)>,
}

/// In one statement, so that sections and text match during a scan.
pub(super) fn document(c: &Conn<'_>, path: &str) -> Result<Option<Stored>, Fault> {
    c.query_row(
        "SELECT title, text, (SELECT json_group_array(json_array(heading, start)) FROM
             (SELECT heading, start FROM section WHERE document = document.id ORDER BY section.id))
         FROM document WHERE path = ?1",
        params![path],
        |r| {
            let sections =
                serde_json::from_str(&r.get::<String>(2)?).map_err(|e| Fault::Corrupt(e.to_string()))?;
            Ok(Stored { title: r.get(0)?, text: r.get(1)?, sections })
        },
    )
}

impl Stored {
    /// A heading by its path or its own words, and the text up to the next heading of the same or a higher
    /// level. If the heading occurs several times, the text of all.
    pub(super) fn under(&self, given: &str) -> Option<(&str, Cow<'_, str>)> {
        let wanted = plain_heading(given);
        let is_whole = |heading: &str| plain_heading(heading) == wanted;
        let is_last = |heading: &str| heading.rsplit(" > ").next().is_some_and(is_whole);
        let find = |is: &dyn Fn(&str) -> bool| self.sections.iter().position(|(h, _)| !h.is_empty() && is(h));
        let first =
            find(&|heading| heading == given).or_else(|| find(&is_whole)).or_else(|| find(&is_last))?;
        let heading = &self.sections[first].0;
        let beyond = |(other, _): &&(String, usize)| {
            other
                .strip_prefix(heading.as_str())
                .is_none_or(|rest| !rest.is_empty() && !rest.starts_with(" > "))
        };
        let mut text = Cow::Borrowed("");
        let mut rest = &self.sections[first..];
        while let Some((_, start)) = rest.first() {
            let length = rest.iter().position(|section| beyond(&section)).unwrap_or(rest.len());
            let end = rest.get(length).map_or(self.text.len(), |(_, start)| *start);
            let part = self.text.get(*start..end)?;
            if text.is_empty() {
                text = Cow::Borrowed(part);
            } else {
                text.to_mut().push_str(part);
            }
            let after = &rest[length..];
            let next = after.iter().position(|(other, _)| other == heading);
            rest = next.map_or(&[][..], |next| &after[next..]);
        }
        Some((heading, text))
    }

    pub(super) fn unknown_heading(&self, path: &str, heading: String) -> ReadError {
        let mut headings: Vec<String> = self.sections.iter().map(|(h, _)| h.clone()).collect();
        headings.retain(|h| !h.is_empty());
        headings.dedup();
        headings.truncate(50);
        if headings.is_empty() {
            headings.push("(none)".to_owned());
        }
        ReadError::UnknownHeading { path: path.to_owned(), heading, headings }
    }
}

fn plain_heading(heading: &str) -> String {
    let heading = words::normal(heading);
    heading.trim_start_matches('#').split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

pub(super) fn list(c: &Conn<'_>, path_prefix: &str, limit: u32) -> Result<Listing, Fault> {
    let documents = c.query(
        "SELECT path, title FROM document WHERE substr(path, 1, length(?1)) = ?1 ORDER BY path LIMIT ?2",
        params![path_prefix, limit],
        |r| Ok(Listed { path: r.get(0)?, title: r.get(1)? }),
    )?;
    let total: Option<i64> = c.query_row(
        "SELECT count(*) FROM document WHERE substr(path, 1, length(?1)) = ?1",
        params![path_prefix],
        |r| r.get(0),
    )?;
    Ok(Listing { documents, total: total.unwrap_or_default().unsigned_abs() })
}

/// The headings of the documents in the order of their paths, each once, with path and title; empty where a document begins
/// without one. At most this many.
pub(super) fn outline(c: &Conn<'_>, limit: usize) -> Result<Vec<[String; 3]>, Fault> {
    let mut found: Vec<[String; 3]> = Vec::new();
    let mut seen = HashSet::new();
    c.for_each(
        "SELECT document.path, document.title, section.heading FROM document
         LEFT JOIN section ON section.document = document.id ORDER BY document.path, section.id",
        params![],
        |r| {
            let (path, title, heading): (String, String, Option<String>) = (r.get(0)?, r.get(1)?, r.get(2)?);
            if found.last().is_none_or(|[last, ..]| *last != path) {
                seen.clear();
            }
            let heading = heading.unwrap_or_default();
            if seen.insert(heading.clone()) {
                found.push([path, title, heading]);
            }
            Ok(found.len() < limit)
        },
    )?;
    Ok(found)
}

/// The headings of a document.
pub(super) fn headings(c: &Conn<'_>, path: &str) -> Result<Vec<String>, Fault> {
    let Some(document) = document(c, path)? else { return Ok(Vec::new()) };
    let mut headings: Vec<_> = document.sections.into_iter().map(|(heading, _)| heading).collect();
    headings.retain(|heading| !heading.is_empty());
    headings.dedup();
    Ok(headings)
}

/// Up to three similar paths: those with the most common characters at both ends.
pub(super) fn nearest(c: &Conn<'_>, path: &str) -> Result<Vec<String>, Fault> {
    let wanted = path.to_lowercase();
    let mut best: Vec<(usize, String)> = Vec::new();
    c.for_each("SELECT path FROM document ORDER BY path", [], |r| {
        let path: String = r.get(0)?;
        let lower = path.to_lowercase();
        let score = agreement(lower.as_bytes(), wanted.as_bytes());
        if 2 * score > lower.len() {
            best.push((score, path));
            best.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
            best.truncate(3);
        }
        Ok(true)
    })?;
    Ok(best.into_iter().map(|(_, path)| path).collect())
}

/// The number of bytes that two texts share at the beginning and at the end.
fn agreement(a: &[u8], b: &[u8]) -> usize {
    let ahead = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let behind = a[ahead..].iter().rev().zip(b[ahead..].iter().rev()).take_while(|(x, y)| x == y).count();
    ahead + behind
}

pub(super) fn or_instead(nearest: &[String]) -> String {
    if nearest.is_empty() { String::new() } else { format!("; did you mean {}?", nearest.join(", ")) }
}
