//! Where the audit chain ends, written down beside the database (AUDIT-03, STORE-06).
//!
//! Whoever puts an older copy of the database in its place takes back what was revoked since. The copy's chain ends
//! earlier than this file says, and then nothing starts. The file is written after a commit that outlives a loss of
//! power and before anybody is answered, so it never names a record that is not in the database.
//!
//! It also says how far the database's file is by itself. An older file under the -wal that a killed process left would
//! be taken for the newest: the end of the log stands in the -wal, and what was revoked before it began does not.

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

/// Two places take turns, each in a block of its own: a write that is cut off leaves the other one whole.
const SLOT: usize = 4096;
const FORMAT: &str = "portcullis-audit-head v1";
const KEEP_GENERATION: &str =
    "INSERT INTO setting (name, value) VALUES ('generation', ?1) ON CONFLICT (name) DO UPDATE SET value = ?1";

/// What the file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Noted {
    /// How often a backup was restored.
    pub epoch: i64,
    /// The end of the audit chain.
    pub head: Head,
    /// The generation that the database's file alone, without its -wal, has reached at least; 0 if nothing is known.
    base: i64,
    /// What a database will be that is about to be put in this one's place: epoch and head.
    next: Option<(i64, Head)>,
}

impl Noted {
    /// Of a database whose chain ends there.
    pub fn at(epoch: i64, head: Head) -> Self {
        Self { epoch, head, base: 0, next: None }
    }

    /// Whether a database's file is older than the -wal beside it.
    pub(super) fn is_ahead_of(&self, database: &Path) -> bool {
        has_wal(database) && generation_without_wal(database).is_ok_and(|found| found < self.base)
    }
}

/// The file, open for writing.
pub(super) struct Mirror {
    path: PathBuf,
    file: File,
    turn: u64,
    noted: Noted,
}

impl Mirror {
    /// The file of a database that is about to be opened; `None` if there is none. A database that was here and is
    /// not any more is refused before another one is made in its place.
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

    /// Refuses to take a database without anything in it for the one that was here.
    pub(super) fn first_start(&self) -> Result<(), MirrorError> {
        match self.noted.head.seq() {
            0 => Ok(()),
            noted => Err(MirrorError::Gone(self.path.clone(), noted)),
        }
    }

    fn open(path: &Path) -> Result<Option<Self>, MirrorError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(MirrorError::Unusable(path.to_owned(), e)),
        };
        let (turn, noted) = contents(path, &file)?;
        Ok(Some(Self { path: path.to_owned(), file, turn, noted }))
    }

    /// Makes the file, whole or not at all.
    pub(super) fn create(path: &Path, noted: Noted) -> Result<Self, MirrorError> {
        let file = place(path, &noted).map_err(|e| MirrorError::Unusable(path.to_owned(), e))?;
        Ok(Self { path: path.to_owned(), file, turn: 0, noted })
    }

    /// Refuses a database whose chain does not reach to what is noted, or leads elsewhere.
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

    /// Finds out whether a restore that was broken off had put its database in place.
    fn settle(&mut self, connection: &Connection) -> Result<(), OpenError> {
        let Some((epoch, head)) = self.noted.next.clone() else { return Ok(()) };
        let done = self::epoch(connection)? == Some(epoch)
            && Head::at(&Conn::new(connection), head.seq())?.as_ref() == Some(&head);
        let noted = if done { Noted::at(epoch, head) } else { Noted { next: None, ..self.noted.clone() } };
        Ok(self.write(noted)?)
    }

    /// Says that a restored database is about to be put in the place of the last one. Where the file says nothing of
    /// that one, it says what the restored one is.
    pub(super) fn expect(path: &Path, noted: Option<Noted>, restored: &Noted) -> Result<(), OpenError> {
        match (noted, Self::open(path)) {
            (Some(noted), Ok(Some(mut mirror))) => {
                Ok(mirror.write(Noted { next: Some((restored.epoch, restored.head.clone())), ..noted })?)
            }
            _ => Ok(Self::create(path, restored.clone()).map(drop)?),
        }
    }

    /// Writes down where the chain ends now, if that has changed. It is on disk when this returns.
    pub(super) fn note(&mut self, head: &Head) -> Result<(), Fault> {
        if self.noted.head == *head {
            return Ok(());
        }
        self.write(Noted { head: head.clone(), ..self.noted.clone() })
    }

    /// Moves everything into the database's file, so that the -wal begins anew, and writes down of which generation the
    /// file is from now on. If a reader is in the way, the -wal goes on; the next attempt will do.
    pub(super) fn checkpoint(&mut self, connection: &Connection, mode: &str) -> Result<bool, Fault> {
        let generation = generation(connection)? + 1;
        connection.prepare_cached(KEEP_GENERATION)?.execute([generation.to_string()])?;
        connection.busy_timeout(Duration::ZERO)?;
        let busy =
            connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get::<_, i64>(0));
        connection.busy_timeout(PATIENCE)?;
        let done = busy? == 0;
        if done {
            self.write(Noted { base: generation, ..self.noted.clone() })?;
        }
        Ok(done)
    }

    /// Before tables change: if that is broken off, the file alone may be readable as neither.
    pub(super) fn forget_base(&mut self) -> Result<(), Fault> {
        self.write(Noted { base: 0, ..self.noted.clone() })
    }

    fn write(&mut self, noted: Noted) -> Result<(), Fault> {
        self.put(&noted)
            .map_err(|e| Fault::Storage(format!("{} could not be written: {e}", self.path.display())))?;
        self.noted = noted;
        Ok(())
    }

    fn put(&mut self, noted: &Noted) -> io::Result<()> {
        // Somebody may have taken the file away: the next start must find one.
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

/// What the file says; `None` if there is none.
///
/// # Errors
/// If it cannot be read, or says nothing that it was told.
pub fn read(path: &Path) -> Result<Option<Noted>, MirrorError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(MirrorError::Unusable(path.to_owned(), e)),
    };
    Ok(Some(contents(path, &file)?.1))
}

