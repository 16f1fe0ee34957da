//! A declared tool: its definition in lists, and the check of its arguments.

use std::sync::Arc;

use rmcp::model::{Tool as Definition, ToolAnnotations};
use serde_json::{Map, Value};

use super::param::{self, Param};
use crate::item::{Effect, Kind, Mirrored, Offer};
use crate::sources::schema::Schema;

/// The longest name on the wire (SRC-03).
const LONGEST_NAME: usize = 64;

/// What people and models read about a tool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToolText {
    /// Its name without that of the source: letters, digits, `_` and `-`.
    pub name: String,
    pub title: Option<String>,
    pub description: String,
}

/// A tool.
pub(crate) struct Tool {
    pub(crate) offer: Arc<Offer>,
    pub(crate) takes: Schema,
}

impl Tool {
    /// # Errors
    /// What is wrong with the declaration, in words.
    pub(super) fn new(
        source: &str,
        text: &ToolText,
        params: &[Param],
        output: Value,
        effect: Effect,
    ) -> Result<Self, String> {
        let name = format!("{source}_{}", text.name);
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
        if name.len() > LONGEST_NAME || text.name.is_empty() || !text.name.bytes().all(fits) {
            return Err(format!(
                "`{name}` is not a name for a tool: letters, digits, `_` and `-`, at most {LONGEST_NAME} together with the source's name"
            ));
        }
        let input = param::input(params);
        let takes = Schema::try_compile(&input).map_err(|why| format!("the arguments of `{name}`: {why}"))?;
        let defaults: Map<_, _> =
            params.iter().filter_map(|param| Some((param.name.clone(), param.default.clone()?))).collect();
        let mut sample: Map<String, Value> = defaults;
        // Arguments that are required have no default, so only the given ones are looked at.
        sample.retain(|_, value| !value.is_null());
        takes.check_some(&sample).map_err(|why| format!("a default of `{name}`: {why}"))?;
        let title = text.title.clone().unwrap_or_else(|| text.name.replace(['_', '-'], " "));
        let reads = effect == Effect::ReadOnly;
        let annotations = ToolAnnotations::with_title(title.clone())
            .read_only(reads)
            .destructive(!reads)
            .idempotent(reads)
            .open_world(true);
        let mirrored = Mirrored::in_schema(&input);
        let definition = Definition::new(name.clone(), text.description.clone(), Arc::new(members(input)))
            .with_title(title.clone())
            .with_annotations(annotations)
            .with_raw_output_schema(Arc::new(members(output)));
        let listed = serde_json::value::to_raw_value(&definition).map_err(|error| error.to_string())?;
        let offer = Offer {
            kind: Kind::Tool,
            at_source: text.name.as_str().into(),
            name: name.into(),
            address: None,
            title,
            listed,
            modern_output: false,
            effect,
            needs: None,
            like: None,
            mirrored,
        };
        Ok(Self { offer: Arc::new(offer), takes })
    }
}

fn members(schema: Value) -> Map<String, Value> {
    match schema {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
