//! The endpoints, scopes and tools, for the authorization side.

use std::sync::Arc;

use serde_json::{Map, Value};
use shared::catalogue::{Catalogue, Endpoint, OwnSecret, Risk, ScopeDescription, ToolDescription};
use shared::db::Conn;
use shared::token_status::Ceiling;
use shared::{Fault, Issuer, ResourceUri, Scope};

use crate::item::{Arguments, Item, Needs};
use crate::policy::{self, Caller, Decision};
use crate::registry::{Registry, RequestedItem, Site, Snapshot};
use crate::replay::{self, Recorded, Replayed};
use crate::sources::declared::DeclaredSource;
use crate::sources::{self, Others, SourceSettings};

pub use crate::rules::{
    ArgumentRule, ArgumentRules, AtOnce, Bounds, CallLimits, Conditions, DoubtfulRule, Effect,
    InvalidArgumentRule, InvalidLimit, InvalidPattern, InvalidResourcePattern, ItemRule, ItemRules, Kind,
    LimitRules, Pattern, ProfileRule, Rate, Rules, ScopeRule, UnusableRule,
};

/// A hypothetical call.
#[derive(Clone, Copy, Debug)]
pub struct Question<'q> {
    /// The token's scope.
    pub token: &'q Scope,
    /// The user's entitlement.
    pub entitled: &'q Scope,
    pub ceiling: Ceiling,
    pub kind: Kind,
    /// The name of a tool or prompt, or the URI of a resource.
    pub name: &'q str,
    /// At this profile; at `/mcp` if none is named.
    pub profile: Option<&'q str>,
    /// Its arguments; `None` to ignore argument rules.
    pub arguments: Option<&'q Map<String, Value>>,
}

/// A decision of the gate, for display.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExplainedDecision {
    /// The word for it on record: `allow`, `scope_missing`, `not_entitled`, `above_ceiling`, `argument_denied`, `hidden`,
    /// `unknown`.
    pub decision: &'static str,
    /// The scopes that the tool needs; `None` if it needs only a valid token, is hidden, or does not exist.
    pub needs: Option<Scope>,
    /// The scopes that decide.
    pub lacking: Scope,
    /// The rule for the tool with its line, or the two that tie.
    pub ruling: Vec<String>,
    /// What the rule allows, if an argument is refused.
    pub allowed: Option<String>,
    /// The places that its rules about arguments name, where the call's arguments are not known.
    pub unchecked: Vec<String>,
    /// What rules call the item.
    pub name: String,
}

/// What a tool needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToolNeeds {
    /// A valid token, whatever its scopes.
    Token,
    /// All of these scopes; never satisfied if empty.
    Scopes(Scope),
    /// Hidden: it cannot be used.
    Nothing,
}

impl ToolNeeds {
    fn of(needs: &Needs) -> Self {
        match needs {
            Needs::User => Self::Token,
            Needs::Scopes { all, .. } => Self::Scopes(all.clone()),
            Needs::Hidden => Self::Nothing,
        }
    }
}

impl Rules {
    /// Whether this tool needs only a valid token.
    pub fn needs_no_scope(name: &str) -> bool {
        let snapshot = built_in();
        snapshot.find(Kind::Tool, name).is_some_and(|item| item.offer.needs == Some(Needs::User))
    }

    /// Whether there can be this rule about exactly this item.
    ///
    /// # Errors
    /// If there is no such item, or it needs no scope and the rule names one.
    pub fn check_item(kind: Kind, name: &str, rule: &ItemRule) -> Result<(), UnusableRule> {
        built_in().check_rule(kind, name, rule)
    }
}

/// The items that always exist.
fn built_in() -> Snapshot {
    let anywhere = Issuer::localhost(8080);
    let site = Site { own: anywhere.clone(), issuer: anywhere };
    Snapshot::merge(&site, &sources::built_in(), &Arc::default()).0
}

/// The items behind this server's endpoints. Cheap to clone, and independent of the authorization side.
#[derive(Clone)]
pub struct BuiltIn {
    registry: Arc<Registry>,
    /// Whether this process serves the endpoints.
    served: bool,
}

impl BuiltIn {
    /// The catalogue of a server with this issuer.
    ///
    /// # Errors
    /// If a rule cannot apply to its tool, or two rules tie.
    pub fn new(issuer: &Issuer, rules: &Rules) -> Result<Self, UnusableRule> {
        Self::at(issuer, issuer, rules)
    }

    /// The catalogue of a gateway with its own origin, for tokens of an issuer elsewhere.
    ///
    /// # Errors
    /// As [`BuiltIn::new`].
    pub fn at(own: &Issuer, issuer: &Issuer, rules: &Rules) -> Result<Self, UnusableRule> {
        let catalogue = Self::unchecked(own, issuer, rules);
        catalogue.registry.snapshot().check_rules()?;
        Ok(catalogue)
    }

