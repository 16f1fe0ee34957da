//! What all commands share: common options, requests and answers, where they are executed, and how answers are
//! printed. The line protocol of the control socket is in [`socket`].

pub(crate) mod confirm;
mod control_key;
pub(crate) mod print;
pub(crate) mod socket;
pub(crate) mod typed;

use std::fmt::Display;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use authz::Authz;
use authz::issuer_change::{self, Another};
use clap::Args;
use keys::Checkpoints;
use resource::Calls;
use resource::catalogue::BuiltIn;
use resource::sources::Upstreams;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::data_dir::{self, DataDir};
use shared::db::ReadOnly;
use shared::schema::SCHEMA;
use shared::{Clock, Db, Fault, Issuer, Tx};

use crate::base::{Base, require_database};
use crate::config::{DataDirOption, File};
use crate::reload::Reloader;
use crate::{environment, output, timekeeping};

/// A noun of the command line, with everything about it in one file: options, requests, execution, output.
pub(crate) trait Noun {
    /// Its requests to a running server. Others are unknown to the server.
    const REQUESTS: &'static [Handler] = &[];

    /// Runs the command.
    fn run(self, file: &File) -> anyhow::Result<ExitCode>;
}

/// A request to the process that holds the data directory: a running server, or the command itself if none runs
/// (ADMIN-05). On the control socket it is its own JSON with `v` and `command` added.
pub(crate) trait Request: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Its name on the control socket.
    const COMMAND: &'static str;
    /// What is lost if the answer cannot be printed.
    const DOES: Effect = Effect::Changes;
    /// Whether a gateway alone supports it.
    const AT_GATEWAY: bool = false;
    /// How long to wait for the server's answer.
    const PATIENCE: Duration = Duration::from_secs(10);
    /// The answer; printed as it is with `--json`.
    type Answer: Serialize + DeserializeOwned + Send;

    /// Does it, for the user with this id on the machine.
    fn perform(
        self,
        place: &ServerParts,
        uid: u32,
    ) -> impl Future<Output = Result<Self::Answer, Refused>> + Send;
}

/// What a request does, as far as it matters to a reader of the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    Reads,
    Changes,
    /// It changes something, and its answer has a secret that is shown once.
    HandsOut,
}

/// Why a request was refused, in words for its user.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refused {
    code: String,
    message: String,
}

impl Refused {
    pub(crate) fn new(code: &str, why: &impl Display) -> Self {
        Self { code: code.to_owned(), message: why.to_string() }
    }

    /// A refusal by a rule.
    pub(crate) fn by_rule(why: &impl Display) -> Self {
        Self::new("refused", why)
    }

    /// Something does not work now.
    pub(crate) fn unavailable(why: &impl Display) -> Self {
        Self::new("unavailable", why)
    }

    fn unknown_command() -> Self {
        Self::new(
            "unknown_command",
            &"this server does not know that command; use the `portcullis` program of the same version",
        )
    }

    fn gateway_alone() -> Self {
        Self::new(
            "unknown_command",
            &"this is a gateway alone: it has no people, clients or keys. Run the command where the authorization server is",
        )
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::unavailable(&fault)
    }
}

/// Where requests are executed: the parts of a running server, or of a command that holds the data directory.
#[derive(Clone)]
pub(crate) struct ServerParts {
    pub clock: Clock,
    pub db: Db,
    /// `None` at a gateway alone.
    pub authority: Option<Authority>,
    /// `None` if no server runs.
    pub reloader: Option<Reloader>,
    /// The servers behind the gate, if a server runs.
    pub upstreams: Option<Upstreams>,
    /// The calls that run, if a server runs.
    pub calls: Option<Calls>,
}

/// The parts with users, clients and keys.
#[derive(Clone)]
pub(crate) struct Authority {
    pub authz: Authz,
    pub catalogue: BuiltIn,
    pub checkpoints: Checkpoints,
}

impl ServerParts {
    /// A data directory with an authorization server.
    pub(crate) fn of(base: &Base, clock: &Clock) -> Self {
        let authority = Authority {
            authz: base.authz.clone(),
            catalogue: base.store.catalogue.clone(),
            checkpoints: base.checkpoints.clone(),
        };
        Self { authority: Some(authority), ..Self::gateway(&base.store.db, clock) }
    }

    /// A gateway alone.
    pub(crate) fn gateway(db: &Db, clock: &Clock) -> Self {
        let (clock, db) = (clock.clone(), db.clone());
        Self { clock, db, authority: None, reloader: None, upstreams: None, calls: None }
    }

    /// The parts with users, clients and keys; refused at a gateway alone.
    pub(crate) fn authority(&self) -> Result<&Authority, Refused> {
        self.authority.as_ref().ok_or_else(Refused::gateway_alone)
    }

    /// Runs a job in one transaction. A refusal commits its record; a fault rolls back.
    pub(crate) async fn write<T: Send + 'static, E: Display + Send + 'static>(
        &self,
        job: impl FnOnce(&Authz, &Tx<'_>) -> Result<Result<T, E>, Fault> + Send + 'static,
    ) -> Result<T, Refused> {
        let authz = self.authority()?.authz.clone();
        let done = self.db.write(move |tx| job(&authz, tx)).await?;
        done.map_err(|refusal| Refused::by_rule(&refusal))
    }

    /// Runs a job that is never refused in one transaction.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Authz, &Tx<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Refused> {
        let authz = self.authority()?.authz.clone();
        Ok(self.db.write(move |tx| job(&authz, tx)).await?)
    }

