//! The tools: what each is called, needs, takes and does. One table, asked by lists, calls and the
//! catalogue alike.

use std::collections::BTreeMap;
use std::sync::Arc;

use rmcp::model::{CallToolResult, ContentBlock, Tool as Definition, ToolAnnotations};
use serde_json::{Map, Value};
use shared::token_status::Ceiling;
use shared::{ClientId, ResourceUri, Scope, shell};

use super::arguments;
use super::mirror::{self, Mirrored};
use crate::bearer::Checked;
use crate::catalogue::UnknownTool;
use crate::policy::{Decision, Needs, Policy};
use crate::sources::account;
use crate::sources::docs::{Docs, tools as documentation};

/// A tool.
#[derive(Clone, Debug)]
pub(crate) struct Tool {
    definition: Definition,
    needs: Needs,
    mirrored: Vec<Mirrored>,
    does: Does,
}

/// What is done when it is called.
#[derive(Clone, Copy, Debug)]
enum Does {
    Whoami,
    DocsSearch,
    DocsRead,
}

impl Tool {
    fn new(
        (name, title, description): (&'static str, &'static str, &'static str),
        needs: Needs,
        does: Does,
        [input, output]: [Value; 2],
    ) -> Self {
        let input = Arc::new(object(input));
        // Every tool here only reads, in a world that this server holds.
        let annotations = ToolAnnotations::with_title(title)
            .read_only(true)
            .destructive(false)
            .idempotent(true)
            .open_world(false);
        let definition = Definition::new(name, description, Arc::clone(&input))
            .with_title(title)
            .with_annotations(annotations)
            .with_raw_output_schema(Arc::new(object(output)));
        Self { definition, needs, mirrored: mirror::mirrored(&input), does }
    }

    pub(crate) fn name(&self) -> &str {
        &self.definition.name
    }

    pub(crate) fn title(&self) -> &str {
        self.definition.title.as_deref().unwrap_or(&self.definition.name)
    }

    pub(crate) fn needs(&self) -> &Needs {
        &self.needs
    }

    /// As a list shows it.
    pub(crate) fn definition(&self) -> &Definition {
        &self.definition
    }

    /// The arguments that it wants repeated in headers (MCP-05).
    pub(crate) fn mirrored(&self) -> &[Mirrored] {
        &self.mirrored
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// All tools, by name.
#[derive(Debug)]
pub(crate) struct Tools {
    tools: BTreeMap<String, Tool>,
    policy: Policy,
}

/// Who calls, and what with: all that a tool learns about a request.
pub(crate) struct Caller<'c> {
    pub(crate) checked: &'c Checked,
    pub(crate) resource: &'c ResourceUri,
    pub(crate) docs: &'c Arc<Docs>,
}

impl Tools {
    /// The tools that are always there, with what these rules say that they need.
    pub(crate) fn built_in(rules: &BTreeMap<String, Scope>) -> Result<Self, UnknownTool> {
        // One without a rule gets the empty set, which nobody satisfies.
        let ruled = |name| Needs::Scopes(rules.get(name).cloned().unwrap_or_default());
        let tool = |words: (&'static str, &'static str, &'static str), does, schemas| {
            Tool::new(words, ruled(words.0), does, schemas)
        };
        let tools = Self::new([
            Tool::new(account::WORDS, Needs::User, Does::Whoami, account::schemas()),
            tool(documentation::SEARCH, Does::DocsSearch, documentation::search_schemas()),
            tool(documentation::READ, Does::DocsRead, documentation::read_schemas()),
        ]);
        for name in rules.keys() {
            match tools.policy.needs(name) {
                None => return Err(UnknownTool::NoSuchTool(name.clone())),
                Some(Needs::User) => return Err(UnknownTool::NeedsNoScope(name.clone())),
                Some(Needs::Scopes(_)) => {}
            }
        }
        Ok(tools)
    }

    fn new(tools: impl IntoIterator<Item = Tool>) -> Self {
        let tools: BTreeMap<_, _> = tools.into_iter().map(|tool| (tool.name().to_owned(), tool)).collect();
        let policy = Policy::new(tools.iter().map(|(name, tool)| (name.clone(), tool.needs.clone())));
        Self { tools, policy }
    }

    /// The same, these scopes being none for a client that nobody vouches for (DCR-08).
    pub(crate) fn with_high_risk(self, high_risk: Scope) -> Self {
        Self { policy: self.policy.with_high_risk(high_risk), ..self }
    }

    /// In the order of their names, which never changes (MCP-10).
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Tool> {
        self.tools.values()
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Tool> {
        self.tools.get(name)
    }

    /// What a tool needs, as scopes; none for one that needs only a token, or does not exist.
    pub(crate) fn needs(&self, name: &str) -> Scope {
        match self.policy.needs(name) {
            Some(Needs::Scopes(scope)) => scope.clone(),
            Some(Needs::User) | None => Scope::empty(),
        }
    }

    /// Every scope that some tool needs.
    pub(crate) fn scopes(&self) -> Scope {
        self.tools.keys().fold(Scope::empty(), |all, name| all.union(&self.needs(name)))
    }

    /// The one decision about a tool for whoever calls: lists and calls ask alike.
    pub(crate) fn decide_for(&self, caller: &Checked, name: &str) -> Decision {
        let token = caller.token();
        if token.of_client() && matches!(self.policy.needs(name), Some(Needs::User)) {
            return Decision::NoUser;
        }
        self.decide(&token.scope, caller.entitled(), caller.ceiling(), name)
    }

    /// The decision about a tool for a user.
    pub(crate) fn decide(&self, token: &Scope, entitled: &Scope, ceiling: Ceiling, name: &str) -> Decision {
        self.policy.decide(token, entitled, ceiling, name)
    }

    /// The answer to a call that the client cannot be granted, whoever uses it: an error for the model to read
    /// out, because signing in again, which is what a 403 asks for, would end in the same place (DCR-08).
    pub(crate) fn withheld(client: &ClientId, beyond: &Scope) -> CallToolResult {
        said(Err(format!(
            "This tool needs {beyond}. That is high-risk, and nobody vouches for the client that you use, so it \
             cannot be granted here; signing in again does not change that. An administrator of this server \
             can verify the client: portcullis client verify {}",
            shell::word(client.as_str())
        )))
    }

    /// Calls a tool. The decision has been taken; only the arguments are still to be checked.
    pub(crate) async fn call(
        &self,
        tool: &Tool,
        arguments: Map<String, Value>,
        caller: Caller<'_>,
    ) -> CallToolResult {
        if let Err(problem) = arguments::check(&tool.definition.input_schema, &arguments) {
            return said(Err(problem));
        }
        said(match tool.does {
            Does::Whoami => {
                let withheld = self.policy.beyond(caller.checked.entitled(), caller.checked.ceiling());
                Ok(account::call(&caller, &withheld))
            }
            Does::DocsSearch => documentation::search(caller.docs, &arguments).await,
            Does::DocsRead => documentation::read(caller.docs, &arguments).await,
        })
    }
}

/// What a tool has to say: text for reading, and the same as data.
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) data: Value,
}

/// An error goes to the model as a result, so that it can try again.
fn said(result: Result<Said, String>) -> CallToolResult {
    match result {
        Ok(Said { text, data }) => {
            let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
            result.structured_content = Some(data);
            result
        }
        Err(problem) => CallToolResult::error(vec![ContentBlock::text(problem)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MCP-08: names on the wire, and words for people and models.
    #[test]
    fn every_tool_is_named_and_described() {
        for tool in Tools::built_in(&BTreeMap::new()).unwrap().iter() {
            let name = tool.name();
            assert!((1..=64).contains(&name.len()), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)), "{name}");
            assert_ne!(tool.title(), name);
            assert!(tool.definition.description.as_ref().is_some_and(|words| words.len() > 60), "{name}");
            let annotations = tool.definition.annotations.as_ref().unwrap();
            assert_eq!(annotations.read_only_hint, Some(true), "{name}");
            for schema in [&tool.definition.input_schema, tool.definition.output_schema.as_ref().unwrap()] {
                assert_eq!(schema["type"], "object", "{name}");
            }
            assert_eq!(tool.definition.input_schema["additionalProperties"], false, "{name}");
        }
    }

    /// Every argument is of a type that is checked, is described, and only the first is required.
    #[test]
    fn every_argument_is_described() {
        for tool in Tools::built_in(&BTreeMap::new()).unwrap().iter() {
            let schema = &tool.definition.input_schema;
            assert!(schema.get("required").and_then(Value::as_array).is_none_or(|names| names.len() == 1));
            for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten()
            {
                assert!(matches!(property["type"].as_str(), Some("string" | "integer")), "{name}");
                assert!(property["description"].as_str().is_some_and(|words| words.len() > 20), "{name}");
            }
        }
    }
}
