use resource::catalogue::{ItemRules, ProfileRule, ScopeRule};
use shared::Scope;
use shared::catalogue::Risk;
use shared::rate::Quota;

use super::*;

fn parse(text: &str) -> anyhow::Result<File> {
    File::parse(Path::new("etc/portcullis.toml"), text)
}

/// The one line that says what is wrong.
fn refused(text: &str) -> String {
    let line = format!("{:#}", parse(text).unwrap_err());
    assert!(!line.contains('\n'), "{line}");
    line
}

fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

/// The scopes that the rule of this tool names.
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
    assert_eq!(file.listen.as_deref(), Some("localhost:9000"));
    assert_eq!(file.data_dir.as_deref(), Some(Path::new("/srv/portcullis")));
    assert_eq!(file.docs.as_deref(), Some(Path::new("etc/handbook")));
    assert!(file.device && file.base(std::path::PathBuf::new()).authz.device);
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
fn everyone_can_be_given_less() {
    assert_eq!(parse("[groups]\neveryone = []").unwrap().groups["everyone"], Scope::empty());
}

#[test]
fn the_command_line_counts_more() {
    let given = Given { listen: Some("1".to_owned()), ..Given::default() };
    let file = parse("listen = \"2\"\nissuer = \"https://a.example\"").unwrap().under(&given);
    assert_eq!((file.listen_or_default(), file.issuer.as_deref()), ("1", Some("https://a.example")));
    assert_eq!(File::default().listen_or_default(), "localhost:8080");
}

/// OPS-03: each of these refuses to start, with its one line.
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
        // The first in the file, not in the alphabet.
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

/// POL-01, POL-02: what rules about tools cannot say, each with its line and what to write.
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

/// POL-04: every key of the file either can change while a server runs, or is told to need a restart.
#[test]
fn every_key_is_known_to_a_reload() {
    let other = File {
        path: None,
        issuer: Some("x".to_owned()),
        listen: Some("x".to_owned()),
        tls_cert: Some(PathBuf::from("x")),
        tls_key: None,
        proxies: Proxies {
            networks: vec!["::1/128".parse().unwrap()],
            naming: crate::front::proxies::Naming::Forwarded,
        },
        allowed_origins: vec!["x".to_owned()],
        memory: Budget::of(1 << 30),
        data_dir: Some(PathBuf::from("x")),
        docs: Some(PathBuf::from("x")),
        device: true,
        consent_interstitial: true,
        groups: BTreeMap::new(),
        rules: Rules {
            scopes: Vec::new(),
            tools: ItemRules::default(),
            profiles: [("x".to_owned(), ProfileRule::default())].into(),
            record_values: true,
        },
        sources: parse("[sources.x]\nkind = \"mcp-http\"\nurl = \"http://localhost/\"").unwrap().sources,
        clients: Vec::new(),
        limits: Limits::off(),
        signing: Signing { seal_key: super::super::SealKey::File(PathBuf::from("x")), ..Signing::default() },
        access_token_lifetime: Duration::from_secs(1),
        origin: Some("x".to_owned()),
        remote: Remote { client_id: Some("x".to_owned()), ..Remote::default() },
        cimd: parse("[cimd]\nunknown = \"ask\"").unwrap().cimd,
        registration: Registration { management: true, ..Registration::default() },
        redirects: Redirects::default(),
    };
    let known = File::default();
    let mut told = [known.fixed(&other), known.changed(&other), vec!["clients"]].concat();
    let mut keys = KEYS.to_vec();
    told.sort_unstable();
    keys.sort_unstable();
    assert_eq!(told, keys);
    assert!(known.fixed(&File::default()).is_empty() && known.changed(&File::default()).is_empty());
}

/// POL-03: profiles, and what they cannot say.
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
    assert!(refused(&path).ends_with("stream did not contain valid UTF-8"));
    fs::write(&path, "docs = \"d\"").unwrap();
    assert_eq!(File::load(Some(&path)).unwrap().docs, Some(dir.path().join("d")));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(
        refused(&path),
        format!("{0} can be changed by everybody (mode 666); run: chmod o-w {0}", path.display())
    );
}

/// What the handbook shows works as it is written there.
#[test]
fn the_handbooks_examples_are_read() {
    let handbook = include_str!("../../../docs/configuration.md");
    let example = |block: &str| block.split_once("```").map(|(example, _)| example.to_owned());
    let examples: String = handbook.split("```toml\n").skip(1).filter_map(example).collect();
    let file = parse(&examples).unwrap();
    assert!(super::KEYS.iter().all(|key| examples.contains(key)), "{examples}");
    assert_eq!(file.groups["engineers"], needs(&file, "docs_read"));
}

