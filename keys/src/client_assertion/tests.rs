use std::sync::OnceLock;

use josekit::jwk::alg::ec::EcCurve;
use josekit::jwk::alg::ed::EdCurve;
use josekit::jws::{HS256, JwsSigner, PS256};
use proptest::prelude::*;

use super::*;

/// Key pairs, made once because RSA keys are slow to make.
fn pairs() -> &'static [Jwk; 3] {
    static PAIRS: OnceLock<[Jwk; 3]> = OnceLock::new();
    PAIRS.get_or_init(|| {
        [
            Jwk::generate_ec_key(EcCurve::P256).unwrap(),
            Jwk::generate_ed_key(EdCurve::Ed25519).unwrap(),
            Jwk::generate_rsa_key(2048).unwrap(),
        ]
    })
}

fn pair(alg: &str) -> Jwk {
    let [ec, ed, rsa] = pairs().clone();
    match alg {
        "ES256" => ec,
        "EdDSA" => ed,
        _ => rsa,
    }
}

fn signer(alg: &str) -> Box<dyn JwsSigner> {
    let pair = pair(alg);
    match alg {
        "ES256" => Box::new(ES256.signer_from_jwk(&pair).unwrap()),
        "EdDSA" => Box::new(EdDSA.signer_from_jwk(&pair).unwrap()),
        "RS256" => Box::new(RS256.signer_from_jwk(&pair).unwrap()),
        _ => Box::new(PS256.signer_from_jwk(&pair).unwrap()),
    }
}

/// The public half, with these additional members.
fn public(alg: &str, more: Value) -> Value {
    let pair = pair(alg);
    let members: Map<String, Value> =
        KEPT.iter().filter_map(|name| Some(((*name).to_owned(), pair.parameter(name)?.clone()))).collect();
    let Value::Object(more) = more else { panic!("members") };
    Value::Object(members.into_iter().chain(more).collect())
}

fn keys(of: &[Value]) -> ClientKeys {
    ClientKeys::parse(&json!({ "keys": of })).unwrap()
}

fn claims() -> Value {
    json!({ "iss": "dyn_a", "sub": "dyn_a", "aud": "http://localhost:8080", "exp": 1300, "jti": "j1" })
}

