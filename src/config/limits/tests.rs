use std::path::Path;

use resource::catalogue::Kind;

use super::super::File;

const SOURCE: &str = "[sources.ci]\nkind = \"mcp-http\"\nurl = \"http://localhost/mcp\"\n";

fn parse(toml: &str) -> anyhow::Result<File> {
    File::parse(Path::new("p.toml"), toml)
}

/// LIMIT-01: limits stand on tools and prompts, on sources, and on everything.
#[test]
fn limits_are_read() {
    let file = parse(&format!(
        "{SOURCE}[tools.ci_run]\nscope = \"docs.read\"\nlimit = [\"3/hour/user\", \"20/day\"]\nat_once = 2\n\
         [prompts.\"ci_*\"]\nscope = \"docs.read\"\nlimit = \"1/minute/client\"\nat_once = [\"1/user\", \"5\"]\n\
         [limits]\nlimit = \"1000/day/user\"\nat_once = \"8/client\"\n[limits.sources]\nci = {{ limit = \"60/15m\" }}\ndocs = {{ at_once = 4 }}\n"
    ));
    let rules = file.unwrap().rules;
    let rule = |kind, name| rules.of(kind).get(name).unwrap().limits.written();
    assert_eq!(rule(Kind::Tool, "ci_run"), ["3/hour/user", "20/day", "2 at once"]);
    assert_eq!(rule(Kind::Prompt, "ci_*"), ["1/minute/client", "1/user at once", "5 at once"]);
    assert_eq!(rules.limits.all.written(), ["1000/day/user", "8/client at once"]);
    assert_eq!(rules.limits.sources["ci"].written(), ["60/15m"]);
    assert_eq!(rules.limits.sources["docs"].written(), ["4 at once"]);
    assert!(rules.have_limits() && !File::default().rules.have_limits());
}

/// LIMIT-03, LIMIT-04: a rule says how long a call may take and how large it may be, within bounds.
#[test]
fn bounds_are_read() {
    let tool = |key: &str| format!("[tools.docs_read]\nscope = \"docs.read\"\n{key}");
    let file = parse(&tool(
        "timeout = \"90s\"\nlongest = \"1h\"\nmax_arguments = \"1 KiB\"\nmax_result = \"8 MiB\"",
    ))
    .unwrap();
    let bounds = file.rules.tools.get("docs_read").unwrap().bounds;
    assert_eq!((bounds.timeout.unwrap().as_secs(), bounds.longest.unwrap().as_secs()), (90, 3600));
    assert_eq!((bounds.max_arguments, bounds.max_result), (Some(1024), Some(8 << 20)));
    for (key, says) in [
        ("timeout = \"2h\"", "`timeout` at p.toml:3 is too long; a call may take an hour at most"),
        ("longest = \"0\"", "`longest` at p.toml:3 is `0`, not a length of time"),
        ("max_arguments = \"2 MiB\"", "`max_arguments` at p.toml:3 must be from \"1 KiB\" to \"1 MiB\""),
        ("max_result = \"0 KiB\"", "`max_result` at p.toml:3 must be from \"1 KiB\" to \"8 MiB\""),
        ("max_result = 5", "`max_result` at p.toml:3 must be a string"),
    ] {
        let error = format!("{:#}", parse(&tool(key)).expect_err(key));
        assert!(error.contains(says), "{key}: {error}");
    }
}

/// LIMIT-01: an invalid limit is refused with its line.
#[test]
fn bad_limits_are_refused() {
    let tool = |key: &str| format!("[tools.docs_read]\nscope = \"docs.read\"\n{key}");
    for (toml, says) in [
        (tool("limit = \"3 an hour\""), "`3 an hour` at p.toml:3 is not a limit: write COUNT/TIME"),
        (tool("limit = \"0/hour\""), "`0/hour` at p.toml:3 is not a limit: zero would refuse every call"),
        (tool("limit = []"), "`limit` at p.toml:3 names no limit; write one, or remove it"),
        (tool("limit = 3"), "`limit` at p.toml:3 must be a string or a list of strings, not integer"),
        (tool("limit = \"3/60d\""), "`3/60d` at p.toml:3 is not a limit: the time is at most 31 days"),
        (tool("at_once = 0"), "`0` at p.toml:3 is not a limit: zero would refuse every call"),
        (tool("at_once = \"2/tool\""), "`2/tool` at p.toml:3 is not a limit: write COUNT or COUNT/WHOSE"),
        (tool("limits = \"3/hour\""), "unknown key `limits` at p.toml:3; did you mean `limit`?"),
        (
            "[limits.sources.cj]\nlimit = \"3/hour\"".to_owned(),
            "[limits.sources.cj] at p.toml:1 names a source that does not exist; did you mean `",
        ),
        ("[limits]\nper_user = \"3/hour\"".to_owned(), "unknown key `per_user` at p.toml:2"),
        ("[limits.sources.docs]\nargs = 1".to_owned(), "unknown key `args` at p.toml:2"),
        (
            "[resources.\"docs_docs:///*\"]\nscope = \"docs.read\"\nlimit = \"3/hour\"".to_owned(),
            "unknown key `limit` at p.toml:3",
        ),
    ] {
        let error = format!("{:#}", parse(&toml).expect_err(&toml));
        assert!(error.contains(says), "{toml}: {error}");
    }
}
