//! Fairness of tables that strangers fill (RATE-06): the holder that fills a table loses its own rows.

use std::net::IpAddr;
use std::time::Duration;

use shared::audit::tail;
use shared::db::params;
use shared::rate::Origin;
use shared::share::{self, BoundedTable, Full, Growth, Holder, held};
use shared::{Digest, Fault, RedirectUri, Scope, Tx, UserId};

use super::ceremonies::{self, Ceremony, Purpose};
use super::clients::{self, AuthMethod, Client, Registration, Source, Trust};
use super::devices::{self, Device, Stage, Typed};
use super::transactions::{self, Transaction};
use super::{approval_requests, client_documents};
use crate::Authz;
use crate::clients::expiry;
use crate::current::Current;
use crate::testing::{TestServer, resource, scope};

type Made = Result<Result<(), Full>, Fault>;

/// Inserts a row into a table.
type Insert = fn(&Authz, &Tx<'_>, u32, &Holder) -> Made;

/// Each such table of this crate.
const TABLES: &[(BoundedTable, Insert)] = &[
    (share::CEREMONIES, |_, tx, n, holder| {
        let ceremony = Ceremony {
            browser: Digest::of(b"browser"),
            purpose: Purpose::SignIn { transaction: None },
            state: "{}".to_owned(),
            expires_at: tx.now() + Duration::from_mins(5),
        };
        ceremonies::insert(tx, &digest(n), &Current::read(tx, |_| Ok(ceremony))?, holder)
    }),
    (share::TRANSACTIONS, |_, tx, n, holder| {
        let transaction = Transaction {
            id: format!("t_{n}"),
            browser: Digest::of(b"browser"),
            client_id: shared::ClientId::parse(&format!("https://{n}.example/client")).unwrap(),
            redirect_uri: RedirectUri::parse("http://localhost/callback").unwrap(),
            state: None,
            code_challenge: "a".repeat(43),
            scope: scope(),
            resource: resource(),
            prompt_login: false,
            prompt_consent: false,
            max_age: None,
            signed_in: None,
            user_id: None,
            expires_at: tx.now() + Duration::from_mins(10),
            decided: false,
        };
        let client = Client { id: transaction.client_id.clone(), ..client(n) };
        transactions::insert(tx, &transaction, &Current::read(tx, |_| Ok(client))?, holder)
    }),
    (share::DEVICES, |_, tx, n, holder| {
        if let Err(full) = devices::make_room(tx, holder)? {
            return Ok(Err(full));
        }
        device(tx, n, holder)
    }),
    (share::TYPED_CODES, |_, tx, n, holder| {
        // Type each code once, so that the limit per code does not matter.
        device(tx, n, &Holder::from(origin(&format!("198.18.{}.{}", n / 200, n % 200))))?.unwrap();
        devices::insert_typed(tx, &typed(tx, n, n), &waiting(tx, n)?, holder)
    }),
    (share::CLIENTS, |authz, tx, n, holder| {
        if let Err(full) = expiry::make_room(authz, tx, holder)? {
            return Ok(Err(full));
        }
        let client = client(n);
        let registration = Registration {
            application_type: "native",
            metadata: "{}",
            fingerprint: None,
            management: None,
            holder: Some(holder),
        };
        clients::insert(tx, &client, &registration)?;
        Ok(Ok(()))
    }),
    (share::DOCUMENTS, |_, tx, n, holder| {
        let url = format!("https://{n}.example/client");
        let expires_at = tx.now() + Duration::from_hours(1);
        client_documents::keep_fetched(tx, &url, b"{}", expires_at, tx.now(), holder)
    }),
    (share::APPROVALS, |_, tx, n, holder| {
        let user = UserId::from_subject(holder.name());
        let redirect_uri = RedirectUri::parse("http://localhost/callback").unwrap();
        approval_requests::insert(tx, &format!("https://{n}.example/client"), &redirect_uri, &user)
    }),
];

fn digest(n: u32) -> Digest {
    Digest::of(&n.to_be_bytes())
}

fn origin(address: &str) -> Origin {
    Origin::of(address.parse::<IpAddr>().unwrap())
}

fn client(n: u32) -> Client {
    Client {
        id: shared::ClientId::parse(&format!("c_{n}")).unwrap(),
        name: format!("client {n}"),
        source: Source::SelfRegistered,
        trust: Trust::Known,
        auth_method: AuthMethod::None,
        auth_defaulted: false,
        jwks: None,
        grant_types: Vec::new(),
        redirect_uris: Vec::new(),
        scope: Scope::empty(),
        disabled: false,
    }
}

fn device(tx: &Tx<'_>, n: u32, holder: &Holder) -> Made {
    let device = Device {
        code: digest(n),
        client_id: shared::ClientId::parse("c_device").unwrap(),
        scope: scope(),
        resource: resource(),
        address: None,
        created_at: tx.now(),
        expires_at: tx.now() + Duration::from_mins(10),
        interval: Duration::from_secs(5),
        polled_at: None,
        stage: Stage::Waiting,
    };
    let client = Current::read(tx, |tx| clients::find(tx, &device.client_id))?.found().unwrap();
    assert!(devices::insert(tx, &device, &digest(n), &client, holder)?, "each user code is new");
    Ok(Ok(()))
}

fn waiting<'t>(tx: &'t Tx<'_>, code: u32) -> Result<Current<'t, Device>, Fault> {
    Ok(Current::read(tx, |tx| devices::find(tx, &digest(code)))?.found().unwrap())
}

fn typed(tx: &Tx<'_>, n: u32, code: u32) -> Typed {
    Typed {
        id: format!("d_{n}"),
        device_code: digest(code),
        browser: Digest::of(b"browser"),
        signed_in: None,
        expires_at: tx.now() + Duration::from_mins(10),
        decided: false,
    }
}

/// A table in its own database.
struct Filled {
    house: TestServer,
    kept: BoundedTable,
    insert: Insert,
    rows: u32,
}

impl Filled {
    fn new(kept: BoundedTable, insert: Insert) -> Self {
        let house = TestServer::new();
        house.client("c_device");
        Self { house, kept, insert, rows: 0 }
    }

    /// Inserts rows of this holder; answers with the number that found room.
    fn insert(&mut self, holder: &Holder, count: u32) -> u32 {
        self.insert_each((0..count).map(|_| holder.clone()).collect())
    }

    /// Inserts one row for each holder, in one job.
    fn insert_each(&mut self, holders: Vec<Holder>) -> u32 {
        let (insert, mut n) = (self.insert, self.rows);
        self.rows += u32::try_from(holders.len()).unwrap();
        self.house.write(move |authz, tx| {
            let mut made = 0;
            for holder in &holders {
                made += u32::from(insert(authz, tx, n, holder)?.is_ok());
                n += 1;
            }
            Ok(made)
        })
    }

    /// Inserts rows of this holder. In large tables most rows are copies of one, because inserting each would
    /// take a minute; the first rows, and those that find the table full, are inserted normally.
    fn flood(&mut self, holder: &Holder, count: u32) -> u32 {
        const ORDINARY: u32 = 50;
        if is_small(&self.kept) {
            return self.insert(holder, count);
        }
        let copied = self.kept.most - ORDINARY;
        let first = self.insert(holder, ORDINARY / 2);
        self.copy(holder, copied);
        first + copied + self.insert(holder, count - copied - ORDINARY / 2)
    }

    /// Copies a row of this holder, with a new key for each copy. The schema's triggers count the copies.
    fn copy(&self, holder: &Holder, count: u32) {
        let (table, name) = (self.kept.table, holder.name().to_owned());
        self.house.write(move |_, tx| {
            let columns = tx.query("SELECT name, type FROM pragma_table_info(?1)", params![table], |row| {
                Ok((row.get::<String>(0)?, row.get::<String>(1)?))
            })?;
            let copied = |(column, kind): &(String, String)| {
                let is_key = KEYS.contains(&(table, column));
                if is_key && kind == "BLOB" {
                    "randomblob(32)".to_owned()
                } else if is_key {
                    "'copy ' || n".to_owned()
                } else {
                    column.clone()
                }
            };
            let names: Vec<_> = columns.iter().map(|(column, _)| column.as_str()).collect();
            let values: Vec<_> = columns.iter().map(copied).collect();
            let sql = format!(
                "WITH RECURSIVE times (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM times WHERE n < ?1)
                 INSERT INTO {table} ({}) SELECT {} FROM (SELECT * FROM {table} WHERE holder = ?2 LIMIT 1), times",
                names.join(", "),
                values.join(", ")
            );
            let made = tx.execute(&sql, params![count, name])?;
            assert_eq!(made, usize::try_from(count).unwrap());
            Ok(())
        });
    }

    fn held(&self, holder: &Holder) -> u32 {
        let table = self.kept.table;
        self.house.db.read(|conn| held(conn, table, holder.network(), holder.name())).unwrap()
    }

    fn all(&self) -> u32 {
        self.house.db.read(|conn| held(conn, self.kept.table, "", "")).unwrap()
    }

    /// The audit log's count of this reason for a network.
    fn recorded(&self, reason: &str, network: Option<&str>) -> i64 {
        let flush = share::flush(&self.house.db);
        tokio::runtime::Runtime::new().unwrap().block_on(flush).unwrap();
        let records = self.house.db.read(|conn| tail(conn, 1_000_000, 0)).unwrap();
        let of_this = records.iter().filter(|record| {
            record["event"] == "rate.limited"
                && record["reason"] == reason
                && record["detail"]["table"] == self.kept.table
                && record["detail"]["holder"].as_str() == network
        });
        of_this.map(|record| record["detail"]["count"].as_i64().unwrap()).sum()
    }
}

/// The key columns of the large tables.
const KEYS: &[(&str, &str)] = &[
    ("ceremony", "digest"),
    ("authorization_transaction", "id"),
    ("device_authorization", "device_code"),
    ("device_authorization", "user_code"),
    ("device_transaction", "id"),
];

/// Behaviour common to all tables is tested with the small ones, because filling a large one takes long.
fn is_small(kept: &BoundedTable) -> bool {
    kept.most <= 1000
}

/// The holder of a table's rows: an address, or a user in tables that only users fill.
fn holder(house: &TestServer, kept: &BoundedTable, address: &str) -> Holder {
    if *kept == share::APPROVALS { Holder::user(&house.person(address).id) } else { origin(address).into() }
}

/// RATE-06: every table that strangers fill is tested here or in `resource`.
#[test]
fn every_table_that_strangers_fill_is_tested() {
    let tried: Vec<_> = TABLES.iter().map(|(kept, _)| *kept).collect();
    for (table, growth) in share::GROWTH {
        if let Growth::ByStrangers(kept) = growth {
            assert!(tried.contains(kept) || *kept == share::MCP_SESSIONS, "{table}");
        }
    }
}

/// RATE-06, AUDIT-06: in a full table, a flooding holder loses its own oldest rows; earlier holders keep
/// theirs, and later ones get room. This holds against one address and against an IPv6 /48, and is recorded as
/// a count.
#[test]
fn a_flood_makes_room_at_its_own_expense() {
    for (kept, insert) in TABLES {
        let mut table = Filled::new(*kept, *insert);
        let victim = holder(&table.house, kept, "192.0.2.1");
        let flood = holder(&table.house, kept, "203.0.113.9");
        let late = holder(&table.house, kept, "192.0.2.2");
        assert_eq!(table.insert(&victim, 1), 1, "{kept:?}");
        assert_eq!(table.flood(&flood, kept.most + 50), kept.most + 50, "{kept:?}");
        assert_eq!((table.held(&victim), table.all()), (1, kept.most), "{kept:?}");
        assert_eq!(table.insert(&late, 1), 1);
        assert_eq!((table.held(&victim), table.held(&late), table.held(&flood)), (1, 1, kept.most - 2));
        assert_eq!(table.recorded("made_room", Some(flood.network())), 52, "{kept:?}");
        assert_eq!(table.recorded("full", None), 0);
        if *kept == share::APPROVALS || !is_small(kept) {
            continue; // users have no networks
        }
        // A /48 floods with one row from each of its /64 networks, so that none of them has many.
        for step in 0..4 {
            let networks = step * kept.most / 4..(step + 1) * kept.most / 4;
            let one = |n| Holder::from(origin(&format!("2001:db8:7:{n:x}::1")));
            assert_eq!(table.insert_each(networks.map(one).collect()), kept.most / 4, "{kept:?}");
        }
        assert_eq!((table.held(&victim), table.held(&late), table.all()), (1, 1, kept.most));
        assert!(table.held(&flood) >= kept.share, "{kept:?}");
        assert!(table.recorded("made_room", Some("2001:db8:7::/48")) > 0, "{kept:?}");
    }
}

/// RATE-06: if no holder has more than a share, a newcomer is refused and that is recorded; a known user still
/// gets in.
#[test]
fn a_full_table_of_small_holders_turns_newcomers_away() {
    for (kept, insert) in TABLES.iter().filter(|(kept, _)| is_small(kept)) {
        let mut table = Filled::new(*kept, *insert);
        let mut each = Vec::new();
        for n in 0..kept.most / kept.share {
            let one = holder(&table.house, kept, &format!("10.1.{}.{}", n / 200, n % 200));
            each.extend((0..kept.share).map(|_| one.clone()));
        }
        assert_eq!(table.insert_each(each), kept.most, "{kept:?}");
        assert_eq!(table.all(), kept.most);
        let late = holder(&table.house, kept, "192.0.2.2");
        let is_person = *kept == share::APPROVALS;
        assert_eq!(table.insert(&late, 1), u32::from(is_person), "{kept:?}");
        assert_eq!(table.recorded("full", None), i64::from(!is_person), "{kept:?}");
        assert_eq!(table.recorded("made_room", None), 0);
        let ada = Holder::user(&table.house.person("ada").id);
        assert_eq!(table.insert(&ada, 1), 1, "{kept:?}");
    }
}

/// RATE-06: after a sign-in a row counts for the user and not for their address, which a flood may have made
/// the largest holder; rows that are decided, approved or expired count for no holder.
#[test]
fn rows_of_a_user_no_longer_count_for_their_address() {
    let (kept, insert) = TABLES[1];
    let mut table = Filled::new(kept, insert);
    let ada = table.house.person("ada");
    let (_, signed_in) = table.house.sign_in(&ada);
    let office: Holder = origin("203.0.113.9").into();
    table.insert(&office, 1);
    let assertion = transactions::Assertion {
        session: signed_in.session.digest,
        user_id: ada.id.clone(),
        proof: Digest::of(b"proof"),
    };
    table.house.write(move |_, tx| transactions::sign_in(tx, "t_0", &assertion));
    assert_eq!((table.held(&office), table.held(&Holder::user(&ada.id))), (0, 1));
    table.flood(&office, kept.most + 55);
    assert!(table.house.db.read(|conn| transactions::find(conn, "t_0")).unwrap().is_some());
    table.house.clock.advance(Duration::from_hours(1));
    table.house.write(|_, tx| transactions::sweep(tx));
    assert_eq!(table.all(), 0);
    let counted = table.house.db.read(|conn| held(conn, kept.table, "203.0.113.9", "203.0.113.9"));
    assert_eq!(counted.unwrap(), 0);

    let mut clients = Filled::new(TABLES[4].0, TABLES[4].1);
    clients.insert(&office, 3);
    clients.house.write(|_, tx| clients::touch(tx, &shared::ClientId::parse("c_0").unwrap()));
    clients
        .house
        .write(|_, tx| clients::set_trust(tx, &shared::ClientId::parse("c_1").unwrap(), Trust::Verified));
    assert_eq!((clients.held(&office), clients.all()), (1, 1));

    let mut devices = Filled::new(TABLES[2].0, TABLES[2].1);
    devices.insert(&office, 2);
    devices.house.write(|_, tx| devices::decide(tx, &digest(0)));
    assert_eq!(devices.all(), 1);
}

/// RATE-06: a code can be typed in a limited number of browsers. The holder who typed it most often makes room;
/// if each typed it once, no room is made.
#[test]
fn the_holder_who_typed_a_code_most_often_makes_room() {
    let house = TestServer::new();
    house.client("c_device");
    let type_it = |n: u32, address: &str| {
        let holder: Holder = origin(address).into();
        house.write(move |_, tx| {
            Ok(devices::insert_typed(tx, &typed(tx, n, 0), &waiting(tx, 0)?, &holder)?.is_ok())
        })
    };
    house.write(|_, tx| device(tx, 0, &origin("192.0.2.1").into())).unwrap();
    assert!(type_it(0, "192.0.2.1"));
    assert!((1..100).all(|n| type_it(n, "203.0.113.9")));
    assert!((100..200).all(|n| type_it(n, &format!("2001:db8:7:{n:x}::1"))));
    assert!(type_it(200, "192.0.2.2"));
    for n in [0, 200] {
        let found = house.db.read(|conn| devices::find_typed(conn, &format!("d_{n}"))).unwrap();
        assert!(found.is_some(), "{n}");
    }
    house.write(|_, tx| device(tx, 1, &origin("192.0.2.1").into())).unwrap();
    let type_other = |n: u32, address: String| {
        let holder: Holder = origin(&address).into();
        house.write(move |_, tx| {
            Ok(devices::insert_typed(tx, &typed(tx, n, 1), &waiting(tx, 1)?, &holder)?.is_ok())
        })
    };
    assert!((0..16).all(|n| type_other(300 + n, format!("198.51.100.{n}"))));
    assert!(!type_other(400, "192.0.2.7".to_owned()));
}
