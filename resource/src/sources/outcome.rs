//! The outcomes of a call: exactly one each (SRC-08).

use std::borrow::Cow;

use super::mcp::message::RpcError;

/// The text for the model if there is no result.
pub(crate) type ModelText = Cow<'static, str>;

/// The end of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// The source answered. `members` are those of the result, as JSON without the braces, but for `_meta`, whose members
    /// are in `meta`; `is_error` tells that they tell of an error. `links` are the URIs that it shows (SRC-04).
    Result { members: Vec<u8>, meta: String, is_error: bool, links: Vec<String> },
    /// The source failed, and nothing was changed.
    Error,
    /// The source returned a JSON-RPC error, which is passed on.
    Refused(RpcError),
    /// The source's answer cannot be passed on.
    Failed(ModelText),
    /// The call was not sent to the source.
    NotSent(ModelText),
    /// It was sent, and no answer arrived: it may have been executed.
    Unknown(ModelText),
    /// The answer has this many bytes, which exceeds the limit.
    TooLarge(usize),
    /// There was no memory left for the answer, which was arriving (RATE-07).
    NoMemory,
    /// The caller cancelled it.
    Cancelled,
    /// No answer arrived in time.
    TimedOut,
    /// An administrator stopped it (LIMIT-04).
    Stopped,
}

impl Outcome {
    /// Not sent, without details.
    pub(crate) fn not_sent() -> Self {
        Self::NotSent("The server behind it cannot be reached right now. Nothing was done.".into())
    }

    /// Unknown, without details.
    pub(crate) fn unknown() -> Self {
        Self::Unknown(
            "The tool was called but did not answer. It may have run: check the effect before you try again."
                .into(),
        )
    }

    /// The recorded keyword.
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
            Self::Stopped => "stopped",
        }
    }
}
