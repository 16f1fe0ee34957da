//! `kind = "mcp-stdio"`: a server that is a program (SRC-11).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use resource::sources::endpoint::{Access, Endpoint, Era, Limits, Local, Sandbox, Sharing};

use super::super::keys::Key;
use super::shown::{ShownCredentials, variable_name};

/// The keys that only it has.
pub(super) const KEYS: [&str; 14] = [
    "command",
    "args",
    "env",
    "secrets",
    "tmp_env",
    "cwd",
    "paths",
    "pool",
    "instances",
    "idle",
    "era",
    "sandbox",
    "unix_sockets",
    "limits",
];
const LIMITS: [&str; 4] = ["memory", "processes", "open_files", "file_size"];
/// The most processes of a source, by default and at all.
const INSTANCES: usize = 16;
const MOST_INSTANCES: usize = 1000;
/// A process that serves some callers only is stopped when nobody has used it for this long.
const IDLE: Duration = Duration::from_mins(10);
const IDLES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24 * 7);

/// What a table says of the program, before it is checked as a whole.
#[derive(Default)]
pub(super) struct Said {
    command: Vec<String>,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    tmp_env: Vec<String>,
    cwd: Option<PathBuf>,
    paths: BTreeMap<PathBuf, Access>,
    pool: Option<Sharing>,
    instances: Option<usize>,
    idle: Option<Idle>,
    era: Era,
    sandbox: Sandbox,
    unix_sockets: bool,
    limits: Limits,
}

/// When a process is stopped that nobody uses.
#[derive(Clone, Copy)]
enum Idle {
    Never,
    After(Duration),
}

impl Said {
    /// Reads one of its keys. Relative paths are relative to `folder`.
    pub(super) fn read(&mut self, key: &Key<'_>, folder: &Path) -> anyhow::Result<()> {
        match key.name {
            "command" => self.command = texts(&key.one_or_list()?)?,
            "args" => self.args = arguments(key)?,
            "env" => self.env = key.keys()?.iter().map(variable).collect::<anyhow::Result<_>>()?,
            "tmp_env" => self.tmp_env = texts(&key.one_or_list()?)?,
            "cwd" => self.cwd = Some(std::path::absolute(folder.join(key.text()?))?),
            "paths" => self.paths = paths(key, folder)?,
            "pool" => self.pool = Some(pool(key)?),
            "instances" => self.instances = Some(instances(key)?),
            "idle" => self.idle = Some(idle(key)?),
            "era" => self.era = era(key)?,
            "sandbox" => self.sandbox = sandbox(key)?,
            "unix_sockets" => self.unix_sockets = key.boolean()?,
            "limits" => self.limits = limits(key)?,
            _ => return Err(key.unknown(&KEYS)),
        }
        Ok(())
    }

    /// The program, if all fits.
    pub(super) fn fits(self, table: &Key<'_>, shown: &ShownCredentials) -> anyhow::Result<Endpoint> {
        let (name, at) = (table.name, table.at());
        let mut words = self.command.into_iter();
        let Some(command) = words.next() else {
            bail!(
                "[sources.{name}] at {at} has no `command`; write the program that is the server, like command = \"/opt/mcp/ci-server\""
            );
        };
        if command.contains('/') && !command.starts_with('/') {
            bail!(
                "[sources.{name}] at {at} has the command `{command}`; write an absolute path, or a name without `/`"
            );
        }
        let mut set = BTreeSet::new();
        let all = self.env.keys().chain(&self.tmp_env).map(String::as_str).chain(shown.variables());
        for variable in all {
            if !set.insert(variable) {
                bail!(
                    "[sources.{name}] at {at} sets the variable {variable} twice; set it in one of `env`, `secrets` and `tmp_env`"
                );
            }
        }
        let sharing = match (self.pool, shown.is_of_users()) {
            (None | Some(Sharing::Shared), true) => bail!(
                "[sources.{name}] at {at} has a secret that is each user's own, so its users cannot share a process; write pool = \"per_user\""
            ),
            (pool, _) => pool.unwrap_or_default(),
        };
        if sharing == Sharing::Shared && self.instances.is_some() {
            bail!(
                "[sources.{name}] at {at} has `instances`, and one process for all callers; remove it, or write pool = \"per_user\""
            );
        }
        let is_shared = sharing == Sharing::Shared;
        Ok(Endpoint::Local(Box::new(Local {
            command,
            args: words.chain(self.args).collect(),
            env: self.env,
            tmp_env: self.tmp_env,
            cwd: self.cwd,
            paths: self.paths,
            sandbox: self.sandbox,
            unix_sockets: self.unix_sockets,
            limits: self.limits,
            sharing,
            instances: if is_shared { 1 } else { self.instances.unwrap_or(INSTANCES) },
            // One process that all share is there when somebody needs it.
            idle: match self.idle {
                Some(Idle::Never) => None,
                Some(Idle::After(idle)) => Some(idle),
                None => (!is_shared).then_some(IDLE),
            },
            era: self.era,
        })))
    }
}

