//! The time that a test gives to a process. It is not part of a release build.

use anyhow::Context as _;
use shared::{Clock, Timestamp};

use crate::environment;

/// Unix milliseconds: the time at which the process is told to begin.
const VARIABLE: &str = "PORTCULLIS_TEST_CLOCK";

/// The clock that a test asks for, if one does.
pub(super) fn given() -> anyhow::Result<Option<Clock>> {
    let Some(value) = environment::variable(VARIABLE) else { return Ok(None) };
    let begin = value.to_str().and_then(|text| text.parse().ok());
    let begin = begin.with_context(|| format!("{VARIABLE} is not a number of milliseconds"))?;
    Ok(Some(Clock::started_at(Timestamp(begin))))
}
