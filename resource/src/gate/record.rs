//! What goes on record about calls and refusals (AUDIT-04, 06, 08).

use std::time::Duration;

use serde_json::{Map, Value};
use shared::audit::{self, Acquaintance, Event, Flood, HeldBack, Name};
use shared::{Clock, Db, Digest, Request, ResourceUri, Scope};

use super::refusal::Refusal;
use crate::bearer::{Checked, Invalid};
use crate::policy::Decision;

/// A record that takes longer than this fails the request.
const PATIENCE: Duration = Duration::from_secs(5);

/// Writes a record; without it there is no answer (AUDIT-04).
pub(crate) async fn write(db: &Db, event: Event) -> Result<(), Refusal> {
    write_all(db, vec![event]).await
}

async fn write_all(db: &Db, events: Vec<Event>) -> Result<(), Refusal> {
    let job = db.record(move |tx| events.into_iter().try_for_each(|event| audit::append(tx, event)));
    let written = tokio::time::timeout(PATIENCE, job).await;
    match written {
        Ok(Ok(())) => Ok(()),
        Ok(Err(fault)) => {
            tracing::error!(db.fault = %fault, "a record could not be written");
            Err(Refusal::unavailable())
        }
        Err(_) => {
            tracing::error!("a record was not written in time");
            Err(Refusal::unavailable())
        }
    }
}

/// A tool call, as far as it is the same for allowed and denied ones.
pub(crate) struct Subject<'s> {
    pub(crate) request: &'s Request,
    pub(crate) caller: &'s Checked,
    pub(crate) resource: &'s ResourceUri,
    pub(crate) tool: &'s str,
    pub(crate) needs: Scope,
    pub(crate) arguments: &'s Map<String, Value>,
}

impl Subject<'_> {
    fn describe(&self, event: Event, decision: &Decision) -> Event {
        let token = self.caller.token();
        let digest = data_encoding::HEXLOWER.encode(&digest(self.arguments).0);
        let needs: Vec<_> = self.needs.iter().collect();
        self.caller
            .acting(event)
            .client(&token.client_id)
            .grant(&token.grant_id)
            .jti(token.jti.as_str())
            .resource(self.resource)
            .scope(&token.scope)
            .request(self.request)
            .detail("method", "tools/call")
            .detail("name", self.tool)
            .detail("scopes_needed", needs)
            .detail("decision", decision.as_str())
            .detail("args_sha256", digest)
    }

    /// The call was made: how it ended, how much was answered, how long it took.
    pub(crate) fn made(&self, result: &str, bytes: usize, took: Duration) -> Event {
        let event = match result {
            "error" => Event::failed(Name::McpCall, "error"),
            _ => Event::allowed(Name::McpCall),
        };
        self.describe(event, &Decision::Allow)
            .detail("result", result)
            .detail("bytes", bytes)
            .detail("ms", u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
    }

    /// The call was refused. The record tells apart what the answer does not (MCP-09).
    pub(crate) fn refused(&self, decision: &Decision) -> Event {
        self.describe(Event::denied(Name::McpDenied, decision.as_str()), decision)
    }
}

/// The digest of a call's arguments: the same for the same arguments in whatever order they came.
fn digest(arguments: &Map<String, Value>) -> Digest {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(members) => {
                let mut names: Vec<_> = members.iter().collect();
                names.sort_unstable_by_key(|(name, _)| *name);
                Value::Object(names.into_iter().map(|(name, value)| (name.clone(), sorted(value))).collect())
            }
            Value::Array(items) => items.iter().map(sorted).collect(),
            plain => plain.clone(),
        }
    }
    let arguments = sorted(&Value::Object(arguments.clone()));
    Digest::of(arguments.to_string().as_bytes())
}

/// Tokens that were refused.
pub(crate) struct Denials {
    db: Db,
    resource: ResourceUri,
    flood: Flood,
}

impl Denials {
    pub(crate) fn new(db: Db, clock: Clock, resource: ResourceUri) -> Self {
        Self { db, resource, flood: Flood::new(clock) }
    }

    /// Records a refused token, or counts it.
    pub(crate) async fn record(&self, invalid: &Invalid, request: &Request) -> Result<(), Refusal> {
        let event = self.one(invalid, request);
        // A client is named only if the token was ours, and then the token is what the record is about.
        let (own, held_back) = self.flood.admit(&event, Acquaintance::Unknown);
        self.append(held_back, own.then_some(event)).await
    }

    /// Records what was only counted so far. For a regular tick, and for the end.
    pub(crate) async fn flush(&self) -> Result<(), Refusal> {
        self.append(self.flood.take(), None).await
    }

    async fn append(&self, held_back: Vec<HeldBack>, own: Option<Event>) -> Result<(), Refusal> {
        let events: Vec<Event> = held_back.iter().map(HeldBack::event).chain(own).collect();
        if events.is_empty() {
            return Ok(());
        }
        let written = write_all(&self.db, events).await;
        written.inspect_err(|_| self.flood.put_back(held_back))
    }

    fn one(&self, invalid: &Invalid, request: &Request) -> Event {
        let event = Event::denied(Name::RsDenied, invalid.reason)
            .resource(&self.resource)
            .request(request)
            .detail("token_sha256_8", invalid.token.short());
        match &invalid.verified {
            // The signature was good, so the claims can be believed.
            Some(verified) => event
                .subject(&verified.verified().token.sub)
                .client(&verified.verified().token.client_id)
                .grant(&verified.verified().token.grant_id)
                .jti(verified.verified().token.jti.as_str()),
            None => event,
        }
    }
}
