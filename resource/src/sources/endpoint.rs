//! How a server behind the gate is reached, as the configuration says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub use children::pool::Sharing;
pub use children::program::{Access, Limits, Sandbox};
use shared::outbound::Destination;
use shared::shell;

/// How a server is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// `kind = "mcp-http"`
    Http(Address),
    /// `kind = "mcp-stdio"`
    Local(Box<Local>),
}

/// A server that is reached over HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// The URL as written, for display.
    pub url: String,
    /// Its path and query.
    pub path: String,
    pub destination: Destination,
    /// Whether it is told who is calling (SRC-10).
    pub identity: bool,
}

/// A server that is a program, started here (SRC-11).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Local {
    /// An absolute path, or a name to look up.
    pub command: String,
    pub args: Vec<String>,
    /// Its environment, without secrets. There is nothing else in it.
    pub env: BTreeMap<String, String>,
    /// The variables that hold the path of its private temporary directory.
    pub tmp_env: Vec<String>,
    pub cwd: Option<PathBuf>,
    /// What it may use besides the system's libraries and programs.
    pub paths: BTreeMap<PathBuf, Access>,
    pub sandbox: Sandbox,
    /// Whether it may connect to sockets in the file system.
    pub unix_sockets: bool,
    pub limits: Limits,
    pub sharing: Sharing,
    /// The most processes of it.
    pub instances: usize,
    /// One that nobody has used for this long is stopped; `None`: never.
    pub idle: Option<Duration>,
    pub era: Era,
}

/// Which kind of revision a program speaks (SRC-07).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Era {
    /// It is asked.
    #[default]
    Auto,
    /// 2026-07-28.
    Modern,
    /// An older one. It is not asked.
    Legacy,
}

impl Endpoint {
    /// Identifies it: with another target it is another source.
    pub(crate) fn target(&self) -> String {
        match self {
            Self::Http(address) => format!("{HTTP}{}", address.url),
            Self::Local(local) => format!("{LOCAL}{}", local.line()),
        }
    }

    /// Its address or its command line, for people.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Http(address) => address.url.clone(),
            Self::Local(local) => local.line(),
        }
    }

    /// What a target shows of it.
    pub(crate) fn shown_of(target: &str) -> &str {
        target.strip_prefix(HTTP).or_else(|| target.strip_prefix(LOCAL)).unwrap_or(target)
    }
}

const HTTP: &str = "mcp-http ";
const LOCAL: &str = "mcp-stdio ";

impl Local {
    /// Its command line, as a shell would take it.
    fn line(&self) -> String {
        let words = std::iter::once(&self.command).chain(&self.args);
        words.map(|word| shell::word(word)).collect::<Vec<_>>().join(" ")
    }
}
