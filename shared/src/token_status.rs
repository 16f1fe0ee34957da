//! Whether a token is active, and what its user is entitled to now. Answered by the authorization side and
//! asked by the resource side at every request.

use std::sync::Arc;

use crate::access_token::AccessToken;
use crate::catalogue::Risk;
use crate::db::{Conn, Fault, Tx};
use crate::scope::Scope;

/// The answer of [`TokenStatus::standing`].
#[derive(Clone, Debug)]
pub enum Standing {
    /// The token is active.
    Live {
        /// What the user is entitled to now. A call may use the intersection with the token's scope.
        entitled: Arc<Scope>,
        /// The most that its client can be granted, for any user.
        ceiling: Ceiling,
    },
    /// Its grant, `jti`, user, client or key is no longer valid (RS-08).
    Dead,
}

/// The most that a client can be granted, independent of the user's entitlement (DCR-08).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ceiling {
    /// An unverified client: no high-risk scope.
    LowRisk,
    /// All scopes that its user may be granted.
    Any,
}

impl Ceiling {
    /// Whether it includes scopes of this risk.
    pub fn allows(self, risk: Risk) -> bool {
        self == Self::Any || risk == Risk::Low
    }
}

/// The live state behind an access token.
pub trait TokenStatus: Send + Sync {
    /// Whether the token is active at this moment. `kid` names the key that signed it.
    ///
    /// Answered from memory, without I/O.
    fn standing(&self, token: &AccessToken, kid: &str) -> Standing;

    /// Whether the token has ended, as this connection sees it. Jobs use this, because memory is updated at the
    /// commit, and an earlier job may be in the same batch (SESSION-05).
    ///
    /// # Errors
    /// A database fault.
    fn has_ended_in(&self, conn: &Conn<'_>, token: &AccessToken) -> Result<bool, Fault>;

    /// Whether [`TokenStatus::mark_seen`] has nothing left to write for this token.
    fn is_seen(&self, token: &AccessToken) -> bool;

    /// Records that a resource server accepted this token (REFRESH-06), so its client has received the refresh
    /// token issued with it.
    ///
    /// # Errors
    /// A database fault; the request must then be refused.
    fn mark_seen(&self, tx: &Tx<'_>, token: &AccessToken) -> Result<(), Fault>;
}
