//! The state of all access tokens, in memory (RS-08; design: tokens and instant revocation).

mod dead;
#[cfg(test)]
mod histories;
pub(crate) mod machines;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use shared::db::Conn;
use shared::token_status::{Ceiling, Standing};
use shared::{
    AccessToken, ClientId, Db, Fault, GrantId, Jti, ResourceUri, Scope, Timestamp, TokenStatus, Tx, UserId,
};

use dead::EndedItems;
use machines::{Machine, Machines, ResourceServer};

use crate::store::{clients, dead_tokens, grants, settings, users};

/// How long an ended grant stays listed: the longest lifetime of an access token plus the leeway of RS-08.
pub(crate) const LISTED: Duration = Duration::from_mins(65);
/// The tolerated clock difference of servers that check tokens (standards §1).
pub(crate) const LEEWAY: Duration = Duration::from_mins(1);
/// How long an ended token stays listed after its expiry (RS-08).
pub(crate) const LISTED_AFTER_EXPIRY: Duration = Duration::from_mins(5);
/// The setting for `void_until`: Unix seconds, as text.
const VOID_UNTIL: &str = "tokens_void_until";
/// The implicit group of all users.
pub(crate) const EVERYONE: &str = "everyone";

/// The scope of each group (design: who may do what). All users are in `everyone`.
#[derive(Clone, Debug, Default)]
pub struct Groups(BTreeMap<String, Scope>);

impl Groups {
    /// Groups by name.
    pub fn new(groups: BTreeMap<String, Scope>) -> Self {
        Self(groups)
    }

    /// The scope of a user in these groups. Unconfigured groups are ignored.
    pub fn entitled<'a>(&self, groups: impl IntoIterator<Item = &'a str>) -> Scope {
        let of_everyone = std::iter::once(EVERYONE).chain(groups);
        of_everyone.filter_map(|name| self.0.get(name)).fold(Scope::empty(), |all, scope| all.union(scope))
    }

    /// Whether a user can be put into this group.
    pub(crate) fn is_joinable(&self, name: &str) -> bool {
        name != EVERYONE && self.0.contains_key(name)
    }

    /// Every group with its scope.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Scope)> {
        self.0.iter().map(|(name, scope)| (name.as_str(), scope))
    }
}

/// Answers for the whole process whether a token is still active.
pub struct Status {
    db: Db,
    live: RwLock<Live>,
}

#[derive(Default)]
struct Live {
    /// The scope of each group.
    groups: Arc<Groups>,
    /// Tokens issued in this Unix second or earlier are refused. JWT times have no finer resolution.
    void_until: i64,
    dead_grants: EndedItems<GrantId>,
    /// Revoked access tokens whose grants may be alive.
    dead_tokens: EndedItems<Jti>,
    /// The enabled users and their entitlements. Tokens of other users are refused.
    users: HashMap<UserId, Member>,
    disabled_clients: HashSet<ClientId>,
    /// Trusted clients. Others are granted no high-risk scope.
    trusted_clients: HashSet<ClientId>,
    /// Clients that act in their own name.
    machines: Machines,
}

/// A user's groups and the resulting scope.
#[derive(Clone, Debug)]
struct Member {
    /// Users in the same groups share both allocations.
    joined: Arc<[String]>,
    entitled: Arc<Scope>,
}

impl Member {
    fn of(joined: &[String], groups: &Groups) -> Self {
        Self { joined: joined.into(), entitled: Arc::new(groups.entitled(joined.iter().map(String::as_str))) }
    }
}

/// How long a token that expires at this time stays listed.
fn listed(expires_at: Timestamp, now: Timestamp) -> Duration {
    // Bounded by the longest possible lifetime, whatever the token says.
    (expires_at + LISTED_AFTER_EXPIRY).since(now).min(LISTED)
}

impl Status {
    /// Loads the state from the database.
    ///
    /// # Errors
    /// A database fault.
    pub fn load(db: &Db, groups: Groups, now: Timestamp) -> Result<Arc<Self>, Fault> {
        let live = RwLock::new(Live::read(db, &Arc::new(groups), now)?);
        let status = Arc::new(Self { db: db.clone(), live });
        let weak = Arc::downgrade(&status);
        db.on_reload(move || {
            if let Some(status) = weak.upgrade() {
                // Without the current state no decision is safe. The writer aborts the process on a panic here.
                let live = Live::read(&status.db, &status.groups(), Timestamp(0));
                *status.write() = live.expect("the token status can be read anew");
            }
        });
        Ok(status)
    }

    /// The configured groups.
    pub fn groups(&self) -> Arc<Groups> {
        Arc::clone(&self.read().groups)
    }

