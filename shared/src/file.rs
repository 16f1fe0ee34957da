//! Files that a configuration or a command names. A pipe in the place of a file does not hold the program up, and none is
//! read beyond its bounds.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// No configuration, key, certificate, secret or document has more bytes.
pub const LARGEST: u64 = 1 << 20;

/// Opens a file to read it, without waiting: for callers that look at its metadata first.
///
/// # Errors
/// As [`File::open`].
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)
}

/// All of an open file. A device may stand for one: `/dev/null` for an empty one.
///
/// # Errors
/// If it is a pipe, a socket or a folder, or larger than 1 MiB.
pub fn read_open(file: &File) -> io::Result<Vec<u8>> {
    let kind = file.metadata()?.file_type();
    if !kind.is_file() && !kind.is_char_device() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    bounded(file)
}

/// All of a file.
///
/// # Errors
/// As [`read_open`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_open(&open(path)?)
}

/// The text of a file.
///
/// # Errors
/// As [`read`], and if it is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    text(read(path)?)
}

/// The text of what a command was given to read, which may be a pipe: a shell makes one for `<(…)`.
///
/// # Errors
/// If it is larger than 1 MiB, or not UTF-8.
pub fn read_input(path: &Path) -> io::Result<String> {
    text(bounded(&File::open(path)?)?)
}

/// Bytes as text.
///
/// # Errors
/// If they are not UTF-8.
pub fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

fn bounded(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than 1 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OPS-03: what is not a file of a sensible size is refused at once.
    #[test]
    fn only_small_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), rustix::fs::Mode::RWXU).unwrap();
        std::fs::write(at("large"), vec![b'a'; (1 << 20) + 1]).unwrap();
        std::fs::write(at("most"), vec![b'a'; 1 << 20]).unwrap();
        std::fs::write(at("bytes"), [0xff]).unwrap();
        let why = |path: &Path| read_text(path).unwrap_err().to_string();
        assert_eq!(why(&at("pipe")), "it is not a file");
        assert_eq!(why(dir.path()), "it is not a file");
        assert_eq!(why(Path::new("/dev/zero")), "it is larger than 1 MiB");
        assert_eq!(read_text(Path::new("/dev/null")).unwrap(), "");
        assert_eq!(why(&at("large")), "it is larger than 1 MiB");
        assert_eq!(why(&at("bytes")), "it is not UTF-8 text");
        assert_eq!(read_text(&at("most")).unwrap().len(), 1 << 20);
        assert_eq!(read_input(Path::new("/dev/zero")).unwrap_err().to_string(), "it is larger than 1 MiB");
    }
}
