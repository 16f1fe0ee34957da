//! Which endpoints, scopes and tools there are, for the authorization side to ask.

use std::sync::Arc;

use shared::catalogue::{Catalogue, Endpoint, Risk, ScopeDescription, ToolDescription};
use shared::token_status::Ceiling;
use shared::{Issuer, ResourceUri, Scope};

use crate::item::Kind;
use crate::policy::{Caller, Decision};
use crate::registry::Registry;
use crate::sources;

pub use crate::rules::{Rules, ScopeRule, UnknownTool};

/// Where the MCP endpoint is.
pub const MCP_PATH: &str = "/mcp";

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

impl Rules {
    /// Whether a tool can be mapped to scopes.
    ///
    /// # Errors
    /// If there is no such tool, or it needs none.
    pub fn check_tool(name: &str) -> Result<(), UnknownTool> {
        Registry::new(Self::default(), &sources::built_in()).snapshot().check_rule(name)
    }
}

/// What is built in: one endpoint, with the documentation behind it. Cheap to clone, and needs
/// nothing that the authorization side provides.
#[derive(Clone)]
pub struct BuiltIn {
    own: Issuer,
    issuer: Issuer,
    resource: ResourceUri,
    registry: Arc<Registry>,
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
        let catalogue = Self::unchecked(own, issuer, rules);
        let snapshot = catalogue.registry.snapshot();
        rules.tools.keys().try_for_each(|tool| snapshot.check_rule(tool))?;
        Ok(catalogue)
    }

    /// Without asking whether the rules are about tools that there are.
    fn unchecked(own: &Issuer, issuer: &Issuer, rules: &Rules) -> Self {
        Self {
            own: own.clone(),
            issuer: issuer.clone(),
            resource: ResourceUri::at(own, MCP_PATH),
            registry: Arc::new(Registry::new(rules.clone(), &sources::built_in())),
            served: true,
        }
    }

    /// For sources of which a test alone knows.
    #[cfg(test)]
    pub(crate) fn of_any(issuer: &Issuer, rules: &Rules) -> Self {
        Self::unchecked(issuer, issuer, rules)
    }

    /// Every tool with the scopes it needs; none for one that needs only a valid token.
    pub fn needs(&self) -> Vec<(String, Option<Scope>)> {
        let snapshot = self.registry.snapshot();
        let needs = snapshot.items(Kind::Tool);
        needs.map(|item| (item.offer.name.to_string(), item.needs.scopes().cloned())).collect()
    }

    /// What the gate decides about a call, and why.
    pub fn explain(&self, token: &Scope, entitled: &Scope, ceiling: Ceiling, tool: &str) -> Explained {
        let snapshot = self.registry.snapshot();
        let caller = Caller { scope: token, entitled, ceiling, has_user: true };
        let decision = snapshot.decide(Kind::Tool, tool, &caller);
        let needs = snapshot.find(Kind::Tool, tool).and_then(|item| item.needs.scopes().cloned());
        let lacking = match &decision {
            Decision::ScopeMissing { needed } => needed.clone(),
            Decision::AboveCeiling { beyond } => beyond.clone(),
            Decision::NotEntitled => needs.as_ref().map(|needs| needs.without(entitled)).unwrap_or_default(),
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
        self.registry.rules().scopes.iter().map(|rule| (rule.description.name.clone(), rule.description.risk))
    }

    /// The origin that the endpoint is at.
    pub(crate) fn own(&self) -> &Issuer {
        &self.own
    }

    /// Whose tokens it takes.
    pub(crate) fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
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
        let needed = self.registry.snapshot().scopes();
        self.registry.rules().scopes.iter().filter(move |rule| needed.contains(rule.name()))
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
        let caller = Caller { scope: entitled, entitled, ceiling: Ceiling::Any, has_user: true };
        let snapshot = self.registry.snapshot();
        let tools = snapshot.items(Kind::Tool).map(|item| &item.offer);
        tools
            .filter(|offer| snapshot.decide(offer.kind, &offer.name, &caller) == Decision::Allow)
            .map(|offer| ToolDescription { name: offer.name.to_string(), title: offer.title.clone() })
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
        assert!(catalogue.registry().snapshot().scopes().is_subset(&described));
    }

    /// MCP-08: the defaults map every tool that can be mapped; one that no rule maps is denied.
    #[test]
    fn a_tool_without_a_rule_is_denied() {
        let mut rules = Rules::default();
        let mappable = |name: &String| Rules::check_tool(name).is_ok();
        let catalogue = built(&rules);
        let tools: Vec<_> = catalogue.needs().into_iter().map(|(name, _)| name).filter(mappable).collect();
        assert!(tools.iter().eq(rules.tools.keys()));
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
