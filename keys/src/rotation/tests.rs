use std::time::Duration;

use serde_json::Value;
use shared::Db;
use shared::db::params;

use super::*;
use crate::tests::{Fixture, rotate, token};
use crate::{Config, KeysError};

fn states(db: &Db) -> Vec<(Algorithm, State)> {
    let mut states: Vec<_> =
        db.read(store::all).unwrap().into_iter().map(|key| (key.algorithm, key.state)).collect();
    states.sort_by_key(|(algorithm, state)| (algorithm.as_str(), state.as_str()));
    states
}

fn active(db: &Db) -> String {
    db.read(|conn| store::active(conn, Algorithm::Es256)).unwrap().unwrap().kid
}

fn activated(keys: &Keys, db: &Db, kid: &str) -> Result<Option<String>, IllegalStep> {
    let (keys, kid) = (keys.clone(), kid.to_owned());
    db.write_blocking(move |tx| keys.activate(tx, &kid, Cause::server("test"))).unwrap()
}

fn removed(keys: &Keys, db: &Db, kid: &str) -> Result<(State, Option<String>), IllegalStep> {
    let (keys, kid) = (keys.clone(), kid.to_owned());
    let made = NewKey::generate(Algorithm::Es256).unwrap();
    db.write_blocking(move |tx| keys.remove_now(tx, &kid, Some(&made), Cause::console(7, "it leaked")))
        .unwrap()
}

/// The audit records after the first `skip`.
fn records(db: &Db, skip: i64) -> Vec<Value> {
    let sql = "SELECT record FROM audit WHERE seq > ?1 ORDER BY seq";
    let records = db.read(|conn| conn.query(sql, params![skip], |row| row.get::<String>(0))).unwrap();
    records.iter().map(|record| serde_json::from_str(record).unwrap()).collect()
}

/// KEYS-03: the schema refuses a second active key of an algorithm.
#[test]
fn a_second_active_key_does_not_fit_the_table() {
    let fixture = Fixture::new();
    let keys = fixture.keys(Algorithm::Es256);
    let key = NewKey::generate(Algorithm::Es256).unwrap();
    let kid = key.kid().to_owned();
    fixture.db.write_blocking(move |tx| keys.publish(tx, &key, tx.now(), Cause::server("test"))).unwrap();
    let forced = fixture.db.write_blocking(move |tx| {
        tx.execute("UPDATE signing_key SET state = 'active' WHERE kid = ?1", params![kid])
    });
    assert!(forced.unwrap_err().to_string().contains("UNIQUE"));
    assert_eq!(
        states(&fixture.db),
        [
            (Algorithm::Es256, State::Active),
            (Algorithm::Es256, State::Next),
            (Algorithm::Rs256, State::Active),
        ]
    );
}

/// KEYS-02: next, active, retired, in this order only.
#[test]
fn steps_out_of_order_are_refused() {
    let fixture = Fixture::new();
    let keys = fixture.keys(Algorithm::Es256);
    let first = active(&fixture.db);
    assert_eq!(activated(&keys, &fixture.db, "nobody"), Err(IllegalStep::Unknown));
    assert_eq!(activated(&keys, &fixture.db, &first), Err(IllegalStep::NotNext(State::Active)));
    let second = rotate(&keys, Algorithm::Es256);
    assert_eq!(activated(&keys, &fixture.db, &first), Err(IllegalStep::NotNext(State::Retired)));
    assert_eq!(activated(&keys, &fixture.db, &second), Err(IllegalStep::NotNext(State::Active)));
    assert_eq!(removed(&keys, &fixture.db, "nobody"), Err(IllegalStep::Unknown));
    assert_eq!(
        states(&fixture.db),
        [
            (Algorithm::Es256, State::Active),
            (Algorithm::Es256, State::Retired),
            (Algorithm::Rs256, State::Active),
        ]
    );
}

