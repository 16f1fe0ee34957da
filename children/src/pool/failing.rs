//! The reasons why no child was started, in words for callers and administrators.

use std::time::Duration;

use super::key::Key;

/// The reason why a call got no child, in words for the caller.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unavailable {
    #[error("it could not be started: {0}")]
    NotStarted(String),
    #[error("it stopped working ({why}) and is started again in {} seconds", .wait.as_millis().div_ceil(1000))]
    Pausing { wait: Duration, why: String },
    #[error(
        "it stopped working five times within five minutes ({0}); an administrator can start it with `source restart`"
    )]
    Quarantined(String),
    #[error("too many of its processes were started within a short time")]
    TooFast,
    #[error("the limit of running processes has been reached, and all of them are in use")]
    Full,
    #[error("it was stopped by an administrator")]
    Stopped,
}

/// The end of a child that nobody had asked to end, or a start that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Crash {
    pub key: Key,
    /// In words for administrators.
    pub why: String,
    /// Whether nothing is started for its owner from now on.
    pub quarantined: bool,
}

/// Told of each crash. It must not wait.
pub type OnCrash = Box<dyn Fn(Crash) + Send + Sync>;
