//! The programs of one source: who shares one, what each is started with, and which kind of revision they speak (SRC-07,
//! SRC-11).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use children::child::{self, NotStarted};
use children::conversation::Skips;
use children::pool::{
    CallerKey, ChildSlots, Key, Lease, OnCrash, Pool, Settings, Sharing, SpawnRate, Unavailable, Uptime,
};
use children::program::{Program, Variable};
use children::{Executable, Ring};
use shared::Clock;
use shared::outbound::memory::Memory;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::UNSUPPORTED_VERSION;
use super::failed::{Failed, shown};
use super::handshake::speaks_modern;
use super::message::Answered;
use super::pipes::{First, Means, NotBegun, Pipes};
use super::request::{Identity, NoResult, Request};
use super::room::Counted;
use super::speaks::{Capabilities, SpokenEra};
use super::wire::Hear;
use crate::sources::endpoint::{Era, Local};
use crate::sources::health::ProcessHealth;

/// After the first ones, one more is started in this time.
const SPAWN_PERIOD: Duration = Duration::from_millis(200);
/// This many more may run for a moment, while those with another version of a credential end.
const REPLACING: usize = 1;
/// How long programs that are let go may take to end when the server stops.
const CLOSING: Duration = Duration::from_secs(8);

/// What programs are started with, the same for all sources.
#[derive(Clone, Debug)]
pub struct Launching {
    /// The program that supervises and launches them.
    pub executable: Executable,
    /// Files and directories that no program may have access to.
    pub keep_out: Vec<PathBuf>,
    pub places: ChildSlots,
}

/// The programs of one source. Clones share them.
#[derive(Clone)]
pub(crate) struct Processes(Arc<Inner>);

struct Inner {
    name: String,
    local: Local,
    launching: Launching,
    memory: Memory,
    pool: Pool<Pipes>,
    errors: Ring,
    skips: Skips,
    /// Notified when a list is due.
    due: Arc<Notify>,
    found: Mutex<Option<SpokenEra>>,
}

/// What they share with those of other sources.
pub(crate) struct With<'w> {
    pub(crate) launching: &'w Launching,
    pub(crate) memory: &'w Memory,
    pub(crate) clock: &'w Clock,
}

impl Processes {
    /// `due` is notified when a list is due, and `on_crash` told of each crash. `is_legacy` is what is remembered of them.
    pub(crate) fn new(
        name: &str,
        local: Local,
        means: &With<'_>,
        due: Arc<Notify>,
        is_legacy: bool,
        on_crash: OnCrash,
    ) -> Self {
        let most = local.instances + if local.sharing == Sharing::Shared { REPLACING } else { 0 };
        let rate = SpawnRate { burst: u32::try_from(most).unwrap_or(u32::MAX).max(5), per: SPAWN_PERIOD };
        let (launching, memory) = (means.launching.clone(), means.memory.clone());
        let settings = Settings { most, idle: local.idle, rate };
        let clock = means.clock.clone();
        let uptime = Uptime::of(move || clock.uptime());
        let pool = Pool::new(settings, &launching.places, uptime, on_crash);
        let found = Mutex::new(is_legacy.then_some(SpokenEra::Legacy));
        let (errors, skips) = (Ring::default(), Skips::default());
        Self(Arc::new(Inner {
            name: name.to_owned(),
            local,
            launching,
            memory,
            pool,
            errors,
            skips,
            due,
            found,
        }))
    }