/// A compact JWS with any header and payload (RFC 7515 §7.1).
fn compact(header: &str, payload: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(header.as_bytes()),
        BASE64URL_NOPAD.encode(payload.as_bytes())
    );
    let signature = BASE64URL_NOPAD.encode(&sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn signed(alg: &str, header: &Value, payload: &Value) -> String {
    compact(&header.to_string(), &payload.to_string(), |message| signer(alg).sign(message).unwrap())
}

fn verified(text: &str, keys: &ClientKeys) -> Result<AssertionClaims, BadAssertion> {
    ClientAssertion::parse(text)?.verify(keys)
}

/// CAUTH-05, CAUTH-06: each advertised algorithm works, with and without `kid`, and with each allowed `typ`.
#[test]
fn every_advertised_algorithm_works() {
    for alg in CLIENT_ALGORITHMS {
        let set = keys(&[public(alg, json!({ "kid": "k" }))]);
        for header in [
            json!({ "alg": alg }),
            json!({ "alg": alg, "kid": "k" }),
            json!({ "alg": alg, "typ": "JWT" }),
            json!({ "alg": alg, "typ": "client-authentication+jwt", "x5t": "AA", "x5t#S256": "AA" }),
        ] {
            let text = signed(alg, &header, &claims());
            assert_eq!(ClientAssertion::parse(&text).unwrap().claimed_client(), "dyn_a");
            assert_eq!(verified(&text, &set).map(|claims| claims.jti), Ok("j1".to_owned()), "{header}");
        }
        // A key without `kid` is tried for any `kid`.
        let text = signed(alg, &json!({ "alg": alg, "kid": "other" }), &claims());
        assert!(verified(&text, &keys(&[public(alg, json!({}))])).is_ok());
        assert_eq!(verified(&text, &set), Err(BadAssertion::UnknownKey));
    }
}

/// CAUTH-05, CAUTH-06: headers that contain a key, name unsupported features or have another `typ` are refused.
#[test]
fn a_header_holds_only_what_it_may() {
    let set = keys(&[public("ES256", json!({}))]);
    for (member, value, why) in [
        ("crit", json!(["exp"]), BadAssertion::Malformed),
        ("crit", json!([]), BadAssertion::Malformed),
        ("jku", json!("https://evil.example/jwks"), BadAssertion::Malformed),
        ("x5u", json!("https://evil.example/cert"), BadAssertion::Malformed),
        ("jwk", public("ES256", json!({})), BadAssertion::Malformed),
        ("x5c", json!(["AA"]), BadAssertion::Malformed),
        ("b64", json!(false), BadAssertion::Malformed),
        ("zip", json!("DEF"), BadAssertion::Malformed),
        ("anything", json!(1), BadAssertion::Malformed),
        ("typ", json!("at+jwt"), BadAssertion::Typ),
        ("typ", json!("dpop+jwt"), BadAssertion::Typ),
        ("typ", json!("application/at+jwt"), BadAssertion::Typ),
        ("typ", json!("application/client-authentication+jwt"), BadAssertion::Typ),
        ("typ", json!(""), BadAssertion::Typ),
        ("typ", json!(7), BadAssertion::Malformed),
        ("alg", json!("none"), BadAssertion::UnknownKey),
        ("alg", json!("HS256"), BadAssertion::UnknownKey),
        ("alg", json!("ES384"), BadAssertion::UnknownKey),
        ("alg", json!("es256"), BadAssertion::UnknownKey),
        ("alg", json!("RS256"), BadAssertion::UnknownKey),
        ("alg", json!(null), BadAssertion::Malformed),
        ("kid", json!(7), BadAssertion::Malformed),
    ] {
        let mut header = json!({ "alg": "ES256" });
        header[member] = value.clone();
        assert_eq!(verified(&signed("ES256", &header, &claims()), &set), Err(why), "{member} {value}");
    }
}

/// CAUTH-05: `none`, and a public key used as an HMAC secret, are refused.
#[test]
fn none_and_hmac_with_a_public_key_are_refused() {
    let rsa = public("RS256", json!({}));
    let set = keys(std::slice::from_ref(&rsa));
    let unsigned = compact(r#"{"alg":"none"}"#, &claims().to_string(), |_| Vec::new());
    assert_eq!(verified(&unsigned, &set), Err(BadAssertion::UnknownKey));
    let secret = rsa.to_string();
    let forged = compact(r#"{"alg":"HS256"}"#, &claims().to_string(), |message| {
        HS256.signer_from_bytes(secret.as_bytes()).unwrap().sign(message).unwrap()
    });
    assert_eq!(verified(&forged, &set), Err(BadAssertion::UnknownKey));
}

/// CAUTH-05: a key's `alg`, `use` and `key_ops` are obeyed.
#[test]
fn a_key_is_for_its_own_algorithm() {
    let text = signed("PS256", &json!({ "alg": "PS256" }), &claims());
    assert!(verified(&text, &keys(&[public("PS256", json!({ "alg": "PS256" }))])).is_ok());
    assert_eq!(
        verified(&text, &keys(&[public("PS256", json!({ "alg": "RS256" }))])),
        Err(BadAssertion::UnknownKey)
    );
    for (more, usable) in [
        (json!({ "use": "sig" }), true),
        (json!({ "key_ops": ["verify"] }), true),
        (json!({ "use": "enc" }), false),
        (json!({ "key_ops": ["sign"] }), false),
        (json!({ "alg": "RSA-OAEP" }), false),
        (json!({ "alg": "RS512" }), false),
        (json!({ "alg": 7 }), false),
        (json!({ "kid": 7 }), false),
    ] {
        let parsed = ClientKeys::parse(&json!({ "keys": [public("RS256", more.clone())] }));
        assert_eq!(parsed.is_ok(), usable, "{more}");
    }
}

/// CAUTH-05: another key's signature, a signature of another text, and a malformed one are refused.
#[test]
fn a_signature_is_valid_only_for_its_own_text() {
    for alg in CLIENT_ALGORITHMS {
        let stranger = match alg {
            "ES256" => Jwk::generate_ec_key(EcCurve::P256).unwrap().to_public_key().unwrap(),
            "EdDSA" => Jwk::generate_ed_key(EdCurve::Ed25519).unwrap().to_public_key().unwrap(),
            _ => Jwk::generate_rsa_key(2048).unwrap().to_public_key().unwrap(),
        };
        let stranger: &Map<String, Value> = stranger.as_ref();
        let stranger = keys(&[Value::Object(stranger.clone())]);
        let header = json!({ "alg": alg });
        let text = signed(alg, &header, &claims());
        assert_eq!(verified(&text, &stranger), Err(BadAssertion::Signature), "{alg}");
        let own = keys(&[public(alg, json!({}))]);
        let (_, signature) = text.rsplit_once('.').unwrap();
        let mut other = claims();
        other["jti"] = json!("j2");
        let moved = compact(&header.to_string(), &other.to_string(), |_| {
            BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap()
        });
        assert_eq!(verified(&moved, &own), Err(BadAssertion::Signature), "{alg}");
        for bytes in [vec![], vec![0; 64], vec![0xff; 64], vec![0; 256], vec![1; 32]] {
            let broken = compact(&header.to_string(), &claims().to_string(), |_| bytes.clone());
            assert_eq!(verified(&broken, &own), Err(BadAssertion::Signature), "{alg} {bytes:?}");
        }
    }
}

/// CAUTH-05: `aud` is one string; every claim is required, has its type, and occurs once.
#[test]
fn claims_have_their_types() {
    let set = keys(&[public("ES256", json!({}))]);
    let with = |member: &str, value: Value| {
        let mut changed = claims();
        changed[member] = value;
        verified(&signed("ES256", &json!({ "alg": "ES256" }), &changed), &set)
    };
    for (member, value) in [
        ("aud", json!(["http://localhost:8080"])),
        ("aud", json!(null)),
        ("iss", json!(7)),
        ("sub", json!({})),
        ("exp", json!("1300")),
        ("exp", json!(1e300)),
        ("nbf", json!("now")),
        ("iat", json!([])),
        ("jti", json!(1)),
    ] {
        assert_eq!(with(member, value.clone()), Err(BadAssertion::Malformed), "{member} {value}");
    }
    for missing in ["iss", "sub", "aud", "exp", "jti"] {
        let mut changed = claims();
        changed.as_object_mut().unwrap().remove(missing);
        let text = signed("ES256", &json!({ "alg": "ES256" }), &changed);
        assert_eq!(verified(&text, &set), Err(BadAssertion::Malformed), "{missing}");
    }
    let twice = r#"{"iss":"a","sub":"a","aud":"x","exp":1,"jti":"j","aud":"y"}"#;
    let text = compact(r#"{"alg":"ES256"}"#, twice, |message| signer("ES256").sign(message).unwrap());
    assert_eq!(verified(&text, &set), Err(BadAssertion::Malformed));
    let read = with("exp", json!(1300.9)).unwrap();
    assert_eq!((read.exp, read.iat, read.nbf), (1300, None, None));
    assert_eq!(
        with("more", json!("is ignored")).unwrap(),
        with("iat", json!(1)).map(|c| AssertionClaims { iat: None, ..c }).unwrap()
    );
}

/// CAUTH-06, DCR-04: private members are refused, and unusable ones dropped.
#[test]
fn a_key_set_is_public() {
    let good = public("ES256", json!({}));
    for (set, why) in [
        (json!([]), BadClientKeys::NotASet),
        (json!({}), BadClientKeys::NotASet),
        (json!({ "keys": good }), BadClientKeys::NotASet),
        (json!({ "keys": ["x"] }), BadClientKeys::NotASet),
        (json!({ "keys": [] }), BadClientKeys::NoneUsable),
        (json!({ "keys": vec![good.clone(); 11] }), BadClientKeys::TooMany),
        (json!({ "keys": [good, public("ES256", json!({ "d": "AA" }))] }), BadClientKeys::Private),
        (json!({ "keys": [public("RS256", json!({ "q": "AA" }))] }), BadClientKeys::Private),
        (json!({ "keys": [public("RS256", json!({ "dp": null }))] }), BadClientKeys::Private),
        (json!({ "keys": [{ "kty": "oct", "k": "AA" }] }), BadClientKeys::Private),
        (json!({ "keys": [{ "kty": "oct" }] }), BadClientKeys::Private),
        (
            json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA" }] }),
            BadClientKeys::NoneUsable,
        ),
        (json!({ "keys": [public("ES256", json!({ "crv": "P-384" }))] }), BadClientKeys::NoneUsable),
        (
            json!({ "keys": [{ "kty": "OKP", "crv": "X25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }] }),
            BadClientKeys::NoneUsable,
        ),
        (json!({ "keys": [public("RS256", json!({ "e": "Aw" }))] }), BadClientKeys::NoneUsable),
        (json!({ "keys": [public("RS256", json!({ "e": "AQAAAAAAAAAB" }))] }), BadClientKeys::NoneUsable),
        (json!({ "keys": [public("RS256", json!({ "n": "AQAB" }))] }), BadClientKeys::NoneUsable),
        (
            json!({ "keys": [public("RS256", json!({ "n": BASE64URL_NOPAD.encode(&[0xff; 513]) }))] }),
            BadClientKeys::NoneUsable,
        ),
    ] {
        assert_eq!(ClientKeys::parse(&set).err(), Some(why), "{set}");
    }
    let certified = public("ES256", json!({ "x5c": ["AA=="], "x5u": "https://a.example", "kid": "k" }));
    let enc = public("RS256", json!({ "use": "enc" }));
    let stored = keys(&[certified, enc]).to_json();
    assert_eq!(stored, json!({ "keys": [public("ES256", json!({ "kid": "k" }))] }));
    assert_eq!(ClientKeys::parse(&stored).unwrap().to_json(), stored);
}

/// RATE-04, RATE-05: any assertion and key set cost at most two signature verifications; an oversized
/// assertion, another kind of JWT or an unsupported algorithm costs none.
#[test]
fn checking_is_bounded() {
    let checks = |set: &ClientKeys, header: Value| {
        let header: Header = serde_json::from_value(header).unwrap();
        set.candidates(&header).count()
    };
    let nameless = keys(&vec![public("RS256", json!({})); 10]);
    assert_eq!(checks(&nameless, json!({ "alg": "RS256" })), 2);
    assert_eq!(checks(&nameless, json!({ "alg": "RS256", "kid": "k" })), 2);
    assert_eq!(checks(&nameless, json!({ "alg": "ES256" })), 0);
    assert_eq!(checks(&nameless, json!({ "alg": "none" })), 0);
    let named: Vec<_> = (0..10).map(|n| public("PS256", json!({ "kid": n.to_string() }))).collect();
    assert_eq!(checks(&keys(&named), json!({ "alg": "PS256", "kid": "7" })), 1);
    assert_eq!(checks(&keys(&named), json!({ "alg": "PS256", "kid": "x" })), 0);
    // A key with the header's `kid` is tried before keys without one, wherever it is in the set.
    let mut last = vec![public("PS256", json!({})); 9];
    last.push(public("PS256", json!({ "kid": "last" })));
    let header: Header = serde_json::from_value(json!({ "alg": "PS256", "kid": "last" })).unwrap();
    let first = keys(&last).candidates(&header).next().unwrap().key_id().map(str::to_owned);
    assert_eq!(first.as_deref(), Some("last"));
    for length in [256, 512, 513, 4096] {
        let key = public("RS256", json!({ "n": BASE64URL_NOPAD.encode(&vec![0xff; length]) }));
        assert_eq!(ClientKeys::parse(&json!({ "keys": [key] })).is_ok(), length <= 512, "{length}");
    }
    let long = signed("ES256", &json!({ "alg": "ES256", "kid": "k".repeat(LONGEST) }), &claims());
    assert_eq!(ClientAssertion::parse(&long).err(), Some(BadAssertion::Malformed));
}

/// CAUTH-03: the dummy keys cover every kind and verify nothing.
#[test]
fn dummy_keys_exist_for_every_algorithm() {
    for alg in CLIENT_ALGORITHMS {
        let header = Header { alg: alg.to_owned(), kid: None, typ: None, _x5t: None, _x5t_s256: None };
        assert_eq!(NOBODYS_KEYS.candidates(&header).count(), 1, "{alg}");
        let text = signed(alg, &json!({ "alg": alg }), &claims());
        assert_eq!(verified(&text, &ClientKeys::default()), Err(BadAssertion::UnknownKey));
    }
}

proptest! {
    /// CAUTH-05: no input causes a panic.
    #[test]
    fn any_text_is_read_or_refused(text in "[A-Za-z0-9_.\\-{}\":=]{0,80}") {
        let _ = verified(&text, &ClientKeys::default());
    }

    /// As above, with a parsable header and claims.
    #[test]
    fn any_signature_is_refused(signature in prop::collection::vec(any::<u8>(), 0..80)) {
        let set = keys(&[public("ES256", json!({})), public("EdDSA", json!({}))]);
        for alg in ["ES256", "EdDSA"] {
            let text = compact(&json!({ "alg": alg }).to_string(), &claims().to_string(), |_| signature.clone());
            prop_assert_eq!(verified(&text, &set), Err(BadAssertion::Signature));
        }
    }

    /// DCR-04: no key set causes a panic.
    #[test]
    fn any_key_is_read_or_refused(kty in "EC|RSA|OKP", x in "[A-Za-z0-9_=]{0,50}", y in "[A-Za-z0-9_]{0,50}") {
        let key = json!({ "kty": kty, "crv": "P-256", "x": x, "y": y, "n": x, "e": y });
        let _ = ClientKeys::parse(&json!({ "keys": [key] }));
    }
}