    /// Without checking that the rules' tools exist.
    fn unchecked(own: &Issuer, issuer: &Issuer, rules: &Rules) -> Self {
        let site = Site { own: own.clone(), issuer: issuer.clone() };
        let registry = Registry::new(site, rules.clone(), &sources::built_in());
        Self { registry: Arc::new(registry), served: true }
    }

    /// Adds what these servers listed before, without contacting them (SRC-02), and what the configuration declares.
    ///
    /// # Errors
    /// A database fault.
    pub fn remember(
        &self,
        conn: &Conn<'_>,
        sources: &[SourceSettings],
        declared: &[DeclaredSource],
    ) -> Result<(), Fault> {
        let mut offered = sources::built_in();
        offered.extend(sources::declared_offers(declared));
        offered.extend(sources::remembered(conn, sources)?);
        self.registry.replace(&offered);
        Ok(())
    }

    /// Adds what the configuration declares, where there is no database yet.
    pub fn declare(&self, declared: &[DeclaredSource]) {
        let mut offered = sources::built_in();
        offered.extend(sources::declared_offers(declared));
        self.registry.replace(&offered);
    }

    /// For sources that only a test knows.
    #[cfg(test)]
    pub(crate) fn of_any(issuer: &Issuer, rules: &Rules) -> Self {
        Self::unchecked(issuer, issuer, rules)
    }

    /// Every item of a kind with what opens it.
    pub fn needs(&self, kind: Kind) -> Vec<(String, ToolNeeds)> {
        let snapshot = self.registry.snapshot();
        let items = snapshot.items(kind);
        items.map(|item| (item.offer.name.to_string(), ToolNeeds::of(&item.needs))).collect()
    }

    /// Possible mistakes in the rules (POL-05).
    pub fn doubts(&self) -> Vec<DoubtfulRule> {
        self.registry.snapshot().doubts()
    }

    /// What the gate decides about a call, and why: with these arguments, or before any are looked at.
    pub fn explain(&self, asked: &Question<'_>) -> ExplainedDecision {
        let Question { token, entitled, ceiling, kind, name, profile, arguments } = *asked;
        let snapshot = self.registry.snapshot();
        let caller = Caller { scope: token, entitled, ceiling, has_user: true };
        let seek = |kind| snapshot.seek_at(snapshot.profile(profile)?, &RequestedItem::new(kind, name));
        // A resource may be a template, as it is listed.
        let item = seek(kind).or_else(|| seek(Kind::Template).filter(|_| kind == Kind::Resource));
        let item = item.as_deref();
        let decision = match (item, arguments) {
            (None, _) => Decision::Unknown,
            (Some(item), None) => policy::decide(&item.needs, &caller),
            (Some(item), Some(arguments)) => {
                policy::decide_call(item, &caller, &Arguments::from(arguments.clone()))
            }
        };
        let needs = item.and_then(|item| item.needs.scopes().cloned());
        let lacking = match &decision {
            Decision::ScopeMissing { needed } => needed.clone(),
            Decision::AboveCeiling { beyond } => beyond.clone(),
            Decision::NotEntitled => needs.as_ref().map(|needs| needs.without(entitled)).unwrap_or_default(),
            Decision::Allow
            | Decision::NoUser
            | Decision::Hidden
            | Decision::ArgumentDenied { .. }
            | Decision::Unknown => Scope::empty(),
        };
        let allowed = match &decision {
            Decision::ArgumentDenied { violation } => Some(violation.allowed.clone()),
            _ => None,
        };
        let ruling = item.map(|item| item.rule.rules().to_vec()).unwrap_or_default();
        let ruled = item.filter(|_| arguments.is_none()).into_iter().flat_map(|item| item.arguments.iter());
        let unchecked = ruled.map(|rule| rule.pointer().to_string()).collect();
        let name = item.map_or_else(|| name.to_owned(), |item| item.offer.name.to_string());
        ExplainedDecision { decision: decision.as_str(), needs, lacking, ruling, allowed, unchecked, name }
    }

    /// What the source of this name is, if each user gives it a secret of their own; the error has the names of those that
    /// there are.
    ///
    /// # Errors
    /// If there is no such source.
    pub fn own_secret_of(&self, source: &str) -> Result<String, Vec<String>> {
        let snapshot = self.registry.snapshot();
        let found = snapshot.own_secrets().find(|(name, _)| name.to_string() == source);
        found
            .map(|(_, target)| target.to_string())
            .ok_or_else(|| snapshot.own_secrets().map(|(name, _)| name.to_string()).collect())
    }

