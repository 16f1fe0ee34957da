//! What to run as a child, and what it may use.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A program to run. It sees the environment declared here and nothing else (SRC-11).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Program {
    /// What people call it: an argument of its supervisor, so that `ps` shows which is which.
    pub name: String,
    /// An absolute path, or a name that is looked up in `PATH` if that is declared, else in the system's directories.
    pub command: String,
    pub args: Vec<String>,
    pub env: BTreeMap<String, Variable>,
    /// Where it starts. It may read this directory. Without one it starts in its private temporary directory.
    pub cwd: Option<PathBuf>,
    /// What it may use besides the system's own libraries and programs.
    pub paths: BTreeMap<PathBuf, Access>,
    /// What no path may contain: the gateway's own files.
    pub keep_out: Vec<PathBuf>,
    /// Where its private temporary directory is made.
    pub scratch: PathBuf,
    pub sandbox: Sandbox,
    /// Whether it may connect to sockets in the file system although it is confined. Landlock restricts that by path since
    /// Linux 7.1 only; before, behind a socket may be more than the declared paths allow.
    pub unix_sockets: bool,
    pub limits: Limits,
    /// Time to exit after standard input was closed; then SIGTERM; after the same time again, SIGKILL.
    pub grace: Duration,
}

/// The value of an environment variable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variable {
    Value(SecretValue),
    /// A value that is not kept either where the child prints it.
    Secret(SecretValue),
    /// The path of the private temporary directory.
    TemporaryDirectory,
}

impl From<&str> for Variable {
    fn from(value: &str) -> Self {
        Self::Value(SecretValue::from(value.to_owned()))
    }
}

/// A value that may be a secret: it is not printed, and it is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretValue(Zeroizing<String>);

impl SecretValue {
    pub(crate) fn value(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretValue {
    fn from(value: String) -> Self {
        Self(Zeroizing::new(value))
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(..)")
    }
}

/// What a child may do with a path and everything below it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Read, list and execute.
    Read,
    /// Also write, create and delete.
    Write,
}

/// Whether Landlock confines the child.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sandbox {
    /// It does not start on a kernel that cannot confine it.
    #[default]
    On,
    /// It may use everything that the gateway's user may use.
    Off,
}

/// Limits of a child. Memory and processes are limits of the whole tree where a cgroup is delegated to the gateway, else
/// they are rlimits: memory of each process, processes of the gateway's user.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<u64>,
    pub processes: Option<u64>,
    /// Open files of each process.
    pub open_files: u64,
    /// The largest file it may write, in bytes.
    pub file_size: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: None, processes: None, open_files: 1024, file_size: 1 << 30 }
    }
}

impl Program {
    /// The values that are secrets.
    pub(crate) fn secrets(&self) -> Vec<SecretValue> {
        let secret = |variable: &Variable| match variable {
            Variable::Secret(value) => Some(value.clone()),
            Variable::Value(_) | Variable::TemporaryDirectory => None,
        };
        self.env.values().filter_map(secret).collect()
    }

    /// A program without arguments, environment or paths of its own.
    pub fn new(name: &str, command: &str) -> Self {
        Self {
            name: name.to_owned(),
            command: command.to_owned(),
            args: Vec::new(),
            env: BTreeMap::new(),
            cwd: None,
            paths: BTreeMap::new(),
            keep_out: Vec::new(),
            scratch: std::env::temp_dir(),
            sandbox: Sandbox::default(),
            unix_sockets: false,
            limits: Limits::default(),
            grace: Duration::from_secs(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SRC-10: a secret in the environment is not printed with the program.
    #[test]
    fn debug_output_hides_the_values_of_variables() {
        let mut program = Program::new("ci", "/bin/true");
        program.env.insert("CI_TOKEN".to_owned(), Variable::from("hunter2"));
        let printed = format!("{program:?}");
        assert!(printed.contains("CI_TOKEN") && !printed.contains("hunter2"), "{printed}");
    }
}
