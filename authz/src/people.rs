//! Users in the administrator's commands: listed, shown and changed (ENROL, ADMIN-03, ADMIN-05).

pub(crate) mod name;
pub mod passkeys;

use serde::{Deserialize, Serialize};
use shared::audit::{self, Event, Name};
use shared::db::Conn;
use shared::{Fault, Tx, UserId};
use uuid::Uuid;

use crate::Authz;
use crate::login::enrolment::link;
use crate::status::EVERYONE;
use crate::store::grants::{self, Reason};
use crate::store::users::{self, NamedUser, Role, User};
use crate::store::{links, sessions};
use name::valid_name;

/// A user in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Person {
    pub id: UserId,
    pub name: String,
    /// `admin` or `none`. A role is not a group and grants no scope.
    pub role: String,
    /// The groups besides `everyone`.
    pub groups: Vec<String>,
    /// The scope that they may be granted now.
    pub entitled: String,
    pub disabled: bool,
    pub passkeys: u32,
    /// The number of suspended passkeys, whose counter went back (WEBAUTHN-08).
    #[serde(default)]
    pub suspended_passkeys: u32,
    /// Unix milliseconds.
    pub created_at: i64,
}

/// How much ended when a user was disabled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndedAccess {
    pub grants: usize,
    pub sessions: usize,
}

/// A group in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Group {
    pub name: String,
    /// The scope that its members may be granted.
    pub scopes: String,
    /// The number of its members.
    pub members: u32,
}

/// Why a command about users is refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("no user `{0}`; `portcullis user list` shows all users")]
    Unknown(String),
    #[error("no user `{0}`; did you mean {1}? Write the name exactly like that, or use the id")]
    DidYouMean(String, String),
    #[error("several users have names that look like `{0}`: {1}. Use the id of the one you mean")]
    Ambiguous(String, String),
    #[error("a user called `{0}` exists already")]
    NameTaken(String),
    #[error("`{0}` looks like the user {1}; choose another name")]
    NameAlike(String, String),
    #[error(
        "`{0}` is not a valid name: use 1 to 64 visible characters without line breaks, and do not start with u_"
    )]
    NameInvalid(String),
    #[error("no group `{0}`; define it under [groups] in portcullis.toml, then run: portcullis reload")]
    GroupUnknown(String),
    #[error("everybody is in `everyone` already")]
    EveryoneJoined,
    #[error("nobody can leave `everyone`: every user is in it")]
    EveryoneLeft,
    #[error("`{0}` is the last enabled administrator; at least one must remain")]
    LastAdministrator(String),
    #[error("`{0}` is disabled; enable the user first")]
    Disabled(String),
    #[error(
        "`{1}` has no passkey `{0}`; `portcullis user passkeys` shows their passkeys, and the first eight digits are enough to name one"
    )]
    PasskeyUnknown(String, String),
    #[error(
        "that is the last passkey `{0}` can sign in with; have them add another first (`portcullis user link`), or disable the user"
    )]
    LastPasskey(String),
    #[error("the passkey {0} is not suspended")]
    NotSuspended(String),
}

/// A refusal is an answer and changes nothing; a fault rolls back.
pub type Answer<T> = Result<Result<T, Refusal>, Fault>;

/// Unwraps an accepted answer, or returns the refusal.
macro_rules! accepted {
    ($answer:expr) => {
        match $answer {
            Ok(good) => good,
            Err(refusal) => return Ok(Err(refusal)),
        }
    };
}
pub(crate) use accepted;

/// Adds a user and makes an enrolment link for them.
///
/// # Errors
/// A database fault.
pub fn add(authz: &Authz, tx: &Tx<'_>, uid: u32, name: &str, groups: &[String]) -> Answer<(Person, String)> {
    let valid = accepted!(valid_name(name).map_err(|_| Refusal::NameInvalid(name.to_owned())));
    accepted!(check_groups(authz, groups));
    let user = User { id: UserId::random(), name: valid, handle: Uuid::new_v4(), disabled: false };
    if !users::insert(tx, &user, Role::None)? {
        let alike = users::reading_like(tx, &user.name)?;
        return Ok(Err(if alike.iter().any(|other| other.name == user.name) {
            Refusal::NameTaken(user.name)
        } else {
            Refusal::NameAlike(user.name, in_words(&alike))
        }));
    }
    users::set_groups(tx, &user.id, groups)?;
    authz.status.set_groups(tx, &user.id, groups);
    let created = Event::allowed(Name::UserCreated).by_console(uid).subject(user.id.as_str());
    audit::append(tx, created.detail("groups", groups.to_vec()))?;
    let link = link::issue(authz, tx, uid, &user.id)?;
    Ok(Ok((person(authz, tx, &user)?, link)))
}

