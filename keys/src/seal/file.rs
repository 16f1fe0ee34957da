//! The sealing key file: a header line with format version and key id, and a line with the key. During a reseal
//! it holds two keys, the new one last.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use shared::Fault;
use shared::owner::ForeignOwner;
use shared::secret::random;
use zeroize::Zeroizing;

use super::ID;
use crate::jwt::CryptoFailed;

const FORMAT: &str = "portcullis-seal-key v1 ";
/// A file with more bytes is refused; one key has 84 bytes.
const LONGEST: usize = 256;

const TEMPORARY: &str = ".seal-key-";

/// Why the sealing key cannot be used. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error(
        "no seal key at {0}, but the database contains keys sealed with one; put it back (backups do not include it)"
    )]
    Missing(PathBuf),
    #[error("{0} can be read or changed by others (mode {1:o}); run: chmod 600 {0}")]
    Permissions(PathBuf, u32),
    #[error("{0} {1}")]
    Owner(PathBuf, ForeignOwner),
    #[error("{0} is not a valid seal key file; put the right one there")]
    Malformed(PathBuf),
    #[error("cannot read the seal key {0}: {1}")]
    Unreadable(PathBuf, io::Error),
    #[error("cannot write the seal key {0}: {1}; give this user write permission to its directory")]
    Unwritable(PathBuf, io::Error),
    #[error("{0} exists already; choose a new file name")]
    Exists(PathBuf),
    #[error(
        "{0} contains a different key than the one in use; put back the one that the server was started with"
    )]
    Replaced(PathBuf),
    #[error(
        "{0} is a service manager credential, which this command cannot change; give a new file for the new key"
    )]
    ReadOnly(PathBuf),
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error(transparent)]
    Crypto(#[from] CryptoFailed),
}

pub(super) struct SealKey {
    pub(super) id: [u8; ID],
    pub(super) secret: Zeroizing<[u8; 32]>,
}

impl SealKey {
    pub(super) fn random() -> Self {
        Self { id: random::<ID>(), secret: Zeroizing::new(random::<32>()) }
    }
}

/// The keys in the file, the current one last.
pub(super) fn open_or_create(path: &Path, may_create: bool) -> Result<Vec<SealKey>, SealError> {
    match open(path, 0o077) {
        Err(SealError::Missing(_)) if may_create => {
            create(path).map_err(|e| SealError::Unwritable(path.to_owned(), e))?;
            open(path, 0o077)
        }
        opened => opened,
    }
}

/// The same for a service manager's credential, which its group may read.
pub(super) fn open_credential(path: &Path) -> Result<Vec<SealKey>, SealError> {
    open(path, 0o037)
}

fn open(path: &Path, forbidden: u32) -> Result<Vec<SealKey>, SealError> {
    let unreadable = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => SealError::Missing(path.to_owned()),
        _ => SealError::Unreadable(path.to_owned(), e),
    };
    let file = shared::file::open(path).map_err(unreadable)?;
    // Check the open file, so that the checked file is the one that is read.
    let metadata = file.metadata().map_err(unreadable)?;
    let mode = metadata.mode() & 0o7777;
    if !metadata.is_file() {
        return Err(SealError::Malformed(path.to_owned()));
    }
    if mode & forbidden != 0 {
        return Err(SealError::Permissions(path.to_owned(), mode));
    }
    // Root can read it anyhow.
    if let Some(owner) = ForeignOwner::of(&metadata).filter(|_| metadata.uid() != 0) {
        return Err(SealError::Owner(path.to_owned(), owner));
    }
    // Large enough not to be reallocated, which would leave a copy of the key in memory.
    let mut text = Zeroizing::new(Vec::with_capacity(2 * LONGEST));
    file.take(LONGEST as u64).read_to_end(&mut text).map_err(unreadable)?;
    parse(&text).ok_or_else(|| SealError::Malformed(path.to_owned()))
}

fn parse(text: &[u8]) -> Option<Vec<SealKey>> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
    let lines: Vec<&str> = text.split('\n').collect();
    let (pairs, []) = lines.as_chunks::<2>() else { return None };
    let keys = pairs.iter().map(|[header, secret]| one(header, secret)).collect::<Option<Vec<_>>>()?;
    match &keys[..] {
        [_] => Some(keys),
        [old, new] if old.id != new.id => Some(keys),
        _ => None,
    }
}

fn one(header: &str, secret_text: &str) -> Option<SealKey> {
    let id_text = header.strip_prefix(FORMAT)?;
    let mut key = SealKey { id: [0; ID], secret: Zeroizing::new([0; 32]) };
    if id_text.len() != HEXLOWER.encode_len(ID) || secret_text.len() != BASE64URL_NOPAD.encode_len(32) {
        return None;
    }
    HEXLOWER.decode_mut(id_text.as_bytes(), &mut key.id).ok()?;
    BASE64URL_NOPAD.decode_mut(secret_text.as_bytes(), &mut key.secret[..]).ok()?;
    Some(key)
}

/// Creates the file atomically: a private temporary file, synced, then linked to its name. Unlike a rename, a
/// link fails if the name exists, so a sealing key is never overwritten.
fn create(path: &Path) -> io::Result<()> {
    place(path, &[&SealKey::random()], |temporary| match fs::hard_link(temporary, path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    })
}

/// Writes a copy to a path that must not exist.
pub(super) fn write_new(path: &Path, keys: &[&SealKey]) -> Result<(), SealError> {
    place(path, keys, |temporary| fs::hard_link(temporary, path)).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => SealError::Exists(path.to_owned()),
        _ => SealError::Unwritable(path.to_owned(), e),
    })
}

/// Replaces the file's keys atomically: at every moment the file has either all old or all new keys.
pub(super) fn replace(path: &Path, keys: &[&SealKey]) -> Result<(), SealError> {
    place(path, keys, |temporary| fs::rename(temporary, path))
        .map_err(|e| SealError::Unwritable(path.to_owned(), e))
}

/// Writes a private temporary file beside the path, synced, then gives it its name and syncs that.
fn place(path: &Path, keys: &[&SealKey], name: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let directory = directory(path);
    let temporary = directory.join(format!("{TEMPORARY}{}", HEXLOWER.encode(&random::<8>())));
    let written = write(&temporary, keys).and_then(|()| name(&temporary));
    let removed = match fs::remove_file(&temporary) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    };
    written.and(removed)?;
    File::open(directory)?.sync_all()
}

/// Removes temporary copies of the key that a killed process left. Failures are ignored: without write access
/// nothing could have been left.
pub(super) fn sweep(path: &Path) {
    let Ok(entries) = fs::read_dir(directory(path)) else { return };
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn write(path: &Path, keys: &[&SealKey]) -> io::Result<()> {
    let mut text = Zeroizing::new(String::with_capacity(LONGEST));
    for key in keys {
        text.push_str(FORMAT);
        HEXLOWER.encode_append(&key.id, &mut text);
        text.push('\n');
        BASE64URL_NOPAD.encode_append(&key.secret[..], &mut text);
        text.push('\n');
    }
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
