//! Requests to the authorization server's origin only: over TLS verified against the site's certificate
//! authorities, or plain on this computer (OPS-01, OPS-08).

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use shared::Issuer;
use shared::outbound::{self, Destination, Failure, Outbound, Outgoing, Security, Trust};
use tokio::time::{Instant, timeout};

/// The time limit of a request, including connecting.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest response in bytes.
const LARGEST: usize = 256 * 1024;

/// A client for one origin.
pub(super) struct Origin(Outbound);

/// A response.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why there is no response, for the log. The caller learns only that a retry may succeed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error(transparent)]
    Failed(#[from] Failure),
    #[error("it took longer than 5 seconds")]
    TooSlow,
}

impl NoAnswer {
    /// Whether only this answer is bad, and the server is well.
    pub(super) fn is_of_this_answer(&self) -> bool {
        matches!(self, Self::Failed(Failure::NoAnswer(outbound::NoAnswer::TooLarge(_))))
    }
}

impl Origin {
    pub(super) fn new(issuer: &Issuer, ca: Option<PathBuf>) -> Self {
        let authority = issuer.as_str().split_once("://").map_or("", |(_, authority)| authority);
        let security =
            if issuer.is_loopback() { Security::Plain } else { Security::Tls(Trust { ca, identity: None }) };
        Self(Outbound::new(Destination {
            host: issuer.host().to_owned(),
            port: issuer.port(),
            authority: authority.to_owned(),
            security,
            networks: Vec::new(),
        }))
    }

    /// `GET` of a path.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, NoAnswer> {
        self.send(Outgoing::get(path)).await
    }

    /// `POST` of a form, authenticated.
    pub(super) async fn post(
        &self,
        path: &str,
        authorization: &HeaderValue,
        form: String,
    ) -> Result<Answer, NoAnswer> {
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        let headers = [(header::AUTHORIZATION, authorization.clone()), (header::CONTENT_TYPE, form_type)];
        // All requests only read, so they can be repeated.
        self.send(Outgoing {
            method: Method::POST,
            headers: headers.into_iter().collect(),
            body: form.into(),
            ..Outgoing::get(path)
        })
        .await
    }

    async fn send(&self, mut outgoing: Outgoing) -> Result<Answer, NoAnswer> {
        outgoing.headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let all = async {
            let answer = self.0.send(&outgoing, Instant::now() + PATIENCE).await?;
            let body = answer.body.read(LARGEST).await.map_err(Failure::from)?;
            Ok(Answer { status: answer.status, headers: answer.headers, body })
        };
        timeout(PATIENCE, all).await.map_err(|_| NoAnswer::TooSlow)?
    }
}
