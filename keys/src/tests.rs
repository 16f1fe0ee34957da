use std::path::Path;

use serde_json::Value;
use shared::audit;
use shared::db::params;
use shared::schema::SCHEMA;
use shared::{Clock, Timestamp};

use super::*;

/// A data directory with a database and a seal key.
pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) clock: Clock,
    pub(crate) db: Db,
    pub(crate) seal: Arc<Seal>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::held(Timestamp(1000));
        let db = database(dir.path(), &clock);
        let seal = Arc::new(Seal::open_or_create(&dir.path().join("seal.key"), true).unwrap());
        Self { dir, clock, db, seal }
    }

    pub(crate) fn keys(&self, algorithm: Algorithm) -> Keys {
        self.open(Config { algorithm, ..Config::default() }).unwrap()
    }

    pub(crate) fn open(&self, config: Config) -> Result<Keys, KeysError> {
        Keys::open(&self.db, Arc::clone(&self.seal), config, &self.clock)
    }

    /// Simulates a restart: another process on the same data.
    pub(crate) fn restarted(self) -> Self {
        let Self { dir, clock, db, seal } = self;
        drop((db, seal));
        let clock = Clock::held(clock.wall());
        let db = database(dir.path(), &clock);
        let seal = Arc::new(Seal::open_or_create(&dir.path().join("seal.key"), false).unwrap());
        Self { dir, clock, db, seal }
    }
}

/// Makes a key of this algorithm and activates it at once.
pub(crate) fn rotate(keys: &Keys, algorithm: Algorithm) -> String {
    let key = NewKey::generate(algorithm).unwrap();
    let all = keys.clone();
    keys.0.db.write_blocking(move |tx| all.rotate(tx, &key, true, Cause::server("test"))).unwrap().kid
}

fn database(dir: &Path, clock: &Clock) -> Db {
    Db::open(&dir.join("portcullis.db"), &SCHEMA, None, clock).unwrap()
}

/// A token that is valid from 1000 to 1900.
pub(crate) fn token() -> AccessToken {
    serde_json::from_value(serde_json::json!({
        "iss": "http://localhost:8080", "sub": "u_x", "aud": "http://localhost:8080/mcp", "client_id": "dyn_x",
        "exp": 1900, "iat": 1000, "jti": shared::Jti::random(1).to_string(), "scope": "a b", "grant_id": "g_x",
    }))
    .unwrap()
}

fn published(keys: &Keys) -> Vec<Value> {
    let document: Value = serde_json::from_slice(&keys.jwks().body).unwrap();
    document["keys"].as_array().unwrap().clone()
}

fn refusal(opened: Result<Keys, KeysError>) -> String {
    opened.err().expect("it is refused").to_string()
}

/// KEYS-01: only public members are published, and the four that every key has.
#[test]
fn the_key_set_holds_nothing_private() {
    let keys = Fixture::new().keys(Algorithm::Es256);
    let mut members: Vec<Vec<String>> = Vec::new();
    for key in published(&keys) {
        assert_eq!(key["use"], "sig");
        let mut names: Vec<_> = key.as_object().unwrap().keys().cloned().collect();
        names.sort();
        members.push(names);
    }
    members.sort();
    assert_eq!(
        members,
        [vec!["alg", "crv", "kid", "kty", "use", "x", "y"], vec!["alg", "e", "kid", "kty", "n", "use"],]
    );
}

/// KEYS-02, KEYS-05: the first start makes a key for each algorithm; the second makes none.
#[test]
fn the_first_start_makes_the_keys_and_a_restart_keeps_them() {
    let fixture = Fixture::new();
    assert!(!Keys::exist(&fixture.db).unwrap());
    let keys = fixture.keys(Algorithm::Es256);
    let again = fixture.keys(Algorithm::Es256);
    assert!(Keys::exist(&fixture.db).unwrap());
    assert_eq!(keys.jwks().body, again.jwks().body);
    assert_eq!(published(&again).len(), 2);
    // One record for each step of each key.
    assert_eq!(fixture.db.read(audit::count).unwrap(), 4);
    let signed = keys.sign(&token()).unwrap();
    drop((keys, again));

    let keys = fixture.restarted().keys(Algorithm::Es256);
    assert_eq!(published(&keys).len(), 2);
    assert_eq!(keys.verifier().verify(&signed.text).unwrap().kid, signed.kid);
}

/// KEYS-05: if two processes find the table empty at once, one's keys are used.
#[test]
fn two_first_starts_at_once_make_one_set_of_keys() {
    let fixture = Fixture::new();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| make_first(&fixture.db, &fixture.seal, &Config::default()).unwrap());
        }
    });
    assert_eq!(published(&fixture.keys(Algorithm::Es256)).len(), 2);
}

/// KEYS-05: another sealing key, even one with the same id, unseals nothing, and the message says what to do.
#[test]
fn another_seal_key_is_refused() {
    let fixture = Fixture::new();
    drop(fixture.keys(Algorithm::Es256));
    let other_path = fixture.dir.path().join("other.key");
    let other = Arc::new(Seal::open_or_create(&other_path, true).unwrap());
    let refused = refusal(Keys::open(&fixture.db, other, Config::default(), &fixture.clock));
    assert!(
        refused.contains("sealed with seal key") && refused.contains("put back the seal.key"),
        "{refused}"
    );

    let right = std::fs::read_to_string(fixture.dir.path().join("seal.key")).unwrap();
    let wrong = std::fs::read_to_string(&other_path).unwrap();
    let mixed = format!("{}\n{}\n", right.lines().next().unwrap(), wrong.lines().nth(1).unwrap());
    std::fs::write(&other_path, mixed).unwrap();
    let other = Arc::new(Seal::open_or_create(&other_path, false).unwrap());
    let refused = refusal(Keys::open(&fixture.db, other, Config::default(), &fixture.clock));
    assert!(refused.contains("another key that has the same id"), "{refused}");
}

