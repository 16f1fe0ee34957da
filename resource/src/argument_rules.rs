//! Rules about the arguments of a call (POL-02): a pure function of the rules and the arguments.
//!
//! A rule selects values by an RFC 6901 pointer and states conditions. All rules must hold. A missing value, or
//! one of another JSON type, does not satisfy a condition. Each rule looks at each value once, and regular
//! expressions take linear time, so the work is bounded by rules times body size.

mod pointer;

use std::collections::BTreeSet;
use std::fmt;

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Number, Value};

use pointer::Found;
pub use pointer::InvalidPointer;
pub(crate) use pointer::{Pointer, Reach, Step};

/// The longest regular expression, in bytes.
const LONGEST_EXPRESSION: usize = 1024;
/// The largest compiled expression, in bytes.
const LARGEST_EXPRESSION: usize = 1 << 18;
/// The deepest nesting of groups in an expression.
const DEEPEST_EXPRESSION: u32 = 32;

/// The recorded rule for an argument that the schema does not name.
pub(crate) const NOT_IN_SCHEMA: &str = "not in the schema";

/// All argument rules of an item.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ArgumentRules(Vec<ArgumentRule>);

/// The conditions for the values at one pointer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArgumentRule {
    pointer: Pointer,
    conditions: Vec<Condition>,
}

/// The conditions of a rule, before they are checked.
#[derive(Clone, Default, Debug)]
pub struct Conditions {
    /// `in`: the allowed values.
    pub one_of: Option<Vec<Value>>,
    /// `match`: a regular expression that must match the whole text.
    pub matches: Option<String>,
    /// `min`: the smallest allowed number.
    pub min: Option<Number>,
    /// `max`: the largest allowed number.
    pub max: Option<Number>,
    /// `absent`: there must be no value.
    pub absent: bool,
}

/// Why a rule is invalid.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidArgumentRule {
    #[error(transparent)]
    Pointer(#[from] InvalidPointer),
    #[error("it has no condition; write in, match, min, max or absent")]
    NoCondition,
    #[error("`absent` cannot be combined with another condition; write it alone")]
    AbsentAndMore,
    #[error("`in` lists no value, so nothing could ever be allowed")]
    NoValues,
    #[error("`min` is greater than `max`, so nothing could ever be allowed")]
    NothingBetween,
    #[error("`match` is not a regular expression that can be used: {0}")]
    Expression(String),
}

/// A condition that every value must satisfy.
#[derive(Clone, Debug)]
enum Condition {
    In(Vec<Value>),
    Match(String, Regex),
    Min(Number),
    Max(Number),
    Absent,
}

/// A refused argument: its pointer, the rule, and what is allowed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Violation {
    /// The argument's pointer.
    pub(crate) argument: String,
    /// The rule in short, for the audit log.
    pub(crate) rule: String,
    /// What is allowed, in words.
    pub(crate) allowed: String,
}

/// Checks arguments against the rules of an item. `named` are the arguments that its schema names: if there are
/// rules, other arguments are refused, because a tool might treat one as another spelling of a ruled argument.
pub(crate) fn check(
    rules: &ArgumentRules,
    named: &BTreeSet<String>,
    arguments: &Value,
) -> Result<(), Violation> {
    if rules.is_empty() {
        return Ok(());
    }
    let given = arguments.as_object().into_iter().flat_map(|members| members.keys());
    if let Some(unknown) = given.into_iter().find(|name| !named.contains(*name)) {
        return Err(Violation {
            argument: pointer::of_member(unknown),
            rule: NOT_IN_SCHEMA.to_owned(),
            allowed: format!("only the arguments that the tool names are allowed: {}", listed(named)),
        });
    }
    rules.0.iter().try_for_each(|rule| rule.check(arguments))
}

fn listed(named: &BTreeSet<String>) -> String {
    let named: Vec<_> = named.iter().map(String::as_str).collect();
    if named.is_empty() { "none".to_owned() } else { named.join(", ") }
}

impl ArgumentRules {
    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All rules.
    pub fn iter(&self) -> impl Iterator<Item = &ArgumentRule> {
        self.0.iter()
    }
}

