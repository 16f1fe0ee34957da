//! `portcullis audit …`.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use keys::Seal;
use keys::checkpoint::{self, BadCheckpoint, CheckpointVerifier};
use serde_json::{Value, json};
use shared::audit::{self, Broken, Entry, Verified};
use shared::data_dir::{self, AUDIT_HEAD};
use shared::db::{self, Conn, MirrorError, Noted, ReadOnly};
use shared::schema::SCHEMA;
use shared::{Fault, terminal};

use super::{execute, print, same_issuer};
use crate::base::require_database;
use crate::commands::audit::{Audit, Export, Tail, Verify};
use crate::commands::user::Common;
use crate::config;
use crate::control::{self, audit::Request};
use crate::output::{self, note, say};

/// `portcullis audit …`.
pub(crate) fn audit(command: &Audit, file: &config::File) -> anyhow::Result<()> {
    match command {
        Audit::Tail(options) => tail(options, &open(&options.data.path(file), file)?),
        Audit::Verify(options) => verify(options, &options.data.path(file), file),
        Audit::Checkpoint(common) => make(common, file),
        Audit::Export(options) => export(options, file),
    }
}

fn open(dir: &Path, file: &config::File) -> anyhow::Result<ReadOnly> {
    data_dir::check(dir)?;
    same_issuer(dir, file)?;
    Ok(ReadOnly::open(&require_database(dir)?, &SCHEMA)?)
}

