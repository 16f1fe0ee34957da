use proptest::prelude::*;

use super::*;
use RedirectUriError as E;

fn uri(text: &str) -> RedirectUri {
    RedirectUri::parse(text).unwrap_or_else(|e| panic!("{text} {e}"))
}

/// REDIR-02: the two examples of the matrix, and variations.
#[test]
fn only_the_port_of_a_loopback_uri_may_differ() {
    assert!(uri("http://localhost/callback").matches(&uri("http://localhost:57470/callback")));
    assert!(uri("http://127.0.0.1:33418/").matches(&uri("http://127.0.0.1:4/")));
    assert!(uri("http://[::1]/cb").matches(&uri("http://[::1]:9/cb")));
    for (registered, asked) in [
        ("http://127.0.0.1/cb", "http://localhost:1/cb"),
        ("http://localhost/cb", "http://localhost:1/cb/"),
        ("http://localhost/cb", "http://localhost:1/CB"),
        ("http://localhost/cb", "http://localhost:1/cb?x=1"),
        ("https://localhost/cb", "https://localhost:1/cb"),
        ("https://a.example/cb", "https://a.example:8443/cb"),
        ("https://a.example/cb", "https://a.example/cb2"),
    ] {
        assert!(!uri(registered).matches(&uri(asked)), "{registered} {asked}");
    }
}

/// REDIR-03, REDIR-04, REDIR-06: each of these is refused.
#[test]
fn dangerous_redirect_uris_are_refused() {
    for (text, why) in [
        ("/cb", E::NotAbsolute),
        ("https://a.example/cb#f", E::Fragment),
        ("https://u:p@a.example/cb", E::UserInfo),
        ("http://a.example/cb", E::PlainHttp),
        ("http://localhost.evil.example/cb", E::PlainHttp),
        ("http://127.0.0.1.evil.example/cb", E::PlainHttp),
        ("http://2130706433/cb", E::NotAbsolute),
        ("https:evil.example://evil.example/cb", E::NotAbsolute),
        ("https:/evil.example://evil.example/cb", E::NotAbsolute),
        ("https:///evil.example/cb", E::NotAbsolute),
        ("https:u@evil.example://evil.example/cb", E::NotAbsolute),
        ("http:localhost://localhost/cb", E::NotAbsolute),
        ("https://a.example:/cb", E::PortZero),
        ("http://localhost:80:80/cb", E::NotAbsolute),
        ("http://localhost./cb", E::PlainHttp),
        ("cursor://u:p@evil/x", E::UserInfo),
        ("cursor:evil://x", E::SchemeForm),
        ("cursor:///x", E::SchemeForm),
        ("https://*.a.example/cb", E::Wildcard),
        ("https://a.example/\u{e9}", E::Characters),
        ("https://a.example\\@b.example/", E::Characters),
        ("https://a.example/ b", E::Characters),
        ("https://a.example/%zz", E::PercentEncoding),
        ("http://localhost/cb?a=%4", E::PercentEncoding),
        ("com.example.app:/%", E::PercentEncoding),
        ("https://a.example/x/../y", E::DotSegments),
        ("https://a.example/x/%2E%2e/y", E::DotSegments),
        ("http://localhost:0/cb", E::PortZero),
        ("http://localhost:/cb", E::PortZero),
        ("javascript:alert(1)", E::Scheme),
        ("javascript://a.example/%0aalert(1)", E::Scheme),
        ("JavaScript:alert(1)", E::Scheme),
        (" javascript:alert(1)", E::Characters),
        ("java\tscript:alert(1)", E::Characters),
        ("data:text/html,x", E::Scheme),
        ("vbscript://a/x", E::Scheme),
        ("file:///etc/passwd", E::Scheme),
        ("blob:https://a.example/x", E::Scheme),
        ("about:blank", E::Scheme),
        ("view-source://a.example/", E::Scheme),
        ("ftp://a.example/", E::Scheme),
        ("ws://localhost/", E::Scheme),
        ("wss://localhost/", E::Scheme),
        ("myapp:cb", E::SchemeForm),
        ("com.example.app:cb", E::SchemeForm),
        ("com.example.:/cb", E::SchemeForm),
        ("myapp:/cb", E::SchemeForm),
        ("com.example.app://cb", E::SchemeForm),
        ("cursor:/cb", E::SchemeForm),
        ("HTTPS://a.example/cb", E::Scheme),
        ("https://a.example/cb?code=1", E::ReservedParameter),
        ("https://a.example/cb?%73tate=1", E::ReservedParameter),
    ] {
        assert_eq!(RedirectUri::parse(text), Err(why), "{text}");
    }
    assert_eq!(RedirectUri::parse(&format!("https://a.example/{}", "x".repeat(512))), Err(E::TooLong));
}

/// DCR-05: the kind of each URI.
#[test]
fn targets_tell_this_computer_from_the_network() {
    assert_eq!(uri("http://localhost:1/cb").target(), Target::Loopback);
    assert_eq!(uri("com.example.app:/cb").target(), Target::PrivateScheme);
    assert_eq!(uri("cursor://anysphere.cursor-mcp/oauth/callback").target(), Target::AppScheme);
    assert_eq!(uri("https://localhost/cb").target(), Target::Remote);
}

/// CIMD-09: the stored form of a request's URI matches that request, and the next one.
#[test]
fn a_loopback_uri_is_kept_without_its_port() {
    let asked = uri("http://127.0.0.1:4711/cb?x=1");
    assert_eq!(asked.without_port().as_str(), "http://127.0.0.1/cb?x=1");
    assert!(asked.without_port().matches(&uri("http://127.0.0.1:4712/cb?x=1")));
    let remote = uri("https://a.example:8443/cb");
    assert_eq!(remote.without_port(), remote);
}

