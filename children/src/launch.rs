//! The launcher: gives up privileges, enters the sandbox, and becomes the program. It says why if it cannot.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::fs::Mode;
use rustix::process::{Signal, getppid, set_parent_process_death_signal, setsid, umask};
use serde::{Deserialize, Serialize};

use crate::program::{Access, Program, Sandbox, Variable};
use crate::{handover, privileges, sandbox, sockets};

/// Where a program without a slash in its name is looked for if no `PATH` is declared.
const SYSTEM_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Written to `oom_score_adj`: when memory runs out, children end before the gateway does.
const OOM_SCORE: &[u8] = b"500";

/// What a supervisor tells a launcher.
#[derive(Serialize, Deserialize)]
pub(crate) struct LaunchRequest {
    pub program: Program,
    pub temporary: PathBuf,
    pub supervisor: i32,
    /// Whether a cgroup limits memory and processes.
    pub in_cgroup: bool,
}

/// The socket that this process was started with as its standard input. Nothing is there in its place.
pub(crate) fn take_stdin() -> io::Result<UnixStream> {
    let socket = rustix::stdio::stdin().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(UnixStream::from(socket))
}

/// Runs the role: the socket to the supervisor is standard input. It returns only if the program does not run.
pub(crate) fn run() -> ExitCode {
    let Ok(mut supervisor) = take_stdin() else { return ExitCode::FAILURE };
    let Err(why) = launch(&supervisor);
    let _ = supervisor.write_all(why.as_bytes());
    ExitCode::FAILURE
}

fn launch(supervisor: &UnixStream) -> Result<std::convert::Infallible, String> {
    let said = |error: io::Error| error.to_string();
    let (orders, [stdin]) = handover::receive::<LaunchRequest, 1>(supervisor).map_err(said)?;
    die_with(orders.supervisor)?;
    let program = &orders.program;
    let executable = find(program)?;
    rustix::stdio::dup2_stdin(stdin.as_fd()).map_err(|error| said(error.into()))?;
    drop(stdin);
    setsid().map_err(|error| said(error.into()))?;
    umask(Mode::from_raw_mode(0o077));
    let cwd = program.cwd.as_ref().unwrap_or(&orders.temporary);
    std::env::set_current_dir(cwd)
        .map_err(|error| format!("its working directory {} cannot be used: {error}", cwd.display()))?;
    let mut command = Command::new(&executable);
    command.arg0(&program.command).args(&program.args).env_clear();
    for (name, value) in &program.env {
        match value {
            Variable::Value(value) | Variable::Secret(value) => command.env(name, value.value()),
            Variable::TemporaryDirectory => command.env(name, &orders.temporary),
        };
    }
    confine(&orders, &executable)?;
    let error = command.exec();
    Err(format!("{} cannot be executed: {error}", executable.display()))
}

/// Has the kernel kill this process when its supervisor ends.
fn die_with(supervisor: i32) -> Result<(), String> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| error.to_string())?;
    // If it ended before, no signal comes.
    if getppid().is_none_or(|parent| parent.as_raw_pid() != supervisor) {
        return Err("its supervisor has ended".to_owned());
    }
    Ok(())
}

/// Limits, privileges and files, in the order in which each is still possible.
fn confine(orders: &LaunchRequest, executable: &Path) -> Result<(), String> {
    let program = &orders.program;
    // Only a kernel without the file refuses to raise the score.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    privileges::limit(&program.limits, orders.in_cgroup)
        .map_err(|error| format!("its limits cannot be set: {error}"))?;
    privileges::drop_all().map_err(|error| format!("it cannot give up privileges: {error}"))?;
    if program.sandbox == Sandbox::Off {
        return Ok(());
    }
    let mut granted: Vec<_> = program.paths.iter().map(|(path, access)| (path.clone(), *access)).collect();
    granted.push((executable.to_owned(), Access::Read));
    granted.push((orders.temporary.clone(), Access::Write));
    granted.extend(program.cwd.clone().map(|cwd| (cwd, Access::Read)));
    sandbox::enter(&granted, &program.keep_out).map_err(|error| error.to_string())?;
    if program.unix_sockets {
        return Ok(());
    }
    sockets::close().map_err(|error| {
        format!("Unix sockets cannot be closed to it ({error}). Set unix_sockets = true if it may use them")
    })
}

/// The file to execute.
fn find(program: &Program) -> Result<PathBuf, String> {
    let command = &program.command;
    if command.starts_with('/') {
        return Ok(PathBuf::from(command));
    }
    if command.is_empty() || command.contains('/') {
        return Err(format!("`{command}` is neither an absolute path nor a name without a slash"));
    }
    let declared = match program.env.get("PATH") {
        Some(Variable::Value(path) | Variable::Secret(path)) => path.value(),
        _ => SYSTEM_PATH,
    };
    let mut candidates =
        declared.split(':').filter(|dir| dir.starts_with('/')).map(|dir| Path::new(dir).join(command));
    candidates
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| format!("`{command}` is not in any directory of {declared}"))
}
