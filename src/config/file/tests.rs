mod authorization;
mod front_door;
mod rules;

use std::time::Duration;

use resource::catalogue::{ItemRules, ProfileRule, ScopeRule};
use shared::Scope;
use shared::catalogue::Risk;

use super::*;
use crate::front::listen::Budget;
use crate::front::proxies::{ClientHeader, Proxies};

fn parse(text: &str) -> anyhow::Result<File> {
    File::parse(Path::new("etc/portcullis.toml"), text)
}

/// The one-line error.
fn refused(text: &str) -> String {
    let line = format!("{:#}", parse(text).unwrap_err());
    assert!(!line.contains('\n'), "{line}");
    line
}

fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

/// The scopes in this tool's rule.
fn needs(file: &File, tool: &str) -> Scope {
    file.rules.tools.get(tool).unwrap().scope.clone()
}

#[test]
fn an_empty_file_says_nothing() {
    let file = parse("# nothing\n").unwrap();
    assert_eq!(File { path: None, ..file }, File::default());
    assert_eq!(File::default().groups, [("everyone".to_owned(), scope("docs.read"))].into());
}

#[test]
fn every_key_is_read() {
    let file = parse(
        r#"
            issuer = "https://portcullis.lab.internal"
            listen = "localhost:9000"
            data_dir = "/srv/portcullis"
            docs = "handbook"
            device = true

            [groups]
            engineers = ["docs.read", "docs.archive"]
            a-2_b = []

            [scopes."docs.archive"]
            title = "Read what is kept for the record"
            risk = "high"
            risk_text = "It shows drafts, too."
            default = true

            [scopes."docs.read"]
            risk = "high"

            [tools.docs_read]
            scope = ["docs.read", "docs.archive"]
            [tools]
            docs_search.scope = "docs.archive"
        "#,
    )
    .unwrap();
    assert_eq!(file.issuer.as_deref(), Some("https://portcullis.lab.internal"));
    assert_eq!(file.front.listen.as_deref(), Some("localhost:9000"));
    assert_eq!(file.data_dir.as_deref(), Some(Path::new("/srv/portcullis")));
    assert_eq!(file.resource.docs.as_deref(), Some(Path::new("etc/handbook")));
    assert!(file.authz.device);
    assert_eq!(file.groups["everyone"], scope("docs.read"));
    assert_eq!(file.groups["engineers"], scope("docs.archive docs.read"));
    assert_eq!(file.groups["a-2_b"], Scope::empty());
    let scopes: Vec<_> = file
        .rules
        .scopes
        .iter()
        .map(|ScopeRule { description: d, default }| (d.name.as_str(), d.title.as_str(), d.risk, *default))
        .collect();
    assert_eq!(
        scopes,
        [
            ("docs.archive", "Read what is kept for the record", Risk::High, true),
            ("docs.read", "Search and read the documentation", Risk::High, true),
        ]
    );
    let risk_texts: Vec<_> =
        file.rules.scopes.iter().map(|rule| rule.description.risk_text.as_deref()).collect();
    assert_eq!(risk_texts, [Some("It shows drafts, too."), None]);
    assert_eq!(needs(&file, "docs_read"), scope("docs.archive docs.read"));
    assert_eq!(needs(&file, "docs_search"), scope("docs.archive"));
}

#[test]
fn the_everyone_group_can_have_fewer_scopes() {
    assert_eq!(parse("[groups]\neveryone = []").unwrap().groups["everyone"], Scope::empty());
}

#[test]
fn the_command_line_takes_precedence() {
    let given = CommandLineOptions { listen: Some("1".to_owned()), ..CommandLineOptions::default() };
    let file = parse("listen = \"2\"\nissuer = \"https://a.example\"").unwrap().under(&given);
    assert_eq!((file.front.listen_or_default(), file.issuer.as_deref()), ("1", Some("https://a.example")));
    assert_eq!(File::default().front.listen_or_default(), "localhost:8080");
}

