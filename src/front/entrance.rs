//! How clients connect, as configured: TLS, proxies that speak it, or loopback (HTTP-01).

use std::sync::Arc;

use shared::{Clock, Db, Issuer};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::address::{Protection, address};
use super::config::Config;
use super::tls::Tls;

/// The connection settings in use.
pub(crate) struct Entrance {
    pub(crate) config: Config,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) protection: Protection,
    /// The address that people open.
    pub(crate) address: Issuer,
    /// Notified to read the certificate again.
    pub(crate) reload: Arc<Notify>,
}

impl Entrance {
    /// Opens it on a bound port, and returns the server's address: the configured `issuer`, or `origin` for a
    /// gateway alone. `called` is the name of that key.
    ///
    /// # Errors
    /// If the address does not match, or the certificate cannot be used.
    pub(crate) fn open(
        config: &Config,
        called: &str,
        configured: Option<&str>,
        port: u16,
        clock: &Clock,
    ) -> anyhow::Result<(Self, Issuer)> {
        let protection = config.protection();
        let issuer = address(called, configured, config.listen()?, port, protection)?;
        let tls = match config.tls()? {
            Some(files) => Some(Arc::new(Tls::open(files, issuer.host(), clock)?)),
            None => None,
        };
        let entrance =
            Self { config: config.clone(), tls, protection, address: issuer.clone(), reload: Arc::default() };
        Ok((entrance, issuer))
    }

    /// Applies new certificates until `stop`.
    pub(crate) fn watch(
        &self,
        clock: Clock,
        db: Db,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (tls, reload) = (self.tls.clone(), Arc::clone(&self.reload));
        async move {
            if let Some(tls) = tls {
                tls.watch(clock, db, reload, stop).await;
            }
        }
    }
}
