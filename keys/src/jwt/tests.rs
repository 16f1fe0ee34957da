use std::sync::LazyLock;

use openssl::hash::MessageDigest;
use openssl::sign::Signer;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::algorithm::UnknownAlgorithm;
use crate::tests::token;

/// A key pair.
struct Pair {
    signing: SigningKey,
    verifying: VerifyingKey,
    public: PublicJwk,
    private: Zeroizing<Vec<u8>>,
}

impl Pair {
    fn new(algorithm: Algorithm) -> Self {
        let private = generate(algorithm).unwrap();
        let (verifying, public) = public_half(algorithm, &private).unwrap();
        let signing = SigningKey::from_der(algorithm, public.kid(), &private).unwrap();
        Self { signing, verifying, public, private }
    }

    fn kid(&self) -> &str {
        self.public.kid()
    }

    /// A token with the given header and a valid signature.
    fn signed(&self, header: &str, payload: &[u8]) -> String {
        self.signing.compact(&BASE64URL_NOPAD.encode(header.as_bytes()), payload).unwrap()
    }

    /// As [`Pair::signed`], with an ordinary payload.
    fn with_header(&self, header: &Value) -> String {
        self.signed(&header.to_string(), &claims())
    }

    fn good(&self) -> String {
        self.signing.sign(&token()).unwrap().text
    }
}

static ES: LazyLock<Pair> = LazyLock::new(|| Pair::new(Algorithm::Es256));
static RS: LazyLock<Pair> = LazyLock::new(|| Pair::new(Algorithm::Rs256));
static ED: LazyLock<Pair> = LazyLock::new(|| Pair::new(Algorithm::EdDsa));

fn claims() -> Vec<u8> {
    serde_json::to_vec(&token()).unwrap()
}

fn verified(compact: &str) -> Result<Verified, Unverified> {
    verify(compact, |kid| {
        [&*ES, &*RS, &*ED].into_iter().find(|pair| pair.kid() == kid).map(|pair| &pair.verifying)
    })
}

fn refused(compact: &str) -> Unverified {
    verified(compact).expect_err("it is refused")
}

fn decoded(part: &str) -> Value {
    serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()).unwrap()
}

/// AT-01: ES256, RS256 and EdDSA work, with exactly three header members.
#[test]
fn a_signed_token_verifies() {
    for pair in [&*ES, &*RS, &*ED] {
        let token = token();
        let signed = pair.signing.sign(&token).unwrap();
        assert_eq!(verified(&signed.text), Ok(Verified { token, kid: signed.kid }));
        let header = decoded(signed.text.split('.').next().unwrap());
        let alg = pair.verifying.algorithm.as_str();
        assert_eq!(header, json!({ "alg": alg, "kid": pair.kid(), "typ": "at+jwt" }));
    }
    assert!(ES.good().len() < 4096);
}

/// AT-01: Ed25519 has two names (RFC 9864 §2.2); other kinds of keys have neither.
#[test]
fn ed25519_goes_by_its_other_name_too() {
    let named =
        |pair: &Pair, alg: &str| pair.with_header(&json!({ "alg": alg, "kid": pair.kid(), "typ": "at+jwt" }));
    assert_eq!(verified(&named(&ED, "Ed25519")).unwrap().kid, ED.kid());
    assert_eq!(refused(&named(&ED, "Ed448")), Unverified::Algorithm);
    assert_eq!(refused(&named(&ES, "Ed25519")), Unverified::Algorithm);
    assert_eq!(ED.public.json()["crv"], "Ed25519");
}

/// KEYS-05: the stored public half of a retired key verifies like the key itself.
#[test]
fn a_published_key_is_enough_to_verify() {
    for (pair, algorithm) in [(&*ES, Algorithm::Es256), (&*RS, Algorithm::Rs256), (&*ED, Algorithm::EdDsa)] {
        let json = pair.public.json().to_string();
        let (verifying, jwk) = public_from_jwk(algorithm, json.as_bytes()).unwrap();
        assert_eq!((jwk.kid(), jwk.json()), (pair.kid(), pair.public.json()));
        assert!(verify(&pair.good(), |_| Some(&verifying)).is_ok());
        let other = if algorithm == Algorithm::Es256 { Algorithm::Rs256 } else { Algorithm::Es256 };
        assert!(public_from_jwk(other, json.as_bytes()).is_err());
        assert!(public_from_jwk(algorithm, b"{}").is_err());
    }
}

