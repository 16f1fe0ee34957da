//! Audit records of refused tokens: one for each, or counts in a flood (AUDIT-05, 06).

use shared::audit::{ClientStanding, Event, Flood, Name, UnrecordedCount};
use shared::{Clock, Db, Request, ResourceUri};

use super::refusal::Refusal;
use crate::admission::record;
use crate::bearer::Invalid;

/// The recorder for refused tokens of all endpoints.
pub(crate) struct Denials {
    db: Db,
    flood: Flood,
}

impl Denials {
    pub(crate) fn new(db: Db, clock: Clock) -> Self {
        Self { db, flood: Flood::new(clock) }
    }

    /// Records a refused token, or counts it.
    pub(crate) async fn record(
        &self,
        endpoint: &ResourceUri,
        invalid: &Invalid,
        request: &Request,
    ) -> Result<(), Refusal> {
        let event = one(endpoint, invalid, request);
        // The client is known only if the token was ours, and then the record's subject is the token.
        let (own, held_back) = self.flood.admit(&event, ClientStanding::Unknown);
        self.append(held_back, own.then_some(event)).await
    }

    /// Records what was only counted so far. Call it regularly, and before the server stops.
    pub(crate) async fn flush(&self) -> Result<(), Refusal> {
        self.append(self.flood.take(), None).await
    }

    async fn append(&self, held_back: Vec<UnrecordedCount>, own: Option<Event>) -> Result<(), Refusal> {
        let events: Vec<Event> = held_back.iter().map(UnrecordedCount::event).chain(own).collect();
        if events.is_empty() {
            return Ok(());
        }
        let written = record::write_all(&self.db, events).await;
        written.inspect_err(|_| self.flood.put_back(held_back))
    }
}

fn one(endpoint: &ResourceUri, invalid: &Invalid, request: &Request) -> Event {
    let event = Event::denied(Name::RsDenied, invalid.reason)
        .resource(endpoint)
        .request(request)
        .detail("token_sha256_8", invalid.token.short());
    match &invalid.verified {
        // The signature was valid, so the claims are trustworthy.
        Some(verified) => event
            .subject(&verified.verified().token.sub)
            .client(&verified.verified().token.client_id)
            .grant(&verified.verified().token.grant_id)
            .jti(verified.verified().token.jti.as_str()),
        None => event,
    }
}
