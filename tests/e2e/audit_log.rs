//! `audit verify` detects changes by an attacker who can write to the data directory (AUDIT-03).

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use rusqlite::Connection;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::TestApp;
use crate::process::{complaint, portcullis, program_on};

/// A data directory as it was at one moment, to attack.
struct DirectoryCopy(tempfile::TempDir);

impl DirectoryCopy {
    fn of(data: &Path) -> Self {
        let taken = Self(tempfile::tempdir().unwrap());
        fs::DirBuilder::new().mode(0o700).create(taken.data()).unwrap();
        for file in ["portcullis.db", "portcullis.db-wal", "audit.head", "seal.key"] {
            if data.join(file).exists() {
                fs::copy(data.join(file), taken.data().join(file)).unwrap();
            }
        }
        taken
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn log(&self) -> Connection {
        Connection::open(self.data().join("portcullis.db")).unwrap()
    }

    fn run(&self, sql: &str) {
        self.log().execute_batch(sql).unwrap();
    }

    /// Recomputes the chain from the first record on, as an attacker who changed one would.
    fn rechain(&self) {
        let db = self.log();
        let rows: Vec<(i64, String)> = {
            let mut statement = db.prepare("SELECT seq, record FROM audit ORDER BY seq").unwrap();
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            rows.map(Result::unwrap).collect()
        };
        let mut prev = "0".repeat(64);
        db.execute("DELETE FROM audit", []).unwrap();
        for (place, (_, text)) in (1_i64..).zip(rows) {
            let mut record: Value = serde_json::from_str(&text).unwrap();
            record["seq"] = json!(place);
            record["prev"] = json!(prev);
            let text = sorted(&record);
            let hash = Sha256::digest(format!("{prev}{text}"));
            prev = HEXLOWER.encode(&hash);
            db.execute(
                "INSERT INTO audit (seq, record, hash) VALUES (?1, ?2, ?3)",
                (place, text, hash.as_slice()),
            )
            .unwrap();
        }
    }

    /// Writes a matching end into the file beside the database.
    fn fix_head(&self) {
        let (seq, hash): (i64, Vec<u8>) = self
            .log()
            .query_row("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap_or((0, vec![0; 32]));
        let text = format!(
            "portcullis-audit-head v1 turn=0 epoch=0 base=0 seq={seq} hash={}",
            HEXLOWER.encode(&hash)
        );
        let line = format!("{text} check={}", HEXLOWER.encode(&Sha256::digest(&text)));
        fs::write(self.data().join("audit.head"), format!("{line:4095}\n{line:4095}\n")).unwrap();
    }

    fn verify(&self, more: &[&str]) -> Result<Value, String> {
        let data = self.data();
        let output = portcullis(
            &[&["audit", "verify", "--json", "--data-dir", data.to_str().unwrap()], more].concat(),
        );
        let verdict: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        if output.status.success() {
            assert_eq!(verdict["ok"], true);
            return Ok(verdict);
        }
        assert_eq!(
            (output.status.code(), &verdict["ok"]),
            (Some(1), &json!(false)),
            "{}",
            complaint(&output)
        );
        Err(complaint(&output))
    }
}

fn sorted(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut names: Vec<_> = members.iter().collect();
            names.sort_by_key(|(name, _)| name.as_str());
            let members: Vec<_> =
                names.into_iter().map(|(name, value)| format!("{}:{}", json!(name), sorted(value))).collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(sorted).collect::<Vec<_>>().join(",")),
        plain => plain.to_string(),
    }
}

/// A directory with a few things in its log, and a checkpoint that was carried away in the middle.
async fn some_log() -> (DirectoryCopy, DirectoryCopy, PathBuf) {
    let app = TestApp::start().await;
    app.admin().await;
    let made = app.console(&["audit", "checkpoint"]);
    let anchor = app.data_dir().parent().unwrap().join("anchor");
    app.console(&["user", "add", "bob"]);
    let earlier = DirectoryCopy::of(&app.data_dir());
    app.console(&["user", "disable", "bob"]);
    fs::write(&anchor, format!("{}\n", made["checkpoint"].as_str().unwrap())).unwrap();
    let stopped = app.stop().await;
    let last = DirectoryCopy::of(&stopped.data_dir());
    let kept = last.0.path().join("anchor");
    fs::copy(anchor, &kept).unwrap();
    (last, earlier, kept)
}

