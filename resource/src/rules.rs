//! Rules about scopes and items, from the configuration.

mod pattern;

use std::collections::BTreeMap;

use shared::Scope;
use shared::catalogue::{Risk, ScopeDescription};

pub use crate::argument_rules::{ArgumentRule, ArgumentRules, Conditions, InvalidArgumentRule};
pub use crate::call_limits::{AtOnce, Bounds, CallLimits, InvalidLimit, LimitRules, Rate};
pub use crate::item::{Effect, Kind};
pub use pattern::{InvalidPattern, InvalidResourcePattern, Pattern};

/// The scope for reading the documentation.
const DOCS_READ: &str = "docs.read";

/// The scopes, and the rules about items.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    pub scopes: Vec<ScopeRule>,
    /// A tool without a rule is denied (MCP-08).
    pub tools: ItemRules,
    /// The same for prompts.
    pub prompts: ItemRules,
    /// The same for resources and their templates, by `<source>_<URI>` (SRC-04).
    pub resources: ItemRules,
    /// The endpoints beside `/mcp`, by name (POL-03).
    pub profiles: BTreeMap<String, ProfileRule>,
    /// Whether argument values that rules look at are recorded (AUDIT-05).
    pub record_values: bool,
    /// How often and how many at once, beyond what the rules of single items say (LIMIT-01).
    pub limits: LimitRules,
}

/// A profile: an endpoint with a selection of the items (POL-03).
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ProfileRule {
    /// Its title; `None` for one made from its name.
    pub title: Option<String>,
    /// Items whose name one of these matches; items that need only a valid token are always included.
    pub items: Vec<Pattern>,
    /// The scope of the first challenge; `None` if it follows from the items and the scopes.
    pub default_scope: Option<Scope>,
    /// The file and line.
    pub at: String,
}

/// A scope that may be granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScopeRule {
    pub description: ScopeDescription,
    /// Whether the first challenge of an endpoint includes it, if a tool needs it (META-07).
    pub default: bool,
}

/// The rules for items of one kind, by exact name or by glob (POL-01).
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ItemRules(BTreeMap<Pattern, ItemRule>);

/// The rule for items that a pattern matches. Exactly one rule governs an item; nothing is added from less
/// specific ones.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ItemRule {
    /// The required scopes, all of them. If empty, the items cannot be used.
    pub scope: Scope,
    /// Whether calls may change something, by the administrator; `None` leaves it to the source.
    pub effect: Option<Effect>,
    /// Whether the item is hidden.
    pub hidden: bool,
    /// Replaces the source's title in lists.
    pub title: Option<String>,
    /// Replaces the source's description in lists.
    pub description: Option<String>,
    /// The rules about arguments (POL-02).
    pub arguments: ArgumentRules,
    /// How often each of the items may be used, and how often at once (LIMIT-01).
    pub limits: CallLimits,
    /// How long each use may take, and how large it may be (LIMIT-03, LIMIT-04).
    pub bounds: Bounds,
    /// The file and line; `None` for a built-in rule, over which every rule of the file takes precedence.
    pub at: Option<String>,
}

/// The rule that governs an item.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Governing<'r> {
    /// No rule matches its name.
    Nothing,
    One(&'r Pattern, &'r ItemRule),
    /// Two equally specific globs match. Neither applies.
    Tied([(&'r Pattern, &'r ItemRule); 2]),
}

/// Why the rules cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnusableRule {
    #[error("no {} `{}`", .0.as_str(), .1)]
    NoSuchItem(Kind, String),
    #[error(
        "the rule {rule} names the argument {pointer}, and the {} `{name}` has no such argument; remove it, or write the name as the {} has it",
        .kind.as_str(), .kind.as_str()
    )]
    NoSuchArgument { kind: Kind, name: String, rule: String, pointer: String },
    #[error("the tool `{0}` needs only a valid token and cannot be mapped to scopes")]
    NeedsNoScope(String),
    #[error(
        "two rules match the {} `{name}` and neither is more specific: {}; write [{table}] to say which one counts",
        .kind.as_str(), .rules.join(" and ")
    )]
    Tied { kind: Kind, name: String, table: String, rules: [String; 2] },
}

/// A possible mistake that does not prevent using the rules (POL-05).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DoubtfulRule {
    #[error(
        "the {} `{name}` of the source `{source_name}` is left out: the source `{owner}` has a {} of that name and was added first. Rename one at its server, or use names = \"prefixed\"",
        .kind.as_str(), .kind.as_str()
    )]
    NameTaken { kind: Kind, name: String, source_name: String, owner: String },
    #[error(
        "the rule {rule} matches no existing {0}; remove it, or correct its name", .kind.as_str()
    )]
    MatchesNothing { kind: Kind, rule: String, pattern: String },
    #[error(
        "the profile `{profile}` at {at} selects nothing with `{pattern}`; remove it, or write the name as the item has it"
    )]
    SelectsNothing { profile: String, pattern: String, at: String },
    #[error(
        "the profile `{profile}` at {at} selects nothing that needs a scope, so clients that connect to it can ask for nothing; select an item whose rule names a scope, or write scope"
    )]
    AsksForNothing { profile: String, at: String },
    #[error(
        "the rule {rule} names the argument {pointer}, which the {} `{name}` does not declare; a call without it is refused, so check that the {} spells it like this",
        .kind.as_str(), .kind.as_str()
    )]
    UnknownArgument { kind: Kind, name: String, rule: String, pointer: String },
}