fn tail(options: &Tail, db: &ReadOnly) -> anyhow::Result<()> {
    let mut last = 0;
    let mut count = options.lines;
    loop {
        for record in db.read(|conn| audit::tail(conn, count, last))? {
            last = record["seq"].as_i64().unwrap_or(last);
            if options.json {
                output::json(&record)?;
            } else {
                say!("{}", db.read(|conn| in_words(conn, &record))?)?;
            }
        }
        if !options.follow {
            return Ok(());
        }
        count = u32::MAX;
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// A record on one line: when, what, who, about what.
///
/// People go by the name they have, or had until they were deleted; the record itself holds ids alone.
fn in_words(conn: &Conn<'_>, record: &Value) -> Result<String, Fault> {
    let called = |id: String| -> Result<String, Fault> {
        let name = if id.starts_with("u_") { authz::people::name_on_record(conn, &id)? } else { None };
        Ok(name.map_or_else(|| id.clone(), |name| format!("{} ({id})", terminal::safe(&name))))
    };
    let text = |key: &str| print::text(record, key);
    let seq = record["seq"].as_i64().unwrap_or_default();
    let mut parts = vec![format!("{seq:>6}  {}  {:<7}  {:<22}", text("ts"), text("outcome"), text("event"))];
    if let Some(actor) = record["actor"]["id"].as_str() {
        parts.push(format!("by {}", called(terminal::safe(actor).into_owned())?));
    }
    for key in ["subject", "client_id", "grant_id", "scope", "src_ip", "reason"] {
        if !text(key).is_empty() {
            parts.push(format!("{key}={}", called(text(key))?));
        }
    }
    if let Some(name) = record["detail"]["name"].as_str() {
        parts.push(format!("name={name}"));
    }
    Ok(parts.join("  "))
}

fn make(common: &Common, file: &config::File) -> anyhow::Result<()> {
    let request = control::Request::Audit(Request::Checkpoint);
    let made = execute(&common.data.path(file), request, file)?["made"].take();
    if common.json {
        return output::json(&made);
    }
    say!("{}", made["checkpoint"].as_str().context("the server's answer has no checkpoint")?)?;
    note!(
        "The audit log is signed up to record {}. Keep this line in a place that cannot be changed together with the data directory; `portcullis audit verify --anchor FILE` compares the log with it.",
        made["seq"]
    );
    Ok(())
}

fn export(options: &Export, file: &config::File) -> anyhow::Result<()> {
    let dir = options.common.data.path(file);
    let to = options.to.display();
    // First of all, so that nothing goes on record for a file that cannot be written.
    let target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&options.to)
        .with_context(|| format!("cannot create {to}"))?;
    let written = execute(&dir, control::Request::Audit(Request::Export), file)
        .and_then(|answer| {
            Ok((answer["exported_to"].as_i64().context("the server's answer has no number")?, answer))
        })
        .and_then(|(last, answer)| {
            write_records(&open(&dir, file)?, last, &target).with_context(|| format!("cannot write {to}"))?;
            Ok((last, answer))
        });
    let (last, answer) = written.inspect_err(|_| {
        let _ = fs::remove_file(&options.to);
    })?;
    if options.common.json {
        return output::json(&json!({ "file": options.to, "records": last, "made": answer["made"] }));
    }
    say!("{to} contains {last} records. The last one is a checkpoint of those before it.")
}

fn write_records(db: &ReadOnly, last: i64, target: &File) -> anyhow::Result<()> {
    let mut lines = BufWriter::new(target);
    let mut from = 0;
    while from < last {
        let records = db.read(|conn| audit::range(conn, from, last.min(from + 1000)))?;
        ensure!(!records.is_empty(), "audit record {} is missing", from + 1);
        for record in records {
            from = record["seq"].as_i64().unwrap_or(last);
            writeln!(lines, "{record}")?;
        }
    }
    lines.flush()?;
    Ok(target.sync_all()?)
}

/// What is known from outside the database.
struct Outside {
    noted: Result<Option<Noted>, MirrorError>,
    /// `None` if there is no seal key that could be read; the words say why.
    seal: Result<Seal, String>,
    anchor: Option<String>,
}

/// What the log comes to.
struct Report {
    verified: Verified,
    checkpoints: i64,
    /// The last record that a checkpoint covers.
    signed_to: i64,
    noted: Option<i64>,
    anchor: Option<i64>,
}

fn verify(options: &Verify, dir: &Path, file: &config::File) -> anyhow::Result<()> {
    let seal = file.base(dir.to_owned()).seal_key.source(dir)?;
    let outside = Outside {
        // Before the database: it may be ahead of this, never behind.
        noted: db::noted(&dir.join(AUDIT_HEAD)),
        seal: Seal::open(seal, false).map_err(|e| e.to_string()),
        anchor: options.anchor.as_deref().map(anchor).transpose()?,
    };
    let db = open(dir, file)?;
    match db.read(|conn| judge(conn, &outside))? {
        Ok(report) => announce(&report, options),
        Err(Verdict { seq, what }) => {
            if options.json {
                output::json(&json!({ "ok": false, "seq": seq, "what": what }))?;
            }
            match seq {
                Some(seq) => bail!("audit record {seq} {what}"),
                None => bail!("{what}"),
            }
        }
    }
}

/// A checkpoint as it was printed, alone or as JSON.
fn anchor(path: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let json: Option<Value> = serde_json::from_str(&text).ok();
    let compact = json.as_ref().and_then(|json| json["checkpoint"].as_str()).unwrap_or(text.trim());
    Ok(compact.to_owned())
}

/// What is wrong, and with which record.
struct Verdict {
    seq: Option<i64>,
    what: String,
}

impl Verdict {
    fn at(seq: i64, what: impl Into<String>) -> Self {
        Self { seq: Some(seq), what: what.into() }
    }

    fn of_log(what: impl Into<String>) -> Self {
        Self { seq: None, what: what.into() }
    }
}

impl From<Broken> for Verdict {
    fn from(broken: Broken) -> Self {
        Self::at(broken.seq, broken.what)
    }
}

fn judge(conn: &Conn<'_>, outside: &Outside) -> Result<Result<Report, Verdict>, Fault> {
    let anchored = match outside.anchor.as_deref().map(CheckpointVerifier::named_by).transpose() {
        Ok(anchored) => anchored,
        Err(bad) => return Ok(Err(Verdict::of_log(format!("the anchor cannot be used: {bad}")))),
    };
    let verifier = match key(conn, outside, anchored)? {
        Ok(verifier) => verifier,
        Err(verdict) => return Ok(Err(verdict)),
    };
    let (mut checkpoints, mut signed_to) = (0, 0);
    let verified = audit::verify_each(conn, |entry| {
        let Some(compact) = checkpoint::checkpoint_in(entry.record) else { return Ok(Ok(())) };
        let Some(verifier) = &verifier else {
            return Ok(Err("is a checkpoint, but this log has no checkpoint key"));
        };
        let covered = match compact.as_str().map(|compact| verifier.verify(compact)) {
            Some(Ok(covered)) => covered,
            Some(Err(BadCheckpoint::OtherKey)) => {
                return Ok(Err("is a checkpoint signed with another key: it was forged"));
            }
            Some(Err(_)) | None => {
                return Ok(Err("is a checkpoint that was not signed like this: it was forged"));
            }
        };
        checkpoints += 1;
        signed_to = covered.seq;
        covers(conn, entry, &covered)
    })?;
    let verified = match verified {
        Ok(verified) => verified,
        Err(broken) => return Ok(Err(broken.into())),
    };
    if verifier.is_some() && checkpoints == 0 {
        return Ok(Err(Verdict::of_log(
            "the log has no checkpoint, but one is made at the first start: it was emptied or rewritten",
        )));
    }
    let noted = match end(conn, &verified, outside)? {
        Ok(noted) => noted,
        Err(verdict) => return Ok(Err(verdict)),
    };
    let anchor = match (&outside.anchor, &verifier) {
        (Some(anchor), Some(verifier)) => match compare(conn, &verified, verifier.verify(anchor))? {
            Ok(seq) => Some(seq),
            Err(verdict) => return Ok(Err(verdict)),
        },
        (Some(_), None) => {
            return Ok(Err(Verdict::of_log("this log has no checkpoints to compare the anchor with")));
        }
        (None, _) => None,
    };
    Ok(Ok(Report { verified, checkpoints, signed_to, noted, anchor }))
}

/// What checkpoints are checked with: the sealed key; where the seal key is out of reach, the anchor's own.
fn key(
    conn: &Conn<'_>,
    outside: &Outside,
    anchored: Option<CheckpointVerifier>,
) -> Result<Result<Option<CheckpointVerifier>, Verdict>, Fault> {
    let expected = checkpoint::expected(conn)?;
    let seal = match (&outside.seal, anchored) {
        (Ok(seal), _) => seal,
        (Err(_), Some(anchored)) => return Ok(Ok(Some(anchored))),
        (Err(_), None) if !expected => return Ok(Ok(None)),
        (Err(why), None) => {
            return Ok(Err(Verdict::of_log(format!(
                "the checkpoint key cannot be decrypted, so a rewritten log would not be detected: {why}. With --anchor the seal key is not needed"
            ))));
        }
    };
    Ok(match checkpoint::verifier(conn, seal)? {
        Ok(None) if expected => Err(Verdict::of_log(
            "the checkpoint key is missing: it was removed, or this version has not served this directory yet",
        )),
        Ok(verifier) => Ok(verifier),
        Err(error) => Err(Verdict::of_log(error.to_string())),
    })
}

fn covers(
    conn: &Conn<'_>,
    entry: &Entry<'_>,
    covered: &checkpoint::Checkpoint,
) -> Result<Result<(), &'static str>, Fault> {
    let before = covered.seq < entry.seq;
    let same = audit::hash_at(conn, covered.seq)?.is_some_and(|hash| hash == covered.hash);
    Ok(if before && same {
        Ok(())
    } else {
        Err("is a checkpoint of another log: an earlier record was changed and the chain rewritten")
    })
}

