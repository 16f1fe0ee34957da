//! Limits on calls, from the configuration: how many in a time, and how many at once (LIMIT-01).

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// The largest count. What is counted is kept call by call, so that the window slides exactly.
const MOST: u32 = 10_000;
/// The longest window.
pub(crate) const LONGEST: Duration = Duration::from_hours(31 * 24);
/// Windows of this length or more survive a restart (LIMIT-02).
pub(crate) const LASTING: Duration = Duration::from_hours(1);

/// The limits on calls that are not about one item (LIMIT-01).
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct LimitRules {
    /// For all calls together.
    pub all: CallLimits,
    /// For the calls to one source, by its name.
    pub sources: BTreeMap<String, CallLimits>,
}

/// The limits on one item, on one source, or on all calls.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct CallLimits {
    pub rates: Vec<Rate>,
    pub at_once: Vec<AtOnce>,
}

/// How long a call of an item may take, and how large its arguments and its result may be (LIMIT-03, LIMIT-04). `None` is the
/// default.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Bounds {
    /// How long it may run without progress.
    pub timeout: Option<Duration>,
    /// How long it may take in all.
    pub longest: Option<Duration>,
    /// In bytes of JSON.
    pub max_arguments: Option<usize>,
    /// In bytes of JSON. Text beyond it is cut.
    pub max_result: Option<usize>,
}

/// At most this many calls begin in any time of this length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    pub(crate) most: NonZeroU32,
    pub(crate) window: Duration,
    pub(crate) each: Each,
}

/// At most this many calls run at the same time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AtOnce {
    pub(crate) most: NonZeroU32,
    pub(crate) each: Each,
}

/// Whose calls are counted together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Each {
    /// Those of all callers.
    All,
    /// Those of one user, or of a client in its own name.
    User,
    /// Those through one client.
    Client,
}

/// Why a text is not a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidLimit {
    #[error(
        "write COUNT/TIME or COUNT/TIME/WHOSE, like 3/hour/user: the time is second, minute, hour, day, week, or like 15m; whose is user or client, or nothing for everybody together"
    )]
    NotARate,
    #[error(
        "write COUNT or COUNT/WHOSE, like 2/user: whose is user or client, or nothing for everybody together"
    )]
    NotAtOnce,
    #[error(
        "zero would refuse every call, and the count is at most {MOST}; to keep a tool from everybody, write hidden = true"
    )]
    Count,
    #[error("the time is at most 31 days")]
    TooLong,
}

impl CallLimits {
    /// Whether it holds no limit.
    pub fn is_empty(&self) -> bool {
        self.rates.is_empty() && self.at_once.is_empty()
    }

    /// Each as it is written.
    pub fn written(&self) -> Vec<String> {
        let at_once = self.at_once.iter().map(|limit| format!("{limit} at once"));
        self.rates.iter().map(ToString::to_string).chain(at_once).collect()
    }
}

impl LimitRules {
    /// Whether it holds no limit.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.sources.values().all(CallLimits::is_empty)
    }
}

impl Each {
    fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None => Some(Self::All),
            Some("user") => Some(Self::User),
            Some("client") => Some(Self::Client),
            Some(_) => None,
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::All => "",
            Self::User => "/user",
            Self::Client => "/client",
        }
    }

    /// Whose they are, in words after the limit.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::All => "",
            Self::User => " for each user",
            Self::Client => " for each client",
        }
    }
}

/// The lengths that have a name.
const NAMED: [(&str, Duration); 5] = [
    ("second", Duration::from_secs(1)),
    ("minute", Duration::from_mins(1)),
    ("hour", Duration::from_hours(1)),
    ("day", Duration::from_hours(24)),
    ("week", Duration::from_hours(7 * 24)),
];
/// The units of others, the largest first.
const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

fn window(text: &str) -> Option<Duration> {
    if let Some((_, length)) = NAMED.iter().find(|(name, _)| *name == text) {
        return Some(*length);
    }
    let (unit, seconds) = UNITS.iter().find(|(unit, _)| text.ends_with(unit))?;
    let digits = text.strip_suffix(unit)?;
    let number: u64 = digits.bytes().all(|b| b.is_ascii_digit()).then_some(digits)?.parse().ok()?;
    Some(Duration::from_secs(number.checked_mul(*seconds)?)).filter(|length| !length.is_zero())
}

fn count(text: &str) -> Option<Result<NonZeroU32, InvalidLimit>> {
    let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty();
    let number = || text.parse().ok().and_then(NonZeroU32::new).filter(|count| count.get() <= MOST);
    digits.then(|| number().ok_or(InvalidLimit::Count))
}

