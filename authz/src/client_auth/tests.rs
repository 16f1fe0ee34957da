use data_encoding::BASE64URL_NOPAD;
use http::HeaderValue;
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::nid::Nid;
use openssl::pkey::Private;
use serde_json::{Value, json};
use shared::{Clock, Db, Scope, Timestamp};

use super::*;
use crate::store::clients::{self, Registration, Source, Trust};

const ISSUER: &str = "https://auth.corp.example";
const NOW: i64 = 1_795_435_200;

/// A database with clients, and a clock that stands still.
struct TestServer {
    clock: Clock,
    db: Db,
    _dir: tempfile::TempDir,
}

impl TestServer {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::held(Timestamp::from_seconds(NOW));
        let db = Db::open(&dir.path().join("x.db"), &shared::schema::SCHEMA, None, &clock).unwrap();
        Self { clock, db, _dir: dir }
    }

    /// Adds a client with this name and method; returns its secret, if it has one.
    fn client(
        &self,
        name: &str,
        auth_method: AuthMethod,
        change: impl FnOnce(&mut Client),
    ) -> Option<Secret> {
        let mut client = Client {
            id: ClientId::parse(name).unwrap(),
            name: name.to_owned(),
            source: Source::Administrator,
            trust: Trust::Verified,
            auth_method,
            auth_defaulted: false,
            jwks: None,
            grant_types: Vec::new(),
            redirect_uris: Vec::new(),
            scope: Scope::empty(),
            disabled: false,
        };
        change(&mut client);
        let by_secret = auth_method.as_str().starts_with("client_secret");
        let registration = Registration {
            application_type: "web",
            metadata: "{}",
            fingerprint: None,
            management: None,
            holder: None,
        };
        self.db
            .write_blocking(move |tx| {
                clients::insert(tx, &client, &registration)?;
                by_secret
                    .then(|| client_secrets::issue(tx, &client.id, std::time::Duration::ZERO))
                    .transpose()
            })
            .unwrap()
    }

    fn asked(&self, authorization: &Authorization, form: &str) -> Result<String, Unauthenticated> {
        let params = Params::parse(form).unwrap();
        let find = |id: &ClientId| self.db.read(|conn| clients::find(conn, id));
        let request = Request::from(None);
        let examined = check(ISSUER, self.clock.now(), &request, find, &params, authorization).unwrap()?;
        let proven = self.db.write_blocking(move |tx| prove(tx, |id| clients::find(tx, id), &examined));
        proven.unwrap().map(|client| client.id.to_string())
    }

    fn form(&self, form: &str) -> Result<String, Unauthenticated> {
        self.asked(&Authorization::Absent, form)
    }

    fn basic(&self, user: &str, password: &str) -> Result<String, Unauthenticated> {
        self.asked(&header(&format!("Basic {}", BASE64.encode(format!("{user}:{password}").as_bytes()))), "")
    }
}

fn header(value: &str) -> Authorization {
    Authorization::of(&HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap())]))
}

/// CAUTH-02: the scheme in any case, both halves form-encoded; everything else is refused.
#[test]
fn basic_is_read_as_the_rfc_says() {
    let house = TestServer::new();
    let secret = house.client("c_a+b/c", AuthMethod::ClientSecretBasic, |_| {}).unwrap();
    let encoded = BASE64.encode(format!("c_a%2Bb%2fc:{}", secret.expose()).as_bytes());
    for scheme in ["Basic", "basic", "BASIC"] {
        assert_eq!(house.asked(&header(&format!("{scheme} {encoded}")), ""), Ok("c_a+b/c".to_owned()));
    }
    assert_eq!(
        house.asked(&header(&format!("Basic {encoded}")), "client_id=c_a%2Bb%2Fc"),
        Ok("c_a+b/c".to_owned())
    );
    assert_eq!(
        house.asked(&header(&format!("Basic {encoded}")), "client_id=c_b"),
        Err(Unauthenticated::Unknown)
    );
    let broken = [
        "Basic".to_owned(),
        "Basic ".to_owned(),
        "Basic !!".to_owned(),
        format!("Basic {}", encoded.trim_end_matches('=').repeat(2)),
        format!("Bearer {encoded}"),
        format!("Digest {encoded}"),
        format!("Basic {}", BASE64.encode(b"no colon")),
        format!("Basic {}", BASE64.encode(b"\xff:x")),
        format!("Basic {}", BASE64.encode(b"a%ff:x")),
    ];
    for value in broken {
        assert_eq!(house.asked(&header(&value), "client_id=c_a"), Err(Unauthenticated::Malformed), "{value}");
    }
    let twice = HeaderMap::from_iter([
        (header::AUTHORIZATION, HeaderValue::from_static("Basic YTpi")),
        (header::AUTHORIZATION, HeaderValue::from_static("Basic YTpi")),
    ]);
    assert_eq!(house.asked(&Authorization::of(&twice), ""), Err(Unauthenticated::Malformed));
}

