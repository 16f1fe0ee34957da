//! Landlock: a child uses the system's libraries and programs, its declared paths and its private temporary directory.
//! Everything else that opens, creates or deletes files is refused by the kernel, `/proc` of other processes included.
//! Where the kernel can do it, the domain also holds signals, abstract sockets and (Linux 7.1) sockets in the file system.

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use crate::program::Access;

/// What must be enforced. Before version 3 (Linux 6.2) a child could truncate files that it cannot open.
const REQUIRED: ABI = ABI::V3;
/// What is enforced where the kernel can.
const WANTED: ABI = ABI::V9;

/// What every child may read and execute: no file here holds a secret.
const SYSTEM: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/openssl.cnf",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/vm/overcommit_memory",
    "/proc/uptime",
    "/proc/version",
    "/sys/devices/system/cpu",
    "/sys/kernel/mm/transparent_hugepage",
];
/// Devices that every child may read and write.
const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Why a child cannot be confined, in words for administrators.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unconfined {
    #[error(
        "this kernel cannot confine it: Landlock version 3 (Linux 6.2 or later) is missing or turned off. Use a kernel that has it, or set sandbox = \"off\" to let this program use everything that the gateway's user can use"
    )]
    Missing,
    #[error(
        "it may not use {path}: the gateway's own files in {kept_out} would be open to it. Name narrower paths"
    )]
    KeptOut { path: String, kept_out: String },
    #[error("it may use {path}, which cannot be opened: {error}")]
    Path { path: String, error: io::Error },
    #[error("this kernel could not confine it: {0}")]
    Kernel(RulesetError),
}

/// Confines the calling thread, and what it executes, to these paths.
pub(crate) fn enter(granted: &[(PathBuf, Access)], keep_out: &[PathBuf]) -> Result<(), Unconfined> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(REQUIRED))
        .and_then(|rules| {
            rules
                .set_compatibility(CompatLevel::BestEffort)
                .handle_access(AccessFs::from_all(WANTED))?
                .scope(Scope::from_all(WANTED))?
                .create()
        })
        .map_err(|_| Unconfined::Missing)?;
    for path in SYSTEM {
        rules = system(rules, Path::new(path), AccessFs::from_read(WANTED), keep_out)?;
    }
    for device in DEVICES {
        let access = AccessFs::ReadFile | AccessFs::WriteFile;
        rules = system(rules, Path::new(device), access, keep_out)?;
    }
    for (path, access) in granted {
        let access = match access {
            Access::Read => AccessFs::from_read(WANTED),
            Access::Write => AccessFs::from_all(WANTED),
        };
        rules = allow(rules, path, access, keep_out)?;
    }
    let status = rules.restrict_self().map_err(Unconfined::Kernel)?;
    match status.ruleset {
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
        RulesetStatus::NotEnforced => Err(Unconfined::Missing),
    }
}

/// Allows a path of the system, if there is one.
fn system(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
    keep_out: &[PathBuf],
) -> Result<RulesetCreated, Unconfined> {
    if path.exists() { allow(rules, path, access, keep_out) } else { Ok(rules) }
}

fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
    keep_out: &[PathBuf],
) -> Result<RulesetCreated, Unconfined> {
    let unusable = |error| Unconfined::Path { path: path.display().to_string(), error };
    let real = path.canonicalize().map_err(unusable)?;
    if let Some(kept_out) = holds(&real, keep_out) {
        let (path, kept_out) = (path.display().to_string(), kept_out.display().to_string());
        return Err(Unconfined::KeptOut { path, kept_out });
    }
    let access = if real.is_dir() { access } else { access & AccessFs::from_file(WANTED) };
    let handle = PathFd::new(&real).map_err(|error| unusable(io::Error::other(error)))?;
    rules.add_rule(PathBeneath::new(handle, access)).map_err(Unconfined::Kernel)
}

/// The first of these that access to this path would include: it is below the path, or the path is in it.
fn holds<'k>(real: &Path, keep_out: &'k [PathBuf]) -> Option<&'k PathBuf> {
    keep_out.iter().find(|kept_out| {
        let kept_out = kept_out.canonicalize().unwrap_or_else(|_| (*kept_out).clone());
        kept_out.starts_with(real) || real.starts_with(&kept_out)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SRC-11: no declared path opens the gateway's own files, whichever way it is written.
    #[test]
    fn a_path_that_contains_the_data_directory_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("a path");
        let data = root.join("srv/data");
        std::fs::create_dir_all(data.join("backups")).expect("made");
        std::fs::create_dir_all(root.join("srv/dat")).expect("made");
        std::os::unix::fs::symlink(&data, root.join("link")).expect("made");
        let keep_out = [root.join("link")];
        for refused in ["", "srv", "srv/data", "srv/data/backups"] {
            assert!(holds(&root.join(refused), &keep_out).is_some(), "{refused}");
        }
        assert!(holds(&root.join("srv/dat"), &keep_out).is_none());
    }

    #[test]
    fn system_paths_hold_no_directory_that_an_administrator_keeps_secrets_in() {
        for secret in [
            "/etc/portcullis",
            "/etc/shadow",
            "/etc/ssl/private",
            "/root",
            "/home",
            "/var",
            "/proc/1",
            "/run",
        ] {
            assert!(SYSTEM.iter().all(|path| !Path::new(secret).starts_with(path)), "{secret}");
        }
    }
}
