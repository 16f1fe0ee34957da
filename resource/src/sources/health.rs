//! How a server behind the gate is, for administrators (SRC-14).

use serde::{Deserialize, Serialize};
use shared::Timestamp;

use super::mcp::definition::LeftOut;
use crate::item::Counts;

/// The health of a source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Health {
    pub name: String,
    pub id: String,
    /// Its URL.
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
}

/// Since when a source fails, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stale {
    pub since: Timestamp,
    pub why: String,
}