impl Default for Rules {
    /// The default: the documentation, for its scope.
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
        let mut tools = ItemRules::default();
        for tool in ["docs_read", "docs_search"] {
            tools.set(Pattern::exact(tool), ItemRule::needing([DOCS_READ].into_iter().collect()));
        }
        Self {
            scopes: vec![docs],
            tools,
            prompts: ItemRules::default(),
            resources: ItemRules::default(),
            profiles: BTreeMap::new(),
            record_values: false,
            limits: LimitRules::default(),
        }
    }
}

impl Rules {
    /// Makes exactly this tool need these scopes.
    #[cfg(test)]
    pub(crate) fn need(&mut self, tool: &str, scope: &str) {
        self.tools.set(Pattern::exact(tool), ItemRule::needing(scope.parse().unwrap()));
    }

    /// What is said about items of this kind.
    pub fn of(&self, kind: Kind) -> &ItemRules {
        match kind {
            Kind::Tool => &self.tools,
            Kind::Prompt => &self.prompts,
            Kind::Resource | Kind::Template => &self.resources,
        }
    }

    /// The same, to be changed.
    pub fn of_mut(&mut self, kind: Kind) -> &mut ItemRules {
        match kind {
            Kind::Tool => &mut self.tools,
            Kind::Prompt => &mut self.prompts,
            Kind::Resource | Kind::Template => &mut self.resources,
        }
    }

    /// Where the configuration says it.
    pub fn section(kind: Kind) -> &'static str {
        match kind {
            Kind::Tool => "tools",
            Kind::Prompt => "prompts",
            Kind::Resource | Kind::Template => "resources",
        }
    }

    /// The table of the configuration that is about items of this name.
    pub fn table(kind: Kind, name: &str) -> String {
        // Every other character needs quotes in TOML.
        let is_bare = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let quote = if is_bare { "" } else { "\"" };
        format!("{}.{quote}{name}{quote}", Self::section(kind))
    }

    /// What the first challenge of an endpoint asks for whose items need these scopes: the minimal useful set (META-07). If
    /// none of them is a default, it is all of them that are of low risk, and if there are none of those, all: a client
    /// that is told of no scope asks for none, and nobody could connect it (RS-02, AUTHZ-13).
    pub(crate) fn default_among(&self, needed: &Scope) -> Scope {
        let of = |wanted: &dyn Fn(&ScopeRule) -> bool| -> Scope {
            let chosen = self.scopes.iter().filter(|rule| needed.contains(rule.name()) && wanted(rule));
            chosen.map(ScopeRule::name).collect()
        };
        let low = |rule: &ScopeRule| rule.description.risk == Risk::Low;
        let sets = [of(&|rule| rule.default), of(&low), of(&|_| true)];
        sets.into_iter().find(|set| !set.is_empty()).unwrap_or_default()
    }

    /// Whether anything limits how often items are used (LIMIT-02).
    pub fn have_limits(&self) -> bool {
        let of_items = [&self.tools, &self.prompts].into_iter().flat_map(ItemRules::iter);
        !self.limits.is_empty() || of_items.into_iter().any(|(_, rule)| !rule.limits.is_empty())
    }

    /// The high-risk scopes.
    pub(crate) fn high_risk(&self) -> Scope {
        self.scopes.iter().filter(|rule| rule.description.risk == Risk::High).map(ScopeRule::name).collect()
    }
}

impl ItemRules {
    /// Sets the rule of a pattern, replacing an earlier one.
    pub fn set(&mut self, pattern: Pattern, rule: ItemRule) {
        self.0.insert(pattern, rule);
    }

    /// All rules with their patterns.
    pub fn iter(&self) -> impl Iterator<Item = (&Pattern, &ItemRule)> {
        self.0.iter()
    }

    /// The rule of exactly this pattern.
    pub fn get(&self, pattern: &str) -> Option<&ItemRule> {
        self.0.iter().find(|(known, _)| known.as_str() == pattern).map(|(_, rule)| rule)
    }

    /// The rule that governs this item (POL-01). An exact name takes precedence over a glob, a more specific
    /// glob over a less specific one, and a rule of the file over a built-in one.
    pub(crate) fn governing(&self, name: &str) -> Governing<'_> {
        let rank = |(pattern, rule): &(&Pattern, &ItemRule)| (rule.at.is_some(), pattern.specificity());
        let mut best = Governing::Nothing;
        let mut highest = None;
        for found in self.0.iter().filter(|(pattern, _)| pattern.matches(name)) {
            let rank = Some(rank(&found));
            if rank > highest {
                (best, highest) = (Governing::One(found.0, found.1), rank);
            } else if let (true, Governing::One(pattern, rule)) = (rank == highest, best) {
                best = Governing::Tied([(pattern, rule), found]);
            }
        }
        best
    }
}

impl ItemRule {
    /// A rule that only requires scopes.
    pub fn needing(scope: Scope) -> Self {
        Self { scope, ..Self::default() }
    }
}

impl ScopeRule {
    pub(crate) fn name(&self) -> &str {
        &self.description.name
    }
}

#[cfg(test)]
mod tests;
