//! `kind = "webhook"`: calls that are sent to a receiver as signed messages (HOOK-01). All attempts of a call have one
//! delivery id, so that a receiver that honours it acts once.

mod message;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use shared::outbound::{Destination, Failure, NoAnswer, Outbound, Outgoing};
use tokio::time::{Instant, sleep};

use super::Shared;
use super::cut::cut;
use super::param::{self, Param};
use super::tool::{Tool, ToolText};
use crate::admission::{Ask, Relay};
use crate::item::{Arguments, Effect, SourceName};
use crate::progress::Progress;
use crate::sources::Outcome;
use crate::sources::identity::Credentials;
use crate::sources::own::{answered, problem};
use message::Delivery;

/// How often a message is sent at most.
const ATTEMPTS: u32 = 3;
/// The first pause between two attempts; the next is twice as long.
const PAUSE: Duration = Duration::from_millis(500);
/// The pause between two questions how far it is.
const POLL: Duration = Duration::from_secs(1);
/// The most bytes of the receiver's answer that a caller gets.
const MOST: usize = 64 << 10;

/// A receiver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebhookSource {
    /// The URL as written, for display.
    pub url: String,
    pub path: String,
    pub destination: Destination,
    pub messages: Vec<Message>,
    /// Where the receiver says how far it is, if it does.
    pub status: Option<String>,
}

/// A tool that sends a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    pub text: ToolText,
    pub params: Vec<Param>,
}

/// The tools of a receiver.
pub(super) fn tools(source: &str, hook: &WebhookSource) -> Result<Vec<Tool>, String> {
    let tool =
        |message: &Message| Tool::new(source, &message.text, &message.params, output(), Effect::Writes);
    hook.messages.iter().map(tool).collect()
}

fn output() -> Value {
    json!({
        "type": "object",
        "properties": {
            "delivery": { "type": "string", "description": "The id of the message, for questions about it." },
            "status": { "type": "integer", "description": "The receiver's HTTP status." },
            "answer": { "description": "What the receiver answered: JSON, text, or null." },
            "state": {
                "type": "string",
                "enum": ["accepted", "running", "succeeded"],
                "description": "How far it is: `accepted` if the receiver does not say."
            },
        },
        "required": ["delivery", "status", "answer", "state"],
        "additionalProperties": false,
    })
}

/// A receiver in use.
pub(super) struct Webhook {
    source: WebhookSource,
    outbound: Outbound,
    credentials: Arc<Credentials>,
}

/// What the receiver answered.
struct Heard {
    status: u16,
    answer: Value,
}

impl Webhook {
    pub(super) fn new(source: WebhookSource, credentials: Arc<Credentials>) -> Self {
        let outbound = Outbound::new(source.destination.clone());
        Self { source, outbound, credentials }
    }

    /// Closes idle connections.
    pub(super) fn forget(&self) {
        self.outbound.forget();
    }

    /// Sends the message of the tool at this place.
    pub(super) async fn run(
        &self,
        shared: &Shared,
        at: usize,
        (ask, relay): (&Ask, &Relay),
        arguments: &Arguments,
        patience: Duration,
    ) -> Outcome {
        let Some(message) = self.source.messages.get(at) else { return Outcome::Error };
        let given = message.params.iter().filter_map(|param| {
            Some((param.name.clone(), param::find(&message.params, &param.name, arguments)?.clone()))
        });
        let given: serde_json::Map<_, _> = given.collect();
        let delivery = Delivery::new(&message.text.name, ask.asker().user(), &given);
        let end = ask.deadline().min(Instant::now() + patience);
        match self.delivered(shared, &delivery, ask, (patience / (ATTEMPTS + 1), end)).await {
            Ok(heard) => self.told(shared, &delivery, heard, (ask, relay), end).await,
            Err(outcome) => outcome,
        }
    }

    /// Sends a message, again only if it was not sent or nothing was answered (SRC-08).
    async fn delivered(
        &self,
        shared: &Shared,
        delivery: &Delivery,
        ask: &Ask,
        (each, end): (Duration, Instant),
    ) -> Result<Heard, Outcome> {
        let (mut pause, mut sent) = (PAUSE, false);
        let mut attempt = 1;
        loop {
            let outgoing = self.outgoing(shared, delivery)?;
            let why = match self.exchange(&outgoing, ask, end.min(Instant::now() + each)).await {
                Ok(heard) => return Ok(heard),
                Err(Failure::NoAnswer(NoAnswer::TooLarge(size))) => return Err(Outcome::TooLarge(size)),
                Err(Failure::NoAnswer(NoAnswer::NoMemory)) => return Err(Outcome::NoMemory),
                Err(failure) => failure,
            };
            sent |= matches!(why, Failure::NoAnswer(_));
            if attempt >= ATTEMPTS || Instant::now() + pause >= end {
                return Err(lost(&shared.name, delivery, sent, &why));
            }
            sleep(pause).await;
            (attempt, pause) = (attempt + 1, pause * 2);
        }
    }

