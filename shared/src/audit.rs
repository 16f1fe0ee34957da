//! The audit log: one record per decision, chained by hash, appended in the transaction it
//! describes (AUDIT-01, 02, 05; STORE-03).

mod flood;
mod verify;

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv6Addr};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::clock::Timestamp;
pub use crate::db::Head;
use crate::db::{Conn, Fault, Tx, params};
use crate::id::{ClientId, GrantId, UserId};
use crate::rate::Origin;
use crate::request::Request;
use crate::resource_uri::ResourceUri;
use crate::scope::Scope;
pub use flood::{ClientStanding, Flood, QUOTA, UnrecordedCount};
pub use verify::{Entry, FirstBadRecord, Verified, range, tail, verify, verify_each};

/// Longer values are cut, in bytes (AUDIT-05).
const LONGEST: usize = 512;

macro_rules! names {
    ($($variant:ident = $text:literal),* $(,)?) => {
        /// The event of a record: a closed set of stable names (AUDIT-09).
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Name { $($variant),* }

        impl Name {
            /// All names.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in the record.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

names! {
    ServerStart = "server.start",
    ServerStop = "server.stop",
    ServerConfigChanged = "server.config_changed",
    ConfigReloaded = "config.reloaded",
    ConfigReloadRefused = "config.reload_refused",
    ClockStep = "server.clock_step",
    AuthzRequest = "authz.request",
    AuthzError = "authz.error",
    AuthzApproved = "authz.approved",
    AuthzDenied = "authz.denied",
    ConsentGranted = "consent.granted",
    ConsentWithdrawn = "consent.withdrawn",
    TokenIssued = "token.issued",
    TokenRefused = "token.refused",
    TokenRevoked = "token.revoked",
    RefreshRotated = "token.refresh.rotated",
    RefreshGrace = "token.refresh.grace",
    RefreshReuse = "token.refresh.reuse",
    CodeReplay = "code.replay",
    PkceFailed = "code.pkce_failed",
    IntrospectOk = "introspect.ok",
    IntrospectRefused = "introspect.refused",
    ClientRegistered = "client.registered",
    ClientUpdated = "client.updated",
    ClientDeleted = "client.deleted",
    ClientExpired = "client.expired",
    ClientVerified = "client.verified",
    ClientDisabled = "client.disabled",
    ClientAuthFailed = "client.auth_failed",
    CimdImported = "cimd.imported",
    CimdFetched = "cimd.fetched",
    CimdRefused = "cimd.refused",
    CimdApprovalRequested = "cimd.approval_requested",
    KeyPublished = "key.published",
    KeyActivated = "key.activated",
    KeyRetired = "key.retired",
    KeyRemoved = "key.removed",
    SessionCreated = "session.created",
    SessionEnded = "session.ended",
    StepUp = "session.step_up",
    WebauthnRegistered = "webauthn.registered",
    WebauthnAsserted = "webauthn.asserted",
    WebauthnFailed = "webauthn.failed",
    WebauthnRemoved = "webauthn.removed",
    CounterRegression = "webauthn.counter_regression",
    LinkIssued = "enrol.link_issued",
    LinkUsed = "enrol.used",
    LinkExpired = "enrol.expired",
    UserCreated = "user.created",
    UserDisabled = "user.disabled",
    UserEnabled = "user.enabled",
    UserDeleted = "user.deleted",
    UserRoleChanged = "user.role_changed",
    RsDenied = "rs.denied",
    McpCall = "mcp.call",
    McpDenied = "mcp.denied",
    McpResult = "mcp.result",
    CallStopped = "call.stopped",
    RateLimited = "rate.limited",
    SourceAdded = "source.added",
    SourceChanged = "source.changed",
    SourceRemoved = "source.removed",
    SourceStale = "source.stale",
    SourceRecovered = "source.recovered",
    SourceRestarted = "source.restarted",
    SourceCrashed = "source.crashed",
    SourceQuarantined = "source.quarantined",
    SecretSet = "secret.set",
    SecretRemoved = "secret.removed",
    AuditCheckpoint = "audit.checkpoint",
    AuditExported = "audit.exported",
    BackupCreated = "backup.created",
    BackupRestored = "backup.restored",
}

/// The outcome of an action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Allowed,
    Denied,
    Failed,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// A record before it is appended.
#[derive(Clone, Debug)]
pub struct Event {
    name: Name,
    members: Members,
    detail: Members,
}

/// Members of a record, each once. There are few, and each call makes some: looking at all of them is cheaper than keeping them
/// in order.
#[derive(Clone, Debug)]
struct Members(Vec<(&'static str, Value)>);

impl Members {
    fn with_room_for(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Sets a member; a value that it had before is gone.
    fn insert(&mut self, name: &'static str, value: Value) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }

    /// RFC 8785: sorted. Names are ASCII.
    fn sorted(mut self) -> Vec<(&'static str, Value)> {
        self.0.sort_unstable_by_key(|(name, _)| *name);
        self.0
    }
}

impl Event {
    /// An action was done or allowed.
    pub fn allowed(name: Name) -> Self {
        Self::new(name, Outcome::Allowed)
    }

    /// An action was refused; `reason` is a short stable keyword.
    pub fn denied(name: Name, reason: &str) -> Self {
        Self::new(name, Outcome::Denied).member("reason", reason)
    }

    /// An action failed.
    pub fn failed(name: Name, reason: &str) -> Self {
        Self::new(name, Outcome::Failed).member("reason", reason)
    }

    fn new(name: Name, outcome: Outcome) -> Self {
        let event = Self { name, members: Members::with_room_for(16), detail: Members::with_room_for(12) };
        event.member("event", name.as_str()).member("outcome", outcome.as_str())
    }

    fn member(mut self, key: &'static str, value: &str) -> Self {
        self.members.insert(key, Value::String(clean(value)));
        self
    }

    fn actor(mut self, kind: &str, id: &str) -> Self {
        let actor = [("type", kind), ("id", id)].map(|(k, v)| (k.to_owned(), Value::String(clean(v))));
        self.members.insert("actor", Value::Object(actor.into_iter().collect()));
        self
    }

    /// The actor is a user.
    #[must_use]
    pub fn by_user(self, user: &UserId) -> Self {
        self.actor("user", user.as_str())
    }

    /// The actor is a client.
    #[must_use]
    pub fn by_client(self, client: &ClientId) -> Self {
        self.actor("client", client.as_str())
    }

    /// The actor is an operating-system user at the console, with this numeric id.
    #[must_use]
    pub fn by_console(self, uid: u32) -> Self {
        self.actor("console", &format!("uid {uid}"))
    }

    /// The actor is the server.
    #[must_use]
    pub fn by_server(self) -> Self {
        self.actor("server", "portcullis")
    }

    /// The subject of the action.
    #[must_use]
    pub fn subject(self, subject: &str) -> Self {
        self.member("subject", subject)
    }

    /// The client of the action.
    #[must_use]
    pub fn client(self, client: &ClientId) -> Self {
        self.member("client_id", client.as_str())
    }

    /// The grant of the action.
    #[must_use]
    pub fn grant(self, grant: &GrantId) -> Self {
        self.member("grant_id", grant.as_str())
    }

    /// The access token of the action.
    #[must_use]
    pub fn jti(self, jti: &str) -> Self {
        self.member("jti", jti)
    }

    /// The protected resource of the action.
    #[must_use]
    pub fn resource(self, resource: &ResourceUri) -> Self {
        self.member("resource", resource.as_str())
    }

    /// The scope of the action.
    #[must_use]
    pub fn scope(self, scope: &Scope) -> Self {
        self.member("scope", &scope.to_string())
    }

    /// The request of the action.
    #[must_use]
    pub fn request(self, request: &Request) -> Self {
        let this = self.member("request_id", &request.id);
        match request.address {
            Some(address) => this.member("src_ip", &address.to_string()),
            None => this,
        }
    }

    /// Adds a detail (AUDIT-08). Never a secret, a token or a user's name.
    #[must_use]
    pub fn detail(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.detail.insert(key, clean_value(value.into()));
        self
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.members.get(key)?.as_str()
    }

    /// The reason of a refusal.
    fn reason(&self) -> &str {
        self.text("reason").unwrap_or_default()
    }

    /// The address of its request.
    fn origin(&self) -> Origin {
        let address = self.text("src_ip").and_then(|address| address.parse().ok());
        Origin::of(address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)))
    }

    /// The token, grant or user of the record. These are verified and not merely claimed by a request.
    fn concerns(&self) -> Option<&str> {
        let user = self.members.get("actor").filter(|actor| actor["type"] == "user");
        let person = || user.and_then(|user| user["id"].as_str());
        self.text("jti").or_else(|| self.text("grant_id")).or_else(person).or_else(|| self.text("subject"))
    }

    /// The client of the record, which a request may merely claim.
    pub fn client_id(&self) -> Option<&str> {
        self.text("client_id")
    }

    /// A record for `count` events like this one that got no record of their own; with the subject if they all
    /// share it.
    fn counted(&self, count: u64, from: Option<String>, same_subject: bool) -> Self {
        let mut event = Self::denied(self.name, "flood").by_server().detail("count", count);
        event = event.detail("of", self.reason());
        let first: &[&'static str] = if from.is_some() { &["src_ip", "request_id"] } else { &[] };
        let about: &[&'static str] =
            if same_subject { &["subject", "client_id", "grant_id", "jti"] } else { &[] };
        for member in [&["resource"], first, about].concat() {
            if let Some(value) = self.members.get(member) {
                event.members.insert(member, value.clone());
            }
        }
        match from {
            Some(from) => event.detail("from", from),
            None => event,
        }
    }

    /// The record as it is stored (AUDIT-02).
    fn record(mut self, seq: i64, at: Timestamp, prev: &str) -> String {
        self.members.insert("seq", seq.into());
        self.members.insert("ts", at.to_string().into());
        self.members.insert("prev", prev.into());
        if !self.detail.0.is_empty() {
            // Only its place; its own members are written there.
            self.members.insert(DETAIL, Value::Null);
        }
        let mut detail = Some(self.detail);
        let mut text = Vec::with_capacity(1024);
        written(&self.members.sorted(), &mut text, |name, value, text| {
            match detail.take_if(|_| name == DETAIL) {
                Some(detail) => {
                    written(&detail.sorted(), text, |_, value, text| write_canonical(value, text));
                }
                None => write_canonical(value, text),
            }
        });
        String::from_utf8(text).expect("JSON is UTF-8")
    }
}

const DETAIL: &str = "detail";

/// An object with these members, each written by `write`.
fn written(
    members: &[(&'static str, Value)],
    text: &mut Vec<u8>,
    mut write: impl FnMut(&str, &Value, &mut Vec<u8>),
) {
    text.push(b'{');
    for (at, (name, value)) in members.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        write_plain(name, text);
        text.push(b':');
        write(name, value, text);
    }
    text.push(b'}');
}

/// Limits the length and removes control characters (AUDIT-05).
fn clean(text: &str) -> String {
    // Most values are our own and already clean.
    if text.len() <= LONGEST && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        return text.to_owned();
    }
    text.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

fn clean_value(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(clean(&text)),
        Value::Array(items) => Value::Array(items.into_iter().take(64).map(clean_value).collect()),
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(k, v)| (clean(&k), clean_value(v))).collect())
        }
        // RFC 8785 formats floats in its own way, so they are stored as text. Our records do not use them.
        Value::Number(number) if number.is_f64() => Value::String(number.to_string()),
        plain => plain,
    }
}

/// Appends a record to the chain, in the transaction of the action.
///
/// # Errors
/// A database fault; the action then fails too (AUDIT-04).
///
/// # Panics
/// If the database has no audit log.
pub fn append(tx: &Tx<'_>, event: Event) -> Result<(), Fault> {
    let mut head = tx.head().borrow_mut();
    let head = head.as_mut().expect("audit records go to a database opened with an audit log");
    let name = event.name.as_str();
    let seq = head.seq() + 1;
    let record = event.record(seq, tx.now(), head.hash());
    let hash = chain(head.hash(), &record);
    tx.execute(
        "INSERT INTO audit (seq, record, hash) VALUES (?1, ?2, ?3)",
        params![seq, record, hash.as_slice()],
    )?;
    tracing::debug!(audit.seq = seq, audit.event = name, "recorded");
    *head = Head::new(seq, data_encoding::HEXLOWER.encode(&hash));
    Ok(())
}

/// `SHA-256(prev ‖ record)`, `prev` as 64 hexadecimal digits (AUDIT-02).
fn chain(prev: &str, record: &str) -> [u8; 32] {
    Sha256::new().chain_update(prev.as_bytes()).chain_update(record.as_bytes()).finalize().into()
}

/// RFC 8785 for the values in records: strings, integers, booleans, arrays, and objects with ASCII names.
/// Members are sorted here, because a map's own order depends on how its crate was built.
fn canonical(value: &Value) -> String {
    let mut text = Vec::with_capacity(1024);
    write_canonical(value, &mut text);
    String::from_utf8(text).expect("JSON is UTF-8")
}

fn write_canonical(value: &Value, text: &mut Vec<u8>) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by(|(a, _), (b, _)| order(a, b));
            text.push(b'{');
            for (at, (name, value)) in members.into_iter().enumerate() {
                if at > 0 {
                    text.push(b',');
                }
                write_plain(name, text);
                text.push(b':');
                write_canonical(value, text);
            }
            text.push(b'}');
        }
        Value::Array(items) => {
            text.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    text.push(b',');
                }
                write_canonical(item, text);
            }
            text.push(b']');
        }
        plain => write_plain(plain, text),
    }
}

