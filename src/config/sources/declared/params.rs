//! `params` of a declared tool: its typed arguments.

use anyhow::{anyhow, bail};
use resource::sources::declared::{Param, ParamKind};
use serde_json::Value;

use crate::config::keys::Key;

const KEYS: [&str; 9] =
    ["type", "description", "required", "default", "max_length", "pattern", "in", "min", "max"];

/// `params.NAME`, for each argument.
pub(super) fn read(table: &Key<'_>) -> anyhow::Result<Vec<Param>> {
    table.keys()?.iter().map(param).collect()
}

/// `"string"` is short for a table with that type.
fn param(key: &Key<'_>) -> anyhow::Result<Param> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    if !key.name.bytes().all(fits) {
        bail!("`{}` at {} is not a name for an argument: letters, digits, `_` and `-`", key.name, key.at());
    }
    if !key.is_table() {
        return Said { kind: Some(key.text()?.to_owned()), ..Said::default() }.fits(key);
    }
    let mut said = Said::default();
    for key in key.keys()? {
        match key.name {
            "type" => said.kind = Some(key.text()?.to_owned()),
            "description" => said.description = Some(key.text()?.to_owned()),
            "required" => said.required = Some(key.boolean()?),
            "default" => said.default = Some(key.whole()?),
            "max_length" => said.longest = Some(whole(&key)?),
            "pattern" => said.pattern = Some(key.text()?.to_owned()),
            "in" => {
                said.choices =
                    key.list()?.iter().map(|one| one.text().map(str::to_owned)).collect::<Result<_, _>>()?;
            }
            "min" => said.least = Some(whole(&key)?),
            "max" => said.most = Some(whole(&key)?),
            _ => return Err(key.unknown(&KEYS)),
        }
    }
    said.fits(key)
}

#[derive(Default)]
struct Said {
    kind: Option<String>,
    description: Option<String>,
    required: Option<bool>,
    default: Option<Value>,
    longest: Option<i64>,
    pattern: Option<String>,
    choices: Vec<String>,
    least: Option<i64>,
    most: Option<i64>,
}

impl Said {
    fn fits(self, key: &Key<'_>) -> anyhow::Result<Param> {
        let kind = self.kind.as_deref().unwrap_or("string");
        let of_text = self.longest.is_some() || self.pattern.is_some() || !self.choices.is_empty();
        let of_integers = self.least.is_some() || self.most.is_some();
        if (of_text && kind != "string") || (of_integers && kind != "integer") {
            bail!(
                "`{}` at {} is of type \"{kind}\": `max_length`, `pattern` and `in` are for strings, `min` and `max` for integers",
                key.name,
                key.at()
            );
        }
        let longest = self.longest.map(u32::try_from).transpose();
        let longest =
            longest.map_err(|_| anyhow!("`max_length` of `{}` at {} is out of range", key.name, key.at()))?;
        let kind = match kind {
            "string" => ParamKind::Text { longest, pattern: self.pattern, choices: self.choices },
            "integer" => ParamKind::Integer { least: self.least, most: self.most },
            "number" => ParamKind::Number,
            "boolean" => ParamKind::Boolean,
            other => bail!(
                "the type of `{}` at {} is `{other}`; write \"string\", \"integer\", \"number\" or \"boolean\"",
                key.name,
                key.at()
            ),
        };
        let required = self.required.unwrap_or(self.default.is_none());
        if required && self.default.is_some() {
            bail!("`{}` at {} is required and has a default; remove one of the two", key.name, key.at());
        }
        Ok(Param {
            name: key.name.to_owned(),
            description: self.description,
            required,
            default: self.default,
            kind,
        })
    }
}

fn whole(key: &Key<'_>) -> anyhow::Result<i64> {
    key.number()?.as_i64().ok_or_else(|| anyhow!("`{}` at {} must be an integer", key.name, key.at()))
}
