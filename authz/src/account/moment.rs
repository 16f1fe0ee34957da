//! Times on the account page.

use shared::Timestamp;

use crate::consent::in_words;
use crate::pages::Moment;

/// A time in words, with the exact time beside it.
pub(super) fn moment(at: Timestamp, now: Timestamp) -> Moment {
    let age = now.since(at);
    let words = if age.as_secs() < 60 { "just now".to_owned() } else { format!("{} ago", in_words(age)) };
    Moment { words, exact: at.to_string() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_read_like_words() {
        let now = Timestamp(1_795_435_200_000);
        let words = |ago: Duration| moment(now - ago, now).words;
        assert_eq!(words(Duration::from_secs(59)), "just now");
        assert_eq!(words(Duration::from_mins(1)), "1 minute ago");
        assert_eq!(words(Duration::from_mins(119)), "119 minutes ago");
        assert_eq!(words(Duration::from_hours(49)), "2 days ago");
        assert_eq!(moment(now, now).exact, "2026-11-23T12:00:00.000Z");
        assert_eq!(moment(now + Duration::from_secs(5), now).words, "just now");
    }
}
