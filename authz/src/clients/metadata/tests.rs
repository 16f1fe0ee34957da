use proptest::prelude::*;

use super::*;
use crate::clients::redirects::{Mismatch, Redirects};
use crate::store::clients::{Client, Source, Trust};

fn validate(value: &Value) -> Result<Metadata, OAuthError> {
    Metadata::validate(value.as_object().unwrap())
}

fn with(member: &str, value: &Value) -> Result<Metadata, OAuthError> {
    let mut asked = json!({"redirect_uris": ["http://localhost/callback"]});
    asked[member] = value.clone();
    validate(&asked)
}

/// A P-256 public key (RFC 7515 A.3).
fn jwks() -> Value {
    json!({"keys": [{
        "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }]})
}

/// DCR-04, DCR-05, DCR-13, REDIR-09: each of these is refused.
#[test]
fn unsupported_metadata_is_refused() {
    use Code::{
        InvalidClientMetadata as Metadata, InvalidRedirectUri as Uri, InvalidSoftwareStatement as Statement,
    };
    let private = {
        let mut jwks = jwks();
        jwks["keys"][0]["d"] = json!("AA");
        jwks
    };
    for (member, value, code) in [
        ("redirect_uris", json!(null), Uri),
        ("redirect_uris", json!([]), Uri),
        ("redirect_uris", json!(["http://evil.example/"]), Uri),
        ("redirect_uris", json!(["http://localhost/", "javascript:alert(1)"]), Uri),
        ("redirect_uris", json!(["http://localhost/", "https://u:p@a.example/"]), Uri),
        (
            "redirect_uris",
            json!(["http://localhost/", format!("https://a.example/{}", "x".repeat(512))]),
            Uri,
        ),
        ("redirect_uris", json!(["myapp:/cb", "com.example.app://cb"]), Uri),
        ("redirect_uris", json!("http://localhost/"), Metadata),
        ("redirect_uris", json!([7]), Metadata),
        ("redirect_uris", json!(vec!["http://localhost/"; 11]), Metadata),
        ("application_type", json!("web"), Uri),
        ("application_type", json!("robot"), Metadata),
        ("grant_types", json!(["refresh_token"]), Metadata),
        ("grant_types", json!(["password"]), Metadata),
        ("grant_types", json!(["implicit", "client_credentials"]), Metadata),
        ("grant_types", json!([]), Metadata),
        ("response_types", json!(["token"]), Metadata),
        ("response_types", json!([]), Metadata),
        ("token_endpoint_auth_method", json!("client_secret_jwt"), Metadata),
        ("token_endpoint_auth_method", json!("tls_client_auth"), Metadata),
        ("token_endpoint_auth_method", json!("private_key_jwt"), Metadata),
        ("token_endpoint_auth_method", json!("NONE"), Metadata),
        ("jwks", json!({}), Metadata),
        ("jwks", json!({"keys": []}), Metadata),
        ("jwks", json!("https://a.example/jwks"), Metadata),
        ("jwks", private, Metadata),
        ("jwks", json!({"keys": vec![jwks()["keys"][0].clone(); 11]}), Metadata),
        ("jwks_uri", json!("https://a.example/jwks"), Metadata),
        ("client_name", json!("x".repeat(257)), Metadata),
        ("client_name", json!({}), Metadata),
        ("client_name", json!("Portcullis"), Metadata),
        ("client_name", json!("P\u{ad}\u{ff4f}RT cullis!"), Metadata),
        ("scope", json!("a\"b"), Metadata),
        ("scope", json!(["a"]), Metadata),
        ("scope", json!("x".repeat(4097)), Metadata),
        ("token_endpoint_auth_method", json!(""), Metadata),
        ("application_type", json!(""), Metadata),
        ("dpop_bound_access_tokens", json!("yes"), Metadata),
        ("software_statement", json!("x"), Statement),
        ("software_statement", json!({}), Statement),
    ] {
        assert_eq!(with(member, &value).err().map(|error| error.code), Some(code), "{member} {value}");
    }
    let both =
        json!({"redirect_uris": ["http://localhost/"], "jwks": jwks(), "jwks_uri": "https://a.example/jwks"});
    assert_eq!(validate(&both).unwrap_err().code, Metadata);
}

/// DCR-03, DCR-06, DCR-07, DCR-13: the response shows what was registered, defaults included, and nothing else.
#[test]
fn the_registration_response_lists_what_was_registered() {
    let id = ClientId::random_dynamic();
    let bare = validate(&json!({"redirect_uris": ["http://localhost/cb"]})).unwrap();
    assert!(bare.auth_defaulted);
    assert_eq!(
        Value::Object(bare.registered(&id, 7)),
        json!({
            "client_id": id, "client_id_issued_at": 7, "client_name": "Unnamed application",
            "redirect_uris": ["http://localhost/cb"], "grant_types": ["authorization_code"],
            "response_types": ["code"], "token_endpoint_auth_method": "client_secret_basic",
            "application_type": "native",
        })
    );
    let full = json!({
        "redirect_uris": ["https://a.example/cb", "https://a.example/cb"],
        "token_endpoint_auth_method": "private_key_jwt", "jwks": jwks(),
        "grant_types": ["refresh_token", "urn:ietf:params:oauth:grant-type:device_code", "authorization_code", "refresh_token"],
        "response_types": ["code", "token"],
        "client_name": " Cl\u{202e}au\u{200b}de\u{7} ", "client_uri": "https://a.example/", "logo_uri": "https://a.example/l.png",
        "tos_uri": "https://a.example/t", "policy_uri": "https://a.example/p", "contacts": ["a\u{200b}da@a.example"],
        "scope": "b a", "software_id": "x\u{7}", "software_version": "1", "application_type": "web",
        "dpop_bound_access_tokens": true, "client_name#fr": "Claude", "id_token_signed_response_alg": "RS256",
        "client_id": "mine", "client_secret": "mine", "trust": "verified", "access_token_lifetime": 1,
    });
    assert_eq!(
        Value::Object(validate(&full).unwrap().registered(&id, 7)),
        json!({
            "client_id": id, "client_id_issued_at": 7, "client_name": "Claude",
            "redirect_uris": ["https://a.example/cb"], "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"], "token_endpoint_auth_method": "private_key_jwt", "jwks": jwks(),
            "application_type": "web", "client_uri": "https://a.example/", "logo_uri": "https://a.example/l.png",
            "tos_uri": "https://a.example/t", "policy_uri": "https://a.example/p", "contacts": ["ada@a.example"],
            "scope": "a b", "software_id": "x", "software_version": "1", "dpop_bound_access_tokens": false,
        })
    );
    for method in ["none", "client_secret_basic", "client_secret_post"] {
        let named = with("token_endpoint_auth_method", &json!(method)).unwrap();
        assert_eq!((named.auth_method.as_str(), named.auth_defaulted), (method, false));
    }
}

/// DCR-03, DCR-04: an unusable informative member is dropped and never refuses the client. The response shows
/// the rest, and every other member stays as requested.
#[test]
fn informative_metadata_never_causes_a_refusal() {
    let id = ClientId::random_dynamic();
    let registered = |asked: &Value| Value::Object(validate(asked).unwrap().registered(&id, 7));
    let asked = json!({"redirect_uris": ["http://localhost:5173/cb"], "client_name": "use-mcp"});
    let bare = registered(&asked);
    let long = format!("https://a.example/{}", "x".repeat(300));
    let unusable = [
        json!(null),
        json!(""),
        json!(" "),
        json!(7),
        json!(true),
        json!([]),
        json!({}),
        json!([null, "", 7, {"a": 1}, "\u{200b}", "x".repeat(257)]),
        json!("x".repeat(9000)),
    ];
    let no_address = [
        json!("http://a.example/"),
        json!("http://wiki.lab.internal/"),
        json!("http://localhost:5173"),
        json!("http://127.0.0.1:5173/"),
        json!("data:image/png;base64,AA"),
        json!(format!("data:image/png;base64,{}", "A".repeat(9000))),
        json!("javascript:alert(1)"),
        json!("ftp://a.example/"),
        json!("//a.example/"),
        json!("/logo.png"),
        json!("https://"),
        json!("https://u@a.example/"),
        json!("https://u:p@a.example/"),
        json!("https://a.example/ x"),
        json!("https://\u{e4}.example/"),
        json!(long),
        json!(["https://a.example/"]),
    ];
    let with = |member: &str, value: &Value| {
        let mut asked = asked.clone();
        asked[member] = value.clone();
        registered(&asked)
    };
    for member in
        ["client_uri", "logo_uri", "tos_uri", "policy_uri", "contacts", "software_id", "software_version"]
    {
        for value in &unusable {
            assert_eq!(with(member, value), bare, "{member} {value}");
        }
    }
    for member in ["client_uri", "logo_uri", "tos_uri", "policy_uri"] {
        for value in &no_address {
            assert_eq!(with(member, value), bare, "{member} {value}");
        }
    }
    for member in ["jwks_uri", "scope", "software_statement", "client_name#fr", "made_up"] {
        assert_eq!(with(member, &json!("")), bare, "{member}");
    }
    for blank in [" ", "   "] {
        assert_eq!(with("scope", &json!(blank)), bare, "{blank:?}");
    }
    for member in [
        "jwks",
        "jwks_uri",
        "grant_types",
        "response_types",
        "token_endpoint_auth_method",
        "scope",
        "application_type",
        "dpop_bound_access_tokens",
        "software_statement",
    ] {
        assert_eq!(with(member, &json!(null)), bare, "{member}");
    }
    assert_eq!(with("made_up", &json!({"deep": [[1], {"a": "x".repeat(9000)}]})), bare);
    let mixed = json!([7, "ada@a.example", "x".repeat(257), ""]);
    assert_eq!(with("contacts", &mixed)["contacts"], json!(["ada@a.example"]));
    assert_eq!(with("contacts", &json!(vec!["a@a.example"; 30]))["contacts"].as_array().unwrap().len(), 10);
    assert_eq!(with("client_uri", &json!("https://a.example/"))["client_uri"], "https://a.example/");
    // DCR-04: all of `scopes_supported` can be registered.
    let scope = (0..300).map(|n| format!("s{n:03}.read")).collect::<Vec<_>>().join(" ");
    assert_eq!(with("scope", &json!(scope))["scope"], scope);
}

/// REDIR-09: a web application, named or derived, has only `https` redirect URIs; Cursor registers a mixed set.
#[test]
fn the_application_type_follows_the_redirect_uris() {
    let cursor = json!([
        "cursor://anysphere.cursor-mcp/oauth/callback",
        "https://www.cursor.com/agents/mcp/oauth/callback",
        "http://localhost:8787/callback",
    ]);
    for (uris, said, kind) in [
        (cursor.clone(), None, Some("native")),
        (cursor.clone(), Some("native"), Some("native")),
        (cursor, Some("web"), None),
        (json!(["https://a.example/cb"]), None, Some("web")),
        (json!(["https://a.example/cb"]), Some("native"), Some("native")),
        (json!(["com.example.app:/cb", "https://a.example/cb"]), None, Some("native")),
        (json!(["com.example.app:/cb"]), Some("web"), None),
        (json!(["http://127.0.0.1/"]), Some("web"), None),
    ] {
        let valid = validate(&json!({ "redirect_uris": uris, "application_type": said }));
        assert_eq!(valid.ok().map(|valid| valid.application_type), kind, "{uris} {said:?}");
    }
}

/// DCR-05: an unsupported redirect URI is left out and the others stay.
#[test]
fn one_uri_that_is_not_supported_does_not_reject_the_set() {
    let kept = with(
        "redirect_uris",
        &json!(["myapp:/cb", "http://localhost/", "com.example.app://cb", "cursor:///x"]),
    );
    assert_eq!(kept.unwrap().redirect_uris, [RedirectUri::parse("http://localhost/").unwrap()]);
}

fn a_redirect_uri() -> impl Strategy<Value = String> {
    let host =
        "(localhost|127\\.0\\.0\\.1|\\[::1\\]|a\\.example|b\\.example|cursor|LOCALHOST|10\\.0\\.0\\.1)";
    (
        "(http|https|cursor|zed|com\\.example|javascript|HTTP)",
        "(:|:/|://|:///)",
        host,
        "(:[0-9]{0,5})?",
        "(/|/cb|/cb/|/x/\\.\\./cb|)",
        "(\\?x=1|\\?code=1|#f|\\*)?",
    )
        .prop_map(|(scheme, slashes, host, port, path, rest)| {
            format!("{scheme}{slashes}{host}{port}{path}{rest}")
        })
}

proptest! {
    /// REDIR-01, REDIR-02, DCR-05: every stored and usable redirect URI is accepted in a request, on loopback
    /// with any port; an unregistered one never is.
    #[test]
    fn a_registered_redirect_uri_authorizes(
        uris in prop::collection::vec(a_redirect_uri(), 1..6),
        asked in a_redirect_uri(),
        port in 1..=u16::MAX,
        verified: bool,
        remote: bool,
    ) {
        let Ok(valid) = validate(&json!({ "redirect_uris": uris })) else { return Ok(()) };
        let mut redirects = Redirects::default();
        redirects.set_remote(remote);
        let client = Client {
            id: ClientId::random_dynamic(),
            name: valid.name.clone(),
            source: Source::SelfRegistered,
            trust: if verified { Trust::Verified } else { redirects.trust(&valid.redirect_uris) },
            auth_method: valid.auth_method,
            auth_defaulted: false,
            jwks: None,
            grant_types: valid.grant_types.clone(),
            redirect_uris: valid.redirect_uris.clone(),
            scope: Scope::empty(),
            disabled: false,
        };
        for uri in &client.redirect_uris {
            prop_assert!(uris.iter().any(|given| given == uri.as_str()), "nothing is stored that was not sent");
            let usable = redirects.admit_client(&client, uri);
            let answer = redirects.choose(&client, Some(uri.as_str()));
            prop_assert_eq!(answer.is_ok(), usable, "{}", uri);
            prop_assert!(usable || answer == Err(Mismatch::Unusable(uri.clone())));
            // A loopback URI also matches with another port.
            if let Some(rest) = uri.as_str().strip_prefix("http://") {
                let host_end = rest.find(']').map_or(0, |at| at + 1);
                let authority_end = rest[host_end..].find(['/', '?']).map_or(rest.len(), |at| host_end + at);
                let host = rest[..authority_end].split_at(rest[..authority_end].rfind(':').filter(|at| *at >= host_end).unwrap_or(authority_end)).0;
                let today = format!("http://{host}:{port}{}", &rest[authority_end..]);
                prop_assert_eq!(redirects.choose(&client, Some(&today)).map(|uri| uri.to_string()), Ok(today));
            }
        }
        if let Ok(answered) = redirects.choose(&client, Some(&asked)) {
            prop_assert_eq!(answered.as_str(), &asked, "REDIR-07: the one that was asked for, unchanged");
            prop_assert!(client.redirect_uris.iter().any(|registered| registered.matches(&answered)));
            prop_assert!(redirects.admit_client(&client, &answered));
        }
        if let Ok(only) = redirects.choose(&client, None) {
            prop_assert_eq!(&client.redirect_uris, &vec![only]);
        }
    }

    /// DCR-02: no metadata causes a panic, and parsing the result again gives the same result.
    #[test]
    fn any_metadata_is_read_or_refused(
        name in "\\PC{0,20}",
        method in "(none|client_secret_basic|client_secret_post|private_key_jwt|x)",
        uris in prop::collection::vec(a_redirect_uri(), 0..4),
        scope in "[a-z :\"]{0,12}",
    ) {
        let asked = json!({ "client_name": name, "token_endpoint_auth_method": method, "redirect_uris": uris, "scope": scope });
        if let Ok(valid) = validate(&asked) {
            let again = Metadata::validate(&valid.members()).unwrap();
            prop_assert_eq!(again.members(), valid.members());
        }
    }
}