/// The end of the log against what is noted outside the database.
fn end(
    conn: &Conn<'_>,
    verified: &Verified,
    outside: &Outside,
) -> Result<Result<Option<i64>, Verdict>, Fault> {
    let noted = match &outside.noted {
        Err(error) => return Ok(Err(Verdict::of_log(error.to_string()))),
        Ok(None) if db::needs_noted(conn)? => {
            return Ok(Err(Verdict::of_log(format!(
                "{AUDIT_HEAD} is missing: it records where the log ended"
            ))));
        }
        Ok(None) => return Ok(Ok(None)),
        Ok(Some(noted)) => &noted.head,
    };
    let records = verified.records;
    if records < noted.seq() {
        return Ok(Err(Verdict::of_log(format!(
            "the log ends at record {records}, but {AUDIT_HEAD} says that record {} was written: the end was cut off, or the database is an older copy",
            noted.seq()
        ))));
    }
    let same =
        noted.seq() == 0 || audit::hash_at(conn, noted.seq())?.is_some_and(|hash| hash == noted.hash());
    Ok(if same {
        Ok(Some(noted.seq()))
    } else {
        Err(Verdict::at(
            noted.seq(),
            format!("is not the one that {AUDIT_HEAD} names: the log was rewritten"),
        ))
    })
}

/// The log against a checkpoint that was kept elsewhere.
fn compare(
    conn: &Conn<'_>,
    verified: &Verified,
    anchor: Result<checkpoint::Checkpoint, BadCheckpoint>,
) -> Result<Result<i64, Verdict>, Fault> {
    let anchor = match anchor {
        Ok(anchor) => anchor,
        Err(bad) => {
            return Ok(Err(Verdict::of_log(format!("the anchor does not belong to this log: {bad}"))));
        }
    };
    if verified.records < anchor.seq {
        return Ok(Err(Verdict::of_log(format!(
            "the log ends at record {}, but the anchor of {} names record {}: the end was cut off, or the directory is an older copy",
            verified.records, anchor.time, anchor.seq
        ))));
    }
    if audit::hash_at(conn, anchor.seq)?.is_none_or(|hash| hash != anchor.hash) {
        return Ok(Err(Verdict::at(
            anchor.seq,
            format!("is not the one that the anchor of {} names: the log was rewritten", anchor.time),
        )));
    }
    Ok(Ok(anchor.seq))
}

fn announce(report: &Report, options: &Verify) -> anyhow::Result<()> {
    let Report { verified, checkpoints, signed_to, noted, anchor } = report;
    if options.json {
        return output::json(&json!({
            "ok": true,
            "records": verified.records,
            "head": verified.head,
            "checkpoints": checkpoints,
            "signed_to": signed_to,
            "noted": noted,
            "anchor": anchor,
            "truncation_checked": anchor.is_some(),
        }));
    }
    say!("The audit log is intact: {} records, head {}.", verified.records, verified.head)?;
    say!("Checkpoints: {checkpoints}; the last one covers record {signed_to}.")?;
    match anchor {
        Some(seq) => say!("It continues from the anchor, record {seq}."),
        None => say!(
            "An older copy of the whole data directory cannot be detected without --anchor FILE, which compares the log with a checkpoint kept elsewhere."
        ),
    }
}