/// KEYS-05: a sealed key that was moved to another key's row cannot be unsealed.
#[test]
fn a_private_key_in_another_row_is_refused() {
    let fixture = Fixture::new();
    drop(fixture.keys(Algorithm::Es256));
    fixture
        .db
        .write_blocking(|tx| {
            tx.execute(
                "UPDATE signing_key SET sealed = (SELECT sealed FROM signing_key WHERE alg = 'ES256')
                 WHERE alg = 'RS256'",
                params![],
            )
        })
        .unwrap();
    let refused = refusal(fixture.open(Config::default()));
    assert!(refused.contains("moved from another row"), "{refused}");
}

/// KEYS-05: a properly sealed key whose `kid` is not its thumbprint is refused.
#[test]
fn a_key_that_is_not_what_its_name_says_is_refused() {
    let fixture = Fixture::new();
    let keys = fixture.keys(Algorithm::Es256);
    let kid = keys.sign(&token()).unwrap().kid;
    let private = jwt::generate(Algorithm::Es256).unwrap();
    let sealed = fixture.seal.seal(Purpose::SigningKey, store::TABLE, kid.as_bytes(), &private);
    fixture
        .db
        .write_blocking(move |tx| {
            tx.execute("UPDATE signing_key SET sealed = ?2 WHERE kid = ?1", params![kid, sealed])
        })
        .unwrap();
    assert!(refusal(keys.reload().map(|()| keys)).contains("does not match its key ID"));
}

/// KEYS-05: the public key in the row is only for display; a planted one is not used.
#[test]
fn a_planted_public_key_is_not_used() {
    let fixture = Fixture::new();
    let keys = fixture.keys(Algorithm::Es256);
    let before = keys.jwks();
    fixture
        .db
        .write_blocking(|tx| tx.execute("UPDATE signing_key SET public_jwk = '{\"kty\":\"EC\"}'", params![]))
        .unwrap();
    keys.reload().unwrap();
    assert_eq!(keys.jwks().body, before.body);
}

/// KEYS-03: without an active key, opening fails; a failed reload changes nothing.
#[test]
fn no_active_key_is_refused() {
    let fixture = Fixture::new();
    let keys = fixture.keys(Algorithm::Es256);
    fixture.db.write_blocking(|tx| tx.execute("UPDATE signing_key SET state = 'next'", params![])).unwrap();
    assert!(matches!(keys.reload(), Err(KeysError::NoneActive)));
    keys.sign(&token()).unwrap();
    let refused = refusal(fixture.open(Config::default()));
    assert!(refused.contains("no signing key is active"), "{refused}");
}

/// KEYS-03: a newly configured algorithm signs once its key is known to all caches; until then the previous one
/// does.
#[test]
fn a_new_algorithm_waits_until_its_key_is_known() {
    let fixture = Fixture::new();
    let es256 = fixture.keys(Algorithm::Es256).sign(&token()).unwrap();
    // The RS256 key exists from the start.
    let rs256 = fixture.keys(Algorithm::Rs256).sign(&token()).unwrap();
    assert_ne!(rs256.kid, es256.kid);

    let keys = fixture.keys(Algorithm::EdDsa);
    assert_eq!(published(&keys).len(), 2);
    keys.rotate_due().unwrap();
    assert_eq!(published(&keys).len(), 3);
    assert_eq!(keys.sign(&token()).unwrap().kid, es256.kid);
    fixture.clock.advance(keys.config().publish_ahead);
    keys.rotate_due().unwrap();
    let eddsa = keys.sign(&token()).unwrap();
    assert!(eddsa.kid != es256.kid && eddsa.kid != rs256.kid);
    for signed in [es256, rs256, eddsa] {
        assert_eq!(keys.verifier().verify(&signed.text).unwrap().kid, signed.kid);
    }
}

/// KEYS-03: a rotation reaches clones of the verifier, and tokens of the old key still verify.
#[test]
fn a_rotation_breaks_no_token() {
    let fixture = Fixture::new();
    let keys = fixture.keys(Algorithm::Es256);
    let verifier = keys.verifier();
    let old = keys.sign(&token()).unwrap();
    let before = keys.jwks();
    let kid = rotate(&keys, Algorithm::Es256);
    assert!(verifier.knows(&kid) && verifier.knows(&old.kid));
    let new = keys.sign(&token()).unwrap();
    assert_eq!(new.kid, kid);
    assert_ne!(new.kid, old.kid);
    for signed in [old, new] {
        assert_eq!(verifier.verify(&signed.text).unwrap().kid, signed.kid);
    }
    assert_ne!(keys.jwks().body, before.body);
    assert_eq!(published(&keys).len(), 3);
}

/// HTTP-12: Debug output of a token or a seal shows nothing of it.
#[test]
fn debug_hides_secrets() {
    let fixture = Fixture::new();
    let signed = fixture.keys(Algorithm::Es256).sign(&token()).unwrap();
    assert!(!format!("{signed:?}").contains(&signed.text[..20]));
    assert_eq!(format!("{:?}", fixture.seal), format!("Seal({})", fixture.seal.id()));
}
