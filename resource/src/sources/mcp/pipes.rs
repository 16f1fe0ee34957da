//! A program that speaks MCP through its pipes: how the conversation with it begins (SRC-07), and requests to it. It may be
//! shared: every answer and every progress goes to the request that it names, and to no other (SRC-15).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use children::Ended;
use children::child::{Process, Started};
use children::conversation::{Answer, ChildMessage, Conversation, LONGEST, NoAnswer, PendingRequest, Skips};
use children::pool::Member;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::failed::Failed;
use super::handshake::{DISCOVER, agreed, discovered, initialize, told_by};
use super::message::{Answered, LIST_CHANGED, PROGRESS, RpcError, replied};
use super::request::{NoResult, Request};
use super::room::Counted;
use super::speaks::{Capabilities, SpokenEra};
use super::wire::{Hear, Heard};
use crate::progress::Progress;
use crate::revision::legacy;

/// From its start on, a program has this long to answer the question that tells the eras apart (SRC-07).
const PROBE: Duration = Duration::from_secs(10);
/// How long `initialize` may take.
const INITIALIZE: Duration = Duration::from_secs(30);
/// How long a program that has closed its output may take to end.
const ENDING: Duration = Duration::from_millis(500);
/// The revision that only programs may speak.
const OLDEST: &str = "2024-11-05";

/// A running program, and what was agreed on with it.
pub(super) struct Pipes {
    process: Process,
    conversation: Conversation,
    pub(super) capabilities: Capabilities,
    is_modern: bool,
    progress: Tokens,
    /// The subscription to news of its lists. It is never answered while the program runs.
    _listening: Option<PendingRequest>,
}

/// What its conversation needs besides the program.
pub(super) struct Means {
    pub(super) room: Counted,
    pub(super) skips: Skips,
    /// Notified when one of its lists has changed, if that concerns anybody.
    pub(super) news: Option<Arc<Notify>>,
}

/// What comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum First {
    /// The question that tells the eras apart. An older program is told `initialize` then, unless it must not be older.
    Probe {
        only_modern: bool,
    },
    Initialize,
}

/// Why the conversation did not begin.
pub(super) enum NotBegun {
    /// It ended when it was asked what it speaks, as some older programs do.
    EndedOnProbe,
    Failed(Failed),
}

impl From<Failed> for NotBegun {
    fn from(why: Failed) -> Self {
        Self::Failed(why)
    }
}

impl Pipes {
    /// Begins the conversation with a program that was just started.
    pub(super) async fn begin(started: Started, means: Means, first: First) -> Result<Self, NotBegun> {
        let Started { stdin, stdout, process } = started;
        let Means { room, skips, news } = means;
        let (progress, begun) = (Tokens::default(), Instant::now());
        let tokens = progress.clone();
        let hear = move |conversation: &Conversation, said: ChildMessage| {
            heard(conversation, &said, &tokens, news.as_deref());
        };
        let conversation = Conversation::begin(stdin, stdout, room, &skips, hear);
        let mut pipes = Self {
            process,
            conversation,
            capabilities: Capabilities::default(),
            is_modern: false,
            progress,
            _listening: None,
        };
        let agreed = pipes.agree(first, begun).await;
        if let Err(why) = agreed {
            let life = pipes.process.life();
            drop(pipes);
            // Its place is another's when nothing of it is left.
            life.gone().await;
            return Err(why);
        }
        Ok(Self { _listening: pipes.subscribe(), ..pipes })
    }

    /// What it was found to speak.
    pub(super) fn speaks(&self) -> SpokenEra {
        if self.is_modern { SpokenEra::Modern(self.capabilities) } else { SpokenEra::Legacy }
    }

    async fn agree(&mut self, first: First, begun: Instant) -> Result<(), NotBegun> {
        if let First::Probe { only_modern } = first {
            match self.probe(begun + PROBE).await? {
                SpokenEra::Modern(capabilities) => {
                    (self.is_modern, self.capabilities) = (true, capabilities);
                    return Ok(());
                }
                SpokenEra::Legacy if only_modern => {
                    return Err(Failed::Unreadable("it does not speak 2026-07-28".to_owned()).into());
                }
                SpokenEra::Legacy => {}
            }
        }
        self.capabilities = self.initialize().await?;
        Ok(())
    }

