//! What is known of a server is kept true: its lists are walked when that is due (SRC-02), and while it tells of changes
//! somebody listens (SRC-13).

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use shared::audit::{Event, Name};
use shared::{Digest, Fault, Timestamp};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{MOST_CALLS, Upstream};
use crate::bearer::Principal;
use crate::item::{Counts, Kind, Offered};
use crate::sources::journal::Kind as Noted;
use crate::sources::mcp::Heard;
use crate::sources::mcp::definition::{LONG_NAME, offers};
use crate::sources::mcp::failed::Failed;
use crate::sources::mcp::link::deaf;
use crate::sources::mcp::speaks::SpokenEra;
use crate::sources::mcp::walk::{self, Incomplete};
use crate::store::snapshots::{self, Stored};

/// Interval between walks without a change notification.
const PERIOD: Duration = Duration::from_mins(5);
/// The first retry after a failure; the interval then grows.
const SOON: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_mins(1);
/// Changes that are told of within this time make one walk (SRC-13).
const COALESCE: Duration = Duration::from_secs(1);
/// The time limit for ending sessions when this server stops.
const CLOSING: Duration = Duration::from_secs(2);
/// The same for programs: each is asked to end, then made to.
const CLOSING_PROGRAMS: Duration = Duration::from_secs(8);
/// Interval between looks for programs that nobody uses.
const SWEEP: Duration = Duration::from_secs(15);
/// A walk that is only made when something makes it due.
const NEVER: Duration = Duration::from_hours(24 * 365);
/// Interval between checks whether the calls of a removed source have ended.
const SETTLING: Duration = Duration::from_millis(200);

/// What each list was at its last complete walk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Lists([Digest; Kind::ALL.len()]);

/// A list that was walked to its end and is not what it was.
type Changed = (Kind, Vec<Box<RawValue>>);

impl Lists {
    pub(super) fn of(definitions: &[(Kind, Box<RawValue>)]) -> Self {
        Self(Kind::ALL.map(|kind| {
            digest(definitions.iter().filter(|(of, _)| *of == kind).map(|(_, definition)| definition))
        }))
    }

    /// Notes what a list is now; whether it was something else.
    fn note(&mut self, kind: Kind, definitions: &[Box<RawValue>]) -> bool {
        let digest = digest(definitions.iter());
        let at = Kind::ALL.iter().position(|known| *known == kind).unwrap_or_default();
        std::mem::replace(&mut self.0[at], digest) != digest
    }
}

fn digest<'d>(definitions: impl Iterator<Item = &'d Box<RawValue>>) -> Digest {
    let mut all = String::new();
    for definition in definitions {
        all.push_str(definition.get());
        all.push('\n');
    }
    Digest::of(all.as_bytes())
}

impl Upstream {
    /// Keeps what is known of it true until it is `gone` from the configuration or the server stops.
    pub(crate) async fn keep(self, gone: CancellationToken, stop: CancellationToken) {
        tokio::select! {
            () = gone.cancelled() => {}
            () = self.walk_when_due() => {}
            () = self.listen() => {}
            () = self.sweep() => {}
        }
        // Calls that were sent before the source was removed end normally (SRC-09).
        while self.0.calls.available_permits() < MOST_CALLS && !stop.is_cancelled() {
            sleep(SETTLING).await;
        }
        self.close().await;
    }

    /// Ends its sessions and its programs.
    async fn close(&self) {
        // Programs end whether there is a credential or not.
        let who = self.0.credentials.of(None, self.0.clock.now()).unwrap_or_default();
        let patience = if self.is_local() { CLOSING_PROGRAMS } else { CLOSING };
        let _ = timeout(patience, self.0.link.close(&who)).await;
    }

    /// Whether it is a program.
    fn is_local(&self) -> bool {
        self.0.link.processes().is_some()
    }

    /// Stops its programs that nobody uses, or that have an old credential. It has nothing to do for a server over HTTP.
    async fn sweep(&self) {
        let Some(processes) = self.0.link.processes() else { return std::future::pending().await };
        loop {
            sleep(SWEEP).await;
            processes.sweep(|principal| {
                let user = principal.and_then(Principal::subject_in);
                self.0.credentials.version_for(user.as_deref())
            });
        }
    }

    /// Forgets what was negotiated with the source: sessions, its revision, idle connections. Then probes and
    /// walks it again.
    pub(crate) async fn restart(&self) -> Result<(), String> {
        self.close().await;
        self.0.link.begin_anew().await;
        self.note(Noted::Restarted, "an administrator restarted it");
        self.walk().await
    }