impl FromStr for Rate {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let mut parts = text.split('/');
        let (most, length, whose) = (parts.next(), parts.next(), parts.next());
        let most = most.and_then(count).ok_or(InvalidLimit::NotARate)?;
        let window = length.and_then(window).ok_or(InvalidLimit::NotARate)?;
        let each = Each::parse(whose).ok_or(InvalidLimit::NotARate)?;
        match parts.next() {
            Some(_) => Err(InvalidLimit::NotARate),
            None if window > LONGEST => Err(InvalidLimit::TooLong),
            None => Ok(Self { most: most?, window, each }),
        }
    }
}

impl FromStr for AtOnce {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let (most, whose) = text.split_once('/').map_or((text, None), |(most, whose)| (most, Some(whose)));
        let most = count(most).ok_or(InvalidLimit::NotAtOnce)?;
        let each = Each::parse(whose).ok_or(InvalidLimit::NotAtOnce)?;
        Ok(Self { most: most?, each })
    }
}

/// A length of time in the largest unit that fits.
fn in_units(length: Duration) -> (u64, &'static str) {
    let seconds = length.as_secs();
    let fits = |(_, unit): &&(&str, u64)| seconds.is_multiple_of(*unit);
    UNITS.iter().find(fits).map_or((seconds, "s"), |(name, unit)| (seconds / unit, name))
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (most, each) = (self.most, self.each.suffix());
        if let Some((name, _)) = NAMED.iter().find(|(_, length)| *length == self.window) {
            return write!(f, "{most}/{name}{each}");
        }
        let (number, unit) = in_units(self.window);
        write!(f, "{most}/{number}{unit}{each}")
    }
}

impl fmt::Display for AtOnce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.most, self.each.suffix())
    }
}

/// A number of something, in words.
fn counted(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// A length of time in words.
pub(crate) fn length_in_words(length: Duration) -> String {
    let (number, unit) = in_units(length);
    let nouns = [("d", "day"), ("h", "hour"), ("m", "minute"), ("s", "second")];
    let noun = nouns.iter().find(|(name, _)| *name == unit).map_or("second", |(_, noun)| noun);
    counted(number, noun)
}

impl Rate {
    /// What it allows of this, in words.
    pub(crate) fn words(&self, what: &str) -> String {
        let calls = counted(self.most.get().into(), "call");
        format!("{calls} {what} in {}{}", length_in_words(self.window), self.each.words())
    }
}

impl AtOnce {
    /// What it allows of this, in words.
    pub(crate) fn words(self, what: &str) -> String {
        format!("{} {what} at once{}", counted(self.most.get().into(), "call"), self.each.words())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// LIMIT-01: a rate says how many, in which time, and whose; it is shown as it is written.
    #[test]
    fn rates_are_read() {
        for (text, most, seconds, each) in [
            ("3/hour/user", 3, 3_600, Each::User),
            ("10000/day", 10_000, 86_400, Each::All),
            ("1/second/client", 1, 1, Each::Client),
            ("5/15m/user", 5, 900, Each::User),
            ("7/week", 7, 604_800, Each::All),
            ("2/90s", 2, 90, Each::All),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.most.get(), rate.window.as_secs(), rate.each), (most, seconds, each), "{text}");
            assert_eq!(rate.to_string(), text);
        }
        assert_eq!("2/60m/user".parse::<Rate>().unwrap().to_string(), "2/hour/user");
        let words = "5/15m/user".parse::<Rate>().unwrap().words("of `x`");
        assert_eq!(words, "5 calls of `x` in 15 minutes for each user");
    }

    /// LIMIT-01: an invalid limit is refused.
    #[test]
    fn bad_limits_are_refused() {
        for text in [
            "",
            "3",
            "3/",
            "/hour",
            "3/hour/",
            "3/hour/tool",
            "3/hour/user/x",
            "x/hour",
            "-3/hour",
            "+3/hour",
            "3.5/hour",
            "3/fortnight",
            "3/0h",
            "3/h",
            "3/ hour",
            "3 /hour",
            "3/hours",
            "3/1.5h",
            "3/-1h",
            "3/99999999999999999999d",
            "3/30000000000000000d",
        ] {
            assert_eq!(text.parse::<Rate>(), Err(InvalidLimit::NotARate), "{text}");
        }
        for text in ["0/hour", "10001/hour", "99999999999/hour"] {
            assert_eq!(text.parse::<Rate>(), Err(InvalidLimit::Count), "{text}");
        }
        assert_eq!("3/32d".parse::<Rate>(), Err(InvalidLimit::TooLong));
        for text in ["", "x", "/user", "2/", "2/tool", "2/user/x", "2/hour"] {
            assert_eq!(text.parse::<AtOnce>(), Err(InvalidLimit::NotAtOnce), "{text}");
        }
        assert_eq!("0".parse::<AtOnce>(), Err(InvalidLimit::Count));
        assert_eq!("2/user".parse::<AtOnce>().unwrap().to_string(), "2/user");
    }
}
