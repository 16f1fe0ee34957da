use super::*;
use crate::item::Effect;
use crate::testing::offered;

fn site() -> Site {
    Site { own: Issuer::localhost(8080), issuer: Issuer::localhost(8080) }
}

fn offers(source: &str, tools: &[&str]) -> Arc<Offered> {
    let tools: Vec<_> = tools.iter().map(|tool| (*tool, Effect::ReadOnly)).collect();
    Arc::new(offered(source, &tools))
}

fn names(snapshot: &Snapshot) -> Vec<(String, String)> {
    let items = snapshot.items(Kind::Tool);
    items.map(|item| (item.offer.name.to_string(), item.source.to_string())).collect()
}

/// MCP-11: a name that two sources claim is the first one's; the newcomer's item is left out, and nothing else of it.
#[test]
fn the_first_source_keeps_a_name() {
    let rules = Rules::default();
    let sources = [offers("one", &["b", "a"]), offers("two", &["c", "b", "B"]), offers("three", &["b"])];
    let (snapshot, quarantined) = Snapshot::merge(&site(), &sources, &Arc::new(rules));
    let own = |name: &str, source: &str| (name.to_owned(), source.to_owned());
    assert_eq!(names(&snapshot), [own("B", "two"), own("a", "one"), own("b", "one"), own("c", "two")]);
    let left_out: Vec<_> =
        quarantined.iter().map(|q| (&*q.offer.name, q.source.to_string(), q.owner.to_string())).collect();
    let one = || "one".to_owned();
    assert_eq!(left_out, [("b", "two".to_owned(), one()), ("b", "three".to_owned(), one())]);
}

/// MCP-08: what no rule maps needs an empty set, which nobody satisfies; high-risk is what is needed and high-risk.
#[test]
fn the_rules_say_what_an_item_needs() {
    let mut rules = Rules::default();
    rules.scopes[0].description.risk = shared::catalogue::Risk::High;
    rules.need("a", "docs.read x");
    rules.need("elsewhere", "docs.read");
    let (snapshot, _) = Snapshot::merge(&site(), &[offers("one", &["a", "b"])], &Arc::new(rules));
    let needs = |name: &str| snapshot.find(Kind::Tool, name).map(|item| item.needs.clone());
    let scopes = |all: &str, high_risk: &str| {
        Some(Needs::Scopes { all: all.parse().unwrap(), high_risk: high_risk.parse().unwrap() })
    };
    assert_eq!(needs("a"), scopes("docs.read x", "docs.read"));
    assert_eq!(needs("b"), scopes("", ""));
    assert_eq!(needs("elsewhere"), None);
    assert_eq!(snapshot.scopes().to_string(), "docs.read x");
}

/// A snapshot stays what it is when another takes its place.
#[test]
fn a_snapshot_never_changes() {
    let registry = Registry::new(site(), Rules::default(), &[offers("one", &["a"])]);
    let before = registry.snapshot();
    assert!(registry.replace(&[offers("one", &["b"])]).is_empty());
    assert_eq!(registry.replace(&[offers("one", &["b"]), offers("two", &["b"])]).len(), 1);
    assert!(before.find(Kind::Tool, "a").is_some() && before.find(Kind::Tool, "b").is_none());
    let after = registry.snapshot();
    assert!(after.find(Kind::Tool, "a").is_none() && after.find(Kind::Tool, "b").is_some());
}
