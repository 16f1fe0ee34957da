//! How a server behind the gate is, for administrators (SRC-14).

pub use children::conversation::Skipped;
use serde::{Deserialize, Serialize};
use shared::Timestamp;

use super::mcp::definition::LeftOut;
use crate::item::Counts;

/// The health of a source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Health {
    pub name: String,
    pub id: String,
    /// Its URL, or the command line of a program.
    pub url: String,
    /// `2026-07-28`, or `legacy` for earlier revisions; `None` until it has answered.
    pub era: Option<String>,
    /// How many items of each kind it offers.
    #[serde(flatten)]
    pub items: Counts,
    /// When it was last listed completely.
    pub walked_at: Option<Timestamp>,
    pub stale: Option<Stale>,
    pub left_out: Vec<LeftOut>,
    /// Of a program, while the server runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<ProcessHealth>,
}

/// How the processes of a source are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessHealth {
    pub running: usize,
    /// How many of them are in use at this moment.
    pub in_use: usize,
    /// The most that may run.
    pub limit: usize,
    /// The number of owners for whom none is started, because theirs crashed too often.
    pub quarantined: usize,
    /// Why one of them crashed last.
    pub why: Option<String>,
    /// Lines on standard output that led to nothing.
    pub skipped: Skipped,
}

/// Since when a source fails, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stale {
    pub since: Timestamp,
    pub why: String,
}
