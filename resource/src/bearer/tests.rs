use super::*;
use crate::testing::{self, NOW, Stage, keys, token};

/// The check of tokens at one endpoint.
struct At {
    bearer: Bearer,
    endpoint: ResourceUri,
}

impl At {
    fn check(&self, value: &HeaderValue, now: Timestamp) -> Result<CheckedToken, Refused> {
        self.bearer.check(value, &self.endpoint, now)
    }

    fn check_headers(&self, headers: &HeaderMap, now: Timestamp) -> Result<CheckedToken, Refused> {
        self.bearer.check_headers(headers, &self.endpoint, now)
    }

    fn memory(&self) -> &Memory {
        &self.bearer.memory
    }
}

fn bearer_for(path: &str) -> (At, Arc<Stage>) {
    let stage = Arc::new(Stage::default());
    stage.entitle("docs.read");
    let issuer = Issuer::localhost(8080);
    let endpoint = ResourceUri::at(&issuer, path);
    let status = Arc::clone(&stage) as Arc<dyn TokenStatus>;
    (At { bearer: Bearer::new(issuer, keys().verifier(), status), endpoint }, stage)
}

fn signed(token: &AccessToken) -> HeaderValue {
    testing::bearer(token).parse().unwrap()
}

/// The recorded reason of a refusal.
fn reason(refused: Result<CheckedToken, Refused>) -> &'static str {
    match refused {
        Err(Refused::Invalid(invalid)) => invalid.reason,
        other => panic!("{other:?}"),
    }
}

/// RS-02: no credentials, or another scheme.
#[test]
fn other_schemes_count_as_no_credentials() {
    let (bearer, _) = bearer_for("/mcp");
    assert!(matches!(bearer.check_headers(&HeaderMap::new(), NOW), Err(Refused::Absent)));
    for other in ["", "Basic eDp5", "DPoP abc", "Bearers abc", "abc", " Bearer abc"] {
        let value = HeaderValue::from_static(other);
        assert!(matches!(bearer.check(&value, NOW), Err(Refused::Absent)), "{other:?}");
    }
}

/// RS-04: RFC 6750's syntax, and exactly one header.
#[test]
fn malformed_credentials_are_told_apart() {
    let (bearer, _) = bearer_for("/mcp");
    for bad in [
        &b"Bearer"[..],
        b"Bearer ",
        b"Bearer a b",
        b"Bearer a, Bearer b",
        b"Bearer \"a\"",
        b"Bearer =a",
        b"Bearer a=b",
        b"Bearer =",
        b"Bearer a\xff",
        b"Bearer a,b",
    ] {
        let value = HeaderValue::from_bytes(bad).unwrap();
        assert!(matches!(bearer.check(&value, NOW), Err(Refused::Malformed)), "{value:?}");
    }
    let mut twice = HeaderMap::new();
    let good = signed(&token("docs.read"));
    twice.append(AUTHORIZATION, good.clone());
    twice.append(AUTHORIZATION, good);
    assert!(matches!(bearer.check_headers(&twice, NOW), Err(Refused::Malformed)));
}

/// RS-04: the scheme is case-insensitive.
#[test]
fn the_scheme_is_case_insensitive() {
    let (bearer, _) = bearer_for("/mcp");
    let good = testing::bearer(&token("docs.read"));
    for scheme in ["bearer", "BEARER", "bEaReR", "Bearer  "] {
        let value = good.replacen("Bearer", scheme, 1).parse().unwrap();
        assert!(bearer.check(&value, NOW).is_ok(), "{scheme}");
    }
}

/// RS-05, RS-06: every check; refused tokens are not cached.
#[test]
fn only_valid_tokens_are_remembered() {
    let (bearer, stage) = bearer_for("/mcp");
    let changed = |change: &dyn Fn(&mut AccessToken)| {
        let mut changed = token("docs.read");
        change(&mut changed);
        signed(&changed)
    };
    let at = |path: &str| ResourceUri::at(&Issuer::localhost(8080), path);
    let dead = token("docs.read");
    stage.kill(dead.jti.as_str());
    let mut forged = testing::bearer(&token("docs.read"));
    let last = forged.pop().unwrap();
    forged.push(if last == 'A' { 'Q' } else { 'A' });
    for (value, expected) in [
        ("Bearer a.b.c".parse().unwrap(), "header"),
        ("Bearer abc".parse().unwrap(), "not_a_jwt"),
        (format!("Bearer {}", "a".repeat(LONGEST + 1)).parse().unwrap(), "too_long"),
        (forged.parse().unwrap(), "signature"),
        (changed(&|t| t.iss = "http://localhost:8081".to_owned()), "issuer"),
        (changed(&|t| t.aud = at("")), "audience"),
        (changed(&|t| t.aud = at("/mcp/")), "audience"),
        (changed(&|t| t.aud = at("/mcp/docs")), "audience"),
        (changed(&|t| t.exp = NOW.seconds() - 61), "expired"),
        (changed(&|t| t.nbf = Some(NOW.seconds() + 61)), "not_yet_valid"),
        (changed(&|t| t.iat = NOW.seconds() + 61), "issued_in_future"),
        (signed(&dead), "revoked"),
    ] {
        assert_eq!(reason(bearer.check(&value, NOW)), expected);
        assert_eq!(bearer.memory().len(), 0, "{expected}");
    }
    let good = signed(&token("docs.read"));
    for _ in 0..3 {
        bearer.check(&good, NOW).unwrap();
        assert_eq!(bearer.memory().len(), 1);
    }
}

