//! The program's own tools: their prepared definitions, and the form of their answers.

use std::sync::Arc;

use rmcp::model::{Tool as Definition, ToolAnnotations};
use serde::Serialize;
use serde_json::{Map, Value};

use super::Outcome;
use super::schema::Schema;
use crate::item::{Arguments, Effect, Kind, Mirrored, Needs, Offer};

/// One of our tools. All of them are read-only, on this server's own data.
pub(crate) struct OwnTool {
    offer: Arc<Offer>,
    takes: Schema,
}

impl OwnTool {
    /// A tool with this name, title and description, and these input and output schemas.
    pub(super) fn new(
        (name, title, description): (&'static str, &'static str, &'static str),
        needs: Option<Needs>,
        [input, output]: [Value; 2],
    ) -> Self {
        let annotations = ToolAnnotations::with_title(title)
            .read_only(true)
            .destructive(false)
            .idempotent(true)
            .open_world(false);
        let (mirrored, takes) = (Mirrored::in_schema(&input), Schema::compile(&input));
        let definition = Definition::new(name, description, Arc::new(members(input)))
            .with_title(title)
            .with_annotations(annotations)
            .with_raw_output_schema(Arc::new(members(output)));
        let listed = serde_json::value::to_raw_value(&definition).expect("a definition is JSON");
        let (title, effect) = (title.to_owned(), Effect::of(true));
        let offer = Offer {
            kind: Kind::Tool,
            name: name.into(),
            at_source: name.into(),
            address: None,
            title,
            listed,
            modern_output: false,
            effect,
            needs,
            like: None,
            mirrored,
        };
        Self { offer: Arc::new(offer), takes }
    }

    pub(super) fn name(&self) -> &str {
        &self.offer.name
    }

    pub(super) fn offer(&self) -> Arc<Offer> {
        Arc::clone(&self.offer)
    }

    /// Checks the arguments of a call; the error tells a model what is expected (MCP-17).
    pub(super) fn check(&self, arguments: &Arguments) -> Result<(), String> {
        self.takes.check(arguments)
    }
}

fn members(schema: Value) -> Map<String, Value> {
    match schema {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

#[derive(Serialize)]
struct Text<'t> {
    r#type: &'static str,
    text: &'t str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToolResult<'t, D: Serialize> {
    content: [Text<'t>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    structured_content: Option<&'t D>,
    is_error: bool,
}

/// A tool's answer: text for reading, and the same as data.
pub(crate) fn answered(text: &str, data: &impl Serialize) -> Outcome {
    result(text, Some(data), false)
}

/// An error as a tool result, so that the model can try again.
pub(crate) fn problem(text: &str) -> Outcome {
    result(text, None::<&()>, true)
}

fn result(text: &str, data: Option<&impl Serialize>, is_error: bool) -> Outcome {
    let content = [Text { r#type: "text", text }];
    let written = serde_json::to_vec(&ToolResult { content, structured_content: data, is_error });
    let mut members = written.expect("what tools answer is JSON");
    members.pop();
    members.remove(0);
    Outcome::Result { members, meta: String::new(), is_error, links: Vec::new() }
}