/// KEYS-02, AUDIT-08: every step is recorded with the key, its algorithm and the reason.
#[test]
fn every_step_is_on_record() {
    let fixture = Fixture::new();
    let keys = fixture.keys(Algorithm::Es256);
    let first = active(&fixture.db);
    let second = rotate(&keys, Algorithm::Es256);
    let (_, third) = removed(&keys, &fixture.db, &second).unwrap();
    let third = third.unwrap();
    let steps: Vec<_> = records(&fixture.db, 4)
        .iter()
        .map(|r| {
            assert_eq!((&r["subject"], &r["detail"]["alg"]), (&r["detail"]["kid"], &"ES256".into()));
            let text = |v: &Value| v.as_str().unwrap().to_owned();
            (text(&r["event"]), text(&r["subject"]), text(&r["detail"]["reason"]), text(&r["actor"]["id"]))
        })
        .collect();
    let step = |event: &str, kid: &str, reason: &str, by: &str| {
        (event.to_owned(), kid.to_owned(), reason.to_owned(), by.to_owned())
    };
    assert_eq!(
        steps,
        [
            step("key.published", &second, "test", "portcullis"),
            step("key.retired", &first, "test", "portcullis"),
            step("key.activated", &second, "test", "portcullis"),
            step("key.removed", &second, "it leaked", "uid 7"),
            step("key.published", &third, "it leaked", "uid 7"),
            step("key.activated", &third, "it leaked", "uid 7"),
        ]
    );
}

/// KEYS-05: the private half of a retired key is erased from the row and from the file; the rest verifies, also
/// after a restart, and cannot be replaced.
#[test]
fn the_private_half_of_a_retired_key_is_erased() {
    let fixture = Fixture::new();
    let keys = fixture.keys(Algorithm::Es256);
    let old = keys.sign(&token()).unwrap();
    let sealed = |db: &Db, kid: &str| db.read(|conn| store::find(conn, kid)).unwrap().unwrap().sealed;
    let private = sealed(&fixture.db, &old.kid);
    rotate(&keys, Algorithm::Es256);
    let public = sealed(&fixture.db, &old.kid);
    let open = |purpose| fixture.seal.unseal(purpose, store::TABLE, old.kid.as_bytes(), &public);
    assert!(open(Purpose::SigningKey).is_err() && open(Purpose::PublicKey).is_ok());
    drop(keys);
    let fixture = fixture.restarted();
    let file = std::fs::read(fixture.dir.path().join("portcullis.db")).unwrap();
    assert!(!file.windows(private.len()).any(|window| window == private));
    assert!(file.windows(public.len()).any(|window| window == public));
    let keys = fixture.keys(Algorithm::Es256);
    assert_eq!(keys.verifier().verify(&old.text).unwrap().kid, old.kid);

    let planted = NewKey::generate(Algorithm::Es256).unwrap();
    let row = old.kid.clone();
    let theirs = fixture.seal.seal(
        Purpose::PublicKey,
        store::TABLE,
        row.as_bytes(),
        planted.jwk.json().to_string().as_bytes(),
    );
    let plant = "UPDATE signing_key SET sealed = ?2 WHERE kid = ?1";
    fixture.db.write_blocking(move |tx| tx.execute(plant, params![row, theirs])).unwrap();
    assert!(matches!(keys.reload(), Err(KeysError::Misnamed(_))));
}

/// KEYS-02, KEYS-03: a key's whole life by the schedule: published, active a day later, retired, removed. At
/// every moment one key signs, and all unexpired tokens verify.
#[test]
fn the_schedule_runs_by_itself() {
    let fixture = Fixture::new();
    let keys = fixture.keys(Algorithm::Es256);
    let verifier = keys.verifier();
    let mut kids = std::collections::BTreeSet::new();
    for _ in 0..(6 * 200) {
        keys.rotate_due().unwrap();
        let signed = keys.sign(&token()).unwrap();
        kids.insert(signed.kid.clone());
        // One token lifetime per step, beginning at any moment of a rotation.
        fixture.clock.advance(Duration::from_hours(1));
        keys.rotate_due().unwrap();
        assert!(verifier.verify(&signed.text).is_ok());
        assert!(keys.ring().key_set().verifiers.len() <= 6);
        fixture.clock.advance(Duration::from_hours(3));
    }
    assert_eq!(kids.len(), 3);
    // 200 days: three ES256 keys, of which the first was removed, and the same for RS256.
    assert_eq!(states(&fixture.db), [(Algorithm::Es256, State::Active), (Algorithm::Rs256, State::Active)]);
    assert_eq!(keys.verifier().knows(kids.first().unwrap()), kids.first() == Some(&active(&fixture.db)));
}

