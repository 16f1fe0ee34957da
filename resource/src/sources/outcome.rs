//! How a call ends: in exactly one way (SRC-08).

use std::borrow::Cow;

use super::mcp::message::RpcError;

/// What the model is told where there is no result.
pub(crate) type Words = Cow<'static, str>;

/// The end of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// The source answered. `members` are those of the result, as JSON without the braces, but for `_meta`, whose members
    /// are in `meta`; `is_error` tells that they tell of an error. `links` are the URIs that it shows (SRC-04).
    Result { members: Vec<u8>, meta: String, is_error: bool, links: Vec<String> },
    /// The source failed, and nothing was changed by it.
    Error,
    /// The source answered with an error of the protocol, which is handed on.
    Refused(RpcError),
    /// The source answered, and not with what can be handed on.
    Failed(Words),
    /// Nothing was sent to the source.
    NotSent(Words),
    /// It was sent, and no answer came: it may have happened.
    Unknown(Words),
    /// The answer has this many bytes, which is more than may be handed on.
    TooLarge(usize),
    /// There was no memory left for the answer, which was arriving (RATE-07).
    NoMemory,
    /// Whoever called does not want it any more.
    Cancelled,
    /// No answer came in time.
    TimedOut,
}

impl Outcome {
    /// Nothing was sent, and there is no more to say about it.
    pub(crate) fn not_sent() -> Self {
        Self::NotSent("The server behind it cannot be reached right now. Nothing was done.".into())
    }

    /// It was sent, and there is no more to say about it.
    pub(crate) fn unknown() -> Self {
        Self::Unknown(
            "The tool was called but did not answer. It may have run: check the effect before you try again."
                .into(),
        )
    }

    /// The word for it on record.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Result { is_error: false, .. } => "ok",
            Self::Result { is_error: true, .. } => "tool_error",
            Self::Error | Self::Refused(_) | Self::Failed(_) => "error",
            Self::NotSent(_) => "not_sent",
            Self::Unknown(_) => "unknown",
            Self::TooLarge(_) | Self::NoMemory => "too_large",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
        }
    }
}