    /// Whether the rules are about tools that there are, by what is remembered now (POL-05).
    ///
    /// # Errors
    /// As [`BuiltIn::new`].
    pub fn check(&self) -> Result<(), UnusableRule> {
        self.registry.snapshot().check_rules()
    }

    /// The names of the profiles.
    pub fn profiles(&self) -> Vec<String> {
        self.registry.snapshot().rules().profiles.keys().cloned().collect()
    }

    /// The endpoint of a profile.
    pub fn endpoint_of(&self, profile: &str) -> Option<ResourceUri> {
        Some(self.registry.snapshot().profile(Some(profile))?.uri().clone())
    }

    /// The items of a kind that are reached at a profile; at `/mcp` if none is named.
    pub fn names_at(&self, kind: Kind, profile: Option<&str>) -> Vec<String> {
        let snapshot = self.registry.snapshot();
        let Some(profile) = snapshot.profile(profile) else { return Vec::new() };
        snapshot.items_at(profile, kind).map(|item| item.offer.name.to_string()).collect()
    }

    /// Checks that these rules could replace the current ones for the current items (POL-04).
    ///
    /// # Errors
    /// As [`BuiltIn::new`].
    pub fn check_rules(&self, rules: &Arc<Rules>) -> Result<(), UnusableRule> {
        self.registry.under(rules, None).check_rules()
    }

    /// The same with these servers, for what they are remembered to offer.
    ///
    /// # Errors
    /// The database's fault; the inner error is as that of [`BuiltIn::new`].
    pub fn check_rules_with(
        &self,
        rules: &Arc<Rules>,
        servers: &Others,
        conn: &Conn<'_>,
    ) -> Result<Result<(), UnusableRule>, Fault> {
        let mut offered = sources::built_in();
        offered.extend(servers.offered(conn)?);
        Ok(self.registry.under(rules, Some(&offered)).check_rules())
    }

    /// Replaces the rules and runs `together` in the same step (POL-04).
    pub fn replace_rules(&self, rules: Arc<Rules>, together: impl FnOnce()) {
        self.registry.replace_all(rules, None, together);
    }

    /// The decision about a recorded call under another catalogue's rules. The user has the first entitlement
    /// here and the second there (POL-06).
    pub fn replay(&self, call: &Recorded, other: &Self, entitled: [&Scope; 2]) -> Replayed {
        let [here, there] = entitled;
        replay::compare(call, (&self.registry.snapshot(), here), (&other.registry.snapshot(), there))
    }

    /// The catalogue without an endpoint: scopes and their descriptions, for endpoints elsewhere.
    #[must_use]
    pub fn without_endpoint(self) -> Self {
        Self { served: false, ..self }
    }

    /// All scopes with their risks, needed by a tool or not.
    pub fn risks(&self) -> Vec<(String, Risk)> {
        let snapshot = self.registry.snapshot();
        let scopes = snapshot.rules().scopes.iter();
        scopes.map(|rule| (rule.description.name.clone(), rule.description.risk)).collect()
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }
}

/// The rules of scopes that a tool needs.
fn needed(snapshot: &Snapshot) -> impl Iterator<Item = &ScopeRule> {
    let needed = snapshot.scopes();
    snapshot.rules().scopes.iter().filter(move |rule| needed.contains(rule.name()))
}

fn described(snapshot: &Snapshot, item: &Item) -> ToolDescription {
    let needs = item.needs.scopes();
    let is_high = |rule: &&ScopeRule| rule.description.risk == Risk::High;
    let mut high = snapshot.rules().scopes.iter().filter(is_high);
    let risk = if high.any(|rule| needs.is_some_and(|needs| needs.contains(rule.name()))) {
        Risk::High
    } else {
        Risk::Low
    };
    ToolDescription { name: item.offer.name.to_string(), title: item.title.clone(), risk }
}

impl Catalogue for BuiltIn {
    fn endpoints(&self) -> Vec<Endpoint> {
        let snapshot = self.registry.snapshot();
        let served = snapshot.profiles().filter(|_| self.served);
        served.map(|profile| profile.endpoint().clone()).collect()
    }

    fn scopes(&self) -> Vec<ScopeDescription> {
        needed(&self.registry.snapshot()).map(|rule| rule.description.clone()).collect()
    }

    fn default_scope(&self) -> Scope {
        let snapshot = self.registry.snapshot();
        snapshot.rules().default_among(&snapshot.scopes())
    }

    fn usable(&self, resource: &ResourceUri, entitled: &Scope) -> Vec<ToolDescription> {
        let caller = Caller { scope: entitled, entitled, ceiling: Ceiling::Any, has_user: true };
        let snapshot = self.registry.snapshot();
        let Some(profile) = snapshot.profile_of(resource).filter(|_| self.served) else { return Vec::new() };
        let tools = snapshot.items_at(profile, Kind::Tool);
        let usable = tools.filter(|item| policy::decide(&item.needs, &caller) == Decision::Allow);
        usable.map(|item| described(&snapshot, item)).collect()
    }