/// CIMD-06: an origin is scheme, host and port.
#[test]
fn an_origin_is_scheme_host_and_port() {
    let document = "https://a.example:8443/client.json";
    assert!(uri("https://a.example:8443/cb").has_origin_of(document));
    for other in ["https://a.example/cb", "https://b.example:8443/cb", "http://localhost:8443/cb"] {
        assert!(!uri(other).has_origin_of(document), "{other}");
    }
    assert!(!uri("com.example.app:/cb").has_origin_of("com.example.app:/x"));
}

/// AUTHZ-09: the registered query is kept.
#[test]
fn an_answer_keeps_the_registered_query() {
    assert_eq!(
        uri("http://localhost/cb").with_parameters(&[("code", "a b"), ("iss", "http://x")]),
        "http://localhost/cb?code=a+b&iss=http%3A%2F%2Fx"
    );
    assert_eq!(
        uri("http://localhost/cb?a=1").with_parameters(&[("code", "x")]),
        "http://localhost/cb?a=1&code=x"
    );
    assert_eq!(uri("http://localhost/cb?").with_parameters(&[("code", "x")]), "http://localhost/cb?code=x");
}

proptest! {
    /// REDIR-01, REDIR-02: a URI and a modified copy match exactly if the text is the same, or both are `http`
    /// on the same loopback host with a port or none, and the same remainder.
    #[test]
    fn a_match_differs_in_the_port_alone(
        registered in prop_oneof![3 => on_this_computer(), 1 => arbitrary()],
        other in prop_oneof![on_this_computer(), arbitrary()],
        edits in proptest::collection::vec((0usize..12, any::<u16>()), 0..3),
    ) {
        let edited = edits.iter().fold(registered.clone(), |uri, (edit, n)| changed(&uri, *edit, *n));
        for asked in [&edited, &other] {
            let (Ok(a), Ok(b)) = (RedirectUri::parse(&registered), RedirectUri::parse(asked)) else { continue };
            let same = registered == *asked || bare(&registered).is_some_and(|one| bare(asked) == Some(one));
            prop_assert_eq!(a.matches(&b), same, "{} {}", a, b);
            prop_assert_eq!(b.matches(&a), same, "{} {}", b, a);
        }
    }

    /// DCR-05: a URI classified as loopback has a loopback host in a URL parser too.
    #[test]
    fn a_loopback_target_has_a_loopback_host(text in arbitrary()) {
        if let Ok(uri) = RedirectUri::parse(&text) {
            let url = Url::parse(&text).unwrap();
            let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
            prop_assert_eq!(uri.target() == Target::Loopback, local && url.scheme() == "http");
            prop_assert_eq!(uri.target() == Target::Remote, url.scheme() == "https");
        }
    }

    #[test]
    fn parsing_never_panics(text in "\\PC{0,64}") {
        let _ = RedirectUri::parse(&text);
    }
}

fn arbitrary() -> impl Strategy<Value = String> {
    (
        "(http|https|cursor|com\\.example)(:|:/|://|:///|:x://)",
        "(localhost|127\\.0\\.0\\.1|\\[::1\\]|a\\.example|localhost\\.x)",
        "(:[0-9]{1,5})?",
        "(/|/cb|/cb/|/CB|)",
        "(\\?x=1)?",
    )
        .prop_map(|(scheme, host, port, path, query)| format!("{scheme}{host}{port}{path}{query}"))
}

fn on_this_computer() -> impl Strategy<Value = String> {
    "http://(localhost|127\\.0\\.0\\.1|\\[::1\\])(:[1-9][0-9]{0,4})?(/|/cb|/cb/)(\\?x=1)?"
}

/// A loopback `http` URI without its port.
fn bare(uri: &str) -> Option<String> {
    ["http://localhost", "http://127.0.0.1", "http://[::1]"].into_iter().find_map(|host| {
        let rest = uri.strip_prefix(host)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let port = rest[..end].strip_prefix(':').map(str::parse::<u16>);
        let good = rest[..end].is_empty() || matches!(port, Some(Ok(1..)));
        good.then(|| format!("{host}{}", &rest[end..]))
    })
}

/// A modified copy of a URI, as an attacker might register it.
fn changed(uri: &str, edit: usize, n: u16) -> String {
    let host_end =
        |uri: &str| uri.find("://").map_or(0, |at| at + 3 + uri[at + 3..].find(['/', ':']).unwrap_or(0));
    match edit {
        0..=3 => bare(uri).map_or_else(
            || uri.to_owned(),
            |bare| {
                let at =
                    bare["http://".len()..].find(['/', '?']).map_or(bare.len(), |at| at + "http://".len());
                format!("{}:{n}{}", &bare[..at], &bare[at..])
            },
        ),
        4 => bare(uri).unwrap_or_else(|| uri.to_owned()),
        5 => uri.replacen("localhost", "127.0.0.1", 1),
        6 => uri.replacen("/cb", "/CB", 1),
        7 => uri.replacen("/cb", "/%63b", 1),
        8 => format!("{uri}/"),
        9 => format!("{uri}{}x=2", if uri.contains('?') { '&' } else { '?' }),
        10 => uri.replacen("http:", "https:", 1),
        _ => {
            let at = host_end(uri);
            format!("{}.evil.example{}", &uri[..at], &uri[at..])
        }
    }
}
