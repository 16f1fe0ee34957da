//! Which endpoints, scopes and tools there are, for the authorization side to ask.

use std::collections::BTreeMap;
use std::sync::Arc;

use shared::catalogue::{Catalogue, Endpoint, Risk, ScopeDescription, ToolDescription};
use shared::token_status::Ceiling;
use shared::{Issuer, ResourceUri, Scope};

use crate::gate::tools::Tools;
use crate::policy::{Decision, Needs};

/// Where the MCP endpoint is.
pub const MCP_PATH: &str = "/mcp";
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
    #[error("there is no tool `{0}`")]
    NoSuchTool(String),
    #[error("the tool `{0}` needs only a valid token and cannot be mapped to scopes")]
    NeedsNoScope(String),
}

/// A decision of the gate's, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explained {
    /// The word for it on record: `allow`, `scope_missing`, `not_entitled`, `above_ceiling`, `unknown`.
    pub decision: &'static str,
    /// The scopes that the tool needs; `None` for one that needs only a valid token, or is not there.
    pub needs: Option<Scope>,
    /// The scopes that the decision turns on.
    pub lacking: Scope,
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
    /// Whether a tool can be mapped to scopes.
    ///
    /// # Errors
    /// If there is no such tool, or it needs none.
    pub fn check_tool(name: &str) -> Result<(), UnknownTool> {
        Tools::built_in(&[(name.to_owned(), Scope::empty())].into()).map(drop)
    }

    fn high_risk(&self) -> Scope {
        self.scopes.iter().filter(|rule| rule.description.risk == Risk::High).map(ScopeRule::name).collect()
    }
}

/// What is built in: one endpoint, with the documentation behind it. Cheap to clone, and needs
/// nothing that the authorization side provides.
#[derive(Clone)]
pub struct BuiltIn {
    own: Issuer,
    issuer: Issuer,
    resource: ResourceUri,
    scopes: Arc<[ScopeRule]>,
    tools: Arc<Tools>,
    /// Whether the endpoint is served by this process.
    served: bool,
}

impl BuiltIn {
    /// The catalogue of a server with this issuer.
    ///
    /// # Errors
    /// If there is a rule for a tool that cannot have one.
    pub fn new(issuer: &Issuer, rules: &Rules) -> Result<Self, UnknownTool> {
        Self::at(issuer, issuer, rules)
    }

    /// The catalogue of a resource server at an origin of its own, for tokens of an issuer elsewhere.
    ///
    /// # Errors
    /// As [`BuiltIn::new`].
    pub fn at(own: &Issuer, issuer: &Issuer, rules: &Rules) -> Result<Self, UnknownTool> {
        Ok(Self {
            own: own.clone(),
            issuer: issuer.clone(),
            resource: ResourceUri::at(own, MCP_PATH),
            tools: Arc::new(Tools::built_in(&rules.tools)?.with_high_risk(rules.high_risk())),
            scopes: rules.scopes.as_slice().into(),
            served: true,
        })
    }

    /// Every tool with the scopes it needs; none for one that needs only a valid token.
    pub fn needs(&self) -> impl Iterator<Item = (&str, Option<&Scope>)> {
        self.tools.iter().map(|tool| match tool.needs() {
            Needs::User => (tool.name(), None),
            Needs::Scopes(scope) => (tool.name(), Some(scope)),
        })
    }

    /// What the gate decides about a call, and why.
    pub fn explain(&self, token: &Scope, entitled: &Scope, ceiling: Ceiling, tool: &str) -> Explained {
        let decision = self.tools.decide(token, entitled, ceiling, tool);
        let needs = self.needs().find(|(name, _)| *name == tool).and_then(|(_, needs)| needs.cloned());
        let lacking = match &decision {
            Decision::ScopeMissing { needed } => needed.clone(),
            Decision::AboveCeiling { beyond } => beyond.clone(),
            Decision::NotEntitled => {
                needs.iter().flat_map(Scope::iter).filter(|scope| !entitled.contains(scope)).collect()
            }
            Decision::Allow | Decision::NoUser | Decision::Unknown => Scope::empty(),
        };
        Explained { decision: decision.as_str(), needs, lacking }
    }

    /// The same without an endpoint: scopes and their words, for endpoints elsewhere.
    #[must_use]
    pub fn without_endpoint(self) -> Self {
        Self { served: false, ..self }
    }

    /// Every scope with its risk, whether some tool needs it or not.
    pub fn risks(&self) -> impl Iterator<Item = (String, Risk)> {
        self.scopes.iter().map(|rule| (rule.description.name.clone(), rule.description.risk))
    }

    /// The origin that the endpoint is at.
    pub(crate) fn own(&self) -> &Issuer {
        &self.own
    }

    /// Whose tokens it takes.
    pub(crate) fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    pub(crate) fn tools(&self) -> &Arc<Tools> {
        &self.tools
    }

    /// The one endpoint.
    pub(crate) fn mcp(&self) -> Endpoint {
        Endpoint {
            resource: self.resource.clone(),
            name: "Portcullis".to_owned(),
            default_scope: self.default_scope(),
        }
    }

