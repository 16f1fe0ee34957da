//! The resource side's database tables: SQL, one table family per file.

pub(crate) mod call_counts;
pub(crate) mod sessions;
pub(crate) mod snapshots;
