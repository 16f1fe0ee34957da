//! The data directory: private to one user, on a local disk, with one writer at a time.

mod holder;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, statfs};

use crate::owner::ForeignOwner;

/// The file with the end of the audit log.
pub const AUDIT_HEAD: &str = "audit.head";

/// What a command shows a running server to prove that it is of the same user and may read this directory.
pub const CONTROL_KEY: &str = "control.key";

/// The files that say where the audit log ended.
#[derive(Clone, Debug)]
pub struct Heads {
    /// The one beside the database.
    pub beside: PathBuf,
    /// One on another disk or machine.
    pub elsewhere: Option<PathBuf>,
}

/// An open data directory. The lock lasts as long as this value.
pub struct DataDir {
    path: PathBuf,
    /// A second file with the end of the audit log, at another place.
    mirror: Option<PathBuf>,
    // Held for its flock, which the kernel releases when the process ends for any reason.
    _lock: File,
}

/// Why a data directory cannot be used. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error(
        "cannot use the data directory {0}: {1}; give this user write permission, or choose another --data-dir"
    )]
    Unwritable(PathBuf, io::Error),
    #[error(
        "data directory {0} is in use by another portcullis{stop}, or choose another --data-dir",
        stop = stop(*.1)
    )]
    Locked(PathBuf, Option<u32>),
    #[error("{0} {1}")]
    Owner(PathBuf, ForeignOwner),
    #[error(
        "data directory {0} {1}. To start a new server, choose a directory of your own, or a new one inside this one if you may write there: --data-dir {0}/portcullis"
    )]
    DirectoryOwner(PathBuf, ForeignOwner),
    #[error("{0} can be read by others (mode {1:o}); run: chmod {2:o} {0}")]
    Permissions(PathBuf, u32, u32),
    #[error(
        "data directory {0} is on a network file system ({1}), where SQLite can lose data; use a local disk"
    )]
    NetworkFileSystem(PathBuf, &'static str),
    #[error("{0} is not a directory; choose another --data-dir")]
    NotADirectory(PathBuf),
    #[error(
        "{0}, where `mirror` in [audit] keeps the end of the audit log, is inside the data directory, so an older directory that is put back has an older file too. Name a file on another disk or machine"
    )]
    MirrorInside(PathBuf),
    #[error("no data directory {0}; start `portcullis serve` once, or give the right one with --data-dir")]
    Missing(PathBuf),
}

/// How to stop the process that holds the lock, as it follows "another portcullis".
fn stop(holder: Option<u32>) -> String {
    holder.map_or_else(
        || "; stop it".to_owned(),
        |process| format!(" (process {process}); stop it with: kill {process}"),
    )
}

impl DataDir {
    /// Opens the directory for writing, creating it with mode 0700 if it is missing.
    ///
    /// # Errors
    /// If it cannot be written, is open to other users, is on a network file system, or is in use.
    pub fn open_or_create(path: &Path) -> Result<Self, DataDirError> {
        if path.exists() {
            return Self::open(path);
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|e| DataDirError::Unwritable(path.to_owned(), e))?;
        Self::open(path)
    }

    /// Opens an existing directory.
    ///
    /// # Errors
    /// As [`DataDir::open_or_create`], and if it does not exist.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let unwritable = |e| DataDirError::Unwritable(path.to_owned(), e);
        check(path)?;
        tighten(path).map_err(unwritable)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(unwritable)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|e| {
            if e == rustix::io::Errno::WOULDBLOCK {
                DataDirError::Locked(path.to_owned(), holder::of(&lock))
            } else {
                unwritable(e.into())
            }
        })?;
        let dir = Self { path: path.to_owned(), mirror: None, _lock: lock };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir.backups()).map_err(unwritable)?;
        Ok(dir)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The main database, with everything but the search index.
    pub fn database(&self) -> PathBuf {
        self.path.join("portcullis.db")
    }

    /// Has the end of the audit log kept in a second file too, at another place (AUDIT-03).
    ///
    /// # Errors
    /// If that place is this directory, which would be put back together with the database.
    pub fn mirrored_to(mut self, file: Option<&Path>) -> Result<Self, DataDirError> {
        if let Some(file) = file {
            let parent = file.parent().and_then(|parent| parent.canonicalize().ok());
            let here = self.path.canonicalize().ok();
            if let (Some(parent), Some(here)) = (parent, here)
                && parent.starts_with(here)
            {
                return Err(DataDirError::MirrorInside(file.to_owned()));
            }
            self.mirror = Some(file.to_owned());
        }
        Ok(self)
    }

    /// The files with the end of the audit log.
    pub fn heads(&self) -> Heads {
        Heads { beside: self.audit_head(), elsewhere: self.mirror.clone() }
    }

    /// The file with the end of the audit log, outside the database (AUDIT-03).
    pub fn audit_head(&self) -> PathBuf {
        self.path.join(AUDIT_HEAD)
    }

    /// The search index, which can be rebuilt.
    pub fn docs_database(&self) -> PathBuf {
        self.path.join("docs.db")
    }

    /// The sealing key, which encrypts private keys (KEYS-05).
    pub fn seal_key(&self) -> PathBuf {
        self.path.join("seal.key")
    }

    /// Copies made before migrations.
    pub fn backups(&self) -> PathBuf {
        self.path.join("backups")
    }
}

