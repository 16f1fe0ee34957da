use serde_json::json;

use super::*;
use crate::clients::redirects::Redirects;

const URL: &str = "https://app.corp.example/client.json";

fn url() -> DocumentUrl {
    DocumentUrl::parse(URL).unwrap()
}

fn good() -> Value {
    json!({
        "client_id": URL,
        "client_name": "Reports",
        "redirect_uris": ["http://localhost/callback", "https://app.corp.example/callback"],
        "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "logo_uri": "https://cdn.example/logo.png",
        "made_up": {"deep": [1, 2, 3]},
    })
}

fn parse(document: &Value) -> Result<Document, DocumentError> {
    Document::parse(&url(), document.to_string().as_bytes())
}

fn with(member: &str, value: Value) -> Value {
    let mut document = good();
    document[member] = value;
    document
}

fn without(member: &str) -> Value {
    let mut document = good();
    document.as_object_mut().unwrap().remove(member);
    document
}

/// CIMD-04: unknown members and unsupported features are ignored.
#[test]
fn a_document_describes_its_client() {
    let document = parse(&good()).unwrap();
    assert_eq!(document.name, "Reports");
    assert_eq!(document.redirect_uris.len(), 2);
    assert_eq!(document.grant_types, ["authorization_code", "refresh_token"]);
    assert_eq!((document.auth_method, document.jwks), (AuthMethod::None, None));
}

/// CIMD-04: each of these alone makes a document invalid.
#[test]
fn invalid_documents_are_refused() {
    use DocumentError as E;
    for (document, why) in [
        (with("client_id", json!("https://app.corp.example/client.json/")), E::OtherClient),
        (with("client_id", json!("https://APP.corp.example/client.json")), E::OtherClient),
        (with("client_id", json!(["https://app.corp.example/client.json"])), E::OtherClient),
        (without("client_id"), E::OtherClient),
        (with("client_name", json!("")), E::NoName),
        (with("client_name", json!(" \u{200b} ")), E::NoName),
        (with("client_name", Value::Null), E::NoName),
        (without("client_name"), E::NoName),
        (with("redirect_uris", json!([])), E::NoRedirectUris),
        (with("redirect_uris", json!("http://localhost/callback")), E::NoRedirectUris),
        (without("redirect_uris"), E::NoRedirectUris),
        (with("client_secret", json!("x")), E::Secret("client_secret".to_owned())),
        (with("client_secret_expires_at", json!(0)), E::Secret("client_secret_expires_at".to_owned())),
        (with("client_secret_made_up", Value::Null), E::Secret("client_secret_made_up".to_owned())),
    ] {
        assert_eq!(parse(&document).unwrap_err(), why, "{document}");
    }
    for document in [
        with("redirect_uris", json!(["http://evil.example/cb"])),
        with("redirect_uris", json!(["http://localhost/cb", "javascript:alert(1)"])),
        with("redirect_uris", json!([7])),
        with("client_name", json!("Portcullis")),
        with("client_name", json!("x".repeat(300))),
        with("grant_types", json!(["client_credentials"])),
        with("response_types", json!(["token"])),
        with("software_statement", json!("x")),
    ] {
        assert!(matches!(parse(&document), Err(E::Metadata(_))), "{document}");
    }
}

/// CIMD-04, DCR-04: a bad informative member does not make a document invalid.
#[test]
fn a_document_is_not_refused_for_what_is_informative() {
    let long = format!("https://a.example/{}", "x".repeat(300));
    for member in ["client_uri", "logo_uri", "tos_uri", "policy_uri", "contacts", "software_id", "jwks_uri"] {
        for value in [
            json!(""),
            json!(null),
            json!("http://wiki.lab.internal/"),
            json!("data:image/png;base64,AA"),
            json!(long),
        ] {
            assert!(parse(&with(member, value.clone())).is_ok(), "{member} {value}");
        }
    }
}