    /// The scopes that some tool needs.
    fn needed(&self) -> impl Iterator<Item = &ScopeRule> {
        let needed = self.tools.scopes();
        self.scopes.iter().filter(move |rule| needed.contains(rule.name()))
    }
}

impl ScopeRule {
    fn name(&self) -> &str {
        &self.description.name
    }
}

impl Catalogue for BuiltIn {
    fn endpoints(&self) -> Vec<Endpoint> {
        if self.served { vec![self.mcp()] } else { Vec::new() }
    }

    fn scopes(&self) -> Vec<ScopeDescription> {
        self.needed().map(|rule| rule.description.clone()).collect()
    }

    fn default_scope(&self) -> Scope {
        self.needed().filter(|rule| rule.default).map(ScopeRule::name).collect()
    }

    fn usable(&self, resource: &ResourceUri, entitled: &Scope) -> Vec<ToolDescription> {
        if *resource != self.resource || !self.served {
            return Vec::new();
        }
        let decide = |name: &str| self.tools.decide(entitled, entitled, Ceiling::Any, name);
        let allowed = |name: &str| decide(name) == Decision::Allow;
        self.tools
            .iter()
            .filter(|tool| allowed(tool.name()))
            .map(|tool| ToolDescription { name: tool.name().to_owned(), title: tool.title().to_owned() })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(rules: &Rules) -> BuiltIn {
        BuiltIn::new(&Issuer::localhost(8080), rules).unwrap()
    }

    fn usable(catalogue: &BuiltIn, path: &str, entitled: &str) -> Vec<String> {
        let resource = ResourceUri::at(&Issuer::localhost(8080), path);
        let tools = catalogue.usable(&resource, &entitled.parse().unwrap());
        tools.into_iter().map(|tool| tool.name).collect()
    }

    fn rule(name: &str, default: bool) -> ScopeRule {
        let description = ScopeDescription {
            name: name.to_owned(),
            title: name.to_uppercase(),
            risk: Risk::High,
            risk_text: None,
        };
        ScopeRule { description, default }
    }

    #[test]
    fn what_somebody_may_use_follows_the_policy() {
        let catalogue = built(&Rules::default());
        assert_eq!(usable(&catalogue, "/mcp", ""), ["whoami"]);
        assert_eq!(usable(&catalogue, "/mcp", "docs.read x"), ["docs_read", "docs_search", "whoami"]);
        assert!(usable(&catalogue, "/mcp/", "docs.read").is_empty());
    }

    /// Every scope that a tool or an endpoint names can be described on a consent page.
    #[test]
    fn every_scope_has_words() {
        let catalogue = built(&Rules::default());
        let described: Scope = catalogue.scopes().iter().map(|scope| scope.name.as_str()).collect();
        assert!(catalogue.mcp().default_scope.is_subset(&described));
        assert!(catalogue.tools().scopes().is_subset(&described));
    }

    /// MCP-08: the defaults map every tool that can be mapped; one that no rule maps is denied.
    #[test]
    fn a_tool_without_a_rule_is_denied() {
        let mut rules = Rules::default();
        let mappable = |name: &&str| Rules::check_tool(name).is_ok();
        let catalogue = built(&rules);
        let tools: Vec<_> = catalogue.needs().map(|(name, _)| name).filter(mappable).collect();
        assert!(tools.into_iter().eq(rules.tools.keys()));
        rules.tools.remove("docs_read");
        assert_eq!(usable(&built(&rules), "/mcp", "docs.read"), ["docs_search", "whoami"]);
    }

    /// META-07: the minimal useful set. What no tool needs is asked for by nobody.
    #[test]
    fn scopes_are_those_that_tools_need() {
        let mut rules = Rules::default();
        rules.scopes.extend([rule("docs.archive", true), rule("docs.secret", false), rule("idle", true)]);
        rules.tools.insert("docs_read".to_owned(), "docs.archive docs.secret".parse().unwrap());
        let catalogue = built(&rules);
        assert_eq!(catalogue.mcp().default_scope.to_string(), "docs.archive docs.read");
        let names: Vec<_> = catalogue.scopes().into_iter().map(|scope| scope.name).collect();
        assert_eq!(names, ["docs.read", "docs.archive", "docs.secret"]);
        assert_eq!(usable(&catalogue, "/mcp", "docs.archive docs.read"), ["docs_search", "whoami"]);
    }

    #[test]
    fn some_tools_cannot_be_mapped() {
        let refused = |name: &str| Rules::check_tool(name).unwrap_err();
        assert_eq!(refused("whoami"), UnknownTool::NeedsNoScope("whoami".to_owned()));
        assert_eq!(refused("Docs_read"), UnknownTool::NoSuchTool("Docs_read".to_owned()));
        let mut rules = Rules::default();
        rules.tools.insert("whoami".to_owned(), "docs.read".parse().unwrap());
        assert!(BuiltIn::new(&Issuer::localhost(8080), &rules).is_err());
    }
}
