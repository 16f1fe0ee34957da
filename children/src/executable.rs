//! The program that plays the roles, and what its first argument calls them.

use std::path::PathBuf;

pub(crate) const SUPERVISE: &str = "child-supervisor";
pub(crate) const LAUNCH: &str = "child-launcher";
/// This program, even if its file was replaced since it was started.
pub(crate) const OWN_PROGRAM: &str = "/proc/self/exe";

/// The program that plays the roles of supervisor and launcher.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Executable(pub(crate) PathBuf);

impl Default for Executable {
    /// The program that runs.
    fn default() -> Self {
        Self(PathBuf::from(OWN_PROGRAM))
    }
}

impl From<PathBuf> for Executable {
    fn from(program: PathBuf) -> Self {
        Self(program)
    }
}