/// OPS-03: each of these prevents the start with one line.
#[test]
#[allow(clippy::too_many_lines, reason = "one table of mistakes, best read in one piece")]
fn every_mistake_has_its_line() {
    let long = "a".repeat(33);
    let long_group = format!("groups.{long} = []");
    let group_line = |name: &str| {
        format!(
            "the group `{name}` at etc/portcullis.toml:1 needs another name: a letter, then letters, digits, `_` or `-`, all lower case, 32 at most"
        )
    };
    for (text, line) in [
        // Keys.
        ("\n\nisuer = 1", "unknown key `isuer` at etc/portcullis.toml:3; did you mean `issuer`?"),
        ("[tool]", "unknown key `tool` at etc/portcullis.toml:1; did you mean `tools`?"),
        (
            "[scopes.x]\ntitle = \"X\"\nrsk = \"low\"",
            "unknown key `rsk` at etc/portcullis.toml:3; did you mean `risk`?",
        ),
        (
            "[tools.docs_read]\nscopes = \"docs.read\"",
            "unknown key `scopes` at etc/portcullis.toml:2; did you mean `scope`?",
        ),
        // The first error in the file, not in the alphabet.
        ("z = 1\na = 1", "unknown key `z` at etc/portcullis.toml:1; did you mean `tls`?"),
        // Syntax.
        ("a = 1\nissuer", "syntax error at etc/portcullis.toml:2: key with no value, expected `=`"),
        ("listen = \"1\"\nlisten = \"2\"", "syntax error at etc/portcullis.toml:2: duplicate key"),
        // Types.
        ("issuer = 7", "`issuer` at etc/portcullis.toml:1 must be a string, not integer"),
        ("listen = 8080", "`listen` at etc/portcullis.toml:1 must be a string, not integer"),
        ("data_dir = true", "`data_dir` at etc/portcullis.toml:1 must be a string, not boolean"),
        ("docs = []", "`docs` at etc/portcullis.toml:1 must be a string, not array"),
        ("groups = 1", "`groups` at etc/portcullis.toml:1 must be a table, not integer"),
        ("groups.a = 1.5", "`a` at etc/portcullis.toml:1 must be a list of strings, not float"),
        ("groups.a = [\n\"docs.read\",\n7]", "`a` at etc/portcullis.toml:3 must be a string, not integer"),
        ("scopes.x = 1979-05-27", "`x` at etc/portcullis.toml:1 must be a table, not datetime"),
        (
            "scopes.x.default = \"yes\"",
            "`default` at etc/portcullis.toml:1 must be true or false, not string",
        ),
        ("scopes.x.title = 1", "`title` at etc/portcullis.toml:1 must be a string, not integer"),
        ("scopes.x.risk = 1", "`risk` at etc/portcullis.toml:1 must be a string, not integer"),
        (
            "tools.docs_read = 7",
            "`docs_read` at etc/portcullis.toml:1 must be a string or a list of strings, not integer",
        ),
        (
            "tools.docs_read.scope = 1",
            "`scope` at etc/portcullis.toml:1 must be a string or a list of strings, not integer",
        ),
        // Text.
        ("docs = \" \"", "`docs` at etc/portcullis.toml:1 is empty"),
        (
            "docs = \"a\\nb\"",
            "`docs` at etc/portcullis.toml:1 contains a line break or another control character",
        ),
        (
            "\"a\\nb\" = 1",
            "a key at etc/portcullis.toml:1 contains a line break or another control character",
        ),
        (
            "issuer = \"http://a.example\"",
            "etc/portcullis.toml:1: issuer `http://a.example` is http; use https (http is allowed only for http://localhost)",
        ),
        (
            "issuer = \"https://10.0.0.1\"",
            "etc/portcullis.toml:1: issuer `https://10.0.0.1` is an IP address; passkeys need a name: give the machine one in DNS or a hosts file",
        ),
        (
            "listen = \"nonsense\"",
            "`listen` at etc/portcullis.toml:1 is `nonsense`, not HOST:PORT; write it like localhost:8080",
        ),
        // Groups.
        ("groups.Engineers = []", &group_line("Engineers")),
        ("groups.2nd = []", &group_line("2nd")),
        ("groups.\"\" = []", &group_line("")),
        ("groups.\"a b\" = []", &group_line("a b")),
        (&long_group, &group_line(&long)),
        (
            "[groups]\n\nengineers = [\n  \"docs.read\",\n  \"dcos.read\",\n]",
            "the group `engineers` at etc/portcullis.toml:5 names an unknown scope `dcos.read`; did you mean `docs.read`? A new one needs [scopes.\"dcos.read\"] with a title",
        ),
        (
            "groups.a = [\"docs.read x\"]",
            "`docs.read x` at etc/portcullis.toml:1 is not a valid scope: use visible ASCII without spaces, quotes and backslashes",
        ),
        ("groups.a = [\"\"]", "`a` at etc/portcullis.toml:1 is empty"),
        // Scopes.
        (
            "[scopes.\"jira.read\"]",
            "the scope `jira.read` at etc/portcullis.toml:1 has no `title`; say in a few words what it allows",
        ),
        ("scopes.x.title = \"\"", "`title` at etc/portcullis.toml:1 is empty"),
        (
            "scopes.x.risk = \"medium\"",
            "`risk` at etc/portcullis.toml:1 is `medium`; write \"low\" or \"high\"",
        ),
        ("scopes.x.risk_text = 1", "`risk_text` at etc/portcullis.toml:1 must be a string, not integer"),
        (
            "[scopes.x]\ntitle = \"X\"\nrisk_text = \"It writes.\"",
            "`risk_text` at etc/portcullis.toml:3 is never shown, because the scope `x` is low risk; set risk = \"high\" or remove the text",
        ),
        (
            "[scopes.jira.read]\ntitle = \"X\"",
            "a name with a dot needs quotes at etc/portcullis.toml:1; write [scopes.\"jira.read\"]",
        ),
        (
            "[scopes.\"\u{fc}\"]",
            "`\u{fc}` at etc/portcullis.toml:1 is not a valid scope: use visible ASCII without spaces, quotes and backslashes",
        ),
        (
            "[scopes.offline_access]\ntitle = \"X\"",
            "the scope `offline_access` at etc/portcullis.toml:1 is reserved in OAuth; choose another name",
        ),
        (
            "[groups]\nroom1 = []\nrooml = []",
            "the groups `room1` and `rooml` at etc/portcullis.toml:3 look alike; rename one",
        ),
        // Tools.
        (
            "[tools.docs_serch]\nscope = \"docs.read\"",
            "unknown tool `docs_serch` at etc/portcullis.toml:1; did you mean `docs_search`?",
        ),
        (
            "[tools.whoami]\nscope = \"docs.read\"",
            "etc/portcullis.toml:1: the tool `whoami` needs only a valid token and cannot be mapped to scopes",
        ),
        (
            "\n[tools.docs_read]",
            "the tool `docs_read` at etc/portcullis.toml:2 has no scope; write scope = \"\u{2026}\"",
        ),
        (
            "tools.docs_read.scope = []",
            "the tool `docs_read` at etc/portcullis.toml:1 has no scope; write scope = \"\u{2026}\"",
        ),
        (
            "tools.docs_read.scope = \"docs.reed\"",
            "the tool `docs_read` at etc/portcullis.toml:1 names an unknown scope `docs.reed`; did you mean `docs.read`? A new one needs [scopes.\"docs.reed\"] with a title",
        ),
    ] {
        assert_eq!(refused(text), line, "{text}");
    }
}