impl ArgumentRules {
    /// The values that the rules look at in these arguments: a JSON list for each pointer. They suffice to
    /// apply other rules about the same pointers later (POL-06).
    pub(crate) fn looked_at(&self, arguments: &Value) -> Map<String, Value> {
        let kept = self.0.iter().map(|rule| {
            let found = rule.pointer.find(arguments).into_iter().map(Found::kept).collect();
            (rule.pointer.to_string(), Value::String(Value::Array(found).to_string()))
        });
        kept.collect()
    }

    /// Whether the rules hold for recorded values; `None` if a value was not recorded.
    pub(crate) fn hold_for(&self, kept: &Map<String, Value>) -> Option<bool> {
        let mut all = true;
        for rule in &self.0 {
            let text = kept.get(&rule.pointer.to_string())?.as_str()?;
            let places: Vec<Value> = serde_json::from_str(text).ok()?;
            let found: Vec<_> = places.iter().map(Found::from_kept).collect();
            all &= rule.conditions.iter().all(|condition| found.iter().all(|found| condition.holds(*found)));
        }
        Some(all)
    }
}

impl FromIterator<ArgumentRule> for ArgumentRules {
    fn from_iter<I: IntoIterator<Item = ArgumentRule>>(rules: I) -> Self {
        Self(rules.into_iter().collect())
    }
}

impl ArgumentRule {
    /// Checks and compiles a rule.
    ///
    /// # Errors
    /// If it is malformed, or no value could satisfy it.
    pub fn new(pointer: &str, conditions: Conditions) -> Result<Self, InvalidArgumentRule> {
        let pointer = Pointer::parse(pointer)?;
        let Conditions { one_of, matches, min, max, absent } = conditions;
        if one_of.as_ref().is_some_and(Vec::is_empty) {
            return Err(InvalidArgumentRule::NoValues);
        }
        if let (Some(min), Some(max)) = (&min, &max)
            && compare(min, max).is_gt()
        {
            return Err(InvalidArgumentRule::NothingBetween);
        }
        let mut conditions: Vec<_> = one_of.map(Condition::In).into_iter().collect();
        if let Some(text) = matches {
            let expression = anchored(&text).map_err(InvalidArgumentRule::Expression)?;
            conditions.push(Condition::Match(text, expression));
        }
        conditions.extend(min.map(Condition::Min).into_iter().chain(max.map(Condition::Max)));
        match (absent, conditions.is_empty()) {
            (false, true) => Err(InvalidArgumentRule::NoCondition),
            (true, false) => Err(InvalidArgumentRule::AbsentAndMore),
            (true, true) => Ok(Self { pointer, conditions: vec![Condition::Absent] }),
            (false, false) => Ok(Self { pointer, conditions }),
        }
    }

    /// Its pointer.
    pub(crate) fn pointer(&self) -> &Pointer {
        &self.pointer
    }

    fn check(&self, arguments: &Value) -> Result<(), Violation> {
        let found = self.pointer.find(arguments);
        let broken =
            self.conditions.iter().find(|condition| !found.iter().all(|found| condition.holds(*found)));
        broken.map_or(Ok(()), |condition| Err(self.violated(condition)))
    }

    fn violated(&self, condition: &Condition) -> Violation {
        let argument = self.pointer.to_string();
        let (rule, allowed) = (format!("{argument} {condition}"), condition.allowed(&argument));
        Violation { argument, rule, allowed }
    }
}

impl fmt::Display for ArgumentRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditions: Vec<_> = self.conditions.iter().map(ToString::to_string).collect();
        write!(f, "{} {}", self.pointer, conditions.join(", "))
    }
}

impl Condition {
    /// Whether what is found at one place meets it.
    fn holds(&self, found: Found<'_>) -> bool {
        match (self, found) {
            (Self::Absent, found) => found == Found::Nothing,
            (condition, Found::Value(value)) => condition.met_by(value),
            (_, Found::Nothing | Found::OtherType) => false,
        }
    }

