//! Counts refusals by rate limits, and records the counts (AUDIT-06).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::Origin;
use crate::audit::{self, Event, Name};
use crate::db::{Db, Fault};
use crate::request::Request;
use crate::share;

/// The most pairs of limit and address that are counted separately: for one network, and for all. Beyond the
/// first, refusals are counted for the network; beyond twice the second, by limit only. So one sender cannot
/// hide the others.
const MOST_OF_A_NETWORK: usize = 16;
const MOST: usize = 2048;

/// Refusals that are not recorded yet.
#[derive(Default)]
pub struct Tally(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    of: HashMap<Key, Counted>,
    /// The number of addresses counted for each network.
    networks: HashMap<String, usize>,
}

/// The limit, and who exceeded it.
type Key = (&'static str, From);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum From {
    Address(Origin),
    Network(String),
    Anywhere,
}

struct Counted {
    count: u64,
    /// The first of these requests, for its id and address.
    first: Option<Request>,
}

impl Tally {
    pub(super) fn count(&self, limit: &'static str, request: &Request) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = counts.from(limit, request.into());
        let first = (from != From::Anywhere).then_some(request);
        counts
            .of
            .entry((limit, from))
            .or_insert_with(|| Counted { count: 0, first: first.cloned() })
            .count += 1;
    }

    /// Records all counts, and for whom full tables made room. Call it regularly, and before the server stops.
    ///
    /// # Errors
    /// A database fault; the counts are kept for the next time.
    pub async fn flush(&self, db: &Db) -> Result<(), Fault> {
        share::flush(db).await?;
        let counted = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let counted = counted.of;
        if counted.is_empty() {
            return Ok(());
        }
        let events: Vec<_> =
            counted.iter().map(|((limit, from), counted)| counted.event(limit, from)).collect();
        let written =
            db.record(move |tx| events.into_iter().try_for_each(|event| audit::append(tx, event))).await;
        if written.is_err() {
            let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for (key, kept) in counted {
                counts.of.entry(key).and_modify(|since| since.count += kept.count).or_insert(kept);
            }
        }
        written
    }
}

impl Counts {
    /// The counter for this origin.
    fn from(&mut self, limit: &'static str, origin: Origin) -> From {
        let address = From::Address(origin);
        if self.of.contains_key(&(limit, address.clone())) {
            return address;
        }
        let network = origin.network();
        let apart = self.networks.get(&network).copied().unwrap_or(0);
        if self.of.len() < MOST && apart < MOST_OF_A_NETWORK {
            self.networks.insert(network, apart + 1);
            return address;
        }
        let network = From::Network(network);
        let room = self.of.len() < 2 * MOST || self.of.contains_key(&(limit, network.clone()));
        if room { network } else { From::Anywhere }
    }
}

impl Counted {
    fn event(&self, limit: &str, from: &From) -> Event {
        let event = Event::denied(Name::RateLimited, limit).detail("count", self.count);
        let event =
            if let From::Network(network) = from { event.detail("from", network.as_str()) } else { event };
        match &self.first {
            Some(request) => event.request(request),
            None => event,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> Request {
        Request::from(Some(address.parse().unwrap()))
    }

    /// AUDIT-06, RATE-06: neither an address nor an IPv6 /48 hides other senders; any number of them are
    /// counted with bounded memory.
    #[test]
    fn no_origin_hides_other_origins() {
        let tally = Tally::default();
        for n in 0..5_000 {
            tally.count("page", &from(&format!("2001:db8:7:{n:x}::1")));
            tally.count("page", &from("203.0.113.9"));
        }
        tally.count("page", &from("192.0.2.1"));
        let victim = Origin::of("192.0.2.1".parse().unwrap());
        let counted = |key: &Key| tally.0.lock().unwrap().of.get(key).map_or(0, |counted| counted.count);
        assert_eq!(counted(&("page", From::Address(victim))), 1);
        assert_eq!(counted(&("page", From::Network("2001:db8:7::/48".to_owned()))), 5_000 - 16);
        for n in 0..20_000_u32 {
            tally.count("page", &from(&format!("10.{}.{}.{}", n >> 16, (n >> 8) & 255, n & 255)));
        }
        let counts = tally.0.lock().unwrap();
        assert!(counts.of.len() <= 2 * MOST + 1);
        assert_eq!(counts.of.values().map(|counted| counted.count).sum::<u64>(), 30_001);
    }
}
