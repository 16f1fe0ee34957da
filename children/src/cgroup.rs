//! Limits of a whole tree of processes, where a cgroup (version 2) is delegated to the gateway: systemd does that for a
//! service with `Delegate=memory pids` and `DelegateSubgroup=gateway`. Elsewhere rlimits stand in.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use crate::program::Limits;

/// A cgroup of one child. It is removed when this is dropped, if nothing is left in it.
#[derive(Debug)]
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    /// A new group with these limits; `None` where no cgroup is delegated.
    pub(crate) fn make(limits: &Limits) -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mount = mount(&fs::read_to_string("/proc/self/mountinfo").ok()?)?;
        // The gateway's own group cannot have groups inside, since it has processes. Those of children are beside it.
        Self::within(mount.join(own(&groups)?).parent()?, limits)
    }

    fn within(delegated: &Path, limits: &Limits) -> Option<Self> {
        let controllers = delegated.join("cgroup.subtree_control");
        let _ = fs::write(&controllers, "+memory +pids");
        let enabled = fs::read_to_string(controllers).ok()?;
        let is_enabled = |name| enabled.split_ascii_whitespace().any(|one| one == name);
        if !is_enabled("memory") || !is_enabled("pids") {
            return None;
        }
        let path = delegated.join(format!("child-{:032x}", rand::random::<u128>()));
        fs::create_dir(&path).ok()?;
        let cgroup = Self(path);
        let limit = |file: &str, most: Option<u64>| {
            most.is_none_or(|most| fs::write(cgroup.0.join(file), most.to_string()).is_ok())
        };
        if !limit("memory.max", limits.memory) || !limit("pids.max", limits.processes) {
            return None;
        }
        // Without memory to spare, the whole child ends, not one process of it.
        let _ = fs::write(cgroup.0.join("memory.oom.group"), "1");
        let _ = fs::write(cgroup.0.join("memory.swap.max"), "0");
        Some(cgroup)
    }

    /// Moves a process into the group. Says whether it is there.
    pub(crate) fn take(&self, pid: Pid) -> bool {
        fs::write(self.0.join("cgroup.procs"), pid.as_raw_pid().to_string()).is_ok()
    }

    /// Kills all that is in it at once (Linux 5.14).
    pub(crate) fn kill(&self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// The group of this process, relative to the mount: the line `0::/…`.
fn own(cgroups: &str) -> Option<&str> {
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // A group outside of this namespace is shown with dots; nothing there is ours.
    (!path.is_empty() && !path.split('/').any(|part| part == "..")).then_some(path)
}

/// Where version 2 is mounted.
fn mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (filesystem.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(point))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SRC-11: only a group that this process is itself inside of is taken for delegated.
    #[test]
    fn the_own_group_is_read_from_proc() {
        let systemd = "0::/system.slice/portcullis.service/gateway\n";
        assert_eq!(own(systemd), Some("system.slice/portcullis.service/gateway"));
        for none in ["", "0::/\n", "4:memory:/x\n", "0::/../other\n", "1:name=systemd:/x\n"] {
            assert_eq!(own(none), None, "{none}");
        }
        let hybrid = "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      31 25 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount(hybrid).as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(mount("31 25 0:27 /docker/x /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n"), None);
    }

    /// SRC-11: without the controllers there is no group, so the rlimits stay in force. A plain directory stands in for the
    /// kernel's: it takes what is written and has no controllers.
    #[test]
    fn without_delegated_controllers_there_is_no_group() {
        let dir = tempfile::tempdir().expect("a directory");
        let limits = Limits { memory: Some(1 << 30), processes: Some(64), ..Limits::default() };
        assert!(Cgroup::within(dir.path(), &limits).is_none());
        assert!(Cgroup::within(&dir.path().join("missing"), &limits).is_none());
        fs::write(dir.path().join("cgroup.subtree_control"), "").expect("written");
        assert!(Cgroup::within(dir.path(), &limits).is_none(), "what was written is not what is enabled");
    }
}
