//! Sockets in the file system are closed to a child: on most kernels Landlock does not restrict connecting to them, and
//! behind one may be a program that does anything for this user (`docker.sock`, D-Bus, an SSH agent).
//!
//! A filter of system calls refuses to make sockets of that family. Pairs of connected ones remain: programs speak with
//! processes of their own through them.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// The number by which x32 programs on x86-64 call the same function.
#[cfg(target_arch = "x86_64")]
const X32: libc::c_long = 0x4000_0000;

/// Closes them to the calling thread and what it executes.
pub(crate) fn close() -> Result<(), seccompiler::Error> {
    seccompiler::apply_filter(&filter()?)
}

fn filter() -> Result<BpfProgram, seccompiler::Error> {
    let unix = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::Eq,
        u64::from(libc::AF_UNIX.unsigned_abs()),
    )?;
    let of_unix = vec![SeccompRule::new(vec![unix])?];
    let mut rules = BTreeMap::new();
    rules.insert(libc::SYS_socket, of_unix.clone());
    // It makes sockets and connects them without those calls. Programs do without it where it is refused.
    rules.insert(libc::SYS_io_uring_setup, Vec::new());
    #[cfg(target_arch = "x86_64")]
    {
        rules.insert(libc::SYS_socket | X32, of_unix);
        rules.insert(libc::SYS_io_uring_setup | X32, Vec::new());
    }
    let refused = SeccompAction::Errno(libc::EACCES.unsigned_abs());
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, refused, std::env::consts::ARCH.try_into()?)?;
    Ok(filter.try_into()?)
}
