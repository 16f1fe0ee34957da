//! A connection, with a role that was checked before anything is run.

use shared::outbound::dial::{StartTls, dial};
use shared::{Digest, outbound};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::{Client, Config, NoTls};
use tokio_util::task::AbortOnDropHandle;

use super::metered::{Allowance, Metered};
use super::{PostgresServer, role, words};

/// `SSLRequest`, and the agreement (PostgreSQL's protocol, SSL session encryption).
const SSL: StartTls = StartTls { request: &[0, 0, 0, 8, 4, 210, 22, 47], agreed: b'S' };

/// A connection. Dropping it closes it.
pub(super) struct Connection {
    pub(super) client: Client,
    allowance: Allowance,
    password: Option<Digest>,
    _task: AbortOnDropHandle<()>,
}

impl Connection {
    /// # Errors
    /// Why it cannot be used, in words for administrators.
    pub(super) async fn open(
        server: &PostgresServer,
        password: Option<&str>,
        deadline: Instant,
    ) -> Result<Self, String> {
        let stream = dial(&server.destination, SSL, deadline).await;
        let stream = stream.map_err(|why: outbound::NotSent| why.to_string())?;
        let (stream, allowance) = Metered::around(stream);
        let mut config = Config::new();
        config.user(&server.user).dbname(&server.database).application_name("portcullis");
        config.ssl_mode(tokio_postgres::config::SslMode::Disable);
        if let Some(password) = password {
            config.password(password);
        }
        let opened = timeout_at(deadline, config.connect_raw(stream, NoTls)).await;
        let opened = opened.map_err(|_| "no connection was made in time".to_owned())?;
        let (client, connection) = opened.map_err(|error| words(&error))?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(sql.error = %error, "a connection to a database ended");
            }
        });
        let task = AbortOnDropHandle::new(task);
        let checked = timeout_at(deadline, role::check(&client)).await;
        checked.map_err(|_| "its role could not be checked in time".to_owned())??;
        let password = password.map(|password| Digest::of(password.as_bytes()));
        Ok(Self { client, allowance, password, _task: task })
    }

    pub(super) fn is_open(&self) -> bool {
        !self.client.is_closed()
    }

    /// Whether it was made with this password.
    pub(super) fn is_with(&self, password: Option<&str>) -> bool {
        self.password == password.map(|password| Digest::of(password.as_bytes()))
    }

    /// Begins to count again how much may arrive.
    pub(super) fn allow(&self) {
        self.allowance.renew();
    }

    /// Whether more arrived than may.
    pub(super) fn is_spent(&self) -> bool {
        self.allowance.is_spent()
    }

    /// Ends what the last call left in the session; returns whether that worked.
    pub(super) async fn clean(&mut self) -> bool {
        self.allow();
        self.is_open() && self.client.batch_execute("DISCARD ALL").await.is_ok()
    }
}
