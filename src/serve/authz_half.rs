//! The authorization server in a running server: its start, its background tasks, its end.

use std::sync::Arc;
use std::time::Duration;

use authz::clients::configuration::Configured;
use authz::{Authz, Status};
use axum::response::Response;
use http::StatusCode;
use keys::{Checkpoints, Keys};
use resource::catalogue::BuiltIn;
use shared::audit::{self, Event, Name};
use shared::{Db, Tx};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::base::{Base, Store};
use crate::commands::frame::Authority;
use crate::front::http::ErrorPages;
use crate::{checkpoints, rotation};

/// Interval between sweeps of unused rows.
const SWEEP: Duration = Duration::from_hours(1);

pub(super) struct AuthzHalf {
    pub(super) authz: Authz,
    pub(super) status: Arc<Status>,
    pub(super) keys: Keys,
    checkpoints: Checkpoints,
}

/// What the administrator is told when the server starts.
#[derive(Default)]
pub(super) struct StartNotice {
    /// The link for the first administrator.
    pub(super) setup_link: Option<String>,
    /// Whether there are administrators, but none can sign in.
    pub(super) locked_out: bool,
}

impl AuthzHalf {
    /// Takes the authorization server out of an opened data directory.
    pub(super) fn of(base: Base) -> (Self, Store) {
        let Base { store, authz, status, keys, checkpoints } = base;
        (Self { authz, status, keys, checkpoints }, store)
    }

    /// Brings the database to what is configured, and records the start.
    pub(super) async fn begin(&self, db: &Db, clients: Vec<Configured>) -> anyhow::Result<StartNotice> {
        let (authz, uid) = (self.authz.clone(), rustix::process::getuid().as_raw());
        let started = move |tx: &Tx<'_>| {
            if let Err(obstacle) = authz.follow_configuration(tx, &clients)? {
                return Ok(Err(obstacle));
            }
            audit::append(tx, Event::allowed(Name::ServerStart).by_console(uid))?;
            authz.reconcile(tx)?;
            Ok(Ok(StartNotice {
                setup_link: authz.setup_link(tx, uid)?,
                locked_out: authz.is_locked_out(tx)?,
            }))
        };
        Ok(db.write(started).await??)
    }

    /// Starts its background tasks, which run until `stop`.
    pub(super) fn keep(&self, tasks: &mut JoinSet<()>, stop: &CancellationToken) {
        tasks.spawn(sweep(self.authz.clone(), stop.clone()));
        tasks.spawn(rotation::keep(self.keys.clone(), stop.clone()));
        tasks.spawn(checkpoints::keep(self.checkpoints.clone(), stop.clone()));
    }

    /// Signs the records that a killed process left unsigned. Blocks.
    pub(super) fn cover(&self) -> anyhow::Result<()> {
        Ok(self.checkpoints.cover()?)
    }

    /// Signs the end of the audit log. Blocks.
    pub(super) fn end(&self) {
        if let Err(error) = self.checkpoints.cover() {
            tracing::error!(audit.error = %error, "the end of the audit log was not signed");
        }
    }

    /// The parts that commands need.
    pub(super) fn authority(&self, catalogue: &BuiltIn) -> Authority {
        let (authz, checkpoints) = (self.authz.clone(), self.checkpoints.clone());
        Authority { authz, catalogue: catalogue.clone(), checkpoints }
    }
}

impl ErrorPages for Authz {
    fn page(&self, status: StatusCode, asked: &shared::Request) -> Option<Response> {
        match status {
            StatusCode::BAD_REQUEST => Some(self.unreadable(asked)),
            StatusCode::NOT_FOUND => Some(self.not_found(asked)),
            StatusCode::INTERNAL_SERVER_ERROR => Some(self.broken(asked)),
            _ => None,
        }
    }
}

/// Deletes unused rows.
async fn sweep(authz: Authz, stop: CancellationToken) {
    loop {
        authz.sweep().await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SWEEP) => {}
        }
    }
}
