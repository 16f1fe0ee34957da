//! Files that belong to another user: in words, with the way to run a command as that user.

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// Whose a file is, where it is not this process's user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ForeignOwner {
    owner: u32,
    group: u32,
    me: u32,
}

impl ForeignOwner {
    /// The owner of a file, if that is another user than this process's.
    pub fn of(metadata: &Metadata) -> Option<Self> {
        let me = rustix::process::geteuid().as_raw();
        (metadata.uid() != me).then(|| Self { owner: metadata.uid(), group: metadata.gid(), me })
    }
}

impl fmt::Display for ForeignOwner {
    /// As it follows the file's name. `chown` is not offered as a command: for a root that only wanted to read something
    /// it would take the directory away from the server.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, group, me } = self;
        write!(f, "belongs to uid {owner} and you are uid {me}. Run this command as that user: ")?;
        match (owner, me) {
            (0, _) => write!(f, "sudo …")?,
            (_, 0) => write!(f, "setpriv --reuid={owner} --regid={group} --clear-groups …")?,
            _ => write!(f, "sudo -u '#{owner}' …")?,
        }
        write!(f, " Change the owner only if the server is to run as somebody else")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OPS-03: a command on somebody else's directory says how to run it as that user, and offers no `chown`.
    #[test]
    fn another_users_file_is_told_with_the_way_to_become_that_user() {
        let words = |owner, me| ForeignOwner { owner, group: 7, me }.to_string();
        let root = words(12345, 0);
        assert!(root.contains("uid 12345 and you are uid 0"), "{root}");
        assert!(root.contains("setpriv --reuid=12345 --regid=7 --clear-groups"), "{root}");
        assert!(words(0, 1000).contains("sudo …"));
        assert!(words(12345, 1000).contains("sudo -u '#12345'"));
        for text in [root, words(0, 1000), words(12345, 1000)] {
            assert!(!text.contains("chown"), "{text}");
        }
    }
}
