//! The program executes itself to supervise a child and to launch it. Its `main` asks [`role`] first.

use std::ffi::OsStr;
use std::process::ExitCode;

use crate::executable::{LAUNCH, SUPERVISE};
use crate::{launch, supervise};

/// What this process is for, if another one of the same program started it for a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Supervisor,
    Launcher,
}

/// The role that the first argument names. There is none in a process that a person started.
pub fn role(first_argument: Option<&OsStr>) -> Option<Role> {
    match first_argument?.to_str()? {
        SUPERVISE => Some(Role::Supervisor),
        LAUNCH => Some(Role::Launcher),
        _ => None,
    }
}

impl Role {
    /// Plays the role to its end.
    pub fn run(self) -> ExitCode {
        match self {
            Self::Supervisor => supervise::run(),
            Self::Launcher => launch::run(),
        }
    }
}
