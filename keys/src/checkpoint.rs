//! Checkpoints of the audit log (AUDIT-03): signed statements of the log's state at a record, made with a key
//! that signs nothing else.
//!
//! An attacker who can write to the database can recompute the hash chain, but cannot sign, because the key is
//! sealed. And a checkpoint stored elsewhere shows that a data directory is an older copy, which the directory
//! alone cannot show.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::audit::{self, Event, Head, Name};
use shared::db::{Conn, params};
use shared::{Clock, Db, Fault, Timestamp, Tx};

use crate::algorithm::Algorithm;
use crate::jwt::{self, SigningKey, VerifyingKey};
use crate::seal::{Purpose, Seal};
use crate::{CryptoFailed, KeysError};

/// A checkpoint is due after this many records.
pub const RECORDS: i64 = 1000;
/// A checkpoint is due after this time, if there are new records.
pub const PERIOD: Duration = Duration::from_hours(1);

const TYP: &str = "portcullis-checkpoint+jws";
const TABLE: &str = "setting";
/// The name of the setting that holds the sealed private key.
const NAME: &str = "checkpoint_key";
/// The member of a record's `detail` that holds the checkpoint.
pub const MEMBER: &str = "checkpoint";

/// The signed content.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The hash of the record, which covers all earlier ones.
    pub hash: String,
    /// The record's number.
    pub seq: i64,
    /// When it was signed.
    pub time: String,
}

/// Why a text is not a checkpoint of this log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadCheckpoint {
    #[error("it is not a checkpoint")]
    Malformed,
    #[error("it was signed with another key")]
    OtherKey,
    #[error("its signature is wrong")]
    Signature,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    jwk: Public,
    typ: String,
}

/// The public key (RFC 8037 §2). Each checkpoint contains it, so that it can be read without the database.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Public {
    crv: String,
    kty: String,
    x: String,
}

/// Verifies checkpoints with one key.
pub struct CheckpointVerifier {
    public: Public,
    verifying: VerifyingKey,
}

impl CheckpointVerifier {
    /// A verifier with the key in the checkpoint itself. The caller must know from elsewhere that the key is
    /// trusted.
    ///
    /// # Errors
    /// See [`BadCheckpoint`].
    pub fn named_by(compact: &str) -> Result<Self, BadCheckpoint> {
        let (header, _, _) = jwt::three_parts(compact).ok_or(BadCheckpoint::Malformed)?;
        let header: Header = jwt::object(header).ok_or(BadCheckpoint::Malformed)?;
        let jwk = json!(header.jwk).to_string();
        let (verifying, _) =
            jwt::public_from_jwk(Algorithm::EdDsa, jwk.as_bytes()).map_err(|_| BadCheckpoint::Malformed)?;
        Ok(Self { public: header.jwk, verifying })
    }

    /// The content of a checkpoint that this key signed.
    ///
    /// # Errors
    /// See [`BadCheckpoint`].
    pub fn verify(&self, compact: &str) -> Result<Checkpoint, BadCheckpoint> {
        let (header, payload, signature) = jwt::three_parts(compact).ok_or(BadCheckpoint::Malformed)?;
        let message = &compact[..header.len() + 1 + payload.len()];
        let header: Header = jwt::object(header).ok_or(BadCheckpoint::Malformed)?;
        if header.alg != Algorithm::EdDsa.as_str() || header.typ != TYP {
            return Err(BadCheckpoint::Malformed);
        }
        if header.jwk != self.public {
            return Err(BadCheckpoint::OtherKey);
        }
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).map_err(|_| BadCheckpoint::Malformed)?;
        if !self.verifying.verifies(message.as_bytes(), &signature) {
            return Err(BadCheckpoint::Signature);
        }
        jwt::object(payload).ok_or(BadCheckpoint::Malformed)
    }
}

/// The key that signs checkpoints.
struct CheckpointKey {
    header: String,
    signing: SigningKey,
    verifier: CheckpointVerifier,
}

