//! How often one key may do something (RATE-01, RATE-02): token buckets in memory, forgotten at a restart, and of
//! bounded size whatever strangers send (RATE-03).

mod tally;

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use crate::clock::Clock;
use crate::request::Request;
pub use tally::Tally;

const MINUTE: Duration = Duration::from_mins(1);
/// How many keys a generation holds. A flood of more forgets the oldest sooner, and nothing worse.
const MOST_KEYS: usize = 32_768;

/// So many in a while, and no more; or as many as come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quota {
    count: Option<NonZeroU32>,
    per: Duration,
}

impl Quota {
    /// As many as come.
    pub const OFF: Self = Self { count: None, per: MINUTE };

    /// So many a minute. Zero would let nobody in, and counts as one.
    pub const fn per_minute(count: u32) -> Self {
        Self::per(count, MINUTE)
    }

    /// So many an hour.
    pub const fn per_hour(count: u32) -> Self {
        Self::per(count, Duration::from_hours(1))
    }

    /// So many in this time.
    pub const fn per(count: u32, per: Duration) -> Self {
        let count = match NonZeroU32::new(count) {
            Some(count) => count,
            None => NonZeroU32::MIN,
        };
        Self { count: Some(count), per }
    }

    /// As many as this in the same while.
    #[must_use]
    pub const fn of(self, count: u32) -> Self {
        Self::per(count, self.per)
    }

    /// The time in which one grows back; `None` if there is no limit.
    fn one(self) -> Option<i64> {
        self.count.map(|count| micros(self.per) / i64::from(count.get()))
    }

    /// How many; `None` for as many as come.
    pub fn count(self) -> Option<u32> {
        self.count.map(NonZeroU32::get)
    }
}

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident = $quota:expr),* $(,)?) => {
        /// Every limit, as `[rate]` may change it. Each is per minute, if it does not say otherwise.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct Limits { $($(#[$doc])* pub $name: Quota),* }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $quota),* }
            }
        }

        impl Limits {
            /// The names, as the configuration and the audit log have them.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            /// No limits at all.
            pub fn off() -> Self {
                Self { $($name: Quota::OFF),* }
            }

            /// The limit of this name.
            pub fn named(&mut self, name: &str) -> Option<&mut Quota> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)*
                    _ => None,
                }
            }

            /// Every limit with its name.
            pub fn all(&self) -> Vec<(&'static str, Quota)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }
    };
}

limits! {
    /// Requests that fail at the endpoints that clients call, from one address.
    token_address = Quota::per_minute(60),
    /// Requests for tokens by one client at one address.
    token_client = Quota::per_minute(30),
    /// Clients that registered themselves from one address, an hour (DCR-12).
    register = Quota::per_hour(200),
    /// Failures of one client at one address to prove itself.
    client_auth = Quota::per_minute(10),
    /// Authorization requests from one address that were not approved.
    authorize = Quota::per_minute(60),
    /// What pages of sign-in and account begin or send from one address, and what comes to nothing.
    page = Quota::per_minute(60),
    /// Passkeys from one address that could not be verified.
    passkey_address = Quota::per_minute(20),
    /// Uses of one user's passkeys at one address.
    passkey_user = Quota::per_minute(10),
    /// MCP requests by one user through one client.
    mcp = Quota::per_minute(600),
    /// MCP requests from one address with tokens that this issuer never signed.
    mcp_address = Quota::per_minute(60),
}

/// Where a request comes from, as far as limits go: an IPv4 address, or the IPv6 /64 that one customer has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Origin(IpAddr);

impl Origin {
    /// The origin of an address.
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }

    /// What it has in common with its neighbours: the /48 that an IPv6 site has, or the IPv4 address itself.
    pub fn network(&self) -> String {
        match self.0 {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => {
                let [a, b, c, ..] = v6.segments();
                format!("{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
            }
        }
    }
}

impl fmt::Display for Origin {
    /// The address, or the network of an IPv6 address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(v4) => v4.fmt(f),
            IpAddr::V6(v6) => write!(f, "{v6}/64"),
        }
    }
}

impl From<&Request> for Origin {
    /// The console has no address and never meets a limit; if it did, it would share one bucket.
    fn from(request: &Request) -> Self {
        Self::of(request.address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)))
    }
}

