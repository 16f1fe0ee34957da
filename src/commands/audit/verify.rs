//! `portcullis audit verify`: checks the log against its chain, its checkpoints, and what is known outside the
//! database.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use keys::Seal;
use keys::checkpoint::{self, BadCheckpoint, CheckpointVerifier};
use serde_json::{Value, json};
use shared::Fault;
use shared::audit::{self, Entry, FirstBadRecord, Verified};
use shared::data_dir::AUDIT_HEAD;
use shared::db::{self, Conn, MirrorContent, MirrorError};

use super::open;
use crate::config::{DataDirOption, File};
use crate::output::{self, say};

#[derive(Args, Debug)]
pub struct Verify {
    /// A checkpoint that was kept elsewhere. Without one an older copy of the whole data directory is not
    /// noticed.
    #[arg(long, value_name = "FILE")]
    pub anchor: Option<PathBuf>,
    /// The result as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub data: DataDirOption,
}

/// What is known from outside the database.
struct Outside {
    noted: Result<Option<MirrorContent>, MirrorError>,
    /// The file of `[audit] mirror`, if one is configured.
    mirror: Option<Mirror>,
    /// `None` if there is no seal key that could be read; the words say why.
    seal: Result<Seal, String>,
    anchor: Option<String>,
}

/// The file at another place.
struct Mirror {
    path: PathBuf,
    noted: Result<Option<MirrorContent>, MirrorError>,
}

/// The result.
struct Report {
    verified: Verified,
    checkpoints: i64,
    /// The last record that a checkpoint covers.
    signed_to: i64,
    noted: Option<i64>,
    mirror: Option<i64>,
    anchor: Option<i64>,
}

pub(super) fn verify(options: &Verify, dir: &Path, file: &File) -> anyhow::Result<()> {
    let seal = file.signing.seal_key.source(dir)?;
    let outside = Outside {
        // Before the database: it may be ahead of this, never behind.
        noted: db::noted(&dir.join(AUDIT_HEAD)),
        mirror: file.audit_mirror.clone().map(|path| Mirror { noted: db::noted_elsewhere(&path), path }),
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

/// Reads a checkpoint as it was printed, alone or in JSON.
fn anchor(path: &Path) -> anyhow::Result<String> {
    let text = shared::file::read_input(path).with_context(|| format!("cannot read {}", path.display()))?;
    let json: Option<Value> = serde_json::from_str(&text).ok();
    let compact = json.as_ref().and_then(|json| json["checkpoint"].as_str()).unwrap_or(text.trim());
    Ok(compact.to_owned())
}

/// What is wrong, and at which record.
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

impl From<FirstBadRecord> for Verdict {
    fn from(broken: FirstBadRecord) -> Self {
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
    let noted = match end(conn, &verified, AUDIT_HEAD, &outside.noted, db::needs_noted(conn)?)? {
        Ok(noted) => noted,
        Err(verdict) => return Ok(Err(verdict)),
    };
    let mirror = match &outside.mirror {
        Some(Mirror { path, noted }) => {
            match end(conn, &verified, &path.display().to_string(), noted, true)? {
                Ok(noted) => noted,
                Err(verdict) => return Ok(Err(verdict)),
            }
        }
        None => None,
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
    Ok(Ok(Report { verified, checkpoints, signed_to, noted, mirror, anchor }))
}

/// The key that verifies checkpoints: the sealed one; without the sealing key, the anchor's own.
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

/// Compares the end of the log with a file that says where it ended.
fn end(
    conn: &Conn<'_>,
    verified: &Verified,
    name: &str,
    noted: &Result<Option<MirrorContent>, MirrorError>,
    is_needed: bool,
) -> Result<Result<Option<i64>, Verdict>, Fault> {
    let noted = match noted {
        Err(error) => return Ok(Err(Verdict::of_log(error.to_string()))),
        Ok(None) if is_needed => {
            return Ok(Err(Verdict::of_log(format!("{name} is missing: it records where the log ended"))));
        }
        Ok(None) => return Ok(Ok(None)),
        Ok(Some(noted)) => &noted.head,
    };
    let records = verified.records;
    if records < noted.seq() {
        return Ok(Err(Verdict::of_log(format!(
            "the log ends at record {records}, but {name} says that record {} was written: the end was cut off, or the database is an older copy",
            noted.seq()
        ))));
    }
    let same =
        noted.seq() == 0 || audit::hash_at(conn, noted.seq())?.is_some_and(|hash| hash == noted.hash());
    Ok(if same {
        Ok(Some(noted.seq()))
    } else {
        Err(Verdict::at(noted.seq(), format!("is not the one that {name} names: the log was rewritten")))
    })
}

/// Compares the log with a checkpoint that was kept elsewhere.
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
    let Report { verified, checkpoints, signed_to, noted, mirror, anchor } = report;
    if options.json {
        return output::json(&json!({
            "ok": true,
            "records": verified.records,
            "head": verified.head,
            "checkpoints": checkpoints,
            "signed_to": signed_to,
            "noted": noted,
            "mirror": mirror,
            "anchor": anchor,
            "truncation_checked": anchor.is_some() || mirror.is_some(),
        }));
    }
    say!("The audit log is intact: {} records, head {}.", verified.records, verified.head)?;
    say!("Checkpoints: {checkpoints}; the last one covers record {signed_to}.")?;
    if let Some(seq) = mirror {
        say!("It reaches the end that the mirror elsewhere names, record {seq}.")?;
    }
    match anchor {
        Some(seq) => say!("It continues from the anchor, record {seq}."),
        None if mirror.is_some() => Ok(()),
        None => say!(
            "An older copy of the whole data directory cannot be detected without --anchor FILE, which compares the log with a checkpoint kept elsewhere, or `mirror` in [audit]."
        ),
    }
}
