//! A file beside the database with the end of the audit chain (AUDIT-03, STORE-06).
//!
//! Replacing the database with an older copy would undo revocations. The copy's chain ends earlier than this
//! file says, so the server does not start. The file is written after each durable commit and before callers
//! are answered, so it never names a record that the database lacks.
//!
//! It also says up to which generation the database file is complete without its -wal. Otherwise an older
//! database file under the -wal of a killed process would be accepted: the end of the log is in the -wal, but
//! revocations from before the -wal began would be missing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::conn::Head;
use super::error::{MirrorError, OpenError};
use super::{Conn, Fault, PATIENCE};

/// Two slots in separate blocks are written in turn: an interrupted write leaves the other intact.
const SLOT: usize = 4096;
const FORMAT: &str = "portcullis-audit-head v1";
const KEEP_GENERATION: &str =
    "INSERT INTO setting (name, value) VALUES ('generation', ?1) ON CONFLICT (name) DO UPDATE SET value = ?1";

/// The content of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MirrorContent {
    /// The number of restored backups.
    pub epoch: i64,
    /// The end of the audit chain.
    pub head: Head,
    /// The generation that the database file, without its -wal, has at least reached; 0 if unknown.
    base: i64,
    /// Epoch and head of the database that is about to replace this one.
    next: Option<(i64, Head)>,
}

impl MirrorContent {
    /// The content for a database whose chain ends there.
    pub fn at(epoch: i64, head: Head) -> Self {
        Self { epoch, head, base: 0, next: None }
    }

    /// Whether a database file is older than the -wal beside it.
    pub(super) fn is_ahead_of(&self, database: &Path) -> bool {
        has_wal(database) && generation_without_wal(database).is_ok_and(|found| found < self.base)
    }
}

/// The file, open for writing.
pub(super) struct Mirror {
    path: PathBuf,
    file: File,
    turn: u64,
    noted: MirrorContent,
}

impl Mirror {
    /// The file of a database that is about to be opened; `None` if there is none. If the database is missing
    /// although the file exists, it is refused before a new one is created in its place.
    pub(super) fn before_open(path: &Path, database: &Path) -> Result<Option<Self>, MirrorError> {
        let Some(mirror) = Self::open(path)? else { return Ok(None) };
        let there = fs::metadata(database).is_ok_and(|file| file.len() > 0);
        if !there {
            mirror.first_start()?;
        }
        if mirror.noted.is_ahead_of(database) {
            return Err(MirrorError::StaleDatabase(database.to_owned()));
        }
        Ok(Some(mirror))
    }

    /// Refuses an empty database in place of the one that the file describes.
    pub(super) fn first_start(&self) -> Result<(), MirrorError> {
        match self.noted.head.seq() {
            0 => Ok(()),
            noted => Err(MirrorError::Gone(self.path.clone(), noted)),
        }
    }

