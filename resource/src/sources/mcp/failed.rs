//! Failures of requests to upstreams.

use http::StatusCode;
use shared::outbound::{Failure, NoAnswer, NotSent};

use super::message::RpcError;

/// What went wrong. The caller knows whether the request had been sent (SRC-08).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error(transparent)]
    NotSent(#[from] NotSent),
    /// There is no program that could be asked.
    #[error("{0}")]
    Unavailable(String),
    /// It was sent, and no complete answer arrived.
    #[error("{0}")]
    Lost(String),
    #[error("its answer has {0} bytes or more, which is too long")]
    TooLarge(usize),
    #[error("this server has no memory left for its answer")]
    NoMemory,
    /// Another status than 200, with the JSON-RPC error if the body has one.
    #[error("it answered with HTTP {}{}", .0.status.as_u16(), .0.words())]
    Status(Box<Refusal>),
    /// The answer is not valid MCP.
    #[error("its answer is not MCP: {0}")]
    Unreadable(String),
    /// The session or the revision could not be negotiated.
    #[error("it did not answer within {0} seconds")]
    Silent(u64),
    #[error(
        "it speaks the HTTP+SSE transport, which streamable HTTP has replaced; write the address of its streamable HTTP endpoint as `url`"
    )]
    OldTransport,
}

/// An answer with another status than 200.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// The target of a redirect.
    pub(crate) location: Option<String>,
    pub(crate) error: Option<RpcError>,
    /// Whether the error answers this request, which the server has therefore read.
    pub(crate) ours: bool,
}

impl Failed {
    /// Whether the upstream refused what it was shown.
    pub(crate) fn is_of_credential(&self) -> bool {
        matches!(self, Self::Status(refusal) if matches!(refusal.status.as_u16(), 401 | 403))
    }
}

impl Refusal {
    fn words(&self) -> String {
        match (&self.location, &self.error) {
            (Some(location), _) => format!(" and redirects to {location}, which is not followed"),
            (None, Some(error)) => format!(": {}", shown(&error.message)),
            (None, None) if self.status == StatusCode::NOT_FOUND => "; check the path of `url`".to_owned(),
            (None, None) => String::new(),
        }
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSent(why) => Self::NotSent(why),
            Failure::NoAnswer(why) => why.into(),
        }
    }
}

impl From<NoAnswer> for Failed {
    fn from(why: NoAnswer) -> Self {
        match why {
            NoAnswer::TooLarge(size) => Self::TooLarge(size),
            NoAnswer::NoMemory => Self::NoMemory,
            NoAnswer::Broken(_) | NoAnswer::TooSlow | NoAnswer::Certificate(_) => Self::Lost(why.to_string()),
        }
    }
}

/// An upstream's text, shortened for our messages.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