/// KEYS-03: after a kill at any step, the next process continues, and every token verifies.
#[test]
fn a_restart_in_the_middle_of_a_rotation_loses_nothing() {
    let mut fixture = Fixture::new();
    let mut keys = fixture.keys(Algorithm::Es256);
    let first = keys.sign(&token()).unwrap();
    let mut tokens = vec![first.clone()];
    fixture.clock.advance(Duration::from_hours(24 * 89));
    // Published; activated and the other retired; removed. A restart after each.
    for (wait, expected) in [
        (Duration::ZERO, vec![State::Active, State::Next]),
        (Duration::from_hours(24), vec![State::Active, State::Retired]),
        (Duration::from_hours(2), vec![State::Active]),
    ] {
        fixture.clock.advance(wait);
        keys.rotate_due().unwrap();
        drop(keys);
        fixture = fixture.restarted();
        keys = fixture.keys(Algorithm::Es256);
        let mut states: Vec<_> =
            states(&fixture.db).into_iter().filter(|(a, _)| *a == Algorithm::Es256).map(|(_, s)| s).collect();
        states.sort_by_key(|state| state.as_str());
        assert_eq!(states, expected);
        let now = keys.sign(&token()).unwrap();
        assert_eq!(now.kid, active(&fixture.db));
        tokens.push(now);
        let verifier = keys.verifier();
        let good = tokens.iter().filter(|token| verifier.verify(&token.text).is_ok()).count();
        let gone = if expected.len() == 1 { tokens.iter().filter(|t| t.kid == first.kid).count() } else { 0 };
        assert_eq!(good + gone, tokens.len());
        // A new process measures the caches' wait by its own uptime.
        fixture.clock.advance(keys.config().retired());
    }
}

/// KEYS-03, OPS-04: setting the clock forward before a rotation does not activate a key that caches do not
/// have.
#[test]
fn a_changed_clock_activates_no_unknown_key() {
    let fixture = Fixture::new();
    let keys = fixture.keys(Algorithm::Es256);
    let first = active(&fixture.db);
    let year = Duration::from_hours(24 * 365);
    fixture.clock.set(fixture.clock.now() + year);
    keys.rotate_due().unwrap();
    fixture.clock.set(fixture.clock.now() + year);
    keys.rotate_due().unwrap();
    assert_eq!(keys.sign(&token()).unwrap().kid, first);
    assert_eq!(states(&fixture.db).len(), 4);
    // Set back by two years: time waits, and the token's key stays.
    fixture.clock.set(Timestamp(1000));
    fixture.clock.advance(keys.config().cached());
    keys.rotate_due().unwrap();
    assert_ne!(keys.sign(&token()).unwrap().kid, first);
    assert!(keys.verifier().knows(&first));
}

/// KEYS-03: a rotation on demand publishes the next key at once and activates it when caches have it; two
/// commands make one key.
#[test]
fn a_rotation_on_demand_waits_for_caches() {
    let fixture = Fixture::new();
    let keys = fixture.keys(Algorithm::Es256);
    let first = active(&fixture.db);
    let ask = || {
        let (all, key) = (keys.clone(), NewKey::generate(Algorithm::Es256).unwrap());
        fixture.db.write_blocking(move |tx| all.rotate(tx, &key, false, Cause::console(7, "asked"))).unwrap()
    };
    let asked = ask();
    assert_eq!((asked.state, asked.activate_at), (State::Next, fixture.clock.now() + keys.config().cached()));
    assert!(keys.verifier().knows(&asked.kid));
    fixture.clock.advance(Duration::from_mins(5));
    assert_eq!(ask(), asked);
    keys.rotate_due().unwrap();
    assert_eq!(keys.sign(&token()).unwrap().kid, first);
    fixture.clock.advance(Duration::from_mins(5));
    keys.rotate_due().unwrap();
    assert_eq!(keys.sign(&token()).unwrap().kid, asked.kid);
}

/// KEYS-03: a rotation on demand uses the next key of the schedule, which becomes active earlier.
#[test]
fn a_rotation_on_demand_takes_the_key_that_waits() {
    let fixture = Fixture::new();
    let keys = fixture.keys(Algorithm::Es256);
    fixture.clock.advance(Duration::from_hours(24 * 89));
    keys.rotate_due().unwrap();
    let next = fixture.db.read(|conn| store::next(conn, Algorithm::Es256)).unwrap().unwrap();
    fixture.clock.advance(Duration::from_hours(1));
    let (all, key) = (keys.clone(), NewKey::generate(Algorithm::Es256).unwrap());
    let asked =
        fixture.db.write_blocking(move |tx| all.rotate(tx, &key, false, Cause::console(7, "asked"))).unwrap();
    assert_eq!((asked.kid, asked.activate_at), (next.kid.clone(), fixture.clock.now()));
    keys.rotate_due().unwrap();
    assert_eq!(keys.sign(&token()).unwrap().kid, next.kid);
}

