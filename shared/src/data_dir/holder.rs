//! Which process holds the lock of a data directory.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{major, minor};

/// The process that holds a `flock` on this file, as the kernel's list names it; `None` if the list does not show it, as
/// for a process outside this container.
pub(super) fn of(lock: &File) -> Option<u32> {
    let metadata = lock.metadata().ok()?;
    let (device, inode) = (metadata.dev(), metadata.ino());
    let file = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    holder(&fs::read_to_string("/proc/locks").ok()?, &file)
}

/// A line is `1: FLOCK  ADVISORY  WRITE 18547 08:02:131 0 EOF` (proc_locks(5)).
fn holder(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        // A process that waits for the lock has `->` here.
        let is_held = fields.next()? == "FLOCK";
        let (process, locked) = (fields.nth(2)?, fields.next()?);
        let process: u32 = process.parse().ok()?;
        (is_held && locked == file && process != 0).then_some(process)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_among_other_locks() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 08:02:131 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 18547 08:02:131 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 9 08:02:132 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 0 08:02:133 0 EOF\n\
                     nonsense\n";
        assert_eq!(holder(locks, "08:02:131"), Some(18547));
        assert_eq!(holder(locks, "08:02:132"), None);
        assert_eq!(holder(locks, "08:02:133"), None);
        assert_eq!(holder(locks, "08:02:13"), None);
        assert_eq!(holder("", ""), None);
    }
}
