//! The control socket: commands for a running server, guarded by file permissions (ADMIN-05).
//!
//! One line of JSON each way: `{"v":1,"command":"setup-link"}` is answered with
//! `{"v":1,"ok":{…}}` or `{"v":1,"error":{"code":…,"message":…}}`.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use authz::Authz;
use serde::{Deserialize, Serialize};
use shared::Db;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

const NAME: &str = "control.sock";
/// The longest line either side reads.
const LONGEST: u64 = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);

/// A command for a running server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// A new link for the first administrator.
    SetupLink,
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    v: u32,
    #[serde(flatten)]
    body: T,
}

/// What a server answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    Ok(serde_json::Value),
    Error { code: String, message: String },
}

impl Answer {
    fn error(code: &str, message: &str) -> Self {
        Self::Error { code: code.to_owned(), message: message.to_owned() }
    }
}

/// The socket's path through a handle of its directory: socket paths have 108 bytes at most, data
/// directories may be deeper.
fn short_path(dir: &Path) -> io::Result<(File, PathBuf)> {
    let handle = File::open(dir)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{NAME}", handle.as_raw_fd()));
    Ok((handle, path))
}

/// Opens the socket; only this user can connect. The data directory's lock is held, so a socket that
/// is there already is a dead server's.
pub(crate) fn listen(dir: &Path) -> anyhow::Result<UnixListener> {
    let (_handle, path) = short_path(dir)?;
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(e).context("cannot replace the control socket");
        }
        _ => {}
    }
    let listener = UnixListener::bind(&path).context("cannot open the control socket")?;
    // The directory is 0700 already; this is the second lock on the same door.
    fs::set_permissions(&path, Permissions::from_mode(0o600)).context("cannot guard the control socket")?;
    Ok(listener)
}

/// Answers commands until `stop`.
pub(crate) async fn serve(listener: UnixListener, authz: Authz, db: Db, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (authz, db) = (authz.clone(), db.clone());
        tokio::spawn(async move {
            if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, converse(stream, &authz, &db)).await {
                tracing::warn!(control.error = %error, "a command was not answered");
            }
        });
    }
}

async fn converse(stream: UnixStream, authz: &Authz, db: &Db) -> anyhow::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reader.take(LONGEST)).read_line(&mut line).await?;
    let answer = match serde_json::from_str::<Envelope<Request>>(&line) {
        Ok(Envelope { v: 1, body }) => execute(body, uid, authz, db).await,
        Ok(_) => Answer::error("version", "this server speaks version 1 of the control protocol"),
        Err(_) => Answer::error(
            "unknown_command",
            "this server does not know that command; use its own `portcullis`",
        ),
    };
    let mut line = serde_json::to_string(&Envelope { v: 1, body: answer })?;
    line.push('\n');
    writer.write_all(line.as_bytes()).await?;
    Ok(())
}

async fn execute(request: Request, uid: u32, authz: &Authz, db: &Db) -> Answer {
    match request {
        Request::SetupLink => {
            let authz = authz.clone();
            match db.write(move |tx| authz.setup_link(tx, uid)).await {
                Ok(Some(link)) => Answer::Ok(serde_json::json!({ "setup_link": link })),
                Ok(None) => {
                    Answer::error("admin_exists", "there is an administrator already; sign in instead")
                }
                Err(fault) => Answer::error("unavailable", &fault.to_string()),
            }
        }
    }
}

/// Sends a command to the server that runs on a data directory.
///
/// # Errors
/// If none runs there, or it refuses.
pub async fn ask(dir: &Path, request: Request) -> anyhow::Result<serde_json::Value> {
    let nobody = || format!("no server runs on {}; start it with `portcullis serve`", dir.display());
    let (_handle, path) = short_path(dir).with_context(nobody)?;
    let stream = UnixStream::connect(&path).await.with_context(nobody)?;
    let (reader, mut writer) = stream.into_split();
    let mut line = serde_json::to_string(&Envelope { v: 1, body: request })?;
    line.push('\n');
    writer.write_all(line.as_bytes()).await?;
    let mut answer = String::new();
    let mut reader = BufReader::new(reader.take(LONGEST));
    tokio::time::timeout(PATIENCE, reader.read_line(&mut answer))
        .await
        .context("the server did not answer")??;
    match serde_json::from_str::<Envelope<Answer>>(&answer)
        .context("the server's answer makes no sense")?
        .body
    {
        Answer::Ok(value) => Ok(value),
        Answer::Error { message, .. } => bail!(message),
    }
}
