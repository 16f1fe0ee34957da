//! The offer: the scopes that a user can allow. A grant never exceeds its offer, and an offer never exceeds
//! what was requested, what the user is entitled to, and what the client may be granted.

use shared::db::Conn;
use shared::token_status::Ceiling;
use shared::{Fault, Scope, UserId};

use crate::Authz;

/// The requested scopes, divided into those that can be allowed and those that cannot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Offer {
    /// Can be ticked: requested ∩ entitled ∩ within the client's ceiling.
    pub scope: Scope,
    /// The part of `scope` that takes a passkey assertion (CONSENT-08).
    pub high_risk: Scope,
    /// Requested, but the user is not entitled to it.
    pub not_entitled: Scope,
    /// The user is entitled to it, but this client may not have it (DCR-08).
    pub above_ceiling: Scope,
}

impl Offer {
    /// The part of a scope that takes a passkey assertion.
    pub(crate) fn high_risk_of(&self, scope: &Scope) -> Scope {
        self.high_risk.intersection(scope)
    }
}

/// Computes the offer of this user to a client with this ceiling.
pub(crate) fn offer(
    authz: &Authz,
    conn: &Conn<'_>,
    asked: &Scope,
    user: &UserId,
    ceiling: Ceiling,
) -> Result<Offer, Fault> {
    // Scopes that were removed from the configuration are ignored.
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
