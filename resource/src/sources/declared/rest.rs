//! `kind = "rest"`: declared requests to an HTTP service (REST-01). Host, scheme, method and the names of headers are the
//! configuration's; arguments fill in values only.

mod answer;
mod body;
mod path;
mod request;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};
use serde_json::{Value, json};
use shared::outbound::{Answer, Destination, Failure, NoAnswer, Outbound, Outgoing};
use tokio::time::Instant;

pub use body::BodyTemplate;
pub use path::PathTemplate;

use super::param::Param;
use super::projection::Projection;
use super::tool::{Tool, ToolText};
use super::{Shared, param};
use crate::admission::Ask;
use crate::item::{Arguments, Effect};
use crate::sources::Outcome;
use crate::sources::identity::Credentials;
use crate::sources::own::problem;

/// An HTTP service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RestSource {
    /// The URL as written, for display.
    pub url: String,
    /// Its path, which every operation's path continues; without a slash at the end.
    pub prefix: String,
    pub destination: Destination,
    pub operations: Vec<Operation>,
}

/// One declared request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    pub text: ToolText,
    pub method: Method,
    pub path: PathTemplate,
    pub query: Vec<(String, Slot)>,
    pub headers: Vec<(HeaderName, Slot)>,
    pub body: Option<BodyTemplate>,
    pub params: Vec<Param>,
    /// What is kept of the answer.
    pub result: Projection,
    /// The most bytes of what is kept.
    pub most: usize,
}

/// A value of a query or a header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Slot {
    Fixed(String),
    /// The argument with this name; left out if it was.
    Argument(String),
}

impl Slot {
    /// `{name}` is an argument, any other text is itself.
    pub fn parse(text: &str) -> Self {
        match argument(text) {
            Some(name) => Self::Argument(name.to_owned()),
            None => Self::Fixed(text.to_owned()),
        }
    }

    fn value(&self, params: &[Param], arguments: &Arguments) -> Option<String> {
        match self {
            Self::Fixed(text) => Some(text.clone()),
            Self::Argument(name) => param::find(params, name, arguments).map(param::text),
        }
    }

    fn argument(&self) -> Option<&str> {
        match self {
            Self::Fixed(_) => None,
            Self::Argument(name) => Some(name),
        }
    }
}

/// The name in `{name}`.
fn argument(text: &str) -> Option<&str> {
    let name = text.strip_prefix('{')?.strip_suffix('}')?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    (!name.is_empty() && name.bytes().all(fits)).then_some(name)
}

impl Operation {
    /// Whether it only reads: by its method, unless a rule says otherwise.
    fn effect(&self) -> Effect {
        Effect::of(matches!(self.method, Method::GET | Method::HEAD))
    }

    /// Checks that the request uses every argument, and no others.
    fn check(&self) -> Result<(), String> {
        let slots = self.query.iter().map(|(_, slot)| slot).chain(self.headers.iter().map(|(_, slot)| slot));
        let mut used: Vec<&str> = self.path.arguments().chain(slots.filter_map(Slot::argument)).collect();
        used.extend(self.body.iter().flat_map(BodyTemplate::arguments));
        let name = &self.text.name;
        if let Some(unknown) = used.iter().find(|used| !self.params.iter().any(|param| param.name == **used))
        {
            return Err(format!(
                "`{name}` uses {{{unknown}}}, which is not among its `params`; declare it there"
            ));
        }
        if let Some(unused) = self.params.iter().find(|param| !used.contains(&param.name.as_str())) {
            return Err(format!(
                "`{name}` declares the argument `{0}` and does not use it; write {{{0}}} into `path`, `query`, `headers` or `body`, or remove it",
                unused.name
            ));
        }
        let optional = self.path.arguments().find(|name| {
            self.params.iter().any(|param| param.name == *name && !param.required && param.default.is_none())
        });
        if let Some(optional) = optional {
            return Err(format!(
                "`{name}` has {{{optional}}} in its path, so the argument must be required or have a default"
            ));
        }
        if self.body.is_some() && self.effect() == Effect::ReadOnly {
            return Err(format!(
                "`{name}` has a `body`, and {} carries none; write another `method`",
                self.method
            ));
        }
        Ok(())
    }
}