/// CAUTH-01, CAUTH-02: Basic with an empty secret only names the client and authenticates nothing.
#[test]
fn an_empty_secret_is_refused() {
    let house = TestServer::new();
    house.client("c_none", AuthMethod::None, |_| {});
    house.client("c_basic", AuthMethod::ClientSecretBasic, |_| {}).unwrap();
    house.client("c_post", AuthMethod::ClientSecretPost, |_| {}).unwrap();
    house.client("c_either", AuthMethod::ClientSecretBasic, |c| c.auth_defaulted = true).unwrap();
    let key = Key::new();
    house.client("c_key", AuthMethod::PrivateKeyJwt, |c| c.jwks = Some(key.jwks()));
    let empty = |id: &str| header(&format!("Basic {}", BASE64.encode(format!("{id}:").as_bytes())));
    assert_eq!(house.basic("c_none", ""), Ok("c_none".to_owned()));
    for form in ["client_id=c_none", "client_id=c_none&client_secret=", "client_id="] {
        assert_eq!(house.asked(&empty("c_none"), form), Ok("c_none".to_owned()), "{form}");
    }
    for id in ["c_basic", "c_post", "c_either", "c_key"] {
        assert_eq!(house.basic(id, ""), Err(Unauthenticated::WrongMethod), "{id}");
        let empty_in_form = house.form(&format!("client_id={id}&client_secret="));
        assert_eq!(empty_in_form, Err(Unauthenticated::WrongMethod), "{id}");
    }
    for (form, why) in [
        ("client_id=c_basic", Unauthenticated::Unknown),
        ("client_id=c_none&client_secret=s", Unauthenticated::SeveralMethods),
        ("client_assertion=x", Unauthenticated::SeveralMethods),
    ] {
        assert_eq!(house.asked(&empty("c_none"), form), Err(why), "{form}");
    }
    assert_eq!(house.basic("", ""), Err(Unauthenticated::Unknown));
    assert_eq!(house.basic("c_none", " "), Err(Unauthenticated::WrongMethod));
}

