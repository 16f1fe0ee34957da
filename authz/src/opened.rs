//! The tools that a scope opens at an endpoint, as text, so that users know what they allow (POL-03).

use shared::{ResourceUri, Scope};

use crate::Authz;

/// The most tools that are named; the others are counted.
const NAMED: usize = 5;

/// The tools that this scope opens at the endpoint; `None` if there are none.
pub(crate) fn by_scope(authz: &Authz, resource: &ResourceUri, scope: &str) -> Option<String> {
    let tools = authz.catalogue.opened_by(resource, scope);
    in_words(tools.into_iter().map(|tool| tool.title).collect())
}

/// The tools that may be called at the endpoint with exactly these scopes.
pub(crate) fn by_all(authz: &Authz, resource: &ResourceUri, scopes: &Scope) -> Option<String> {
    let usable = |scopes: &Scope| authz.catalogue.usable(resource, scopes);
    // Tools that need only a valid token are not opened by a scope.
    let without: Vec<_> = usable(&Scope::empty()).into_iter().map(|tool| tool.name).collect();
    let opened = usable(scopes).into_iter().filter(|tool| !without.contains(&tool.name));
    in_words(opened.map(|tool| tool.title).collect())
}

pub(crate) fn in_words(mut titles: Vec<String>) -> Option<String> {
    let more = titles.len().saturating_sub(NAMED);
    if more > 0 {
        titles.truncate(NAMED);
        titles.push(format!("{more} more"));
    }
    match titles.split_last()? {
        (only, []) => Some(only.clone()),
        (last, others) => Some(format!("{} and {last}", others.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_stays_a_line() {
        let words = |count: usize| in_words((1..=count).map(|n| format!("T{n}")).collect());
        assert_eq!(words(0), None);
        assert_eq!(words(1).as_deref(), Some("T1"));
        assert_eq!(words(2).as_deref(), Some("T1 and T2"));
        assert_eq!(words(5).as_deref(), Some("T1, T2, T3, T4 and T5"));
        assert_eq!(words(9).as_deref(), Some("T1, T2, T3, T4, T5 and 4 more"));
    }
}