    /// Replaces the groups' scopes, and so every user's entitlement, in one step (POL-04).
    pub fn replace_groups(&self, groups: Groups) {
        let mut live = self.write();
        let mut known: HashMap<Arc<[String]>, Arc<Scope>> = HashMap::new();
        for member in live.users.values_mut() {
            let entitled = known
                .entry(Arc::clone(&member.joined))
                .or_insert_with_key(|joined| Arc::new(groups.entitled(joined.iter().map(String::as_str))));
            member.entitled = Arc::clone(entitled);
        }
        live.groups = Arc::new(groups);
    }

    /// A user's entitlement now; empty if disabled or unknown.
    pub fn entitled(&self, user: &UserId) -> Arc<Scope> {
        self.read().users.get(user).map(|member| Arc::clone(&member.entitled)).unwrap_or_default()
    }

    /// The entitlement as this connection sees it. Jobs use this, because memory is updated at the commit
    /// (SESSION-05).
    ///
    /// # Errors
    /// A database fault.
    pub(crate) fn entitled_in(&self, conn: &Conn<'_>, user: &UserId) -> Result<Scope, Fault> {
        if users::find(conn, user)?.is_none_or(|user| user.disabled) {
            return Ok(Scope::empty());
        }
        Ok(self.groups().entitled(users::groups(conn, user)?.iter().map(String::as_str)))
    }

    /// Ends a grant in memory, before the commit that ends it in the database.
    pub(crate) fn kill_grant(self: &Arc<Self>, tx: &Tx<'_>, id: &GrantId) {
        let (status, id) = (Arc::clone(self), id.clone());
        tx.before_commit(move || status.write().dead_grants.list(id, LISTED));
    }

    /// Ends one access token in memory, before the commit that ends it in the database.
    pub(crate) fn kill_token(self: &Arc<Self>, tx: &Tx<'_>, jti: &Jti, expires_at: Timestamp) {
        let (status, jti, time) = (Arc::clone(self), jti.clone(), listed(expires_at, tx.now()));
        tx.before_commit(move || status.write().dead_tokens.list(jti, time));
    }

    /// Refuses all tokens issued so far, before the commit. JWT times are whole seconds, so tokens issued later
    /// in the current second are refused too.
    ///
    /// # Errors
    /// A database fault.
    pub(crate) fn void_tokens_so_far(self: &Arc<Self>, tx: &Tx<'_>) -> Result<(), Fault> {
        let second = tx.now().seconds();
        settings::put(tx, VOID_UNTIL, &second.to_string())?;
        let status = Arc::clone(self);
        tx.before_commit(move || status.write().void_until = second);
        Ok(())
    }

    /// Accepts tokens that are issued after this moment again. Needed if the clock was set back to before
    /// `void_until`; tokens issued until then have ended with their keys.
    ///
    /// # Errors
    /// A database fault.
    pub(crate) fn clock_was_set_back(self: &Arc<Self>, tx: &Tx<'_>, now: Timestamp) -> Result<(), Fault> {
        let second = void_until(tx)?.min(now.seconds());
        if second == i64::MIN {
            return Ok(());
        }
        settings::put(tx, VOID_UNTIL, &second.to_string())?;
        let status = Arc::clone(self);
        tx.after_commit(move || status.write().void_until = second);
        Ok(())
    }

    /// Publishes a user's groups: losses before the commit, gains after it. For a new user, or one who is
    /// enabled again, everything is a gain.
    pub(crate) fn set_groups(self: &Arc<Self>, tx: &Tx<'_>, id: &UserId, groups: &[String]) {
        // Read the groups' scopes when this runs: a reload may come in between.
        let (status, user, joined) = (Arc::clone(self), id.clone(), groups.to_vec());
        tx.before_commit(move || {
            let mut live = status.write();
            let new = Member::of(&joined, &live.groups);
            if let Some(member) = live.users.get_mut(&user) {
                member.entitled = Arc::new(member.entitled.intersection(&new.entitled));
                // A reload in between must not gain more than this.
                member.joined = new.joined;
            }
        });
        let (status, user, joined) = (Arc::clone(self), id.clone(), groups.to_vec());
        tx.after_commit(move || {
            let mut live = status.write();
            let new = Member::of(&joined, &live.groups);
            live.users.insert(user, new);
        });
    }

    /// Refuses all tokens of a user, before the commit, and once more after it, because permissions of an
    /// earlier job in the same batch are published at that point.
    pub(crate) fn remove_user(self: &Arc<Self>, tx: &Tx<'_>, id: &UserId) {
        let remove = || {
            let (status, id) = (Arc::clone(self), id.clone());
            move || {
                status.write().users.remove(&id);
            }
        };
        tx.before_commit(remove());
        tx.after_commit(remove());
    }