    /// SRC-07: any other error than those of the newer revisions, or silence, means an older revision.
    async fn probe(&self, deadline: Instant) -> Result<SpokenEra, NotBegun> {
        let asked = lifecycle(DISCOVER, String::new());
        let mut question = self.queue(DISCOVER, &asked.written(true, None))?;
        tokio::select! {
            biased;
            answered = timeout_at(deadline, question.answered()) => match answered {
                Err(_) => Ok(SpokenEra::Legacy),
                Ok(Ok(Answer::Result(result))) => Ok(discovered(&result)?),
                Ok(Ok(Answer::Error(error))) => {
                    Ok(RpcError::read(&error).map_or(SpokenEra::Legacy, |error| told_by(&error)))
                }
                Ok(Err(NoAnswer::Ended | NoAnswer::NotAsked)) => Err(NotBegun::EndedOnProbe),
                Ok(Err(why)) => Err(failed(why).why.into()),
            },
            _ = self.ended() => Err(NotBegun::EndedOnProbe),
        }
    }

    /// Agrees on a revision (2025-11-25, lifecycle).
    async fn initialize(&self) -> Result<Capabilities, Failed> {
        let asked = lifecycle("initialize", initialize());
        let mut question = self.queue(asked.method, &asked.written(false, None))?;
        let answered = timeout(INITIALIZE, question.answered()).await;
        let answered = answered.map_err(|_| Failed::Silent(INITIALIZE.as_secs()))?;
        let answered = self.read(answered).await.map_err(|no_result| no_result.why)?;
        let known = |version: &str| legacy(version).or_else(|| (version == OLDEST).then_some(OLDEST));
        let (_, capabilities) = agreed(&answered, known)?;
        let told = self.conversation.notify("notifications/initialized", Some("{}"));
        told.map_err(|why| failed(why).why)?;
        Ok(capabilities)
    }

    /// Asks to be told of changes (2026-07-28, subscriptions). Older programs tell of them without being asked.
    fn subscribe(&self) -> Option<PendingRequest> {
        if !self.is_modern || !self.capabilities.tells_changes() {
            return None;
        }
        let listen = lifecycle("subscriptions/listen", self.capabilities.wanted());
        self.queue(listen.method, &listen.written(true, None)).ok()
    }

    fn queue(&self, method: &str, params: &str) -> Result<PendingRequest, Failed> {
        self.conversation.ask(method, Some(params)).map_err(|why| failed(why).why)
    }

    /// Sends a request and waits for its answer. Dropping this future cancels the request (SRC-09).
    pub(super) async fn ask(&self, asked: &Request<'_>, hear: Hear<'_>) -> Result<Answered, NoResult> {
        let mut token = self.progress.begin();
        let params = asked.written(self.is_modern, asked.item.is_some().then_some(token.number));
        let queued = self.conversation.ask(asked.method, Some(&params)).map_err(failed)?;
        drop(params);
        let mut waiting = Waiting { asked: queued, conversation: self.conversation.clone(), is_over: false };
        let answered = timeout_at(asked.deadline, async {
            loop {
                tokio::select! {
                    biased;
                    answered = waiting.asked.answered() => return answered,
                    Ok(()) = token.further.changed() => {
                        let further = token.further.borrow_and_update().clone();
                        if let Some(further) = further {
                            hear(Heard::Progress(further));
                        }
                    }
                }
            }
        });
        let answered = match &asked.memory {
            Some(memory) => {
                memory.while_kept(answered).await.map_err(|_| NoResult::sent(Failed::NoMemory))?
            }
            None => answered.await,
        };
        let late = |_| NoResult::sent(Failed::Lost("it did not answer in time".to_owned()));
        let answered = answered.map_err(late)?;
        waiting.is_over = true;
        let answered = self.read(answered).await?;
        if let Ok(result) = &answered {
            let bytes = result.get().len();
            if bytes > asked.most {
                return Err(NoResult::sent(Failed::TooLarge(bytes)));
            }
            if let Some(memory) = &asked.memory {
                memory.set(bytes).await.map_err(|_| NoResult::sent(Failed::NoMemory))?;
            }
        }
        Ok(answered)
    }

    async fn read(&self, answered: Result<Answer, NoAnswer>) -> Result<Answered, NoResult> {
        match answered {
            Ok(Answer::Result(result)) => Ok(Ok(result)),
            Ok(Answer::Error(error)) => RpcError::read(&error)
                .map(Err)
                .ok_or_else(|| NoResult::sent(Failed::Unreadable("its error has no code".to_owned()))),
            Err(why @ (NoAnswer::Ended | NoAnswer::NotAsked)) => {
                let NoResult { sent, why } = failed(why);
                let how = timeout(ENDING, self.process.life().ended()).await;
                let how = how.map_or_else(|_| String::new(), |ended| format!(" ({ended})"));
                Err(NoResult { sent, why: why.with(&how) })
            }
            Err(why) => Err(failed(why)),
        }
    }
}