    fn opened_by(&self, resource: &ResourceUri, scope: &str) -> Vec<ToolDescription> {
        let snapshot = self.registry.snapshot();
        let Some(profile) = snapshot.profile_of(resource).filter(|_| self.served) else { return Vec::new() };
        let tools = snapshot.items_at(profile, Kind::Tool);
        let opened = tools.filter(|item| item.needs.scopes().is_some_and(|needs| needs.contains(scope)));
        opened.map(|item| described(&snapshot, item)).collect()
    }

    fn own_secrets(&self, entitled: &Scope) -> Vec<OwnSecret> {
        let caller = Caller { scope: entitled, entitled, ceiling: Ceiling::Any, has_user: true };
        let snapshot = self.registry.snapshot();
        let may = |item: &Item| policy::decide(&item.needs, &caller) == Decision::Allow;
        let wanted = snapshot.own_secrets().map(|(source, target)| OwnSecret {
            source: source.to_string(),
            target: target.to_string(),
            titles: snapshot
                .items_of(source)
                .filter(|item| may(item))
                .map(|item| item.title.clone())
                .collect(),
        });
        wanted.filter(|wanted| !wanted.titles.is_empty()).collect()
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
    fn the_usable_tools_follow_the_policy() {
        let catalogue = built(&Rules::default());
        assert_eq!(usable(&catalogue, "/mcp", ""), ["whoami"]);
        assert_eq!(usable(&catalogue, "/mcp", "docs.read x"), ["docs_read", "docs_search", "whoami"]);
        assert!(usable(&catalogue, "/mcp/", "docs.read").is_empty());
    }

    /// Every scope of a tool or an endpoint has a description for the consent page.
    #[test]
    fn every_scope_has_words() {
        let catalogue = built(&Rules::default());
        let described: Scope = catalogue.scopes().iter().map(|scope| scope.name.as_str()).collect();
        assert!(catalogue.default_scope().is_subset(&described));
        assert!(catalogue.registry().snapshot().scopes().is_subset(&described));
    }

    /// MCP-08: the default rules cover every tool that needs a scope; a tool without a rule is denied.
    #[test]
    fn a_tool_without_a_rule_is_denied() {
        let mut rules = Rules::default();
        let any_rule = ItemRule::needing("docs.read".parse().unwrap());
        let mappable = |name: &String| Rules::check_item(Kind::Tool, name, &any_rule).is_ok();
        let catalogue = built(&rules);
        let tools: Vec<_> =
            catalogue.needs(Kind::Tool).into_iter().map(|(name, _)| name).filter(mappable).collect();
        assert!(tools.iter().eq(rules.tools.iter().map(|(pattern, _)| pattern.as_str())));
        rules.tools.set(Pattern::exact("docs_read"), ItemRule::default());
        assert_eq!(usable(&built(&rules), "/mcp", "docs.read"), ["docs_search", "whoami"]);
    }

    /// META-07: the minimal useful set, without scopes that no tool needs.
    #[test]
    fn scopes_are_those_that_tools_need() {
        let mut rules = Rules::default();
        rules.scopes.extend([rule("docs.archive", true), rule("docs.secret", false), rule("idle", true)]);
        rules.need("docs_read", "docs.archive docs.secret");
        let catalogue = built(&rules);
        assert_eq!(catalogue.default_scope().to_string(), "docs.archive docs.read");
        let names: Vec<_> = catalogue.scopes().into_iter().map(|scope| scope.name).collect();
        assert_eq!(names, ["docs.read", "docs.archive", "docs.secret"]);
        assert_eq!(usable(&catalogue, "/mcp", "docs.archive docs.read"), ["docs_search", "whoami"]);
    }

    #[test]
    fn some_tools_cannot_be_mapped() {
        let scoped = ItemRule::needing("docs.read".parse().unwrap());
        let refused = |name: &str| Rules::check_item(Kind::Tool, name, &scoped).unwrap_err();
        assert_eq!(refused("whoami"), UnusableRule::NeedsNoScope("whoami".to_owned()));
        assert_eq!(refused("Docs_read"), UnusableRule::NoSuchItem(Kind::Tool, "Docs_read".to_owned()));
        assert_eq!(
            Rules::check_item(Kind::Tool, "whoami", &ItemRule { hidden: true, ..ItemRule::default() }),
            Ok(())
        );
        let mut rules = Rules::default();
        rules.need("whoami", "docs.read");
        assert!(BuiltIn::new(&Issuer::localhost(8080), &rules).is_err());
    }
}