/// RS-05: a cached token expires, to the millisecond.
#[test]
fn a_remembered_token_expires() {
    let (bearer, _) = bearer_for("/mcp");
    let token = token("docs.read");
    let value = signed(&token);
    let end = token.expires() + LEEWAY;
    bearer.check(&value, NOW).unwrap();
    bearer.check(&value, Timestamp(end.0 - 1)).unwrap();
    assert_eq!(reason(bearer.check(&value, end)), "expired");
    assert_eq!(bearer.memory().len(), 0);
}

/// RS-05, RS-08: a revocation applies to a cached token at the next request, and to one that was just checked.
#[test]
fn a_remembered_token_dies_with_its_grant() {
    let (bearer, stage) = bearer_for("/mcp");
    let token = token("docs.read");
    let value = signed(&token);
    let checked = bearer.check(&value, NOW).unwrap();
    stage.kill(token.jti.as_str());
    assert_eq!(reason(bearer.bearer.recheck(&checked, NOW)), "revoked");
    assert_eq!(reason(bearer.check(&value, NOW)), "revoked");
}

/// RS-05, KEYS-04: removing a key refuses its tokens, cached or not.
#[test]
fn a_remembered_token_dies_with_its_key() {
    let (bearer, stage) = bearer_for("/mcp");
    let signed = keys().sign(&token("docs.read")).unwrap();
    let value: HeaderValue = format!("Bearer {}", signed.text).parse().unwrap();
    bearer.check(&value, NOW).unwrap();
    stage.kill(&signed.kid);
    assert_eq!(reason(bearer.check(&value, NOW)), "revoked");
}

/// RS-05: another endpoint's token is refused by its audience even if it is cached.
#[test]
fn a_remembered_token_of_another_endpoint_is_refused() {
    let (here, _) = bearer_for("/mcp");
    let (there, _) = bearer_for("/mcp/docs");
    let value = signed(&token("docs.read"));
    here.check(&value, NOW).unwrap();
    assert_eq!(reason(there.check(&value, NOW)), "audience");
    let digest = Digest::of(presented(&value).unwrap());
    there.memory().keep(digest, &here.memory().get(&digest).unwrap());
    assert_eq!(reason(there.check(&value, NOW)), "audience");
    assert_eq!(there.memory().len(), 0);
}

/// RS-05, POL-03: one check serves several endpoints. A token cached for one is refused at the other, and still
/// valid at its own.
#[test]
fn a_token_of_one_endpoint_is_refused_at_another_of_the_same_server() {
    let (main, _) = bearer_for("/mcp");
    let ci = ResourceUri::at(&Issuer::localhost(8080), "/mcp/ci");
    let (mut for_ci, for_main) = (token("docs.read"), signed(&token("docs.read")));
    for_ci.aud = ci.clone();
    let for_ci = signed(&for_ci);
    for _ in 0..2 {
        main.check(&for_main, NOW).unwrap();
        main.bearer.check(&for_ci, &ci, NOW).unwrap();
        assert_eq!(reason(main.check(&for_ci, NOW)), "audience");
        assert_eq!(reason(main.bearer.check(&for_main, &ci, NOW)), "audience");
    }
}

/// RS-05: the entitlement is never cached.
#[test]
fn entitlement_is_asked_every_time() {
    let (bearer, stage) = bearer_for("/mcp");
    let value = signed(&token("docs.read"));
    assert!(bearer.check(&value, NOW).unwrap().entitled().contains("docs.read"));
    stage.entitle("");
    assert!(bearer.check(&value, NOW).unwrap().entitled().is_empty());
}
