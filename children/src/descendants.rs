//! The end of every process below this one, whatever it did to get away: a child subreaper is the parent of all that lose
//! theirs, so nothing below it leaves the tree, not by `setsid`, not by forking twice.

use std::fs;
use std::io;
use std::thread::sleep;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpid, pidfd_open, pidfd_send_signal, wait,
};

/// The pause between two rounds, for the kernel to end what was killed.
const PAUSE: Duration = Duration::from_millis(1);

/// Makes this process the parent of all below it that lose theirs.
pub(crate) fn adopt() -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(getpid()))?;
    // What cannot be listed could not be killed.
    children(getpid())?;
    Ok(())
}

/// Reaps what has ended; `ended` is told of each. Says whether children are left.
pub(crate) fn reap(mut ended: impl FnMut(Pid, WaitStatus)) -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => ended(pid, status),
            Ok(None) => return true,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Kills everything below this process, and returns when nothing is left.
pub(crate) fn kill_all() {
    loop {
        kill_round();
        if !reap(|_, _| {}) {
            return;
        }
        sleep(PAUSE);
    }
}

/// Kills what is there now, from the top down. What is forked meanwhile loses its parent, becomes a child of this process
/// and belongs to the next round.
fn kill_round() {
    let me = getpid();
    let mut found = vec![me];
    while let Some(parent) = found.pop() {
        for child in children(parent).unwrap_or_default() {
            // The handle comes first: if the number belongs to another process by now, the check fails or the signal goes
            // to nobody.
            let Ok(handle) = pidfd_open(child, PidfdFlags::empty()) else { continue };
            if parent_of(child).is_some_and(|above| above == parent || above == me) {
                found.push(child);
                let _ = pidfd_send_signal(&handle, Signal::KILL);
            }
        }
    }
}

/// The children of all threads of a process.
fn children(parent: Pid) -> io::Result<Vec<Pid>> {
    let mut children = Vec::new();
    for thread in fs::read_dir(format!("/proc/{}/task", parent.as_raw_pid()))? {
        let listed = match fs::read_to_string(thread?.path().join("children")) {
            Ok(listed) => listed,
            // A thread that ended meanwhile; of this process there is one that never does.
            Err(_) if parent != getpid() => continue,
            Err(error) => return Err(error),
        };
        children.extend(
            listed.split_ascii_whitespace().filter_map(|pid| pid.parse().ok().and_then(Pid::from_raw)),
        );
    }
    Ok(children)
}

/// The parent of a process, from `/proc/PID/stat`. The name before it may contain anything, also `)`.
fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = fs::read(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    let after_name = memchr::memrchr(b')', &stat)? + 1;
    let text = std::str::from_utf8(stat.get(after_name..)?).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_of_a_process_is_found() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("started");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        assert_eq!(parent_of(pid), Some(getpid()));
        assert!(children(getpid()).expect("listed").contains(&pid));
        child.kill().expect("killed");
        child.wait().expect("waited for");
        assert_eq!(parent_of(pid), None);
    }
}
