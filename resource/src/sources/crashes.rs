//! Crashes of a source's programs: into its journal and on record (SRC-11), and the source is looked at again.

use std::sync::Arc;

use children::pool::{Crash, OnCrash};
use shared::audit::{self, Event, Name};
use shared::{Clock, Db};
use tokio::sync::Notify;

use super::journal::{Journal, Kind};
use crate::bearer::Principal;
use crate::store::snapshots::{self, Stored};

/// What a crash is noted in.
pub(super) struct Crashes {
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) journal: Journal,
    /// Notified when the source is to be looked at: one that is shared is started again then.
    pub(super) due: Arc<Notify>,
    pub(super) stored: Stored,
}

impl Crashes {
    /// What a pool tells of each crash.
    pub(super) fn note(self) -> OnCrash {
        Box::new(move |crash| self.crashed(&crash))
    }

    fn crashed(&self, crash: &Crash) {
        let Self { db, clock, journal, due, stored } = self;
        journal.note(clock.now(), Kind::Crashed, crash.why.as_str());
        let mut names = vec![Name::SourceCrashed];
        if crash.quarantined {
            let text =
                "it crashed five times within five minutes; `portcullis source restart` starts it again";
            journal.note(clock.now(), Kind::Quarantined, text);
            names.push(Name::SourceQuarantined);
        }
        let owner = crash.key.principal().and_then(Principal::subject_in);
        if owner.is_none() {
            due.notify_one();
        }
        let events: Vec<Event> = names
            .into_iter()
            .map(|name| {
                let event = snapshots::event(Event::failed(name, "crashed"), stored);
                let event = event.detail("why", crash.why.as_str());
                owner.iter().fold(event, |event, owner| event.detail("owner", owner.as_str()))
            })
            .collect();
        let (db, name) = (db.clone(), stored.name.clone());
        tracing::warn!(
            source = name,
            source.error = crash.why,
            source.quarantined = crash.quarantined,
            "a program of a source crashed"
        );
        tokio::spawn(async move {
            let recorded = db.record(move |tx| {
                events.into_iter().try_for_each(|event| audit::append(tx, event).map(drop))
            });
            if let Err(fault) = recorded.await {
                tracing::error!(source = name, db.fault = %fault, "a crash of a source was not recorded");
            }
        });
    }
}
