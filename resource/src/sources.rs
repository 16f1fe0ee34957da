//! Where items come from. A source is handed an [`Ask`], which admission alone can make, and nothing else: no token, no
//! header, no way around the gate (SRC-01).

pub(crate) mod account;
pub mod docs;
mod outcome;
mod own;
mod schema;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::admission::{Ask, Relay};
use crate::item::{Offered, SourceName};
#[cfg(test)]
use crate::testing::Staged;
use docs::Docs;

pub(crate) use outcome::Outcome;
#[cfg(test)]
pub(crate) use own::answered;
pub(crate) use own::problem;

/// One thing behind the gate.
pub(crate) enum Source {
    /// What the server knows about the caller.
    Account,
    /// The documentation.
    Docs(Arc<Docs>),
    /// A source that a test directs.
    #[cfg(test)]
    Staged(Arc<Staged>),
}

impl Source {
    /// What it offers, from its last good look. Never waits.
    pub(crate) fn offered(&self) -> Arc<Offered> {
        match self {
            Self::Account => account::offered(),
            Self::Docs(_) => docs::tools::offered(),
            #[cfg(test)]
            Self::Staged(staged) => staged.offered(),
        }
    }

    /// Does what it is asked. To drop this is to cancel: what cannot be undone goes on, and nobody hears of it.
    #[cfg_attr(not(test), expect(unused_variables, reason = "what is built in answers at once"))]
    pub(crate) async fn run(&self, ask: &Ask, relay: &Relay) -> Outcome {
        match self {
            Self::Account => account::run(ask),
            Self::Docs(docs) => docs::tools::run(docs, ask).await,
            #[cfg(test)]
            Self::Staged(staged) => staged.run(ask, relay).await,
        }
    }
}

/// All sources, by name.
pub(crate) struct Sources(BTreeMap<SourceName, Source>);

impl Sources {
    pub(crate) fn new(sources: impl IntoIterator<Item = Source>) -> Self {
        Self(sources.into_iter().map(|source| (source.offered().source.clone(), source)).collect())
    }

    /// The source of this name.
    pub(crate) fn find(&self, name: &SourceName) -> Option<&Source> {
        self.0.get(name)
    }

    /// What all of them offer, in an order that never changes.
    pub(crate) fn offered(&self) -> Vec<Arc<Offered>> {
        self.0.values().map(Source::offered).collect()
    }
}

/// What is offered by the sources that are always there, before any of them runs.
pub(crate) fn built_in() -> Vec<Arc<Offered>> {
    vec![account::offered(), docs::tools::offered()]
}

#[cfg(test)]
mod tests;
