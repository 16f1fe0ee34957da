//! Watches the machine's clock (OPS-04): a step back is recorded, and so is its end.

#[cfg(debug_assertions)]
mod test_clock;

use std::time::Duration;

use shared::audit::{self, Event, Name};
use shared::{Clock, Db, Fault};
use tokio_util::sync::CancellationToken;

/// How often the clock is checked. Issuing does not depend on this: it reads the clock itself.
const LOOK: Duration = Duration::from_secs(1);
/// How many checks pass before the time is stored without other writes.
const KEEP: u32 = 10;

/// The program's clock.
///
/// # Errors
/// If a test gave it a malformed time.
pub(crate) fn clock() -> anyhow::Result<Clock> {
    #[cfg(debug_assertions)]
    if let Some(clock) = test_clock::given()? {
        return Ok(clock);
    }
    Ok(Clock::system())
}

/// What a process issues, which stops while its clock is behind.
#[derive(Clone, Copy)]
pub(crate) enum Issues {
    Tokens,
    /// A gateway alone, which only checks tokens.
    Nothing,
}

impl Issues {
    fn pause(self) -> &'static str {
        match self {
            Self::Tokens => {
                "the clock was set back; no tokens are issued until the clock is corrected, or confirmed with `portcullis clock confirm`"
            }
            Self::Nothing => {
                "the clock was set back; tokens are checked against the earlier time until the clock is corrected, or confirmed with `portcullis clock confirm`"
            }
        }
    }
}

/// Looks until `stop`.
pub(crate) async fn watch(clock: Clock, db: Db, issues: Issues, stop: CancellationToken) {
    let mut behind = false;
    for look in 0_u32.. {
        let now_behind = clock.is_behind();
        let done = if now_behind != behind {
            record(&clock, &db, issues, now_behind).await
        } else if look.is_multiple_of(KEEP) {
            // Any write stores the time too.
            db.record(|_| Ok(())).await
        } else {
            Ok(())
        };
        match done {
            Ok(()) => behind = now_behind,
            Err(fault) => tracing::error!(db.fault = %fault, "the time could not be written down"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn record(clock: &Clock, db: &Db, issues: Issues, behind: bool) -> Result<(), Fault> {
    let (wall, by) = (clock.wall(), u64::try_from(clock.behind().as_millis()).unwrap_or(u64::MAX));
    let event = if behind {
        tracing::error!(clock.wall = %wall, clock.behind_ms = by, "{}", issues.pause());
        Event::failed(Name::ClockStep, "set_back").detail("behind_ms", by)
    } else {
        tracing::info!(clock.wall = %wall, "the clock is right again");
        Event::allowed(Name::ClockStep).detail("issuance", "resumed")
    };
    let event = event.by_server().detail("clock", wall.to_string());
    db.write(move |tx| audit::append(tx, event)).await
}
