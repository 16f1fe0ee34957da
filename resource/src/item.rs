//! Items behind the gate: a kind and a name (MCP-08), and what callers need.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use http::HeaderName;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use shared::Scope;

use crate::argument_rules::ArgumentRules;
use crate::call_limits::{Bounds, CallLimits};
use crate::uri::{CanonicalUri, UriTemplate};

/// What an item is. Each kind has its own list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Tool,
    Prompt,
    Resource,
    Template,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Tool, Self::Prompt, Self::Resource, Self::Template];

    /// The word for one of them.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Prompt => "prompt",
            Self::Resource => "resource",
            Self::Template => "resource template",
        }
    }
}

/// An item in the registry: its source's offer under the site's rules.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) offer: Arc<Offer>,
    /// Its source.
    pub(crate) source: SourceName,
    pub(crate) needs: Needs,
    /// Whether a call may change something: by the rule, or else by the source.
    pub(crate) effect: Effect,
    /// Its name for people.
    pub(crate) title: String,
    /// Its definition in lists: the source's bytes, with title and description replaced if the rule says so.
    pub(crate) listed: Box<RawValue>,
    /// The rule that governs it, with its line.
    pub(crate) rule: Ruling,
    /// The rules about its arguments (POL-02).
    pub(crate) arguments: ArgumentRules,
    /// The arguments that its schema names; only filled if there are rules about arguments.
    pub(crate) named: BTreeSet<String>,
    /// How often it may be used (LIMIT-01).
    pub(crate) limits: CallLimits,
    /// How long a use may take, and how large it may be (LIMIT-03, LIMIT-04).
    pub(crate) bounds: Bounds,
    /// The tool whose uses are counted together with its own, because it gives away the same and has the rule.
    pub(crate) counts_as: Option<&'static str>,
}

/// The rule that governs an item (POL-01).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ruling {
    /// None: its source says what it needs; otherwise it cannot be used.
    None,
    By(String),
    /// Two equally specific rules. Neither applies, so it cannot be used.
    Tied([String; 2]),
}

/// An item as its source offers it.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) kind: Kind,
    /// The name that rules, limits and records use (SRC-03). Tools and prompts have the same one on the wire; a resource or
    /// template is called `<source>_<URI>`.
    pub(crate) name: Arc<str>,
    /// What its source calls it (SRC-03): a name, a URI or a URI template.
    pub(crate) at_source: Arc<str>,
    /// Which URIs it answers for, if it is a resource or a template.
    pub(crate) address: Option<Address>,
    /// Its name for people.
    pub(crate) title: String,
    /// Its definition: one JSON object as its source wrote it (SRC-05).
    pub(crate) listed: Box<RawValue>,
    /// Whether its output schema is one that older revisions do not support (SRC-06).
    pub(crate) modern_output: bool,
    pub(crate) effect: Effect,
    /// What it needs regardless of the rules; `None` leaves it to them.
    pub(crate) needs: Option<Needs>,
    /// The tool whose rule counts if none is about the item itself: both give away the same.
    pub(crate) like: Option<&'static str>,
    /// The arguments that must be repeated in headers (MCP-05).
    pub(crate) mirrored: Vec<Mirrored>,
}

impl Offer {
    /// The tool that reads the documentation.
    pub(crate) const READS_DOCS: &'static str = "docs_read";

    /// What rules call a resource or a template of this source.
    pub(crate) fn resource_name(source: &SourceName, uri: &str) -> String {
        format!("{source}_{uri}")
    }

    /// The schema of its arguments, if it has a readable one.
    pub(crate) fn schema(&self) -> Option<Value> {
        let mut definition: Value = serde_json::from_str(self.listed.get()).ok()?;
        match self.kind {
            Kind::Tool => Some(definition.get_mut("inputSchema")?.take()),
            Kind::Prompt => Some(schema_of_prompt(&definition)),
            Kind::Resource | Kind::Template => None,
        }
    }

    /// The top-level arguments that its schema names.
    pub(crate) fn named_arguments(&self) -> BTreeSet<String> {
        let schema = self.schema();
        let properties = schema.as_ref().and_then(|schema| schema.get("properties")?.as_object());
        properties.map(|properties| properties.keys().cloned().collect()).unwrap_or_default()
    }
}

/// A prompt takes the arguments that it lists, and each of them is text.
fn schema_of_prompt(definition: &Value) -> Value {
    let listed = definition["arguments"].as_array().into_iter().flatten();
    let names = listed.filter_map(|argument| argument["name"].as_str());
    let properties: Map<_, _> = names.map(|name| (name.to_owned(), json!({ "type": "string" }))).collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

/// Which URIs an item answers for (SRC-04).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Address {
    One(CanonicalUri),
    All(UriTemplate),
}

impl Ruling {
    /// The rule, or the two that tie.
    pub(crate) fn rules(&self) -> &[String] {
        match self {
            Self::None => &[],
            Self::By(rule) => std::slice::from_ref(rule),
            Self::Tied(rules) => rules,
        }
    }
}

/// Everything that a source offers, from one complete listing. Immutable.
#[derive(Clone, Debug)]
pub(crate) struct Offered {
    pub(crate) source: SourceName,
    pub(crate) offers: Vec<Arc<Offer>>,
    /// What the source is, if each user gives it a secret of their own (SRC-10).
    pub(crate) own_secret: Option<Arc<str>>,
}

/// How many items of each kind there are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Counts {
    pub tools: usize,
    pub prompts: usize,
    pub resources: usize,
    pub templates: usize,
}

