//! What the resource side keeps in the database: SQL, one table family a file.

pub(crate) mod sessions;
pub(crate) mod snapshots;
