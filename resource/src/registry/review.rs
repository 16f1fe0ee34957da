//! Mistakes in the rules, given the existing items (POL-05).

use super::Snapshot;
use super::ruling::called;
use crate::argument_rules::{ArgumentRule, Reach};
use crate::item::{Item, Kind, Needs, Offer, Ruling};
use crate::rules::{DoubtfulRule, ItemRule, Pattern, Rules, UnusableRule};

/// The kinds that have a table of rules each, and whose items are under it.
const TABLES: [(Kind, &[Kind]); 3] = [
    (Kind::Tool, &[Kind::Tool]),
    (Kind::Prompt, &[Kind::Prompt]),
    (Kind::Resource, &[Kind::Resource, Kind::Template]),
];

impl Snapshot {
    /// Checks that the rules can apply to these items.
    ///
    /// # Errors
    /// If a rule names an item or an argument that is not there, names a scope where none is needed, or if nobody can say
    /// which of two counts.
    pub(crate) fn check_rules(&self) -> Result<(), UnusableRule> {
        for (kind, _) in TABLES {
            for (pattern, rule) in self.rules.of(kind).iter().filter(|(pattern, _)| pattern.is_exact()) {
                match self.check_rule(kind, pattern.as_str(), rule) {
                    // It may be an item of a server that has not been asked yet.
                    Ok(()) | Err(UnusableRule::NoSuchItem(..)) => {}
                    refused => return refused,
                }
            }
        }
        Kind::ALL.into_iter().flat_map(|kind| self.items(kind)).try_for_each(|item| check_item(item))
    }

    /// Whether a rule of this kind can be about exactly this item.
    ///
    /// # Errors
    /// If there is no such item, or it needs no scope and the rule names one.
    pub(crate) fn check_rule(&self, kind: Kind, name: &str, rule: &ItemRule) -> Result<(), UnusableRule> {
        let item = if kind == Kind::Resource {
            self.find(kind, name).or_else(|| self.find(Kind::Template, name))
        } else {
            self.find(kind, name)
        };
        match item {
            None => Err(UnusableRule::NoSuchItem(kind, name.to_owned())),
            Some(item) if item.offer.needs == Some(Needs::User) && !rule.scope.is_empty() => {
                Err(UnusableRule::NeedsNoScope(name.to_owned()))
            }
            Some(_) => Ok(()),
        }
    }

    /// What may be wrong: rules that match nothing, and arguments of which the items say nothing.
    pub(crate) fn doubts(&self) -> Vec<DoubtfulRule> {
        let unused = TABLES.into_iter().flat_map(|(kind, kinds)| {
            let unused = self.rules.of(kind).iter().filter(move |(pattern, _)| {
                // A resource that only a template makes is in no list.
                let may_be_made = kind == Kind::Resource && self.has_template_for(pattern);
                !may_be_made && !self.matches(kinds, pattern)
            });
            unused.map(move |(pattern, rule)| DoubtfulRule::MatchesNothing {
                kind,
                rule: called(kind, pattern, rule),
                pattern: pattern.to_string(),
            })
        });
        let items = Kind::ALL.into_iter().flat_map(|kind| self.items(kind));
        let unknown = items.flat_map(|item| {
            let kind = item.offer.kind;
            arguments(item, Reach::Open).map(move |(name, rule, pointer)| DoubtfulRule::UnknownArgument {
                kind,
                name,
                rule,
                pointer,
            })
        });
        let selections = self.rules.profiles.iter().flat_map(|(name, profile)| {
            let unused = profile.items.iter().filter(|pattern| !self.matches(&Kind::ALL, pattern));
            unused.map(|pattern| DoubtfulRule::SelectsNothing {
                profile: name.clone(),
                pattern: pattern.to_string(),
                at: profile.at.clone(),
            })
        });
        let taken = self.quarantined.iter().map(|quarantined| DoubtfulRule::NameTaken {
            kind: quarantined.offer.kind,
            name: quarantined.offer.name.to_string(),
            source_name: quarantined.source.to_string(),
            owner: quarantined.owner.to_string(),
        });
        let silent = self.rules.profiles.iter().filter(|(name, profile)| {
            // One that selects nothing at all is told about already.
            let selects = profile.items.iter().any(|pattern| self.matches(&Kind::ALL, pattern));
            let asks = self.profile(Some(name)).is_some_and(|p| !p.endpoint().default_scope.is_empty());
            selects && !asks
        });
        let silent = silent.map(|(name, profile)| DoubtfulRule::AsksForNothing {
            profile: name.clone(),
            at: profile.at.clone(),
        });
        unused.chain(unknown).chain(selections).chain(silent).chain(taken).collect()
    }

    fn matches(&self, kinds: &[Kind], pattern: &Pattern) -> bool {
        kinds.iter().flat_map(|kind| self.items(*kind)).any(|item| pattern.matches(&item.offer.name))
    }

    /// Whether there may be a resource of this name beyond the lists: one of a source that has templates.
    fn has_template_for(&self, pattern: &Pattern) -> bool {
        let begins =
            |template: &Item| pattern.as_str().starts_with(&Offer::resource_name(&template.source, ""));
        self.items(Kind::Template).any(|template| begins(template))
    }
}

fn check_item(item: &Item) -> Result<(), UnusableRule> {
    let kind = item.offer.kind;
    if let Ruling::Tied(rules) = &item.rule {
        let (name, rules) = (item.offer.name.to_string(), rules.clone());
        return Err(UnusableRule::Tied { kind, table: Rules::table(kind, &name), name, rules });
    }
    match arguments(item, Reach::Closed).next() {
        Some((name, rule, pointer)) => Err(UnusableRule::NoSuchArgument { kind, name, rule, pointer }),
        None => Ok(()),
    }
}

/// The pointers of an item's rule of which its schema says this, with the item's name and the rule.
fn arguments(item: &Item, reach: Reach) -> impl Iterator<Item = (String, String, String)> {
    let schema = if item.arguments.is_empty() { None } else { item.offer.schema() };
    let pointers = item.arguments.iter().map(ArgumentRule::pointer);
    let found = pointers
        .filter(move |pointer| schema.as_ref().map_or(Reach::Open, |schema| pointer.reach(schema)) == reach);
    let rule = item.rule.rules().concat();
    found.map(move |pointer| (item.offer.name.to_string(), rule.clone(), pointer.to_string()))
}