/// CIMD-01, CIMD-06: `[cimd]` names hosts, ports, networks and authorities, and says what it does not know.
#[test]
fn hosts_of_documents_are_read() {
    let good = "[cimd]\nmode = \"fetch\"\nca = \"ca.pem\"\n[[cimd.allow]]\nhost = \"a.lab\"\ncidr = \"10.0.0.0/8\"\n";
    let cimd = parse(good).unwrap().base(PathBuf::new()).authz.cimd;
    assert_eq!((cimd.mode, cimd.unknown, cimd.advertise), (authz::CimdMode::Fetch, None, None));
    let allowed = &cimd.allow[0];
    assert_eq!((allowed.host.as_str(), allowed.port), ("a.lab", 443));
    assert_eq!(allowed.networks, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(allowed.ca, PathBuf::from("etc/ca.pem"), "relative to the file's folder");
    assert_eq!(parse("").unwrap().cimd, authz::Cimd::default());
    for (was, is, says) in [
        ("\"fetch\"", "\"import\"", "has no effect without `mode"),
        ("cidr = \"10.0.0.0/8\"", "", "has no `cidr`"),
        ("ca = \"ca.pem\"\n", "", "has no `ca`"),
        ("cidr", "port = 0\ncidr", "is not a valid port"),
        ("cidr", "port = 65536\ncidr", "is not a valid port"),
        ("cidr", "port = \"443\"\ncidr", "must be a number"),
        ("host = \"a.lab\"", "host = \"a.lab:443\"", "not a host"),
        ("mode", "unknown = \"allow\"\nmode", "write \"loopback\", \"ask\" or \"refuse\""),
        ("mode", "modus", "did you mean `mode`?"),
    ] {
        let bad = good.replacen(was, is, 1);
        assert!(refused(&bad).contains(says), "{bad}: {}", refused(&bad));
    }
}

/// RATE-01: `[rate]` raises, lowers or switches off each limit, and says what it does not know.
#[test]
fn limits_are_read() {
    let expected = Limits { mcp: Quota::per_minute(6000), authorize: Quota::OFF, ..Limits::default() };
    let file = parse("[rate]\nmcp = 6_000\nauthorize = \"off\"").unwrap();
    assert_eq!(file.limits, expected);
    assert_eq!(file.base(PathBuf::new()).limits, expected);
    for (text, says) in [
        ("[rate]\nmpc = 1", "unknown key `mpc` at etc/portcullis.toml:2; did you mean `mcp`?"),
        ("[rate]\nmcp = 0", "`mcp` at etc/portcullis.toml:2 would refuse every request"),
        ("[rate]\nmcp = -1", "must be a number from 0 to"),
        ("[rate]\nmcp = \"no\"", "is `no`; write a number per minute, or \"off\""),
        ("[rate]\nmcp = false", "must be a number or a string, not boolean"),
        ("rate = 5", "`rate` at etc/portcullis.toml:1 must be a table"),
    ] {
        assert!(refused(text).contains(says), "{text}: {}", refused(text));
    }
}

/// KEYS-02, AT-01: algorithm and schedule of the signing keys, within the bounds of the matrix.
#[test]
fn the_schedule_of_keys_is_read() {
    use std::time::Duration;

    let text = "[keys]\nsigning_alg = \"Ed25519\"\nactive = \"30d\"\npublish_ahead = \"1h\"\njwks_max_age = \"10m\"\n";
    let keys = parse(text).unwrap().base(std::path::PathBuf::new()).keys;
    let expected = keys::Config {
        algorithm: keys::Algorithm::EdDsa,
        active: Duration::from_hours(30 * 24),
        publish_ahead: Duration::from_hours(1),
        jwks_max_age: Duration::from_mins(10),
        ..keys::Config::default()
    };
    assert_eq!(keys, expected);
    for (line, complaint) in [
        ("signing_alg = \"none\"", "`signing_alg` at etc/portcullis.toml:2 is `none`"),
        ("signing_alg = \"HS256\"", "write \"ES256\", \"RS256\" or \"EdDSA\""),
        ("jwks_max_age = \"16m\"", "at most 15 minutes"),
        ("publish_ahead = \"9m\"", "at least twice `jwks_max_age`"),
        ("active = \"23h\"", "`active` must be at least `publish_ahead`"),
        ("active = \"367d\"", "at most 366 days"),
        ("active = \"0d\"", "not a length of time"),
        ("active = 90", "must be a string"),
        ("activ = \"90d\"", "did you mean `active`?"),
    ] {
        let refusal = refused(&format!("[keys]\n{line}\n"));
        assert!(refusal.contains(complaint), "{refusal}");
    }
}

/// Standards §1: an access token lives 60 to 3600 seconds, and 15 minutes if nothing is said.
#[test]
fn the_life_of_access_tokens_is_read() {
    use std::time::Duration;

    let lifetime = |text: &str| parse(text).unwrap().base(PathBuf::new()).authz.access_token_lifetime;
    assert_eq!(lifetime(""), Duration::from_mins(15));
    assert_eq!(lifetime("[tokens]\n"), Duration::from_mins(15));
    for (text, seconds) in [("60s", 60), ("1m", 60), ("901s", 901), ("1h", 3600), ("3600s", 3600)] {
        assert_eq!(
            lifetime(&format!("[tokens]\naccess = \"{text}\"")),
            Duration::from_secs(seconds),
            "{text}"
        );
    }
    for (line, complaint) in [
        (
            "access = \"59s\"",
            "`access` at etc/portcullis.toml:2 is 59 seconds; an access token lives 60 to 3600 seconds",
        ),
        ("access = \"3601s\"", "is 3601 seconds"),
        ("access = \"1d\"", "60 to 3600 seconds (1m to 1h)"),
        ("access = \"0s\"", "not a length of time"),
        ("access = \"900\"", "not a length of time"),
        ("access = 900", "must be a string"),
        ("acess = \"15m\"", "did you mean `access`?"),
    ] {
        let refusal = refused(&format!("[tokens]\n{line}\n"));
        assert!(refusal.contains(complaint), "{refusal}");
    }
    assert!(refused("tokens = \"15m\"").contains("must be a table"));
}

/// MCP-14, OPS-03: origins of any scheme, each one by name, as a browser sends it.
#[test]
fn origins_of_any_scheme_are_read() {
    let one = |text: &str| format!("allowed_origins = ['{text}']");
    for good in [
        "https://inspector.lab.internal",
        "http://localhost:6274",
        "https://[fd00::1]:8443",
        "app://obsidian.md",
        "app://.",
        "vscode-webview://0a1b2c3d4e5f",
        "tauri://localhost",
        "capacitor://localhost",
        "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
        "com.example.app+x://Main",
        "file://",
    ] {
        assert_eq!(parse(&one(good)).unwrap().allowed_origins, [good], "{good}");
    }
    for (bad, complaint) in [
        ("null", "`null` in `allowed_origins` at etc/portcullis.toml:1 is what every sandboxed page sends"),
        ("NULL", "cannot be allowed"),
        ("*", "is a pattern"),
        ("https://*.lab.internal", "is a pattern"),
        ("vscode-webview://*", "is a pattern"),
        ("inspector.lab.internal", "is not an origin; write each one out"),
        ("https://inspector.lab.internal/", "write https://inspector.lab.internal"),
        ("https://inspector.lab.internal:443", "write https://inspector.lab.internal"),
        ("HTTPS://Inspector.lab.internal", "write https://inspector.lab.internal"),
        ("https://u@inspector.lab.internal", "write https://inspector.lab.internal"),
        ("https://", "is not an origin"),
        ("app://obsidian.md/", "is not an origin"),
        ("app://obsidian.md/index.html", "is not an origin"),
        ("app://a?b", "is not an origin"),
        ("app://u@a", "is not an origin"),
        ("App://obsidian.md", "is not an origin"),
        ("1app://obsidian.md", "is not an origin"),
        ("://obsidian.md", "is not an origin"),
        ("app:obsidian.md", "is not an origin"),
        ("app://obsidian md", "is not an origin"),
        ("app://b\u{fc}cher", "is not an origin"),
        ("data:text/html,x", "is not an origin"),
    ] {
        assert!(refused(&one(bad)).contains(complaint), "{bad}: {}", refused(&one(bad)));
    }
}

/// DCR-01, REDIR-05, OPS-03: who may register, and where answers may go.
#[test]
fn registration_is_configured() {
    let file = parse(
        "[registration]\nmode = \"token\"\nmanagement = true\nremote_redirects = true\napp_schemes = [\"zed://\"]",
    );
    let mut redirects = authz::Redirects::default();
    redirects.set_remote(true);
    redirects.set_app_schemes(["zed://"]).unwrap();
    let file = file.unwrap();
    assert_eq!(file.registration.mode, authz::RegistrationMode::Token);
    assert!(file.registration.management);
    assert_eq!(file.redirects, redirects);
    let usual = parse("").unwrap();
    assert_eq!((usual.registration, usual.redirects), Default::default());
    for (toml, complaint) in [
        (
            "[registration]\nmode = \"closed\"",
            "`mode` at etc/portcullis.toml:2 is `closed`; write \"open\", \"token\" or \"off\"",
        ),
        (
            "[registration]\nmodus = \"off\"",
            "unknown key `modus` at etc/portcullis.toml:2; did you mean `mode`?",
        ),
        ("[registration]\nmanagement = \"yes\"", "must be true or false"),
        ("[registration]\napp_schemes = [\"https://\"]", "write it like example:// or example://callback"),
        (
            "[registration]\napp_schemes = [\"javascript://\"]",
            "`javascript://` in `app_schemes` at etc/portcullis.toml:2",
        ),
        ("registration = \"off\"", "must be a table"),
    ] {
        let refused = refused(toml);
        assert!(refused.contains(complaint), "{refused}");
    }
}
