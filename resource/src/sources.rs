//! The sources of items. A source gets an [`Ask`], which only admission can make, and nothing else: no token
//! and no header (SRC-01).

pub(crate) mod account;
mod crashes;
pub mod declared;
pub mod docs;
pub mod endpoint;
mod health;
mod identity;
mod journal;
mod keepers;
mod mcp;
mod means;
mod outcome;
mod own;
mod refused;
mod report;
mod schema;
mod upstream;
mod upstreams;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::admission::{Ask, Relay};
use crate::item::{Offered, SourceName};
#[cfg(test)]
use crate::testing::TestSource;
use declared::Declared;
use docs::Docs;

pub use crate::item::{Counts, Kind};
pub use health::{Health, ProcessHealth, Skipped, Stale};
pub use identity::{Carrier, Credential, SecretLocation};
pub use journal::Entry;
pub(crate) use keepers::Keepers;
#[cfg(test)]
pub(crate) use mcp::definition;
pub use mcp::definition::{LeftOut, Names};
pub use mcp::processes::Launching;
pub use means::Means;
pub(crate) use outcome::Outcome;
#[cfg(test)]
pub(crate) use own::answered;
pub(crate) use own::problem;
pub use report::{ListedItem, Log, Tested};
pub(crate) use upstream::Upstream;
pub use upstream::{Configured, SourceSettings};
pub use upstreams::{Others, Servers, UpstreamError, Upstreams, never_walked};
pub(crate) use upstreams::{declared as declared_offers, remembered};

/// One thing behind the gate. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Source {
    /// What the server knows about the caller.
    Account,
    /// The documentation.
    Docs(Arc<Docs>),
    /// Tools that the configuration declares.
    Declared(Declared),
    /// An MCP server of others: over HTTP, or a program.
    Upstream(Upstream),
    /// A source that a test controls.
    #[cfg(test)]
    Staged(Arc<TestSource>),
}

impl Source {
    /// Its offers, from the last complete listing. Never waits.
    pub(crate) fn offered(&self) -> Arc<Offered> {
        match self {
            Self::Account => account::offered(),
            Self::Docs(docs) => docs.offered(),
            Self::Declared(declared) => declared.offered(),
            Self::Upstream(upstream) => upstream.offered(),
            #[cfg(test)]
            Self::Staged(staged) => staged.offered(),
        }
    }

    /// How long a call may run without progress, if it is not the default.
    pub(crate) fn patience(&self) -> Option<Duration> {
        match self {
            Self::Declared(declared) => Some(declared.longest()),
            Self::Upstream(upstream) => Some(upstream.patience()),
            _ => None,
        }
    }

    /// Runs a call. Dropping the future cancels it; irreversible work continues without an answer.
    pub(crate) async fn run(&self, ask: &Ask, relay: &Relay) -> Outcome {
        match self {
            Self::Account => account::run(ask),
            Self::Docs(docs) => docs::run(docs, ask).await,
            Self::Declared(declared) => declared.run(ask, relay).await,
            Self::Upstream(upstream) => upstream.run(ask, relay).await,
            #[cfg(test)]
            Self::Staged(staged) => staged.run(ask, relay).await,
        }
    }
}

/// All sources. If two offer the same name, the earlier one keeps it (MCP-11).
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
        let configured = |source: &&Source| matches!(source, Source::Upstream(_) | Source::Declared(_));
        let own = self.0.iter().map(|(_, source)| source).filter(|source| !configured(source));
        Self::new(own.cloned().chain(servers))
    }

    /// The source with this name.
    pub(crate) fn find(&self, name: &SourceName) -> Option<&Source> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, source)| source)
    }

    /// The offers of all sources, in a fixed order.
    pub(crate) fn offered(&self) -> Vec<Arc<Offered>> {
        self.0.iter().map(|(_, source)| source.offered()).collect()
    }
}

/// The offers of the built-in sources, before any of them runs.
pub(crate) fn built_in() -> Vec<Arc<Offered>> {
    vec![account::offered(), docs::always_offered()]
}

#[cfg(test)]
mod tests;