impl CheckpointKey {
    fn of(private: &[u8]) -> Result<Self, CryptoFailed> {
        let (verifying, jwk) = jwt::public_half(Algorithm::EdDsa, private)?;
        let member = |name: &str| jwk.json()[name].as_str().unwrap_or_default().to_owned();
        let public = Public { crv: member("crv"), kty: member("kty"), x: member("x") };
        let header = json!({ "alg": Algorithm::EdDsa.as_str(), "jwk": public, "typ": TYP }).to_string();
        Ok(Self {
            header: BASE64URL_NOPAD.encode(header.as_bytes()),
            signing: SigningKey::from_der(Algorithm::EdDsa, jwk.kid(), private)?,
            verifier: CheckpointVerifier { public, verifying },
        })
    }

    fn find(conn: &Conn<'_>, seal: &Seal) -> Result<Option<Result<Self, KeysError>>, Fault> {
        let Some(sealed) = stored(conn)? else { return Ok(None) };
        let kid = || "of the audit log's checkpoints".to_owned();
        Ok(Some(match seal.unseal(Purpose::CheckpointKey, TABLE, NAME.as_bytes(), &sealed) {
            Ok(private) => Self::of(&private).map_err(KeysError::from),
            Err(cause) => Err(KeysError::Sealed { kid: kid(), cause }),
        }))
    }

    fn sign(&self, head: &Head, at: Timestamp) -> Result<String, CryptoFailed> {
        let checkpoint = json!({ "hash": head.hash(), "seq": head.seq(), "time": at.to_string() });
        self.signing.compact(&self.header, checkpoint.to_string().as_bytes())
    }
}

fn stored(conn: &Conn<'_>) -> Result<Option<Vec<u8>>, Fault> {
    let text: Option<String> =
        conn.query_row("SELECT value FROM setting WHERE name = ?1", params![NAME], |row| row.get(0))?;
    let bad = |_| Fault::Corrupt("the key of the audit log's checkpoints is not text of ours".to_owned());
    text.map(|text| BASE64URL_NOPAD.decode(text.as_bytes()).map_err(bad)).transpose()
}

fn store(tx: &Tx<'_>, sealed: &[u8]) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
        params![NAME, BASE64URL_NOPAD.encode(sealed)],
    )
    .map(drop)
}

/// Seals the key with the new sealing key. Answers with the number of values.
pub(crate) fn reseal(
    tx: &Tx<'_>,
    sealed_already: impl Fn(&[u8]) -> bool,
    anew: impl FnOnce(&str, &[u8], &[u8]) -> Result<Vec<u8>, Fault>,
) -> Result<usize, Fault> {
    let Some(sealed) = stored(tx)?.filter(|sealed| !sealed_already(sealed)) else { return Ok(0) };
    store(tx, &anew(TABLE, NAME.as_bytes(), &sealed)?)?;
    Ok(1)
}

/// The verifier for the checkpoints of a database, if it has a checkpoint key.
///
/// # Errors
/// The inner error if the key cannot be unsealed; the outer one is a database fault.
pub fn verifier(
    conn: &Conn<'_>,
    seal: &Seal,
) -> Result<Result<Option<CheckpointVerifier>, KeysError>, Fault> {
    let found = CheckpointKey::find(conn, seal)?.transpose();
    Ok(found.map(|key| key.map(|key| key.verifier)))
}

/// Whether a database should have checkpoints: it has signing keys, and so a sealing key.
///
/// # Errors
/// A database fault.
pub fn expected(conn: &Conn<'_>) -> Result<bool, Fault> {
    crate::store::any(conn)
}

/// A new checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewCheckpoint {
    /// The compact serialization.
    pub checkpoint: String,
    /// The last record that it covers.
    pub seq: i64,
    /// Its hash.
    pub hash: String,
}

/// Makes checkpoints. Cheap to clone.
#[derive(Clone)]
pub struct Checkpoints(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Clock,
    key: CheckpointKey,
    /// The last record that a checkpoint covers or contains, and when it was made.
    last: Mutex<(i64, Timestamp)>,
}

impl fmt::Debug for Checkpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checkpoints")
    }
}