    /// What is known of their revision.
    pub(super) fn speaks(&self) -> Option<SpokenEra> {
        *self.0.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request to the program that serves this caller, which is started if it does not run. What it did not read,
    /// or refused before it ran, is sent once more (SRC-08).
    pub(super) async fn ask(
        &self,
        who: &Identity,
        asked: &Request<'_>,
        hear: Hear<'_>,
    ) -> Result<Answered, NoResult> {
        let mut is_first = true;
        loop {
            let lease = self.lease(who).await.map_err(|why| NoResult { sent: false, why })?;
            let answered = lease.ask(asked, hear).await;
            if !std::mem::take(&mut is_first) || !self.is_refused(who, &answered) {
                return answered;
            }
        }
    }

    /// Whether another program may do better: this one had ended, or changed its revision.
    fn is_refused(&self, who: &Identity, answered: &Result<Answered, NoResult>) -> bool {
        match answered {
            Err(NoResult { sent: false, .. }) => true,
            Ok(Err(error)) if error.code == UNSUPPORTED_VERSION || speaks_modern(error) => {
                let is_other = match self.speaks() {
                    Some(SpokenEra::Legacy) => true,
                    Some(SpokenEra::Modern(_)) => error.code == UNSUPPORTED_VERSION,
                    None => false,
                };
                if is_other && self.0.local.era == Era::Auto {
                    self.remember(None);
                    let key = self.key(who);
                    self.0.pool.retire(|running| *running == key);
                }
                is_other
            }
            _ => false,
        }
    }

    pub(super) async fn capabilities(&self, who: &Identity) -> Result<Capabilities, Failed> {
        Ok(self.lease(who).await?.capabilities)
    }

    async fn lease(&self, who: &Identity) -> Result<Lease<Pipes>, Failed> {
        let (processes, who_starts) = (self.clone(), who.clone());
        let start = async move { processes.start(&who_starts).await };
        self.0.pool.lease(&self.key(who), start).await.map_err(|why| Failed::Unavailable(self.words(&why)))
    }

    /// Why there is no program, for people, with what it said last.
    fn words(&self, why: &Unavailable) -> String {
        let is_of_program = matches!(
            why,
            Unavailable::NotStarted(_) | Unavailable::Pausing { .. } | Unavailable::Quarantined(_)
        );
        match self.0.errors.last_line().filter(|_| is_of_program) {
            Some(line) => format!("{why}; the last line on its standard error: {}", shown(&line)),
            None => why.to_string(),
        }
    }

    /// Who shares a program (SRC-07, SRC-15).
    fn key(&self, who: &Identity) -> Key {
        let caller = who.caller.as_ref();
        let (principal, session) = (
            // The gateway's own requests belong to no user.
            caller.map_or("", |caller| &caller.principal),
            caller.and_then(|caller| caller.session.as_deref()),
        );
        let asker = CallerKey { principal, session, credential: who.version, capabilities: "" };
        self.0.local.sharing.key(&asker)
    }

    async fn start(&self, who: &Identity) -> Result<Pipes, NotStarted> {
        let first = match (self.0.local.era, self.speaks()) {
            (Era::Legacy, _) | (Era::Auto, Some(SpokenEra::Legacy)) => First::Initialize,
            (era, _) => First::Probe { only_modern: era == Era::Modern },
        };
        let refused = match self.begin(who, first).await? {
            Ok(pipes) => return Ok(pipes),
            Err(refused) => refused,
        };
        // The remembered state may be out of date, and a probe may have ended the program; neither counts as its crash.
        let second = match (first, &refused) {
            (First::Probe { only_modern: false }, NotBegun::EndedOnProbe) => First::Initialize,
            (First::Initialize, NotBegun::Failed(_)) if self.0.local.era == Era::Auto => {
                self.remember(None);
                First::Probe { only_modern: false }
            }
            (_, refused) => return Err(NotStarted(says(refused))),
        };
        match self.begin(who, second).await? {
            Ok(pipes) => Ok(pipes),
            Err(second) => Err(NotStarted(says(if second.is_telling() { &second } else { &refused }))),
        }
    }

    async fn begin(&self, who: &Identity, first: First) -> Result<Result<Pipes, NotBegun>, NotStarted> {
        let Inner { launching, errors, skips, memory, due, local, .. } = &*self.0;
        let started = child::start(&launching.executable, self.program(who), errors).await?;
        let holder = who.caller.as_ref().filter(|_| local.sharing != Sharing::Shared);
        let holder =
            holder.map_or_else(|| self.0.name.as_str().into(), |caller| caller.principal.as_str().into());
        let concerns_lists = local.sharing == Sharing::Shared || who.caller.is_none();
        let means = Means {
            room: Counted::of(memory.clone(), holder),
            skips: skips.clone(),
            news: concerns_lists.then(|| Arc::clone(due)),
        };
        let begun = Pipes::begin(started, means, first).await;
        if let Ok(pipes) = &begun {
            self.remember(Some(pipes.speaks()));
        }
        Ok(begun)
    }

    fn program(&self, who: &Identity) -> Program {
        let Inner { name, local, launching, .. } = &*self.0;
        let plain = local.env.iter().map(|(name, value)| (name.clone(), Variable::from(value.as_str())));
        let private = local.tmp_env.iter().map(|name| (name.clone(), Variable::TemporaryDirectory));
        let secret = who
            .variables
            .iter()
            .map(|(name, secret)| (name.clone(), Variable::Secret(secret.expose().to_owned().into())));
        let env: BTreeMap<_, _> = plain.chain(private).chain(secret).collect();
        Program {
            args: local.args.clone(),
            env,
            cwd: local.cwd.clone(),
            paths: local.paths.clone(),
            keep_out: launching.keep_out.clone(),
            sandbox: local.sandbox,
            unix_sockets: local.unix_sockets,
            limits: local.limits.clone(),
            ..Program::new(name, &local.command)
        }
    }

    /// Forgets what was found out, ends every program at once, and forgives crashes.
    pub(super) fn begin_anew(&self) {
        self.0.pool.restart();
        self.remember(None);
    }

    /// Ends every program, and waits until nothing of them is left.
    pub(super) async fn close(&self) {
        let stop = CancellationToken::new();
        stop.cancel();
        let _ = tokio::time::timeout(CLOSING, self.0.pool.keep(stop)).await;
    }

    /// Stops those that nobody has used for long, and those whose credential is no longer the present one.
    pub(crate) fn sweep(&self, present: impl Fn(Option<&str>) -> Option<u64>) {
        self.0.pool.sweep();
        let running = self.0.pool.in_use();
        let outdated: Vec<Key> = running
            .into_iter()
            .map(|running| running.key)
            .filter(|key| {
                let principal = key.principal().filter(|principal| !principal.is_empty());
                present(principal) != Some(key.credential())
            })
            .collect();
        self.0.pool.retire(|key| outdated.contains(key));
    }

    /// A session has ended, and what served it alone ends too.
    pub(crate) fn session_ended(&self, session: &str) {
        self.0.pool.retire(|key| key.session() == Some(session));
    }

    pub(crate) fn health(&self) -> ProcessHealth {
        let Inner { pool, skips, local, .. } = &*self.0;
        let (running, (quarantined, why)) = (pool.in_use(), pool.quarantined());
        ProcessHealth {
            running: running.len(),
            in_use: running.iter().filter(|one| one.leases > 0).count(),
            limit: local.instances,
            quarantined,
            why,
            skipped: skips.skipped(),
        }
    }

    /// The last part of what they wrote to standard error.
    pub(crate) fn errors(&self) -> String {
        self.0.errors.tail()
    }

    fn remember(&self, found: Option<SpokenEra>) {
        *self.0.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}

impl NotBegun {
    /// Whether it says more than that the program ended.
    fn is_telling(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

fn says(refused: &NotBegun) -> String {
    match refused {
        NotBegun::EndedOnProbe => "it ended before it answered".to_owned(),
        NotBegun::Failed(why) => why.to_string(),
    }
}
