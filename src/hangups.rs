//! SIGHUP.

use std::sync::{Arc, OnceLock};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// Handles SIGHUP: reads the configuration again (POL-04), and the certificate if there is one (OPS-08). It
/// never ends the server: service managers and log rotation send it to running processes.
pub(crate) struct Hangups {
    configuration: Arc<OnceLock<Arc<Notify>>>,
    certificate: Arc<OnceLock<Arc<Notify>>>,
}

impl Hangups {
    /// Installs the handler, for as long as the process runs.
    pub(crate) fn hear() -> anyhow::Result<Self> {
        let mut hangup = signal(SignalKind::hangup())?;
        let heard = Self { configuration: Arc::default(), certificate: Arc::default() };
        let told = [Arc::clone(&heard.configuration), Arc::clone(&heard.certificate)];
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                for told in told.iter().filter_map(|told| told.get()) {
                    told.notify_one();
                }
            }
        });
        Ok(heard)
    }

    /// Notifies this on SIGHUP, once the server follows the configuration.
    pub(crate) fn reconfigure(&self, reconfigure: Arc<Notify>) {
        let _ = self.configuration.set(reconfigure);
    }

    /// Notifies this on SIGHUP, once there is a certificate.
    pub(crate) fn reload(&self, reload: Arc<Notify>) {
        let _ = self.certificate.set(reload);
    }
}
