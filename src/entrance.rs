//! The way in, as it was configured: TLS, or proxies that speak it, or the loopback interface (HTTP-01).

use std::sync::Arc;

use shared::{Clock, Db, Issuer};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Protection};
use crate::proxies::Proxies;
use crate::serve::Options;
use crate::tls::Tls;

/// The way in.
pub(crate) struct Entrance {
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) proxies: Proxies,
    pub(crate) protection: Protection,
    /// Told to read the certificate anew.
    pub(crate) reload: Arc<Notify>,
}

impl Entrance {
    /// Opens it, and says under which name.
    ///
    /// # Errors
    /// If the issuer does not fit, or the certificate cannot be used.
    pub(crate) fn open(options: &Options, port: u16, clock: &Clock) -> anyhow::Result<(Self, Issuer)> {
        let protection = Protection::of(options.tls.is_some(), &options.proxies);
        let issuer = config::issuer(options.issuer.as_deref(), options.listen, port, protection)?;
        let tls = match options.tls.clone() {
            Some(files) => Some(Arc::new(Tls::open(files, issuer.host(), clock)?)),
            None => None,
        };
        let proxies = options.proxies.clone();
        Ok((Self { tls, proxies, protection, reload: Arc::default() }, issuer))
    }

    /// Takes up new certificates until `stop`.
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
