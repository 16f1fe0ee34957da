//! Rate limits (RATE-01, RATE-02): token buckets in memory, forgotten at a restart, of bounded size for any
//! input (RATE-03).

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
/// The most keys in a generation. Under a flood of more, the oldest are forgotten sooner.
const MOST_KEYS: usize = 32_768;

/// At most `count` per `per`, or unlimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quota {
    count: Option<NonZeroU32>,
    per: Duration,
}

impl Quota {
    /// Unlimited.
    pub const OFF: Self = Self { count: None, per: MINUTE };

    /// At most `count` per minute. Zero would refuse everything, so it counts as one.
    pub const fn per_minute(count: u32) -> Self {
        Self::per(count, MINUTE)
    }

    /// At most `count` per hour.
    pub const fn per_hour(count: u32) -> Self {
        Self::per(count, Duration::from_hours(1))
    }

    /// At most `count` per `per`.
    pub const fn per(count: u32, per: Duration) -> Self {
        let count = match NonZeroU32::new(count) {
            Some(count) => count,
            None => NonZeroU32::MIN,
        };
        Self { count: Some(count), per }
    }

    /// The same period with another count.
    #[must_use]
    pub const fn of(self, count: u32) -> Self {
        Self::per(count, self.per)
    }

    /// The time in which one token is added, in microseconds; `None` if unlimited.
    fn one(self) -> Option<i64> {
        self.count.map(|count| micros(self.per) / i64::from(count.get()))
    }

    /// The count; `None` if unlimited.
    pub fn count(self) -> Option<u32> {
        self.count.map(NonZeroU32::get)
    }
}

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident = $quota:expr),* $(,)?) => {
        /// All limits, as `[rate]` may change them. Each is per minute unless it says otherwise.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct Limits { $($(#[$doc])* pub $name: Quota),* }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $quota),* }
            }
        }

        impl Limits {
            /// The names in the configuration and the audit log.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            /// All unlimited.
            pub fn off() -> Self {
                Self { $($name: Quota::OFF),* }
            }

            /// The limit with this name.
            pub fn named(&mut self, name: &str) -> Option<&mut Quota> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)*
                    _ => None,
                }
            }

            /// All limits with their names.
            pub fn all(&self) -> Vec<(&'static str, Quota)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }
    };
}

limits! {
    /// Failed requests from one address at the endpoints that clients call.
    token_address = Quota::per_minute(60),
    /// Token requests of one client at one address.
    token_client = Quota::per_minute(30),
    /// Self-registered clients from one address, per hour (DCR-12).
    register = Quota::per_hour(200),
    /// Failed authentications of one client at one address.
    client_auth = Quota::per_minute(10),
    /// Authorization requests from one address that were not approved.
    authorize = Quota::per_minute(60),
    /// Requests that the sign-in and account pages send from one address, and requests without effect.
    page = Quota::per_minute(60),
    /// Failed passkey verifications from one address.
    passkey_address = Quota::per_minute(20),
    /// Uses of one user's passkeys at one address.
    passkey_user = Quota::per_minute(10),
    /// MCP requests of one user through one client.
    mcp = Quota::per_minute(600),
    /// MCP requests from one address with tokens that this issuer did not sign.
    mcp_address = Quota::per_minute(60),
}

/// The origin of a request for rate limits: an IPv4 address, or an IPv6 /64, which one customer has.
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

    /// The surrounding network: the /48 of an IPv6 site, or the IPv4 address itself.
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
    /// The console has no address. It is not rate limited; if it were, it would share one bucket.
    fn from(request: &Request) -> Self {
        Self::of(request.address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)))
    }
}

/// A limit was exceeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{limit}")]
pub struct TooMany {
    /// The limit's name.
    pub limit: &'static str,
    /// Whole seconds until the next request is accepted.
    pub retry_after: u64,
}

/// One limit: a bucket for each key, as deep as the quota, refilled evenly.
pub struct Buckets<K> {
    limit: &'static str,
    quota: RwLock<Quota>,
    clock: Clock,
    tally: Arc<Tally>,
    generations: Mutex<Generations<K>>,
}

/// The keys of this period and of the previous one. A bucket unused for a whole period is full, so it can be
/// forgotten.
struct Generations<K> {
    since: Duration,
    current: HashMap<K, Drained>,
    previous: HashMap<K, Drained>,
}

/// When a bucket will be full again, in microseconds of uptime. That is its whole state.
type Drained = i64;

impl<K: Hash + Eq + Clone> Buckets<K> {
    /// A limit with this name. Its refusals are counted in the tally.
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

    /// Takes a token for this request.
    ///
    /// # Errors
    /// If none is left. The refusal is counted and recorded with others (AUDIT-06).
    pub fn take(&self, key: &K, request: &Request) -> Result<(), TooMany> {
        self.draw(key, true).inspect_err(|_| self.tally.count(self.limit, request))
    }

    /// Checks that a token is left, without taking it.
    ///
    /// # Errors
    /// If none is left; the refusal is counted too.
    pub fn check(&self, key: &K, request: &Request) -> Result<(), TooMany> {
        self.draw(key, false).inspect_err(|_| self.tally.count(self.limit, request))
    }

    /// Takes a token for a failure, if one is left. Refuses nothing.
    pub fn spend(&self, key: &K) {
        let _ = self.draw(key, true);
    }

    fn draw(&self, key: &K, take: bool) -> Result<(), TooMany> {
        let quota = self.quota();
        let Some(one) = quota.one() else { return Ok(()) };
        // Uptime cannot be set, so setting the clock neither fills nor empties a bucket (OPS-04).
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
            generations.put(key, full_at);
        }
        Ok(())
    }

    /// Puts a token back, for a request that succeeded (RATE-01).
    pub fn refund(&self, key: &K) {
        let Some(one) = self.quota().one() else { return };
        let mut generations = self.lock();
        if let Some(full_at) = generations.find(key) {
            generations.put(key, full_at.saturating_sub(one));
        }
    }

    /// Replaces the quota; tokens taken before stay taken.
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

impl<K: Hash + Eq + Clone> Generations<K> {
    fn turn(&mut self, now: Duration, period: Duration) {
        let over = now.saturating_sub(self.since) >= period;
        if over || self.current.len() >= MOST_KEYS {
            self.previous = std::mem::take(&mut self.current);
            self.since = now;
        }
    }

    /// Stores a bucket. The key is copied only if it is new in this period.
    fn put(&mut self, key: &K, full_at: Drained) {
        match self.current.get_mut(key) {
            Some(known) => *known = full_at,
            None => {
                self.current.insert(key.clone(), full_at);
            }
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