/// Refuses a path that is missing, is not a directory, is open to other users or is on a network file system,
/// and files in it that are open to other users.
///
/// # Errors
/// See [`DataDirError`].
pub fn check(path: &Path) -> Result<(), DataDirError> {
    let unwritable = |e: io::Error| DataDirError::Unwritable(path.to_owned(), e);
    let metadata = fs::metadata(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => DataDirError::Missing(path.to_owned()),
        _ => unwritable(e),
    })?;
    if !metadata.is_dir() {
        return Err(DataDirError::NotADirectory(path.to_owned()));
    }
    let file_system = statfs(path).map_err(|e| unwritable(e.into()))?;
    if let Some(name) = network_file_system(file_system.f_type) {
        return Err(DataDirError::NetworkFileSystem(path.to_owned(), name));
    }
    if is_shared_by_setgid(&metadata) {
        // The group of a volume (Kubernetes' fsGroup): a server removes the group's permissions when it opens
        // the directory.
        return tightenable(path);
    }
    if let Some(owner) = ForeignOwner::of(&metadata) {
        return Err(DataDirError::DirectoryOwner(path.to_owned(), owner));
    }
    private(path, &metadata, 0o700)?;
    for file in ["portcullis.db", AUDIT_HEAD, "docs.db", "seal.key", CONTROL_KEY, "lock"] {
        let file = path.join(file);
        if let Ok(metadata) = fs::metadata(&file) {
            private(&file, &metadata, 0o600)?;
        }
    }
    Ok(())
}

/// Whether this is our directory as Kubernetes' `fsGroup` leaves it at every start of a pod: setgid, everything
/// allowed to the group, nothing to others.
fn is_shared_by_setgid(metadata: &fs::Metadata) -> bool {
    let mode = metadata.mode() & 0o7777;
    metadata.uid() == rustix::process::geteuid().as_raw() && mode & 0o2077 == 0o2070
}

