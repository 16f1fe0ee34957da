//! From options and `portcullis.toml` to the parts' settings; unsafe combinations are refused (OPS-03).

mod anew;
mod audit;
mod cimd;
mod clients;
mod consent;
pub(crate) mod duration;
mod file;
mod front;
mod given;
mod keys;
mod limits;
mod registration;
mod remote;
mod rules;
mod signing;
mod sources;
mod tokens;

use std::path::PathBuf;

pub use anew::{Origin, Reading, Running, Unreadable};
pub use file::{EVERYONE, File};
pub use given::{CommandLineOptions, DataDirOption, OneHalf};
pub(crate) use keys::toml_as_json;
pub use remote::Remote;
pub(crate) use remote::{authority, distinct};
pub use signing::{SealKey, Signing};
pub(crate) use sources::is_secret_name;
pub use sources::{Declared, SecretStorage, ShownCredentials, Source};

use crate::environment::variable;

/// The default data directory: `/var/lib/portcullis` for root, otherwise the user's own data directory.
pub fn default_data_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/portcullis");
    }
    let base = variable("XDG_DATA_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let home = variable("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    base.or(home).unwrap_or_default().join("portcullis")
}
