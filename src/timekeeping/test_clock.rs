//! The clock that a test gives to a process. Not part of a release build.

use anyhow::Context as _;
use shared::{Clock, Timestamp};

use crate::environment;

/// The time at which the process starts, in Unix milliseconds.
const VARIABLE: &str = "PORTCULLIS_TEST_CLOCK";

/// The test's clock, if it gives one.
pub(super) fn given() -> anyhow::Result<Option<Clock>> {
    let Some(value) = environment::variable(VARIABLE) else { return Ok(None) };
    let begin = value.to_str().and_then(|text| text.parse().ok());
    let begin = begin.with_context(|| format!("{VARIABLE} is not a number of milliseconds"))?;
    Ok(Some(Clock::started_at(Timestamp(begin))))
}
