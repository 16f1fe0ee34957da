use std::path::Path;

use super::super::File;
use super::*;

const SOURCE: &str = "[sources.db]\nkind = \"mcp-http\"\nurl = \"http://localhost/mcp\"\n";

fn parse(toml: &str) -> anyhow::Result<File> {
    File::parse(Path::new("p.toml"), toml)
}

fn refused(toml: &str) -> String {
    format!("{:#}", parse(toml).expect_err(toml))
}

/// POL-01: prompts and resources have rules of their own, in both forms.
#[test]
fn prompts_and_resources_have_rules() {
    let file = parse(&format!(
        "{SOURCE}[prompts]\ndb_report = \"docs.read\"\n[prompts.\"db_x*\"]\nscope = \"docs.read\"\neffect = \"write\"\n\
         args = {{ \"/topic\" = {{ match = \"a+\" }} }}\n[resources]\n\"db_db://host/{{table}}\" = \"docs.read\"\n\
         [resources.\"db_db://host/*\"]\nhidden = true\n[resources.\"docs_docs:///guides/*\"]\nscope = \"docs.read\"\ntitle = \"Guide\"\n"
    ));
    let rules = file.unwrap().rules;
    let patterns = |kind| rules.of(kind).iter().map(|(pattern, _)| pattern.to_string()).collect::<Vec<_>>();
    assert_eq!(patterns(Kind::Prompt), ["db_report", "db_x*"]);
    let resources = ["db_db://host/*", "db_db://host/{table}", "docs_docs:///guides/*"];
    assert_eq!(patterns(Kind::Resource), resources);
    assert_eq!(rules.tools.iter().count(), 2, "the built-in ones");
    let prompt = rules.prompts.get("db_x*").unwrap();
    assert_eq!((prompt.effect, prompt.arguments.is_empty()), (Some(Effect::Writes), false));
    assert_eq!(prompt.at.as_deref(), Some("p.toml:6"));
}

/// POL-05: what is wrong is said with its line and what to write.
#[test]
fn bad_rules_about_prompts_and_resources_are_refused() {
    for (toml, says) in [
        (
            "[prompts.db_x]\nscope = \"docs.read\"\n",
            "unknown prompt `db_x` at p.toml:1; it must begin with the name of one of [sources] and `_`",
        ),
        (
            "[resources.\"db_db://host/x\"]\nscope = \"docs.read\"\n",
            "unknown resource `db_db://host/x` at p.toml:1; it must begin with the name of one of [sources] and `_`",
        ),
        ("[prompts.\"a b\"]\nscope = \"docs.read\"\n", "is not the name of a prompt: a name has letters"),
        (
            "[resources.\"a b\"]\nscope = \"docs.read\"\n",
            "is not the name of a resource: a resource is called SOURCE_URI",
        ),
        ("[prompts.\"*\"]\neffect = \"read\"\n", "the prompt `*` at p.toml:1 has no scope; write scope"),
        ("[resources.\"*\"]\nscope = []\n", "the resource `*` at p.toml:1 has no scope; write scope"),
        (
            "[resources.\"*\"]\nscope = \"docs.red\"\n",
            "names an unknown scope `docs.red`; did you mean `docs.read`?",
        ),
        (
            "[resources.\"*\"]\nscope = \"docs.read\"\nargs = { \"/x\" = { absent = true } }\n",
            "unknown key `args` at p.toml:3",
        ),
        (
            "[prompts.\"*\"]\nscope = \"docs.read\"\nscop = 1\n",
            "unknown key `scop` at p.toml:3; did you mean `scope`?",
        ),
        ("[profiles.x]\nitems = [\"db_db://a b\"]\n", "`db_db://a b` at p.toml:2 is not the name of an item"),
    ] {
        let why = refused(toml);
        assert!(why.contains(says), "{toml}: {why}");
    }
}

/// POL-03: a profile selects items of every kind, resources by what rules call them.
#[test]
fn a_profile_selects_resources() {
    let file = parse("[profiles.x]\nitems = [\"db_*\", \"db_db://host/{id}\"]\n").unwrap();
    let selected: Vec<_> = file.rules.profiles["x"].items.iter().map(ToString::to_string).collect();
    assert_eq!(selected, ["db_*", "db_db://host/{id}"]);
}
