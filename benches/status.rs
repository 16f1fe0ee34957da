//! The cost of a large organisation: a million live grants, and a hundred thousand tokens and grants that have
//! ended and not expired. Measures how long the token status takes to load, its memory, and the check of a
//! bearer token compared with an organisation that has a thousand grants and no ended ones.

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
    AccessToken, ClientId, Clock, Db, GrantId, Issuer, Jti, ResourceUri, Timestamp, TokenStatus, Tx, UserId,
};

/// The number of rounds.
const ROUNDS: usize = 9;
/// The number of checks in a turn.
const CHECKS: usize = 300_000;
/// The number of tokens that are checked in rotation: one for each grant of the smaller organisation.
const TOKENS: usize = 1000;
/// The number of rows in one transaction.
const AT_ONCE: usize = 20_000;

/// The number of rows of each kind.
#[derive(Clone, Copy)]
struct Size {
    users: usize,
    clients: usize,
    live: usize,
    dead_grants: usize,
    dead_tokens: usize,
}

const THOUSAND: Size = Size { users: 10, clients: 10, live: 1000, dead_grants: 0, dead_tokens: 0 };
const MILLION: Size =
    Size { users: 20_000, clients: 1000, live: 1_000_000, dead_grants: 50_000, dead_tokens: 50_000 };

fn main() {
    if !machine::ready("status") {
        return;
    }
    let dir = tempfile::tempdir_in(machine::directory()).expect("PORTCULLIS_BENCH_DIR can be written to");
    let small = Organisation::new(&dir.path().join("thousand"), THOUSAND);
    let large = Organisation::new(&dir.path().join("million"), MILLION);
    let (mut of_small, mut of_large, mut ratios) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let (small, large) = (small.check(), large.check());
        ratios.push(large / small);
        of_small.push(small);
        of_large.push(large);
    }
    println!("loaded in {:>6.0} ms: a thousand live grants", small.loaded.as_secs_f64() * 1e3);
    println!(
        "loaded in {:>6.0} ms: a million live grants, 100,000 dead and unexpired; it holds {:.1} MiB",
        large.loaded.as_secs_f64() * 1e3,
        large.holds
    );
    println!("check among a thousand {:>6.0} ns", machine::median(of_small));
    println!("check among a million  {:>6.0} ns", machine::median(of_large));
    machine::load_after();
    machine::ratio(
        "compared: ns of the check of a bearer token seen before, among a million grants and among a thousand; the aim is 1.2 or less",
        "million_over_thousand",
        machine::median(ratios),
    );
}

/// The parts of a server that check a bearer token.
struct Organisation {
    bearer: Bearer,
    resource: ResourceUri,
    now: Timestamp,
    headers: Vec<HeaderValue>,
    loaded: Duration,
    /// The growth of the process's memory by loading, in MiB.
    holds: f64,
}

impl Organisation {
    fn new(dir: &Path, size: Size) -> Self {
        std::fs::create_dir(dir).expect("the directory is new");
        let clock = Clock::system();
        let now = clock.now();
        let db = Db::open(&dir.join("portcullis.db"), &SCHEMA, None, &clock).expect("a database can be made");
        let seal = Seal::open_or_create(&dir.join("seal.key"), true).expect("a seal key can be made");
        let keys =
            Keys::open(&db, Arc::new(seal), keys::Config::default(), &clock).expect("keys can be made");
        let issuer = Issuer::localhost(8080);
        let resource = ResourceUri::at(&issuer, "/mcp");
        let rows = Rows::new(size, &resource);
        rows.write(&db);
        // A start does not have the file's pages in the cache from writing them.
        drop(db);
        let db = Db::open(&dir.join("portcullis.db"), &SCHEMA, None, &clock).expect("it is there");
        let everyone = [("everyone".to_owned(), "docs.read".parse().expect("a scope"))];
        let before = resident();
        let begun = Instant::now();
        let status = Status::load(&db, authz::Groups::new(everyone.into()), now).expect("it can be read");
        let loaded = begun.elapsed();
        let holds = resident() - before;
        let bearer = Bearer::new(issuer.clone(), keys.verifier(), status as Arc<dyn TokenStatus>);
        // Spread over the table, so that neighbouring rows do not share caches.
        let step = size.live / TOKENS;
        let token = |n: usize| header(&keys, &issuer, &resource, now, &rows, n * step);
        let headers: Vec<_> = (0..TOKENS).map(token).collect();
        for header in &headers {
            bearer.check(header, &resource, now).expect("the token is good");
        }
        Self { bearer, resource, now, headers, loaded, holds }
    }

