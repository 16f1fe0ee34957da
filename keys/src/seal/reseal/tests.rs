use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::rotation::Cause;
use crate::tests::{Fixture, rotate, token};
use crate::{Algorithm, Keys, KeysError};

fn event() -> Event {
    Event::allowed(Name::ServerConfigChanged).by_console(7)
}

fn reseal(fixture: &Fixture) -> Resealed {
    let pending = fixture.seal.prepare(&fixture.db, None, None).unwrap();
    let done = commit(fixture, &pending);
    fixture.seal.finish(&fixture.db, &pending).unwrap();
    done
}

fn commit(fixture: &Fixture, pending: &Pending) -> Resealed {
    let (seal, pending) = (Arc::clone(&fixture.seal), pending.clone());
    fixture.db.write_blocking(move |tx| seal.reseal(tx, &pending, event())).unwrap()
}

fn path(fixture: &Fixture) -> PathBuf {
    fixture.dir.path().join("seal.key")
}

fn keys_in(path: &Path) -> usize {
    fs::read_to_string(path).unwrap().lines().count() / 2
}

/// Opens the data directory as the next process would.
fn reopened(fixture: Fixture) -> (Fixture, Keys) {
    let fixture = fixture.restarted();
    fixture.seal.settle(&fixture.db).unwrap();
    let keys = fixture.keys(Algorithm::Es256);
    (fixture, keys)
}

/// KEYS-05: after a reseal nothing can be unsealed with the old key and everything with the new one, for keys
/// in every state, also in the running process.
#[test]
fn every_value_is_sealed_with_the_new_key() {
    let fixture = Fixture::new();
    let keys = fixture.keys(Algorithm::Es256);
    let old = keys.sign(&token()).unwrap();
    rotate(&keys, Algorithm::Es256);
    let next = crate::NewKey::generate(Algorithm::Es256).unwrap();
    let all = keys.clone();
    fixture.db.write_blocking(move |tx| all.publish(tx, &next, tx.now(), Cause::server("test"))).unwrap();
    let copy = fixture.dir.path().join("copy.key");
    fs::copy(path(&fixture), &copy).unwrap();
    let stolen = Seal::open_or_create(&copy, false).unwrap();

    let before = fixture.seal.id();
    let done = reseal(&fixture);
    assert_eq!((done.values, &done.before, &done.after), (4, &before, &fixture.seal.id()));
    assert_ne!(done.before, done.after);
    assert_eq!(keys_in(&path(&fixture)), 1);
    assert_eq!(fs::metadata(path(&fixture)).unwrap().permissions().mode() & 0o777, 0o600);
    for row in fixture.db.read(store::all).unwrap() {
        let refused = stolen.unseal(Purpose::SigningKey, store::TABLE, row.kid.as_bytes(), &row.sealed);
        assert!(matches!(refused, Err(super::super::Unsealable::OtherKey { .. })));
    }
    keys.reload().unwrap();
    // New values are sealed with the new key.
    let kid = rotate(&keys, Algorithm::Es256);
    drop(keys);
    let (fixture, keys) = reopened(fixture);
    assert_eq!(fixture.seal.id(), done.after);
    assert_eq!(keys.sign(&token()).unwrap().kid, kid);
    assert!(keys.verifier().verify(&old.text).is_ok());
    let refused = Keys::open(&fixture.db, Arc::new(stolen), crate::Config::default(), &fixture.clock);
    assert!(matches!(refused, Err(KeysError::Sealed { .. })));
}

/// KEYS-05: after a kill at any moment, the next start opens the directory and finishes the reseal.
#[test]
fn a_kill_in_between_is_finished_by_the_next_start() {
    for instant in 0..4 {
        let fixture = Fixture::new();
        let signed = fixture.keys(Algorithm::Es256).sign(&token()).unwrap();
        let before = fixture.seal.id();
        let pending = fixture.seal.prepare(&fixture.db, None, None).unwrap();
        assert_eq!(keys_in(&path(&fixture)), 2);
        if instant > 0 {
            commit(&fixture, &pending);
        }
        if instant > 1 {
            // A value that a job of the same batch sealed with the old key.
            let old = Arc::clone(&fixture.seal.opened.load().others[0]);
            let key = crate::NewKey::generate(Algorithm::Es256).unwrap();
            let seal = Arc::clone(&fixture.seal);
            fixture
                .db
                .write_blocking(move |tx| {
                    crate::rotation::publish(tx, &seal, &key, tx.now(), Cause::server("test"))?;
                    let row = store::find(tx, key.kid())?.unwrap();
                    let plain = seal
                        .unseal(Purpose::SigningKey, store::TABLE, row.kid.as_bytes(), &row.sealed)
                        .unwrap();
                    let sealed = old.seal(Purpose::SigningKey, store::TABLE, row.kid.as_bytes(), &plain);
                    store::reseal(tx, &row.kid, &sealed)
                })
                .unwrap();
        }
        if instant > 2 {
            fixture.seal.finish(&fixture.db, &pending).unwrap();
        }
        drop(pending);
        let (fixture, keys) = reopened(fixture);
        assert_eq!(keys_in(&path(&fixture)), 1, "{instant}");
        assert_ne!(fixture.seal.id(), before);
        assert!(keys.verifier().verify(&signed.text).is_ok());
        drop(keys);
        let (_, keys) = reopened(fixture);
        assert_eq!(keys.sign(&token()).unwrap().kid, signed.kid);
    }
}