/// KEYS-04: a removed key is gone from the key set, and its tokens are refused, before the removal is answered;
/// an active key is replaced by a new one at the same moment.
#[test]
fn a_removed_key_is_gone_at_once() {
    let fixture = Fixture::new();
    let keys = fixture.keys(Algorithm::Es256);
    let verifier = keys.verifier();
    let old = keys.sign(&token()).unwrap();
    let waiting = {
        let (all, key) = (keys.clone(), NewKey::generate(Algorithm::Es256).unwrap());
        fixture.db.write_blocking(move |tx| all.rotate(tx, &key, false, Cause::server("test"))).unwrap().kid
    };
    let (state, successor) = removed(&keys, &fixture.db, &old.kid).unwrap();
    assert_eq!(state, State::Active);
    let new = keys.sign(&token()).unwrap();
    assert_eq!(Some(&new.kid), successor.as_ref());
    assert_ne!(new.kid, waiting);
    assert!(!verifier.knows(&old.kid));
    assert_eq!(verifier.verify(&old.text).unwrap_err(), crate::Unverified::UnknownKey);
    assert!(verifier.verify(&new.text).is_ok());
    assert!(!String::from_utf8_lossy(&keys.jwks().body).contains(&old.kid));
    // The waiting key can be removed too, and needs no successor.
    assert_eq!(removed(&keys, &fixture.db, &waiting), Ok((State::Next, None)));
    let fixture = {
        drop(keys);
        fixture.restarted()
    };
    let keys = fixture.keys(Algorithm::Es256);
    assert!(!keys.verifier().knows(&old.kid) && keys.verifier().verify(&new.text).is_ok());
}

/// KEYS-04: a removal that was rolled back removes nothing, in memory either.
#[test]
fn a_removal_that_fails_removes_nothing() {
    let fixture = Fixture::new();
    let keys = fixture.keys(Algorithm::Es256);
    let old = keys.sign(&token()).unwrap();
    let made = NewKey::generate(Algorithm::Es256).unwrap();
    let (all, kid) = (keys.clone(), old.kid.clone());
    let failed = fixture.db.write_blocking(move |tx| -> Result<(), Fault> {
        let _ = all.remove_now(tx, &kid, Some(&made), Cause::console(7, "it leaked"))?;
        Err(Fault::Busy)
    });
    assert!(failed.is_err());
    assert!(keys.verifier().verify(&old.text).is_ok());
    // No signing key would be left.
    let (all, kid) = (keys.clone(), old.kid.clone());
    let failed =
        fixture.db.write_blocking(move |tx| all.remove_now(tx, &kid, None, Cause::console(7, "it leaked")));
    assert!(matches!(failed, Err(Fault::Busy)));
    assert!(keys.verifier().verify(&old.text).is_ok());
    // SQLite loses the whole transaction after memory was updated.
    let made = NewKey::generate(Algorithm::Es256).unwrap();
    let (all, kid) = (keys.clone(), old.kid.clone());
    let failed = fixture.db.write_blocking(move |tx| {
        let _ = all.remove_now(tx, &kid, Some(&made), Cause::console(7, "it leaked"))?;
        tx.execute("ROLLBACK", params![])
    });
    assert!(failed.is_err());
    assert!(keys.verifier().verify(&old.text).is_ok());
    assert_eq!(keys.sign(&token()).unwrap().kid, old.kid);
}

/// KEYS-02: with a shortened schedule, ten rotations in a row refuse no token.
#[test]
fn a_shortened_schedule_keeps_its_promises() {
    let fixture = Fixture::new();
    let second = Duration::from_secs(1);
    let config = Config {
        active: 4 * second,
        publish_ahead: 2 * second,
        jwks_max_age: second,
        longest_token: 10 * second,
        leeway: Duration::ZERO,
        ..Config::default()
    };
    assert_eq!(config.check(), Ok(()));
    let keys = fixture.open(config).unwrap();
    let mut signed = Vec::new();
    for tick in 0..40 {
        keys.rotate_due().unwrap();
        signed.push((tick, keys.sign(&token()).unwrap()));
        signed.retain(|(at, _)| tick - at <= 20);
        for (_, token) in &signed {
            assert!(keys.verifier().verify(&token.text).is_ok(), "at {tick}");
        }
        fixture.clock.advance(second / 2);
    }
    let kids: std::collections::HashSet<_> = signed.iter().map(|(_, token)| &token.kid).collect();
    assert!(kids.len() >= 2);
}
