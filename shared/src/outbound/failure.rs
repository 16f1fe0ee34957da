//! Failures of outbound requests. They say whether the request was sent, because only an unsent request may
//! always be repeated (SRC-08).

use std::net::IpAddr;

use crate::tls::TlsError;

/// Why there is no response.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// The other side cannot have read the request.
    #[error(transparent)]
    NotSent(#[from] NotSent),
    /// The request was sent, and no complete response arrived.
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
}

/// Why a request was not sent.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotSent {
    #[error("its name resolves to {0}, which is not in its allowed networks")]
    Address(IpAddr),
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("the CA certificates cannot be read: {0}")]
    TrustStore(String),
    #[error("the client certificate cannot be used: {0}")]
    Identity(String),
    #[error("its TLS certificate is not trusted: {0}")]
    Unproven(String),
    #[error(transparent)]
    Certificate(CertificateRefused),
    #[error("no connection was made in time")]
    TooSlow,
    #[error("the request cannot be written: {0}")]
    Unwritable(String),
}

/// Why a sent request has no response.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error("its answer is not HTTP, is too long, or broke off: {0}")]
    Broken(String),
    /// With the size, if it is known.
    #[error("its answer has {0} bytes or more, which is too long")]
    TooLarge(usize),
    #[error("its answer did not come in time")]
    TooSlow,
    #[error("this server has no memory left for its answer")]
    NoMemory,
    #[error(transparent)]
    Certificate(CertificateRefused),
}

/// What the other side wants to see of us before it talks (RFC 8446 §6.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CertificateRefused {
    #[error("it wants a client certificate, and none is configured for it")]
    Missing,
    #[error("it does not accept the client certificate")]
    Refused,
}

impl CertificateRefused {
    /// What an alert of the other side says, if that is why a connection ended.
    pub(super) fn of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let refusals = [
            "alert unknown ca",
            "alert bad certificate",
            "alert certificate unknown",
            "alert certificate expired",
            "alert certificate revoked",
            "alert unsupported certificate",
            "alert access denied",
        ];
        std::iter::successors(Some(error), |error| error.source()).find_map(|error| {
            let text = error.to_string();
            if text.contains("alert certificate required") {
                return Some(Self::Missing);
            }
            refusals.iter().any(|refusal| text.contains(refusal)).then_some(Self::Refused)
        })
    }
}

impl NotSent {
    pub(super) fn unreachable(error: &std::io::Error) -> Self {
        Self::Unreachable(error.to_string())
    }
}

impl NoAnswer {
    pub(super) fn broken(error: &hyper::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<TlsError> for NotSent {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::TrustStore(why) => Self::TrustStore(why),
            TlsError::Identity(why) => Self::Identity(why),
            TlsError::Unproven(why) => Self::Unproven(why),
            TlsError::Broken(why) => Self::Unreachable(why),
        }
    }
}