impl Checkpoints {
    /// Opens the key, or makes it together with the first checkpoint, so that a log with a key always has one.
    /// Blocks.
    ///
    /// # Errors
    /// See [`KeysError`].
    pub fn open(db: &Db, seal: &Arc<Seal>, clock: &Clock) -> Result<Self, KeysError> {
        let key = match db.read(|conn| CheckpointKey::find(conn, seal))?.transpose()? {
            Some(key) => key,
            None => make_key(db, seal, clock)?,
        };
        let last = (db.read(last)?, clock.now());
        Ok(Self(Arc::new(Inner { db: db.clone(), clock: clock.clone(), key, last: Mutex::new(last) })))
    }

    /// Makes a checkpoint if there are enough new records, or old enough ones. Blocks.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn make_if_due(&self) -> Result<(), KeysError> {
        let (last, at) = *self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        let head = self.0.db.read(audit::head)?;
        let (records, now) = (head.seq() - last, self.0.clock.now());
        if records >= RECORDS || (records > 0 && now.since(at) >= PERIOD) {
            self.make(Event::by_server)?;
        }
        Ok(())
    }

    /// Makes a checkpoint if there is any new record. Blocks.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn cover(&self) -> Result<(), KeysError> {
        let (last, _) = *self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        if self.0.db.read(audit::head)?.seq() > last {
            self.make(Event::by_server)?;
        }
        Ok(())
    }

    /// Signs the current end of the log and appends the checkpoint to it. Blocks.
    ///
    /// # Errors
    /// A fault of the database or of the cryptographic library.
    pub fn make(&self, by: impl FnOnce(Event) -> Event) -> Result<NewCheckpoint, KeysError> {
        // Sign here and not in the job, so that the writer does not wait. The job's commit makes the signed
        // records durable too.
        let head = self.0.db.read(audit::head)?;
        let checkpoint = self.0.key.sign(&head, self.0.clock.now())?;
        let event = event(by, &head, &checkpoint);
        let own = self.0.db.write_blocking(move |tx| {
            audit::append(tx, event)?;
            Ok(audit::head(tx)?.seq())
        })?;
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = (own, self.0.clock.now());
        Ok(NewCheckpoint { checkpoint, seq: head.seq(), hash: head.hash().to_owned() })
    }
}

fn event(by: impl FnOnce(Event) -> Event, head: &Head, checkpoint: &str) -> Event {
    by(Event::allowed(Name::AuditCheckpoint)).detail("seq", head.seq()).detail(MEMBER, checkpoint)
}

/// Makes the key and its first checkpoint in one transaction.
fn make_key(db: &Db, seal: &Arc<Seal>, clock: &Clock) -> Result<CheckpointKey, KeysError> {
    let private = jwt::generate(Algorithm::EdDsa)?;
    let key = CheckpointKey::of(&private)?;
    let sealed = seal.seal(Purpose::CheckpointKey, TABLE, NAME.as_bytes(), &private);
    let head = db.read(audit::head)?;
    let event = event(Event::by_server, &head, &key.sign(&head, clock.now())?);
    db.write_blocking(move |tx| {
        store(tx, &sealed)?;
        audit::append(tx, event)
    })?;
    Ok(key)
}

/// The number of the last checkpoint, or of the last record if only a few follow the checkpoint.
fn last(conn: &Conn<'_>) -> Result<i64, Fault> {
    let head = audit::head(conn)?.seq();
    let found = conn.query_row(
        "SELECT seq FROM audit WHERE seq > ?1 AND event = 'audit.checkpoint' ORDER BY seq DESC LIMIT 1",
        params![head - 2 * RECORDS],
        |row| row.get(0),
    )?;
    // If none was found, a checkpoint is due at once.
    Ok(found.unwrap_or(head - 2 * RECORDS))
}