/// CIMD-04: ambiguous JSON is refused, and so is JSON beyond the size bounds.
#[test]
fn a_document_is_read_strictly() {
    let text = good().to_string();
    let twice = text.replacen('{', &format!("{{\"client_id\":\"{URL}\","), 1);
    let deep = text.replacen("\"deep\":", "\"deep\":1,\"deep\":", 1);
    for duplicate in [twice, deep] {
        let refused = Document::parse(&url(), duplicate.as_bytes()).unwrap_err();
        assert_eq!(refused.reason(), "duplicate_member", "{duplicate}");
    }
    for (bytes, reason) in [
        (b"".to_vec(), "not_json"),
        (b"[]".to_vec(), "not_json"),
        (b"<html>".to_vec(), "not_json"),
        (b"\xff{}".to_vec(), "not_json"),
        (format!("{text} {text}").into_bytes(), "not_json"),
    ] {
        assert_eq!(Document::parse(&url(), &bytes).unwrap_err().reason(), reason);
    }
    let padded = |size: usize| {
        let padding = size - with("padding", json!("")).to_string().len();
        with("padding", json!("x".repeat(padding))).to_string().into_bytes()
    };
    assert!(Document::parse(&url(), &padded(LARGEST)).is_ok());
    assert_eq!(Document::parse(&url(), &padded(LARGEST + 1)).unwrap_err(), DocumentError::TooLarge);
}

/// CIMD-04: the strongest supported method is chosen; methods with a secret are never used.
#[test]
fn how_a_client_authenticates() {
    use DocumentError as E;
    let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0", "kid": "1"}]});
    let offering = |one: Value, many: Value, jwks: Value| {
        let mut document = without("token_endpoint_auth_method");
        document["token_endpoint_auth_method"] = one;
        document["token_endpoint_auth_methods_supported"] = many;
        document["jwks"] = jwks;
        document["jwks_uri"] = json!("https://app.corp.example/jwks.json");
        parse(&document).map(|document| document.auth_method)
    };
    let null = || Value::Null;
    for (one, many, jwks, method) in [
        (null(), null(), null(), Ok(AuthMethod::None)),
        (json!("none"), null(), null(), Ok(AuthMethod::None)),
        (null(), json!(["none"]), null(), Ok(AuthMethod::None)),
        (json!("private_key_jwt"), null(), keys.clone(), Ok(AuthMethod::PrivateKeyJwt)),
        (null(), json!(["private_key_jwt", "none"]), keys.clone(), Ok(AuthMethod::PrivateKeyJwt)),
        // The client's keys are at a URL, and it also supports `none`.
        (json!("private_key_jwt"), json!(["private_key_jwt", "none"]), null(), Ok(AuthMethod::None)),
        (json!("private_key_jwt"), null(), null(), Err(E::KeysElsewhere)),
        (json!("client_secret_basic"), null(), null(), Err(E::AuthMethod)),
        (json!("client_secret_post"), null(), keys.clone(), Err(E::AuthMethod)),
        (json!("none"), json!(["none", "client_secret_jwt"]), null(), Err(E::AuthMethod)),
        (json!("tls_client_auth"), null(), null(), Err(E::AuthMethod)),
        (json!("private_key_jwt"), null(), json!({"keys": []}), Err(E::Keys)),
        (json!("private_key_jwt"), null(), json!({"keys": [{"kty": "oct", "k": "AA"}]}), Err(E::Keys)),
        (
            json!("private_key_jwt"),
            null(),
            json!({"keys": [{"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0", "d": "AA"}]}),
            Err(E::Keys),
        ),
    ] {
        assert_eq!(offering(one.clone(), many.clone(), jwks.clone()), method, "{one} {many} {jwks}");
    }
}

/// DCR-08, CIMD-06: an imported document is known; a fetched one has the trust of a registration, and may also
/// redirect to its own origin.
#[test]
fn trust_depends_on_who_approved_the_document() {
    let client = |uris: Value, source| parse(&with("redirect_uris", uris)).unwrap().client(&url(), source);
    let usable = |uris: Value, source| {
        let (mut client, redirects) = (client(uris, source), Redirects::default());
        if source == Source::Fetched {
            client.trust = redirects.trust_unread(&client);
        }
        let usable = client.redirect_uris.iter().filter(|uri| redirects.admit_client(&client, uri)).count();
        (client.trust, usable)
    };
    let mixed = json!(["http://localhost/cb", "https://app.corp.example/cb", "https://evil.example/cb"]);
    let elsewhere = json!(["https://evil.example/cb"]);
    let local = json!(["http://localhost/cb", "cursor://anysphere.cursor-mcp/cb"]);
    assert_eq!(usable(mixed.clone(), Source::Imported), (Trust::Known, 3));
    assert_eq!(usable(mixed.clone(), Source::Catalogue), (Trust::Known, 1));
    assert_eq!(usable(mixed, Source::Fetched), (Trust::Unverified, 2));
    assert_eq!(usable(elsewhere, Source::Fetched), (Trust::Unverified, 0));
    assert_eq!(usable(local, Source::Fetched), (Trust::Known, 2));
}
