//! The control socket: commands for a running server, guarded by file permissions (ADMIN-05).
//!
//! One line of JSON each way: `{"v":1,"command":"setup-link"}` is answered with
//! `{"v":1,"ok":{…}}` or `{"v":1,"error":{"code":…,"message":…}}`.

pub mod access;
pub mod audit;
mod client_documents;
pub mod clients;
pub mod clock;
pub mod keys;
pub mod policy;
pub mod registration_tokens;
pub mod resource_servers;

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::keys::Checkpoints;
use anyhow::{Context, bail};
use authz::Authz;
use authz::client_documents::Command;
use authz::people::{self, Person, passkeys};
use resource::catalogue::BuiltIn;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::audit::{self as log, Event, Name};
use shared::{Clock, Db, Fault, Tx};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

const NAME: &str = "control.sock";
/// The longest line either side reads.
const LONGEST: u64 = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// A command for whoever holds the data directory: a running server, or the command itself.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// A new link for the first administrator.
    SetupLink,
    UserAdd {
        name: String,
        groups: Vec<String>,
    },
    UserList,
    UserShow {
        user: String,
    },
    UserLink {
        user: String,
    },
    UserDisable {
        user: String,
    },
    UserEnable {
        user: String,
    },
    UserDelete {
        user: String,
    },
    UserGroups {
        user: String,
        add: Vec<String>,
        remove: Vec<String>,
    },
    UserRole {
        user: String,
        admin: bool,
    },
    UserPasskeys {
        user: String,
    },
    UserPasskeyRemove {
        user: String,
        passkey: String,
        stolen: bool,
    },
    UserPasskeyUnsuspend {
        user: String,
        passkey: String,
    },
    GroupList,
    Client(clients::Request),
    PolicyCheck(policy::Request),
    Key(keys::Request),
    Clock(clock::Request),
    Audit(audit::Request),
    ResourceServer(resource_servers::Request),
    Access(access::Request),
    ClientDocument(Command),
    RegistrationToken(registration_tokens::Request),
    /// A copy was made; it ends there.
    Backup {
        file: String,
        seq: i64,
        hash: String,
    },
}

impl Request {
    /// How long the server's answer is waited for. Whoever locks everything down must hear that it is done, also where
    /// the writer has much to do.
    fn patience(&self) -> Duration {
        match self {
            Self::Access(access::Request::Lockdown) => 12 * PATIENCE,
            _ => PATIENCE,
        }
    }
}

/// Where commands are done: a running server's parts, or those of a command that holds the data directory.
#[derive(Clone)]
pub(crate) struct Place {
    pub authz: Authz,
    pub db: Db,
    pub catalogue: BuiltIn,
    pub checkpoints: Checkpoints,
}

/// The parts of a gateway alone that commands are about.
#[derive(Clone)]
pub(crate) struct Gateway {
    pub clock: Clock,
    pub db: Db,
}

/// Who has commands done.
#[derive(Clone)]
pub(crate) enum Performer {
    /// What has people, clients and keys.
    Server(Place),
    Gateway(Gateway),
}

impl Performer {
    /// Has a command done: for the running process, and for a command that holds the data directory itself.
    pub(crate) async fn perform(&self, uid: u32, request: Request) -> Result<Answer, Fault> {
        match (self, request) {
            (Self::Server(place), request) => perform(place, uid, request).await,
            (Self::Gateway(gateway), Request::Clock(request)) => {
                clock::perform_at_gateway(gateway, uid, request).await
            }
            (Self::Gateway(_), _) => Ok(Answer::error(
                "unknown_command",
                "this is a gateway alone: it has no people, clients or keys. Run the command where the authorization server is",
            )),
        }
    }
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
    Ok(Value),
    Error { code: String, message: String },
}

impl Answer {
    fn refused(refusal: &people::Refusal) -> Self {
        Self::error("refused", &refusal.to_string())
    }

    /// The value, or the refusal as an error.
    ///
    /// # Errors
    /// The refusal's own words.
    pub(crate) fn into_result(self) -> anyhow::Result<Value> {
        match self {
            Self::Ok(value) => Ok(value),
            Self::Error { message, .. } => bail!(message),
        }
    }

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
pub(crate) async fn serve(listener: UnixListener, performer: Performer, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let performer = performer.clone();
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &performer).await {
                tracing::warn!(control.error = %error, "a command was not answered");
            }
        });
    }
}

async fn converse(stream: UnixStream, performer: &Performer) -> anyhow::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(LONGEST));
    tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await.context("the request was empty")??;
    let answer = match serde_json::from_str::<Envelope<Request>>(&line) {
        Ok(Envelope { v: 1, body }) => {
            let executed = performer.perform(uid, body).await;
            executed.unwrap_or_else(|fault| Answer::error("unavailable", &fault.to_string()))
        }
        Ok(_) => Answer::error("version", "this server uses version 1 of the control protocol"),
        Err(_) => Answer::error(
            "unknown_command",
            "this server does not know that command; use the `portcullis` program of the same version",
        ),
    };
    let mut line = serde_json::to_string(&Envelope { v: 1, body: answer })?;
    line.push('\n');
    tokio::time::timeout(PATIENCE, writer.write_all(line.as_bytes())).await.context("nobody listened")??;
    Ok(())
}

async fn perform(place: &Place, uid: u32, request: Request) -> Result<Answer, Fault> {
    let Place { authz, db, checkpoints, .. } = place;
    match request {
        Request::Key(request) => keys::perform(authz, db, uid, request).await,
        Request::Clock(request) => clock::perform(authz, db, uid, request).await,
        Request::Access(request) => access::perform(authz, db, uid, request).await,
        Request::Audit(request) => audit::perform(checkpoints, db, uid, request).await,
        request => {
            let place = place.clone();
            db.write(move |tx| execute(&place, tx, uid, request)).await
        }
    }
}

