//! JSON-RPC with a child, one line a message: requests with ids of ours, answers as they were written, and the other
//! lines of the child.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

pub use crate::lines::LONGEST;
use crate::lines::{Line, Lines};
use crate::outbox::{NotTaken, Outbox};
use crate::room::Room;

/// The answer to a request.
#[derive(Debug)]
pub enum Answer {
    Result(Box<RawValue>),
    Error(Box<RawValue>),
}

/// Why there is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error("too much waits to be written to it")]
    Full,
    /// It has ended, or closed what it is spoken to through, before anything was written.
    #[error("it ended before it was asked")]
    NotAsked,
    /// It was asked, or asked in part.
    #[error("it ended before it answered")]
    Ended,
    #[error("its answer is longer than {} MiB", LONGEST >> 20)]
    TooLong,
    #[error("there was no memory left for its answer")]
    NoRoom,
    #[error("its answer is neither a result nor an error")]
    Malformed,
}

impl NoAnswer {
    /// Whether the child may have read the request.
    pub fn sent(self) -> bool {
        !matches!(self, Self::Full | Self::NotAsked)
    }
}

/// What a child says that is not an answer.
#[derive(Debug)]
pub struct ChildMessage {
    pub method: String,
    /// The id of a request, as it was written; a notification has none.
    pub id: Option<Box<RawValue>>,
    pub params: Option<Box<RawValue>>,
}

/// Lines that led to nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Skipped {
    /// Not a JSON-RPC message: banners, for instance.
    pub not_messages: u64,
    /// Answers to what was not asked, or was answered before.
    pub strays: u64,
    /// Longer than allowed.
    pub too_long: u64,
}

/// Counts them, for all conversations of one source. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Skips(Arc<[AtomicU64; 3]>);

impl Skips {
    pub fn skipped(&self) -> Skipped {
        let [not_messages, strays, too_long] = self.0.each_ref().map(|count| count.load(Ordering::Relaxed));
        Skipped { not_messages, strays, too_long }
    }
}

const NOT_MESSAGES: usize = 0;
const STRAYS: usize = 1;
const TOO_LONG: usize = 2;

/// One conversation. Clones share it.
#[derive(Clone)]
pub struct Conversation(Arc<Inner>);

struct Inner {
    outbox: Outbox,
    pending: Mutex<Pending>,
    last_id: AtomicU64,
    /// By the place of [`NOT_MESSAGES`], [`STRAYS`] and [`TOO_LONG`].
    skips: Skips,
    over: CancellationToken,
}

#[derive(Default)]
struct Pending {
    asked: HashMap<u64, Tell>,
    over: bool,
}

type Tell = oneshot::Sender<Result<Answer, NoAnswer>>;

/// Members of a message. What is not a member of JSON-RPC is passed over.
#[derive(Deserialize)]
struct Message {
    id: Option<Box<RawValue>>,
    method: Option<String>,
    params: Option<Box<RawValue>>,
    result: Option<Box<RawValue>>,
    error: Option<Box<RawValue>>,
}

/// A request that was queued. When this is dropped, its answer is a stray.
pub struct PendingRequest {
    id: u64,
    answer: oneshot::Receiver<Result<Answer, NoAnswer>>,
    conversation: Conversation,
}

impl Conversation {
    /// Begins one. `room` counts the memory of long lines, and `skips` the lines that lead to nothing. `hear` is called for
    /// what is not an answer, in order, with the conversation to answer in; it must not wait.
    pub fn begin(
        stdin: impl AsyncWrite + Unpin + Send + 'static,
        stdout: impl AsyncRead + Unpin + Send + 'static,
        room: impl Room,
        skips: &Skips,
        hear: impl FnMut(&Self, ChildMessage) + Send + 'static,
    ) -> Self {
        let conversation = Self(Arc::new(Inner {
            outbox: Outbox::default(),
            pending: Mutex::default(),
            last_id: AtomicU64::new(0),
            skips: skips.clone(),
            over: CancellationToken::new(),
        }));
        tokio::spawn(conversation.clone().write(stdin));
        tokio::spawn(conversation.clone().read(stdout, room, hear));
        conversation
    }

    /// Queues a request. Params are JSON.
    ///
    /// # Errors
    /// If it cannot be queued; nothing was sent then.
    pub fn ask(&self, method: &str, params: Option<&str>) -> Result<PendingRequest, NoAnswer> {
        let id = self.0.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (tell, answer) = oneshot::channel();
        let line = line(Some(id), method, params);
        {
            let mut pending = self.pending();
            if pending.over {
                return Err(NoAnswer::NotAsked);
            }
            pending.asked.insert(id, tell);
        }
        let asked = PendingRequest { id, answer, conversation: self.clone() };
        // If it is not taken, `asked` is dropped and forgotten.
        self.0.outbox.push(id, line).map(|()| asked).map_err(NoAnswer::from)
    }

    /// Sends a notification, ahead of all that waits.
    ///
    /// # Errors
    /// If it cannot be queued.
    pub fn notify(&self, method: &str, params: Option<&str>) -> Result<(), NoAnswer> {
        self.0.outbox.push_first(line(None, method, params)).map_err(NoAnswer::from)
    }