/// CAUTH-01, CAUTH-07: only the registered method is accepted, even with the right secret.
#[test]
fn only_the_registered_authentication_method_is_accepted() {
    let house = TestServer::new();
    let basic = house.client("c_basic", AuthMethod::ClientSecretBasic, |_| {}).unwrap();
    let post = house.client("c_post", AuthMethod::ClientSecretPost, |_| {}).unwrap();
    let either =
        house.client("c_either", AuthMethod::ClientSecretBasic, |c| c.auth_defaulted = true).unwrap();
    house.client("c_none", AuthMethod::None, |_| {});
    let key = Key::new();
    house.client("c_key", AuthMethod::PrivateKeyJwt, |c| c.jwks = Some(key.jwks()));
    let posted =
        |id: &str, secret: &Secret| house.form(&format!("client_id={id}&client_secret={}", secret.expose()));
    assert_eq!(house.basic("c_basic", basic.expose()), Ok("c_basic".to_owned()));
    assert_eq!(posted("c_post", &post), Ok("c_post".to_owned()));
    assert_eq!(house.basic("c_either", either.expose()), Ok("c_either".to_owned()));
    assert_eq!(posted("c_either", &either), Ok("c_either".to_owned()));
    assert_eq!(house.form("client_id=c_none"), Ok("c_none".to_owned()));
    assert_eq!(house.form("client_id=c_none&client_secret="), Ok("c_none".to_owned()), "empty is absent");
    let wrong = Err(Unauthenticated::WrongMethod);
    assert_eq!(posted("c_basic", &basic), wrong);
    assert_eq!(house.basic("c_post", post.expose()), wrong);
    for id in ["c_basic", "c_post", "c_either", "c_key"] {
        assert_eq!(house.form(&format!("client_id={id}")), wrong, "{id}");
    }
    for id in ["c_none", "c_key"] {
        assert_eq!(posted(id, &basic), wrong, "{id}");
        assert_eq!(house.basic(id, basic.expose()), wrong, "{id}");
    }
    for id in ["c_none", "c_basic", "c_post", "c_either"] {
        assert_eq!(house.form(&key.form(&claims(id))), wrong, "{id}");
    }
    // A `none` client that has keys for another purpose still does not authenticate.
    house.client("c_keyed", AuthMethod::None, |c| c.jwks = Some(key.jwks()));
    assert_eq!(house.form(&key.form(&claims("c_keyed"))), wrong);
}

/// TOKEN-04: two methods at once are an invalid request, even if each one alone would be right.
#[test]
fn two_authentication_methods_at_once_are_refused() {
    let house = TestServer::new();
    let secret = house.client("c_a", AuthMethod::ClientSecretBasic, |c| c.auth_defaulted = true).unwrap();
    let basic = || header(&format!("Basic {}", BASE64.encode(format!("c_a:{}", secret.expose()).as_bytes())));
    let in_form = format!("client_id=c_a&client_secret={}", secret.expose());
    let asserted = Key::new().form(&claims("c_a"));
    for (authorization, form) in [
        (basic(), in_form.clone()),
        (basic(), asserted.clone()),
        (Authorization::Absent, format!("{in_form}&{asserted}")),
        (Authorization::Absent, format!("{in_form}&client_assertion_type=x")),
        (Authorization::Malformed, in_form.clone()),
    ] {
        let refused = house.asked(&authorization, &form).unwrap_err();
        assert_eq!(refused, Unauthenticated::SeveralMethods, "{form}");
        assert_eq!(refused.wire().code, Code::InvalidRequest);
    }
}

/// CAUTH-03: every refusal looks the same to the client.
#[test]
fn every_failure_of_authentication_looks_alike() {
    use Unauthenticated as U;
    let all = [
        U::Unknown,
        U::Malformed,
        U::WrongMethod,
        U::WrongSecret,
        U::AssertionMalformed,
        U::AssertionSignature,
        U::AssertionClaims,
        U::AssertionExpired,
        U::AssertionReplayed,
    ];
    for why in all {
        let error = why.wire();
        assert_eq!((error.code, &*error.description), (Code::InvalidClient, "client authentication failed"));
    }
    let house = TestServer::new();
    let secret = house.client("c_a", AuthMethod::ClientSecretBasic, |_| {}).unwrap();
    house.client("c_off", AuthMethod::None, |c| c.disabled = true);
    assert_eq!(house.basic("c_a", "cs_wrong"), Err(U::WrongSecret));
    assert_eq!(house.basic("c_a", &secret.expose()[..secret.expose().len() - 1]), Err(U::WrongSecret));
    assert_eq!(house.basic("c_a", &format!("{}A", secret.expose())), Err(U::WrongSecret));
    assert_eq!(house.basic("c_a", secret.expose().trim_start_matches("cs_")), Err(U::WrongSecret));
    assert_eq!(house.basic("c_gone", secret.expose()), Err(U::Unknown));
    assert_eq!(house.form(""), Err(U::Unknown));
    assert_eq!(house.form("client_secret=x"), Err(U::Unknown));
    assert_eq!(house.form("client_id=%00"), Err(U::Unknown));
    assert_eq!(house.form(&Key::new().form(&claims("c_gone"))), Err(U::Unknown));
}

