//! The way in, as it was configured: TLS, or proxies that speak it, or the loopback interface (HTTP-01).

use std::sync::Arc;

use shared::{Clock, Db, Issuer};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Listen, Protection};
use crate::front::listen::Budget;
use crate::front::proxies::Proxies;
use crate::front::tls::{Files, Tls};

/// The way in, as it was configured.
pub(crate) struct Way<'o> {
    /// What the configuration calls the address: `issuer`, or `origin`.
    pub(crate) called: &'static str,
    pub(crate) address: Option<&'o str>,
    pub(crate) listen: Listen,
    pub(crate) tls: Option<Files>,
    pub(crate) proxies: &'o Proxies,
    pub(crate) memory: Budget,
}

/// The way in.
pub(crate) struct Entrance {
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) proxies: Proxies,
    pub(crate) protection: Protection,
    /// How much memory connections may hold.
    pub(crate) memory: Budget,
    /// Told to read the certificate anew.
    pub(crate) reload: Arc<Notify>,
}

impl Entrance {
    /// Opens it, and says under which name.
    ///
    /// # Errors
    /// If the address does not fit, or the certificate cannot be used.
    pub(crate) fn open(way: Way<'_>, port: u16, clock: &Clock) -> anyhow::Result<(Self, Issuer)> {
        let protection = Protection::of(way.tls.is_some(), way.proxies);
        let issuer = config::address(way.called, way.address, way.listen, port, protection)?;
        let tls = match way.tls {
            Some(files) => Some(Arc::new(Tls::open(files, issuer.host(), clock)?)),
            None => None,
        };
        let proxies = way.proxies.clone();
        Ok((Self { tls, proxies, protection, memory: way.memory, reload: Arc::default() }, issuer))
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