/// All users.
///
/// # Errors
/// A database fault.
pub fn list(authz: &Authz, tx: &Tx<'_>) -> Result<Vec<Person>, Fault> {
    users::all(tx)?.iter().map(|user| person(authz, tx, user)).collect()
}

/// One user, by name or id.
///
/// # Errors
/// A database fault.
pub fn show(authz: &Authz, tx: &Tx<'_>, who: &str) -> Answer<Person> {
    let user = accepted!(find(tx, who)?);
    Ok(Ok(person(authz, tx, &user)?))
}

/// Makes a new enrolment link for a user and voids earlier ones (ENROL-02).
///
/// # Errors
/// A database fault.
pub fn link(authz: &Authz, tx: &Tx<'_>, uid: u32, who: &str) -> Answer<String> {
    let user = accepted!(find(tx, who)?);
    if user.disabled {
        return Ok(Err(Refusal::Disabled(user.name)));
    }
    Ok(Ok(link::issue(authz, tx, uid, &user.id)?))
}

/// Disables a user: their tokens are refused from the next request on, and every grant and session ends.
/// Enabling them again does not restore these (REFRESH-08, SESSION-05).
///
/// # Errors
/// A database fault.
pub fn disable(authz: &Authz, tx: &Tx<'_>, uid: u32, who: &str) -> Answer<(Person, EndedAccess)> {
    let user = accepted!(find(tx, who)?);
    accepted!(keep_an_administrator(tx, &user)?);
    users::set_disabled(tx, &user.id, true)?;
    authz.status.remove_user(tx, &user.id);
    let ended = end_everything(authz, tx, &user.id)?;
    let event = Event::allowed(Name::UserDisabled).by_console(uid).subject(user.id.as_str());
    audit::append(tx, event.detail("grants_ended", ended.grants))?;
    Ok(show(authz, tx, user.id.as_str())?.map(|person| (person, ended)))
}

/// Enables a user again.
///
/// # Errors
/// A database fault.
pub fn enable(authz: &Authz, tx: &Tx<'_>, uid: u32, who: &str) -> Answer<Person> {
    let user = accepted!(find(tx, who)?);
    users::set_disabled(tx, &user.id, false)?;
    authz.status.set_groups(tx, &user.id, &users::groups(tx, &user.id)?);
    audit::append(tx, Event::allowed(Name::UserEnabled).by_console(uid).subject(user.id.as_str()))?;
    show(authz, tx, user.id.as_str())
}

/// Deletes a user and everything of theirs; the audit log keeps its records.
///
/// # Errors
/// A database fault.
pub fn delete(authz: &Authz, tx: &Tx<'_>, uid: u32, who: &str) -> Answer<Person> {
    let user = accepted!(find(tx, who)?);
    accepted!(keep_an_administrator(tx, &user)?);
    let gone = person(authz, tx, &user)?;
    authz.status.remove_user(tx, &user.id);
    users::delete(tx, &user.id)?;
    audit::append(tx, Event::allowed(Name::UserDeleted).by_console(uid).subject(user.id.as_str()))?;
    Ok(Ok(gone))
}

/// Adds a user to groups and removes them from others. Scopes that they lose are refused at once.
///
/// # Errors
/// A database fault.
pub fn regroup(
    authz: &Authz,
    tx: &Tx<'_>,
    uid: u32,
    who: &str,
    add: &[String],
    remove: &[String],
) -> Answer<Person> {
    let user = accepted!(find(tx, who)?);
    accepted!(check_groups(authz, add));
    if remove.iter().any(|group| group == EVERYONE) {
        return Ok(Err(Refusal::EveryoneLeft));
    }
    let before = users::groups(tx, &user.id)?;
    let mut after: Vec<String> = before.iter().filter(|group| !remove.contains(group)).cloned().collect();
    after.extend(add.iter().filter(|group| !before.contains(group)).cloned());
    after.sort();
    after.dedup();
    users::set_groups(tx, &user.id, &after)?;
    if !user.disabled {
        authz.status.set_groups(tx, &user.id, &after);
    }
    let event = Event::allowed(Name::UserRoleChanged).by_console(uid).subject(user.id.as_str());
    audit::append(tx, event.detail("before", before).detail("after", after))?;
    show(authz, tx, user.id.as_str())
}