    fn met_by(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::In(allowed), value) => allowed.iter().any(|one| same(one, value)),
            (Self::Match(_, expression), Value::String(text)) => expression.is_match(text),
            (Self::Min(least), Value::Number(number)) => compare(number, least).is_ge(),
            (Self::Max(most), Value::Number(number)) => compare(number, most).is_le(),
            (Self::Match(..) | Self::Min(_) | Self::Max(_) | Self::Absent, _) => false,
        }
    }

    fn allowed(&self, argument: &str) -> String {
        match self {
            Self::In(values) => {
                let values: Vec<_> = values.iter().map(ToString::to_string).collect();
                format!("{argument} must be one of {}", values.join(", "))
            }
            Self::Match(text, _) => format!("{argument} must be a string that matches {text} as a whole"),
            Self::Min(least) => format!("{argument} must be a number of at least {least}"),
            Self::Max(most) => format!("{argument} must be a number of at most {most}"),
            Self::Absent => format!("{argument} must be left out"),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(values) => write!(f, "in {}", Value::Array(values.clone())),
            Self::Match(text, _) => write!(f, "match {text}"),
            Self::Min(least) => write!(f, "min {least}"),
            Self::Max(most) => write!(f, "max {most}"),
            Self::Absent => f.write_str("absent"),
        }
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::In(one), Self::In(other)) => one == other,
            (Self::Match(one, _), Self::Match(other, _)) => one == other,
            (Self::Min(one), Self::Min(other)) | (Self::Max(one), Self::Max(other)) => one == other,
            (Self::Absent, Self::Absent) => true,
            _ => false,
        }
    }
}

impl Eq for Condition {}

/// Anchors the expression, so that it matches whole texts only.
fn anchored(text: &str) -> Result<Regex, String> {
    if text.len() > LONGEST_EXPRESSION {
        return Err(format!("it has more than {LONGEST_EXPRESSION} bytes"));
    }
    let compile = |text: &str| {
        let mut builder = RegexBuilder::new(text);
        builder.size_limit(LARGEST_EXPRESSION).nest_limit(DEEPEST_EXPRESSION);
        builder.build().map_err(|error| error.to_string().lines().last().unwrap_or_default().to_owned())
    };
    // Compile it alone first: `a)|(b` is invalid, but would become valid between our parentheses.
    compile(text)?;
    compile(&format!(r"\A(?:{text})\z"))
}

/// Whether two JSON values are equal: numbers by value, everything else by type and content.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => compare(one, other).is_eq(),
        _ => one == other,
    }
}

/// Compares numbers by their exact value, integer or not.
fn compare(one: &Number, other: &Number) -> std::cmp::Ordering {
    match (integer(one), integer(other)) {
        (Some(one), Some(other)) => one.cmp(&other),
        (Some(one), None) => integer_and_fraction(one, float(other)),
        (None, Some(other)) => integer_and_fraction(other, float(one)).reverse(),
        (None, None) => float(one).total_cmp(&float(other)),
    }
}

/// A number as an integer, if it is one; also if it is written 5.0.
fn integer(number: &Number) -> Option<i128> {
    if let Some(number) = number.as_i128() {
        return Some(number);
    }
    let number = number.as_f64()?;
    #[expect(clippy::cast_possible_truncation, reason = "whole, and well within its range, as just checked")]
    (number.fract() == 0.0 && number.abs() < 1e30).then_some(number as i128)
}

fn float(number: &Number) -> f64 {
    number.as_f64().unwrap_or(f64::INFINITY)
}

/// Compares an integer with a number that is not one, or is too large for one.
fn integer_and_fraction(integer: i128, fraction: f64) -> std::cmp::Ordering {
    if fraction.abs() >= 1e30 {
        return if fraction > 0.0 { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater };
    }
    #[expect(clippy::cast_possible_truncation, reason = "well within its range, as just checked")]
    let below = fraction.floor() as i128;
    // Between `below` and `below + 1`, and equal to neither.
    if integer <= below { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater }
}

#[cfg(test)]
mod tests;
