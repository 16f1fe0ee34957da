//! Where items come from. A source is handed an [`Ask`], which admission alone can make, and nothing else: no token, no
//! header, no way around the gate (SRC-01).

pub(crate) mod account;
pub mod docs;
mod health;
mod http;
mod identity;
mod journal;
mod keepers;
mod mcp;
mod outcome;
mod own;
mod refused;
mod report;
mod schema;
mod upstreams;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::admission::{Ask, Relay};
use crate::item::{Offered, SourceName};
#[cfg(test)]
use crate::testing::Staged;
use docs::Docs;

pub use crate::item::{Counts, Kind};
pub use health::{Health, Stale};
pub(crate) use http::Http;
pub use http::{Configured, HttpSource};
pub use identity::{Credential, Kept};
pub use journal::Entry;
pub(crate) use keepers::Keepers;
#[cfg(test)]
pub(crate) use mcp::definition;
pub use mcp::definition::{LeftOut, Names};
pub(crate) use outcome::Outcome;
#[cfg(test)]
pub(crate) use own::answered;
pub(crate) use own::problem;
pub use report::{ListedItem, Tested};
pub(crate) use upstreams::remembered;
pub use upstreams::{Means, Others, Servers, UpstreamError, Upstreams, never_walked};

/// One thing behind the gate. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Source {
    /// What the server knows about the caller.
    Account,
    /// The documentation.
    Docs(Arc<Docs>),
    /// An MCP server that is reached over HTTP.
    Http(Http),
    /// A source that a test directs.
    #[cfg(test)]
    Staged(Arc<Staged>),
}

impl Source {
    /// What it offers, from its last good look. Never waits.
    pub(crate) fn offered(&self) -> Arc<Offered> {
        match self {
            Self::Account => account::offered(),
            Self::Docs(docs) => docs.offered(),
            Self::Http(http) => http.offered(),
            #[cfg(test)]
            Self::Staged(staged) => staged.offered(),
        }
    }

    /// How long a call may go on without getting further, if it is not as long as ever.
    pub(crate) fn patience(&self) -> Option<Duration> {
        match self {
            Self::Http(http) => Some(http.patience()),
            _ => None,
        }
    }

    /// Does what it is asked. To drop this is to cancel: what cannot be undone goes on, and nobody hears of it.
    pub(crate) async fn run(&self, ask: &Ask, relay: &Relay) -> Outcome {
        match self {
            Self::Account => account::run(ask),
            Self::Docs(docs) => docs::run(docs, ask).await,
            Self::Http(http) => http.run(ask, relay).await,
            #[cfg(test)]
            Self::Staged(staged) => staged.run(ask, relay).await,
        }
    }
}

/// All sources. Of two that claim one name the earlier one keeps it (MCP-11).
#[derive(Default)]
pub(crate) struct Sources(Vec<(SourceName, Source)>);

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Sources {
    pub(crate) fn new(sources: impl IntoIterator<Item = Source>) -> Self {
        Self(sources.into_iter().map(|source| (source.offered().source.clone(), source)).collect())
    }

    /// The same with these servers behind the gate, in place of all others.
    pub(crate) fn with_servers(&self, servers: impl IntoIterator<Item = Source>) -> Self {
        let own = self.0.iter().map(|(_, source)| source).filter(|source| !matches!(source, Source::Http(_)));
        Self::new(own.cloned().chain(servers))
    }

    /// The source of this name.
    pub(crate) fn find(&self, name: &SourceName) -> Option<&Source> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, source)| source)
    }

    /// What all of them offer, in an order that never changes.
    pub(crate) fn offered(&self) -> Vec<Arc<Offered>> {
        self.0.iter().map(|(_, source)| source.offered()).collect()
    }
}

/// What is offered by the sources that are always there, before any of them runs.
pub(crate) fn built_in() -> Vec<Arc<Offered>> {
    vec![account::offered(), docs::always_offered()]
}

#[cfg(test)]
mod tests;
