use proptest::prelude::*;

use super::*;

fn at(line: u32, scope: &str) -> ItemRule {
    let at = Some(format!("portcullis.toml:{line}"));
    ItemRule { at, ..ItemRule::needing(scope.parse().unwrap()) }
}

fn rules(patterns: &[&str]) -> ItemRules {
    let mut rules = ItemRules::default();
    for (line, pattern) in (1..).zip(patterns) {
        rules.set(Pattern::parse(pattern).unwrap(), at(line, "x"));
    }
    rules
}

/// The pattern that governs; with a plus sign between two that tie.
fn governs(rules: &ItemRules, name: &str) -> String {
    match rules.governing(name) {
        Governing::Nothing => "nothing".to_owned(),
        Governing::One(pattern, _) => pattern.to_string(),
        Governing::Tied(tied) => tied.map(|(pattern, _)| pattern.to_string()).join("+"),
    }
}

/// POL-01: an exact name takes precedence over a glob, and a more specific glob over a less specific one.
#[test]
fn the_most_specific_rule_governs() {
    let rules = rules(&["*", "ci_*", "ci_*_run", "ci_trigger", "ci_?rigger_*", "db_?", "db_*"]);
    for (name, pattern) in [
        ("ci_trigger", "ci_trigger"),
        ("ci_list", "ci_*"),
        ("ci_x_run", "ci_*_run"),
        ("ci_trigger_all", "ci_?rigger_*"),
        ("CI_list", "*"),
        ("ci-list", "*"),
        ("db_a", "db_?"),
        ("db_ab", "db_*"),
        ("db_", "db_*"),
        ("whatever", "*"),
    ] {
        assert_eq!(governs(&rules, name), pattern, "{name}");
    }
    assert_eq!(governs(&self::rules(&["ci_*"]), "jira_ci_x"), "nothing");
}

/// POL-01: of two equally specific globs neither applies, unless a more specific rule does.
#[test]
fn equally_specific_globs_tie() {
    let tied = rules(&["docs_*", "*_read", "do*"]);
    assert_eq!(governs(&tied, "docs_read"), "*_read+docs_*");
    assert_eq!(governs(&tied, "docs_search"), "docs_*");
    assert_eq!(governs(&rules(&["docs_*", "*_read", "docs_read"]), "docs_read"), "docs_read");
    assert_eq!(governs(&rules(&["docs_*", "*_read", "docs_*d"]), "docs_read"), "docs_*d");
}

/// POL-01: every rule of the file, including globs, takes precedence over built-in ones.
#[test]
fn the_file_counts_more_than_what_is_built_in() {
    let mut rules = Rules::default();
    assert_eq!(governs(&rules.tools, "docs_read"), "docs_read");
    rules.tools.set(Pattern::parse("d*").unwrap(), at(1, "x"));
    assert_eq!(governs(&rules.tools, "docs_read"), "d*");
}

/// MCP-08: a pattern may have the characters of names, `*` and `?` only.
#[test]
fn patterns_with_other_characters_are_refused() {
    let long = "a".repeat(129);
    for bad in ["", "docs read", "docs.read", "a{b,c}", "[ab]", "a\\*", "a/b", "é", "a\n", &long] {
        assert_eq!(Pattern::parse(bad).unwrap_err(), InvalidPattern, "{bad}");
    }
}

proptest! {
    /// POL-01: globs match like a simple implementation of `*` and `?`, and an exact name governs itself.
    #[test]
    fn globs_match_as_written(glob in "[ab_*?]{1,8}", name in "[ab_]{0,8}") {
        fn plain(glob: &[u8], name: &[u8]) -> bool {
            match (glob.split_first(), name.split_first()) {
                (None, None) => true,
                (Some((b'*', rest)), _) => plain(rest, name) || name.split_first().is_some_and(|(_, n)| plain(glob, n)),
                (Some((b'?', rest)), Some((_, name))) => plain(rest, name),
                (Some((one, rest)), Some((other, name))) => one == other && plain(rest, name),
                _ => false,
            }
        }
        let pattern = Pattern::parse(&glob).unwrap();
        prop_assert_eq!(pattern.matches(&name), plain(glob.as_bytes(), name.as_bytes()));
        let mut rules = rules(&[&glob]);
        if !name.is_empty() {
            rules.set(Pattern::parse(&name).unwrap(), at(9, "y"));
            prop_assert_eq!(governs(&rules, &name), name);
        }
    }
}

/// META-07, RS-02, AUTHZ-13: there is something to ask for wherever an item needs a scope: defaults, else what is of low
/// risk, else what there is.
#[test]
fn a_challenge_always_has_a_scope_to_request() {
    let scope = |name: &str, default: bool, risk| ScopeRule {
        description: ScopeDescription {
            name: name.to_owned(),
            title: name.to_owned(),
            risk,
            risk_text: None,
        },
        default,
    };
    let scopes = vec![
        scope("first", true, Risk::Low),
        scope("more", false, Risk::Low),
        scope("other", false, Risk::Low),
        scope("danger", false, Risk::High),
    ];
    let rules = Rules { scopes, ..Rules::default() };
    for (needed, asked) in [
        ("first more danger", "first"),
        ("more other danger", "more other"),
        ("danger", "danger"),
        ("unknown", ""),
        ("", ""),
    ] {
        assert_eq!(rules.default_among(&needed.parse().unwrap()), asked.parse().unwrap(), "{needed}");
    }
}