    /// Answers a request of the child: `answer` is the member `"result":…` or `"error":…`.
    ///
    /// # Errors
    /// If it cannot be queued.
    pub fn answer(&self, id: &RawValue, answer: &str) -> Result<(), NoAnswer> {
        let line = format!(r#"{{"jsonrpc":"2.0","id":{},{answer}}}"#, id.get());
        self.0.outbox.push_first(line.into_bytes()).map_err(NoAnswer::from)
    }

    /// Writes nothing more, and closes the child's standard input. Answers are still read.
    pub fn close(&self) {
        let unwritten = self.0.outbox.close();
        self.fail(&unwritten, NoAnswer::NotAsked);
    }

    /// Waits until the child says nothing more.
    pub async fn over(&self) {
        self.0.over.cancelled().await;
    }

    /// Whether the child says nothing more.
    pub fn is_over(&self) -> bool {
        self.0.over.is_cancelled()
    }

    /// The lines that led to nothing.
    pub fn skipped(&self) -> Skipped {
        self.0.skips.skipped()
    }

    async fn write(self, stdin: impl AsyncWrite + Unpin) {
        // A child that reads no more may still answer what it has read.
        let unwritten = self.0.outbox.clone().write_to(stdin).await;
        self.fail(&unwritten, NoAnswer::NotAsked);
    }

    async fn read(
        self,
        stdout: impl AsyncRead + Unpin + Send,
        room: impl Room,
        mut hear: impl FnMut(&Self, ChildMessage),
    ) {
        let mut lines = Lines::of(stdout, room, LONGEST);
        while let Ok(Some(line)) = lines.next().await {
            match line {
                Line::Whole(line) if line.trim_ascii().is_empty() => {}
                Line::Whole(line) => match serde_json::from_slice(&line) {
                    Ok(message) => self.take(message, &mut hear),
                    Err(_) => self.skip(NOT_MESSAGES),
                },
                Line::TooLong(id) => {
                    self.skip(TOO_LONG);
                    self.fail(id.as_slice(), NoAnswer::TooLong);
                }
                Line::NoRoom(id) => self.fail(id.as_slice(), NoAnswer::NoRoom),
            }
        }
        self.end();
    }

    /// Hands a message to whom it is for.
    fn take(&self, message: Message, hear: &mut impl FnMut(&Self, ChildMessage)) {
        let Message { id, method, params, result, error } = message;
        if let Some(method) = method {
            return hear(self, ChildMessage { method, id, params });
        }
        if result.is_none() && error.is_none() && id.is_none() {
            return self.skip(NOT_MESSAGES);
        }
        let asked = id.and_then(|id| id.get().parse().ok());
        let tell = asked.and_then(|id: u64| self.pending().asked.remove(&id));
        let Some(tell) = tell else { return self.skip(STRAYS) };
        let answer = match (result, error) {
            (Some(result), None) => Ok(Answer::Result(result)),
            (None, Some(error)) => Ok(Answer::Error(error)),
            _ => Err(NoAnswer::Malformed),
        };
        // Fails if the request was dropped meanwhile.
        let _ = tell.send(answer);
    }

    /// Nothing more is said: what was not written was not asked, and the rest is not answered.
    fn end(&self) {
        let unwritten = self.0.outbox.close();
        self.fail(&unwritten, NoAnswer::NotAsked);
        let unanswered = {
            let mut pending = self.pending();
            pending.over = true;
            std::mem::take(&mut pending.asked)
        };
        for tell in unanswered.into_values() {
            let _ = tell.send(Err(NoAnswer::Ended));
        }
        self.0.over.cancel();
    }

    fn fail(&self, ids: &[u64], why: NoAnswer) {
        let mut pending = self.pending();
        for tell in ids.iter().filter_map(|id| pending.asked.remove(id)) {
            let _ = tell.send(Err(why));
        }
    }

    fn skip(&self, what: usize) {
        if let Some(count) = self.0.skips.0.get(what) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingRequest {
    /// The id it has in the conversation, for a cancellation that names it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// If the child can no longer answer.
    pub async fn answered(&mut self) -> Result<Answer, NoAnswer> {
        (&mut self.answer).await.unwrap_or(Err(NoAnswer::Ended))
    }

    /// Takes it back if nothing of it was written. Says whether it was.
    pub fn take_back(&self) -> bool {
        self.conversation.0.outbox.take_back(self.id)
    }
}

impl Drop for PendingRequest {
    fn drop(&mut self) {
        self.conversation.pending().asked.remove(&self.id);
    }
}

impl From<NotTaken> for NoAnswer {
    fn from(not_taken: NotTaken) -> Self {
        match not_taken {
            NotTaken::Full => Self::Full,
            NotTaken::Closed => Self::NotAsked,
        }
    }
}

/// A message without its end.
fn line(id: Option<u64>, method: &str, params: Option<&str>) -> Vec<u8> {
    let id = id.map_or_else(String::new, |id| format!(r#""id":{id},"#));
    let params = params.map_or_else(String::new, |params| format!(r#","params":{params}"#));
    let method = serde_json::Value::from(method);
    format!(r#"{{"jsonrpc":"2.0",{id}"method":{method}{params}}}"#).into_bytes()
}

#[cfg(test)]
mod tests;
