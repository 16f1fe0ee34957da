//! How a server behind the gate is, for administrators (SRC-14).

use serde::{Deserialize, Serialize};
use shared::Timestamp;

use super::mcp::definition::LeftOut;
use crate::item::Counts;

/// How a source is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Health {
    pub name: String,
    pub id: String,
    /// Where it is reached.
    pub url: String,
    /// `2026-07-28`, or `legacy` for the revisions before it; `None` as long as it has not answered.
    pub era: Option<String>,
    /// How many items of each kind it offers.
    #[serde(flatten)]
    pub items: Counts,
    /// When a walk of its lists was last complete.
    pub walked_at: Option<Timestamp>,
    pub stale: Option<Stale>,
    pub left_out: Vec<LeftOut>,
}

/// Since when a source does not answer as it should, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stale {
    pub since: Timestamp,
    pub why: String,
}