    /// Opens the file; `None` if there is none.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, MirrorError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(MirrorError::Unusable(path.to_owned(), e)),
        };
        let (turn, noted) = contents(path, &file)?;
        Ok(Some(Self { path: path.to_owned(), file, turn, noted }))
    }

    /// Creates the file atomically.
    pub(super) fn create(path: &Path, noted: MirrorContent) -> Result<Self, MirrorError> {
        let file = place(path, &noted).map_err(|e| MirrorError::Unusable(path.to_owned(), e))?;
        Ok(Self { path: path.to_owned(), file, turn: 0, noted })
    }

    /// Refuses a database whose chain does not contain the noted head.
    pub(super) fn check(&mut self, connection: &Connection) -> Result<(), OpenError> {
        self.settle(connection)?;
        let (path, noted) = (self.path.clone(), self.noted.head.seq());
        let epoch = epoch(connection)?.unwrap_or(0);
        if epoch < self.noted.epoch {
            return Err(MirrorError::EarlierEpoch { path, found: epoch, noted: self.noted.epoch }.into());
        }
        let found = Head::load(&Conn::new(connection))?.seq();
        if found < noted {
            return Err(MirrorError::Behind { path, found, noted }.into());
        }
        if noted > 0 && Head::at(&Conn::new(connection), noted)?.as_ref() != Some(&self.noted.head) {
            return Err(MirrorError::Forked { path, noted }.into());
        }
        Ok(())
    }

    /// Finds out whether an interrupted restore had put its database in place.
    fn settle(&mut self, connection: &Connection) -> Result<(), OpenError> {
        let Some((epoch, head)) = self.noted.next.clone() else { return Ok(()) };
        let done = self::epoch(connection)? == Some(epoch)
            && Head::at(&Conn::new(connection), head.seq())?.as_ref() == Some(&head);
        let noted = if done {
            MirrorContent::at(epoch, head)
        } else {
            MirrorContent { next: None, ..self.noted.clone() }
        };
        Ok(self.write(noted)?)
    }

    /// Notes that a restored database is about to replace the latest one. If there is no usable file, it
    /// describes the restored database only.
    pub(super) fn expect(
        path: &Path,
        noted: Option<MirrorContent>,
        restored: &MirrorContent,
    ) -> Result<(), OpenError> {
        match (noted, Self::open(path)) {
            (Some(noted), Ok(Some(mut mirror))) => Ok(mirror
                .write(MirrorContent { next: Some((restored.epoch, restored.head.clone())), ..noted })?),
            _ => Ok(Self::create(path, restored.clone()).map(drop)?),
        }
    }

    /// Notes the end of the chain, if it has changed. It is on disk when this returns.
    pub(super) fn note(&mut self, head: &Head) -> Result<(), Fault> {
        if self.noted.head == *head {
            return Ok(());
        }
        self.write(MirrorContent { head: head.clone(), ..self.noted.clone() })
    }

    /// Like [`Mirror::note`], but a file that was deleted is not created again.
    pub(super) fn note_in_place(&mut self, head: &Head) -> Result<(), Fault> {
        let links = self.file.metadata().map_or(0, |file| file.nlink());
        if links == 0 {
            return Err(Fault::Storage(format!("{} is gone", self.path.display())));
        }
        self.note(head)
    }

    /// Whether this file describes an earlier end of the same database than a head, after another file did.
    pub(super) fn precedes(&self, before: &Self, head: &Head) -> bool {
        self.noted.epoch == before.noted.epoch
            && (self.noted.head.seq() < head.seq() || self.noted.head == *head)
    }

    /// Moves the -wal into the database file, so that the -wal begins again, and notes the file's new
    /// generation. If a reader prevents that, the -wal continues, and the next attempt does it.
    pub(super) fn checkpoint(&mut self, connection: &Connection, mode: &str) -> Result<bool, Fault> {
        let generation = generation(connection)? + 1;
        connection.prepare_cached(KEEP_GENERATION)?.execute([generation.to_string()])?;
        connection.busy_timeout(Duration::ZERO)?;
        let busy =
            connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get::<_, i64>(0));
        connection.busy_timeout(PATIENCE)?;
        let done = busy? == 0;
        if done {
            self.write(MirrorContent { base: generation, ..self.noted.clone() })?;
        }
        Ok(done)
    }

    /// Called before a migration: if that is interrupted, the database file alone may be unreadable.
    pub(super) fn forget_base(&mut self) -> Result<(), Fault> {
        self.write(MirrorContent { base: 0, ..self.noted.clone() })
    }

    fn write(&mut self, noted: MirrorContent) -> Result<(), Fault> {
        self.put(&noted)
            .map_err(|e| Fault::Storage(format!("{} could not be written: {e}", self.path.display())))?;
        self.noted = noted;
        Ok(())
    }

    fn put(&mut self, noted: &MirrorContent) -> io::Result<()> {
        // If the file was deleted meanwhile, create it again: the next start needs it.
        if self.file.metadata()?.nlink() == 0 {
            self.file = place(&self.path, noted)?;
            self.turn = 0;
            return Ok(());
        }
        let turn = self.turn + 1;
        self.file.write_all_at(&slot(turn, noted), (turn % 2) * SLOT as u64)?;
        self.file.sync_data()?;
        self.turn = turn;
        Ok(())
    }
}

/// The content of the file; `None` if there is none.
///
/// # Errors
/// If it cannot be read or is malformed.
pub fn read(path: &Path) -> Result<Option<MirrorContent>, MirrorError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(MirrorError::Unusable(path.to_owned(), e)),
    };
    Ok(Some(contents(path, &file)?.1))
}

/// The newer of the two slots, and its number.
fn contents(path: &Path, file: &File) -> Result<(u64, MirrorContent), MirrorError> {
    let mut newest = None;
    for place in 0..2_u64 {
        let mut bytes = [0; SLOT];
        match file.read_exact_at(&mut bytes, place * SLOT as u64) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => continue,
            Err(e) => return Err(MirrorError::Unusable(path.to_owned(), e)),
        }
        if let Some((turn, noted)) = parse(&bytes)
            && newest.as_ref().is_none_or(|(other, _)| *other < turn)
        {
            newest = Some((turn, noted));
        }
    }
    newest.ok_or_else(|| MirrorError::Damaged(path.to_owned()))
}

