//! Tables that strangers can fill, and whose rows are removed when one is full (RATE-03, RATE-06).
//!
//! Every row of such a table has a holder: the address that caused it, or the user once the user is known. At
//! the cap, the holder with the most rows loses the oldest one, if it has more than its share; otherwise the
//! IPv6 /48 with the most rows does, if it has more than its share. If neither does, the newcomer is refused.
//! So neither one address nor one network can push out other holders. The schema's triggers count each holder's
//! rows.

use crate::audit::{self, Event, Name};
use crate::db::{Conn, Db, Fault, Tx, params};
use crate::id::UserId;
use crate::rate::Origin;
use crate::request::Request;

/// A table that strangers can fill.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BoundedTable {
    /// The table. Only rows with a holder count.
    pub table: &'static str,
    /// The column by which the oldest row is found.
    pub age: &'static str,
    /// The most rows of all holders.
    pub most: u32,
    /// The share of one holder when the table is full.
    pub share: u32,
    /// The share of one network.
    pub of_network: u32,
}

/// Passkey ceremonies in progress.
pub const CEREMONIES: BoundedTable =
    BoundedTable { table: "ceremony", age: "expires_at", most: 10_000, share: 20, of_network: 200 };
/// Pending authorization requests.
pub const TRANSACTIONS: BoundedTable = BoundedTable {
    table: "authorization_transaction",
    age: "expires_at",
    most: 10_000,
    share: 20,
    of_network: 200,
};
/// Pending device authorizations.
pub const DEVICES: BoundedTable = BoundedTable {
    table: "device_authorization",
    age: "created_at",
    most: 10_000,
    share: 20,
    of_network: 200,
};
/// Browsers in which a device's code was typed.
pub const TYPED_CODES: BoundedTable =
    BoundedTable { table: "device_transaction", age: "created_at", most: 10_000, share: 20, of_network: 200 };
/// Self-registered clients that were never approved (DCR-12).
pub const CLIENTS: BoundedTable =
    BoundedTable { table: "client", age: "created_at", most: 1000, share: 10, of_network: 50 };
/// Fetched client documents (CIMD-08).
pub const DOCUMENTS: BoundedTable =
    BoundedTable { table: "client_document", age: "expires_at", most: 1000, share: 10, of_network: 50 };
/// Approval requests of users (CIMD-09).
pub const APPROVALS: BoundedTable =
    BoundedTable { table: "approval_request", age: "created_at", most: 500, share: 20, of_network: 20 };
/// MCP sessions, for revisions that have them; held by users.
pub const MCP_SESSIONS: BoundedTable =
    BoundedTable { table: "mcp_session", age: "seen_at", most: 10_000, share: 200, of_network: 200 };

/// All such tables.
pub const ALL: [BoundedTable; 8] =
    [CEREMONIES, TRANSACTIONS, DEVICES, TYPED_CODES, CLIENTS, DOCUMENTS, APPROVALS, MCP_SESSIONS];

/// The holder of a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    name: String,
    network: String,
    is_known: bool,
}

impl Holder {
    /// A user.
    pub fn user(user: &UserId) -> Self {
        Self { is_known: true, ..Self::subject(user.as_str()) }
    }

    /// The subject of a token, which another server may have issued.
    pub fn subject(subject: &str) -> Self {
        Self { name: subject.to_owned(), network: subject.to_owned(), is_known: false }
    }

    /// The name in the column `holder`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name in the column `network`.
    pub fn network(&self) -> &str {
        &self.network
    }
}

impl From<Origin> for Holder {
    /// An address.
    fn from(origin: Origin) -> Self {
        Self { name: origin.to_string(), network: origin.network(), is_known: false }
    }
}

impl From<&Request> for Holder {
    fn from(request: &Request) -> Self {
        Origin::from(request).into()
    }
}

/// The table is full, and no holder has more than its share.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} is full")]
pub struct Full(&'static str);

impl Full {
    /// The error for this table.
    pub fn of(kept: &BoundedTable) -> Self {
        Self(kept.table)
    }
}

/// How there is room for one more row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Room {
    /// The table is not full.
    Free,
    /// This holder, in this network, must lose a row: it or its network has more than a share.
    Of { holder: String, network: String },
}