/// AUDIT-03: an unchanged log is verified, and all of it is signed once the server has stopped.
#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_log_verifies() {
    let (log, _, anchor) = some_log().await;
    let verdict = log.verify(&[]).unwrap();
    let records = verdict["records"].as_i64().unwrap();
    assert_eq!(
        (&verdict["noted"], &verdict["signed_to"], &verdict["truncation_checked"]),
        (&json!(records), &json!(records - 1), &json!(false))
    );
    let verdict = log.verify(&["--anchor", anchor.to_str().unwrap()]).unwrap();
    assert_eq!(verdict["truncation_checked"], true);
    assert!(verdict["anchor"].as_i64().unwrap() < records);
}

/// AUDIT-03: a truncated or emptied log is detected, also with a matching file beside the database.
#[tokio::test(flavor = "multi_thread")]
async fn a_shortened_log_is_detected() {
    let (log, _, anchor) = some_log().await;
    let anchor = ["--anchor", anchor.to_str().unwrap()];
    for (sql, fits, says, says_to_anchor) in [
        (
            "DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)",
            false,
            "the end was cut off",
            "the end was cut off",
        ),
        ("DELETE FROM audit WHERE seq > 6", false, "the end was cut off", "the end was cut off"),
        ("DELETE FROM audit", false, "the log has no checkpoint", "the log has no checkpoint"),
        ("DELETE FROM audit", true, "the log has no checkpoint", "the log has no checkpoint"),
        ("DELETE FROM audit WHERE seq <= 3", true, "follows a gap", "follows a gap"),
        (
            "DELETE FROM setting WHERE name = 'checkpoint_key'",
            true,
            "checkpoint key is missing",
            "checkpoint key is missing",
        ),
    ] {
        let attacked = DirectoryCopy::of(&log.data());
        attacked.run(sql);
        if fits {
            attacked.fix_head();
        }
        let said = attacked.verify(&[]).expect_err(sql);
        assert!(said.contains(says), "{sql}: {said}");
        let said = attacked.verify(&anchor).expect_err(sql);
        assert!(said.contains(says_to_anchor), "{sql}: {said}");
    }
    fs::remove_file(log.data().join("audit.head")).unwrap();
    assert!(log.verify(&[]).unwrap_err().contains("audit.head is missing"));
    fs::write(log.data().join("audit.head"), "x").unwrap();
    fs::set_permissions(log.data().join("audit.head"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(log.verify(&[]).unwrap_err().contains("is damaged"));
}

/// AUDIT-03: a changed record with a recomputed chain and a matching file is detected by the signatures;
/// without signatures, the log is not accepted as this server's.
#[tokio::test(flavor = "multi_thread")]
async fn a_rewritten_log_is_detected() {
    let (log, _, anchor) = some_log().await;
    let anchor = ["--anchor", anchor.to_str().unwrap()];
    let lie = "UPDATE audit SET record = replace(record, '\"user.created\"', '\"user.deleted\"') WHERE seq = (SELECT min(seq) FROM audit WHERE event = 'user.created')";
    let strip = "DELETE FROM audit WHERE event = 'audit.checkpoint'";
    let move_on =
        "UPDATE audit SET record = replace(record, 'audit.checkpoint', 'audit.checkpoint ') WHERE seq > 5";
    for (sql, fits, says) in [
        (lie.to_owned(), false, "checkpoint of another log"),
        (lie.to_owned(), true, "checkpoint of another log"),
        (strip.to_owned(), true, "the log has no checkpoint"),
        (format!("{lie}; {strip}"), true, "the log has no checkpoint"),
    ] {
        let attacked = DirectoryCopy::of(&log.data());
        attacked.run(&sql);
        attacked.rechain();
        if fits {
            attacked.fix_head();
        }
        for options in [&[][..], &anchor] {
            let said = attacked.verify(options).expect_err(&sql);
            assert!(said.contains(says), "{sql}: {said}");
        }
    }
    // All but the first checkpoint made something else: only what was carried away tells.
    let attacked = DirectoryCopy::of(&log.data());
    attacked.run(&format!("{lie}; {move_on}"));
    attacked.rechain();
    assert!(attacked.verify(&[]).unwrap_err().contains("rewritten"));
    attacked.fix_head();
    assert!(attacked.verify(&anchor).unwrap_err().contains("the anchor of"));
}

/// AUDIT-03: a checkpoint that this server did not sign, and one that was changed after signing, are detected.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_checkpoint_is_detected() {
    let (log, _, anchor) = some_log().await;
    let (other, _, other_anchor) = some_log().await;
    let compact = |path: &Path| fs::read_to_string(path).unwrap().trim().to_owned();
    let (ours, theirs) = (compact(&anchor), compact(&other_anchor));
    let [header, payload, signature] = ours.split('.').collect::<Vec<_>>()[..] else { panic!("{ours}") };
    let their_signature = theirs.rsplit('.').next().unwrap();
    for (forged, says) in [
        (theirs.clone(), "signed with another key"),
        (format!("{header}.{payload}.{their_signature}"), "its signature is wrong"),
        (format!("{header}.{payload}"), "not a checkpoint"),
        (format!("{header}.{payload}.{signature}x"), "not a checkpoint"),
        (String::new(), "not a checkpoint"),
    ] {
        let file = log.0.path().join("forged");
        fs::write(&file, &forged).unwrap();
        let said = log.verify(&["--anchor", file.to_str().unwrap()]).unwrap_err();
        assert!(said.contains(says), "{forged}: {said}");
        let attacked = DirectoryCopy::of(&log.data());
        attacked.run(&format!("UPDATE audit SET record = replace(record, '{ours}', '{forged}')"));
        attacked.rechain();
        attacked.fix_head();
        let said = attacked.verify(&[]).unwrap_err();
        assert!(said.contains("it was forged"), "{forged}: {said}");
    }
    // The checkpoint key of another directory does not help either.
    let key = other
        .log()
        .query_row("SELECT value FROM setting WHERE name = 'checkpoint_key'", [], |row| row.get(0));
    let key: String = key.unwrap();
    log.run(&format!("UPDATE setting SET value = '{key}' WHERE name = 'checkpoint_key'"));
    assert!(log.verify(&[]).unwrap_err().contains("cannot be decrypted"));
}

/// AUDIT-03: a complete older copy of the directory is consistent in itself. Only the exported checkpoint
/// reveals it.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_directory_is_detected_by_an_anchor() {
    let (log, earlier, _) = some_log().await;
    let data = log.data();
    let later = portcullis(&["audit", "checkpoint", "--data-dir", data.to_str().unwrap()]);
    assert!(later.status.success(), "{}", complaint(&later));
    let anchor = log.0.path().join("later");
    fs::write(&anchor, &later.stdout).unwrap();
    assert_eq!(earlier.verify(&[]).unwrap()["truncation_checked"], false);
    let said = earlier.verify(&["--anchor", anchor.to_str().unwrap()]).unwrap_err();
    assert!(said.contains("the directory is an older copy"), "{said}");
    // Without the sealing key the anchor's own key is used; without both, the log is not reported as intact.
    fs::remove_file(data.join("seal.key")).unwrap();
    assert!(log.verify(&["--anchor", anchor.to_str().unwrap()]).is_ok());
    assert!(log.verify(&[]).unwrap_err().contains("seal key"));
}