/// CAUTH-04: two secrets are live while one replaces the other, never three, and the older one expires.
#[test]
fn a_secret_is_replaced_with_an_overlap() {
    let house = TestServer::new();
    let first = house.client("c_a", AuthMethod::ClientSecretBasic, |_| {}).unwrap();
    let issue = |overlap: u64| {
        let id = ClientId::parse("c_a").unwrap();
        house.clock.advance(std::time::Duration::from_secs(1));
        let overlap = std::time::Duration::from_secs(overlap);
        house.db.write_blocking(move |tx| client_secrets::issue(tx, &id, overlap)).unwrap()
    };
    let second = issue(3600);
    for secret in [&first, &second] {
        assert!(house.basic("c_a", secret.expose()).is_ok());
    }
    house.clock.advance(std::time::Duration::from_secs(3599));
    assert!(house.basic("c_a", first.expose()).is_ok());
    house.clock.advance(std::time::Duration::from_secs(1));
    assert_eq!(house.basic("c_a", first.expose()), Err(Unauthenticated::WrongSecret));
    let (third, fourth) = (issue(3600), issue(3600));
    assert_eq!(house.basic("c_a", second.expose()), Err(Unauthenticated::WrongSecret));
    assert!(house.basic("c_a", third.expose()).is_ok() && house.basic("c_a", fourth.expose()).is_ok());
    let last = issue(0);
    assert_eq!(house.basic("c_a", fourth.expose()), Err(Unauthenticated::WrongSecret));
    assert!(house.basic("c_a", last.expose()).is_ok());
}

/// A client's key pair, and assertions signed with it.
struct Key(EcKey<Private>);

impl Key {
    fn new() -> Self {
        Self(EcKey::generate(&EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap()).unwrap())
    }

    fn jwks(&self) -> String {
        let mut context = openssl::bn::BigNumContext::new().unwrap();
        let form = openssl::ec::PointConversionForm::UNCOMPRESSED;
        let point = self.0.public_key().to_bytes(self.0.group(), form, &mut context).unwrap();
        let (x, y) = (BASE64URL_NOPAD.encode(&point[1..33]), BASE64URL_NOPAD.encode(&point[33..]));
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": x, "y": y }] }).to_string()
    }

    fn form(&self, claims: &Value) -> String {
        let encode = |json: &Value| BASE64URL_NOPAD.encode(json.to_string().as_bytes());
        let message = format!("{}.{}", encode(&json!({ "alg": "ES256" })), encode(claims));
        let signature = EcdsaSig::sign(&Digest::of(message.as_bytes()).0, &self.0).unwrap();
        let half = |number: &openssl::bn::BigNumRef| number.to_vec_padded(32).unwrap();
        let signature = BASE64URL_NOPAD.encode(&[half(signature.r()), half(signature.s())].concat());
        format!(
            "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion={message}.{signature}"
        )
    }
}

fn claims(client: &str) -> Value {
    let jti = shared::id::random_128();
    json!({ "iss": client, "sub": client, "aud": ISSUER, "exp": NOW + 300, "iat": NOW, "jti": jti })
}