/// Refuses files in such a directory that belong to another user, or that users outside the group can access.
fn tightenable(path: &Path) -> Result<(), DataDirError> {
    for file in contents(path).map_err(|e| DataDirError::Unwritable(path.to_owned(), e))? {
        let Ok(metadata) = fs::symlink_metadata(&file) else { continue };
        if let Some(owner) = ForeignOwner::of(&metadata).filter(|_| metadata.is_file()) {
            return Err(DataDirError::Owner(file, owner));
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o007 != 0 && metadata.is_file() {
            return Err(DataDirError::Permissions(file, mode, 0o600));
        }
    }
    Ok(())
}

/// Removes the group's permissions; from the directory first, so that another process of the group cannot
/// interfere.
fn tighten(path: &Path) -> io::Result<()> {
    if !is_shared_by_setgid(&fs::metadata(path)?) {
        return Ok(());
    }
    tracing::warn!(
        data_dir = %path.display(),
        "the directory's group could read and write it, as fsGroup of Kubernetes makes it; now only this user can"
    );
    let private = |path: &Path, kind: OFlags, mode: u32| -> io::Result<()> {
        // Through a handle, so that a symbolic link is not followed.
        let handle = rustix::fs::open(
            path,
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | kind,
            Mode::empty(),
        )?;
        Ok(rustix::fs::fchmod(&handle, Mode::from_raw_mode(mode))?)
    };
    // The data directory itself may be a symbolic link.
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    for file in contents(path)? {
        let metadata = fs::symlink_metadata(&file)?;
        if metadata.is_dir() {
            private(&file, OFlags::DIRECTORY, 0o700)?;
        } else if metadata.is_file() {
            private(&file, OFlags::empty(), 0o600)?;
        }
    }
    Ok(())
}

/// The contents of the directory and of its backups.
fn contents(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in [path.to_owned(), path.join("backups")] {
        match fs::read_dir(&folder) {
            Ok(entries) => {
                for entry in entries {
                    found.push(entry?.path());
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

fn private(path: &Path, metadata: &fs::Metadata, wanted: u32) -> Result<(), DataDirError> {
    if let Some(owner) = ForeignOwner::of(metadata) {
        return Err(DataDirError::Owner(path.to_owned(), owner));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(DataDirError::Permissions(path.to_owned(), mode, wanted));
    }
    Ok(())
}

/// The magic numbers of `statfs(2)` for file systems whose locks or syncs SQLite cannot rely on.
#[allow(
    clippy::unnecessary_cast,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "magic numbers have 32 bits; the type of f_type differs between targets"
)]
fn network_file_system(kind: rustix::fs::FsWord) -> Option<&'static str> {
    match kind as u32 {
        0x6969 => Some("NFS"),
        0x517B | 0xFF53_4D42 | 0xFE53_4D42 => Some("SMB"),
        0x0102_1997 => Some("9P"),
        0x6573_5546 => Some("FUSE"),
        0x00C3_6400 => Some("Ceph"),
        0x5346_414F | 0x6B41_4653 => Some("AFS"),
        0x0BD0_0BD0 => Some("Lustre"),
        0x4750_4653 => Some("GPFS"),
        0x7375_7245 => Some("Coda"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_is_private_and_locked() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let dir = DataDir::open_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        // Another opened file is another holder, also in one process.
        let refused = DataDir::open(&path).err().unwrap();
        assert!(matches!(refused, DataDirError::Locked(..)));
        let (said, process) = (refused.to_string(), std::process::id());
        assert!(
            said.contains(&format!("(process {process}); stop it with: kill {process}, or choose")),
            "{said}"
        );
        drop(dir);
        DataDir::open(&path).unwrap();
    }

    /// OPS-03: weak permissions are refused, and the message says how to fix them.
    #[test]
    fn a_directory_or_file_open_to_others_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        drop(DataDir::open_or_create(&path).unwrap());
        fs::write(path.join("seal.key"), "x").unwrap();
        fs::set_permissions(path.join("seal.key"), fs::Permissions::from_mode(0o640)).unwrap();
        let refused = DataDir::open(&path).err().unwrap().to_string();
        assert!(refused.contains("mode 640") && refused.contains("chmod 600"), "{refused}");
        fs::set_permissions(path.join("seal.key"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let refused = DataDir::open(&path).err().unwrap().to_string();
        assert!(refused.contains("chmod 700"), "{refused}");
    }

    /// OPS-03: the permissions that Kubernetes' fsGroup sets at every start of a pod are removed; permissions
    /// of other users are still refused.
    #[test]
    fn a_volume_of_a_group_is_made_private_and_no_other_one() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        drop(DataDir::open_or_create(&path).unwrap());
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        let files =
            ["seal.key", "portcullis.db", "portcullis.db-wal", "backups/old.db"].map(|file| path.join(file));
        let elsewhere = parent.path().join("elsewhere");
        fs::write(&elsewhere, "x").unwrap();
        set(&elsewhere, 0o644);
        std::os::unix::fs::symlink(&elsewhere, path.join("link")).unwrap();
        for file in &files {
            fs::write(file, "x").unwrap();
            set(file, 0o660);
        }
        set(&path.join("backups"), 0o2770);
        set(&path, 0o2770);
        drop(DataDir::open(&path).unwrap());
        assert_eq!(mode(&path) & 0o777, 0o700);
        assert_eq!(mode(&path.join("backups")) & 0o777, 0o700);
        assert!(files.iter().all(|file| mode(file) == 0o600));
        assert_eq!(mode(&elsewhere), 0o644);
        for open in [0o2775, 0o2771, 0o770, 0o750, 0o2750] {
            set(&path, open);
            assert!(matches!(DataDir::open(&path), Err(DataDirError::Permissions(..))), "{open:o}");
        }
        set(&path, 0o2770);
        set(&files[0], 0o664);
        assert!(matches!(DataDir::open(&path), Err(DataDirError::Permissions(..))));
    }

    #[test]
    fn a_missing_directory_and_a_file_are_told_apart() {
        let parent = tempfile::tempdir().unwrap();
        assert!(matches!(DataDir::open(&parent.path().join("no")), Err(DataDirError::Missing(_))));
        fs::write(parent.path().join("file"), "").unwrap();
        assert!(matches!(DataDir::open(&parent.path().join("file")), Err(DataDirError::NotADirectory(_))));
    }

    #[test]
    fn network_file_systems_are_known_by_their_magic() {
        assert_eq!(network_file_system(0x6969), Some("NFS"));
        assert_eq!(network_file_system(0xEF53), None);
    }
}
