//! What keeps the knowledge of a server true: walks when they are due, what each came to, and the end of its sessions
//! (SRC-02, SRC-13).

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use shared::audit::{Event, Name};
use shared::{Digest, Fault};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Http, MOST_CALLS};
use crate::item::Offered;
use crate::sources::journal::Kind;
use crate::sources::mcp::Heard;
use crate::sources::mcp::client::{Speaks, deaf};
use crate::sources::mcp::definition::{LONG_NAME, offers};
use crate::sources::mcp::walk::{self, Incomplete};
use crate::store::snapshots;

/// How often a source is walked though it tells of no change.
const PERIOD: Duration = Duration::from_mins(5);
/// After a failure it is tried again so soon, and then ever later.
const SOON: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_mins(1);
/// How many changes that are told of within this time make one walk (SRC-13).
const COALESCE: Duration = Duration::from_secs(1);
/// After a stream of changes has ended, this long passes before the next walk, which opens it again.
const REOPEN: Duration = Duration::from_secs(30);
/// How long a server that stops takes to end its sessions elsewhere.
const CLOSING: Duration = Duration::from_secs(2);
/// How often it is asked whether the calls of a source that is gone have ended.
const SETTLING: Duration = Duration::from_millis(200);

impl Http {
    /// Keeps what is known of it true until it is `gone` from the configuration or the server stops: walks it when that is
    /// due.
    pub(crate) async fn keep(self, gone: CancellationToken, stop: CancellationToken) {
        let mut failures = 0_u32;
        loop {
            let walked = tokio::select! {
                () = gone.cancelled() => break,
                walked = self.walk() => walked,
            };
            failures = if walked.is_ok() { 0 } else { failures.saturating_add(1) };
            let pause = match failures {
                0 => PERIOD,
                _ => (SOON * 2_u32.saturating_pow(failures.min(16) - 1)).min(LATE),
            };
            tokio::select! {
                () = gone.cancelled() => break,
                () = sleep(pause) => {}
                () = self.when_due() => {}
                () = self.listen(), if failures == 0 => {}
            }
        }
        // Calls that were sent before it was gone end as they would have (SRC-09).
        while self.0.calls.available_permits() < MOST_CALLS && !stop.is_cancelled() {
            sleep(SETTLING).await;
        }
        self.close().await;
    }

    /// Ends its sessions.
    async fn close(&self) {
        if let Ok(who) = self.0.credentials.of(None, self.0.clock.now()) {
            let _ = timeout(CLOSING, self.0.client.close(&who)).await;
        }
    }

    /// Forgets what was agreed on with the server: sessions, its revision, idle connections. Then it is asked anew.
    pub(crate) async fn restart(&self) -> Result<(), String> {
        self.close().await;
        self.0.client.begin_anew().await;
        self.note(Kind::Restarted, "an administrator restarted it");
        self.walk().await
    }

    /// Waits until a walk is due, and a moment more for whatever else makes one due.
    async fn when_due(&self) {
        self.0.due.notified().await;
        sleep(COALESCE).await;
    }

    /// Listens for changes until the stream ends and is worth opening again; for ever, if the source has none.
    async fn listen(&self) {
        let Ok(who) = self.0.credentials.of(None, self.0.clock.now()) else { return sleep(LATE).await };
        let mut hear = |heard| {
            if heard == Heard::ToolsChanged {
                self.0.due.notify_one();
            }
        };
        match self.0.client.listen(&who, &mut hear).await {
            None => std::future::pending().await,
            Some(ended) => {
                if let Err(why) = ended {
                    tracing::debug!(source = %self.0.name, source.error = %why, "a source tells of its changes no longer");
                }
                sleep(REOPEN).await;
            }
        }
    }

    /// Walks the source once, and keeps what it lists.
    pub(crate) async fn walk(&self) -> Result<(), String> {
        let begun = Instant::now();
        let listed = match self.0.credentials.of(None, self.0.clock.now()) {
            Ok(who) => walk::tools(&self.0.client, &who, &mut deaf).await.map_err(|why| self.says(&why)),
            Err(lacking) => Err(lacking.reason()),
        };
        let count = listed.as_ref().map_or(0, Vec::len);
        let kept = match listed {
            Ok(written) => self.keep_walk(&written).await.map_err(|fault| fault.to_string()),
            Err(why) => Err(why),
        };
        match &kept {
            Ok(()) => {
                let took = begun.elapsed().as_millis();
                self.note(Kind::Walked, format!("listed {count} tools in {took} ms"));
            }
            Err(why) => self.became_stale(why).await,
        }
        kept
    }