    /// Runs slow work on a thread that may block.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Authz) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let authz = self.authority()?.authz.clone();
        let done = tokio::task::spawn_blocking(move || work(&authz)).await;
        done.map_err(|error| Fault::Storage(error.to_string()).into())
    }
}

/// A kind of request, found by its name on the control socket.
pub(crate) struct Handler {
    pub(crate) command: &'static str,
    perform: fn(Value, ServerParts, u32) -> PerformFuture,
}

type PerformFuture = Pin<Box<dyn Future<Output = Result<Value, Refused>> + Send>>;

impl Handler {
    pub(crate) const fn of<R: Request>() -> Self {
        Self {
            command: R::COMMAND,
            perform: |request, place, uid| Box::pin(perform::<R>(request, place, uid)),
        }
    }
}

async fn perform<R: Request>(request: Value, place: ServerParts, uid: u32) -> Result<Value, Refused> {
    if !R::AT_GATEWAY {
        place.authority()?;
    }
    let request: R = serde_json::from_value(request).map_err(|_| Refused::unknown_command())?;
    let answer = request.perform(&place, uid).await?;
    serde_json::to_value(answer).map_err(|error| Refused::unavailable(&error))
}

/// The options of most commands.
#[derive(Args, Debug)]
pub struct CommonOptions {
    /// The result as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub data: DataDirOption,
}

impl CommonOptions {
    /// Has a request executed, and returns the answer.
    pub(crate) fn ask<R: Request>(&self, file: &File, request: R) -> anyhow::Result<R::Answer> {
        ask(&self.data.path(file), file, request)
    }

    /// Prints an answer: as JSON if requested, otherwise as text.
    pub(crate) fn show<T: Serialize>(
        &self,
        answer: &T,
        in_words: impl FnOnce(&T) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if self.json { output::json(&serde_json::to_value(answer)?) } else { in_words(answer) }
    }

    /// Has a request executed, and prints the answer.
    pub(crate) fn run<R: Request>(
        &self,
        file: &File,
        request: R,
        in_words: impl FnOnce(&R::Answer) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.show(&self.ask(file, request)?, in_words)
    }
}

/// Has a request executed: by the running server, or here under the directory's lock if none runs. A lock
/// without a server that answers is an error; there is never a second writer (ADMIN-05).
pub(crate) fn ask<R: Request>(dir: &Path, file: &File, request: R) -> anyhow::Result<R::Answer> {
    data_dir::check(dir)?;
    same_issuer(dir, file)?;
    if R::DOES == Effect::HandsOut {
        output::require_reader()?;
    }
    let answer = done(dir, file, request)?;
    if R::DOES != Effect::Reads {
        output::changed();
    }
    Ok(answer)
}

fn done<R: Request>(dir: &Path, file: &File, request: R) -> anyhow::Result<R::Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Some(answer) = runtime.block_on(socket::ask(dir, &request))? {
        return Ok(answer?);
    }
    let clock = timekeeping::clock()?;
    let uid = rustix::process::getuid().as_raw();
    if R::AT_GATEWAY && is_a_gateways(dir)? {
        let holds = DataDir::open(dir)?.mirrored_to(file.audit_mirror.as_deref())?;
        let db =
            Db::open_mirrored(&holds.database(), &holds.heads(), &SCHEMA, Some(&holds.backups()), &clock)?;
        return Ok(runtime.block_on(request.perform(&ServerParts::gateway(&db, &clock), uid))?);
    }
    let base = Base::open(file, dir, &clock)?;
    Ok(runtime.block_on(request.perform(&ServerParts::of(&base, &clock), uid))?)
}

/// Has a request executed by the running server; `None` if none answers.
pub(super) fn ask_server<R: Request>(
    dir: &Path,
    request: &R,
) -> anyhow::Result<Option<Result<R::Answer, Refused>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(socket::ask(dir, request))
}

/// Whether only a gateway has used this directory: an authorization server stores its issuer.
fn is_a_gateways(dir: &Path) -> anyhow::Result<bool> {
    Ok(ReadOnly::open(&require_database(dir)?, &SCHEMA)?.read(issuer_change::stored)?.is_none())
}

/// Refuses a command whose configuration names another issuer than the directory's, because its links and
/// answers would be about the wrong server.
pub(crate) fn same_issuer(dir: &Path, file: &File) -> anyhow::Result<()> {
    let configured = environment::variable("PORTCULLIS_ISSUER").and_then(|issuer| issuer.into_string().ok());
    let Some(wanted) = configured.or_else(|| file.issuer.clone()) else { return Ok(()) };
    let wanted = Issuer::parse(&wanted).with_context(|| format!("issuer {wanted}"))?;
    // Errors of the database are reported when it is opened for the command.
    let Ok(db) = ReadOnly::open(&dir.join("portcullis.db"), &SCHEMA) else { return Ok(()) };
    let stored = db.read(issuer_change::stored)?;
    match stored.and_then(|stored| Another::than(&stored, &wanted)) {
        Some(another) => Err(another.into()),
        None => Ok(()),
    }
}
