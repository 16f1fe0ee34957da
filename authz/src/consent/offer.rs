//! What a person can allow at all. Nothing is ever granted that is not in an offer, and no offer is wider than what
//! was asked for, what its user is entitled to, and what its client can be granted.

use shared::db::Conn;
use shared::token_status::Ceiling;
use shared::{Fault, Scope, UserId};

use crate::Authz;

/// What can be allowed of what was asked for, and what of it cannot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Offer {
    /// What can be ticked: asked for ∩ entitled to ∩ below the client's ceiling.
    pub scope: Scope,
    /// What of it takes a passkey used for the decision (CONSENT-08).
    pub high_risk: Scope,
    /// Asked for, and not the user's to give.
    pub not_entitled: Scope,
    /// The user's to give, and not to this client (DCR-08).
    pub above_ceiling: Scope,
}

impl Offer {
    /// What of a scope takes a passkey used for the decision.
    pub(crate) fn high_risk_of(&self, scope: &Scope) -> Scope {
        self.high_risk.intersection(scope)
    }
}

/// What this user can allow a client with this ceiling, of what it asks for.
pub(crate) fn offer(
    authz: &Authz,
    conn: &Conn<'_>,
    asked: &Scope,
    user: &UserId,
    ceiling: Ceiling,
) -> Result<Offer, Fault> {
    // What asked for a scope that has left the configuration asked for nothing.
    let asked = asked.intersection(&authz.grantable());
    let entitled = authz.status.entitled_in(conn, user)?;
    let allowed = authz.grantable_to(ceiling);
    let own = asked.intersection(&entitled);
    let scope = own.intersection(&allowed);
    Ok(Offer {
        high_risk: scope.without(&authz.grantable_to(Ceiling::LowRisk)),
        not_entitled: asked.without(&entitled),
        above_ceiling: own.without(&allowed),
        scope,
    })
}
