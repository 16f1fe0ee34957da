//! TLS in the process (HTTP-01): the certificate, the protocols, and new certificates without a restart
//! (OPS-08).

mod identity;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use openssl::ssl::Ssl;
use shared::audit::{self, Event, Name};
use shared::{Clock, Db};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_openssl::SslStream;
use tokio_util::sync::CancellationToken;

pub(crate) use identity::{Expiry, Identity};

/// How often the files are checked for changes, with two calls of `stat`.
const LOOK: Duration = Duration::from_secs(2);

/// The certificate and key files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files {
    /// PEM: the server's certificate and its chain.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}

/// A fingerprint of the files. It is read before the files, so that a change meanwhile is noticed next time.
type Stamp = [Option<(u64, u64, i64, i64, u64)>; 2];

impl Files {
    fn stamp(&self) -> Stamp {
        [&self.certificate, &self.key].map(|path| stamp(path).ok())
    }
}

fn stamp(path: &Path) -> io::Result<(u64, u64, i64, i64, u64)> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.size()))
}

/// The TLS settings of connections. They can change while the server runs.
pub(crate) struct Tls {
    files: Files,
    host: String,
    current: ArcSwap<Identity>,
}

impl Tls {
    /// Loads certificate and key, for the issuer's host.
    ///
    /// # Errors
    /// What is wrong with them, in one line.
    pub(crate) fn open(files: Files, host: &str, clock: &Clock) -> anyhow::Result<Self> {
        let identity = Identity::load(&files, clock.now())?;
        identity.warn_of_names(host);
        Ok(Self { files, host: host.to_owned(), current: ArcSwap::from_pointee(identity) })
    }

    /// Runs the handshake with a client.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<SslStream<TcpStream>> {
        let ssl = Ssl::new(self.current.load().context())?;
        let mut stream = SslStream::new(ssl, stream)?;
        Pin::new(&mut stream).accept().await.map_err(io::Error::other)?;
        Ok(stream)
    }

    /// Applies new files when they change or on demand, and warns before the certificate expires. Until `stop`.
    pub(crate) async fn watch(&self, clock: Clock, db: Db, told: Arc<Notify>, stop: CancellationToken) {
        let mut seen = self.files.stamp();
        let mut said = Expiry::FarOff;
        loop {
            said = self.remind(&clock, said);
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                () = told.notified() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            let now = self.files.stamp();
            if asked || now != seen {
                seen = now;
                if self.reload(&clock, &db).await {
                    said = Expiry::FarOff;
                }
            }
        }
    }

    /// An unusable pair changes nothing: the current one stays.
    async fn reload(&self, clock: &Clock, db: &Db) -> bool {
        let identity = match Identity::load(&self.files, clock.now()) {
            Ok(identity) => identity,
            Err(error) => {
                tracing::error!(
                    tls.error = format!("{error:#}"),
                    "the new TLS certificate cannot be used; the previous one stays in use"
                );
                return false;
            }
        };
        identity.warn_of_names(&self.host);
        if identity.digest() == self.current.load().digest() {
            tracing::info!("the TLS certificate is the one in use already");
            self.current.store(Arc::new(identity));
            return true;
        }
        let event = Event::allowed(Name::ServerConfigChanged)
            .by_server()
            .detail("changed", "tls_certificate")
            .detail("before", self.current.load().digest())
            .detail("after", identity.digest())
            .detail("not_after", identity.not_after().to_string());
        // Without the record nothing changes (AUDIT-04).
        if let Err(fault) = db.write(move |tx| audit::append(tx, event)).await {
            tracing::error!(db.fault = %fault, "the new TLS certificate could not be recorded, so it is not used");
            return false;
        }
        tracing::info!(
            tls.certificate = identity.digest(),
            tls.not_after = %identity.not_after(),
            "the TLS certificate was read"
        );
        self.current.store(Arc::new(identity));
        true
    }

    /// Warns on each of the days before the expiry (OPS-08).
    fn remind(&self, clock: &Clock, said: Expiry) -> Expiry {
        let identity = self.current.load();
        let expiry = identity.expiry(clock.now());
        if expiry > said {
            let (not_after, words) = (identity.not_after(), expiry.words());
            if expiry >= Expiry::WithinADay {
                tracing::error!(tls.not_after = %not_after, "{words}");
            } else {
                tracing::warn!(tls.not_after = %not_after, "{words}");
            }
        }
        expiry.max(said)
    }
}
