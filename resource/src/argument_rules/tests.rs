use proptest::prelude::*;
use serde_json::json;

use super::*;

fn named(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A rule as in the configuration, in JSON.
fn rule(pointer: &str, conditions: &Value) -> Result<ArgumentRule, InvalidArgumentRule> {
    let number = |name: &str| conditions[name].as_number().cloned();
    let conditions = Conditions {
        one_of: conditions["in"].as_array().cloned(),
        matches: conditions["match"].as_str().map(str::to_owned),
        min: number("min"),
        max: number("max"),
        absent: conditions["absent"] == true,
    };
    ArgumentRule::new(pointer, conditions)
}

fn allows(pointer: &str, conditions: &Value, arguments: &Value) -> bool {
    let rules = ArgumentRules::from_iter([rule(pointer, conditions).unwrap()]);
    let given: BTreeSet<_> = arguments.as_object().unwrap().keys().cloned().collect();
    check(&rules, &given, arguments).is_ok()
}

/// POL-02: each condition, with accepted and refused values: another type, null and a missing value are
/// refused.
#[test]
fn conditions_as_a_table() {
    let branch = |value: Value| json!({ "branch": value });
    let release = json!({ "match": "release/.*" });
    let few = json!({ "in": ["main", 7, true, 2.5] });
    let between = json!({ "min": 1, "max": 10.5 });
    let absent = json!({ "absent": true });
    for (conditions, value, allowed) in [
        (&release, json!("release/1"), true),
        (&release, json!("a release/1"), false),
        (&release, json!("release/1\nmain"), false),
        (&release, json!("release"), false),
        (&release, json!(7), false),
        (&release, json!(["release/1"]), false),
        (&release, json!({ "release/1": "release/1" }), false),
        (&release, Value::Null, false),
        (&few, json!("main"), true),
        (&few, json!("Main"), false),
        (&few, json!("main "), false),
        (&few, json!(7), true),
        (&few, json!(7.0), true),
        (&few, json!("7"), false),
        (&few, json!(true), true),
        (&few, json!("true"), false),
        (&few, json!(2.5), true),
        (&few, Value::Null, false),
        (&between, json!(1), true),
        (&between, json!(10.5), true),
        (&between, json!(0), false),
        (&between, json!(0.999_999), false),
        (&between, json!(10.6), false),
        (&between, json!(u64::MAX), false),
        (&between, json!(-1e300), false),
        (&between, json!("5"), false),
        (&between, json!([5]), false),
        (&between, Value::Null, false),
        (&absent, json!("x"), false),
        (&absent, Value::Null, false),
        (&absent, json!([]), false),
    ] {
        assert_eq!(allows("/branch", conditions, &branch(value.clone())), allowed, "{conditions} {value}");
    }
    for conditions in [&release, &few, &between] {
        assert!(!allows("/branch", conditions, &json!({})), "{conditions}");
    }
    assert!(allows("/branch", &absent, &json!({})));
}

/// POL-02: pointers go through objects and arrays, `*` means every element, and an empty array counts as no
/// value.
#[test]
fn pointers_lead_to_every_value() {
    let main = json!({ "in": ["main"] });
    let absent = json!({ "absent": true });
    for (pointer, arguments, has_main, has_nothing) in [
        ("/files/*/branch", json!({ "files": [{ "branch": "main" }, { "branch": "main" }] }), true, false),
        ("/files/*/branch", json!({ "files": [{ "branch": "main" }, { "branch": "dev" }] }), false, false),
        ("/files/*/branch", json!({ "files": [{ "branch": "main" }, {}] }), false, false),
        ("/files/*/branch", json!({ "files": [{ "branch": "main" }, "main"] }), false, false),
        ("/files/*/branch", json!({ "files": [{}, {}] }), false, true),
        ("/files/*/branch", json!({ "files": [] }), false, true),
        ("/files/*/branch", json!({ "files": null }), false, true),
        ("/files/*/branch", json!({ "files": "main" }), false, false),
        ("/files/*/branch", json!({ "files": { "a": { "branch": "main" } } }), true, false),
        ("/files/*/branch", json!({}), false, true),
        ("/files/1", json!({ "files": ["dev", "main"] }), true, false),
        ("/files/2", json!({ "files": ["dev", "main"] }), false, true),
        ("/files/01", json!({ "files": ["dev", "main"] }), false, false),
        ("/files/-", json!({ "files": ["dev", "main"] }), false, false),
        ("/a~1b/c~0d", json!({ "a/b": { "c~d": "main" } }), true, false),
        ("/a~01", json!({ "a~1": "main" }), true, false),
        ("/", json!({ "": "main" }), true, false),
        ("/a/b", json!({ "a": "main" }), false, false),
    ] {
        assert_eq!(allows(pointer, &main, &arguments), has_main, "{pointer} {arguments}");
        assert_eq!(allows(pointer, &absent, &arguments), has_nothing, "{pointer} {arguments}");
    }
}

/// POL-02: a tool with rules accepts no argument that its schema does not name, and the answer lists those it
/// accepts.
#[test]
fn other_arguments_are_refused_where_there_are_rules() {
    let rules = ArgumentRules::from_iter([rule("/branch", &json!({ "in": ["main"] })).unwrap()]);
    let names = named(&["branch", "ref"]);
    assert_eq!(check(&rules, &names, &json!({ "branch": "main", "ref": 1 })), Ok(()));
    let violation = check(&rules, &names, &json!({ "branch": "main", "Branch": "dev" })).unwrap_err();
    assert_eq!(violation.argument, "/Branch");
    assert!(violation.allowed.ends_with("the arguments that the tool names are allowed: branch, ref"));
    assert_eq!(check(&ArgumentRules::default(), &named(&[]), &json!({ "anything": 1 })), Ok(()));
}

/// POL-02: the answer names the argument and what is allowed; the record names the rule. All rules must hold.
#[test]
fn a_violation_says_what_is_allowed() {
    let rules = ArgumentRules::from_iter([
        rule("/branch", &json!({ "match": "release/.*" })).unwrap(),
        rule("/runs", &json!({ "min": 1, "max": 3 })).unwrap(),
        rule("/mode", &json!({ "in": ["dry", 1] })).unwrap(),
        rule("/force", &json!({ "absent": true })).unwrap(),
    ]);
    let good = json!({ "branch": "release/2", "runs": 2, "mode": "dry" });
    let names = named(&["branch", "runs", "mode", "force"]);
    assert_eq!(check(&rules, &names, &good), Ok(()));
    for (member, value, rule, allowed) in [
        (
            "branch",
            json!("main"),
            "/branch match release/.*",
            "/branch must be a string that matches release/.* as a whole",
        ),
        ("runs", json!(0), "/runs min 1", "/runs must be a number of at least 1"),
        ("runs", json!(4), "/runs max 3", "/runs must be a number of at most 3"),
        ("mode", json!("wet"), r#"/mode in ["dry",1]"#, r#"/mode must be one of "dry", 1"#),
        ("force", json!(true), "/force absent", "/force must be left out"),
    ] {
        let mut arguments = good.clone();
        arguments[member] = value;
        let violation = check(&rules, &names, &arguments).unwrap_err();
        assert_eq!((violation.rule.as_str(), violation.allowed.as_str()), (rule, allowed));
        assert_eq!(violation.argument, format!("/{member}"));
    }
}

/// POL-02: malformed, unsatisfiable and too expensive rules are refused.
#[test]
fn unusable_rules_are_refused() {
    use InvalidArgumentRule as Invalid;
    let main = json!({ "in": ["main"] });
    let long = format!("/{}", "a".repeat(512));
    for (pointer, error) in [
        ("", InvalidPointer::NoSlash),
        ("branch", InvalidPointer::NoSlash),
        ("#/branch", InvalidPointer::NoSlash),
        ("/a~", InvalidPointer::Escape),
        ("/a~2", InvalidPointer::Escape),
        (&"/a".repeat(17), InvalidPointer::TooLong),
        (&long, InvalidPointer::TooLong),
    ] {
        assert_eq!(rule(pointer, &main).unwrap_err(), Invalid::Pointer(error), "{pointer}");
    }
    for (conditions, error) in [
        (json!({}), Invalid::NoCondition),
        (json!({ "in": [] }), Invalid::NoValues),
        (json!({ "min": 2, "max": 1.5 }), Invalid::NothingBetween),
        (json!({ "absent": true, "in": ["x"] }), Invalid::AbsentAndMore),
    ] {
        assert_eq!(rule("/x", &conditions).unwrap_err(), error, "{conditions}");
    }
    let expressions = ["(", "a)|(b", "(?x) a #", "a{1000}{1000}{1000}", r"(a)\1", "(?=a)"].map(str::to_owned);
    let nested = "(".repeat(40) + &")".repeat(40);
    for expression in expressions.into_iter().chain([nested, "a".repeat(1025)]) {
        let refused = rule("/x", &json!({ "match": expression })).unwrap_err();
        assert!(
            matches!(&refused, Invalid::Expression(why) if !why.is_empty() && !why.contains('\n')),
            "{refused}"
        );
    }
}

/// POL-02: an expression matches whole texts, including its alternatives and flags.
#[test]
fn an_expression_matches_the_whole_text() {
    let allows =
        |expression: &str, text: &str| allows("/x", &json!({ "match": expression }), &json!({ "x": text }));
    assert!(allows("main|dev", "dev") && allows("main|dev", "main"));
    assert!(!allows("main|dev", "develop") && !allows("main|dev", "domain"));
    assert!(!allows("(?m)^a$", "a\nb") && !allows("a", "a\n") && allows("(?i)a", "A"));
}

/// POL-02: a schema forbids a place only if it says that there is nothing else.
#[test]
fn a_schema_tells_where_a_pointer_leads() {
    let closed = json!({
        "type": "object",
        "properties": {
            "branch": { "type": "string" },
            "files": { "type": "array", "items": { "type": "object", "properties": { "path": {} }, "additionalProperties": false } },
            "open": { "type": "object" },
            "either": { "anyOf": [{ "type": "object" }] },
        },
        "additionalProperties": false,
    });
    for (pointer, reach) in [
        ("/branch", Reach::Named),
        ("/files/*/path", Reach::Named),
        ("/files/*/mode", Reach::Closed),
        ("/Branch", Reach::Closed),
        ("/open/x", Reach::Open),
        ("/either/x", Reach::Open),
        ("/branch/x", Reach::Open),
        ("/files/0/path", Reach::Open),
    ] {
        assert_eq!(Pointer::parse(pointer).unwrap().reach(&closed), reach, "{pointer}");
    }
    let open = json!({ "type": "object", "properties": {} });
    assert_eq!(Pointer::parse("/x").unwrap().reach(&open), Reach::Open);
    assert_eq!(Pointer::parse("/x").unwrap().reach(&json!(true)), Reach::Open);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-c*/~]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-c*0-1]{0,2}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    /// POL-02: any arguments and pointer give a decision, and an allowed call has a listed value at every
    /// selected place.
    #[test]
    fn an_allowed_argument_was_listed_in_the_rule(
        arguments in proptest::collection::btree_map("[a-c]", any_json(), 0..3),
        pointer in "(/[a-c*0-1]{1}){1,3}",
        listed in proptest::collection::vec(any_json(), 1..3),
    ) {
        let arguments = Value::Object(arguments.into_iter().collect());
        if allows(&pointer, &json!({ "in": listed }), &arguments) && !pointer.contains('*') {
            let found = arguments.pointer(&pointer).unwrap();
            prop_assert!(listed.iter().any(|one| same(one, found)));
        }
        let absent = allows(&pointer, &json!({ "absent": true }), &arguments);
        if absent && !pointer.contains('*') {
            prop_assert!(arguments.pointer(&pointer).is_none());
        }
    }

    /// POL-06: recorded values decide like the arguments themselves, with the same rules and with others about
    /// the same pointers; a missing value leaves the call undecided.
    #[test]
    fn recorded_arguments_decide_as_the_originals_did(
        arguments in proptest::collection::btree_map("[a-c]", any_json(), 0..3),
        pointer in "(/[a-c*0-1]{1}){1,3}",
        listed in proptest::collection::vec(any_json(), 1..3),
    ) {
        let arguments = Value::Object(arguments.into_iter().collect());
        let rules = |conditions: &Value| ArgumentRules::from_iter([rule(&pointer, conditions).unwrap()]);
        let kept = rules(&json!({ "absent": true })).looked_at(&arguments);
        for conditions in [json!({ "in": listed }), json!({ "absent": true }), json!({ "min": 0 })] {
            let held = rules(&conditions).hold_for(&kept);
            prop_assert_eq!(held, Some(allows(&pointer, &conditions, &arguments)));
        }
        prop_assert_eq!(rules(&json!({ "min": 0 })).hold_for(&serde_json::Map::new()), None);
    }

    /// POL-02: numbers are compared by value, consistently, and like `i128` if both are integers.
    #[test]
    fn numbers_compare_by_value(one in any_number(), other in any_number()) {
        prop_assert_eq!(compare(&one, &other), compare(&other, &one).reverse());
        if let (Some(one), Some(other)) = (integer(&one), integer(&other)) {
            prop_assert_eq!(one.cmp(&other), compare(&number_of(one), &number_of(other)));
        }
        prop_assert!(compare(&one, &one).is_eq());
    }
}