/// Every group.
///
/// # Errors
/// A database fault.
pub fn groups(authz: &Authz, tx: &Tx<'_>) -> Result<Vec<Group>, Fault> {
    let mut groups = Vec::new();
    for (name, scopes) in authz.status.groups().iter() {
        let members = if name == EVERYONE { users::count(tx)? } else { users::count_members(tx, name)? };
        groups.push(Group { name: name.to_owned(), scopes: scopes.to_string(), members });
    }
    Ok(groups)
}

pub(crate) fn find(tx: &Tx<'_>, who: &str) -> Answer<User> {
    Ok(match users::meant(tx, who)? {
        NamedUser::One(user) => Ok(user),
        NamedUser::Nobody => Err(Refusal::Unknown(who.to_owned())),
        NamedUser::Like(users) => Err(Refusal::DidYouMean(who.to_owned(), in_words(&users))),
        NamedUser::Several(users) => Err(Refusal::Ambiguous(who.to_owned(), in_words(&users))),
    })
}

/// Users by name and id, at most a few of them.
fn in_words(users: &[User]) -> String {
    let one = |user: &User| {
        let state = if user.disabled { ", disabled" } else { "" };
        format!("`{}` ({}{state})", user.name, user.id)
    };
    users.iter().take(5).map(one).collect::<Vec<_>>().join(" and ")
}

/// Updates the stored skeleton of every name, and reports users whose names look alike. Call it after opening a
/// database.
///
/// # Errors
/// A database fault.
pub fn settle_names(tx: &Tx<'_>) -> Result<Vec<String>, Fault> {
    Ok(users::settle_names(tx)?.iter().map(|alike| in_words(alike)).collect())
}

/// The name for an audit record: of the user with this id, who may have been deleted.
///
/// # Errors
/// A database fault.
pub fn name_on_record(conn: &Conn<'_>, id: &str) -> Result<Option<String>, Fault> {
    let found = users::name_of(conn, id)?;
    Ok(found.map(|(name, deleted)| if deleted { format!("{name}, deleted") } else { name }))
}

fn check_groups(authz: &Authz, groups: &[String]) -> Result<(), Refusal> {
    if groups.iter().any(|group| group == EVERYONE) {
        return Err(Refusal::EveryoneJoined);
    }
    match groups.iter().find(|group| !authz.status.groups().is_joinable(group)) {
        Some(unknown) => Err(Refusal::GroupUnknown(unknown.clone())),
        None => Ok(()),
    }
}

/// ADMIN-03: refuses to remove the last administrator.
fn keep_an_administrator(tx: &Tx<'_>, user: &User) -> Answer<()> {
    let last = users::is_last_administrator(tx, &user.id)?;
    Ok(if last { Err(Refusal::LastAdministrator(user.name.clone())) } else { Ok(()) })
}

fn end_everything(authz: &Authz, tx: &Tx<'_>, user: &UserId) -> Result<EndedAccess, Fault> {
    let ended = grants::revoke_all_of(tx, user, Reason::UserDisabled)?;
    for grant in &ended {
        authz.status.kill_grant(tx, grant);
    }
    let sessions = sessions::delete_all_of(tx, user)?;
    links::void_enrol(tx, user)?;
    Ok(EndedAccess { grants: ended.len(), sessions })
}

fn person(authz: &Authz, tx: &Tx<'_>, user: &User) -> Result<Person, Fault> {
    let groups = users::groups(tx, &user.id)?;
    let entitled = if user.disabled {
        String::new()
    } else {
        authz.status.groups().entitled(groups.iter().map(String::as_str)).to_string()
    };
    let (role, created_at) = users::role_and_age(tx, &user.id)?;
    let listed = crate::store::passkeys::of(tx, &user.id)?;
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let passkeys = count(listed.len());
    let suspended_passkeys = count(listed.iter().filter(|passkey| passkey.suspended).count());
    Ok(Person {
        id: user.id.clone(),
        name: user.name.clone(),
        role,
        groups,
        entitled,
        disabled: user.disabled,
        passkeys,
        suspended_passkeys,
        created_at: created_at.0,
    })
}
