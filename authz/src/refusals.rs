//! Refusals that anybody can cause, without credentials and as often as they like: one by one on record as long as
//! they are few, as a count beyond that (AUDIT-06). Refusals that change something are recorded where they do.

use shared::audit::{self, Event, Flood, Name};
use shared::{Clock, Db, Fault};

/// What is refused, each with a quota of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A client that could not be made out.
    Client,
    /// A token that was not issued.
    Token,
    /// A token that was not taken back, because it was worth nothing or somebody else's.
    Revocation,
    /// A registration, or a change of one.
    Registration,
    /// A request at the authorization endpoint.
    Authorization,
    /// A decision, or the page for it, that is not the browser's to make or see.
    Decision,
    /// A ceremony with a passkey.
    Ceremony,
    /// A sign-out that did not come from our page.
    SignOut,
    /// A wish that an administrator look at a client, which did not come from our page either.
    Approval,
    /// A change on the account page that did not come from there, or of what is not the person's.
    Withdrawal,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Client,
        Self::Token,
        Self::Revocation,
        Self::Registration,
        Self::Authorization,
        Self::Decision,
        Self::Ceremony,
        Self::SignOut,
        Self::Approval,
        Self::Withdrawal,
    ];

    /// What its records are called.
    pub(crate) fn name(self) -> Name {
        match self {
            Self::Client => Name::ClientAuthFailed,
            Self::Token => Name::TokenRefused,
            Self::Revocation => Name::TokenRevoked,
            Self::Registration => Name::ClientRegistered,
            Self::Authorization => Name::AuthzError,
            Self::Decision => Name::AuthzDenied,
            Self::Ceremony => Name::WebauthnFailed,
            Self::SignOut => Name::SessionEnded,
            Self::Approval => Name::CimdApprovalRequested,
            Self::Withdrawal => Name::ConsentWithdrawn,
        }
    }
}

/// The refusals of every endpoint that strangers reach.
pub(crate) struct Refusals([Flood; 10]);

impl Refusals {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self(Kind::ALL.map(|_| Flood::new(clock.clone())))
    }

    /// Records a refusal, or counts it.
    ///
    /// # Errors
    /// The database's fault; what was counted before is counted still.
    pub(crate) async fn record(&self, db: &Db, what: Kind, event: Event) -> Result<(), Fault> {
        let flood = &self.0[what as usize];
        let (own, held_back) = flood.admit();
        let counted = (held_back > 0).then(|| aggregate(what, held_back));
        let events: Vec<Event> = counted.into_iter().chain(own.then_some(event)).collect();
        append(db, events).await.inspect_err(|_| flood.put_back(held_back))
    }

    /// Records what was only counted so far. For a regular tick, and for the end.
    ///
    /// # Errors
    /// As [`Refusals::record`].
    pub(crate) async fn flush(&self, db: &Db) -> Result<(), Fault> {
        for (what, flood) in Kind::ALL.into_iter().zip(&self.0) {
            let held_back = flood.take();
            if held_back > 0 {
                let written = append(db, vec![aggregate(what, held_back)]).await;
                written.inspect_err(|_| flood.put_back(held_back))?;
            }
        }
        Ok(())
    }
}

fn aggregate(what: Kind, count: u64) -> Event {
    Event::denied(what.name(), "flood").by_server().detail("count", count)
}

async fn append(db: &Db, events: Vec<Event>) -> Result<(), Fault> {
    if events.is_empty() {
        return Ok(());
    }
    db.record(move |tx| events.into_iter().try_for_each(|event| audit::append(tx, event))).await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::Timestamp;
    use shared::audit::QUOTA;

    use super::*;

    /// AUDIT-06: beyond the quota refusals are counted, each kind for itself, and the counts go on record.
    #[tokio::test]
    async fn a_flood_is_counted_and_not_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::held(Timestamp(0));
        let db = Db::open(&dir.path().join("x.db"), &shared::schema::SCHEMA, None, &clock).unwrap();
        let refusals = Refusals::new(&clock);
        let refuse = async |what: Kind, count: u32| {
            for _ in 0..count {
                refusals.record(&db, what, Event::denied(what.name(), "guess")).await.unwrap();
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
        refuse(Kind::Token, QUOTA + 5).await;
        refuse(Kind::Client, 1).await;
        assert_eq!(on_record("token.refused"), (quota, vec![]));
        assert_eq!(on_record("client.auth_failed"), (1, vec![]));
        clock.advance(Duration::from_mins(1));
        refuse(Kind::Token, QUOTA + 2).await;
        assert_eq!(on_record("token.refused"), (2 * quota + 1, vec![5]));
        refusals.flush(&db).await.unwrap();
        refusals.flush(&db).await.unwrap();
        assert_eq!(on_record("token.refused"), (2 * quota + 2, vec![5, 2]));
        assert_eq!(on_record("client.auth_failed"), (1, vec![]));
    }
}