    fn outgoing(&self, shared: &Shared, delivery: &Delivery) -> Result<Outgoing, Outcome> {
        let now = shared.clock.now();
        let not_sent = |why: String| Outcome::NotSent(format!("{why} Nothing was done.").into());
        let who =
            self.credentials.of(None, now).map_err(|lacking| not_sent(self.credentials.says(&lacking)))?;
        let key = who.headers.first().map(|(_, value)| value.as_bytes()).unwrap_or_default();
        Ok(delivery.post(&self.source.path, key, now))
    }

    async fn exchange(&self, outgoing: &Outgoing, ask: &Ask, deadline: Instant) -> Result<Heard, Failure> {
        let answer = self.outbound.send(outgoing, deadline).await?;
        let status = answer.status.as_u16();
        let reading =
            tokio::time::timeout_at(deadline, answer.body.read_counted(ask.most(), Some(ask.memory())));
        let body: Bytes = reading.await.map_err(|_| NoAnswer::TooSlow)??;
        let text = String::from_utf8_lossy(&body);
        let answer = match serde_json::from_str(&text) {
            Ok(value) => value,
            Err(_) if text.is_empty() => Value::Null,
            Err(_) => Value::String(text.into_owned()),
        };
        Ok(Heard { status, answer: cut(answer, MOST).0 })
    }

    /// What a caller is told: at once, or when the receiver says that it has ended.
    async fn told(
        &self,
        shared: &Shared,
        delivery: &Delivery,
        heard: Heard,
        (ask, relay): (&Ask, &Relay),
        end: Instant,
    ) -> Outcome {
        if !(200..300).contains(&heard.status) {
            return problem(&format!(
                "The receiver `{}` answered HTTP {}: {}. The message was {}.",
                shared.name,
                heard.status,
                heard.answer,
                delivery.id()
            ));
        }
        let Some(status) = self.source.status.as_deref().filter(|_| heard.status == 202) else {
            return told(delivery, &heard, "accepted");
        };
        let mut last = heard;
        while Instant::now() + POLL < end {
            sleep(POLL).await;
            let key = self.credentials.of(None, shared.clock.now());
            let Ok(who) = key else { break };
            let key = who.headers.first().map(|(_, value)| value.as_bytes()).unwrap_or_default();
            let question = delivery.question(status, key, shared.clock.now());
            // An answer that does not come is asked for again: a question changes nothing.
            let Ok(heard) = self.exchange(&question, ask, end).await else { continue };
            if let Some(progress) = heard.answer["progress"].as_f64() {
                relay.progress(Progress::new(progress));
            }
            let state = heard.answer["state"].as_str().unwrap_or_default().to_owned();
            last = heard;
            match state.as_str() {
                "succeeded" => return told(delivery, &last, "succeeded"),
                "failed" => {
                    return problem(&format!(
                        "The receiver `{}` did what it was asked, and it failed: {}. The message was {}.",
                        shared.name,
                        last.answer,
                        delivery.id()
                    ));
                }
                _ => {}
            }
        }
        told(delivery, &last, "running")
    }

    /// Asks for the receiver's address without a message.
    pub(super) async fn probe(&self, patience: Duration) -> Result<(), String> {
        let outgoing = Outgoing { method: http::Method::HEAD, ..Outgoing::get(&self.source.path) };
        let answer = self.outbound.send(&outgoing, Instant::now() + patience).await;
        answer.map(drop).map_err(|failure| failure.to_string())
    }
}

fn told(delivery: &Delivery, heard: &Heard, state: &str) -> Outcome {
    let data =
        json!({ "delivery": delivery.id(), "status": heard.status, "answer": heard.answer, "state": state });
    answered(&data.to_string(), &data)
}

/// The outcome of a message without an answer (SRC-08).
fn lost(name: &SourceName, delivery: &Delivery, sent: bool, why: &Failure) -> Outcome {
    if sent {
        return Outcome::Unknown(
            format!(
                "The receiver `{name}` was sent the message {} and gave no answer: {why}. It may have acted: check the effect before you try again.",
                delivery.id()
            )
            .into(),
        );
    }
    Outcome::NotSent(format!("The receiver `{name}` cannot be reached: {why}. Nothing was done.").into())
}