/// RFC 9068 §4: the long form of `typ`, in any case, is accepted.
#[test]
fn typ_is_a_media_type() {
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+JWT"] {
        let text = ES.with_header(&json!({ "alg": "ES256", "kid": ES.kid(), "typ": typ }));
        assert!(verified(&text).is_ok(), "{typ}");
    }
}

/// AT-06: a correctly signed JWT with another `typ` is refused.
#[test]
fn another_typ_is_refused() {
    for typ in
        ["JWT", "jwt", "", "at", "application/jwt", "application/", "text/at+jwt", "at+jwt ", "é/at+jwt"]
    {
        let text = ES.with_header(&json!({ "alg": "ES256", "kid": ES.kid(), "typ": typ }));
        assert_eq!(refused(&text), Unverified::Typ, "{typ}");
    }
    let application_twice = "application/application/at+jwt";
    let text = ES.with_header(&json!({ "alg": "ES256", "kid": ES.kid(), "typ": application_twice }));
    assert_eq!(refused(&text), Unverified::Typ);
}

/// RS-05: the header has three members, each once, and is an object.
#[test]
fn any_other_header_is_refused() {
    for (name, value) in [
        ("jku", json!("https://evil.example/jwks.json")),
        ("jwk", ES.public.json().clone()),
        ("x5u", json!("https://evil.example/cert")),
        ("x5c", json!([])),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
        ("nonce", json!("x")),
        ("ALG", json!("none")),
    ] {
        let mut header = json!({ "alg": "ES256", "kid": ES.kid(), "typ": "at+jwt" });
        header[name] = value;
        assert_eq!(refused(&ES.with_header(&header)), Unverified::Header, "{name}");
    }
    let kid = ES.kid();
    for header in [
        format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"at+jwt","alg":"ES256"}}"#),
        format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"at+jwt","\u0061lg":"ES256"}}"#),
        format!(r#"{{"alg":"ES256","kid":"x","kid":"{kid}","typ":"at+jwt"}}"#),
        format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"JWT","typ":"at+jwt"}}"#),
        format!(r#"["ES256","{kid}","at+jwt"]"#),
        format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"at+jwt"}} x"#),
        format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#),
        format!(r#"{{"kid":"{kid}","typ":"at+jwt"}}"#),
        r#"{"alg":"ES256","typ":"at+jwt"}"#.to_owned(),
        format!(r#"{{"alg":["ES256"],"kid":"{kid}","typ":"at+jwt"}}"#),
        r#"{"alg":"ES256","kid":7,"typ":"at+jwt"}"#.to_owned(),
        "{}".to_owned(),
        "null".to_owned(),
        String::new(),
        "{".repeat(3000),
    ] {
        assert_eq!(refused(&ES.signed(&header, &claims())), Unverified::Header, "{header}");
    }
}

/// KEYS-07, RFC 8725 §3.1: the algorithm is the key's.
#[test]
fn another_algorithm_is_refused() {
    for alg in ["none", "None", "NONE", "", "HS256", "RS256", "ES384", "PS256", "EdDSA", "es256"] {
        let header = json!({ "alg": alg, "kid": ES.kid(), "typ": "at+jwt" });
        assert_eq!(refused(&ES.with_header(&header)), Unverified::Algorithm, "{alg}");
        let signed = ES.with_header(&header);
        let unsigned = &signed[..=signed.rfind('.').unwrap()];
        assert_eq!(refused(unsigned), Unverified::Algorithm, "{alg}, unsigned");
    }
    let header = json!({ "alg": "ES256", "kid": RS.kid(), "typ": "at+jwt" });
    assert_eq!(refused(&ES.with_header(&header)), Unverified::Algorithm);
}

/// RFC 8725 §2.1: a public key, in any published form, is not accepted as an HMAC secret.
#[test]
fn a_public_key_as_an_hmac_secret_is_refused() {
    for pair in [&*ES, &*RS, &*ED] {
        let key = PKey::private_key_from_der(&pair.private).unwrap();
        for secret in [
            key.public_key_to_pem().unwrap(),
            key.public_key_to_der().unwrap(),
            pair.public.json().to_string().into_bytes(),
        ] {
            let mac = PKey::hmac(&secret).unwrap();
            for alg in ["HS256", pair.verifying.algorithm.as_str()] {
                let header = json!({ "alg": alg, "kid": pair.kid(), "typ": "at+jwt" }).to_string();
                let message = [header.as_bytes(), &claims()].map(|p| BASE64URL_NOPAD.encode(p)).join(".");
                let mut signer = Signer::new(MessageDigest::sha256(), &mac).unwrap();
                let signature = signer.sign_oneshot_to_vec(message.as_bytes()).unwrap();
                let text = format!("{message}.{}", BASE64URL_NOPAD.encode(&signature));
                assert!(matches!(refused(&text), Unverified::Algorithm | Unverified::Signature));
            }
        }
    }
}