/// Makes room for one more row of this holder: removes the oldest row of the holder with most rows, if that is
/// more than a share.
///
/// # Errors
/// A database fault; the inner error says that the newcomer is refused. Both outcomes are counted, and
/// [`flush`] records the counts.
pub fn make_room(tx: &Tx<'_>, kept: &BoundedTable, newcomer: &Holder) -> Result<Result<(), Full>, Fault> {
    Ok(match room(tx, kept, newcomer)? {
        Ok(Room::Free) => Ok(()),
        Ok(Room::Of { holder, .. }) => {
            let BoundedTable { table, age, .. } = kept;
            tx.execute(
                &format!(
                    "DELETE FROM {table} WHERE rowid =
                     (SELECT rowid FROM {table} WHERE holder = ?1 ORDER BY {age} LIMIT 1)"
                ),
                params![holder],
            )?;
            Ok(())
        }
        Err(full) => Err(full),
    })
}

/// Like [`make_room`], for callers that remove the row themselves.
///
/// # Errors
/// As [`make_room`].
pub fn room(tx: &Tx<'_>, kept: &BoundedTable, newcomer: &Holder) -> Result<Result<Room, Full>, Fault> {
    if held(tx, kept.table, "", "")? < kept.most {
        return Ok(Ok(Room::Free));
    }
    let mut found = heaviest(tx, kept, "share_holder", "holder <> ''", kept.share, None)?;
    if found.is_none() {
        let networks = "holder = '' AND network <> ''";
        let network = heaviest(tx, kept, "share_network", networks, kept.of_network, None)?;
        if let Some((network, _)) = network {
            found = heaviest(tx, kept, "share_within", "holder <> ''", 0, Some(&network))?;
        }
    }
    Ok(match found {
        Some((network, holder)) => {
            count(tx, kept.table, &network, "made_room")?;
            Ok(Room::Of { holder, network })
        }
        // A stranger cannot create many users.
        None if newcomer.is_known
            && held(tx, kept.table, newcomer.network(), newcomer.name())? < kept.share =>
        {
            Ok(Room::Free)
        }
        None => {
            count(tx, kept.table, "", "full")?;
            Err(Full::of(kept))
        }
    })
}

