//! What can be configured of the resource server itself. What it offers, and to whom, is in the rules.

use std::path::PathBuf;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// Pages that may call the endpoint from a browser; on loopback every loopback page may anyway.
    pub allowed_origins: Vec<String>,
    /// A folder of documents; `None` for the built-in handbook.
    pub docs: Option<PathBuf>,
}
