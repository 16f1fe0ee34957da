//! The parameters of the authorization server, with the defaults of the conformance matrix (§1).

use std::time::Duration;

use crate::store::clients::Trust;

const DAY: Duration = Duration::from_hours(24);

/// Lifetimes and rules.
#[derive(Clone, Debug)]
pub struct Config {
    /// An access token's life: 60 to 3600 seconds.
    pub access_token_lifetime: Duration,
    /// An authorization code's life: at most 60 seconds.
    pub code_lifetime: Duration,
    /// How long a request waits for a person.
    pub transaction_lifetime: Duration,
    /// How long a browser may wait for a passkey.
    pub ceremony_timeout: Duration,
    /// One-shot rotation: no successor-unused rule (REFRESH-06).
    pub strict_refresh: bool,
    /// The device authorization grant, for clients that an administrator made for it (DEV-01).
    pub device: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            access_token_lifetime: Duration::from_mins(15),
            code_lifetime: Duration::from_mins(1),
            transaction_lifetime: Duration::from_mins(10),
            ceremony_timeout: Duration::from_mins(5),
            strict_refresh: false,
            device: false,
        }
    }
}

/// How long refresh tokens last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RefreshLifetimes {
    /// Without being used.
    pub idle: Duration,
    /// At most, however often they are used.
    pub family: Duration,
}

impl Config {
    /// The lifetimes for a client of this trust.
    #[allow(clippy::unused_self, reason = "a site will be able to narrow them")]
    pub(crate) fn refresh_lifetimes(&self, trust: Trust) -> RefreshLifetimes {
        match trust {
            Trust::Unverified => RefreshLifetimes { idle: DAY, family: 7 * DAY },
            Trust::Known | Trust::Verified => RefreshLifetimes { idle: 14 * DAY, family: 30 * DAY },
        }
    }
}
