//! The lifetimes of access tokens that may not have expired. If a site shortens the lifetime, tokens issued
//! before keep theirs.

use std::time::Duration;

use shared::db::Conn;
use shared::{Fault, Timestamp, Tx};

use super::settings;

/// The setting: lifetimes in seconds, separated by spaces. A lifetime that is no longer used is followed by `:`
/// and the Unix milliseconds when that began.
const SETTING: &str = "access_token_lifetimes";

#[derive(Clone, Copy)]
struct Lifetime {
    seconds: u64,
    given_up: Option<Timestamp>,
}

impl Lifetime {
    fn parse(text: &str) -> Option<Self> {
        let (seconds, given_up) = match text.split_once(':') {
            Some((seconds, at)) => (seconds, Some(Timestamp(at.parse().ok()?))),
            None => (text, None),
        };
        Some(Self { seconds: seconds.parse().ok()?, given_up })
    }

    fn length(self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Whether a token with this lifetime may not have expired.
    fn counts(self, now: Timestamp) -> bool {
        self.given_up.is_none_or(|at| now < at + self.length())
    }

    fn text(self) -> String {
        match self.given_up {
            Some(at) => format!("{}:{}", self.seconds, at.0),
            None => self.seconds.to_string(),
        }
    }
}

fn all(conn: &Conn<'_>, now: Timestamp) -> Result<Vec<Lifetime>, Fault> {
    let text = settings::get(conn, SETTING)?.unwrap_or_default();
    let read = |text| {
        Lifetime::parse(text).ok_or_else(|| Fault::Corrupt(format!("a setting {SETTING} with {text}")))
    };
    let lifetimes = text.split_whitespace().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(lifetimes.into_iter().filter(|lifetime| lifetime.counts(now)).collect())
}

/// Stores that tokens are issued with this lifetime from now on.
pub(crate) fn note(tx: &Tx<'_>, lifetime: Duration) -> Result<(), Fault> {
    let mut lifetimes = all(tx, tx.now())?;
    lifetimes.retain(|before| before.seconds != lifetime.as_secs());
    for before in &mut lifetimes {
        before.given_up.get_or_insert(tx.now());
    }
    lifetimes.push(Lifetime { seconds: lifetime.as_secs(), given_up: None });
    let texts: Vec<_> = lifetimes.into_iter().map(Lifetime::text).collect();
    settings::put(tx, SETTING, &texts.join(" "))
}

/// The longest lifetime of a token that may not have expired, or may be issued now.
pub(crate) fn longest(conn: &Conn<'_>, now: Timestamp, issued_now: Duration) -> Result<Duration, Fault> {
    let lifetimes = all(conn, now)?;
    Ok(lifetimes.into_iter().map(Lifetime::length).fold(issued_now, Duration::max))
}

#[cfg(test)]
mod tests {
    use shared::{Clock, Db};

    use super::*;

    /// KEYS-04: the time until which tokens are valid includes tokens issued with an earlier, longer lifetime.
    #[test]
    fn a_longer_configured_lifetime_applies_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::held(Timestamp(1_795_435_200_000));
        let db = Db::open(&dir.path().join("x.db"), &shared::schema::SCHEMA, None, &clock).unwrap();
        let start = |seconds| db.write_blocking(move |tx| note(tx, Duration::from_secs(seconds))).unwrap();
        let longest = |seconds| {
            let issued_now = Duration::from_secs(seconds);
            db.read(|conn| longest(conn, clock.now(), issued_now)).unwrap().as_secs()
        };
        assert_eq!(longest(900), 900);
        start(900);
        start(3600);
        start(3600);
        assert_eq!(longest(3600), 3600);
        clock.advance(Duration::from_hours(5));
        start(60);
        assert_eq!(longest(60), 3600);
        clock.advance(Duration::from_mins(50));
        start(900);
        clock.advance(Duration::from_mins(9));
        start(60);
        assert_eq!(longest(60), 3600);
        clock.advance(Duration::from_mins(1));
        assert_eq!(longest(60), 900);
        clock.advance(Duration::from_mins(14));
        assert_eq!(longest(60), 60);
        start(3600);
        start(3600);
        assert_eq!(db.read(|conn| settings::get(conn, SETTING)).unwrap().unwrap().matches("3600").count(), 1);
    }
}