fn texts(keys: &[Key<'_>]) -> anyhow::Result<Vec<String>> {
    keys.iter().map(|key| key.text().map(str::to_owned)).collect()
}

/// Arguments may be empty.
fn arguments(key: &Key<'_>) -> anyhow::Result<Vec<String>> {
    key.list()?.iter().map(Key::words).collect()
}

fn variable(key: &Key<'_>) -> anyhow::Result<(String, String)> {
    Ok((variable_name(key)?, key.words()?))
}

/// `paths = { read = […], write = […] }`.
fn paths(table: &Key<'_>, folder: &Path) -> anyhow::Result<BTreeMap<PathBuf, Access>> {
    let mut paths = BTreeMap::new();
    for key in table.keys()? {
        let access = match key.name {
            "read" => Access::Read,
            "write" => Access::Write,
            _ => return Err(key.unknown(&["read", "write"])),
        };
        for path in key.one_or_list()? {
            let path = std::path::absolute(folder.join(path.text()?))?;
            // What may be written may be read too.
            let access = if paths.get(&path) == Some(&Access::Write) { Access::Write } else { access };
            paths.insert(path, access);
        }
    }
    Ok(paths)
}

fn pool(key: &Key<'_>) -> anyhow::Result<Sharing> {
    match key.text()? {
        "shared" => Ok(Sharing::Shared),
        "per_user" => Ok(Sharing::PerUser),
        "per_session" => Ok(Sharing::PerSession),
        other => {
            bail!("`pool` at {} is `{other}`; write \"shared\", \"per_user\" or \"per_session\"", key.at())
        }
    }
}

fn instances(key: &Key<'_>) -> anyhow::Result<usize> {
    let number = key.number_or_text()?.ok().and_then(|number| usize::try_from(number).ok());
    match number.filter(|number| (1..=MOST_INSTANCES).contains(number)) {
        Some(number) => Ok(number),
        None => bail!("`instances` at {} must be a number from 1 to {MOST_INSTANCES}", key.at()),
    }
}

fn idle(key: &Key<'_>) -> anyhow::Result<Idle> {
    if key.text()? == "never" {
        return Ok(Idle::Never);
    }
    let idle = key.duration()?;
    if !IDLES.contains(&idle) {
        bail!("`idle` at {} must be from 1 second to 7 days, or \"never\"", key.at());
    }
    Ok(Idle::After(idle))
}

fn era(key: &Key<'_>) -> anyhow::Result<Era> {
    match key.text()? {
        "auto" => Ok(Era::Auto),
        "2026-07-28" => Ok(Era::Modern),
        "legacy" => Ok(Era::Legacy),
        other => bail!("`era` at {} is `{other}`; write \"auto\", \"2026-07-28\" or \"legacy\"", key.at()),
    }
}

fn sandbox(key: &Key<'_>) -> anyhow::Result<Sandbox> {
    match key.text()? {
        "on" => Ok(Sandbox::On),
        "off" => Ok(Sandbox::Off),
        other => bail!("`sandbox` at {} is `{other}`; write \"on\" or \"off\"", key.at()),
    }
}

fn limits(table: &Key<'_>) -> anyhow::Result<Limits> {
    let mut limits = Limits::default();
    for key in table.keys()? {
        match key.name {
            "memory" => limits.memory = Some(key.size()?),
            "processes" => limits.processes = Some(count(&key)?),
            "open_files" => limits.open_files = count(&key)?,
            "file_size" => limits.file_size = key.size()?,
            _ => return Err(key.unknown(&LIMITS)),
        }
    }
    Ok(limits)
}

fn count(key: &Key<'_>) -> anyhow::Result<u64> {
    match key.number_or_text()? {
        Ok(number) if number > 0 => Ok(number.into()),
        _ => bail!("`{}` at {} must be a number of 1 or more", key.name, key.at()),
    }
}
