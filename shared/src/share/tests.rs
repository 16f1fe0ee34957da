use super::*;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::db::Db;
use crate::schema::SCHEMA;

fn open() -> (tempfile::TempDir, Db) {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&dir.path().join("x.db"), &SCHEMA, None, &Clock::held(Timestamp(0))).unwrap();
    (dir, db)
}

/// RATE-03, RATE-06: every table of the schema is in the list, with the columns and triggers that a cap and
/// shares need if strangers fill it; nothing else is in the list.
#[test]
fn every_table_says_how_it_grows() {
    let (_dir, db) = open();
    let names = |kind: &'static str| {
        let sql = "SELECT name FROM sqlite_schema WHERE type = ?1 AND name NOT LIKE 'sqlite_%' ORDER BY name";
        db.read(|conn| conn.query(sql, params![kind], |row| row.get::<String>(0))).unwrap()
    };
    let mut listed: Vec<_> = GROWTH.iter().map(|(table, _)| (*table).to_owned()).collect();
    listed.sort();
    assert_eq!(names("table"), listed);
    let triggers = names("trigger");
    let mut kept = Vec::new();
    for (table, growth) in GROWTH {
        let Growth::ByStrangers(one) = growth else { continue };
        assert_eq!(one.table, *table);
        kept.push(*one);
        for which in ["held", "let_go"] {
            assert!(triggers.contains(&format!("{table}_{which}")), "{table}_{which}");
        }
        assert!(
            one.share > 0 && one.share <= one.of_network && one.of_network * 10 <= one.most * 4,
            "{one:?}"
        );
        // Neither one network nor one address can fill it.
        assert!(one.of_network < one.most / 2, "{one:?}");
    }
    assert_eq!(kept, ALL);
}
