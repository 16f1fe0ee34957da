//! What a user may have, and what they granted to a client: for the command that explains a policy decision.

use std::collections::{HashMap, HashSet};

use shared::db::Conn;
use shared::token_status::Ceiling;
use shared::{ClientId, Fault, ResourceUri, Scope, Tx, UserId};

use crate::Authz;
use crate::clients::administration;
use crate::people::{self, accepted};
use crate::status::{EVERYONE, Groups};
use crate::store::client_reports::{self, GrantFilter};
use crate::store::{clients, users};

/// More grants of one user to one client are not read.
const MOST: u32 = 1000;

/// A user with the scopes of their groups.
#[derive(Clone, Debug)]
pub struct Person {
    pub id: UserId,
    pub name: String,
    pub disabled: bool,
    /// The groups besides `everyone`.
    pub groups: Vec<String>,
    pub entitled: Scope,
    /// Every other group with the scope of its members.
    others: Vec<(String, Scope)>,
}

impl Person {
    /// The other groups whose members may be granted some of this scope.
    pub fn who_else_has(&self, scope: &Scope) -> Vec<String> {
        let has = |(_, its): &&(String, Scope)| !its.intersection(scope).is_empty();
        self.others.iter().filter(has).map(|(name, _)| name.clone()).collect()
    }
}

/// A client and what a user granted to it.
#[derive(Clone, Debug)]
pub struct Reach {
    pub id: ClientId,
    pub name: String,
    pub trust: &'static str,
    pub disabled: bool,
    pub ceiling: Ceiling,
    /// The scope that the user granted at the resource; `None` if there is no grant.
    pub granted: Option<Scope>,
}

/// All users' groups and all verified clients at one moment.
#[derive(Clone, Debug)]
pub struct AccessSnapshot {
    /// The groups of each enabled user.
    users: HashMap<String, Vec<String>>,
    trusted: HashSet<ClientId>,
}

impl AccessSnapshot {
    /// Reads it from the database.
    ///
    /// # Errors
    /// A database fault.
    pub fn read(conn: &Conn<'_>) -> Result<Self, Fault> {
        let users = users::enabled_with_groups(conn)?;
        let users = users.into_iter().map(|(id, groups)| (id.to_string(), groups)).collect();
        Ok(Self { users, trusted: clients::trusted(conn)?.into_iter().collect() })
    }

    /// The scope that this user may be granted with these group definitions; empty if the user is unknown or
    /// disabled.
    pub fn entitled(&self, user: &str, groups: &Groups) -> Scope {
        let joined = self.users.get(user);
        joined.map(|joined| groups.entitled(joined.iter().map(String::as_str))).unwrap_or_default()
    }

    /// The client's ceiling.
    pub fn ceiling(&self, client: &ClientId) -> Ceiling {
        if self.trusted.contains(client) { Ceiling::Any } else { Ceiling::LowRisk }
    }
}

/// The user with this name or id.
///
/// # Errors
/// A database fault.
pub fn person(authz: &Authz, tx: &Tx<'_>, who: &str) -> people::Answer<Person> {
    let user = accepted!(people::find(tx, who)?);
    let groups = users::groups(tx, &user.id)?;
    let all = authz.status.groups();
    let entitled = all.entitled(groups.iter().map(String::as_str));
    let is_in = |name: &str| name == EVERYONE || groups.iter().any(|group| group == name);
    let others = all.iter().filter(|(name, _)| !is_in(name));
    let others = others.map(|(name, scope)| (name.to_owned(), scope.clone())).collect();
    Ok(Ok(Person { id: user.id, name: user.name, disabled: user.disabled, groups, entitled, others }))
}

/// The client with this id or name, and what the user granted to it at the resource.
///
/// # Errors
/// A database fault.
pub fn of_client(
    tx: &Tx<'_>,
    who: &str,
    user: &UserId,
    resource: &ResourceUri,
) -> administration::Answer<Reach> {
    let client = accepted!(administration::find(tx, who)?);
    let whose = GrantFilter { user: Some(user), client: Some(&client.id) };
    let grants = client_reports::access(tx, whose, tx.now(), MOST)?;
    let mut theirs = grants.iter().filter(|grant| grant.resource == *resource).peekable();
    let granted =
        theirs.peek().is_some().then(|| theirs.fold(Scope::empty(), |all, grant| all.union(&grant.scope)));
    Ok(Ok(Reach {
        id: client.id,
        name: client.name,
        trust: client.trust.as_str(),
        disabled: client.disabled,
        ceiling: client.trust.ceiling(),
        granted,
    }))
}
