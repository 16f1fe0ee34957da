//! A child as the gateway sees it: its pipes, its end, and the socket whose closing kills it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::executable::{Executable, SUPERVISE};
use crate::handover;
use crate::program::Program;
use crate::report::{Ended, Report, STOP};
use crate::ring::Ring;

/// The longest report that is read.
const LONGEST_REPORT: u64 = 16 << 10;

/// Why a child was not started, in words for administrators.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotStarted(pub String);

impl From<io::Error> for NotStarted {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// A child that was just started.
#[derive(Debug)]
pub struct Started {
    pub stdin: pipe::Sender,
    pub stdout: pipe::Receiver,
    pub process: Process,
}

/// The life of a child. When this is dropped the child is killed, with everything that it started.
#[derive(Debug)]
pub struct Process {
    /// Of the program itself, as the gateway's machine counts.
    pub pid: i32,
    life: ChildEnd,
    /// Closes the socket when it is dropped.
    stop: CancellationToken,
    _held: oneshot::Sender<()>,
}

/// What is known of a child's end. Clones share it, and none keeps the child alive.
#[derive(Clone, Debug)]
pub struct ChildEnd(watch::Receiver<Stage>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Running,
    Ended(Ended),
    /// Its supervisor has ended too: nothing of it is left.
    Gone(Ended),
}

impl ChildEnd {
    /// Waits until the program has ended.
    pub async fn ended(&self) -> Ended {
        let mut stages = self.0.clone();
        let seen = stages.wait_for(|stage| *stage != Stage::Running).await.map(|stage| *stage);
        match seen {
            Ok(Stage::Ended(ended) | Stage::Gone(ended)) => ended,
            Ok(Stage::Running) | Err(_) => Ended::Unknown,
        }
    }

    /// Waits until nothing of it is left: no process, no file.
    pub async fn gone(&self) {
        let mut stages = self.0.clone();
        let _ = stages.wait_for(|stage| matches!(stage, Stage::Gone(_))).await;
    }

    /// How it ended, if it has.
    pub fn end(&self) -> Option<Ended> {
        match *self.0.borrow() {
            Stage::Running => None,
            Stage::Ended(ended) | Stage::Gone(ended) => Some(ended),
        }
    }
}

impl Process {
    pub fn life(&self) -> ChildEnd {
        self.life.clone()
    }

    /// Asks it to end: SIGTERM and then SIGKILL follow if it does not. Its standard input should be closed before.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

/// Starts a program. What it writes to standard error goes to `errors`, without its secrets.
///
/// # Errors
/// If it does not run, with the supervisor's or launcher's reason.
pub async fn start(by: &Executable, program: Program, errors: &Ring) -> Result<Started, NotStarted> {
    let (by, secrets) = (by.clone(), program.secrets());
    let prepared = tokio::task::spawn_blocking(move || prepare(&by, &program));
    let Prepared { mut supervisor, socket, stdin, stdout, stderr } =
        prepared.await.map_err(|error| NotStarted(error.to_string()))??;
    tokio::spawn(errors.clone().drain(pipe::Receiver::from_owned_fd(stderr)?, secrets));
    let (reader, mut writer) = tokio::net::UnixStream::from_std(socket)?.into_split();
    let mut reports = BufReader::new(reader.take(LONGEST_REPORT)).lines();
    let pid = match next(&mut reports).await {
        Some(Report::Started { pid }) => pid,
        Some(Report::Failed { why }) => return Err(NotStarted(why)),
        Some(Report::Ended(ended)) => return Err(NotStarted(ended.to_string())),
        None => return Err(NotStarted("its supervisor ended before it said why".to_owned())),
    };
    let (told, stages) = watch::channel(Stage::Running);
    let (held, mut dropped) = oneshot::channel::<()>();
    let stop = CancellationToken::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        let mut is_told = false;
        let ended = loop {
            tokio::select! {
                report = next(&mut reports) => match report {
                    Some(Report::Ended(ended)) => break ended,
                    Some(_) => {}
                    None => break Ended::Unknown,
                },
                () = asked.cancelled(), if !is_told => {
                    is_told = true;
                    // If the word does not arrive, the supervisor is gone, and the next report says so.
                    let _ = writer.write_all(&[STOP]).await;
                }
                _ = &mut dropped => break Ended::Killed(Signal::KILL.as_raw()),
            }
        };
        told.send_replace(Stage::Ended(ended));
        drop((reports, writer));
        let _ = supervisor.wait().await;
        told.send_replace(Stage::Gone(ended));
    });
    Ok(Started {
        stdin: pipe::Sender::from_owned_fd(stdin)?,
        stdout: pipe::Receiver::from_owned_fd(stdout)?,
        process: Process { pid, life: ChildEnd(stages), stop, _held: held },
    })
}

/// A supervisor that has its orders, and our ends of what joins us.
struct Prepared {
    supervisor: tokio::process::Child,
    socket: UnixStream,
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// Starts a supervisor and hands the program over. The supervisor watches the socket and not its parent, so the thread that
/// starts it may end.
fn prepare(by: &Executable, program: &Program) -> io::Result<Prepared> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC);
    let ((their_stdin, stdin), (stdout, their_stdout), (stderr, their_stderr)) = (pipe()?, pipe()?, pipe()?);
    let (socket, theirs) = UnixStream::pair()?;
    let supervisor = Command::new(&by.0)
        .arg0("portcullis")
        .args([SUPERVISE, &program.name])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()?;
    handover::send(&socket, program, &[their_stdin.as_fd(), their_stdout.as_fd(), their_stderr.as_fd()])?;
    socket.set_nonblocking(true)?;
    Ok(Prepared { supervisor, socket, stdin, stdout, stderr })
}

/// The next report; `None` if none comes.
async fn next(
    reports: &mut tokio::io::Lines<BufReader<tokio::io::Take<tokio::net::unix::OwnedReadHalf>>>,
) -> Option<Report> {
    let line = reports.next_line().await.ok().flatten()?;
    serde_json::from_str(&line).ok()
}
