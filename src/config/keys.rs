//! The keys of a configuration file with their lines, so that every error names both.

use std::path::Path;
use std::time::Duration;

use anyhow::{Error, anyhow, bail};
use serde_json::{Number, Value};
use toml::de::{DeTable, DeValue};

use crate::config::duration;

/// Not allowed in names; each would break an error's single line.
const CONTROL: &str = "a line break or another control character";

/// The text of a file.
pub(super) struct Text<'t> {
    path: &'t Path,
    text: &'t str,
}

/// What another program's file says, as JSON. Dates are left out.
///
/// # Errors
/// Where it is not TOML.
pub(crate) fn toml_as_json(path: &Path, text: &str) -> anyhow::Result<Value> {
    fn table(table: &DeTable<'_>) -> Value {
        table.iter().map(|(name, value)| (name.get_ref().to_string(), json(value.get_ref()))).collect()
    }
    fn json(value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::from(text.as_ref()),
            DeValue::Boolean(truth) => Value::from(*truth),
            DeValue::Integer(number) => {
                i64::from_str_radix(number.as_str(), number.radix()).ok().map_or(Value::Null, Value::from)
            }
            DeValue::Array(values) => values.iter().map(|value| json(value.get_ref())).collect(),
            DeValue::Table(inner) => table(inner),
            DeValue::Float(_) | DeValue::Datetime(_) => Value::Null,
        }
    }
    Ok(table(&Text::new(path, text).parse()?))
}

/// A key and its value, or a value in its list.
pub(super) struct Key<'t> {
    pub(super) name: &'t str,
    text: &'t Text<'t>,
    offset: usize,
    value: &'t DeValue<'t>,
}

impl<'t> Text<'t> {
    pub(super) fn new(path: &'t Path, text: &'t str) -> Self {
        Self { path, text }
    }

    /// The file's top-level table.
    pub(super) fn parse(&self) -> anyhow::Result<DeTable<'t>> {
        DeTable::parse(self.text).map(toml::Spanned::into_inner).map_err(|error| {
            let at = self.at(error.span().map_or(0, |span| span.start));
            anyhow!("syntax error at {at}: {}", error.message().replace('\n', " "))
        })
    }

    /// The keys of a table, in the order of the file.
    pub(super) fn keys(&'t self, table: &'t DeTable<'t>) -> anyhow::Result<Vec<Key<'t>>> {
        let mut keys: Vec<_> = table
            .iter()
            .map(|(name, value)| Key {
                name: name.get_ref(),
                text: self,
                offset: name.span().start,
                value: value.get_ref(),
            })
            .collect();
        keys.sort_by_key(|key| key.offset);
        match keys.iter().find(|key| key.name.contains(char::is_control)) {
            Some(key) => bail!("a key at {} contains {CONTROL}", key.at()),
            None => Ok(keys),
        }
    }

    /// File and line.
    fn at(&self, offset: usize) -> String {
        let before = self.text.get(..offset).unwrap_or(self.text);
        format!("{}:{}", self.path.display(), before.matches('\n').count() + 1)
    }
}

impl<'t> Key<'t> {
    /// File and line.
    pub(super) fn at(&self) -> String {
        self.text.at(self.offset)
    }

    /// The error for an unknown key.
    pub(super) fn unknown(&self, known: &[&str]) -> Error {
        anyhow!("unknown key `{}` at {}; {}", self.name, self.at(), meant(self.name, known.iter().copied()))
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// Its keys, in the order of the file.
    pub(super) fn keys(&self) -> anyhow::Result<Vec<Key<'t>>> {
        match self.value {
            DeValue::Table(table) => self.text.keys(table),
            _ => Err(self.wrong("a table")),
        }
    }

