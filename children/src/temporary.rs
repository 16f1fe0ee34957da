//! The private temporary directory of a child. A child may leave anything in it.

use std::ffi::CString;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, chmodat, openat, unlinkat};
use rustix::io::Errno;
use rustix::path::Arg;

/// A directory that only this user can use; it is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Temporary(PathBuf);

impl Temporary {
    pub(crate) fn make(within: &Path) -> io::Result<Self> {
        let name = format!("portcullis-child-{:032x}", rand::random::<u128>());
        let path = within.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            tracing::warn!(path = %self.0.display(), error = %error, "a temporary directory was not removed");
        }
    }
}

/// Removes a directory with all that is in it, at any depth and with any permissions. It goes down with one
/// handle and up by `..`, so nothing recurses and no path gets long. Nothing else may use the tree meanwhile.
fn remove(root: &Path) -> rustix::io::Result<()> {
    let mut here = enter(CWD, root)?;
    let mut inside = sweep(&here)?;
    // The way down: the directories still to be removed beside each one that was entered.
    let mut way: Vec<(CString, Vec<CString>)> = Vec::new();
    loop {
        if let Some(name) = inside.pop() {
            here = enter(here.as_fd(), &name)?;
            way.push((name, std::mem::replace(&mut inside, sweep(&here)?)));
        } else if let Some((name, beside)) = way.pop() {
            here = enter(here.as_fd(), c"..")?;
            unlinkat(&here, &name, AtFlags::REMOVEDIR)?;
            inside = beside;
        } else {
            return unlinkat(CWD, root, AtFlags::REMOVEDIR);
        }
    }
}

/// Opens a directory of this user, and makes it one that can be read and emptied.
fn enter(from: BorrowedFd<'_>, name: impl Arg + Copy) -> rustix::io::Result<OwnedFd> {
    chmodat(from, name, Mode::RWXU, AtFlags::empty())?;
    openat(from, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Removes the files of a directory, and says which directories are in it.
fn sweep(dir: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let mut directories = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::ISDIR) => directories.push(name.to_owned()),
            Err(error) => return Err(error),
        }
    }
    Ok(directories)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// SRC-11: whatever a child leaves behind is removed, and what its links point to is not.
    #[test]
    fn a_hostile_tree_is_removed_and_the_targets_of_its_links_stay() {
        let outside = tempfile::tempdir().expect("a directory");
        fs::write(outside.path().join("kept"), "kept").expect("written");
        let temporary = Temporary::make(outside.path()).expect("made");
        let root = temporary.path().to_owned();
        std::os::unix::fs::symlink(outside.path(), root.join("link")).expect("made");
        for name in ["1", "2", "3"] {
            fs::create_dir_all(root.join(name).join("2/3")).expect("made");
            fs::write(root.join(name).join("2/3/file"), "x").expect("written");
        }
        let closed = root.join("1/2");
        fs::set_permissions(closed, Permissions::from_mode(0o000)).expect("closed");
        nest(&root, 5000);
        drop(temporary);
        assert!(!root.exists());
        assert_eq!(fs::read_to_string(outside.path().join("kept")).expect("it is still there"), "kept");
    }

    /// Directories inside each other, deeper than any path can say.
    fn nest(root: &Path, depth: usize) {
        let mut here = enter(CWD, root).expect("opened");
        for _ in 0..depth {
            rustix::fs::mkdirat(&here, "nested", Mode::RWXU).expect("made");
            here = enter(here.as_fd(), c"nested").expect("opened");
        }
    }
}