/// Does what takes a moment on a thread that may.
async fn blocking<T: Send + 'static>(
    authz: &Authz,
    work: impl FnOnce(&Authz) -> T + Send + 'static,
) -> Result<T, Fault> {
    let authz = authz.clone();
    let done = tokio::task::spawn_blocking(move || work(&authz)).await;
    done.map_err(|error| Fault::Storage(error.to_string()))
}

/// Does what a command asks, in one transaction: for the running server, and for a command that holds the
/// data directory itself. A refusal commits nothing.
fn execute(place: &Place, tx: &Tx<'_>, uid: u32, request: Request) -> Result<Answer, Fault> {
    let authz = &place.authz;
    let person = |answer: Result<Person, people::Refusal>| match answer {
        Ok(person) => Answer::Ok(json!({ "user": person })),
        Err(refusal) => Answer::refused(&refusal),
    };
    Ok(match request {
        Request::SetupLink => match authz.way_in(tx, uid)? {
            Ok(way_in) => Answer::Ok(json!({ "setup_link": way_in.link, "user": way_in.user })),
            Err(instead) => Answer::error("admin_exists", &instead.to_string()),
        },
        Request::UserAdd { name, groups } => match people::add(authz, tx, uid, &name, &groups)? {
            Ok((person, link)) => Answer::Ok(json!({ "user": person, "link": link })),
            Err(refusal) => Answer::refused(&refusal),
        },
        Request::UserList => Answer::Ok(json!({ "users": people::list(authz, tx)? })),
        Request::UserShow { user } => person(people::show(authz, tx, &user)?),
        Request::UserLink { user } => match people::link(authz, tx, uid, &user)? {
            Ok(link) => Answer::Ok(json!({ "link": link })),
            Err(refusal) => Answer::refused(&refusal),
        },
        Request::UserDisable { user } => person(people::disable(authz, tx, uid, &user)?),
        Request::UserEnable { user } => person(people::enable(authz, tx, uid, &user)?),
        Request::UserDelete { user } => person(people::delete(authz, tx, uid, &user)?),
        Request::UserGroups { user, add, remove } => {
            person(people::regroup(authz, tx, uid, &user, &add, &remove)?)
        }
        Request::UserRole { user, admin } => person(passkeys::role(authz, tx, uid, &user, admin)?),
        Request::UserPasskeys { user } => match passkeys::list(tx, &user)? {
            Ok(passkeys) => Answer::Ok(json!({ "passkeys": passkeys })),
            Err(refusal) => Answer::refused(&refusal),
        },
        Request::UserPasskeyRemove { user, passkey, stolen } => {
            person(passkeys::remove(authz, tx, uid, &user, &passkey, stolen)?)
        }
        Request::UserPasskeyUnsuspend { user, passkey } => {
            person(passkeys::unsuspend(authz, tx, uid, &user, &passkey)?)
        }
        Request::GroupList => Answer::Ok(json!({ "groups": people::groups(authz, tx)? })),
        Request::ClientDocument(command) => client_documents::execute(authz, tx, uid, command)?,
        Request::Client(request) => clients::execute(authz, tx, uid, request)?,
        Request::PolicyCheck(request) => policy::execute(authz, &place.catalogue, tx, &request)?,
        // More than a transaction: `perform` has them done.
        Request::Key(_) | Request::Clock(_) | Request::Access(_) | Request::Audit(_) => {
            Answer::error("unknown_command", "this is done elsewhere")
        }
        Request::ResourceServer(request) => resource_servers::execute(authz, tx, uid, request)?,
        Request::RegistrationToken(request) => registration_tokens::execute(authz, tx, uid, request)?,
        Request::Backup { file, seq, hash } => {
            let event = Event::allowed(Name::BackupCreated).by_console(uid);
            log::append(tx, event.detail("file", file).detail("seq", seq).detail("hash", hash))?;
            Answer::Ok(json!({}))
        }
    })
}

/// Sends a command to the server that runs on a data directory; `None` if none answers there.
///
/// # Errors
/// If the server breaks off, or does not answer in time. Nothing is known then, and the error says where it can be read.
pub(crate) async fn ask(dir: &Path, request: &Request) -> anyhow::Result<Option<Answer>> {
    let Ok((_handle, path)) = short_path(dir) else { return Ok(None) };
    let Ok(stream) = UnixStream::connect(&path).await else { return Ok(None) };
    let (reader, mut writer) = stream.into_split();
    let mut line = serde_json::to_string(&Envelope { v: 1, body: request })?;
    line.push('\n');
    writer.write_all(line.as_bytes()).await?;
    let mut answer = String::new();
    let mut reader = BufReader::new(reader.take(LONGEST));
    let patience = request.patience();
    let read = tokio::time::timeout(patience, reader.read_line(&mut answer)).await;
    let read = read.with_context(|| {
        format!(
            "the server has not answered for {} seconds. The command may still run, or have run: `portcullis audit tail` shows what was done",
            patience.as_secs()
        )
    })?;
    if read? == 0 {
        bail!(
            "the server stopped before it answered. The command may have run: `portcullis audit tail` shows what was done"
        );
    }
    let answer =
        serde_json::from_str::<Envelope<Answer>>(&answer).context("the server's answer could not be read")?;
    Ok(Some(answer.body))
}
