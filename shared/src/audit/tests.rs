use serde_json::json;

use super::*;
use crate::clock::Clock;
use crate::db::Db;
use crate::schema::SCHEMA;

fn three_records() -> (tempfile::TempDir, Db) {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&dir.path().join("x.db"), &SCHEMA, None, &Clock::held(Timestamp(0))).unwrap();
    for name in ["a", "b", "c"] {
        db.write_blocking(move |tx| {
            append(tx, Event::allowed(Name::UserCreated).by_console(0).subject(name))
        })
        .unwrap();
    }
    (dir, db)
}

fn tamper(db: &Db, sql: &'static str) -> FirstBadRecord {
    db.write_blocking(move |tx| tx.execute(sql, [])).unwrap();
    db.read(verify).unwrap().unwrap_err()
}

/// AUDIT-02: the hash is over `prev` and the canonical record; the first `prev` is 64 zeros.
#[test]
fn records_form_a_chain_that_anyone_can_recompute() {
    let (_dir, db) = three_records();
    let records = db.read(|c| tail(c, 10, 0)).unwrap();
    let mut prev = "0".repeat(64);
    for (i, record) in records.iter().enumerate() {
        let mut body = record.clone();
        let hash = body.as_object_mut().unwrap().remove("hash").unwrap();
        assert_eq!(body["seq"], i + 1);
        assert_eq!(body["prev"], prev);
        let expected = Sha256::digest(format!("{prev}{}", canonical(&body)));
        assert_eq!(hash, data_encoding::HEXLOWER.encode(&expected));
        prev = hash.as_str().unwrap().to_owned();
    }
    assert_eq!(db.read(verify).unwrap().unwrap(), Verified { records: 3, head: prev });
}

/// AUDIT-03: a single changed byte is detected, and its row is named.
#[test]
fn a_changed_record_is_named() {
    let (_dir, db) = three_records();
    let broken = tamper(&db, "UPDATE audit SET record = replace(record, '\"b\"', '\"B\"') WHERE seq = 2");
    assert_eq!(broken.seq, 2);
}

/// AUDIT-03: a changed hash is detected.
#[test]
fn a_changed_hash_is_named() {
    let (_dir, db) = three_records();
    assert_eq!(tamper(&db, "UPDATE audit SET hash = zeroblob(32) WHERE seq = 3").seq, 3);
}

/// AUDIT-03: the record after a deleted one is named.
#[test]
fn a_missing_record_is_named_by_the_one_after_it() {
    let (_dir, db) = three_records();
    assert_eq!(tamper(&db, "DELETE FROM audit WHERE seq = 1").seq, 2);
}

/// AUDIT-03: reordered records are detected.
#[test]
fn reordered_records_are_named() {
    let (_dir, db) = three_records();
    let broken = tamper(
        &db,
        "UPDATE audit SET record = (SELECT record FROM audit WHERE seq = 2), hash = (SELECT hash FROM audit WHERE seq = 2) WHERE seq = 1",
    );
    assert_eq!(broken.seq, 1);
}

/// AUDIT-03: a value of another type is reported as broken, and is not an error.
#[test]
fn a_record_of_another_type_is_named() {
    let (_dir, db) = three_records();
    let raw = rusqlite::Connection::open(db.path()).unwrap();
    raw.execute("UPDATE audit SET hash = x'' WHERE seq = 2", []).unwrap();
    assert_eq!(db.read(verify).unwrap().unwrap_err().seq, 2);
}

/// AUDIT-05: control characters are removed and long values cut, at every depth.
#[test]
fn values_are_cleaned() {
    let event = Event::allowed(Name::UserCreated)
        .subject("line\nbreak\u{1b}[31m")
        .detail("list", json!(["a\0b", {"k": "x".repeat(1000)}]))
        .detail("float", 0.5);
    let record = event.record(1, Timestamp(0), Head::genesis().hash());
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["subject"], "linebreak[31m");
    assert_eq!(record["detail"]["list"][0], "ab");
    assert_eq!(record["detail"]["list"][1]["k"].as_str().unwrap().len(), LONGEST);
    assert_eq!(record["detail"]["float"], "0.5");
}

/// AUDIT-02, RFC 8785: members sorted, no spaces, minimal escapes.
#[test]
fn canonical_json_is_sorted_and_tight() {
    let value = json!({"b": 1, "a": {"d": [true, null], "c": "\u{e9}\"\\\u{7f}"}});
    assert_eq!(canonical(&value), "{\"a\":{\"c\":\"\u{e9}\\\"\\\\\u{7f}\",\"d\":[true,null]},\"b\":1}");
    // By UTF-16 units, not by bytes: a surrogate comes before U+FF61.
    let value = json!({"\u{ff61}": 1, "\u{10002}": 2, "z": 3});
    assert_eq!(canonical(&value), "{\"z\":3,\"\u{10002}\":2,\"\u{ff61}\":1}");
}
