//! A kernel without Landlock (SRC-11). A filter of system calls makes this one such a kernel for one thread and what it
//! starts.

use std::collections::BTreeMap;

use children::program::Sandbox;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use serde_json::json;

use crate::harness::Server;

/// Runs a test on a thread of its own, where no Landlock is.
fn without_landlock(test: impl Future<Output = ()> + Send + 'static) {
    let thread = std::thread::spawn(|| {
        let missing = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
        let rules = BTreeMap::from([(libc::SYS_landlock_create_ruleset, Vec::new())]);
        let arch = std::env::consts::ARCH.try_into().expect("a known architecture");
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, missing, arch).expect("a filter");
        let filter: BpfProgram = filter.try_into().expect("a program");
        apply_filter(&filter).expect("in force");
        // Every thread of this runtime inherits the filter.
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test);
    });
    thread.join().expect("the test succeeds");
}

/// SRC-11: without Landlock nothing starts, and one line says what to do.
#[test]
fn without_landlock_a_child_does_not_start() {
    without_landlock(async {
        let refused = Server::of(|_| {}).await.err().expect("refused");
        assert_eq!(
            refused.0,
            "this kernel cannot confine it: Landlock version 3 (Linux 6.2 or later) is missing or turned off. Use a kernel that has it, or set sandbox = \"off\" to let this program use everything that the gateway's user can use"
        );
    });
}

/// SRC-11: somebody who says so may do without.
#[test]
fn without_landlock_a_child_starts_if_its_sandbox_is_off() {
    without_landlock(async {
        let server = Server::of(|program| program.sandbox = Sandbox::Off).await.expect("started");
        assert_eq!(server.ask("echo", &json!(1)).await, Ok(json!(1)));
    });
}
