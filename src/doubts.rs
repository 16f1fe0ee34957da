//! Doubtful rules, as far as it can be known: a source that has listed nothing yet may have what a rule names (POL-05).

use resource::catalogue::{BuiltIn, DoubtfulRule};
use resource::sources::Names;

use crate::config::{File, Source};

/// The doubts about the rules, when no lists are known of the sources with these names.
pub(crate) fn about(catalogue: &BuiltIn, file: &File, never_walked: &[String]) -> Vec<DoubtfulRule> {
    let unknown: Vec<_> = never_walked.iter().filter_map(|name| file.sources.get(name)).collect();
    let is_known = |doubt: &DoubtfulRule| match doubt {
        DoubtfulRule::MatchesNothing { pattern, .. } | DoubtfulRule::SelectsNothing { pattern, .. } => {
            !unknown.iter().any(|source| may_match(source, pattern))
        }
        // A server that has listed nothing yet may have what it selects.
        DoubtfulRule::AsksForNothing { .. } => unknown.is_empty(),
        DoubtfulRule::UnknownArgument { .. } | DoubtfulRule::NameTaken { .. } => true,
    };
    catalogue.doubts().into_iter().filter(is_known).collect()
}

/// Whether a tool of this server could have a name that the pattern matches.
fn may_match(source: &Source, pattern: &str) -> bool {
    let prefix = format!("{}_", source.settings.name);
    let literal = pattern.split(['*', '?']).next().unwrap_or_default();
    source.settings.names == Names::Bare || literal.starts_with(&prefix) || prefix.starts_with(literal)
}
