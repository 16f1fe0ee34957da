//! How a call ends: in exactly one way (SRC-08).

/// The end of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// The source answered. `members` are those of the result, as JSON without the braces; `is_error` tells that they
    /// tell of an error.
    Result { members: Vec<u8>, is_error: bool },
    /// The source failed, and nothing was changed by it.
    Error,
    /// Nothing was sent to the source.
    NotSent,
    /// It was sent, and no answer came: it may have happened.
    Unknown,
    /// The answer has this many bytes, which is more than may be handed on.
    TooLarge(usize),
    /// Whoever called does not want it any more.
    Cancelled,
    /// No answer came in time.
    TimedOut,
}

impl Outcome {
    /// The word for it on record.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Result { is_error: false, .. } => "ok",
            Self::Result { is_error: true, .. } => "tool_error",
            Self::Error => "error",
            Self::NotSent => "not_sent",
            Self::Unknown => "unknown",
            Self::TooLarge(_) => "too_large",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
        }
    }
}
