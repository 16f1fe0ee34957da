use shared::rate::Quota;

use super::*;

/// RATE-01: `[rate]` raises, lowers or disables each limit; unknown keys are errors.
#[test]
fn limits_are_read() {
    let expected = Limits { mcp: Quota::per_minute(6000), authorize: Quota::OFF, ..Limits::default() };
    let file = parse("[rate]\nmcp = 6_000\nauthorize = \"off\"").unwrap();
    assert_eq!(file.limits, expected);
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

/// MCP-14, OPS-03: origins of any scheme, each by name, as browsers send them.
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
        assert_eq!(parse(&one(good)).unwrap().resource.allowed_origins, [good], "{good}");
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