/// KEYS-05: a failed commit changes nothing, and the next attempt uses the same new key.
#[test]
fn an_attempt_that_failed_can_be_repeated() {
    let fixture = Fixture::new();
    let keys = fixture.keys(Algorithm::Es256);
    let before = fixture.seal.id();
    let pending = fixture.seal.prepare(&fixture.db, None, None).unwrap();
    let (seal, failing) = (Arc::clone(&fixture.seal), pending.clone());
    let failed = fixture.db.write_blocking(move |tx| -> Result<(), Fault> {
        seal.reseal(tx, &failing, event())?;
        Err(Fault::Busy)
    });
    assert!(failed.is_err());
    assert_eq!(fixture.seal.id(), before);
    keys.reload().unwrap();
    let again = fixture.seal.prepare(&fixture.db, None, None).unwrap();
    assert_eq!(again.new.id, pending.new.id);
    commit(&fixture, &again);
    // The last step was not taken; the next attempt takes it.
    let done = reseal(&fixture);
    assert_eq!(done.before, HEXLOWER.encode(&again.new.id));
    assert_eq!(keys_in(&path(&fixture)), 1);
    keys.reload().unwrap();
}

/// KEYS-05, REFRESH-06: values derived from the old key are recognised for a day, also over a second reseal and
/// a restart, and not afterwards.
#[test]
fn values_derived_from_the_old_key_are_recognised_for_a_while() {
    let fixture = Fixture::new();
    drop(fixture.keys(Algorithm::Es256));
    let mac = fixture.seal.hmac(Purpose::RefreshToken, b"x");
    reseal(&fixture);
    let second = fixture.seal.hmac(Purpose::RefreshToken, b"x");
    assert_ne!(second, mac);
    reseal(&fixture);
    let recognised = |fixture: &Fixture| fixture.seal.hmacs(Purpose::RefreshToken, b"x");
    let present = fixture.seal.hmac(Purpose::RefreshToken, b"x");
    assert_eq!(recognised(&fixture)[0], present);
    assert!(recognised(&fixture).contains(&mac) && recognised(&fixture).contains(&second));
    assert!(!fixture.seal.hmacs(Purpose::Csrf, b"x").contains(&mac));
    assert_eq!(fixture.seal.hmacs(Purpose::SigningKey, b"x").len(), 1);
    let (fixture, _) = reopened(fixture);
    assert!(recognised(&fixture).contains(&mac) && recognised(&fixture).contains(&second));
    fixture.clock.advance(KEPT_FOR);
    reseal(&fixture);
    assert!(!recognised(&fixture).contains(&mac) && recognised(&fixture).contains(&present));
}

/// KEYS-05: a copy of the old key can be kept for old backups; it never overwrites a file.
#[test]
fn the_old_key_can_be_kept() {
    let fixture = Fixture::new();
    drop(fixture.keys(Algorithm::Es256));
    let (before, kept) = (fixture.seal.id(), fixture.dir.path().join("old.key"));
    let pending = fixture.seal.prepare(&fixture.db, None, Some(&kept)).unwrap();
    commit(&fixture, &pending);
    fixture.seal.finish(&fixture.db, &pending).unwrap();
    assert_eq!(Seal::open_or_create(&kept, false).unwrap().id(), before);
    let refused = fixture.seal.prepare(&fixture.db, None, Some(&kept)).unwrap_err();
    assert!(matches!(refused, SealError::Exists(_)));
    assert_eq!(keys_in(&path(&fixture)), 1);
}

/// KEYS-05: a credential file is not changed; the new key is written to its own file.
#[test]
fn a_credential_is_replaced_by_its_manager() {
    let fixture = Fixture::new();
    drop(fixture.keys(Algorithm::Es256));
    let seal = Arc::new(Seal::open(Source::Credential(path(&fixture)), false).unwrap());
    let bytes = fs::read(path(&fixture)).unwrap();
    assert!(matches!(seal.prepare(&fixture.db, None, None), Err(SealError::ReadOnly(_))));
    let new = fixture.dir.path().join("new.key");
    let pending = seal.prepare(&fixture.db, Some(&new), None).unwrap();
    let (resealing, waiting) = (Arc::clone(&seal), pending.clone());
    fixture.db.write_blocking(move |tx| resealing.reseal(tx, &waiting, event())).unwrap();
    seal.finish(&fixture.db, &pending).unwrap();
    assert_eq!((keys_in(&new), fs::read(path(&fixture)).unwrap()), (1, bytes));
    let open = |path: PathBuf| {
        let seal = Arc::new(Seal::open(Source::Credential(path), false).unwrap());
        Keys::open(&fixture.db, seal, crate::Config::default(), &fixture.clock)
    };
    assert!(open(path(&fixture)).is_err());
    assert!(open(new).is_ok());
}

/// KEYS-05: a file that another program put there is not overwritten, and leftovers of a kill are removed.
#[test]
fn another_file_in_its_place_is_refused() {
    let fixture = Fixture::new();
    drop(fixture.keys(Algorithm::Es256));
    fs::write(fixture.dir.path().join(".seal-key-00"), "left behind").unwrap();
    fixture.seal.settle(&fixture.db).unwrap();
    assert!(!fixture.dir.path().join(".seal-key-00").exists());
    fs::remove_file(path(&fixture)).unwrap();
    assert!(matches!(fixture.seal.prepare(&fixture.db, None, None), Err(SealError::Missing(_))));
    Seal::open_or_create(&path(&fixture), true).unwrap();
    assert!(matches!(fixture.seal.prepare(&fixture.db, None, None), Err(SealError::Replaced(_))));
}
