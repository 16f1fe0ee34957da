//! Device authorizations (RFC 8628), and the browsers in which their codes were typed.

use std::time::Duration;

use shared::db::{Conn, Row, params};
use shared::share::{self, Full, Holder};
use shared::{ClientId, Digest, Fault, GrantId, ResourceUri, Scope, Timestamp, Tx};

use super::clients::Client;
use super::transactions::Assertion;
use crate::current::Current;

/// A device authorization.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    /// The digest of its device code.
    pub code: Digest,
    pub client_id: ClientId,
    pub scope: Scope,
    pub resource: ResourceUri,
    /// The device's address, which is shown to the user.
    pub address: Option<String>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// The minimum interval between polls.
    pub interval: Duration,
    pub polled_at: Option<Timestamp>,
    pub stage: Stage,
}

/// Its state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    Waiting,
    Denied,
    Approved(GrantId),
    Spent { grant: GrantId, at: Timestamp },
}

const COLUMNS: &str =
    "SELECT device_code, client_id, scope, resource, address, created_at, expires_at, interval_ms, polled_at,
     decided_at, grant_id, spent_at FROM device_authorization";

fn device(row: &Row<'_>) -> Result<Device, Fault> {
    let (decided_at, grant, spent_at): (Option<Timestamp>, Option<GrantId>, Option<Timestamp>) =
        (row.get(9)?, row.get(10)?, row.get(11)?);
    let stage = match (decided_at, grant, spent_at) {
        (None, None, None) => Stage::Waiting,
        (Some(_), None, None) => Stage::Denied,
        (Some(_), Some(grant), None) => Stage::Approved(grant),
        (Some(_), Some(grant), Some(at)) => Stage::Spent { grant, at },
        _ => return Err(Fault::Corrupt("a device that was approved and not decided".to_owned())),
    };
    Ok(Device {
        code: row.get(0)?,
        client_id: row.get(1)?,
        scope: row.get(2)?,
        resource: row.get(3)?,
        address: row.get(4)?,
        created_at: row.get(5)?,
        expires_at: row.get(6)?,
        interval: Duration::from_millis(u64::from(row.get::<u32>(7)?)),
        polled_at: row.get(8)?,
        stage,
    })
}

/// How long an expired code still gets `expired_token` instead of the error for an unknown code.
const REMEMBERED: Duration = Duration::from_mins(10);

/// Makes room for one more device of this holder: expired ones go first, then one of the holder with most
/// pending devices (RATE-06). An approved device stays as long as its grant, so that a replay is recognised.
pub(crate) fn make_room(tx: &Tx<'_>, holder: &Holder) -> Result<Result<(), Full>, Fault> {
    sweep(tx)?;
    share::make_room(tx, &share::DEVICES, holder)
}

/// Stores a pending device; false if its user code is in use.
pub(crate) fn insert(
    tx: &Tx<'_>,
    device: &Device,
    user_code: &Digest,
    client: &Current<'_, Client>,
    holder: &Holder,
) -> Result<bool, Fault> {
    let stored = tx.execute(
        "INSERT INTO device_authorization (device_code, user_code, client_id, scope, resource, address, created_at, expires_at, interval_ms, holder, network)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (user_code) DO NOTHING",
        params![
            device.code,
            user_code,
            client.id,
            device.scope,
            device.resource,
            device.address,
            device.created_at,
            device.expires_at,
            milliseconds(device.interval),
            holder.name(),
            holder.network()
        ],
    )?;
    Ok(stored == 1)
}

/// Deletes expired devices without a grant, with the rows of their typed codes.
pub(crate) fn sweep(tx: &Tx<'_>) -> Result<(), Fault> {
    tx.execute(
        "DELETE FROM device_authorization WHERE expires_at < ?1 AND grant_id IS NULL",
        params![tx.now() - REMEMBERED],
    )?;
    Ok(())
}

fn milliseconds(interval: Duration) -> u32 {
    u32::try_from(interval.as_millis()).unwrap_or(u32::MAX)
}

/// The device with this device code, in any state.
pub(crate) fn find(conn: &Conn<'_>, device_code: &Digest) -> Result<Option<Device>, Fault> {
    conn.query_row(&format!("{COLUMNS} WHERE device_code = ?1"), params![device_code], device)
}

/// The device with this user code, in any state.
pub(crate) fn find_by_user_code(conn: &Conn<'_>, user_code: &Digest) -> Result<Option<Device>, Fault> {
    conn.query_row(&format!("{COLUMNS} WHERE user_code = ?1"), params![user_code], device)
}