/// The newer of the two places, and its turn.
fn contents(path: &Path, file: &File) -> Result<(u64, Noted), MirrorError> {
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

fn slot(turn: u64, noted: &Noted) -> Vec<u8> {
    let Noted { epoch, head, base, next } = noted;
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

fn parse(slot: &[u8]) -> Option<(u64, Noted)> {
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
    Some((turn, Noted { epoch, head, base, next }))
}

/// Puts a new file there in one step, readable by this user alone.
fn place(path: &Path, noted: &Noted) -> io::Result<File> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&temporary)?;
    // Both places exist from the start, so that later writes change no length.
    file.write_all(&slot(0, noted))?;
    file.write_all(&slot(0, noted))?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()?;
    Ok(file)
}

/// How often a backup was restored into this database; `None` if it never had the file beside it.
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
/// The database's fault.
pub fn needed(conn: &Conn<'_>) -> Result<bool, Fault> {
    Ok(conn.query_row("SELECT 1 FROM setting WHERE name = 'epoch'", [], |_| Ok(()))?.is_some())
}

/// How often everything was moved into the database's file.
fn generation(connection: &Connection) -> Result<i64, Fault> {
    let text: Option<String> = connection
        .query_row("SELECT value FROM setting WHERE name = 'generation'", [], |row| row.get(0))
        .optional()?;
    let bad = |_| Fault::Corrupt("the generation is not a number".to_owned());
    text.map_or(Ok(0), |text| text.parse().map_err(bad))
}

/// Whether changes lie beside the database's file: the last process was killed.
pub(super) fn has_wal(database: &Path) -> bool {
    let mut wal = database.as_os_str().to_owned();
    wal.push("-wal");
    fs::metadata(wal).is_ok_and(|file| file.len() > 0)
}

/// The generation of the database's file as it is by itself.
fn generation_without_wal(database: &Path) -> Result<i64, Fault> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut uri =
        Url::from_file_path(std::path::absolute(database).map_err(|e| Fault::Storage(e.to_string()))?)
            .map_err(|()| Fault::Storage("the database's path is not absolute".to_owned()))?;
    uri.set_query(Some("immutable=1"));
    let connection = Connection::open_with_flags(uri.as_str(), flags)?;
    // A kill while pages were moved may have left the file shorter than it says.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, true)?;
    generation(&connection)
}

/// From now on the file belongs to this database: without it, it is not opened any more.
pub(super) fn require(connection: &Connection) -> Result<(), Fault> {
    connection
        .execute("INSERT INTO setting (name, value) VALUES ('epoch', '0') ON CONFLICT DO NOTHING", [])?;
    Ok(())
}

#[cfg(test)]
mod tests;
