use resource::sources;
use resource::sources::endpoint::{Access, Address, Era, Limits, Local, Sandbox, Sharing};
use shared::Secret;
use shared::outbound::{Destination, Identity, Trust};

use super::*;
use crate::config::File;

fn parse(text: &str) -> anyhow::Result<File> {
    File::parse(Path::new("etc/portcullis.toml"), text)
}

fn source(keys: &str) -> anyhow::Result<Source> {
    parse(&format!("[sources.jira]\n{keys}")).map(|mut file| file.sources.remove("jira").unwrap())
}

const LEAST: &str = "kind = \"mcp-http\"\nurl = \"https://jira.lab.internal:8443/mcp?x=1\"\n";

/// SRC-12, OPS-03: all settings of a table are read.
#[test]
fn a_source_is_read() {
    let source = source(&format!(
        "{LEAST}ca = \"ca.pem\"\nclient_cert = \"c.pem\"\nclient_key = \"k.pem\"\ntimeout = \"30s\"\nnames = \"bare\"\n\
         identity = \"jwt\"\nauthorization = \"file:secret\"\nnetworks = [\"10.0.0.0/8\", \"192.0.2.7\"]\n"
    ))
    .unwrap();
    let file = |name: &str| Path::new("etc").join(name);
    let identity = Identity { certificate: file("c.pem"), key: file("k.pem") };
    let security = Security::Tls(Trust { ca: Some(file("ca.pem")), identity: Some(identity) });
    let networks = ["10.0.0.0/8", "192.0.2.7/32"].map(|network| network.parse().unwrap()).into();
    let destination = Destination {
        host: "jira.lab.internal".to_owned(),
        port: 8443,
        authority: "jira.lab.internal:8443".to_owned(),
        security,
        networks,
    };
    let address = Address {
        url: "https://jira.lab.internal:8443/mcp?x=1".to_owned(),
        path: "/mcp?x=1".to_owned(),
        destination,
        identity: true,
    };
    let settings = SourceSettings {
        name: "jira".to_owned(),
        endpoint: Endpoint::Http(address),
        names: Names::Bare,
        timeout: Duration::from_secs(30),
        own_secret: false,
    };
    assert_eq!(source.settings, settings);
    assert!(source.shown.names().next().is_none() && !source.shown.is_empty());
    let plain = self::source("kind = \"mcp-http\"\nurl = \"http://[::1]/\"\n").unwrap();
    let Endpoint::Http(address) = &plain.settings.endpoint else { panic!("an address") };
    let to = &address.destination;
    assert_eq!((to.host.as_str(), to.port, to.authority.as_str()), ("::1", 80, "[::1]"));
    assert_eq!((plain.settings.timeout, plain.settings.names), (Duration::from_mins(1), Names::Prefixed));
}

