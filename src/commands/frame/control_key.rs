//! What a command on the control socket proves: that its sender can read a file that only the server's user can read.
//!
//! Being able to connect proves less. A server behind the gate runs as the same user; it is kept from opening files of
//! the data directory, while on most kernels nothing keeps it from connecting to a socket there (SRC-11).

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use shared::data_dir::CONTROL_KEY;
use shared::{Digest, Secret};

const PREFIX: &str = "ctl_";
/// The most bytes that are read: more than a key has.
const LONGEST: u64 = 128;

/// Writes a new key. The one of an earlier server is void.
pub(super) fn make(dir: &Path) -> anyhow::Result<Digest> {
    let key = Secret::random(PREFIX);
    let path = dir.join(CONTROL_KEY);
    let written = || {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(key.expose().as_bytes())
    };
    written().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(key.digest())
}

/// The key of the server that runs.
pub(super) fn read(dir: &Path) -> anyhow::Result<Secret> {
    let path = dir.join(CONTROL_KEY);
    let mut key = String::new();
    let read = fs::File::open(&path).and_then(|file| file.take(LONGEST).read_to_string(&mut key));
    read.with_context(|| {
        format!("cannot read {}, which shows a server that this command may be given", path.display())
    })?;
    Ok(Secret::presented(key))
}

/// Whether this is the key.
pub(super) fn is_proven(key: &Digest, presented: Option<String>) -> bool {
    presented.is_some_and(|presented| Secret::presented(presented).digest() == *key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// SRC-11: only this server's key counts, and only its user can read it.
    #[test]
    fn a_control_key_of_an_earlier_server_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(read(dir.path()).is_err());
        let earlier = make(dir.path()).expect("written");
        let old = read(dir.path()).expect("read");
        assert!(is_proven(&earlier, Some(old.expose().to_owned())));
        let key = make(dir.path()).expect("written");
        assert!(!is_proven(&key, Some(old.expose().to_owned())));
        assert!(!is_proven(&key, Some(String::new())));
        assert!(!is_proven(&key, None));
        let mode = fs::metadata(dir.path().join(CONTROL_KEY)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