/// CAUTH-05: each claim is checked.
#[test]
fn an_assertion_needs_issuer_audience_and_expiry() {
    use Unauthenticated as U;
    let house = TestServer::new();
    let key = Key::new();
    house.client("c_a", AuthMethod::PrivateKeyJwt, |c| c.jwks = Some(key.jwks()));
    house.client("c_b", AuthMethod::PrivateKeyJwt, |c| c.jwks = Some(key.jwks()));
    let asked = |member: &str, value: &Value| {
        let mut changed = claims("c_a");
        changed[member] = value.clone();
        house.form(&key.form(&changed))
    };
    for (member, value, expected) in [
        ("sub", json!("c_b"), Err(U::AssertionClaims)),
        ("aud", json!("https://auth.corp.example/token"), Err(U::AssertionClaims)),
        ("aud", json!("https://auth.corp.example/"), Err(U::AssertionClaims)),
        ("aud", json!("https://other.example"), Err(U::AssertionClaims)),
        ("aud", json!([ISSUER]), Err(U::AssertionMalformed)),
        ("jti", json!(""), Err(U::AssertionClaims)),
        ("jti", json!("j".repeat(257)), Err(U::AssertionClaims)),
        ("exp", json!(NOW - 59), Ok(())),
        ("exp", json!(NOW - 60), Err(U::AssertionExpired)),
        ("exp", json!(NOW + 360), Ok(())),
        ("exp", json!(NOW + 361), Err(U::AssertionExpired)),
        ("exp", json!(i64::MAX), Err(U::AssertionExpired)),
        ("exp", json!(i64::MIN), Err(U::AssertionExpired)),
        ("iat", json!(NOW + 60), Ok(())),
        ("iat", json!(NOW + 61), Err(U::AssertionExpired)),
        ("nbf", json!(NOW + 61), Err(U::AssertionExpired)),
        ("nbf", json!(NOW + 60), Ok(())),
    ] {
        assert_eq!(asked(member, &value).map(drop), expected, "{member} {value}");
    }
    assert_eq!(house.form(&format!("{}&client_id=c_a", key.form(&claims("c_a")))), Ok("c_a".to_owned()));
    assert_eq!(house.form(&format!("{}&client_id=c_b", key.form(&claims("c_a")))), Err(U::Unknown));
    assert_eq!(house.form(&Key::new().form(&claims("c_a"))), Err(U::AssertionSignature));
    let good = key.form(&claims("c_a"));
    for bad in [
        good.replace("jwt-bearer", "saml2-bearer"),
        good.split_once('&').unwrap().1.to_owned(),
        good.split_once('&').unwrap().0.to_owned(),
        format!("{good}x"),
    ] {
        assert!(matches!(house.form(&bad), Err(U::AssertionMalformed | U::AssertionSignature)), "{bad}");
    }
    assert_eq!(house.form(&good), Ok("c_a".to_owned()), "what was refused spent nothing");
}

/// CAUTH-05: an assertion works once, also if two requests race, until it has expired with all leeway; each
/// client has its own `jti`s.
#[test]
fn an_assertion_authenticates_one_request() {
    let house = TestServer::new();
    let key = Key::new();
    for id in ["c_a", "c_b"] {
        house.client(id, AuthMethod::PrivateKeyJwt, |c| c.jwks = Some(key.jwks()));
    }
    let mut same = claims("c_a");
    let form = key.form(&same);
    assert!(house.form(&form).is_ok());
    assert_eq!(house.form(&form), Err(Unauthenticated::AssertionReplayed));
    same["exp"] = json!(NOW + 200);
    assert_eq!(
        house.form(&key.form(&same)),
        Err(Unauthenticated::AssertionReplayed),
        "the jti is what counts"
    );
    same["iss"] = json!("c_b");
    same["sub"] = json!("c_b");
    assert!(house.form(&key.form(&same)).is_ok());
    house.clock.advance(std::time::Duration::from_millis(359_999));
    assert_eq!(house.form(&form), Err(Unauthenticated::AssertionReplayed));
    house.clock.advance(std::time::Duration::from_millis(1));
    assert_eq!(house.form(&form), Err(Unauthenticated::AssertionExpired));
    let mut later = claims("c_a");
    later["exp"] = json!(NOW + 600);
    assert!(house.form(&key.form(&later)).is_ok());
    let rows =
        house.db.read(|c| c.query_row("SELECT count(*) FROM client_assertion", [], |row| row.get::<u32>(0)));
    assert_eq!(rows.unwrap(), Some(1), "those that ran out are forgotten");
}