/// OPS-03, SRC-12: each of these is refused with one line that has the place and a correction.
#[test]
fn a_source_that_does_not_fit_is_refused() {
    for (keys, says) in [
        ("url = \"http://localhost/mcp\"", "has no `kind`; write kind = \"mcp-http\""),
        ("kind = \"mcp-sse\"", "write \"mcp-http\", \"mcp-stdio\", \"rest\", \"sql\" or \"webhook\""),
        ("kind = \"mcp-http\"", "has no `url`"),
        ("kind = \"mcp-http\"\nurl = \"jira\"", "write it like https://"),
        ("kind = \"mcp-http\"\nurl = \"ftp://jira/\"", "neither http nor https"),
        ("kind = \"mcp-http\"\nurl = \"https://a:b@jira/\"", "holds a password"),
        ("kind = \"mcp-http\"\nurl = \"https://jira/#x\"", "`#` part"),
        (&format!("{LEAST}urls = 1"), "did you mean `url`?"),
        (&format!("{LEAST}timeout = \"0s\""), "`timeout`"),
        (&format!("{LEAST}timeout = \"11m\""), "from 1 second to 10 minutes"),
        (&format!("{LEAST}names = \"short\""), "write \"prefixed\" or \"bare\""),
        (&format!("{LEAST}identity = \"yes\""), "write \"jwt\""),
        (&format!("{LEAST}plaintext = \"yes\""), "true or false"),
        (&format!("{LEAST}client_cert = \"c.pem\""), "no `client_key`"),
        (&format!("{LEAST}client_key = \"c.pem\""), "no `client_cert`"),
        (&format!("{LEAST}networks = []"), "`networks` at etc/portcullis.toml:4 is empty"),
        (&format!("{LEAST}networks = \"10.0.0.1/8\""), "write 10.0.0.0/8"),
        (
            &format!("{LEAST}authorization = \"Bearer s3cret\""),
            "\"file:/path\", \"env:NAME\", \"secret:NAME\" or \"user\"",
        ),
        (&format!("{LEAST}authorization = \"file:\""), "\"file:/path\", \"env:NAME\""),
        (&format!("{LEAST}bearer = \"secret:A b\""), "names no secret: a name has lower-case letters"),
        (
            &format!("{LEAST}bearer = \"env:A\"\nauthorization = \"env:B\""),
            "sets the header authorization a second time",
        ),
        (&format!("{LEAST}bearer = \"user\"\nheaders = {{ X-Key = \"user\" }}"), "\"user\" twice"),
        (
            &format!("{LEAST}lists_with = \"env:A\""),
            "has `lists_with`, and no secret that is each user's own",
        ),
        (
            &format!("{LEAST}bearer = \"user\"\nlists_with = \"user\""),
            "nobody asks when the gateway reads the lists",
        ),
        (&format!("{LEAST}headers = {{ Authorization = \"env:A\" }}"), "write `bearer` or `authorization`"),
        (&format!("{LEAST}headers = {{ Mcp-Session-Id = \"env:A\" }}"), "belongs to the protocol"),
        (&format!("{LEAST}headers = {{ Host = \"env:A\" }}"), "belongs to the protocol"),
        (&format!("{LEAST}headers = {{ \"a b\" = \"env:A\" }}"), "not the name of a header"),
        (&format!("{LEAST}headers = {{ X-Key = \"s3cret\" }}"), "must say where the credential is kept"),
        (
            "kind = \"mcp-http\"\nurl = \"http://jira/\"\nheaders = { X-Key = \"user\" }",
            "write plaintext = true",
        ),
        ("kind = \"mcp-http\"\nurl = \"http://jira/\"\nca = \"ca.pem\"", "write https, or remove them"),
        ("kind = \"mcp-http\"\nurl = \"http://jira/\"\nauthorization = \"env:A\"", "write plaintext = true"),
        ("kind = \"mcp-http\"\nurl = \"http://10.0.0.1/\"\nidentity = \"jwt\"", "write plaintext = true"),
    ] {
        let refused = format!("{:#}", source(keys).unwrap_err());
        assert!(refused.contains(says) && refused.contains("etc/portcullis.toml:"), "{keys}: {refused}");
        assert!(!refused.contains('\n') && !refused.contains("s3cret"), "{refused}");
    }
    for allowed in [
        "kind = \"mcp-http\"\nurl = \"http://127.0.0.1:9/\"\nauthorization = \"env:A\"",
        "kind = \"mcp-http\"\nurl = \"http://localhost/\"\nidentity = \"jwt\"",
        "kind = \"mcp-http\"\nurl = \"http://jira/\"\nauthorization = \"env:A\"\nplaintext = true",
        "kind = \"mcp-http\"\nurl = \"http://jira/\"",
    ] {
        source(allowed).unwrap();
    }
    for name in ["docs", "account", "Jira", "1a", "a.b", "\"a b\"", "\"\"", &"a".repeat(25)] {
        let quoted = if name.contains('"') { name.to_owned() } else { format!("\"{name}\"") };
        let refused = format!("{:#}", parse(&format!("[sources.{quoted}]\n{LEAST}")).unwrap_err());
        assert!(refused.contains("name"), "{name}: {refused}");
    }
}

/// SRC-03, MCP-08: a rule may be about a tool that a configured server may list, and about no other unknown
/// tool.
#[test]
fn a_rule_may_be_about_a_server_s_tool() {
    let ruled = |names: &str, tool: &str| {
        parse(&format!(
            "[sources.jira]\n{LEAST}names = \"{names}\"\n[scopes.\"jira.read\"]\ntitle = \"Jira\"\n[tools.{tool}]\nscope = \"jira.read\"\n"
        ))
    };
    assert!(ruled("prefixed", "jira_get").is_ok() && ruled("bare", "get").is_ok());
    for other in ["jira", "jira_", "jirax_get", "github_get", "get"] {
        let refused = format!("{:#}", ruled("prefixed", other).unwrap_err());
        assert!(refused.contains("unknown tool"), "{other}: {refused}");
    }
    assert!(ruled("bare", "whoami").is_err());
}