/// POL-04: every key of the file either can be changed by a reload, or is reported to need a restart.
#[test]
fn every_key_is_known_to_a_reload() {
    let some_rule = parse("[prompts.\"*\"]\nhidden = true").unwrap().rules.prompts;
    let other = File {
        path: None,
        issuer: Some("x".to_owned()),
        origin: Some("x".to_owned()),
        data_dir: Some(PathBuf::from("x")),
        audit_mirror: Some(PathBuf::from("x")),
        front: front::config::Config {
            listen: Some("x".to_owned()),
            tls: front::config::TlsFiles { cert: Some(PathBuf::from("x")), key: None },
            proxies: Proxies { networks: vec!["::1/128".parse().unwrap()], naming: ClientHeader::Forwarded },
            memory: Budget::of(1 << 30),
        },
        authz: authz::Config {
            tokens: authz::Tokens { access: Duration::from_secs(1) },
            device: true,
            consent: authz::Consent { interstitial: true },
            cimd: parse("[cimd]\nunknown = \"ask\"").unwrap().authz.cimd,
            registration: authz::Registration { management: true, ..authz::Registration::default() },
            ..authz::Config::default()
        },
        resource: resource::Settings {
            allowed_origins: vec!["x".to_owned()],
            docs: Some(PathBuf::from("x")),
        },
        groups: BTreeMap::new(),
        rules: Rules {
            scopes: Vec::new(),
            tools: ItemRules::default(),
            prompts: some_rule.clone(),
            resources: some_rule,
            profiles: [("x".to_owned(), ProfileRule::default())].into(),
            record_values: true,
            limits: parse("[limits]\nat_once = 1").unwrap().rules.limits,
        },
        sources: parse("[sources.x]\nkind = \"mcp-http\"\nurl = \"http://localhost/\"").unwrap().sources,
        declared: BTreeMap::new(),
        clients: Vec::new(),
        limits: Limits::off(),
        signing: Signing { seal_key: super::super::SealKey::File(PathBuf::from("x")), ..Signing::default() },
        remote: Remote { client_id: Some("x".to_owned()), ..Remote::default() },
    };
    let known = File::default();
    let mut told = [known.fixed(&other), known.changed(&other), vec!["clients"]].concat();
    let mut keys = entries::names();
    told.sort_unstable();
    keys.sort_unstable();
    assert_eq!(told, keys);
    assert!(known.fixed(&File::default()).is_empty() && known.changed(&File::default()).is_empty());
}

#[test]
fn a_file_that_cannot_be_read_or_trusted_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.toml");
    let refused = |path: &Path| format!("{:#}", File::load(Some(path)).unwrap_err());
    assert_eq!(
        refused(&path),
        format!("cannot read the configuration {}: No such file or directory (os error 2)", path.display())
    );
    fs::write(&path, [0xFF]).unwrap();
    assert!(refused(&path).ends_with("it is not UTF-8 text"));
    fs::write(&path, "docs = \"d\"").unwrap();
    assert_eq!(File::load(Some(&path)).unwrap().resource.docs, Some(dir.path().join("d")));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(
        refused(&path),
        format!("{0} can be changed by everybody (mode 666); run: chmod o-w {0}", path.display())
    );
}

/// The examples in the handbook work as written.
#[test]
fn the_handbooks_examples_are_read() {
    let handbook = include_str!("../../../docs/configuration.md");
    let example = |block: &str| block.split_once("```").map(|(example, _)| example.to_owned());
    let examples: String = handbook.split("```toml\n").skip(1).filter_map(example).collect();
    let file = parse(&examples).unwrap();
    // A key of a table is shown within the table.
    let shown = |key: &&str| examples.contains(key.rsplit('.').next().unwrap());
    assert!(entries::names().iter().all(shown), "{examples}");
    assert_eq!(file.groups["engineers"], needs(&file, "docs_read"));
}