/// KEYS-07: the key is chosen by `kid` only.
#[test]
fn another_key_is_refused() {
    let stranger = Pair::new(Algorithm::Es256);
    assert_eq!(refused(&stranger.good()), Unverified::UnknownKey);
    let header = json!({ "alg": "ES256", "kid": ES.kid(), "typ": "at+jwt" });
    assert_eq!(refused(&stranger.with_header(&header)), Unverified::Signature);
    for kid in ["", "x", "../../dev/null", "' OR 1=1 --", &ES.kid()[1..], &ES.kid().to_uppercase()] {
        let header = json!({ "alg": "ES256", "kid": kid, "typ": "at+jwt" });
        assert_eq!(refused(&ES.with_header(&header)), Unverified::UnknownKey, "{kid}");
    }
}

/// RS-05: a payload that was changed after signing is refused.
#[test]
fn a_tampered_payload_is_refused() {
    for pair in [&*ES, &*RS, &*ED] {
        let text = pair.good();
        let [header, payload, signature] = text.split('.').collect::<Vec<_>>().try_into().unwrap();
        let mut claims = decoded(payload);
        claims["sub"] = "u_admin".into();
        let payload = BASE64URL_NOPAD.encode(claims.to_string().as_bytes());
        assert_eq!(refused(&format!("{header}.{payload}.{signature}")), Unverified::Signature);
    }
}

/// RS-05: a missing, malformed or degenerate signature, and another token's, are refused.
#[test]
fn a_foreign_signature_is_refused() {
    for pair in [&*ES, &*RS, &*ED] {
        let text = pair.good();
        let (message, signature) = text.rsplit_once('.').unwrap();
        let (_, other) = pair
            .with_header(&json!({ "typ": "JWT" }))
            .rsplit_once('.')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        let zero_r = [[0; 32], [1; 32]].concat();
        let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
        let order = data_encoding::HEXLOWER.decode(order.as_bytes()).unwrap();
        for bad in [
            String::new(),
            other,
            format!("{signature}="),
            format!("{signature}AA"),
            signature[4..].to_owned(),
            format!("*{}", &signature[1..]),
            BASE64URL_NOPAD.encode(&[0; 64]),
            BASE64URL_NOPAD.encode(&zero_r),
            BASE64URL_NOPAD.encode(&[order.clone(), order].concat()),
            BASE64URL_NOPAD.encode(&[0xff; 64]),
            BASE64URL_NOPAD.encode(&[0; 256]),
            BASE64URL_NOPAD.encode(&[0xff; 256]),
        ] {
            assert_eq!(refused(&format!("{message}.{bad}")), Unverified::Signature, "{bad}");
        }
    }
}

/// RS-05: size and format are checked first.
#[test]
fn what_is_not_a_compact_jws_is_refused() {
    let text = ES.good();
    for bad in ["", ".", "a", "a.b", "a.b.c.d", "a.b.c.d.e", &format!("{text}."), &format!("{text}.x")] {
        assert_eq!(refused(bad), Unverified::NotThreeParts, "{bad}");
    }
    for bad in ["..", "a.b.c", "é.b.c", &format!(" {text}"), &format!("Bearer {text}")] {
        assert_eq!(refused(bad), Unverified::Header, "{bad}");
    }
    for space in [" ", "\n", "="] {
        assert_eq!(refused(&format!("{text}{space}")), Unverified::Signature);
    }
    // The limit is checked before decoding, and valid tokens below it are accepted.
    let padded = |length: usize| {
        let mut long = token();
        long.sub = "x".repeat(length);
        ES.signing.sign(&long).unwrap().text
    };
    let longest = (5000..6200).map(padded).take_while(|text| text.len() <= LONGEST).last().unwrap();
    assert!(longest.len() > LONGEST - 3);
    assert!(verified(&longest).is_ok());
    assert_eq!(refused(&padded(6200)), Unverified::TooLong);
    assert_eq!(refused(&".".repeat(LONGEST + 1)), Unverified::TooLong);
}