/// Stores the time of a poll and the interval until the next one.
pub(crate) fn polled(tx: &Tx<'_>, device_code: &Digest, interval: Duration) -> Result<(), Fault> {
    tx.execute(
        "UPDATE device_authorization SET polled_at = ?2, interval_ms = ?3 WHERE device_code = ?1",
        params![device_code, tx.now(), milliseconds(interval)],
    )?;
    Ok(())
}

/// Decides a device: a refusal, unless [`approve`] follows. False if it was decided before or has expired. A
/// decided device no longer counts for its holder, and other browsers in which its code was typed have nothing
/// left to decide.
pub(crate) fn decide(tx: &Tx<'_>, device_code: &Digest) -> Result<bool, Fault> {
    let changed = tx.execute(
        "UPDATE device_authorization SET decided_at = ?2, holder = NULL, network = NULL
         WHERE device_code = ?1 AND decided_at IS NULL AND expires_at > ?2",
        params![device_code, tx.now()],
    )?;
    tx.execute(
        "UPDATE device_transaction SET decided_at = ?2 WHERE device_code = ?1 AND decided_at IS NULL",
        params![device_code, tx.now()],
    )?;
    Ok(changed == 1)
}

/// Stores the grant of a device that was just decided.
pub(crate) fn approve(tx: &Tx<'_>, device_code: &Digest, grant: &GrantId) -> Result<(), Fault> {
    tx.execute(
        "UPDATE device_authorization SET grant_id = ?2 WHERE device_code = ?1",
        params![device_code, grant],
    )?;
    Ok(())
}

/// Marks an approved device code spent; false if it was spent before. Check and mark are one statement.
pub(crate) fn spend(tx: &Tx<'_>, device_code: &Digest) -> Result<bool, Fault> {
    let changed = tx.execute(
        "UPDATE device_authorization SET spent_at = ?2 WHERE device_code = ?1 AND grant_id IS NOT NULL AND spent_at IS NULL",
        params![device_code, tx.now()],
    )?;
    Ok(changed == 1)
}

/// A browser in which a device's code was typed.
#[derive(Clone, Debug)]
pub(crate) struct Typed {
    /// The handle, `d_…`; the prefix tells it from that of an authorization request.
    pub id: String,
    pub device_code: Digest,
    pub browser: Digest,
    /// The passkey assertion made for it.
    pub signed_in: Option<Assertion>,
    pub expires_at: Timestamp,
    pub decided: bool,
}

/// The most browsers in which one code may be typed (RATE-03).
const MOST_TYPED: u32 = 16;

/// Stores that a code was typed by this holder. Beyond [`MOST_TYPED`], the holder who typed this code most
/// often makes room, if that was more than once (RATE-06).
pub(crate) fn insert_typed(
    tx: &Tx<'_>,
    typed: &Typed,
    device: &Current<'_, Device>,
    holder: &Holder,
) -> Result<Result<(), Full>, Fault> {
    if is_typed_often(tx, &device.code)? {
        let most = tx.query_row(
            "SELECT network FROM device_transaction WHERE device_code = ?1 AND network IS NOT NULL
             GROUP BY network HAVING count(*) > 1 ORDER BY count(*) DESC LIMIT 1",
            params![device.code],
            |row| row.get::<String>(0),
        )?;
        let Some(network) = most else {
            share::count(tx, share::TYPED_CODES.table, "", "full")?;
            return Ok(Err(Full::of(&share::TYPED_CODES)));
        };
        share::count(tx, share::TYPED_CODES.table, &network, "made_room")?;
        tx.execute(
            "DELETE FROM device_transaction WHERE id =
             (SELECT id FROM device_transaction WHERE device_code = ?1 AND network = ?2 ORDER BY created_at, rowid LIMIT 1)",
            params![device.code, network],
        )?;
    }
    if let Err(full) = share::make_room(tx, &share::TYPED_CODES, holder)? {
        return Ok(Err(full));
    }
    tx.execute(
        "INSERT INTO device_transaction (id, device_code, browser, created_at, expires_at, holder, network)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            typed.id,
            device.code,
            typed.browser,
            tx.now(),
            typed.expires_at,
            holder.name(),
            holder.network()
        ],
    )?;
    Ok(Ok(()))
}

/// Whether the code of this device was typed in [`MOST_TYPED`] browsers.
pub(crate) fn is_typed_often(conn: &Conn<'_>, device_code: &Digest) -> Result<bool, Fault> {
    let sql = "SELECT count(*) FROM device_transaction WHERE device_code = ?1";
    let typed = conn.query_row(sql, params![device_code], |row| row.get::<u32>(0))?;
    Ok(typed.unwrap_or(0) >= MOST_TYPED)
}

