//! What was refused because it was too much: counted, and put on record as counts (AUDIT-06).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::Origin;
use crate::audit::{self, Event, Name};
use crate::db::{Db, Fault};
use crate::request::Request;
use crate::share;

/// How many pairs of limit and origin are counted apart; what exceeds them is counted by limit alone.
const MOST: usize = 256;

/// Refusals that are not on record yet.
#[derive(Default)]
pub struct Tally(Mutex<HashMap<(&'static str, Option<Origin>), Counted>>);

struct Counted {
    count: u64,
    /// The first of them, for its id and address.
    first: Option<Request>,
}

impl Tally {
    pub(super) fn count(&self, limit: &'static str, request: &Request) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = Some(Origin::from(request));
        let (key, first) = if counts.len() < MOST || counts.contains_key(&(limit, origin)) {
            ((limit, origin), Some(request))
        } else {
            ((limit, None), None)
        };
        counts.entry(key).or_insert_with(|| Counted { count: 0, first: first.cloned() }).count += 1;
    }

    /// Puts on record what was only counted so far, and at whose expense full tables made room. For a regular tick, and
    /// for the end.
    ///
    /// # Errors
    /// The database's fault; the counts are kept for the next time.
    pub async fn flush(&self, db: &Db) -> Result<(), Fault> {
        share::flush(db).await?;
        let counted = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if counted.is_empty() {
            return Ok(());
        }
        let events: Vec<_> = counted.iter().map(|((limit, _), counted)| counted.event(limit)).collect();
        let written =
            db.record(move |tx| events.into_iter().try_for_each(|event| audit::append(tx, event))).await;
        if written.is_err() {
            let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for (key, kept) in counted {
                counts.entry(key).and_modify(|since| since.count += kept.count).or_insert(kept);
            }
        }
        written
    }
}

impl Counted {
    fn event(&self, limit: &str) -> Event {
        let event = Event::denied(Name::RateLimited, limit).detail("count", self.count);
        match &self.first {
            Some(request) => event.request(request),
            None => event,
        }
    }
}
