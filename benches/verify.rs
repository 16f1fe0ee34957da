//! The value of caching verified tokens (RS-05): the first check of a bearer token, with its signature,
//! compared with later ones, which find the claims by the token's SHA-256 and check issuer, audience, times,
//! key and status again.
//!
//! The setup is like the server's: ES256 keys from a database, and the authorization side's `Status` with a
//! user who has a thousand grants.

mod machine;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use authz::Status;
use http::HeaderValue;
use keys::{Keys, Seal};
use resource::bearer::Bearer;
use shared::db::params;
use shared::schema::SCHEMA;
use shared::{
    AccessToken, ClientId, Clock, Db, Digest, GrantId, Issuer, Jti, ResourceUri, Timestamp, TokenStatus,
    UserId,
};

/// The number of rounds.
const ROUNDS: usize = 3;
/// The number of tokens that are new in a turn; those of all turns fit into the cache.
const FRESH: usize = 10_000;
/// The number of checks of cached tokens in a turn.
const SEEN: usize = 500_000;
/// The number of a user's live grants, with one cached token for each.
const GRANTS: usize = 1000;

fn main() {
    if !machine::ready("verify") {
        return;
    }
    let dir = tempfile::tempdir_in(machine::directory()).expect("PORTCULLIS_BENCH_DIR can be written to");
    let stage = Stage::new(dir.path());
    let Stage { bearer, status, resource, now, .. } = &stage;

    let known: Vec<Token> = (0..GRANTS).map(|grant| stage.token(grant)).collect();
    for token in &known {
        bearer.check(&token.header, resource, *now).expect("the token is good");
    }
    let (mut first, mut seen) = (Vec::new(), Vec::new());
    let (mut digest, mut is_seen) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let fresh: Vec<Token> = (0..FRESH).map(|n| stage.token(n % GRANTS)).collect();
        first.push(each(&fresh, FRESH, |t| {
            bearer.check(&t.header, resource, *now).expect("the token is good")
        }));
        seen.push(each(&known, SEEN, |t| {
            bearer.check(&t.header, resource, *now).expect("the token is good")
        }));
        digest.push(each(&known, SEEN, |t| Digest::of(t.header.as_bytes())));
        is_seen.push(each(&known, SEEN / 10, |t| status.is_seen(&t.claims)));
    }

    let (first, seen) = (machine::median(first), machine::median(seen));
    println!("token: {} bytes, ES256", known[0].header.len() - "Bearer ".len());
    println!("first check            {first:>9.0} ns");
    println!("check of a seen token  {seen:>9.0} ns");
    println!("  SHA-256 of the token {:>9.0} ns (part of both)", machine::median(digest));
    println!(
        "TokenStatus::is_seen   {:>9.0} ns (the gate asks it once for a token)",
        machine::median(is_seen)
    );
    machine::load_after();
    machine::ratio(
        "compared: ns of the first check of a token and of the check of one seen before; the aim is 20 or more",
        "first_over_seen",
        first / seen,
    );
}

/// Nanoseconds per call, over all tokens in rotation.
fn each<T>(tokens: &[Token], times: usize, mut job: impl FnMut(&Token) -> T) -> f64 {
    let begun = Instant::now();
    for token in tokens.iter().cycle().take(times) {
        black_box(job(black_box(token)));
    }
    begun.elapsed().as_secs_f64() * 1e9 / machine::number(times)
}

struct Token {
    claims: AccessToken,
    /// The `Authorization` header that presents it.
    header: HeaderValue,
}

/// The parts of a server that check a bearer token.
struct Stage {
    keys: Keys,
    status: Arc<Status>,
    bearer: Bearer,
    issuer: Issuer,
    resource: ResourceUri,
    now: Timestamp,
    user: UserId,
    client: ClientId,
    grants: Vec<GrantId>,
}

impl Stage {
    fn new(dir: &Path) -> Self {
        let clock = Clock::system();
        let now = clock.now();
        let db = Db::open(&dir.join("portcullis.db"), &SCHEMA, None, &clock).expect("a database can be made");
        let seal = Seal::open_or_create(&dir.join("seal.key"), true).expect("a seal key can be made");
        let keys =
            Keys::open(&db, Arc::new(seal), keys::Config::default(), &clock).expect("keys can be made");
        let issuer = Issuer::localhost(8080);
        let resource = ResourceUri::at(&issuer, "/mcp");
        let (user, client) = (UserId::random(), ClientId::random_dynamic());
        let grants: Vec<_> = (0..GRANTS).map(|_| GrantId::random()).collect();
        insert(&db, &user, &client, &resource, &grants);
        let everyone =
            authz::Groups::new([("everyone".to_owned(), "docs.read".parse().expect("a scope"))].into());
        let status = Status::load(&db, everyone, now).expect("the status can be read");
        let asked = Arc::clone(&status) as Arc<dyn TokenStatus>;
        let bearer = Bearer::new(issuer.clone(), keys.verifier(), asked);
        Self { keys, status, bearer, issuer, resource, now, user, client, grants }
    }

    /// A new token with the claims that the token endpoint issues.
    fn token(&self, grant: usize) -> Token {
        let claims = AccessToken {
            iss: self.issuer.as_str().to_owned(),
            sub: self.user.to_string(),
            aud: self.resource.clone(),
            client_id: self.client.clone(),
            exp: (self.now + Duration::from_mins(15)).seconds(),
            iat: self.now.seconds(),
            nbf: None,
            jti: Jti::random(1),
            scope: "docs.read".parse().expect("a scope"),
            grant_id: self.grants[grant].clone(),
            auth_time: Some(self.now.seconds()),
            acr: None,
            amr: Some(vec!["hwk".to_owned(), "user".to_owned()]),
        };
        let signed = self.keys.sign(&claims).expect("the key signs");
        let header = format!("Bearer {}", signed.text).parse().expect("a token is a header's text");
        Token { claims, header }
    }
}

/// Inserts a user, a client and live grants, whose tokens count as already used.
fn insert(db: &Db, user: &UserId, client: &ClientId, resource: &ResourceUri, grants: &[GrantId]) {
    let (user, client, resource, grants) = (user.clone(), client.clone(), resource.clone(), grants.to_vec());
    db.write_blocking(move |tx| {
        tx.execute(
            "INSERT INTO user (id, name, role, handle, created_at) VALUES (?1, 'alice', 'none', x'00', ?2)",
            params![user, tx.now()],
        )?;
        tx.execute(
            "INSERT INTO client (id, name, source, trust, auth_method, application_type, grant_types, metadata,
                                 created_at)
             VALUES (?1, 'bench', 'self_registered', 'unverified', 'none', 'native', 'authorization_code', '{}', ?2)",
            params![client, tx.now()],
        )?;
        for grant in &grants {
            tx.execute(
                "INSERT INTO access_grant (id, user_id, client_id, resource, scope, amr, auth_time, created_at,
                                           expires_at, seen_generation)
                 VALUES (?1, ?2, ?3, ?4, 'docs.read', 'hwk user', ?5, ?5, ?6, 1)",
                params![grant, user, client, resource, tx.now(), tx.now() + Duration::from_hours(720)],
            )?;
        }
        Ok(())
    })
    .expect("the rows fit the schema");
}