/// The checkpoint in a record, if the record is one.
pub fn checkpoint_in(record: &Value) -> Option<&Value> {
    (record["event"] == Name::AuditCheckpoint.as_str()).then(|| &record["detail"][MEMBER])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::Source;

    fn open(dir: &std::path::Path, clock: &Clock) -> (Db, Checkpoints) {
        let db = Db::open(&dir.join("x.db"), &shared::schema::SCHEMA, None, clock).unwrap();
        let seal = Arc::new(Seal::open(Source::File(dir.join("seal.key")), true).unwrap());
        let checkpoints = Checkpoints::open(&db, &seal, clock).unwrap();
        (db, checkpoints)
    }

    fn record(db: &Db, count: i64) {
        db.write_blocking(move |tx| {
            (0..count).try_for_each(|_| audit::append(tx, Event::allowed(Name::UserCreated).by_server()))
        })
        .unwrap();
    }

    fn made(db: &Db) -> Vec<i64> {
        let covered = "SELECT json_extract(record, '$.detail.seq') FROM audit WHERE event = 'audit.checkpoint' ORDER BY seq";
        db.read(|conn| conn.query(covered, [], |row| row.get(0))).unwrap()
    }

    /// AUDIT-03: a checkpoint is made with the key, then after 1000 records or an hour, and none without new
    /// records; a restart continues the count.
    #[test]
    fn checkpoints_are_made_as_they_are_due() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::held(Timestamp(1_000));
        let (db, checkpoints) = open(dir.path(), &clock);
        assert_eq!(made(&db), [0]);
        record(&db, RECORDS - 1);
        checkpoints.make_if_due().unwrap();
        assert_eq!(made(&db), [0]);
        record(&db, 1);
        checkpoints.make_if_due().unwrap();
        assert_eq!(made(&db), [0, RECORDS + 1]);
        clock.advance(PERIOD);
        checkpoints.make_if_due().unwrap();
        checkpoints.cover().unwrap();
        assert_eq!(made(&db).len(), 2, "there is nothing new");
        record(&db, 1);
        checkpoints.make_if_due().unwrap();
        assert_eq!(made(&db).len(), 3);
        record(&db, 1);
        drop((db, checkpoints));
        let (db, checkpoints) = open(dir.path(), &clock);
        checkpoints.cover().unwrap();
        checkpoints.cover().unwrap();
        assert_eq!(made(&db).len(), 4);
    }

    /// AUDIT-03, AUDIT-05: the log contains the whole checkpoint, it says what it covers, and only its own
    /// key's signature is accepted.
    #[test]
    fn only_its_own_key_signs_a_checkpoint() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let clock = Clock::held(Timestamp(1_000));
        let ((db, ours), (_db, theirs)) = (open(one.path(), &clock), open(two.path(), &clock));
        record(&db, 5);
        let made = ours.make(Event::by_server).unwrap();
        let last = db.read(|conn| audit::tail(conn, 1, 0)).unwrap().remove(0);
        assert_eq!(checkpoint_in(&last).unwrap(), made.checkpoint.as_str());
        let verifier = CheckpointVerifier::named_by(&made.checkpoint).unwrap();
        let said = verifier.verify(&made.checkpoint).unwrap();
        assert_eq!((said.seq, &said.hash), (made.seq, &made.hash));
        assert_eq!(said.seq, 6);
        let other = theirs.make(Event::by_server).unwrap().checkpoint;
        assert_eq!(verifier.verify(&other), Err(BadCheckpoint::OtherKey));
        let parts: Vec<_> = made.checkpoint.split('.').collect();
        let others: Vec<_> = other.split('.').collect();
        let put = |header: &str, payload: &str, signature: &str| {
            verifier.verify(&[header, payload, signature].join("."))
        };
        assert_eq!(put(parts[0], others[1], parts[2]), Err(BadCheckpoint::Signature));
        assert_eq!(put(parts[0], parts[1], others[2]), Err(BadCheckpoint::Signature));
        let header = |alg: &str, typ: &str| {
            let header = json!({ "alg": alg, "jwk": verifier.public, "typ": typ });
            BASE64URL_NOPAD.encode(header.to_string().as_bytes())
        };
        for (alg, typ) in [("none", TYP), ("HS256", TYP), ("EdDSA", "at+jwt")] {
            assert_eq!(
                put(&header(alg, typ), parts[1], parts[2]),
                Err(BadCheckpoint::Malformed),
                "{alg} {typ}"
            );
        }
        for text in ["", ".", "..", "a.b.c", &made.checkpoint[1..]] {
            assert_eq!(verifier.verify(text), Err(BadCheckpoint::Malformed), "{text}");
        }
    }
}
