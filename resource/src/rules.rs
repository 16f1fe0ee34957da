//! What the site's configuration says about scopes and items.

use std::collections::BTreeMap;

use shared::Scope;
use shared::catalogue::{Risk, ScopeDescription};

/// Reading the documentation.
const DOCS_READ: &str = "docs.read";

/// Which scopes there are, and which of them a tool needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    pub scopes: Vec<ScopeRule>,
    /// All of the scopes are needed. A tool that is not in here is denied (MCP-08).
    pub tools: BTreeMap<String, Scope>,
}

/// A scope that may be granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScopeRule {
    pub description: ScopeDescription,
    /// Whether the first challenge of an endpoint asks for it, where a tool needs it (META-07).
    pub default: bool,
}

/// A rule about a tool that cannot have one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnknownTool {
    #[error("no tool `{0}`")]
    NoSuchTool(String),
    #[error("the tool `{0}` needs only a valid token and cannot be mapped to scopes")]
    NeedsNoScope(String),
}

impl Default for Rules {
    /// What holds if nobody says otherwise: the documentation, for its scope.
    fn default() -> Self {
        let docs = ScopeRule {
            description: ScopeDescription {
                name: DOCS_READ.to_owned(),
                title: "Search and read the documentation".to_owned(),
                risk: Risk::Low,
                risk_text: None,
            },
            default: true,
        };
        let needs_docs = |tool: &str| (tool.to_owned(), [DOCS_READ].into_iter().collect());
        Self { scopes: vec![docs], tools: ["docs_read", "docs_search"].map(needs_docs).into() }
    }
}

impl Rules {
    /// The scopes that can do harm in the wrong hands.
    pub(crate) fn high_risk(&self) -> Scope {
        self.scopes.iter().filter(|rule| rule.description.risk == Risk::High).map(ScopeRule::name).collect()
    }
}

impl ScopeRule {
    pub(crate) fn name(&self) -> &str {
        &self.description.name
    }
}