    /// Refuses all tokens of a client, before the commit and once more after it, as for a user.
    pub(crate) fn disable_client(self: &Arc<Self>, tx: &Tx<'_>, id: &ClientId) {
        let disable = || {
            let (status, id) = (Arc::clone(self), id.clone());
            move || {
                status.write().disabled_clients.insert(id);
            }
        };
        tx.before_commit(disable());
        tx.after_commit(disable());
    }

    /// Accepts a client's tokens again, after the commit. Grants that ended meanwhile stay ended.
    pub(crate) fn enable_client(self: &Arc<Self>, tx: &Tx<'_>, id: &ClientId) {
        let (status, id) = (Arc::clone(self), id.clone());
        tx.after_commit(move || {
            status.write().disabled_clients.remove(&id);
        });
    }

    /// Forgets a client whose row was deleted. Its grants were ended one by one, so none of its tokens is
    /// accepted.
    pub(crate) fn remove_client(self: &Arc<Self>, tx: &Tx<'_>, id: &ClientId) {
        self.enable_client(tx, id);
        self.set_ceiling(tx, id, Ceiling::LowRisk);
    }

    /// Publishes a client's trust: a gain after the commit; a loss before it and once more after it (DCR-08).
    /// Call it when a client's trust changes and when a grant is made, because only clients with a grant have
    /// tokens.
    pub(crate) fn set_ceiling(self: &Arc<Self>, tx: &Tx<'_>, id: &ClientId, ceiling: Ceiling) {
        let publish = || {
            let (status, id) = (Arc::clone(self), id.clone());
            move || {
                let trusted = &mut status.write().trusted_clients;
                match ceiling {
                    Ceiling::LowRisk => trusted.remove(&id),
                    Ceiling::Any => trusted.insert(id),
                };
            }
        };
        if ceiling == Ceiling::LowRisk {
            tx.before_commit(publish());
        }
        tx.after_commit(publish());
    }

    /// Publishes the state of a client that acts in its own name, as this job leaves it: losses before the
    /// commit, everything after it. Call it when such a client, its secrets or its audiences change.
    ///
    /// # Errors
    /// A database fault.
    pub(crate) fn client_changed(self: &Arc<Self>, tx: &Tx<'_>, id: &ClientId) -> Result<(), Fault> {
        self.client_changed_at(tx, id, tx.now())
    }

    /// Publishes the state of all such clients, after the ends of their secrets were corrected (OPS-04).
    ///
    /// # Errors
    /// A database fault.
    pub(crate) fn secrets_were_moved(self: &Arc<Self>, tx: &Tx<'_>, now: Timestamp) -> Result<(), Fault> {
        let clients = clients::acting_in_their_own_name(tx)?;
        clients.iter().try_for_each(|id| self.client_changed_at(tx, id, now))
    }

    fn client_changed_at(self: &Arc<Self>, tx: &Tx<'_>, id: &ClientId, now: Timestamp) -> Result<(), Fault> {
        let next = Machine::read(tx, id, now)?;
        let (status, client, kept) = (Arc::clone(self), id.clone(), next.clone());
        tx.before_commit(move || status.write().machines.narrow(&client, kept.as_ref()));
        let (status, client) = (Arc::clone(self), id.clone());
        tx.after_commit(move || status.write().machines.set(client, next));
        Ok(())
    }

    /// The resource server with this client id, if it may introspect now.
    pub(crate) fn resource_server(&self, id: &ClientId) -> Option<Arc<ResourceServer>> {
        self.read().machines.get(id)?.resource_server.clone()
    }

    /// The resource server of this resource; if there are several, one that introspects.
    pub(crate) fn server_of(&self, resource: &ResourceUri) -> Option<Arc<ResourceServer>> {
        let live = self.read();
        let servers = live.machines.iter().filter_map(|machine| machine.resource_server.as_ref());
        let serving = servers.filter(|server| server.audiences.contains(resource));
        serving.max_by_key(|server| server.introspects).map(Arc::clone)
    }

    /// The resources of servers that may introspect now.
    pub(crate) fn served_elsewhere(&self) -> BTreeSet<ResourceUri> {
        let live = self.read();
        let servers = live.machines.iter().filter_map(|machine| machine.resource_server.as_ref());
        servers.flat_map(|server| server.audiences.iter().cloned()).collect()
    }

    /// Whether any client gets tokens in its own name.
    pub(crate) fn has_own_tokens(&self) -> bool {
        self.read().machines.iter().any(|machine| machine.own.is_some())
    }

