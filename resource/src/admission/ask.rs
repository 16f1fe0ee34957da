//! An authorized call, as passed to a source: without token, headers or cookies (SRC-01).

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use shared::outbound::memory::HeldMemory;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bearer::CallerIdentity;
use crate::item::{Arguments, Effect, Item};
use crate::revision::Era;

/// An authorized call. Only admission can make one.
pub(crate) struct Ask {
    what: AskKind,
    asker: CallerIdentity,
    era: Era,
    deadline: Instant,
    most: usize,
    memory: Arc<HeldMemory>,
    cancel: CancellationToken,
}

/// What is requested.
#[derive(Clone)]
pub(crate) enum AskKind {
    /// A call of a tool.
    Tool(Arc<Item>, Arc<Arguments>),
    /// A prompt, made with these arguments.
    Prompt(Arc<Item>, Arc<Arguments>),
    /// The contents of a resource, by its URI as it was sent (SRC-04).
    Resource(Arc<Item>, Arc<str>),
    /// What an argument of a prompt or a template may go on with.
    Completion(Arc<Item>, Arc<Completing>),
}

/// The part of a completion that is the same whatever it is for: JSON without the reference.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Completing {
    /// The reference as it was sent.
    pub(crate) name: String,
    /// The argument that is typed: its name and the text so far.
    pub(crate) argument: Value,
    /// The arguments before it, if any were sent.
    pub(crate) context: Option<Value>,
}

impl AskKind {
    /// The item.
    pub(crate) fn item(&self) -> &Arc<Item> {
        match self {
            Self::Tool(item, _)
            | Self::Prompt(item, _)
            | Self::Resource(item, _)
            | Self::Completion(item, _) => item,
        }
    }

    /// What it can change. Completing arguments changes nothing, for any item.
    pub(crate) fn effect(&self) -> Effect {
        match self {
            Self::Completion(..) => Effect::ReadOnly,
            other => other.item().effect,
        }
    }
}

impl Ask {
    /// Only called after everything has been decided.
    pub(super) fn new(
        what: AskKind,
        asker: CallerIdentity,
        era: Era,
        (longest, most, memory): (Duration, usize, HeldMemory),
        cancel: CancellationToken,
    ) -> Self {
        Self { what, asker, era, deadline: Instant::now() + longest, most, memory: Arc::new(memory), cancel }
    }

    pub(crate) fn what(&self) -> &AskKind {
        &self.what
    }

    /// The caller.
    pub(crate) fn asker(&self) -> &CallerIdentity {
        &self.asker
    }

    /// The revision of the client.
    pub(crate) fn era(&self) -> Era {
        self.era
    }

    /// When the answer would be too late.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The largest answer in bytes.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Where the memory of the answer is counted.
    pub(crate) fn memory(&self) -> &Arc<HeldMemory> {
        &self.memory
    }

    /// Cancelled when the answer is no longer wanted.
    pub(crate) fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }
}
