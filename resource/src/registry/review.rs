//! What is wrong with the rules, seen from the items that there are (POL-05).

use super::{Snapshot, called};
use crate::argument_rules::{ArgumentRule, Reach};
use crate::item::{Item, Kind, Needs, Ruling};
use crate::rules::{DoubtfulRule, ItemRule, Pattern, UnusableRule};

impl Snapshot {
    /// Whether the rules can be about these items.
    ///
    /// # Errors
    /// If a rule names a tool or an argument that is not there, names a scope where none is needed, or if nobody can say
    /// which of two counts.
    pub(crate) fn check_rules(&self) -> Result<(), UnusableRule> {
        for (pattern, rule) in self.rules.tools.iter().filter(|(pattern, _)| pattern.is_exact()) {
            match self.check_rule(pattern.as_str(), rule) {
                // It may be a tool of a server that has not been asked yet.
                Ok(()) | Err(UnusableRule::NoSuchTool(_)) => {}
                refused => return refused,
            }
        }
        self.items(Kind::Tool).try_for_each(|item| check_item(item))
    }

    /// Whether a rule can be about exactly this tool.
    ///
    /// # Errors
    /// If there is no such tool, or it needs no scope and the rule names one.
    pub(crate) fn check_rule(&self, tool: &str, rule: &ItemRule) -> Result<(), UnusableRule> {
        match self.find(Kind::Tool, tool) {
            None => Err(UnusableRule::NoSuchTool(tool.to_owned())),
            Some(item) if item.offer.needs == Some(Needs::User) && !rule.scope.is_empty() => {
                Err(UnusableRule::NeedsNoScope(tool.to_owned()))
            }
            Some(_) => Ok(()),
        }
    }

    /// What may be wrong: rules that match nothing, and arguments of which the tools say nothing.
    pub(crate) fn doubts(&self) -> Vec<DoubtfulRule> {
        let matches =
            |pattern: &Pattern| self.items(Kind::Tool).any(|item| pattern.matches(&item.offer.name));
        let unused = self.rules.tools.iter().filter(|(pattern, _)| !matches(pattern));
        let unused = unused.map(|(pattern, rule)| DoubtfulRule::MatchesNothing {
            rule: called(pattern, rule),
            pattern: pattern.to_string(),
        });
        let unknown = self.items(Kind::Tool).flat_map(|item| {
            arguments(item, Reach::Open).map(|(name, rule, pointer)| DoubtfulRule::UnknownArgument {
                name,
                rule,
                pointer,
            })
        });
        let selections = self.rules.profiles.iter().flat_map(|(name, profile)| {
            let unused = profile.items.iter().filter(|pattern| !matches(pattern));
            unused.map(|pattern| DoubtfulRule::SelectsNothing {
                profile: name.clone(),
                pattern: pattern.to_string(),
                at: profile.at.clone(),
            })
        });
        let taken = self.quarantined.iter().map(|quarantined| DoubtfulRule::NameTaken {
            name: quarantined.offer.name.to_string(),
            source_name: quarantined.source.to_string(),
            owner: quarantined.owner.to_string(),
        });
        unused.chain(unknown).chain(selections).chain(taken).collect()
    }
}

fn check_item(item: &Item) -> Result<(), UnusableRule> {
    if let Ruling::Tied(rules) = &item.rule {
        return Err(UnusableRule::Tied { name: item.offer.name.to_string(), rules: rules.clone() });
    }
    match arguments(item, Reach::Closed).next() {
        Some((name, rule, pointer)) => Err(UnusableRule::NoSuchArgument { name, rule, pointer }),
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
