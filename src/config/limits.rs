//! `[limits]`, and the keys `limit` and `at_once` of rules: how often items may be used (LIMIT-01).

use std::str::FromStr;
use std::time::Duration;

use anyhow::{anyhow, bail};
use resource::catalogue::{AtOnce, Bounds, CallLimits, InvalidLimit, LimitRules, Rate};

use super::keys::{Key, meant};
use super::sources::Offering;

const KEYS: &[&str] = &["limit", "at_once", "sources"];
const SOURCE_KEYS: &[&str] = &["limit", "at_once"];
/// The longest time that a call may take.
const LONGEST: Duration = Duration::from_hours(1);
/// The largest arguments: no request is larger.
const MOST_ARGUMENTS: u64 = 1 << 20;
/// The largest result of any call.
const MOST_RESULT: u64 = 8 << 20;
/// The sources that need no table.
const BUILT_IN: [&str; 2] = ["account", "docs"];

/// `[limits]`: for all calls together, and for those to one source.
pub(super) fn read(table: &Key<'_>, sources: &Offering<'_>) -> anyhow::Result<LimitRules> {
    let mut rules = LimitRules::default();
    for key in table.keys()? {
        match key.name {
            "limit" => rules.all.rates = rates(&key)?,
            "at_once" => rules.all.at_once = at_once(&key)?,
            "sources" => {
                for table in key.keys()? {
                    let limits = of_source(&table, sources)?;
                    rules.sources.insert(table.name.to_owned(), limits);
                }
            }
            _ => return Err(key.unknown(KEYS)),
        }
    }
    Ok(rules)
}

/// `[limits.sources.NAME]`.
fn of_source(table: &Key<'_>, sources: &Offering<'_>) -> anyhow::Result<CallLimits> {
    let known = || sources.names().chain(BUILT_IN);
    if !known().any(|known| known == table.name) {
        bail!(
            "[limits.sources.{}] at {} names a source that does not exist; {}",
            table.name,
            table.at(),
            meant(table.name, known())
        );
    }
    let mut limits = CallLimits::default();
    for key in table.keys()? {
        match key.name {
            "limit" => limits.rates = rates(&key)?,
            "at_once" => limits.at_once = at_once(&key)?,
            _ => return Err(key.unknown(SOURCE_KEYS)),
        }
    }
    Ok(limits)
}

/// `timeout`, `longest`, `max_arguments` or `max_result` of a rule; false if it is another key (LIMIT-03, LIMIT-04).
pub(super) fn bound(key: &Key<'_>, bounds: &mut Bounds) -> anyhow::Result<bool> {
    match key.name {
        "timeout" => bounds.timeout = Some(time(key)?),
        "longest" => bounds.longest = Some(time(key)?),
        "max_arguments" => bounds.max_arguments = Some(size(key, MOST_ARGUMENTS)?),
        "max_result" => bounds.max_result = Some(size(key, MOST_RESULT)?),
        _ => return Ok(false),
    }
    Ok(true)
}

fn time(key: &Key<'_>) -> anyhow::Result<Duration> {
    let time = key.duration()?;
    if time > LONGEST {
        bail!("`{}` at {} is too long; a call may take an hour at most", key.name, key.at());
    }
    Ok(time)
}

fn size(key: &Key<'_>, most: u64) -> anyhow::Result<usize> {
    let size = key.size()?;
    match usize::try_from(size) {
        Ok(size) if (1..=most).contains(&(size as u64)) => Ok(size),
        _ => bail!("`{}` at {} must be from \"1 KiB\" to \"{} MiB\"", key.name, key.at(), most >> 20),
    }
}

/// `limit = "3/hour/user"`, or a list.
pub(super) fn rates(key: &Key<'_>) -> anyhow::Result<Vec<Rate>> {
    written(key)
}

/// `at_once = "2/user"`, or a list; a number is for everybody together.
pub(super) fn at_once(key: &Key<'_>) -> anyhow::Result<Vec<AtOnce>> {
    if let Ok(Ok(number)) = key.number_or_text() {
        return Ok(vec![parsed(key, &number.to_string())?]);
    }
    written(key)
}

fn written<T: FromStr<Err = InvalidLimit>>(key: &Key<'_>) -> anyhow::Result<Vec<T>> {
    let list = key.one_or_list()?;
    if list.is_empty() {
        bail!("`{}` at {} names no limit; write one, or remove it", key.name, key.at());
    }
    list.iter().map(|one| parsed(one, one.text()?)).collect()
}

fn parsed<T: FromStr<Err = InvalidLimit>>(key: &Key<'_>, text: &str) -> anyhow::Result<T> {
    text.parse().map_err(|error| anyhow!("`{text}` at {} is not a limit: {error}", key.at()))
}

#[cfg(test)]
mod tests;