fn slot(turn: u64, noted: &MirrorContent) -> Vec<u8> {
    let MirrorContent { epoch, head, base, next } = noted;
    let mut text =
        format!("{FORMAT} turn={turn} epoch={epoch} base={base} seq={} hash={}", head.seq(), head.hash());
    if let Some((epoch, head)) = next {
        text = format!("{text} next={epoch}:{}:{}", head.seq(), head.hash());
    }
    let check = HEXLOWER.encode(&Sha256::digest(&text));
    let mut slot = format!("{text} check={check}").into_bytes();
    slot.resize(SLOT - 1, b' ');
    slot.push(b'\n');
    slot
}

fn parse(slot: &[u8]) -> Option<(u64, MirrorContent)> {
    let (text, check) = std::str::from_utf8(slot).ok()?.trim_end().split_once(" check=")?;
    if HEXLOWER.encode(&Sha256::digest(text)) != check {
        return None;
    }
    let mut fields = text.strip_prefix(FORMAT)?.split(' ').skip(1);
    let mut field = |name: &str| fields.next()?.strip_prefix(name)?.strip_prefix('=');
    let turn = field("turn")?.parse().ok()?;
    let epoch = field("epoch")?.parse().ok()?;
    let base = field("base")?.parse().ok()?;
    let head = Head::new(field("seq")?.parse().ok()?, field("hash")?.to_owned());
    let next = match field("next") {
        Some(next) => {
            let [epoch, seq, hash] = next.split(':').collect::<Vec<_>>()[..] else { return None };
            Some((epoch.parse().ok()?, Head::new(seq.parse().ok()?, hash.to_owned())))
        }
        None => None,
    };
    Some((turn, MirrorContent { epoch, head, base, next }))
}

/// Creates a new file atomically, readable by this user only.
fn place(path: &Path, noted: &MirrorContent) -> io::Result<File> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&temporary)?;
    // Both slots exist from the start, so that later writes do not change the length.
    file.write_all(&slot(0, noted))?;
    file.write_all(&slot(0, noted))?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()?;
    Ok(file)
}

/// The number of backups restored into this database; `None` if it never had the file beside it.
pub(super) fn epoch(connection: &Connection) -> Result<Option<i64>, Fault> {
    let text: Option<String> = connection
        .query_row("SELECT value FROM setting WHERE name = 'epoch'", [], |row| row.get(0))
        .optional()?;
    let bad = |_| Fault::Corrupt("the epoch is not a number".to_owned());
    text.map(|text| text.parse().map_err(bad)).transpose()
}

/// Whether a database is not opened without the file.
///
/// # Errors
/// A database fault.
pub fn needed(conn: &Conn<'_>) -> Result<bool, Fault> {
    Ok(conn.query_row("SELECT 1 FROM setting WHERE name = 'epoch'", [], |_| Ok(()))?.is_some())
}

/// The number of times that the -wal was moved into the database file.
fn generation(connection: &Connection) -> Result<i64, Fault> {
    let text: Option<String> = connection
        .query_row("SELECT value FROM setting WHERE name = 'generation'", [], |row| row.get(0))
        .optional()?;
    let bad = |_| Fault::Corrupt("the generation is not a number".to_owned());
    text.map_or(Ok(0), |text| text.parse().map_err(bad))
}

/// Whether there is a -wal: the last process was killed.
pub(super) fn has_wal(database: &Path) -> bool {
    let mut wal = database.as_os_str().to_owned();
    wal.push("-wal");
    fs::metadata(wal).is_ok_and(|file| file.len() > 0)
}

/// The generation of the database file without its -wal.
fn generation_without_wal(database: &Path) -> Result<i64, Fault> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut uri =
        Url::from_file_path(std::path::absolute(database).map_err(|e| Fault::Storage(e.to_string()))?)
            .map_err(|()| Fault::Storage("the database's path is not absolute".to_owned()))?;
    uri.set_query(Some("immutable=1"));
    let connection = Connection::open_with_flags(uri.as_str(), flags)?;
    // A kill while pages were moved may have left the file shorter than its header says.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, true)?;
    generation(&connection)
}

/// Makes the database require the file: from now on it is not opened without it.
pub(super) fn require(connection: &Connection) -> Result<(), Fault> {
    connection
        .execute("INSERT INTO setting (name, value) VALUES ('epoch', '0') ON CONFLICT DO NOTHING", [])?;
    Ok(())
}

#[cfg(test)]
mod tests;