impl Member for Pipes {
    async fn ended(&self) -> Ended {
        let life = self.process.life();
        tokio::select! {
            ended = life.ended() => ended,
            // It says nothing more, so it is of no use, even if it runs on.
            () = self.conversation.over() => timeout(ENDING, life.ended()).await.unwrap_or(Ended::Unknown),
        }
    }

    async fn gone(&self) {
        self.process.life().gone().await;
    }

    fn is_over(&self) -> bool {
        self.conversation.is_over() || self.process.life().end().is_some()
    }

    fn stop(&self) {
        self.conversation.close();
        self.process.stop();
    }
}

/// A request that was queued. If this is dropped before it is over, the program is told that nobody waits, ahead of what is
/// queued; what was not written is taken back (SRC-09).
struct Waiting {
    asked: PendingRequest,
    conversation: Conversation,
    is_over: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.is_over || self.asked.take_back() {
            return;
        }
        let params =
            format!(r#"{{"requestId":{},"reason":"The client cancelled the request"}}"#, self.asked.id());
        // Fails if the program has ended.
        let _ = self.conversation.notify("notifications/cancelled", Some(&params));
    }
}

/// The requests that are told of progress, by their tokens. Only the newest value is kept (SRC-13).
#[derive(Clone, Default)]
struct Tokens(Arc<Inner>);

#[derive(Default)]
struct Inner {
    last: AtomicU64,
    waiting: Mutex<HashMap<u64, watch::Sender<Option<Progress>>>>,
}

struct Token {
    number: u64,
    further: watch::Receiver<Option<Progress>>,
    tokens: Tokens,
}

impl Tokens {
    fn begin(&self) -> Token {
        let number = self.0.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (tell, further) = watch::channel(None);
        self.waiting().insert(number, tell);
        Token { number, further, tokens: self.clone() }
    }

    fn hear(&self, progress: Progress, token: &str) {
        let waiting = self.waiting();
        let number = token.parse().ok();
        if let Some(tell) = number.and_then(|number: u64| waiting.get(&number)) {
            tell.send_if_modified(|furthest| {
                let further = progress.is_beyond(furthest.as_ref());
                if further {
                    *furthest = Some(progress);
                }
                further
            });
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, watch::Sender<Option<Progress>>>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.tokens.waiting().remove(&self.number);
    }
}

/// What a program says on its own. Its requests are declined, because nothing says whose they are; its log messages go
/// nowhere for the same reason (SRC-06).
fn heard(conversation: &Conversation, said: &ChildMessage, tokens: &Tokens, news: Option<&Notify>) {
    match (&said.id, said.method.as_str()) {
        (Some(id), method) => {
            // A program that reads nothing gets no answer either.
            let _ = conversation.answer(id, replied(method));
        }
        (None, PROGRESS) => {
            if let Some((token, progress)) = said.params.as_deref().and_then(Progress::read) {
                tokens.hear(progress, &token);
            }
        }
        (None, changed) if LIST_CHANGED.contains(&changed) => {
            if let Some(news) = news {
                news.notify_one();
            }
        }
        (None, _) => {}
    }
}

fn lifecycle(method: &'static str, params: String) -> Request<'static> {
    Request { method, params, item: None, most: LONGEST, memory: None, deadline: Instant::now() }
}

/// Why there is no answer, and whether the program may have read the request (SRC-08).
fn failed(why: NoAnswer) -> NoResult {
    let failed = match why {
        NoAnswer::Full | NoAnswer::NotAsked => Failed::Unavailable(why.to_string()),
        NoAnswer::Ended => Failed::Lost(why.to_string()),
        NoAnswer::TooLong => Failed::TooLarge(LONGEST),
        NoAnswer::NoRoom => Failed::NoMemory,
        NoAnswer::Malformed => Failed::Unreadable(why.to_string()),
    };
    NoResult { sent: why.sent(), why: failed }
}

impl NoResult {
    fn sent(why: Failed) -> Self {
        Self { sent: true, why }
    }
}

impl Failed {
    /// The same with more words, where there is room for them.
    fn with(self, more: &str) -> Self {
        match self {
            Self::Unavailable(words) => Self::Unavailable(words + more),
            Self::Lost(words) => Self::Lost(words + more),
            other => other,
        }
    }
}
