//! The live state behind every access token, in memory (RS-08, design: tokens and instant revocation).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use shared::token_status::Standing;
use shared::{AccessToken, ClientId, Db, Fault, GrantId, Scope, Timestamp, TokenStatus, Tx, UserId};

use crate::store::{clients, grants, users};

/// How long a dead grant stays listed: the longest an access token may live, and the leeway of RS-08.
const LISTED: Duration = Duration::from_secs(3600 + 300);

/// Answers for the whole process whether a token is still good.
pub struct Status {
    db: Db,
    everyone: Arc<Scope>,
    live: RwLock<Live>,
}

#[derive(Default)]
struct Live {
    dead_grants: HashMap<GrantId, Timestamp>,
    /// Users who exist and are not disabled. Whoever is not in here has no good token.
    users: HashSet<UserId>,
    disabled_clients: HashSet<ClientId>,
}

impl Status {
    /// Loads the state from the database. `everyone` is what every user may be granted.
    ///
    /// # Errors
    /// The database's fault.
    pub fn load(db: &Db, everyone: Scope, now: Timestamp) -> Result<Arc<Self>, Fault> {
        let status = Arc::new(Self {
            db: db.clone(),
            everyone: Arc::new(everyone),
            live: RwLock::new(read(db, now)?),
        });
        let weak = Arc::downgrade(&status);
        db.on_reload(move || {
            if let Some(status) = weak.upgrade() {
                // Without the truth no decision is safe; the writer aborts the process on a panic here.
                let live = read(&status.db, Timestamp(0)).expect("the token status can be read anew");
                *status.live.write().unwrap_or_else(PoisonError::into_inner) = live;
            }
        });
        Ok(status)
    }

    /// What a user may be granted now; nothing if disabled or unknown.
    pub fn entitled(&self, user: &UserId) -> Arc<Scope> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        if live.users.contains(user) { Arc::clone(&self.everyone) } else { Arc::default() }
    }

    /// Ends a grant at once, before the commit that makes it so.
    pub(crate) fn kill_grant(self: &Arc<Self>, tx: &Tx<'_>, id: &GrantId) {
        let (status, id, at) = (Arc::clone(self), id.clone(), tx.now());
        tx.before_commit(move || {
            let mut live = status.live.write().unwrap_or_else(PoisonError::into_inner);
            live.dead_grants.retain(|_, died| *died + LISTED > at);
            live.dead_grants.insert(id, at);
        });
    }

    /// Lets a new user's tokens count, once the commit that makes the user is done.
    pub(crate) fn add_user(self: &Arc<Self>, tx: &Tx<'_>, id: &UserId) {
        let (status, id) = (Arc::clone(self), id.clone());
        tx.after_commit(move || {
            status.live.write().unwrap_or_else(PoisonError::into_inner).users.insert(id);
        });
    }
}

fn read(db: &Db, now: Timestamp) -> Result<Live, Fault> {
    db.read(|conn| {
        Ok(Live {
            dead_grants: grants::revoked_since(conn, now - LISTED)?.into_iter().collect(),
            users: users::all(conn)?
                .into_iter()
                .filter(|(_, disabled)| !disabled)
                .map(|(id, _)| id)
                .collect(),
            disabled_clients: clients::disabled(conn)?.into_iter().collect(),
        })
    })
}

impl TokenStatus for Status {
    fn standing(&self, token: &AccessToken, _kid: &str) -> Standing {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        // No allocation: `users` is asked with the subject's own text.
        let user_lives = live.users.contains(token.sub.as_str());
        if !user_lives
            || live.dead_grants.contains_key(&token.grant_id)
            || live.disabled_clients.contains(&token.client_id)
        {
            return Standing::Dead;
        }
        Standing::Live { entitled: Arc::clone(&self.everyone) }
    }

    fn is_seen(&self, token: &AccessToken) -> bool {
        let seen = self.db.read(|conn| grants::seen_generation(conn, &token.grant_id));
        matches!(seen, Ok(Some(generation)) if generation >= token.jti.generation)
    }

    fn mark_seen(&self, tx: &Tx<'_>, token: &AccessToken) -> Result<(), Fault> {
        grants::mark_seen(tx, &token.grant_id, token.jti.generation)
    }
}
