use super::*;

/// POL-01, POL-02: errors in rules about tools, each with its line and a correction.
#[test]
fn mistakes_in_rules_have_their_line() {
    let args = |rule: &str| format!("[tools.docs_read]\nscope = \"docs.read\"\nargs = {{ {rule} }}");
    let unusable = |rule: &str, argument: &str, why: &str| {
        let line =
            format!("the rule for the argument `{argument}` at etc/portcullis.toml:3 cannot be used: {why}");
        (args(rule), line)
    };
    for (text, line) in [
        (
            "tools.\"docs.*\" = \"docs.read\"".to_owned(),
            "`docs.*` at etc/portcullis.toml:1 is not the name of a tool: a name has letters, digits, `_` and `-`, and may have `*` for any characters and `?` for one; 128 at most".to_owned(),
        ),
        (
            "[tools.\"docs_*\"]\ntitle = \"Documents\"".to_owned(),
            "the tool `docs_*` at etc/portcullis.toml:1 has no scope; write scope = \"\u{2026}\"".to_owned(),
        ),
        (
            "[tools.docs_read]\neffect = \"readonly\"".to_owned(),
            "`effect` at etc/portcullis.toml:2 is `readonly`; write \"read\" or \"write\"".to_owned(),
        ),
        (
            "[tools.docs_read]\nhidden = \"yes\"".to_owned(),
            "`hidden` at etc/portcullis.toml:2 must be true or false, not string".to_owned(),
        ),
        (
            args("\"/path\" = { mach = \"x\" }"),
            "unknown key `mach` at etc/portcullis.toml:3; did you mean `match`?".to_owned(),
        ),
        (
            args("\"/path\" = { in = [1979-05-27] }"),
            "`in` at etc/portcullis.toml:3 must be a string, a number, true or false, not datetime".to_owned(),
        ),
        (
            args("\"/path\" = { min = \"1\" }"),
            "`min` at etc/portcullis.toml:3 must be a number, not string".to_owned(),
        ),
        (
            args("\"/path\" = { absent = false }"),
            "`absent` at etc/portcullis.toml:3 has no effect if it is false; remove it".to_owned(),
        ),
        unusable("path = { in = [1] }", "path", "a pointer begins with a slash and names an argument, like /branch or /files/*/path"),
        unusable("\"/path\" = {}", "/path", "it has no condition; write in, match, min, max or absent"),
        unusable("\"/path\" = { match = \"(\" }", "/path", "`match` is not a regular expression that can be used: error: unclosed group"),
    ] {
        assert_eq!(refused(&text), line, "{text}");
    }
}

/// POL-03: profiles, and errors in them.
#[test]
fn profiles_are_read() {
    let file = parse("[profiles.ci]\ntitle = \"CI\"\nitems = [\"docs_*\", \"whoami\"]\nscope = []\n[profiles.d-2]\nitems = \"*\"").unwrap();
    let ci = &file.rules.profiles["ci"];
    assert_eq!((ci.title.as_deref(), ci.default_scope.clone()), (Some("CI"), Some(Scope::empty())));
    assert_eq!(ci.items.iter().map(ToString::to_string).collect::<Vec<_>>(), ["docs_*", "whoami"]);
    assert_eq!(
        (file.rules.profiles["d-2"].title.as_deref(), ci.at.as_str()),
        (None, "etc/portcullis.toml:1")
    );
    for (text, line) in [
        (
            "[profiles.\"a/b\"]\nitems = \"*\"",
            "the profile `a/b` at etc/portcullis.toml:1 needs another name: a letter, then letters, digits, `_` or `-`, all lower case, 32 at most",
        ),
        (
            "[profiles.\".well-known\"]\nitems = \"*\"",
            "the profile `.well-known` at etc/portcullis.toml:1 needs another name: a letter, then letters, digits, `_` or `-`, all lower case, 32 at most",
        ),
        (
            "[profiles.a]",
            "the profile `a` at etc/portcullis.toml:1 selects nothing; write items = [\"\u{2026}\"]",
        ),
        (
            "[profiles.a]\nitems = [\"a\", \"docs.*\"]",
            "`docs.*` at etc/portcullis.toml:2 is not the name of an item: a name has letters, digits, `_` and `-`, and may have `*` for any characters and `?` for one; 128 at most",
        ),
        (
            "[profiles.a]\nitems = \"*\"\nscope = \"x\"",
            "the profile `a` at etc/portcullis.toml:3 names an unknown scope `x`; did you mean `docs.read`? A new one needs [scopes.\"x\"] with a title",
        ),
        (
            "[profiles.a]\ntools = \"*\"",
            "unknown key `tools` at etc/portcullis.toml:2; did you mean `title`?",
        ),
    ] {
        assert_eq!(refused(text), line, "{text}");
    }
}

/// POL-01, POL-02: rules by glob, in the short form and in the long one.
#[test]
fn rules_about_tools_are_read() {
    let file = parse(
        r#"
            [tools]
            docs_read = ["docs.read"]
            "d*" = "docs.read"
            "ci_*" = { scope = "docs.read", effect = "read", title = "CI", description = "a\nb" }
            whoami.title = "Me"
            "x_*".hidden = true

            [tools.docs_search]
            scope = "docs.read"
            args = { "/branch" = { match = "release/.*" }, "/runs" = { min = 1, max = 2.5, in = [1, "a", true] } }
        "#,
    )
    .unwrap();
    let rule = |pattern: &str| file.rules.tools.get(pattern).unwrap().clone();
    assert_eq!((rule("docs_read").scope, rule("d*").scope), (scope("docs.read"), scope("docs.read")));
    let ci = rule("ci_*");
    assert_eq!((ci.effect, ci.title.as_deref()), (Some(resource::catalogue::Effect::ReadOnly), Some("CI")));
    assert_eq!((ci.description.as_deref(), ci.at.as_deref()), (Some("a\nb"), Some("etc/portcullis.toml:5")));
    assert!(rule("x_*").hidden && rule("whoami").scope.is_empty());
    let arguments: Vec<_> = rule("docs_search").arguments.iter().map(ToString::to_string).collect();
    assert_eq!(arguments, ["/branch match release/.*", "/runs in [1,\"a\",true], min 1, max 2.5"]);
}
