//! What passes between the gateway and a supervisor once the program is handed over.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The word with which the gateway asks a supervisor to end the program in good order. If the gateway's end of the socket
/// closes for any reason, everything is killed at once.
pub(crate) const STOP: u8 = b'S';

/// What a supervisor says: one line of JSON each.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    Started {
        pid: i32,
    },
    /// The program could not be started; why, in words for administrators.
    Failed {
        why: String,
    },
    Ended(Ended),
}

/// How a child ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    Exited(i32),
    Killed(i32),
    /// Its supervisor ended before it could say.
    Unknown,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "it exited with status {code}"),
            Self::Killed(signal) => write!(f, "it was killed by signal {signal}"),
            Self::Unknown => f.write_str("its supervisor was killed"),
        }
    }
}
