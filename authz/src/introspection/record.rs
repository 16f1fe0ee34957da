//! Audit records of introspection: answers as counts; refusals one by one, up to a quota (AUDIT-06).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::audit::{self, Event, Name};
use shared::{ClientId, Clock, Db, Fault, Request, Timestamp};

use crate::refusals::Refusals;

/// The interval at which counts are recorded.
const MINUTE: Duration = Duration::from_mins(1);

/// What has to be recorded.
pub(crate) struct Records {
    clock: Clock,
    counts: Mutex<Counts>,
    refusals: Refusals,
    /// The last attempt to record the counts failed.
    stuck: AtomicBool,
}

struct Counts {
    /// For the record. The elapsed time is measured by uptime.
    since: Timestamp,
    began: Duration,
    of: HashMap<ClientId, Count>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    active: u64,
    inactive: u64,
    too_many: u64,
}

impl Records {
    pub(crate) fn new(clock: Clock) -> Self {
        let counts = Counts { since: clock.now(), began: clock.uptime(), of: HashMap::new() };
        let counts = Mutex::new(counts);
        Self { refusals: Refusals::new(&clock), clock, counts, stuck: AtomicBool::new(false) }
    }

    /// Counts an answer.
    pub(super) fn answered(&self, caller: &ClientId, active: bool) {
        self.count(caller, |count| if active { &mut count.active } else { &mut count.inactive });
    }

    /// Counts a question beyond the limit. It does not wait for the writer, because too many requests already
    /// do.
    pub(super) fn too_many(&self, caller: &ClientId) {
        self.count(caller, |count| &mut count.too_many);
    }

    fn count(&self, caller: &ClientId, one: impl FnOnce(&mut Count) -> &mut u64) {
        let mut counts = self.lock();
        if !counts.of.contains_key(caller) {
            counts.of.insert(caller.clone(), Count::default());
        }
        if let Some(count) = counts.of.get_mut(caller) {
            *one(count) += 1;
        }
    }

    /// Records a refusal, or counts it if the quota is used up.
    pub(super) async fn refused(
        &self,
        db: &Db,
        reason: &str,
        caller: Option<&ClientId>,
        request: &Request,
    ) -> Result<(), Fault> {
        let event = Event::denied(Name::IntrospectRefused, reason).request(request);
        self.refuse(db, caller.map_or_else(|| event.clone(), |id| event.clone().by_client(id).client(id)))
            .await
    }

    /// Records this event, or counts it if the quota is used up.
    pub(super) async fn refuse(&self, db: &Db, event: Event) -> Result<(), Fault> {
        self.refusals.record(db, event).await
    }

    /// Fails if earlier answers could not be recorded (AUDIT-04).
    pub(super) fn require_recorded(&self) -> Result<(), Fault> {
        if self.stuck.load(Ordering::Relaxed) {
            return Err(Fault::Storage("earlier introspections could not be recorded".to_owned()));
        }
        Ok(())
    }

    /// Records the counts: refusals always; answers once a minute, and when the server stops (`last`).
    pub(crate) async fn flush(&self, db: &Db, last: bool) -> Result<(), Fault> {
        let written = async {
            self.refusals.flush(db).await?;
            self.record_answers(db, last).await
        };
        let written = written.await;
        self.stuck.store(written.is_err(), Ordering::Relaxed);
        written
    }

    async fn record_answers(&self, db: &Db, last: bool) -> Result<(), Fault> {
        let (now, uptime) = (self.clock.now(), self.clock.uptime());
        let (since, began, counted) = {
            let mut counts = self.lock();
            if !last && uptime.saturating_sub(counts.began) < MINUTE {
                return Ok(());
            }
            (
                std::mem::replace(&mut counts.since, now),
                std::mem::replace(&mut counts.began, uptime),
                std::mem::take(&mut counts.of),
            )
        };
        if counted.is_empty() {
            return Ok(());
        }
        let events: Vec<_> = counted.iter().flat_map(|(caller, count)| count.events(caller, since)).collect();
        let written =
            db.record(move |tx| events.into_iter().try_for_each(|event| audit::append(tx, event))).await;
        if written.is_err() {
            let mut counts = self.lock();
            (counts.since, counts.began) = (since, began);
            for (caller, count) in counted {
                let kept = counts.of.entry(caller).or_default();
                kept.active += count.active;
                kept.inactive += count.inactive;
                kept.too_many += count.too_many;
            }
        }
        written
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count {
    fn events(self, caller: &ClientId, since: Timestamp) -> impl Iterator<Item = Event> {
        let about = |event: Event| event.by_client(caller).client(caller).detail("since", since.to_string());
        let answered = (self.active + self.inactive > 0).then(|| {
            let event = about(Event::allowed(Name::IntrospectOk));
            event.detail("active", self.active).detail("inactive", self.inactive)
        });
        let refused = (self.too_many > 0).then(|| {
            about(Event::denied(Name::IntrospectRefused, "too_many_in_flight")).detail("count", self.too_many)
        });
        answered.into_iter().chain(refused)
    }
}

#[cfg(test)]
mod tests {
    use shared::schema::SCHEMA;

    use super::*;

    /// AUDIT-04, AUDIT-06: counts that could not be recorded are kept, and until they are recorded nothing more
    /// is answered.
    #[tokio::test]
    async fn counts_outlive_a_database_that_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::held(Timestamp(0));
        let db = Db::open(&dir.path().join("x.db"), &SCHEMA, None, &clock).unwrap();
        let rename = |from: &'static str, to: &'static str| {
            db.write(move |tx| tx.execute(&format!("ALTER TABLE {from} RENAME TO {to}"), []).map(drop))
        };
        let records = Records::new(clock.clone());
        let caller = ClientId::random();
        records.answered(&caller, true);
        records.flush(&db, false).await.unwrap();
        rename("audit", "away").await.unwrap();
        clock.advance(MINUTE);
        assert!(records.flush(&db, false).await.is_err());
        assert!(records.require_recorded().is_err());
        rename("away", "audit").await.unwrap();
        records.answered(&caller, false);
        records.flush(&db, false).await.unwrap();
        assert!(records.require_recorded().is_ok());
        let recorded = db.read(|conn| audit::tail(conn, 10, 0)).unwrap();
        assert_eq!(recorded.len(), 1);
        assert_eq!(
            (&recorded[0]["detail"]["active"], &recorded[0]["detail"]["inactive"]),
            (&1.into(), &1.into())
        );
    }
}