    /// Walks it now and then, and whenever something makes that due.
    async fn walk_when_due(&self) {
        let mut pause = SOON;
        loop {
            let rest = if self.walk().await.is_ok() {
                pause = SOON;
                // A program lists the same until it says otherwise, and nobody may need it until then.
                if self.is_local() { NEVER } else { PERIOD }
            } else {
                let next = later(pause);
                std::mem::replace(&mut pause, next)
            };
            tokio::select! {
                () = sleep(rest) => {}
                () = self.0.due.notified() => {}
            }
            // Further notifications in this time start no other walk.
            sleep(COALESCE).await;
        }
    }

    /// Listens for changes, on one stream after the other, as long as the source says that it tells of them.
    async fn listen(&self) {
        let mut pause = SOON;
        loop {
            let begun = Instant::now();
            self.listen_once().await;
            pause = if begun.elapsed() >= LATE { SOON } else { later(pause) };
            sleep(pause).await;
        }
    }

    async fn listen_once(&self) {
        let Ok(who) = self.0.credentials.of(None, self.0.clock.now()) else { return };
        let mut hear = |heard| match heard {
            // What has changed before the stream was there was not told.
            Heard::Listening | Heard::ListChanged => self.0.due.notify_one(),
            Heard::Progress(_) => {}
        };
        if let Some(Err(why)) = self.0.link.listen(&who, &mut hear).await {
            tracing::debug!(source = %self.0.name, source.error = %why, "a source tells of its changes no longer");
        }
    }

    /// Walks each list of the source once, and keeps those that came to their end: one that is broken takes no other with
    /// it.
    ///
    /// # Errors
    /// Why a list was not read, in words for administrators.
    pub(crate) async fn walk(&self) -> Result<(), String> {
        let mut lists = self.0.lists.lock().await;
        let begun = Instant::now();
        let (mut noted, mut changed, mut wrong) = (lists.clone(), Vec::new(), None);
        for kind in Kind::ALL {
            match self.walk_one(kind).await {
                Ok(items) if noted.note(kind, &items) => changed.push((kind, items)),
                Ok(_) => {}
                Err(ListingError { why, away }) => {
                    wrong.get_or_insert(why);
                    // Nobody is there, so nobody is asked for the other lists.
                    if away {
                        break;
                    }
                }
            }
        }
        let complete = wrong.is_none();
        match self.keep_walk(changed, complete).await {
            Ok(()) => *lists = noted,
            Err(fault) => wrong = Some(fault.to_string()),
        }
        match wrong {
            None => {
                let Counts { tools, prompts, resources, templates } = self.offered().counts();
                let ms = begun.elapsed().as_millis();
                self.note(
                    Noted::Walked,
                    format!(
                        "listed {tools} tools, {prompts} prompts, {resources} resources, {templates} templates in {ms} ms"
                    ),
                );
                Ok(())
            }
            Some(why) => {
                self.became_stale(&why).await;
                Err(why)
            }
        }
    }

    async fn walk_one(&self, kind: Kind) -> Result<Vec<Box<RawValue>>, ListingError> {
        let who = self.0.credentials.of(None, self.0.clock.now());
        let who = who.map_err(|lacking| ListingError { why: lacking.reason(), away: true })?;
        walk::items(&self.0.link, &who, kind, self.patience(), &mut deaf).await.map_err(|why| {
            let away = matches!(
                why,
                Incomplete::Failed(Failed::NotSent(_) | Failed::Unavailable(_) | Failed::Silent(_))
            );
            ListingError { why: self.says(&why), away }
        })
    }

    /// Keeps the lists that have changed, and notes that all of them were walked if they were.
    async fn keep_walk(&self, changed: Vec<Changed>, complete: bool) -> Result<(), Fault> {
        let era = self.0.link.speaks().await.map(|speaks| match speaks {
            SpokenEra::Modern(_) => crate::revision::MODERN,
            SpokenEra::Legacy => "legacy",
        });
        let (mut stored, recovered) = {
            let state = self.state();
            (state.stored.clone(), complete && state.stale.is_some())
        };
        if complete {
            self.answers_again(era, recovered);
        }
        let is_new = !changed.is_empty() || complete && stored.walked_at.is_none();
        if !(is_new || complete) {
            return Ok(());
        }
        let row = stored.clone();
        self.0.db.record(move |tx| keep(tx, &row, &changed, era, [is_new, complete, recovered])).await?;
        if is_new {
            self.offer_what_is_stored(&stored)?;
        }
        if complete {
            let now = self.0.clock.now();
            (stored.walked_at, stored.era) = (Some(now), era.map(str::to_owned));
            let mut state = self.state();
            (state.stored, state.answered_at, state.stale) = (stored, Some(now), None);
        }
        Ok(())
    }

