//! An endpoint that clients post forms to (RFC 6749 §3.2): it reads one form, answers it in one job of the writer, and
//! puts what it refuses on record.

use http::HeaderMap;
use shared::audit::{Event, Name};
use shared::{Fault, Request, Tx};

use crate::Authz;
use crate::client_auth::Authorization;
use crate::error::{Code, OAuthError};
use crate::form::{self, Params};

/// An endpoint, by what its refusals are called on record (AUDIT-06).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoint {
    pub refused: Name,
}

/// Why an endpoint refuses. What the client is told is less than what is on record.
pub(crate) trait Refusal: Copy + Send + 'static {
    fn wire(self) -> OAuthError;
}

/// How a request ended.
pub(crate) struct Settled<T, R> {
    pub answer: Result<T, R>,
    /// What is to be put on record, in its quota, of a request that changed nothing.
    pub unrecorded: Option<Event>,
}

/// OPS-04: a token of a time that has been, or is yet to come, would be good for too long or not at all.
/// Nothing is spent, so that the same request works when the clock is right again.
const PAUSED: OAuthError = OAuthError {
    code: Code::TemporarilyUnavailable,
    description: "the server's clock was set back; no tokens are issued until it is corrected",
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

    /// The form of a request, and what its header says of who sent it (TOKEN-01, TOKEN-04).
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

    /// The answer to a request, which is one job of the writer. A refusal of it commits; the record of what changed
    /// nothing follows.
    pub(crate) async fn answer<T: Send + 'static, R: Refusal>(
        self,
        authz: &Authz,
        job: impl FnOnce(&Tx<'_>) -> Result<Settled<T, R>, Fault> + Send + 'static,
    ) -> Result<T, OAuthError> {
        let settled = authz.db.write(job).await?;
        self.settled(authz, settled).await
    }

    /// The same for a request that has something issued: the job asks again whether anything is issued now (OPS-04).
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
        answer.map_err(R::wire)
    }

    async fn record(self, authz: &Authz, request: &Request, reason: &str) -> Result<(), Fault> {
        let event = Event::denied(self.refused, reason).request(request);
        authz.refusals.record(&authz.db, event).await
    }
}
