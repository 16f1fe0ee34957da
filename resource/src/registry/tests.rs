use super::*;
use crate::item::{Effect, Needs};
use crate::rules::{ItemRule, Pattern};
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

/// MCP-11: if two sources offer the same name, the first keeps it; only that item of the newcomer is left out.
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

/// MCP-08: an item without a rule needs the empty set, which is never satisfied; high-risk scopes are those
/// that are needed and high-risk.
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

/// A snapshot does not change when another replaces it.
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

/// A source with these resources and templates.
fn owning(source: &str, resources: &[&str], templates: &[&str]) -> Arc<Offered> {
    let raw = |member: &str, value: &&str| {
        serde_json::value::to_raw_value(&serde_json::json!({ member: value, "name": "x" })).unwrap()
    };
    let written: Vec<_> = resources
        .iter()
        .map(|uri| (Kind::Resource, raw("uri", uri)))
        .chain(templates.iter().map(|template| (Kind::Template, raw("uriTemplate", template))))
        .collect();
    let (offers, left_out) =
        crate::sources::definition::offers(source, crate::sources::Names::Prefixed, &written);
    assert!(left_out.is_empty(), "{left_out:?}");
    Arc::new(Offered { source: source.into(), offers, own_secret: None })
}

/// SRC-04: a URI belongs to the source that claimed it first, by its list or by a template; the second claimant is left out
/// and nothing else of it. Another spelling of the host is the same URI.
#[test]
fn the_first_source_keeps_a_uri() {
    let sources = [
        owning("one", &["a://H/1"], &["a://h/made/{id}", "b://x/{id}"]),
        owning("two", &["a://h/1", "a://h/made/7", "c://h/2", "b://x/1/2"], &["b://x/{id}", "a://h/{+rest}"]),
        owning("three", &["c://H/2"], &["c://h/{id}"]),
    ];
    let (snapshot, quarantined) = Snapshot::merge(&site(), &sources, &Arc::default());
    let left_out: Vec<_> =
        quarantined.iter().map(|q| format!("{} of {}", q.offer.at_source, q.source)).collect();
    let expected = ["a://h/1 of two", "a://h/made/7 of two", "b://x/{id} of two", "c://H/2 of three"];
    assert_eq!(left_out, expected);
    for (uri, owner) in [
        ("a://h/1", Some("one")),
        ("A://H/1", Some("one")),
        ("a://h/made/7", Some("one")),
        ("a://h/made/7/8", Some("two")),
        ("a://h/other", Some("two")),
        ("b://x/1", Some("one")),
        ("b://x/1/2", Some("two")),
        ("c://h/2", Some("two")),
        ("c://h/3", Some("three")),
        ("d://h/1", None),
        ("a://h/made/../1", None),
    ] {
        let found = snapshot.seek(&RequestedItem::new(Kind::Resource, uri));
        assert_eq!(found.as_ref().map(|item| item.source.to_string()).as_deref(), owner, "{uri}");
    }
    // What was shown counts only where nobody has a claim.
    for (uri, owner) in [("d://h/1", "three"), ("a://h/1", "one"), ("c://h/3", "three")] {
        let shown =
            RequestedItem { shown_by: Some("three".into()), ..RequestedItem::new(Kind::Resource, uri) };
        assert_eq!(snapshot.seek(&shown).unwrap().source.to_string(), owner, "{uri}");
    }
    // Nothing is left of a source that was removed.
    let shown =
        RequestedItem { shown_by: Some("four".into()), ..RequestedItem::new(Kind::Resource, "d://h/1") };
    assert!(snapshot.seek(&shown).is_none());
}

/// POL-01, POL-05: rules that tie or name an argument that a prompt does not have are errors, with the table to write.
#[test]
fn rules_about_prompts_and_resources_are_checked() {
    let source = [Arc::new(crate::testing::of_every_kind("s"))];
    let check = |rules: Rules| Snapshot::merge(&site(), &source, &Arc::new(rules)).0.check_rules();
    let at = |line: u32| ItemRule {
        at: Some(format!("f:{line}")),
        ..ItemRule::needing("docs.read".parse().unwrap())
    };
    let mut rules = Rules::default();
    rules.resources.set(Pattern::parse_for_resources("s_db://host/R*").unwrap(), at(1));
    rules.resources.set(Pattern::parse_for_resources("*_db://host/R").unwrap(), at(2));
    assert_eq!(check(rules.clone()), Ok(()));
    rules.resources.set(Pattern::parse_for_resources("s_db://host/*R*").unwrap(), at(3));
    let tied = check(rules).unwrap_err().to_string();
    assert!(tied.contains("two rules match the resource `s_db://host/Row/1`"), "{tied}");
    assert!(tied.contains("write [resources.\"s_db://host/Row/1\"]"), "{tied}");
    let mut rules = Rules::default();
    let conditions = crate::rules::Conditions { absent: true, ..Default::default() };
    let arguments = [crate::rules::ArgumentRule::new("/Topic", conditions).unwrap()].into_iter().collect();
    rules.prompts.set(Pattern::exact("s_prompt"), ItemRule { arguments, ..at(4) });
    let wrong = check(rules).unwrap_err().to_string();
    assert!(wrong.starts_with("the rule [prompts.s_prompt] at f:4 names the argument /Topic"), "{wrong}");
    let mut rules = Rules::default();
    rules.prompts.set(Pattern::parse("x*").unwrap(), at(5));
    rules.resources.set(Pattern::parse_for_resources("x*").unwrap(), at(6));
    rules.resources.set(Pattern::parse_for_resources("s_other://*").unwrap(), at(7));
    let snapshot = Snapshot::merge(&site(), &source, &Arc::new(rules)).0;
    let doubts: Vec<_> = snapshot.doubts().iter().map(ToString::to_string).collect();
    assert!(
        doubts
            .iter()
            .any(|doubt| doubt.starts_with("the rule [prompts.\"x*\"] at f:5 matches no existing prompt"))
    );
    assert!(
        doubts
            .iter()
            .any(|doubt| doubt.starts_with("the rule [resources.\"x*\"] at f:6 matches no existing resource"))
    );
    assert!(!doubts.iter().any(|doubt| doubt.contains("f:7")), "a template may make it: {doubts:?}");
}