/// The row with this handle, expired or not.
pub(crate) fn find_typed(conn: &Conn<'_>, id: &str) -> Result<Option<Typed>, Fault> {
    conn.query_row(
        "SELECT id, device_code, browser, session, user_id, proof, expires_at, decided_at FROM device_transaction WHERE id = ?1",
        params![id],
        |row| {
            let decided_at: Option<Timestamp> = row.get(7)?;
            Ok(Typed {
                id: row.get(0)?,
                device_code: row.get(1)?,
                browser: row.get(2)?,
                signed_in: Assertion::of(row.get(3)?, row.get(4)?, row.get(5)?),
                expires_at: row.get(6)?,
                decided: decided_at.is_some(),
            })
        },
    )
}

#[cfg(test)]
mod tests {
    use shared::{Clock, Db};

    use super::*;
    use crate::store::clients::{self, AuthMethod, Client, Registration, Source, Trust};

    struct Fixture {
        db: Db,
        clock: Clock,
        client: ClientId,
        _dir: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let clock = Clock::held(Timestamp(1_000_000));
            let db = Db::open(&dir.path().join("x.db"), &shared::schema::SCHEMA, None, &clock).unwrap();
            let client = Client {
                id: ClientId::parse("c_x").unwrap(),
                name: "Lab console".to_owned(),
                source: Source::Administrator,
                trust: Trust::Verified,
                auth_method: AuthMethod::None,
                auth_defaulted: false,
                jwks: None,
                grant_types: Vec::new(),
                redirect_uris: Vec::new(),
                scope: Scope::empty(),
                disabled: false,
            };
            let id = client.id.clone();
            let registration = Registration {
                application_type: "native",
                metadata: "{}",
                fingerprint: None,
                management: None,
                holder: None,
            };
            db.write_blocking(move |tx| clients::insert(tx, &client, &registration)).unwrap();
            Self { db, clock, client: id, _dir: dir }
        }

        fn device(&self, code: &str) -> Device {
            Device {
                code: Digest::of(code.as_bytes()),
                client_id: self.client.clone(),
                scope: "docs.read".parse().unwrap(),
                resource: ResourceUri::parse("http://localhost:1/mcp").unwrap(),
                address: None,
                created_at: self.clock.now(),
                expires_at: self.clock.now() + Duration::from_mins(10),
                interval: Duration::from_secs(5),
                polled_at: None,
                stage: Stage::Waiting,
            }
        }

        fn insert(&self, device: Device, user_code: Digest) -> bool {
            self.write(move |tx| {
                let client = Current::read(tx, |tx| clients::find(tx, &device.client_id))?.found().unwrap();
                insert(tx, &device, &user_code, &client, &here())
            })
        }

        fn write<T: Send + 'static>(
            &self,
            job: impl FnOnce(&Tx<'_>) -> Result<T, Fault> + Send + 'static,
        ) -> T {
            self.db.write_blocking(job).unwrap()
        }
    }

    fn here() -> Holder {
        Holder::from(&shared::Request::from(None))
    }

    /// CONSENT-06, STORE-02: a device is decided once, by the first user to answer, and not after it expired.
    #[test]
    fn a_device_is_decided_once_and_in_time() {
        let x = Fixture::new();
        for code in ["a", "b"] {
            let device = x.device(code);
            assert!(x.insert(device, Digest::of(code.as_bytes())));
        }
        let decide = |code: &'static str| x.write(move |tx| decide(tx, &Digest::of(code.as_bytes())));
        assert!(decide("a"));
        assert!(!decide("a"));
        let stage = x.db.read(|conn| find(conn, &Digest::of(b"a"))).unwrap().unwrap().stage;
        assert_eq!(stage, Stage::Denied, "nothing was approved");
        x.clock.advance(Duration::from_mins(10));
        assert!(!decide("b"));
        assert!(!decide("unknown"));
    }

    /// TOKEN-05: only an approved device code can be spent.
    #[test]
    fn only_what_was_approved_is_spent() {
        let x = Fixture::new();
        let device = x.device("a");
        x.insert(device, Digest::of(b"a"));
        assert!(!x.write(|tx| spend(tx, &Digest::of(b"a"))));
        x.write(|tx| decide(tx, &Digest::of(b"a")));
        assert!(!x.write(|tx| spend(tx, &Digest::of(b"a"))));
    }

    /// DEV-01: two pending devices never have the same user code.
    #[test]
    fn a_user_code_is_taken_once() {
        let x = Fixture::new();
        let (first, second) = (x.device("a"), x.device("b"));
        let code = Digest::of(b"WDJBMJHT");
        assert!(x.insert(first, code));
        assert!(!x.insert(second, code));
        let found = x.db.read(|conn| find_by_user_code(conn, &code)).unwrap().unwrap();
        assert_eq!(found.code, Digest::of(b"a"));
    }
}
