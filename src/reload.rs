//! Reloads the configuration of a running server without a restart: rules, scopes, groups, limits, clients,
//! profiles and sources. All of it applies at once, or nothing does (POL-04).

use std::sync::Arc;

use authz::{Authz, Groups, Status};
use resource::Resource;
use resource::catalogue::{BuiltIn, UnusableRule};
use resource::sources::{Means, Others, Servers};
use serde::{Deserialize, Serialize};
use shared::audit::{self, Event, Name};
use shared::{Db, Fault, Tx};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use crate::config::{File, Origin, Reading, Running, Source};

/// Reloads the configuration. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reloader(Arc<Inner>);

struct Inner {
    origin: Origin,
    /// The current configuration. Held during a reload, so that two never overlap.
    current: Mutex<Reading>,
    parts: Parts,
    /// Notified by SIGHUP.
    hangup: Arc<Notify>,
}

/// The parts of a server that follow the configuration.
pub(crate) struct Parts {
    pub(crate) db: Db,
    pub(crate) catalogue: BuiltIn,
    /// What sources are built with; `None` if the gateway is elsewhere.
    pub(crate) resource: Option<(Resource, Means)>,
    /// `None` at a gateway alone.
    pub(crate) authority: Option<(Authz, Arc<Status>)>,
}

/// An applied configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Reloaded {
    /// The digest of the previous file; `None` without one.
    pub(crate) before: Option<String>,
    /// The digest of the current file.
    pub(crate) after: Option<String>,
    /// The changed keys.
    pub(crate) changed: Vec<String>,
}

/// Who requested it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RequestedBy {
    /// A user of the machine who ran a command, by user id.
    Console(u32),
    /// A signal.
    Signal,
}

/// Why nothing was applied: a keyword for the audit log, and words for people.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{words}")]
pub(crate) struct NotReloaded {
    reason: &'static str,
    words: String,
}

impl NotReloaded {
    fn new(reason: &'static str, why: &impl ToString) -> Self {
        Self { reason, words: why.to_string() }
    }
}

impl Reloader {
    pub(crate) fn new(running: &Running, parts: Parts) -> Self {
        let Running { origin, reading } = running.clone();
        Self(Arc::new(Inner { origin, current: Mutex::new(reading), parts, hangup: Arc::default() }))
    }

    /// Notify it to reload, for a signal.
    pub(crate) fn hangup(&self) -> Arc<Notify> {
        Arc::clone(&self.0.hangup)
    }