fn any_number() -> impl Strategy<Value = Number> {
    prop_oneof![
        any::<i64>().prop_map(Number::from),
        any::<u64>().prop_map(Number::from),
        (-3_i8..3).prop_map(Number::from),
        (-3.0..3.0_f64).prop_map(|number| Number::from_f64(number).unwrap()),
        any::<f64>().prop_filter_map("JSON has finite numbers only", Number::from_f64),
        (9_007_199_254_740_990_u64..9_007_199_254_740_996).prop_map(Number::from),
    ]
}

fn number_of(whole: i128) -> Number {
    i64::try_from(whole).map(Number::from).or_else(|_| u64::try_from(whole).map(Number::from)).unwrap_or_else(
        |_| {
            #[expect(clippy::cast_precision_loss, reason = "it was a float before")]
            Number::from_f64(whole as f64).unwrap()
        },
    )
}

/// POL-02: the work is linear in the body: the largest body of each shape is decided.
#[test]
fn the_largest_bodies_are_decided_upon() {
    let rules = ArgumentRules::from_iter([
        rule("/a/*/b/*", &json!({ "match": "(a*)*(a|b)*c{0,200}" })).unwrap(),
        rule("/a/*", &json!({ "in": ["x"] })).unwrap(),
    ]);
    let names = named(&["a"]);
    let text = "a".repeat(1 << 20);
    let wide = json!({ "a": vec![json!({ "b": ["a"] }); 50_000] });
    for arguments in [json!({ "a": [{ "b": [text] }] }), wide, json!({ "a": vec![0; 500_000] })] {
        assert!(check(&rules, &names, &arguments).is_err());
    }
}