    /// Nanoseconds per check, over all tokens in rotation.
    fn check(&self) -> f64 {
        let begun = Instant::now();
        for header in self.headers.iter().cycle().take(CHECKS) {
            black_box(
                self.bearer.check(black_box(header), &self.resource, self.now).expect("the token is good"),
            );
        }
        begun.elapsed().as_secs_f64() * 1e9 / machine::number(CHECKS)
    }
}

/// The `Authorization` header that presents a token on a grant.
fn header(
    keys: &Keys,
    issuer: &Issuer,
    resource: &ResourceUri,
    now: Timestamp,
    rows: &Rows,
    grant: usize,
) -> HeaderValue {
    let claims = AccessToken {
        iss: issuer.as_str().to_owned(),
        sub: rows.user(grant).to_string(),
        aud: resource.clone(),
        client_id: rows.client(grant).clone(),
        exp: (now + Duration::from_mins(15)).seconds(),
        iat: now.seconds(),
        nbf: None,
        jti: Jti::random(1),
        scope: "docs.read".parse().expect("a scope"),
        grant_id: rows.live[grant].clone(),
        auth_time: Some(now.seconds()),
        acr: None,
        amr: Some(vec!["hwk".to_owned(), "user".to_owned()]),
    };
    let signed = keys.sign(&claims).expect("the key signs");
    format!("Bearer {}", signed.text).parse().expect("a token is a header's text")
}

/// The database rows of an organisation.
#[derive(Clone)]
struct Rows {
    size: Size,
    resource: ResourceUri,
    users: Arc<[UserId]>,
    clients: Arc<[ClientId]>,
    live: Arc<[GrantId]>,
}

impl Rows {
    fn new(size: Size, resource: &ResourceUri) -> Self {
        Self {
            size,
            resource: resource.clone(),
            users: (0..size.users).map(|_| UserId::random()).collect(),
            clients: (0..size.clients).map(|_| ClientId::random_dynamic()).collect(),
            live: (0..size.live).map(|_| GrantId::random()).collect(),
        }
    }

    fn user(&self, grant: usize) -> &UserId {
        &self.users[grant % self.users.len()]
    }

    fn client(&self, grant: usize) -> &ClientId {
        &self.clients[grant % self.clients.len()]
    }

    fn write(&self, db: &Db) {
        let Size { users, clients, live, dead_grants, dead_tokens } = self.size;
        self.each(db, users, |rows, tx, n| {
            let name = format!("user{n}");
            tx.execute(
                "INSERT INTO user (id, name, role, handle, created_at) VALUES (?1, ?2, 'none', ?3, ?4)",
                params![rows.users[n], name, name.as_bytes(), tx.now()],
            )
        });
        self.each(db, clients, |rows, tx, n| {
            tx.execute(
                "INSERT INTO client (id, name, source, trust, auth_method, application_type, grant_types, metadata, created_at)
                 VALUES (?1, 'bench', 'self_registered', 'known', 'none', 'native', 'authorization_code', '{}', ?2)",
                params![rows.clients[n], tx.now()],
            )
        });
        self.each(db, live, |rows, tx, n| rows.grant(tx, n, &rows.live[n], None));
        self.each(db, dead_grants, |rows, tx, n| rows.grant(tx, n, &GrantId::random(), Some(tx.now())));
        self.each(db, dead_tokens, |_, tx, _| {
            tx.execute(
                "INSERT INTO dead_token (jti, expires_at) VALUES (?1, ?2)",
                params![Jti::random(1), tx.now() + Duration::from_mins(10)],
            )
        });
    }

    fn grant(
        &self,
        tx: &Tx<'_>,
        n: usize,
        id: &GrantId,
        revoked_at: Option<Timestamp>,
    ) -> Result<usize, shared::Fault> {
        tx.execute(
            "INSERT INTO access_grant (id, user_id, client_id, resource, scope, amr, auth_time, created_at, expires_at,
                                       seen_generation, revoked_at)
             VALUES (?1, ?2, ?3, ?4, 'docs.read', 'hwk user', ?5, ?5, ?6, 1, ?7)",
            params![
                id,
                self.user(n),
                self.client(n),
                self.resource,
                tx.now(),
                tx.now() + Duration::from_hours(720),
                revoked_at
            ],
        )
    }

    /// Writes this many rows, many in each transaction.
    fn each(
        &self,
        db: &Db,
        count: usize,
        one: impl Fn(&Self, &Tx<'_>, usize) -> Result<usize, shared::Fault> + Copy + Send + 'static,
    ) {
        for from in (0..count).step_by(AT_ONCE) {
            let (rows, to) = (self.clone(), count.min(from + AT_ONCE));
            db.write_blocking(move |tx| (from..to).try_for_each(|n| one(&rows, tx, n).map(drop)))
                .expect("the rows fit the schema");
        }
    }
}

/// The process's resident memory in MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}
