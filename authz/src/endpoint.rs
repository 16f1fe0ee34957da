//! An endpoint that clients post forms to (RFC 6749 §3.2): reads one form, answers it in one job of the writer,
//! and records refusals.

use std::borrow::Cow;

use http::HeaderMap;
use shared::audit::{Event, Name};
use shared::{Fault, Request, Tx};

use crate::Authz;
use crate::client_auth::Authorization;
use crate::error::{Code, OAuthError};
use crate::form::{self, Params};

/// An endpoint, with the audit event of its refusals (AUDIT-06).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoint {
    pub refused: Name,
}

/// Why an endpoint refuses. The client gets fewer details than the audit log.
pub(crate) trait Refusal: Copy + Send + 'static {
    fn wire(self, authz: &Authz) -> OAuthError;
}

/// The result of a request.
pub(crate) struct Settled<T, R> {
    pub answer: Result<T, R>,
    /// A record, subject to a quota, for a request that changed nothing.
    pub unrecorded: Option<Event>,
}

/// OPS-04: the clock is behind, so new tokens would have a wrong lifetime. Nothing is used up, so the same
/// request works once the clock is right.
const PAUSED: OAuthError = OAuthError {
    code: Code::TemporarilyUnavailable,
    description: Cow::Borrowed("the server's clock was set back; no tokens are issued until it is corrected"),
};

impl Endpoint {
    /// Refuses everything while the clock is behind (OPS-04).
    pub(crate) async fn unless_paused(self, authz: &Authz, request: &Request) -> Result<(), OAuthError> {
        if authz.clock.is_behind() {
            self.record(authz, request, "clock_behind").await?;
            return Err(PAUSED);
        }
        Ok(())
    }

    /// Reads the form and the `Authorization` header (TOKEN-01, TOKEN-04).
    pub(crate) async fn read(
        self,
        authz: &Authz,
        request: &Request,
        query: Option<&str>,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(Params, Authorization), OAuthError> {
        match form::read(query, headers, body) {
            Ok(params) => Ok((params, Authorization::of(headers))),
            Err(error) => {
                self.record(authz, request, "malformed").await?;
                Err(error)
            }
        }
    }

    /// Answers a request in one job of the writer. A refusal commits; the record of a request that changed
    /// nothing is written afterwards.
    pub(crate) async fn answer<T: Send + 'static, R: Refusal>(
        self,
        authz: &Authz,
        job: impl FnOnce(&Tx<'_>) -> Result<Settled<T, R>, Fault> + Send + 'static,
    ) -> Result<T, OAuthError> {
        let settled = authz.db.write(job).await?;
        self.settled(authz, settled).await
    }

    /// Like [`Self::answer`], for requests that issue something: the job checks again that issuing is not
    /// paused (OPS-04).
    pub(crate) async fn issue<T: Send + 'static, R: Refusal>(
        self,
        authz: &Authz,
        request: &Request,
        job: impl FnOnce(&Tx<'_>) -> Result<Settled<T, R>, Fault> + Send + 'static,
    ) -> Result<T, OAuthError> {
        let clock = authz.clock.clone();
        let issued = move |tx: &Tx<'_>| if clock.is_behind() { Ok(None) } else { job(tx).map(Some) };
        if let Some(settled) = authz.db.write(issued).await? {
            return self.settled(authz, settled).await;
        }
        self.record(authz, request, "clock_behind").await?;
        Err(PAUSED)
    }

    async fn settled<T, R: Refusal>(self, authz: &Authz, settled: Settled<T, R>) -> Result<T, OAuthError> {
        let Settled { answer, unrecorded } = settled;
        if let Some(event) = unrecorded {
            authz.refusals.record(&authz.db, event).await?;
        }
        answer.map_err(|refusal| refusal.wire(authz))
    }

    async fn record(self, authz: &Authz, request: &Request, reason: &str) -> Result<(), Fault> {
        let event = Event::denied(self.refused, reason).request(request);
        authz.refusals.record(&authz.db, event).await
    }
}
