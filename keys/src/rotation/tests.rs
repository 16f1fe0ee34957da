use serde_json::Value;
use shared::Db;
use shared::db::params;

use super::*;
use crate::tests::Fixture;

fn states(db: &Db) -> Vec<(Algorithm, State)> {
    let mut states: Vec<_> =
        db.read(store::all).unwrap().into_iter().map(|key| (key.algorithm, key.state)).collect();
    states.sort_by_key(|(algorithm, state)| (algorithm.as_str(), state.as_str()));
    states
}

fn activated(db: &Db, kid: &str) -> Result<Option<String>, Illegal> {
    let kid = kid.to_owned();
    db.write_blocking(move |tx| activate(tx, &kid)).unwrap()
}

/// KEYS-03: the schema itself holds no second active key of an algorithm.
#[test]
fn a_second_active_key_does_not_fit_the_table() {
    let fixture = Fixture::new();
    fixture.keys(Algorithm::Es256);
    let key = NewKey::generate(&fixture.seal, Algorithm::Es256).unwrap();
    let kid = key.kid().to_owned();
    fixture.db.write_blocking(move |tx| publish(tx, &key)).unwrap();
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

/// KEYS-02: next, active, retired, and no other way.
#[test]
fn steps_out_of_order_are_refused() {
    let fixture = Fixture::new();
    fixture.keys(Algorithm::Es256);
    let first = fixture.db.read(|conn| store::active(conn, Algorithm::Es256)).unwrap().unwrap();
    assert_eq!(activated(&fixture.db, "nobody"), Err(Illegal::Unknown));
    assert_eq!(activated(&fixture.db, &first), Err(Illegal::NotNext(State::Active)));
    let second = fixture.rotate(Algorithm::Es256);
    assert_eq!(activated(&fixture.db, &first), Err(Illegal::NotNext(State::Retired)));
    assert_eq!(activated(&fixture.db, &second), Err(Illegal::NotNext(State::Active)));
    assert_eq!(
        states(&fixture.db),
        [
            (Algorithm::Es256, State::Active),
            (Algorithm::Es256, State::Retired),
            (Algorithm::Rs256, State::Active),
        ]
    );
}

/// KEYS-02: every step stands in the audit log, with the key it retired.
#[test]
fn every_step_is_on_record() {
    let fixture = Fixture::new();
    fixture.keys(Algorithm::Es256);
    let first = fixture.db.read(|conn| store::active(conn, Algorithm::Es256)).unwrap().unwrap();
    let second = fixture.rotate(Algorithm::Es256);
    let records: Vec<Value> = fixture
        .db
        .read(|conn| {
            conn.query("SELECT record FROM audit WHERE seq > 4 ORDER BY seq", [], |row| row.get::<String>(0))
        })
        .unwrap()
        .iter()
        .map(|record| serde_json::from_str(record).unwrap())
        .collect();
    let [published, activated] = &records[..] else { panic!("{records:?}") };
    assert_eq!(
        (&published["event"], &published["subject"]),
        (&"key.published".into(), &second.as_str().into())
    );
    assert_eq!(
        (&activated["event"], &activated["subject"]),
        (&"key.activated".into(), &second.as_str().into())
    );
    assert_eq!(activated["detail"]["retired"], first.as_str());
    assert_eq!(published["detail"]["alg"], "ES256");
}