/// A limit was reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{limit}")]
pub struct TooMany {
    /// The limit's name.
    pub limit: &'static str,
    /// Whole seconds after which one more is let through.
    pub retry_after: u64,
}

/// One limit: a bucket for each key, as deep as the quota of its period, which fills up evenly.
pub struct Buckets<K> {
    limit: &'static str,
    quota: RwLock<Quota>,
    clock: Clock,
    tally: Arc<Tally>,
    generations: Mutex<Generations<K>>,
}

/// The keys of this period and of the one before. A bucket that nobody touched for a whole period is full again, so
/// forgetting it changes nothing.
struct Generations<K> {
    since: Duration,
    current: HashMap<K, Drained>,
    previous: HashMap<K, Drained>,
}

/// When a bucket will be full again, in microseconds of uptime: all that has to be known of it.
type Drained = i64;

impl<K: Hash + Eq + Clone> Buckets<K> {
    /// A limit of this name. What it refuses is counted in the tally.
    pub fn new(limit: &'static str, quota: Quota, clock: &Clock, tally: &Arc<Tally>) -> Self {
        let generations =
            Generations { since: clock.uptime(), current: HashMap::new(), previous: HashMap::new() };
        Self {
            limit,
            quota: RwLock::new(quota),
            clock: clock.clone(),
            tally: Arc::clone(tally),
            generations: Mutex::new(generations),
        }
    }

    /// Takes one, for this request.
    ///
    /// # Errors
    /// If there is none left. It is counted, and goes on record with the others (AUDIT-06).
    pub fn take(&self, key: &K, request: &Request) -> Result<(), TooMany> {
        self.draw(key, true).inspect_err(|_| self.tally.count(self.limit, request))
    }

    /// Whether there is one left, without taking it.
    ///
    /// # Errors
    /// If there is none; it is counted too.
    pub fn check(&self, key: &K, request: &Request) -> Result<(), TooMany> {
        self.draw(key, false).inspect_err(|_| self.tally.count(self.limit, request))
    }

    /// Takes one for something that went wrong, if there is one left: nothing is refused by it.
    pub fn spend(&self, key: &K) {
        let _ = self.draw(key, true);
    }

    fn draw(&self, key: &K, take: bool) -> Result<(), TooMany> {
        let quota = self.quota();
        let Some(one) = quota.one() else { return Ok(()) };
        // What nobody can set: a clock that is turned neither fills a bucket nor keeps it empty (OPS-04).
        let (now, whole) = (self.clock.uptime(), micros(quota.per));
        let mut generations = self.lock();
        generations.turn(now, quota.per);
        let now = micros(now);
        let full_at = generations.find(key).unwrap_or(now).max(now).saturating_add(one);
        let beyond = full_at - now - whole;
        if beyond > 0 {
            let retry_after = u64::try_from(beyond).unwrap_or(0).div_ceil(1_000_000);
            return Err(TooMany { limit: self.limit, retry_after });
        }
        if take {
            generations.current.insert(key.clone(), full_at);
        }
        Ok(())
    }

    /// Puts one back: what was taken for it came to a good end (RATE-01).
    pub fn refund(&self, key: &K) {
        let Some(one) = self.quota().one() else { return };
        let mut generations = self.lock();
        if let Some(full_at) = generations.find(key) {
            generations.current.insert(key.clone(), full_at.saturating_sub(one));
        }
    }

    /// Another quota from now on; what was taken under the one before stays taken.
    pub fn set_quota(&self, quota: Quota) {
        *self.quota.write().unwrap_or_else(PoisonError::into_inner) = quota;
    }

    fn quota(&self) -> Quota {
        *self.quota.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Generations<K>> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq> Generations<K> {
    fn turn(&mut self, now: Duration, period: Duration) {
        let over = now.saturating_sub(self.since) >= period;
        if over || self.current.len() >= MOST_KEYS {
            self.previous = std::mem::take(&mut self.current);
            self.since = now;
        }
    }

    fn find(&self, key: &K) -> Option<Drained> {
        self.current.get(key).or_else(|| self.previous.get(key)).copied()
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
