//! Audit records of calls (AUDIT-04, 08).

use std::time::Duration;

use serde_json::{Map, Value};
use shared::audit::{self, Event, Name};
use shared::db::Durability;
use shared::{Db, Digest, Fault, Request, ResourceUri, Scope};

use super::Denied;
use crate::bearer::CheckedToken;
use crate::gate::refusal::Refusal;
use crate::item::{Effect, SourceName};
use crate::policy::Decision;
use crate::sources::Outcome;

/// If writing a record takes longer than this, the request fails.
const PATIENCE: Duration = Duration::from_secs(5);

/// Writes a record. If that fails, the request fails (AUDIT-04).
pub(crate) async fn write(db: &Db, event: Event) -> Result<(), Refusal> {
    in_time(db.one(Durability::Record, move |tx| audit::append(tx, event))).await
}

/// Writes several records, all or none.
pub(crate) async fn write_all(db: &Db, events: Vec<Event>) -> Result<(), Refusal> {
    in_time(db.record(move |tx| events.into_iter().try_for_each(|event| audit::append(tx, event)))).await
}

/// The result of a job, if it comes in time; otherwise the request fails.
pub(super) async fn in_time<T>(writing: impl Future<Output = Result<T, Fault>>) -> Result<T, Refusal> {
    match tokio::time::timeout(PATIENCE, writing).await {
        Ok(Ok(done)) => Ok(done),
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

/// The part of a call's records that does not depend on its end.
pub(crate) struct Subject {
    pub(crate) request: Request,
    pub(crate) caller: CheckedToken,
    pub(crate) resource: ResourceUri,
    pub(crate) method: &'static str,
    pub(crate) name: String,
    /// The source of the item, if there is one.
    pub(crate) upstream: Option<SourceName>,
    pub(crate) needs: Scope,
    /// The digest of its arguments.
    pub(crate) arguments: Digest,
    /// The argument values that the rules look at, if they are recorded.
    pub(crate) values: Option<Map<String, Value>>,
}

impl Effect {
    /// The event that says how a call ended. What was not announced has this one record.
    fn names_end(self) -> Name {
        match self {
            Self::ReadOnly => Name::McpCall,
            Self::Writes => Name::McpResult,
        }
    }
}

impl Subject {
    fn describe(&self, event: Event, decision: &str) -> Event {
        let token = self.caller.token();
        let needs: Vec<_> = self.needs.iter().collect();
        let event = match &self.values {
            Some(values) => event.detail("rule_values", values.clone()),
            None => event,
        };
        let event = match &self.upstream {
            Some(upstream) => event.detail("upstream", upstream.to_string()),
            None => event,
        };
        self.caller
            .acting(event)
            .client(&token.client_id)
            .grant(&token.grant_id)
            .jti(token.jti.as_str())
            .resource(&self.resource)
            .scope(&token.scope)
            .request(&self.request)
            .detail("method", self.method)
            .detail("name", self.name.as_str())
            .detail("scopes_needed", needs)
            .detail("decision", decision)
            .detail("args_sha256", data_encoding::HEXLOWER.encode(&self.arguments.0))
    }

    /// The record before a call that is not known to be read-only.
    pub(crate) fn intended(&self) -> Event {
        self.describe(Event::allowed(Name::McpCall), Decision::Allow.as_str())
    }

    /// The record after a call: how it ended, and how long it took. For a call that was not announced it is the
    /// only one.
    pub(crate) fn ended(&self, effect: Effect, outcome: &Outcome, took: Duration) -> Event {
        let name = effect.names_end();
        let event = match outcome {
            Outcome::Result { .. } => Event::allowed(name),
            _ => Event::failed(name, outcome.as_str()),
        };
        self.describe(event, Decision::Allow.as_str())
            .detail("result", outcome.as_str())
            .detail("ms", u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
    }

    /// The call lost what it stood on. Its answer is not given out: it was cancelled before there was one, or what it came to
    /// is withheld (RS-10).
    pub(crate) fn ended_early(
        &self,
        effect: Effect,
        outcome: &Outcome,
        took: Duration,
        denied: &Denied,
    ) -> Event {
        let came_to = outcome.as_str();
        let result = if *outcome == Outcome::Cancelled { came_to } else { "withheld" };
        let event = self
            .describe(Event::failed(effect.names_end(), result), Decision::Allow.as_str())
            .detail("result", result)
            .detail("ended_by", denied.as_str())
            .detail("ms", u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
            .detail("bytes", 0);
        if result == came_to { event } else { event.detail("source_result", came_to) }
    }

    /// The record of a refusal. It distinguishes cases that the answer does not (MCP-09).
    pub(crate) fn refused(&self, decision: &Decision) -> Event {
        let event = self.describe(Event::denied(Name::McpDenied, decision.as_str()), decision.as_str());
        match decision {
            Decision::ArgumentDenied { violation } => {
                event.detail("argument", violation.argument.as_str()).detail("rule", violation.rule.as_str())
            }
            _ => event,
        }
    }
}

impl Subject {
    /// The record of a call that is over a limit, before it is said which (LIMIT-01).
    pub(super) fn limited(&self, decision: &str) -> Event {
        self.describe(Event::denied(Name::McpDenied, decision), decision)
    }
}

/// The digest of a call's arguments; their order does not matter.
pub(crate) fn digest(arguments: &Value) -> Digest {
    let mut text = Vec::new();
    write_sorted(arguments, &mut text);
    Digest::of(&text)
}

fn write_sorted(value: &Value, text: &mut Vec<u8>) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            text.push(b'{');
            for (at, (name, value)) in members.into_iter().enumerate() {
                if at > 0 {
                    text.push(b',');
                }
                plain(name, text);
                text.push(b':');
                write_sorted(value, text);
            }
            text.push(b'}');
        }
        Value::Array(items) => {
            text.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    text.push(b',');
                }
                write_sorted(item, text);
            }
            text.push(b']');
        }
        other => plain(other, text),
    }
}

fn plain(value: &impl serde::Serialize, text: &mut Vec<u8>) {
    serde_json::to_writer(text, value).expect("JSON in memory is written");
}
