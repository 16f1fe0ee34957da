//! The supervisor: one small process between the gateway and each child. It holds one end of a socket. When the gateway's
//! end closes, because the gateway let go of the child or was killed, it kills everything below it.
//!
//! It runs one thread. The child's parent-death signal follows the thread that started it, and this one lives as long as
//! the process.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, WaitStatus, getpid, kill_process_group, pidfd_open,
    set_dumpable_behavior, setsid,
};

use crate::cgroup::Cgroup;
use crate::executable::{LAUNCH, OWN_PROGRAM};
use crate::program::Program;
use crate::report::{Ended, Report, STOP};
use crate::temporary::Temporary;
use crate::{descendants, handover, launch};

/// How often orphans that have ended are reaped.
const PERIOD: Duration = Duration::from_millis(500);
/// The most that is read of what a launcher says.
const LONGEST_WORDS: u64 = 4096;

/// Runs the role: the socket to the gateway is standard input.
pub(crate) fn run() -> ExitCode {
    let Ok(gateway) = launch::take_stdin() else { return ExitCode::FAILURE };
    match supervise(&gateway) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If the gateway is gone, nobody is left to be told.
            let _ = say(&gateway, &Report::Failed { why: error.to_string() });
            ExitCode::FAILURE
        }
    }
}

/// Starts the program, stays until it has ended, and removes what it leaves.
fn supervise(gateway: &UnixStream) -> io::Result<()> {
    // Signals that a terminal sends to the gateway's group are the gateway's to answer.
    setsid()?;
    // Another program of this user could read the secrets in this process's memory.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    descendants::adopt()?;
    let (program, [stdin, stdout, stderr]) = handover::receive::<Program, 3>(gateway)?;
    let temporary = Temporary::make(&program.scratch).map_err(|error| {
        io::Error::other(format!(
            "no temporary directory can be made in {}: {error}",
            program.scratch.display()
        ))
    })?;
    let cgroup = Cgroup::make(&program.limits);
    let started = start(&program, &temporary, cgroup.as_ref(), [stdin, stdout, stderr]);
    let report = started.and_then(|launched| attend(gateway, &launched, program.grace));
    // The gateway learns of the end before what is left is cleared away.
    let report = report.map(|report| say(gateway, &report));
    if let Some(cgroup) = &cgroup {
        cgroup.kill();
    }
    descendants::kill_all();
    drop(temporary);
    report.map(drop)
}

/// A launcher that was told what to do.
struct Launched {
    pid: Pid,
    /// What it says if it fails. It closes when the program runs.
    words: UnixStream,
}

fn start(
    program: &Program,
    temporary: &Temporary,
    cgroup: Option<&Cgroup>,
    [stdin, stdout, stderr]: [OwnedFd; 3],
) -> io::Result<Launched> {
    let (words, theirs) = UnixStream::pair()?;
    let launcher = Command::new(OWN_PROGRAM)
        .arg0("portcullis")
        .args([LAUNCH, &program.name])
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr))
        .spawn()?;
    let pid = i32::try_from(launcher.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("the launcher has no process id"))?;
    // It waits for its orders, so nothing runs outside of the group.
    let in_cgroup = cgroup.is_some_and(|cgroup| cgroup.take(pid));
    let orders = launch::LaunchRequest {
        program: program.clone(),
        temporary: temporary.path().to_owned(),
        supervisor: getpid().as_raw_pid(),
        in_cgroup,
    };
    handover::send(&words, &orders, &[stdin.as_fd()])?;
    Ok(Launched { pid, words })
}

/// Waits for the first of: the program ends, the gateway is gone, the gateway asks for the end and the time for it is over.
fn attend(gateway: &UnixStream, launched: &Launched, grace: Duration) -> io::Result<Report> {
    let handle = pidfd_open(launched.pid, PidfdFlags::empty())?;
    let mut launching = true;
    let mut stop = Stop { grace, asked: None, terminated: false };
    loop {
        let mut end = None;
        descendants::reap(|pid, status| {
            if pid == launched.pid {
                end = Some(ended(status));
            }
        });
        if let Some(end) = end {
            return match words(&launched.words, launching)? {
                Some(why) => Ok(Report::Failed { why }),
                None => Ok(Report::Ended(end)),
            };
        }
        let mut waiting = vec![PollFd::new(gateway, PollFlags::IN), PollFd::new(&handle, PollFlags::IN)];
        if launching {
            waiting.push(PollFd::new(&launched.words, PollFlags::IN));
        }
        let timeout = Timespec::try_from(stop.next().min(PERIOD)).map_err(io::Error::other)?;
        match poll(&mut waiting, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = waiting.iter().map(|one| !one.revents().is_empty()).collect();
        if launching && ready.get(2) == Some(&true) {
            if let Some(why) = words(&launched.words, launching)? {
                return Ok(Report::Failed { why });
            }
            launching = false;
            say(gateway, &Report::Started { pid: launched.pid.as_raw_pid() })?;
        }
        if ready.first() == Some(&true) {
            let mut word = [0; 1];
            let mut reader = gateway;
            match reader.read(&mut word) {
                Ok(1) if word == [STOP] => stop.ask(),
                // The gateway is gone.
                _ => return Ok(Report::Ended(Ended::Killed(Signal::KILL.as_raw()))),
            }
        }
        if stop.is_over(launched.pid) {
            return Ok(Report::Ended(Ended::Killed(Signal::KILL.as_raw())));
        }
    }
}

/// The end in good order: standard input is closed already, then comes SIGTERM, then SIGKILL.
struct Stop {
    grace: Duration,
    asked: Option<Instant>,
    terminated: bool,
}

impl Stop {
    fn ask(&mut self) {
        self.asked.get_or_insert_with(Instant::now);
    }

    /// How long until the next step.
    fn next(&self) -> Duration {
        let Some(asked) = self.asked else { return PERIOD };
        let due = if self.terminated { self.grace * 2 } else { self.grace };
        due.saturating_sub(asked.elapsed())
    }

    /// Takes the step that is due. Says whether the time is over.
    fn is_over(&mut self, group: Pid) -> bool {
        let Some(asked) = self.asked else { return false };
        if !self.terminated && asked.elapsed() >= self.grace {
            self.terminated = true;
            let _ = kill_process_group(group, Signal::TERM);
        }
        asked.elapsed() >= self.grace * 2
    }
}

/// What a launcher said, if it said anything: why the program does not run.
fn words(launcher: &UnixStream, launching: bool) -> io::Result<Option<String>> {
    if !launching {
        return Ok(None);
    }
    let mut said = Vec::new();
    match launcher.take(LONGEST_WORDS).read_to_end(&mut said) {
        Ok(_) if said.is_empty() => Ok(None),
        Ok(_) => Ok(Some(String::from_utf8_lossy(&said).into_owned())),
        // It was killed before it read its orders.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(error) => Err(error),
    }
}

fn ended(status: WaitStatus) -> Ended {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ended::Exited(code),
        (None, Some(signal)) => Ended::Killed(signal),
        (None, None) => Ended::Unknown,
    }
}

fn say(mut gateway: &UnixStream, report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    gateway.write_all(&line)
}
