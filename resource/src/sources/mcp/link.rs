//! What an upstream is reached over: HTTP, or the pipes of programs that are started for it.

use super::client::Client;
use super::failed::Failed;
use super::message::Answered;
use super::processes::Processes;
use super::request::{Identity, NoResult, Request};
use super::speaks::{Capabilities, SpokenEra};
use super::unsaid::Unsaid;
use super::wire::{Hear, Heard};

/// A client of one upstream. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Link {
    Http(Client),
    Pipes(Processes),
}

impl Link {
    /// What is known of the upstream's revision.
    pub(crate) async fn speaks(&self) -> Option<SpokenEra> {
        match self {
            Self::Http(client) => client.speaks().await,
            Self::Pipes(processes) => processes.speaks(),
        }
    }

    /// Sends a request. What the upstream refused without running it is sent once more (SRC-08). What it repeats of the
    /// credentials is not passed on (SRC-10).
    pub(crate) async fn ask(
        &self,
        who: &Identity,
        asked: &Request<'_>,
        hear: Hear<'_>,
    ) -> Result<Answered, NoResult> {
        let unsaid = Unsaid::of(who);
        let mut quiet = |heard| hear(unsaid.heard(heard));
        let answered = match self {
            Self::Http(client) => client.ask(who, asked, &mut quiet).await,
            Self::Pipes(processes) => processes.ask(who, asked, &mut quiet).await,
        };
        if unsaid.is_empty() { answered } else { unsaid.answer(answered) }
    }

    /// What the upstream says that it offers; asked, if it is not known yet.
    pub(crate) async fn capabilities(&self, who: &Identity) -> Result<Capabilities, Failed> {
        match self {
            Self::Http(client) => client.capabilities(who).await,
            Self::Pipes(processes) => processes.capabilities(who).await,
        }
    }

    /// Listens until the upstream ends the stream; `None` if it says that it tells of no changes, or cannot be asked. A
    /// program tells of changes on its own, so nothing is heard here.
    pub(crate) async fn listen(&self, who: &Identity, hear: Hear<'_>) -> Option<Result<(), Failed>> {
        match self {
            Self::Http(client) => client.listen(who, hear).await,
            Self::Pipes(_) => std::future::pending().await,
        }
    }

    /// Forgets all that was found out and agreed on. Requests on their way over HTTP go on; programs end.
    pub(crate) async fn begin_anew(&self) {
        match self {
            Self::Http(client) => client.begin_anew().await,
            Self::Pipes(processes) => processes.begin_anew(),
        }
    }

    /// Ends the open sessions, or the programs.
    pub(crate) async fn close(&self, who: &Identity) {
        match self {
            Self::Http(client) => client.close(who).await,
            Self::Pipes(processes) => processes.close().await,
        }
    }

    /// The programs, if there are any.
    pub(crate) fn processes(&self) -> Option<&Processes> {
        match self {
            Self::Http(_) => None,
            Self::Pipes(processes) => Some(processes),
        }
    }
}

/// Hears nothing.
pub(crate) fn deaf(_: Heard) {}
