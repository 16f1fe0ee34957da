//! What a child gives up before it runs: privileges, and resources beyond its limits.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use crate::program::Limits;

/// Gives up every capability for good: what it executes gains none, even as root.
pub(crate) fn drop_all() -> io::Result<()> {
    set_no_new_privs(true)?;
    for capability in CapabilitySet::all() {
        // Without the right to do this there is nothing to lose: no_new_privs keeps what is not there from coming.
        if capability_is_in_bounding_set(capability).unwrap_or(false) {
            let _ = remove_capability_from_bounding_set(capability);
        }
    }
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}

/// Sets the rlimits. `of_tree` says that a cgroup limits memory and processes already.
///
/// Memory is `RLIMIT_DATA`: `RLIMIT_AS` counts what a program reserves without using it, which for Node is many gigabytes.
pub(crate) fn limit(limits: &Limits, of_tree: bool) -> io::Result<()> {
    at_most(Resource::Core, Some(0))?;
    at_most(Resource::Nofile, Some(limits.open_files))?;
    at_most(Resource::Fsize, Some(limits.file_size))?;
    if !of_tree {
        at_most(Resource::Data, limits.memory)?;
        at_most(Resource::Nproc, limits.processes)?;
    }
    Ok(())
}

/// Lowers a limit, for good. One that is lower already stays.
fn at_most(resource: Resource, most: Option<u64>) -> io::Result<()> {
    let Some(most) = most else { return Ok(()) };
    let most = rustix::process::getrlimit(resource).maximum.map_or(most, |present| present.min(most));
    setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    Ok(())
}