/// SRC-10: a secret is read from a file that only its owner can read, and is a valid header value.
#[test]
fn a_credential_is_the_value_of_a_header() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    let read = |text: &str, mode: u32| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let keys = format!("{LEAST}authorization = \"file:{}\"", path.display());
        source(&keys).unwrap().configured().map(|configured| configured.credentials)
    };
    let whole = |text: &str| sources::SecretLocation::Here(Secret::presented(text));
    assert_eq!(read("Bearer abc\n", 0o600).unwrap()[0].kept, whole("Bearer abc"));
    for (text, mode) in
        [("Bearer abc", 0o644), ("abc", 0o600), ("", 0o600), ("Bearer a\nX: y", 0o600), ("Bearer é", 0o600)]
    {
        let refused = format!("{:#}", read(text, mode).unwrap_err());
        assert!(!refused.contains("abc") || mode == 0o644, "{refused}");
        assert!(refused.contains("jira"), "{refused}");
    }
    let missing = source(&format!("{LEAST}bearer = \"env:PORTCULLIS_TEST_NO_SUCH\"")).unwrap();
    let missing = missing.configured().unwrap_err();
    assert!(format!("{missing:#}").contains("PORTCULLIS_TEST_NO_SUCH"), "{missing}");
}

fn program(keys: &str) -> Local {
    let source = source(&format!("kind = \"mcp-stdio\"\n{keys}")).unwrap();
    match source.settings.endpoint {
        Endpoint::Local(local) => *local,
        Endpoint::Http(_) => panic!("a program"),
    }
}

/// SRC-11, OPS-03: all settings of a program are read; relative paths are relative to the file.
#[test]
fn a_program_is_read() {
    let etc = std::path::absolute("etc").unwrap();
    let all = program(
        "command = [\"/opt/mcp/ci\", \"serve\"]\nargs = [\"--verbose\", \"\"]\nenv = { CI_URL = \"http://ci\", EMPTY = \"\" }\n\
         secrets = { CI_TOKEN = \"user\", KEY = \"env:A\" }\ntmp_env = [\"HOME\", \"TMPDIR\"]\ncwd = \"work\"\n\
         paths = { read = [\"/srv/repos\", \"out\"], write = \"out\" }\npool = \"per_session\"\ninstances = 40\nidle = \"5m\"\n\
         era = \"legacy\"\nsandbox = \"off\"\nunix_sockets = true\nlists_with = \"secret:ci\"\n\
         limits = { memory = \"512 MiB\", processes = 20, open_files = 99, file_size = \"1 MiB\" }\n",
    );
    let text = |text: &str| text.to_owned();
    let expected = Local {
        command: text("/opt/mcp/ci"),
        args: vec![text("serve"), text("--verbose"), text("")],
        env: BTreeMap::from([(text("CI_URL"), text("http://ci")), (text("EMPTY"), text(""))]),
        tmp_env: vec![text("HOME"), text("TMPDIR")],
        cwd: Some(etc.join("work")),
        paths: BTreeMap::from([("/srv/repos".into(), Access::Read), (etc.join("out"), Access::Write)]),
        sandbox: Sandbox::Off,
        unix_sockets: true,
        limits: Limits { memory: Some(512 << 20), processes: Some(20), open_files: 99, file_size: 1 << 20 },
        sharing: Sharing::PerSession,
        instances: 40,
        idle: Some(Duration::from_mins(5)),
        era: Era::Legacy,
    };
    assert_eq!(all, expected);
    let least = program("command = \"server\"");
    assert_eq!((least.command.as_str(), least.args.len(), least.instances), ("server", 0, 1));
    assert_eq!((least.sharing, least.sandbox, least.era), (Sharing::Shared, Sandbox::On, Era::Auto));
    assert_eq!((least.idle, least.limits), (None, Limits::default()));
    let own = program("command = \"server\"\npool = \"per_user\"");
    assert_eq!((own.instances, own.idle), (16, Some(Duration::from_mins(10))));
    assert_eq!(program("command = \"server\"\npool = \"per_user\"\nidle = \"never\"").idle, None);
}

