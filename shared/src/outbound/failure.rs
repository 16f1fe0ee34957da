//! What can go wrong on the way to another host. Whether the request had left decides what may be done next: only what
//! was not sent may always be sent again (SRC-08).

use std::net::IpAddr;

use crate::tls::TlsError;

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// The other side cannot have read the request.
    #[error(transparent)]
    NotSent(#[from] NotSent),
    /// The request left, and no complete answer came.
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
}

/// Why a request did not leave.
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
    #[error("no connection was made in time")]
    TooSlow,
    #[error("the request cannot be written: {0}")]
    Unwritable(String),
}

/// Why a request that left has no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error("its answer is not HTTP, is too long, or broke off: {0}")]
    Broken(String),
    /// With the size, as far as it is known.
    #[error("its answer has {0} bytes or more, which is too long")]
    TooLarge(usize),
    #[error("its answer did not come in time")]
    TooSlow,
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
