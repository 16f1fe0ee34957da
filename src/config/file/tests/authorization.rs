use super::*;

/// CIMD-01, CIMD-06: `[cimd]` names hosts, ports, networks and authorities; unknown keys are errors.
#[test]
fn hosts_of_documents_are_read() {
    let good = "[cimd]\nmode = \"fetch\"\nca = \"ca.pem\"\n[[cimd.allow]]\nhost = \"a.lab\"\ncidr = \"10.0.0.0/8\"\n";
    let cimd = parse(good).unwrap().authz.cimd;
    assert_eq!((cimd.mode, cimd.unknown, cimd.advertise), (authz::CimdMode::Fetch, None, None));
    let allowed = &cimd.allow[0];
    assert_eq!((allowed.host.as_str(), allowed.port), ("a.lab", 443));
    assert_eq!(allowed.networks, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(allowed.ca, PathBuf::from("etc/ca.pem"), "relative to the file's folder");
    assert_eq!(parse("").unwrap().authz.cimd, authz::Cimd::default());
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

/// KEYS-02, AT-01: algorithm and schedule of the signing keys, within the bounds of the matrix.
#[test]
fn the_schedule_of_keys_is_read() {
    use std::time::Duration;

    let text = "[keys]\nsigning_alg = \"Ed25519\"\nactive = \"30d\"\npublish_ahead = \"1h\"\njwks_max_age = \"10m\"\n";
    let keys = parse(text).unwrap().signing.keys;
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

/// Standards §1: an access token lives 60 to 3600 seconds, by default 15 minutes.
#[test]
fn the_lifetime_of_access_tokens_is_read() {
    use std::time::Duration;

    let lifetime = |text: &str| parse(text).unwrap().authz.tokens.access;
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

/// DCR-01, REDIR-05, OPS-03: who may register, and the rules for redirect URIs.
#[test]
fn registration_is_configured() {
    let file = parse(
        "[registration]\nmode = \"token\"\nmanagement = true\nremote_redirects = true\napp_schemes = [\"zed://\"]",
    );
    let mut redirects = authz::Redirects::default();
    redirects.set_remote(true);
    redirects.set_app_schemes(["zed://"]).unwrap();
    let file = file.unwrap();
    assert_eq!(file.authz.registration.mode, authz::RegistrationMode::Token);
    assert!(file.authz.registration.management);
    assert_eq!(file.authz.redirects, redirects);
    let usual = parse("").unwrap();
    assert_eq!((usual.authz.registration, usual.authz.redirects), Default::default());
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