impl Counts {
    pub(crate) fn by(count: impl Fn(Kind) -> usize) -> Self {
        Self {
            tools: count(Kind::Tool),
            prompts: count(Kind::Prompt),
            resources: count(Kind::Resource),
            templates: count(Kind::Template),
        }
    }
}

impl Offered {
    pub(crate) fn counts(&self) -> Counts {
        Counts::by(|kind| self.offers.iter().filter(|offer| offer.kind == kind).count())
    }
}

/// The name of a source, unique among them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct SourceName(Arc<str>);

impl SourceName {
    /// The documentation.
    pub(crate) const DOCS: &'static str = "docs";

    /// Whether it is the documentation that comes with this program.
    pub(crate) fn is_docs(&self) -> bool {
        &*self.0 == Self::DOCS
    }
}

impl From<&str> for SourceName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a caller needs to use an item.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Needs {
    /// A valid token with a user, with any scope.
    User,
    /// All of these scopes; `high_risk` of them are withheld from unverified clients (DCR-08). An empty set is
    /// never satisfied: the item has no rule.
    Scopes { all: Scope, high_risk: Scope },
    /// It cannot be used: the site hides it.
    Hidden,
}

impl Needs {
    /// The scopes; `None` if scopes do not decide.
    pub(crate) fn scopes(&self) -> Option<&Scope> {
        match self {
            Self::User | Self::Hidden => None,
            Self::Scopes { all, .. } => Some(all),
        }
    }
}

/// Whether a call may change something. An item that is not known to be read-only counts as writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    ReadOnly,
    Writes,
}

impl Effect {
    /// The effect of an item that is or is not read-only.
    pub(crate) fn of(reads_only: bool) -> Self {
        if reads_only { Self::ReadOnly } else { Self::Writes }
    }
}

/// The arguments of a call: one strictly parsed JSON object.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Arguments(Value);

impl From<Map<String, Value>> for Arguments {
    fn from(members: Map<String, Value>) -> Self {
        Self(Value::Object(members))
    }
}

impl Arguments {
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The object as a value, to compare or digest it as a whole.
    pub(crate) fn value(&self) -> &Value {
        &self.0
    }
}

/// An argument that a schema requires to be repeated in a header (`x-mcp-header`).
#[derive(Clone, Debug)]
pub(crate) struct Mirrored {
    pub(crate) header: HeaderName,
    pub(crate) path: Vec<String>,
}

/// The prefix of these headers.
const PARAM_PREFIX: &str = "mcp-param-";

impl Mirrored {
    /// The annotations of a schema that are reached from its root through `properties` only.
    pub(crate) fn in_schema(schema: &Value) -> Vec<Self> {
        let mut found = Vec::new();
        collect(schema.get("properties"), &[], &mut found);
        found
    }

    /// The same for a third-party schema, if each annotation is valid by MCP 2026-07-28: a unique token, on a
    /// primitive property that is reached through `properties` only (streamable HTTP, schema extension).
    ///
    /// # Errors
    /// What is wrong, in words: a tool with such a schema is not offered (SRC-05).
    pub(crate) fn checked(schema: &Value) -> Result<Vec<Self>, String> {
        let found = Self::in_schema(schema);
        if annotations(schema) != found.len() {
            return Err(
                "an `x-mcp-header` in its schema is not a header name, or not on a plain property".to_owned()
            );
        }
        let mut names = BTreeSet::new();
        for one in &found {
            let property =
                one.path.iter().try_fold(schema, |schema, name| schema.get("properties")?.get(name));
            let kind = property.and_then(|property| property.get("type")).and_then(Value::as_str);
            if !matches!(kind, Some("string" | "integer" | "boolean")) {
                return Err(format!(
                    "`x-mcp-header` is set on `{}`, which is not a string, integer or boolean",
                    one.path.join(".")
                ));
            }
            if one.header.as_str() == PARAM_PREFIX {
                return Err("an `x-mcp-header` in its schema is empty".to_owned());
            }
            if !names.insert(one.header.as_str()) {
                return Err(format!("two properties want the header `{}`", one.header));
            }
        }
        Ok(found)
    }

    /// Its value in the arguments; null counts as absent.
    pub(crate) fn value<'a>(&self, arguments: &'a Arguments) -> Option<&'a Value> {
        let value = self.path.iter().try_fold(arguments.value(), |value, name| value.get(name))?;
        (!value.is_null()).then_some(value)
    }
}

/// The number of annotations anywhere in a schema. A property may have the same name as the annotation.
fn annotations(schema: &Value) -> usize {
    match schema {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| match (name.as_str(), value) {
                ("x-mcp-header", _) => 1,
                // These members hold data and not schemas.
                ("const" | "default" | "enum" | "examples", _) => 0,
                ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(named)) => {
                    named.values().map(annotations).sum()
                }
                (_, value) => annotations(value),
            })
            .sum(),
        Value::Array(items) => items.iter().map(annotations).sum(),
        _ => 0,
    }
}

fn collect(properties: Option<&Value>, path: &[String], found: &mut Vec<Mirrored>) {
    let Some(Value::Object(properties)) = properties else {
        return;
    };
    for (name, schema) in properties {
        let path: Vec<_> = path.iter().chain([name]).cloned().collect();
        if let Some(Value::String(header)) = schema.get("x-mcp-header")
            && let Ok(header) = HeaderName::try_from(format!("{PARAM_PREFIX}{header}"))
        {
            found.push(Mirrored { header, path: path.clone() });
        }
        collect(schema.get("properties"), &path, found);
    }
}