/// Network and name of the holder with most rows, if that is more than this.
fn heaviest(
    tx: &Tx<'_>,
    kept: &BoundedTable,
    index: &str,
    which: &str,
    than: u32,
    within: Option<&str>,
) -> Result<Option<(String, String)>, Fault> {
    let within_one = if within.is_some() { "network = ?3" } else { "?3 IS NULL" };
    tx.query_row(
        &format!(
            "SELECT network, holder FROM share INDEXED BY {index}
             WHERE kept = ?1 AND held > ?2 AND {which} AND {within_one} ORDER BY held DESC LIMIT 1"
        ),
        params![kept.table, than, within],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

/// The number of a holder's rows in a table; with an empty name its network's, with two empty names all rows.
///
/// # Errors
/// A database fault.
pub fn held(conn: &Conn<'_>, table: &str, network: &str, holder: &str) -> Result<u32, Fault> {
    let sql = "SELECT held FROM share WHERE kept = ?1 AND network = ?2 AND holder = ?3";
    Ok(conn.query_row(sql, params![table, network, holder], |row| row.get(0))?.unwrap_or(0))
}

/// Counts that room was made, or that a newcomer was refused.
///
/// # Errors
/// A database fault.
pub fn count(tx: &Tx<'_>, table: &str, network: &str, outcome: &str) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO room_made (kept, network, outcome, times) VALUES (?1, ?2, ?3, 1)
         ON CONFLICT (kept, network, outcome) DO UPDATE SET times = times + 1",
        params![table, network, outcome],
    )?;
    Ok(())
}

/// Records for whom room was made, and how often newcomers were refused (AUDIT-06). Call it regularly, and
/// before the server stops.
///
/// # Errors
/// A database fault.
pub async fn flush(db: &Db) -> Result<(), Fault> {
    let counted = db.read(|conn| conn.query_row("SELECT 1 FROM room_made LIMIT 1", [], |_| Ok(())))?;
    if counted.is_none() {
        return Ok(());
    }
    db.record(record).await
}

fn record(tx: &Tx<'_>) -> Result<(), Fault> {
    let counted = tx.query("DELETE FROM room_made RETURNING kept, network, outcome, times", [], |row| {
        let text = |column| row.get::<String>(column);
        Ok((text(0)?, text(1)?, text(2)?, row.get::<i64>(3)?))
    })?;
    for (table, network, outcome, times) in counted {
        let event = Event::denied(Name::RateLimited, &outcome).by_server();
        let event = event.detail("table", table).detail("count", times);
        audit::append(tx, if network.is_empty() { event } else { event.detail("holder", network) })?;
    }
    Ok(())
}

/// How a table grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Growth {
    /// Strangers cause rows in it.
    ByStrangers(BoundedTable),
    /// Strangers cause rows in it, and something else bounds it.
    Bounded(&'static str),
    /// Only callers who have proven something that a stranger cannot.
    NotByStrangers(&'static str),
}

/// How each table of the schema grows. A test requires every table to be in this list.
pub const GROWTH: &[(&str, Growth)] = &[
    ("ceremony", Growth::ByStrangers(CEREMONIES)),
    ("authorization_transaction", Growth::ByStrangers(TRANSACTIONS)),
    ("device_authorization", Growth::ByStrangers(DEVICES)),
    ("device_transaction", Growth::ByStrangers(TYPED_CODES)),
    ("client", Growth::ByStrangers(CLIENTS)),
    ("client_document", Growth::ByStrangers(DOCUMENTS)),
    ("approval_request", Growth::ByStrangers(APPROVALS)),
    ("mcp_session", Growth::ByStrangers(MCP_SESSIONS)),
    (
        "client_assertion",
        Growth::Bounded("none may be forgotten early, so its cap and shares turn away; store/assertions.rs"),
    ),
    ("client_redirect_uri", Growth::Bounded("ten for each client")),
    ("client_secret", Growth::Bounded("two for each client")),
    ("share", Growth::Bounded("one for each holder of a row that counts, and each network")),
    ("room_made", Growth::Bounded("emptied every few seconds; one for each network that exceeded its share")),
    ("audit", Growth::Bounded("what strangers cause is limited by address, and counted beyond that")),
    (
        "source_item",
        Growth::Bounded("5,000 items and 8 MiB for each of the four lists of a configured server"),
    ),
    (
        "call_count",
        Growth::NotByStrangers(
            "a call that was allowed; as many for each limit and caller as the limit allows",
        ),
    ),
    ("setting", Growth::NotByStrangers("a fixed set of names")),
    ("source", Growth::NotByStrangers("portcullis.toml")),
    ("signing_key", Growth::NotByStrangers("rotation and commands")),
    ("user", Growth::NotByStrangers("a link from an administrator, or a command")),
    ("past_user", Growth::NotByStrangers("a command")),
    ("user_group", Growth::NotByStrangers("a command")),
    ("passkey", Growth::NotByStrangers("a link, or a passkey; twenty for each user")),
    ("passkey_elsewhere", Growth::NotByStrangers("a command")),
    ("link", Growth::NotByStrangers("a command")),
    ("session", Growth::NotByStrangers("a passkey")),
    ("consent", Growth::NotByStrangers("a person's decision")),
    ("access_grant", Growth::NotByStrangers("a person's decision")),
    ("authorization_code", Growth::NotByStrangers("a person's decision")),
    ("refresh_token", Growth::NotByStrangers("a grant")),
    ("dead_token", Growth::NotByStrangers("a live access token")),
    ("buried_grant", Growth::NotByStrangers("a grant")),
    ("client_grant", Growth::NotByStrangers("a client that an administrator made")),
    ("initial_access_token", Growth::NotByStrangers("a command")),
    ("resource_server_audience", Growth::NotByStrangers("a command")),
    ("catalogue_disabled", Growth::NotByStrangers("a command")),
    ("secret", Growth::NotByStrangers("a command")),
    ("user_secret", Growth::NotByStrangers("a passkey, or a command; one for each user and source")),
];

#[cfg(test)]
mod tests;
