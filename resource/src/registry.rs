//! The only owner of definitions: which items there are, from which source, and what they need. A request takes one
//! [`Snapshot`] and uses it to its end; a newer one replaces it whole, for later requests.

mod listing;
mod review;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use shared::Scope;

use crate::item::{Item, Kind, Needs, Offer, Offered, Ruling, SourceName};
use crate::rules::{Governing, ItemRule, Pattern, Rules};

/// The items that there are now.
#[derive(Debug)]
pub(crate) struct Registry {
    rules: Rules,
    snapshot: ArcSwap<Snapshot>,
}

impl Registry {
    /// A registry of what is offered, under these rules.
    pub(crate) fn new(rules: Rules, offered: &[Arc<Offered>]) -> Self {
        let registry = Self { rules, snapshot: ArcSwap::default() };
        registry.replace(offered);
        registry
    }

    /// The present snapshot.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts a snapshot of what is offered in place of the present one, and says what was left out of it.
    pub(crate) fn replace(&self, offered: &[Arc<Offered>]) -> Vec<Quarantined> {
        let (snapshot, quarantined) = Snapshot::merge(offered, &self.rules);
        self.snapshot.store(Arc::new(snapshot));
        for item in &quarantined {
            tracing::warn!(
                item.name = %item.offer.name, source = %item.source, owner = %item.owner,
                "the name of an item is taken by another source; the newcomer is left out"
            );
        }
        quarantined
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }
}

/// All items at one moment. It never changes.
#[derive(Default, Debug)]
pub(crate) struct Snapshot {
    items: BTreeMap<Kind, BTreeMap<Arc<str>, Arc<Item>>>,
    high_risk: Scope,
}

/// An offer whose name somebody else had first (MCP-11).
#[derive(Clone, Debug)]
pub(crate) struct Quarantined {
    pub(crate) offer: Arc<Offer>,
    pub(crate) source: SourceName,
    pub(crate) owner: SourceName,
}

impl Snapshot {
    /// What these sources offer, under these rules. Of two offers of one name the earlier source's counts.
    pub(crate) fn merge(offered: &[Arc<Offered>], rules: &Rules) -> (Self, Vec<Quarantined>) {
        let mut snapshot = Self { items: BTreeMap::new(), high_risk: rules.high_risk() };
        let mut quarantined = Vec::new();
        for offered in offered {
            for offer in &offered.offers {
                let items = snapshot.items.entry(offer.kind).or_default();
                if let Some(first) = items.get(&offer.name) {
                    let (source, owner) = (offered.source.clone(), first.source.clone());
                    quarantined.push(Quarantined { offer: Arc::clone(offer), source, owner });
                    continue;
                }
                let item = ruled(rules, offer, offered.source.clone(), &snapshot.high_risk);
                items.insert(Arc::clone(&offer.name), Arc::new(item));
            }
        }
        (snapshot, quarantined)
    }

    /// The items of a kind in the order of their names, which never changes (MCP-10).
    pub(crate) fn items(&self, kind: Kind) -> impl Iterator<Item = &Arc<Item>> {
        self.items.get(&kind).into_iter().flat_map(BTreeMap::values)
    }

    /// The item of exactly this name.
    pub(crate) fn find(&self, kind: Kind, name: &str) -> Option<&Arc<Item>> {
        self.items.get(&kind)?.get(name)
    }

    /// Every scope that some item needs.
    pub(crate) fn scopes(&self) -> Scope {
        let needs = self.items.values().flat_map(BTreeMap::values).filter_map(|item| item.needs.scopes());
        needs.fold(Scope::empty(), |all, scope| all.union(scope))
    }

    /// The scopes that are withheld from clients that nobody vouches for.
    pub(crate) fn high_risk(&self) -> &Scope {
        &self.high_risk
    }
}

/// An offer under the rules. What no rule is about needs the empty set, which nobody satisfies (MCP-08), and so does what
/// two rules are equally about.
fn ruled(rules: &Rules, offer: &Arc<Offer>, source: SourceName, high_risk: &Scope) -> Item {
    let governing = match offer.kind {
        Kind::Tool => rules.tools.governing(&offer.name),
    };
    let (rule, ruling) = match governing {
        Governing::Nothing => (None, Ruling::None),
        Governing::One(pattern, rule) => (Some(rule), Ruling::By(called(pattern, rule))),
        Governing::Tied(tied) => (None, Ruling::Tied(tied.map(|(pattern, rule)| called(pattern, rule)))),
    };
    let nothing = ItemRule::default();
    let rule = rule.unwrap_or(&nothing);
    let needs = match &offer.needs {
        _ if rule.hidden => Needs::Hidden,
        Some(needs) => needs.clone(),
        None => {
            let all = rule.scope.clone();
            Needs::Scopes { high_risk: all.intersection(high_risk), all }
        }
    };
    let named = if rule.arguments.is_empty() { BTreeSet::new() } else { offer.named_arguments() };
    Item {
        offer: Arc::clone(offer),
        source,
        needs,
        effect: rule.effect.unwrap_or(offer.effect),
        title: rule.title.clone().unwrap_or_else(|| offer.title.clone()),
        listed: listing::shown(&offer.listed, rule.title.as_deref(), rule.description.as_deref()),
        rule: ruling,
        arguments: rule.arguments.clone(),
        named,
    }
}

/// A rule as people find it again.
fn called(pattern: &Pattern, rule: &ItemRule) -> String {
    match &rule.at {
        Some(at) => format!("[tools.\"{pattern}\"] at {at}"),
        None => format!("[tools.\"{pattern}\"], which is built in"),
    }
}

#[cfg(test)]
mod tests;