/// AUDIT-03: an export has the whole log up to a checkpoint, is recorded, and is readable by this user only.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_exported_up_to_a_checkpoint() {
    let app = TestApp::start().await;
    app.admin().await;
    let file = app.data_dir().parent().unwrap().join("log.jsonl");
    let exported = app.console(&["audit", "export", file.to_str().unwrap()]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let mut prev = "0".repeat(64);
    let mut last = Value::Null;
    for line in fs::read_to_string(&file).unwrap().lines() {
        let mut record: Value = serde_json::from_str(line).unwrap();
        let hash = record.as_object_mut().unwrap().remove("hash").unwrap();
        assert_eq!(record["prev"], prev);
        prev = HEXLOWER.encode(&Sha256::digest(format!("{prev}{}", sorted(&record))));
        assert_eq!(hash, prev);
        last = record;
    }
    assert_eq!((&last["event"], &last["seq"]), (&json!("audit.checkpoint"), &exported["records"]));
    assert!(app.has_event("audit.exported", None));
    let data = app.data_dir();
    let again = ["audit", "export", file.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
    let before = app.audit().len();
    assert!(complaint(&portcullis(&again)).contains("cannot create"));
    assert_eq!(app.audit().len(), before);
}

/// OPS-03: commands do not read the log under another issuer than the directory's.
#[tokio::test(flavor = "multi_thread")]
async fn another_issuer_s_log_is_not_read() {
    let stopped = TestApp::start().await.stop().await;
    let (data, file) = (stopped.data_dir(), stopped.data_dir().join("log"));
    for command in [&["tail"][..], &["verify"], &["checkpoint"], &["export", file.to_str().unwrap()]] {
        let output = program_on(&data)
            .arg("audit")
            .args(command)
            .arg("--data-dir")
            .arg(&data)
            .env("PORTCULLIS_ISSUER", "https://other.example")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        assert!(complaint(&output).contains("other.example"), "{command:?}: {}", complaint(&output));
    }
    assert!(!file.exists());
}