/// RS-05, RS-06: missing, repeated and mistyped claims are refused.
#[test]
fn other_claims_are_refused() {
    let header = json!({ "alg": "ES256", "kid": ES.kid(), "typ": "at+jwt" }).to_string();
    let good = serde_json::to_value(token()).unwrap();
    for missing in ["iss", "sub", "aud", "client_id", "exp", "iat", "jti", "scope", "grant_id"] {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(missing);
        assert_eq!(
            refused(&ES.signed(&header, claims.to_string().as_bytes())),
            Unverified::Claims,
            "{missing}"
        );
    }
    for (name, value) in [
        ("exp", json!("1900")),
        ("exp", json!(1900.5)),
        ("exp", json!(u64::MAX)),
        ("iat", json!(null)),
        ("nbf", json!("now")),
        ("iss", json!(["http://localhost:8080"])),
        ("aud", json!([])),
        ("aud", json!(["http://localhost:8080/mcp", "http://localhost:8080/mcp"])),
        ("sub", json!(7)),
        ("jti", json!("x")),
        ("scope", json!(["a"])),
        ("scope", json!("a\"")),
        ("amr", json!("pop")),
    ] {
        let mut claims = good.clone();
        claims[name] = value.clone();
        let text = ES.signed(&header, claims.to_string().as_bytes());
        assert_eq!(refused(&text), Unverified::Claims, "{name}: {value}");
    }
    let doubled = good.to_string().replacen('{', r#"{"sub":"u_admin","#, 1);
    for payload in [doubled.as_str(), "", "null", "[]", "{}", "\u{fffd}"] {
        assert_eq!(refused(&ES.signed(&header, payload.as_bytes())), Unverified::Claims, "{payload}");
    }
}

/// AT-01: exactly three algorithms have a name.
#[test]
fn only_three_algorithms_have_a_name() {
    for algorithm in Algorithm::ALL {
        assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
        assert_eq!(serde_json::to_value(algorithm).unwrap(), algorithm.as_str());
    }
    assert_eq!("Ed25519".parse(), Ok(Algorithm::EdDsa));
    for bad in ["none", "HS256", "es256", "ES384", "Ed448", ""] {
        assert_eq!(bad.parse::<Algorithm>(), Err(UnknownAlgorithm), "{bad}");
        assert!(serde_json::from_value::<Algorithm>(bad.into()).is_err(), "{bad}");
    }
}

/// KEYS-05: a private key cannot be opened as another kind.
#[test]
fn a_key_of_another_kind_is_refused() {
    for (algorithm, private) in [
        (Algorithm::Es256, RS.private.to_vec()),
        (Algorithm::Rs256, ES.private.to_vec()),
        (
            Algorithm::Rs256,
            PKey::from_rsa(Rsa::generate(1024).unwrap()).unwrap().private_key_to_pkcs8().unwrap(),
        ),
        (Algorithm::EdDsa, ES.private.to_vec()),
        (Algorithm::Es256, ED.private.to_vec()),
        (Algorithm::EdDsa, PKey::generate_ed448().unwrap().private_key_to_pkcs8().unwrap()),
        (Algorithm::Es256, Vec::new()),
        (Algorithm::Rs256, b"rubbish".to_vec()),
    ] {
        assert!(public_half(algorithm, &private).is_err());
        assert!(SigningKey::from_der(algorithm, "kid", &private).is_err());
    }
}

proptest! {
    /// RS-05: no text is accepted by chance, and none causes a panic.
    #[test]
    fn arbitrary_text_is_refused(text in "\\PC*") {
        prop_assert!(verified(&text).is_err());
    }

    /// RS-05: as above, with the right number of parts.
    #[test]
    fn arbitrary_parts_are_refused(
        header in prop_oneof![Just(r#"{"alg":"ES256","kid":"K","typ":"at+jwt"}"#.to_owned()), "[\\[{\"algkidtyp:,}\\]]{0,40}"],
        payload in prop::collection::vec(any::<u8>(), 0..64),
        signature in prop_oneof![prop::collection::vec(any::<u8>(), 0..80), prop::collection::vec(any::<u8>(), 64)],
    ) {
        let header = header.replace('K', ES.kid());
        let parts = [header.as_bytes(), &payload[..], &signature[..]].map(|part| BASE64URL_NOPAD.encode(part));
        prop_assert!(verified(&parts.join(".")).is_err());
    }

    /// RS-05: a valid token with one character changed, removed or added is refused.
    #[test]
    fn a_mutated_token_is_refused(at in any::<prop::sample::Index>(), other in any::<char>(), how in 0..3, rsa in any::<bool>()) {
        let good = if rsa { RS.good() } else { ES.good() };
        let mut characters: Vec<char> = good.chars().collect();
        let at = at.index(characters.len());
        match how {
            0 => characters[at] = other,
            1 => drop(characters.remove(at)),
            _ => characters.insert(at, other),
        }
        let mutated: String = characters.into_iter().collect();
        prop_assume!(mutated != good);
        prop_assert!(verified(&mutated).is_err());
    }
}
