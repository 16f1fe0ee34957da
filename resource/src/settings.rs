//! The settings of the resource server itself. Its items and their scopes are in the rules.

use std::path::PathBuf;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// Pages that may call the endpoint from a browser; on loopback every loopback page may anyway.
    pub allowed_origins: Vec<String>,
    /// A folder of documents; `None` for the handbook in the program.
    pub docs: Option<PathBuf>,
}
