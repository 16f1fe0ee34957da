//! An offer under the site's rules: what it needs, and how it is listed.

use std::collections::BTreeSet;
use std::sync::Arc;

use shared::Scope;

use super::listing;
use crate::item::{Item, Kind, Needs, Offer, Ruling, SourceName};
use crate::rules::{Governing, ItemRule, Pattern, Rules};

/// An offer under the rules. What no rule is about needs the empty set, which nobody satisfies (MCP-08), and so does what
/// two rules are equally about.
pub(super) fn ruled(rules: &Rules, offer: &Arc<Offer>, source: SourceName, high_risk: &Scope) -> Item {
    let (kind, governing) = governing(rules, offer);
    let (rule, ruling) = match governing {
        Governing::Nothing => (None, Ruling::None),
        Governing::One(pattern, rule) => (Some(rule), Ruling::By(called(kind, pattern, rule))),
        Governing::Tied(tied) => {
            (None, Ruling::Tied(tied.map(|(pattern, rule)| called(kind, pattern, rule))))
        }
    };
    let nothing = ItemRule::default();
    let rule = rule.unwrap_or(&nothing);
    // What is said of a tool opens or closes what is like it, and says nothing of how that looks.
    let own = if kind == kind_of_rules(offer.kind) { rule } else { &nothing };
    let needs = match &offer.needs {
        _ if rule.hidden => Needs::Hidden,
        // A caller who may use only some arguments of the tool would get everything this way.
        _ if own.arguments != rule.arguments => Needs::Hidden,
        Some(needs) => needs.clone(),
        None => {
            let all = rule.scope.clone();
            Needs::Scopes { high_risk: all.intersection(high_risk), all }
        }
    };
    let named = if own.arguments.is_empty() { BTreeSet::new() } else { offer.named_arguments() };
    Item {
        offer: Arc::clone(offer),
        source,
        needs,
        effect: own.effect.unwrap_or(offer.effect),
        title: own.title.clone().unwrap_or_else(|| offer.title.clone()),
        listed: listing::shown(&offer.listed, own.title.as_deref(), own.description.as_deref()),
        rule: ruling,
        arguments: own.arguments.clone(),
        named,
        limits: rule.limits.clone(),
        bounds: own.bounds,
        counts_as: offer.like.filter(|_| kind != kind_of_rules(offer.kind)),
    }
}

/// The rule that counts for an offer, and of which kind it is: one about the offer itself, or else the one about the tool
/// that gives away the same.
fn governing<'r>(rules: &'r Rules, offer: &Offer) -> (Kind, Governing<'r>) {
    match (rules.of(offer.kind).governing(&offer.name), offer.like) {
        (Governing::Nothing, Some(tool)) => (Kind::Tool, rules.tools.governing(tool)),
        (governing, _) => (kind_of_rules(offer.kind), governing),
    }
}

/// Templates have the rules of the resources that they stand for.
fn kind_of_rules(kind: Kind) -> Kind {
    if kind == Kind::Template { Kind::Resource } else { kind }
}

/// A rule as people find it again.
pub(super) fn called(kind: Kind, pattern: &Pattern, rule: &ItemRule) -> String {
    let name = Rules::table(kind, pattern.as_str());
    match &rule.at {
        Some(at) => format!("[{name}] at {at}"),
        None => format!("[{name}], which is built in"),
    }
}