/// SRC-11, SRC-15, OPS-03: each of these is refused with one line that has the place and a correction.
#[test]
fn a_program_that_does_not_fit_is_refused() {
    let least = "command = \"server\"\n";
    for (keys, says) in [
        ("", "has no `command`"),
        ("command = []", "has no `command`"),
        ("command = \"./server\"", "write an absolute path, or a name without `/`"),
        (
            "command = \"server\"\nurl = \"http://x/\"",
            "`url` at etc/portcullis.toml:4 is a key of kind = \"mcp-http\"",
        ),
        ("command = \"server\"\nbearer = \"user\"", "is a key of kind = \"mcp-http\""),
        (&format!("{least}arg = []"), "did you mean `args`?"),
        (&format!("{least}args = \"x\""), "must be a list"),
        (&format!("{least}env = {{ \"A-B\" = \"x\" }}"), "not the name of an environment variable"),
        (&format!("{least}env = {{ \"1A\" = \"x\" }}"), "not the name of an environment variable"),
        (&format!("{least}env = {{ A = 1 }}"), "must be a string"),
        (&format!("{least}secrets = {{ A = \"s3cret\" }}"), "must say where the credential is kept"),
        (
            &format!("{least}env = {{ A = \"x\" }}\nsecrets = {{ A = \"env:A\" }}"),
            "sets the variable A twice",
        ),
        (&format!("{least}env = {{ A = \"x\" }}\ntmp_env = \"A\""), "sets the variable A twice"),
        (&format!("{least}secrets = {{ A = \"user\" }}"), "write pool = \"per_user\""),
        (&format!("{least}pool = \"shared\"\nsecrets = {{ A = \"user\" }}"), "write pool = \"per_user\""),
        (
            &format!("{least}pool = \"per_user\"\nsecrets = {{ A = \"user\", B = \"user\" }}"),
            "\"user\" twice",
        ),
        (&format!("{least}pool = \"everybody\""), "write \"shared\", \"per_user\" or \"per_session\""),
        (&format!("{least}instances = 3"), "write pool = \"per_user\""),
        (&format!("{least}pool = \"per_user\"\ninstances = 0"), "from 1 to 1000"),
        (&format!("{least}pool = \"per_user\"\ninstances = \"many\""), "from 1 to 1000"),
        (&format!("{least}idle = \"8d\""), "`idle`"),
        (&format!("{least}era = \"2025-11-25\""), "write \"auto\", \"2026-07-28\" or \"legacy\""),
        (&format!("{least}sandbox = false"), "must be a string"),
        (&format!("{least}sandbox = \"none\""), "write \"on\" or \"off\""),
        (&format!("{least}paths = [\"/srv\"]"), "must be a table"),
        (&format!("{least}paths = {{ execute = \"/srv\" }}"), "did you mean"),
        (&format!("{least}limits = {{ cpu = 1 }}"), "did you mean"),
        (&format!("{least}limits = {{ memory = 5 }}"), "must be a string"),
        (&format!("{least}limits = {{ processes = 0 }}"), "must be a number of 1 or more"),
        (
            &format!("{least}lists_with = \"env:A\""),
            "has `lists_with`, and no secret that is each user's own",
        ),
    ] {
        let refused = format!("{:#}", source(&format!("kind = \"mcp-stdio\"\n{keys}")).unwrap_err());
        assert!(refused.contains(says) && refused.contains("etc/portcullis.toml:"), "{keys}: {refused}");
        assert!(!refused.contains('\n') && !refused.contains("s3cret"), "{refused}");
    }
    let refused = format!("{:#}", source(&format!("{LEAST}command = \"x\"")).unwrap_err());
    assert!(refused.contains("is a key of kind = \"mcp-stdio\""), "{refused}");
}

/// OPS-03: the example of programs is read as it stands.
#[test]
fn the_example_with_programs_is_read() {
    let file = parse(include_str!("../../../examples/programs/portcullis.toml")).unwrap();
    assert_eq!(file.sources.keys().collect::<Vec<_>>(), ["repos", "tickets"]);
    assert!(file.sources["tickets"].settings.own_secret);
}
