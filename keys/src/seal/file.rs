//! The seal key file: a header line with format version and key id, and a line with the key.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use shared::secret::random;
use zeroize::Zeroizing;

use super::ID;
use crate::jwt::CryptoFailed;

const FORMAT: &str = "portcullis-seal-key v1 ";
/// The file is 84 bytes; whatever is longer than this is something else.
const LONGEST: usize = 256;

/// Why the seal key cannot be used. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error(
        "there is no seal key at {0}, but the database holds keys sealed with one; put it back (backups leave it out)"
    )]
    Missing(PathBuf),
    #[error("{0} can be read or changed by others (mode {1:o}); run: chmod 600 {0}")]
    Permissions(PathBuf, u32),
    #[error("{0} is not a seal key file of this program; put the right one there")]
    Malformed(PathBuf),
    #[error("cannot read the seal key {0}: {1}")]
    Unreadable(PathBuf, io::Error),
    #[error("cannot create the seal key {0}: {1}; give this user write permission to its directory")]
    Unwritable(PathBuf, io::Error),
    #[error(transparent)]
    Crypto(#[from] CryptoFailed),
}

pub(super) struct SealKey {
    pub(super) id: [u8; ID],
    pub(super) secret: Zeroizing<[u8; 32]>,
}

pub(super) fn open_or_create(path: &Path, may_create: bool) -> Result<SealKey, SealError> {
    match open(path) {
        Err(SealError::Missing(_)) if may_create => {
            create(path).map_err(|e| SealError::Unwritable(path.to_owned(), e))?;
            open(path)
        }
        opened => opened,
    }
}

fn open(path: &Path) -> Result<SealKey, SealError> {
    let unreadable = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => SealError::Missing(path.to_owned()),
        _ => SealError::Unreadable(path.to_owned(), e),
    };
    let file = File::open(path).map_err(unreadable)?;
    // Of the open file, so that what is checked is what is read.
    let metadata = file.metadata().map_err(unreadable)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if !metadata.is_file() {
        return Err(SealError::Malformed(path.to_owned()));
    }
    if mode & 0o077 != 0 {
        return Err(SealError::Permissions(path.to_owned(), mode));
    }
    // Large enough never to move, which would leave a copy behind.
    let mut text = Zeroizing::new(Vec::with_capacity(2 * LONGEST));
    file.take(LONGEST as u64).read_to_end(&mut text).map_err(unreadable)?;
    parse(&text).ok_or_else(|| SealError::Malformed(path.to_owned()))
}

fn parse(text: &[u8]) -> Option<SealKey> {
    let text = std::str::from_utf8(text).ok()?;
    let (header, secret_text) = text.strip_suffix('\n')?.split_once('\n')?;
    let id_text = header.strip_prefix(FORMAT)?;
    let mut key = SealKey { id: [0; ID], secret: Zeroizing::new([0; 32]) };
    if id_text.len() != HEXLOWER.encode_len(ID) || secret_text.len() != BASE64URL_NOPAD.encode_len(32) {
        return None;
    }
    HEXLOWER.decode_mut(id_text.as_bytes(), &mut key.id).ok()?;
    BASE64URL_NOPAD.decode_mut(secret_text.as_bytes(), &mut key.secret[..]).ok()?;
    Some(key)
}

/// All or nothing: a private temporary file, synced, then linked to its name. A link, unlike a
/// rename, fails when the name exists: a seal key is never overwritten, and the earlier one stands.
fn create(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let temporary = directory.join(format!(".seal-key-{}", HEXLOWER.encode(&random::<8>())));
    let written = write(&temporary).and_then(|()| match fs::hard_link(&temporary, path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    let removed = match fs::remove_file(&temporary) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    };
    written.and(removed)?;
    File::open(directory)?.sync_all()
}

fn write(path: &Path) -> io::Result<()> {
    let secret = Zeroizing::new(random::<32>());
    let mut text = Zeroizing::new(String::with_capacity(LONGEST));
    text.push_str(FORMAT);
    HEXLOWER.encode_append(&random::<ID>(), &mut text);
    text.push('\n');
    BASE64URL_NOPAD.encode_append(&secret[..], &mut text);
    text.push('\n');
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
