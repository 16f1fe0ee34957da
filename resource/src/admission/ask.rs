//! What a source is handed: an authorized call, and never a token, a header or a cookie (SRC-01).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bearer::Asker;
use crate::item::{Arguments, Item};
use crate::revision::Era;

/// An authorized call. Admission alone can make one.
pub(crate) struct Ask {
    what: What,
    asker: Asker,
    era: Era,
    deadline: Instant,
    most: usize,
    cancel: CancellationToken,
}

/// What is asked for.
#[derive(Clone)]
pub(crate) enum What {
    Tool(Arc<Item>, Arc<Arguments>),
}

impl What {
    /// The item that it is about.
    pub(crate) fn item(&self) -> &Arc<Item> {
        match self {
            Self::Tool(item, _) => item,
        }
    }
}

impl Ask {
    /// To be called when everything has been decided, by whoever decided it.
    pub(super) fn new(
        what: What,
        asker: Asker,
        era: Era,
        (longest, most): (Duration, usize),
        cancel: CancellationToken,
    ) -> Self {
        Self { what, asker, era, deadline: Instant::now() + longest, most, cancel }
    }

    pub(crate) fn what(&self) -> &What {
        &self.what
    }

    /// Who asks.
    pub(crate) fn asker(&self) -> &Asker {
        &self.asker
    }

    /// What the client speaks that the answer is for.
    pub(crate) fn era(&self) -> Era {
        self.era
    }

    /// When the answer comes too late.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// How many bytes the answer may have.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Cancelled as soon as nobody wants the answer any more.
    pub(crate) fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }
}