    /// Why a walk was not completed, in words for administrators.
    pub(super) fn says(&self, why: &Incomplete) -> String {
        match why {
            Incomplete::Failed(failed) if failed.is_of_credential() => {
                format!("{why}; {}", self.0.credentials.remedy(false))
            }
            other => other.to_string(),
        }
    }

    async fn keep_walk(&self, written: &[Box<RawValue>]) -> Result<(), Fault> {
        let era = self.0.client.speaks().await.map(|speaks| match speaks {
            Speaks::Modern { .. } => crate::revision::MODERN,
            Speaks::Legacy => "legacy",
        });
        let definitions: Vec<String> = written.iter().map(|one| one.get().to_owned()).collect();
        let digest = Digest::of(definitions.join("\n").as_bytes());
        let (mut stored, recovered) = {
            let state = self.state();
            (state.stored.clone(), state.stale.is_some())
        };
        let changed = stored.digest != Some(digest);
        self.answers_again(era, recovered);
        let (now, count) = (self.0.clock.now(), definitions.len());
        let row = stored.clone();
        self.0
            .db
            .record(move |tx| {
                if !snapshots::exists(tx, &row.id)? {
                    // The configuration does not name it any more.
                    return Ok(());
                }
                if changed {
                    snapshots::replace(tx, &row.id, era, &digest, &definitions)?;
                    let event = snapshots::event(Event::allowed(Name::SourceChanged), &row);
                    shared::audit::append(tx, event.detail("tools", count))?;
                } else {
                    snapshots::walked(tx, &row.id, era)?;
                }
                if recovered {
                    shared::audit::append(tx, snapshots::event(Event::allowed(Name::SourceRecovered), &row))?;
                }
                Ok(())
            })
            .await?;
        (stored.digest, stored.walked_at, stored.era) = (Some(digest), Some(now), era.map(str::to_owned));
        if changed {
            let (offers, left_out) = offers(&self.settings().name, self.settings().names, written);
            for offer in offers.iter().filter(|offer| offer.name.len() > LONG_NAME) {
                tracing::warn!(source = %self.0.name, item.name = %offer.name, "a tool has a long name, which some clients cut");
            }
            for left_out in &left_out {
                tracing::warn!(source = %self.0.name, item.name = left_out.name, item.why = left_out.why, "a tool is left out");
            }
            let offered = Offered { offers, ..Offered::clone(&self.offered()) };
            self.0.offered.store(Arc::new(offered));
            self.state().left_out = left_out;
            self.0.changed.send_modify(|generation| *generation += 1);
        }
        let mut state = self.state();
        (state.stored, state.answered_at, state.stale) = (stored, Some(now), None);
        Ok(())
    }

    /// Notes what it was found to speak, and that it can be used again.
    fn answers_again(&self, era: Option<&str>, recovered: bool) {
        let spoke = std::mem::replace(&mut self.state().spoke, era.map(str::to_owned));
        if let Some(era) = era
            && spoke.as_deref() != Some(era)
        {
            self.note(Kind::Probed, format!("it speaks {era}"));
        }
        if recovered || spoke.is_none() {
            self.note(Kind::Connected, "it answers");
        }
    }

    /// Its items stay; that they may be old is noted, once.
    async fn became_stale(&self, why: &str) {
        self.note(Kind::Failed, why);
        let (since, stored, is_new) = {
            let mut state = self.state();
            let is_new = state.stale.is_none();
            let since = state.stale.as_ref().map_or_else(|| self.0.clock.now(), |(since, _)| *since);
            state.stale = Some((since, why.to_owned()));
            (since, state.stored.clone(), is_new)
        };
        if !is_new {
            return;
        }
        tracing::warn!(source = %self.0.name, source.error = why, "a source does not answer as it should; its tools stay listed");
        let event = snapshots::event(Event::failed(Name::SourceStale, "unavailable"), &stored);
        let event = event.detail("why", why).detail("since", since.to_string());
        if let Err(fault) = self.0.db.record(move |tx| shared::audit::append(tx, event)).await {
            tracing::error!(db.fault = %fault, "a source that became stale was not recorded");
        }
    }
}