    /// Reloads at each signal, until `stop`.
    pub(crate) async fn follow_signals(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.hangup.notified() => {}
            }
            match self.reload(RequestedBy::Signal).await {
                Ok(Ok(reloaded)) => {
                    tracing::info!(config.changed = ?reloaded.changed, "the configuration was reloaded");
                }
                Ok(Err(refused)) => {
                    tracing::error!(config.problem = %refused, "the configuration was not reloaded; the old one stays in force");
                }
                Err(fault) => {
                    tracing::error!(db.fault = %fault, "the configuration was not reloaded; the old one stays in force");
                }
            }
        }
    }

    /// Reads the configuration and takes it up, or keeps the old one and says why. Both are on record.
    pub(crate) async fn reload(&self, by: RequestedBy) -> Result<Result<Reloaded, NotReloaded>, Fault> {
        let mut current = self.0.current.lock().await;
        let origin = self.0.origin.clone();
        let read = tokio::task::spawn_blocking(move || origin.read()).await;
        let read = read.map_err(|error| Fault::Storage(error.to_string()))?;
        let before = current.digest.clone();
        let (after, taken) = match read {
            Err(unreadable) => {
                let words = format!("{:#}", unreadable.why);
                (unreadable.digest, Err(NotReloaded::new("unreadable", &words)))
            }
            Ok(reading) => (reading.digest.clone(), self.take_up(&current, reading, by).await?),
        };
        match taken {
            Ok((reading, changed)) => {
                *current = reading;
                Ok(Ok(Reloaded { before, after, changed }))
            }
            Err(refused) => {
                let event = by.mark(Event::denied(Name::ConfigReloadRefused, refused.reason));
                let event = digests(event, before, after).detail("problem", refused.words.as_str());
                self.0.parts.db.write(move |tx| audit::append(tx, event)).await?;
                Ok(Err(refused))
            }
        }
    }

    async fn take_up(
        &self,
        current: &Reading,
        next: Reading,
        by: RequestedBy,
    ) -> Result<Result<(Reading, Vec<String>), NotReloaded>, Fault> {
        if let Some(words) = current.needs_restart(&next) {
            return Ok(Err(NotReloaded::new("needs_restart", &words)));
        }
        if self.0.parts.authority.is_none() && current.file.risks() != next.file.risks() {
            let words = "the risk of a scope cannot change while a gateway runs alone; restart it. Nothing else in the file was applied either";
            return Ok(Err(NotReloaded::new("needs_restart", &words)));
        }
        let servers = match self.servers(&next.file).await? {
            Ok(servers) => servers,
            Err(refused) => return Ok(Err(refused)),
        };
        let changed = self.changed(current, &next, servers.as_ref());
        let event = by.mark(Event::allowed(Name::ConfigReloaded));
        let event =
            digests(event, current.digest.clone(), next.digest.clone()).detail("changed", changed.clone());
        let (inner, file) = (Arc::clone(&self.0), next.file.clone());
        let done = self.0.parts.db.write(move |tx| {
            if let Err(unusable) = inner.check_rules(tx, &file, servers.as_ref())? {
                return Ok(Err(NotReloaded::new("rules", &unusable)));
            }
            if let Some((authz, _)) = &inner.parts.authority {
                if let Err(obstacle) = authz.follow_configuration(tx, &file.clients)? {
                    return Ok(Err(NotReloaded::new("clients", &obstacle)));
                }
                authz.reconcile(tx)?;
            }
            let servers = servers.map(|servers| servers.take_up(tx)).transpose()?;
            audit::append(tx, event)?;
            publish(tx, inner, file, servers);
            Ok(Ok(()))
        });
        Ok(done.await?.map(|()| (next, changed)))
    }

    /// The sources in the file, with their secrets and certificates read; `None` if the gateway is elsewhere.
    async fn servers(&self, file: &File) -> Result<Result<Option<Others>, NotReloaded>, Fault> {
        let Some((resource, means)) = &self.0.parts.resource else { return Ok(Ok(None)) };
        let (upstreams, means) = (resource.upstreams().clone(), means.clone());
        let sources: Vec<_> = file.sources.values().cloned().collect();
        let (declared, data_dir): (Vec<_>, _) =
            (file.declared.values().cloned().collect(), file.data_dir_or_default());
        let read = tokio::task::spawn_blocking(move || {
            let configured = sources.iter().map(Source::configured).collect::<anyhow::Result<Vec<_>>>()?;
            let declared =
                declared.iter().map(|one| one.configured(&data_dir)).collect::<anyhow::Result<Vec<_>>>()?;
            Ok::<_, anyhow::Error>(upstreams.others(&configured, &declared, &means)?)
        });
        let read = read.await.map_err(|error| Fault::Storage(error.to_string()))?;
        Ok(read.map(Some).map_err(|why| NotReloaded::new("sources", &format!("{why:#}"))))
    }

    /// The changed keys: in the file, or in a secret that it names.
    fn changed(&self, current: &Reading, next: &Reading, servers: Option<&Others>) -> Vec<String> {
        let mut changed: Vec<_> = current.changes(next).into_iter().map(str::to_owned).collect();
        let stay = match (&self.0.parts.resource, servers) {
            (Some((resource, _)), Some(servers)) => servers.are_as(resource.upstreams()),
            _ => true,
        };
        if !stay && !changed.iter().any(|key| key == "sources") {
            changed.push("sources".to_owned());
        }
        changed
    }
}

impl Inner {
    /// Checks the rules against the scopes, and against the sources' stored lists.
    fn check_rules(
        &self,
        tx: &Tx<'_>,
        file: &File,
        servers: Option<&Others>,
    ) -> Result<Result<(), UnusableRule>, Fault> {
        let rules = Arc::new(file.rules.clone());
        match servers {
            Some(servers) => self.parts.catalogue.check_rules_with(&rules, servers, tx),
            None => Ok(self.parts.catalogue.check_rules(&rules)),
        }
    }
}

/// Applies the configuration as soon as its record is committed, before the request is answered.
fn publish(tx: &Tx<'_>, inner: Arc<Inner>, file: File, servers: Option<Servers>) {
    tx.after_commit(move || {
        let Parts { catalogue, resource, authority, .. } = &inner.parts;
        let rules = Arc::new(file.rules);
        let groups = || {
            if let Some((_, status)) = authority {
                status.replace_groups(Groups::new(file.groups));
            }
        };
        match (resource, servers) {
            (Some((resource, _)), Some(servers)) => resource.replace_all(rules, servers, groups),
            _ => catalogue.replace_rules(rules, groups),
        }
        if let Some((authz, _)) = authority {
            authz.limit(file.limits);
        }
        if let Some((resource, _)) = resource {
            resource.limit(&file.limits);
        }
    });
}

fn digests(event: Event, before: Option<String>, after: Option<String>) -> Event {
    let none = || "none".to_owned();
    event.detail("before", before.unwrap_or_else(none)).detail("after", after.unwrap_or_else(none))
}

impl RequestedBy {
    fn mark(self, event: Event) -> Event {
        match self {
            Self::Console(uid) => event.by_console(uid),
            Self::Signal => event.by_server(),
        }
    }
}