    /// Offers what the database has of the source.
    fn offer_what_is_stored(&self, stored: &Stored) -> Result<(), Fault> {
        let definitions = self.0.db.read(|conn| snapshots::definitions(conn, &stored.id))?;
        let (offers, left_out) = offers(&self.settings().name, self.settings().names, &definitions);
        let named = offers.iter().filter(|offer| offer.address.is_none());
        for offer in named.filter(|offer| offer.name.len() > LONG_NAME) {
            tracing::warn!(source = %self.0.name, item.name = %offer.name, "an item has a long name, which some clients cut");
        }
        for left_out in &left_out {
            tracing::warn!(source = %self.0.name, item.name = left_out.name, item.why = left_out.why, "an item is left out");
        }
        let offered = Offered { offers, ..Offered::clone(&self.offered()) };
        self.0.offered.store(Arc::new(offered));
        self.state().left_out = left_out;
        self.0.changed.send_modify(|generation| *generation += 1);
        Ok(())
    }

    /// Stores the source's era, and records that it works again.
    fn answers_again(&self, era: Option<&str>, recovered: bool) {
        let spoke = std::mem::replace(&mut self.state().spoke, era.map(str::to_owned));
        if let Some(era) = era
            && spoke.as_deref() != Some(era)
        {
            self.note(Noted::Probed, format!("it speaks {era}"));
        }
        if recovered || spoke.is_none() {
            self.note(Noted::Connected, "it answers");
        }
    }

    /// Why a walk was not completed, for administrators.
    pub(super) fn says(&self, why: &Incomplete) -> String {
        match why {
            Incomplete::Failed(failed) if failed.is_of_credential() => {
                format!("{why}; {}", self.0.credentials.remedy(false))
            }
            other => other.to_string(),
        }
    }

    /// Its items stay; records once that they may be outdated.
    async fn became_stale(&self, why: &str) {
        self.note(Noted::Failed, why);
        let (since, stored, is_new) = {
            let mut state = self.state();
            let is_new = state.stale.is_none();
            let since: Timestamp =
                state.stale.as_ref().map_or_else(|| self.0.clock.now(), |(since, _)| *since);
            state.stale = Some((since, why.to_owned()));
            (since, state.stored.clone(), is_new)
        };
        if !is_new {
            return;
        }
        tracing::warn!(source = %self.0.name, source.error = why, "a source does not answer as it should; its items stay listed");
        let event = snapshots::event(Event::failed(Name::SourceStale, "unavailable"), &stored);
        let event = event.detail("why", why).detail("since", since.to_string());
        if let Err(fault) = self.0.db.record(move |tx| shared::audit::append(tx, event)).await {
            tracing::error!(db.fault = %fault, "a source that became stale was not recorded");
        }
    }
}

/// Why a list was not read.
struct ListingError {
    why: String,
    /// Whether the source cannot be reached at all.
    away: bool,
}

/// The next pause after one that did not help.
fn later(pause: Duration) -> Duration {
    (pause * 2).min(LATE)
}

/// Writes what came of a walk, and puts it on record.
fn keep(
    tx: &shared::Tx<'_>,
    stored: &Stored,
    changed: &[Changed],
    era: Option<&str>,
    [is_new, complete, recovered]: [bool; 3],
) -> Result<(), Fault> {
    if !snapshots::exists(tx, &stored.id)? {
        // The configuration no longer names it.
        return Ok(());
    }
    for (kind, definitions) in changed {
        snapshots::replace(tx, &stored.id, *kind, definitions)?;
    }
    if is_new {
        let Counts { tools, prompts, resources, templates } = snapshots::counts(tx, &stored.id)?;
        let event = snapshots::event(Event::allowed(Name::SourceChanged), stored);
        let event = event.detail("tools", tools).detail("prompts", prompts);
        let event = event.detail("resources", resources).detail("templates", templates);
        shared::audit::append(tx, event)?;
    }
    if complete {
        snapshots::walked(tx, &stored.id, era)?;
    }
    if recovered {
        shared::audit::append(tx, snapshots::event(Event::allowed(Name::SourceRecovered), stored))?;
    }
    Ok(())
}
