//! Is this token still good, and what is its user entitled to now? The authorization side answers,
//! the resource side asks, at every request.

use std::sync::Arc;

use crate::access_token::AccessToken;
use crate::catalogue::Risk;
use crate::db::{Conn, Fault, Tx};
use crate::scope::Scope;

/// The answer of [`TokenStatus::standing`].
#[derive(Clone, Debug)]
pub enum Standing {
    /// The token is good, and its user may be granted these scopes at this moment.
    Live {
        /// What the user is entitled to now. What a call may do is this ∩ the token's scope.
        entitled: Arc<Scope>,
        /// What its client can be granted at most, whoever uses it.
        ceiling: Ceiling,
    },
    /// Its grant, its `jti`, its user, its client or its key is no longer good (RS-08).
    Dead,
}

/// What a client can be granted at most, whatever its user is entitled to (DCR-08).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ceiling {
    /// Nobody vouches for the client, so it gets no high-risk scope.
    LowRisk,
    /// Whatever its user may be granted.
    Any,
}

impl Ceiling {
    /// Whether a scope of this risk is below it.
    pub fn allows(self, risk: Risk) -> bool {
        self == Self::Any || risk == Risk::Low
    }
}

/// The live state behind an access token.
pub trait TokenStatus: Send + Sync {
    /// Whether the token is good at this moment. `kid` names the key that signed it.
    ///
    /// Answered from memory: no I/O, no lock held across any.
    fn standing(&self, token: &AccessToken, kid: &str) -> Standing;

    /// Whether the token has ended, as this connection sees it: what a job decides by, because memory follows at the
    /// commit, and the job before it may be in the same batch (SESSION-05).
    ///
    /// # Errors
    /// The database's fault.
    fn has_ended_in(&self, conn: &Conn<'_>, token: &AccessToken) -> Result<bool, Fault>;

    /// Whether [`TokenStatus::mark_seen`] has anything left to write for this token.
    fn is_seen(&self, token: &AccessToken) -> bool;

    /// Records that a resource server decided on this token (REFRESH-06): whoever holds it has
    /// received the refresh token that came with it.
    ///
    /// # Errors
    /// The database's fault; the decision must then not be taken.
    fn mark_seen(&self, tx: &Tx<'_>, token: &AccessToken) -> Result<(), Fault>;
}
