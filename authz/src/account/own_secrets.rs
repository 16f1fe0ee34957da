//! The sources to which a user gives their own secret, as shown on the account page (SRC-10).

use keys::secrets;
use shared::catalogue::OwnSecret;
use shared::db::Conn;
use shared::{Fault, Timestamp, UserId};

use super::moment::moment;
use crate::pages::ServerSecret;
use crate::{Authz, opened};

/// The sources whose items the user may call, and those that have a secret of the user.
pub(super) fn of(
    authz: &Authz,
    conn: &Conn<'_>,
    user: &UserId,
    now: Timestamp,
) -> Result<Vec<ServerSecret>, Fault> {
    let mut given = secrets::list_of_user(conn, user)?;
    let mut shown = Vec::new();
    for wanted in authz.catalogue.own_secrets(&authz.status.entitled(user)) {
        let at = given.iter().position(|one| one.name == wanted.source);
        let given = at.map(|at| given.swap_remove(at));
        let moved = given.as_ref().is_some_and(|given| given.target.as_deref() != Some(&wanted.target));
        shown.push(ServerSecret {
            opens: opened::in_words(wanted.titles),
            source: wanted.source,
            given: given.map(|given| moment(given.changed_at, now)),
            moved,
            wanted: true,
        });
    }
    given.sort_by(|one, other| one.name.cmp(&other.name));
    shown.extend(given.into_iter().map(|given| ServerSecret {
        source: given.name,
        opens: None,
        given: Some(moment(given.changed_at, now)),
        moved: false,
        wanted: false,
    }));
    Ok(shown)
}

/// The source with this name, if the user may call its items and it takes users' own secrets.
pub(super) fn wanted(authz: &Authz, user: &UserId, source: &str) -> Option<OwnSecret> {
    let all = authz.catalogue.own_secrets(&authz.status.entitled(user));
    all.into_iter().find(|wanted| wanted.source == source)
}