fn write_plain(value: &impl serde::Serialize, text: &mut Vec<u8>) {
    serde_json::to_writer(text, value).expect("JSON in memory is written");
}

/// RFC 8785 §3.2.3: by UTF-16 units, which are the bytes where a name is ASCII.
fn order(a: &str, b: &str) -> Ordering {
    if a.is_ascii() && b.is_ascii() { a.cmp(b) } else { a.encode_utf16().cmp(b.encode_utf16()) }
}

/// The record as exported, with its `hash`.
fn exported(record: &str, hash: &[u8]) -> Result<Value, Fault> {
    let mut value: Value = serde_json::from_str(record).map_err(|e| Fault::Corrupt(e.to_string()))?;
    value["hash"] = data_encoding::HEXLOWER.encode(hash).into();
    Ok(value)
}

/// The last record of the chain.
///
/// # Errors
/// A database fault.
pub fn head(conn: &Conn<'_>) -> Result<Head, Fault> {
    Head::load(conn)
}

/// The hash of a record in hexadecimal, if the record exists.
///
/// # Errors
/// A database fault.
pub fn hash_at(conn: &Conn<'_>, seq: i64) -> Result<Option<String>, Fault> {
    Ok(Head::at(conn, seq)?.map(|head| head.hash().to_owned()))
}

/// The number of records.
///
/// # Errors
/// A database fault.
pub fn count(conn: &Conn<'_>) -> Result<i64, Fault> {
    Ok(conn.query_row("SELECT count(*) FROM audit", [], |row| row.get(0))?.unwrap_or(0))
}

#[cfg(test)]
mod tests;