/// The tools of a service.
pub(super) fn tools(source: &str, rest: &RestSource) -> Result<Vec<Tool>, String> {
    let tool = |operation: &Operation| {
        operation.check()?;
        Tool::new(source, &operation.text, &operation.params, output(), operation.effect())
    };
    rest.operations.iter().map(tool).collect()
}

fn output() -> Value {
    json!({
        "type": "object",
        "properties": {
            "status": { "type": "integer", "description": "The HTTP status." },
            "body": { "description": "The answer: JSON, or text if it is not JSON." },
            "truncated": { "type": "boolean", "description": "Whether parts were left out because it is long." },
        },
        "required": ["status", "body", "truncated"],
        "additionalProperties": false,
    })
}

/// A service in use.
pub(super) struct Rest {
    source: RestSource,
    outbound: Outbound,
    credentials: Arc<Credentials>,
}

impl Rest {
    pub(super) fn new(source: RestSource, credentials: Arc<Credentials>) -> Self {
        let outbound = Outbound::new(source.destination.clone());
        Self { source, outbound, credentials }
    }

    /// Closes idle connections.
    pub(super) fn forget(&self) {
        self.outbound.forget();
    }

    /// Runs the operation at this place.
    pub(super) async fn run(&self, shared: &Shared, at: usize, ask: &Ask, arguments: &Arguments) -> Outcome {
        let Some(operation) = self.source.operations.get(at) else { return Outcome::Error };
        let who = match self.credentials.of(Some(ask.asker()), shared.clock.now()) {
            Ok(who) => who,
            Err(lacking) => {
                return Outcome::NotSent(
                    format!("{} Nothing was done.", self.credentials.says(&lacking)).into(),
                );
            }
        };
        let outgoing = match request::of(operation, &self.source.prefix, arguments, &who.headers) {
            Ok(outgoing) => outgoing,
            Err(wrong) => return problem(&wrong),
        };
        let answered = self.outbound.send(&outgoing, ask.deadline()).await;
        let answered = match answered {
            Ok(answer) => read(answer, ask).await,
            Err(failure) => Err(failure),
        };
        match answered {
            Ok(answered) => {
                answer::outcome(&shared.name, &self.credentials, operation, &who.headers, answered)
            }
            Err(failure) => failed(&shared.name.to_string(), failure),
        }
    }

    /// Asks for the service's own address, with the gateway's credential.
    pub(super) async fn probe(&self, shared: &Shared, patience: Duration) -> Result<(), String> {
        let who = self.credentials.of(None, shared.clock.now()).map_err(|lacking| lacking.reason())?;
        let mut outgoing = Outgoing::get(&format!("{}/", self.source.prefix));
        outgoing.headers.extend(who.headers.iter().cloned());
        let answer = self.outbound.send(&outgoing, Instant::now() + patience).await;
        let status = answer.map_err(|failure| failure.to_string())?.status;
        match status.as_u16() {
            401 | 403 if !who.headers.is_empty() => {
                Err(format!("it answered HTTP {status}; {}", self.credentials.remedy(false)))
            }
            500.. => Err(format!("it answered HTTP {status}")),
            _ => Ok(()),
        }
    }
}

/// An answer that was read to its end.
struct Answered {
    status: u16,
    location: bool,
    body: bytes::Bytes,
}

async fn read(answer: Answer, ask: &Ask) -> Result<Answered, Failure> {
    let (status, location) = (answer.status.as_u16(), answer.headers.contains_key(http::header::LOCATION));
    let body = answer.body.read_counted(ask.most(), Some(ask.memory())).await?;
    Ok(Answered { status, location, body })
}

/// The outcome of a request without an answer (SRC-08).
fn failed(name: &str, failure: Failure) -> Outcome {
    match failure {
        Failure::NotSent(why) => {
            Outcome::NotSent(format!("The service `{name}` cannot be used: {why}. Nothing was done.").into())
        }
        Failure::NoAnswer(NoAnswer::TooLarge(size)) => Outcome::TooLarge(size),
        Failure::NoAnswer(NoAnswer::NoMemory) => Outcome::NoMemory,
        Failure::NoAnswer(why) => Outcome::Unknown(
            format!(
                "The service `{name}` was asked and gave no usable answer: {why}. It may have acted: check the effect before you try again."
            )
            .into(),
        ),
    }
}

#[cfg(test)]
mod tests;
