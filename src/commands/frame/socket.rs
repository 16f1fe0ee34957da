//! The control socket: requests for a running server, guarded by file permissions (ADMIN-05) and a key (SRC-11).
//!
//! One line of JSON each way: `{"v":1,"control_key":"ctl_…","command":"setup-link"}` is answered with `{"v":1,"ok":{…}}` or `{"v":1,"error":{"code":…,"message":…}}`.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared::Digest;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::{Handler, Refused, Request, ServerParts, control_key};

const NAME: &str = "control.sock";
/// The longest line in bytes.
const LONGEST: u64 = 16 << 20;
/// How long the server waits for a request, and for its answer to be read.
const PATIENCE: Duration = Duration::from_secs(10);

/// Finds the kind of request that has this name.
pub(crate) type Find = fn(&str) -> Option<&'static Handler>;

#[derive(Serialize)]
struct Asking<'r, R> {
    v: u32,
    control_key: &'r str,
    command: &'static str,
    #[serde(flatten)]
    request: &'r R,
}

#[derive(Deserialize)]
struct Asked {
    v: u32,
    control_key: Option<String>,
    command: String,
    #[serde(flatten)]
    request: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct Answered<T> {
    v: u32,
    #[serde(flatten)]
    answer: Answer<T>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer<T> {
    Ok(T),
    Error(Refused),
}

impl<T> From<Result<T, Refused>> for Answer<T> {
    fn from(done: Result<T, Refused>) -> Self {
        match done {
            Ok(answer) => Self::Ok(answer),
            Err(refused) => Self::Error(refused),
        }
    }
}

impl<T> From<Answer<T>> for Result<T, Refused> {
    fn from(answer: Answer<T>) -> Self {
        match answer {
            Answer::Ok(answer) => Ok(answer),
            Answer::Error(refused) => Err(refused),
        }
    }
}

/// The socket's path through a handle of its directory: socket paths are limited to 108 bytes, and data
/// directories may be longer.
fn short_path(dir: &Path) -> io::Result<(File, PathBuf)> {
    let handle = File::open(dir)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{NAME}", handle.as_raw_fd()));
    Ok((handle, path))
}

/// The open socket, and what a command must prove on it.
pub(crate) struct Control {
    listener: UnixListener,
    key: Digest,
}

/// Opens the socket; only this user can connect. The data directory's lock is held, so an existing socket is a
/// dead server's.
pub(crate) fn listen(dir: &Path) -> anyhow::Result<Control> {
    // The key first, so that it exists when the socket can be found.
    let key = control_key::make(dir)?;
    let (_handle, path) = short_path(dir)?;
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(e).context("cannot replace the control socket");
        }
        _ => {}
    }
    let listener = UnixListener::bind(&path).context("cannot open the control socket")?;
    // The directory already has mode 0700; this is a second protection.
    fs::set_permissions(&path, Permissions::from_mode(0o600)).context("cannot guard the control socket")?;
    Ok(Control { listener, key })
}

/// Answers requests until `stop`.
pub(crate) async fn serve(control: Control, find: Find, place: ServerParts, stop: CancellationToken) {
    let Control { listener, key } = control;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let place = place.clone();
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &key, find, place).await {
                tracing::warn!(control.error = %error, "a command was not answered");
            }
        });
    }
}

async fn converse(stream: UnixStream, key: &Digest, find: Find, place: ServerParts) -> anyhow::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(LONGEST));
    tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await.context("the request was empty")??;
    let answer = answer(&line, key, find, place, uid).await.into();
    let mut line = serde_json::to_string(&Answered { v: 1, answer })?;
    line.push('\n');
    tokio::time::timeout(PATIENCE, writer.write_all(line.as_bytes())).await.context("nobody listened")??;
    Ok(())
}

async fn answer(
    line: &str,
    key: &Digest,
    find: Find,
    place: ServerParts,
    uid: u32,
) -> Result<Value, Refused> {
    let asked: Asked = serde_json::from_str(line).map_err(|_| Refused::unknown_command())?;
    if !control_key::is_proven(key, asked.control_key) {
        let why = "the command did not show the key in control.key of the data directory; use the `portcullis` program of the same version";
        return Err(Refused::new("unproven", &why));
    }
    if asked.v != 1 {
        return Err(Refused::new("version", &"this server uses version 1 of the control protocol"));
    }
    let handler = find(&asked.command).ok_or_else(Refused::unknown_command)?;
    (handler.perform)(asked.request.into(), place, uid).await
}

/// Sends a request to the running server; `None` if none answers.
///
/// # Errors
/// If the server breaks off, or does not answer in time. The result is then unknown, and the error says where
/// to look.
pub(super) async fn ask<R: Request>(
    dir: &Path,
    request: &R,
) -> anyhow::Result<Option<Result<R::Answer, Refused>>> {
    let Ok((_handle, path)) = short_path(dir) else { return Ok(None) };
    let Ok(stream) = UnixStream::connect(&path).await else { return Ok(None) };
    let key = control_key::read(dir)?;
    let (reader, mut writer) = stream.into_split();
    let mut line =
        serde_json::to_string(&Asking { v: 1, control_key: key.expose(), command: R::COMMAND, request })?;
    line.push('\n');
    writer.write_all(line.as_bytes()).await?;
    let mut answer = String::new();
    let mut reader = BufReader::new(reader.take(LONGEST));
    let read = tokio::time::timeout(R::PATIENCE, reader.read_line(&mut answer)).await;
    let read = read.with_context(|| {
        format!(
            "the server has not answered for {} seconds. The command may still run, or have run: `portcullis audit tail` shows what was done",
            R::PATIENCE.as_secs()
        )
    })?;
    if read? == 0 {
        bail!(
            "the server stopped before it answered. The command may have run: `portcullis audit tail` shows what was done"
        );
    }
    let answered: Answered<R::Answer> =
        serde_json::from_str(&answer).context("the server's answer could not be read")?;
    Ok(Some(answered.answer.into()))
}