    fn read(&self) -> RwLockReadGuard<'_, Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Live> {
        self.live.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn read(db: &Db, groups: &Arc<Groups>, now: Timestamp) -> Result<Self, Fault> {
        db.read(|conn| {
            let void_until = void_until(conn)?;
            // Grants that ended before then need not be listed: `void_until` refuses their tokens.
            let voided = Timestamp::from_seconds(void_until.saturating_add(1)) - Duration::from_millis(1);
            let ended_since = (now - LISTED).max(voided);
            let (mut dead_grants, mut dead_tokens) = (EndedItems::default(), EndedItems::default());
            dead_grants.extend(grants::ended_since(conn, ended_since)?.into_iter().map(|id| (id, LISTED)));
            let tokens = dead_tokens::expiring_after(conn, now - LISTED_AFTER_EXPIRY)?;
            dead_tokens.extend(tokens.into_iter().map(|(jti, expires)| (jti, listed(expires, now))));
            Ok(Self {
                groups: Arc::clone(groups),
                void_until,
                dead_grants,
                dead_tokens,
                users: entitlements(conn, groups)?,
                disabled_clients: clients::disabled(conn)?.into_iter().collect(),
                trusted_clients: clients::trusted(conn)?.into_iter().collect(),
                machines: Machines::read(conn, now)?,
            })
        })
    }
}

/// The entitlement of each enabled user. Users in the same groups share it.
fn entitlements(conn: &Conn<'_>, groups: &Groups) -> Result<HashMap<UserId, Member>, Fault> {
    let mut shared: HashMap<Vec<String>, Member> = HashMap::new();
    let users = users::enabled_with_groups(conn)?.into_iter().map(|(id, joined)| {
        if let Some(member) = shared.get(&joined) {
            return (id, member.clone());
        }
        let member = Member::of(&joined, groups);
        shared.insert(joined, member.clone());
        (id, member)
    });
    Ok(users.collect())
}

/// The second until which all tokens are refused; `i64::MIN` if there was no lockdown.
fn void_until(conn: &Conn<'_>) -> Result<i64, Fault> {
    let Some(text) = settings::get(conn, VOID_UNTIL)? else { return Ok(i64::MIN) };
    text.parse().map_err(|_| Fault::Corrupt(format!("a setting {VOID_UNTIL} that is not a time")))
}

impl TokenStatus for Status {
    fn standing(&self, token: &AccessToken, _kid: &str) -> Standing {
        let live = self.read();
        // Looks up by `&str`, to avoid an allocation.
        let entitled = if token.of_client() {
            live.machines.get(&token.client_id).and_then(|machine| machine.own.as_ref())
        } else {
            live.users.get(token.sub.as_str()).map(|member| &member.entitled)
        };
        match entitled {
            Some(entitled)
                if token.iat > live.void_until
                    && !live.dead_grants.lists(&token.grant_id)
                    && !live.dead_tokens.lists(&token.jti)
                    && !live.disabled_clients.contains(&token.client_id) =>
            {
                // An administrator chose the scope of a client's own tokens, so they count as trusted.
                let trusted = token.of_client() || live.trusted_clients.contains(&token.client_id);
                let ceiling = if trusted { Ceiling::Any } else { Ceiling::LowRisk };
                Standing::Live { entitled: Arc::clone(entitled), ceiling }
            }
            _ => Standing::Dead,
        }
    }

    fn has_ended_in(&self, conn: &Conn<'_>, token: &AccessToken) -> Result<bool, Fault> {
        let client = clients::find(conn, &token.client_id)?.filter(|client| !client.disabled);
        let counts = match client {
            Some(client) if token.of_client() => client.acts_in_its_own_name(),
            Some(_) => {
                users::find(conn, &UserId::from_subject(&token.sub))?.is_some_and(|user| !user.disabled)
            }
            None => false,
        };
        Ok(!counts
            || token.iat <= void_until(conn)?
            || dead_tokens::lists(conn, &token.jti)?
            || grants::has_ended(conn, &token.grant_id)?)
    }

    fn is_seen(&self, token: &AccessToken) -> bool {
        // A token without a user has no refresh token.
        if token.of_client() {
            return true;
        }
        let seen = self.db.read(|conn| grants::seen_generation(conn, &token.grant_id));
        matches!(seen, Ok(Some(generation)) if generation >= token.jti.generation)
    }

    fn mark_seen(&self, tx: &Tx<'_>, token: &AccessToken) -> Result<(), Fault> {
        grants::mark_seen(tx, &token.grant_id, token.jti.generation)
    }
}

#[cfg(test)]
mod tests;