    /// Text that is not empty.
    pub(super) fn text(&self) -> anyhow::Result<&'t str> {
        match self.value {
            DeValue::String(text) if text.trim().is_empty() => {
                bail!("`{}` at {} is empty", self.name, self.at())
            }
            DeValue::String(text) if text.contains(char::is_control) => {
                bail!("`{}` at {} contains {CONTROL}", self.name, self.at())
            }
            DeValue::String(text) => Ok(text),
            _ => Err(self.wrong("a string")),
        }
    }

    /// Text that may be empty, for another program.
    pub(super) fn words(&self) -> anyhow::Result<String> {
        match self.value {
            DeValue::String(text) if text.contains('\0') => {
                bail!("`{}` at {} contains a NUL character", self.name, self.at())
            }
            DeValue::String(text) => Ok(text.to_string()),
            _ => Err(self.wrong("a string")),
        }
    }

    /// Text, possibly of several lines, that is not empty.
    pub(super) fn prose(&self) -> anyhow::Result<&'t str> {
        match self.value {
            DeValue::String(text) if text.contains('\n') && !text.trim().is_empty() => {
                match text.chars().find(|c| c.is_control() && *c != '\n') {
                    Some(_) => bail!("`{}` at {} holds a control character", self.name, self.at()),
                    None => Ok(text),
                }
            }
            _ => self.text(),
        }
    }

    /// A number, integer or not.
    pub(super) fn number(&self) -> anyhow::Result<Number> {
        match self.json() {
            Some(Value::Number(number)) => Ok(number),
            _ => Err(self.wrong("a number")),
        }
    }

    /// The values of a list: texts, numbers, booleans.
    pub(super) fn values(&self) -> anyhow::Result<Vec<Value>> {
        let value = |key: &Key<'_>| key.json().ok_or_else(|| key.wrong("a string, a number, true or false"));
        self.list()?.iter().map(value).collect()
    }

    /// The value as JSON, if it is a scalar that JSON has.
    fn json(&self) -> Option<Value> {
        match self.value {
            DeValue::String(text) => Some(Value::from(text.as_ref())),
            DeValue::Boolean(truth) => Some(Value::from(*truth)),
            DeValue::Integer(number) => {
                i64::from_str_radix(number.as_str(), number.radix()).ok().map(Value::from)
            }
            DeValue::Float(number) => {
                number.as_str().parse().ok().and_then(Number::from_f64).map(Value::Number)
            }
            DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
        }
    }

    /// The whole value as JSON, with everything in it.
    pub(super) fn whole(&self) -> anyhow::Result<Value> {
        fn json(value: &DeValue<'_>) -> Option<Value> {
            Some(match value {
                DeValue::String(text) => Value::from(text.as_ref()),
                DeValue::Boolean(truth) => Value::from(*truth),
                DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok()?.into(),
                DeValue::Float(number) => Number::from_f64(number.as_str().parse().ok()?)?.into(),
                DeValue::Array(values) => {
                    values.iter().map(|value| json(value.get_ref())).collect::<Option<_>>()?
                }
                DeValue::Table(inner) => {
                    let member = |(name, value): (&toml::Spanned<_>, &toml::Spanned<_>)| {
                        let name: &std::borrow::Cow<'_, str> = name.get_ref();
                        Some((name.to_string(), json(value.get_ref())?))
                    };
                    inner.iter().map(member).collect::<Option<_>>()?
                }
                DeValue::Datetime(_) => return None,
            })
        }
        json(self.value).ok_or_else(|| {
            anyhow!("`{}` at {} holds a date, or a number that JSON does not have", self.name, self.at())
        })
    }

    pub(super) fn boolean(&self) -> anyhow::Result<bool> {
        self.value.as_bool().ok_or_else(|| self.wrong("true or false"))
    }

    /// A number or a text.
    pub(super) fn number_or_text(&self) -> anyhow::Result<Result<u32, &'t str>> {
        match self.value {
            DeValue::Integer(number) => {
                let number = u32::from_str_radix(number.as_str(), number.radix()).ok();
                number.map(Ok).ok_or_else(|| {
                    anyhow!("`{}` at {} must be a number from 0 to {}", self.name, self.at(), u32::MAX)
                })
            }
            DeValue::String(text) => Ok(Err(text)),
            _ => Err(self.wrong("a number or a string")),
        }
    }

    /// A duration other than zero.
    pub(super) fn duration(&self) -> anyhow::Result<Duration> {
        let text = self.text()?;
        duration::parse_some(text).map_err(|usage| {
            anyhow!("`{}` at {} is `{text}`, not a length of time; {usage}", self.name, self.at())
        })
    }

    /// A number of bytes with a unit: `"256 MiB"`.
    pub(super) fn size(&self) -> anyhow::Result<u64> {
        let text = self.text()?;
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let unit = match unit.trim_start() {
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            _ => None,
        };
        let size = number.parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
        size.ok_or_else(|| {
            anyhow!(
                "`{}` at {} is `{text}`, not a size; write it like \"256 MiB\" (KiB, MiB or GiB)",
                self.name,
                self.at()
            )
        })
    }

    /// The values of a list.
    pub(super) fn list(&self) -> anyhow::Result<Vec<Key<'t>>> {
        let DeValue::Array(values) = self.value else { return Err(self.wrong("a list of strings")) };
        let one = |value: &'t toml::Spanned<DeValue<'t>>| Key {
            name: self.name,
            text: self.text,
            offset: value.span().start,
            value: value.get_ref(),
        };
        Ok(values.iter().map(one).collect())
    }

    /// The tables of a list of tables: `[[…]]`.
    pub(super) fn tables(&self) -> anyhow::Result<Vec<Key<'t>>> {
        let wrong =
            || anyhow!("`{0}` at {1} must be tables; write [[{0}]] with its section", self.name, self.at());
        let DeValue::Array(_) = self.value else { return Err(wrong()) };
        let tables = self.list()?;
        if tables.iter().all(Key::is_table) { Ok(tables) } else { Err(wrong()) }
    }

    /// A port number.
    pub(super) fn port(&self) -> anyhow::Result<u16> {
        let number = match self.value {
            DeValue::Integer(number) => u16::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => return Err(self.wrong("a number")),
        };
        number.filter(|port| *port != 0).ok_or_else(|| {
            anyhow!("`{}` at {} is not a valid port; ports go from 1 to 65535", self.name, self.at())
        })
    }

    /// The values of a list, or a single value as a list of one.
    pub(super) fn one_or_list(&self) -> anyhow::Result<Vec<Key<'t>>> {
        match self.value {
            DeValue::Array(_) => self.list(),
            DeValue::String(_) => Ok(vec![Key { ..*self }]),
            _ => Err(self.wrong("a string or a list of strings")),
        }
    }

    fn wrong(&self, wanted: &str) -> Error {
        anyhow!("`{}` at {} must be {wanted}, not {}", self.name, self.at(), self.value.type_str())
    }
}

/// The most similar known name, as a question.
pub(super) fn meant<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let distance = |known: &&str| strsim::damerau_levenshtein(name, known);
    let nearest = known.into_iter().min_by_key(distance).unwrap_or_default();
    format!("did you mean `{nearest}`?")
}
