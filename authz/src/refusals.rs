//! Refusals that anyone can cause without credentials: recorded one by one up to a quota, and counted beyond it
//! (AUDIT-06). Refusals that change something are recorded in their own transaction instead.

use shared::audit::{self, ClientStanding, Event, Flood, UnrecordedCount};
use shared::{ClientId, Clock, Db, Fault};

use crate::store::clients;

/// The recorder for refusals of all public endpoints.
pub(crate) struct Refusals(Flood);

impl Refusals {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self(Flood::new(clock.clone()))
    }

    /// Records a refusal, or counts it.
    ///
    /// # Errors
    /// A database fault. Earlier counts are kept.
    pub(crate) async fn record(&self, db: &Db, event: Event) -> Result<(), Fault> {
        let client = match event.client_id().and_then(ClientId::parse) {
            Some(id) => db.read(|conn| clients::acquaintance(conn, &id))?,
            None => ClientStanding::Unknown,
        };
        let (own, held_back) = self.0.admit(&event, client);
        self.append(db, held_back, own.then_some(event)).await
    }

    /// Records what was only counted so far. Call it regularly, and before the server stops.
    ///
    /// # Errors
    /// As [`Refusals::record`].
    pub(crate) async fn flush(&self, db: &Db) -> Result<(), Fault> {
        self.append(db, self.0.take(), None).await
    }

    async fn append(
        &self,
        db: &Db,
        held_back: Vec<UnrecordedCount>,
        own: Option<Event>,
    ) -> Result<(), Fault> {
        let events: Vec<Event> = held_back.iter().map(UnrecordedCount::event).chain(own).collect();
        if events.is_empty() {
            return Ok(());
        }
        let written =
            db.record(move |tx| events.into_iter().try_for_each(|event| audit::append(tx, event))).await;
        written.inspect_err(|_| self.0.put_back(held_back))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::Timestamp;
    use shared::audit::{Name, QUOTA};

    use super::*;

    /// AUDIT-06: beyond the quota refusals are counted by kind, and the counts are recorded.
    #[tokio::test]
    async fn a_flood_is_counted_and_not_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::held(Timestamp(0));
        let db = Db::open(&dir.path().join("x.db"), &shared::schema::SCHEMA, None, &clock).unwrap();
        let refusals = Refusals::new(&clock);
        let refuse = async |name: Name, count: u32| {
            for _ in 0..count {
                refusals.record(&db, Event::denied(name, "guess")).await.unwrap();
            }
        };
        let on_record = |name: &str| {
            let records = db.read(|conn| audit::tail(conn, 10_000, 0)).unwrap();
            let of_name: Vec<_> = records.into_iter().filter(|record| record["event"] == name).collect();
            let counts: Vec<_> =
                of_name.iter().filter_map(|record| record["detail"]["count"].as_u64()).collect();
            (of_name.len(), counts)
        };
        let quota = usize::try_from(QUOTA).unwrap();
        refuse(Name::TokenRefused, QUOTA + 5).await;
        refuse(Name::ClientAuthFailed, 1).await;
        assert_eq!(on_record("token.refused"), (quota, vec![]));
        assert_eq!(on_record("client.auth_failed"), (1, vec![]));
        clock.advance(Duration::from_mins(1));
        refuse(Name::TokenRefused, QUOTA + 2).await;
        assert_eq!(on_record("token.refused"), (2 * quota + 1, vec![5]));
        refusals.flush(&db).await.unwrap();
        refusals.flush(&db).await.unwrap();
        assert_eq!(on_record("token.refused"), (2 * quota + 2, vec![5, 2]));
        assert_eq!(on_record("client.auth_failed"), (1, vec![]));
    }
}
