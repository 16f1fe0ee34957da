//! The policy: a pure function of what an item needs and who calls. It knows no names; lists and calls use the
//! same one (MCP-08, 09, 10).

use shared::Scope;
use shared::token_status::Ceiling;

use crate::argument_rules::{self, Violation};
use crate::item::{Arguments, Item, Needs};

/// The caller, as far as the decision depends on them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'c> {
    /// The token's scope.
    pub(crate) scope: &'c Scope,
    /// The user's current entitlement.
    pub(crate) entitled: &'c Scope,
    /// The client's ceiling.
    pub(crate) ceiling: Ceiling,
    /// Whether there is a user: a client may call in its own name (CC-02).
    pub(crate) has_user: bool,
}

/// The decision for one caller and one item.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Decision {
    /// The call may be made.
    Allow,
    /// The user is entitled, but the token lacks `needed` (RS-11).
    ScopeMissing { needed: Scope },
    /// The user is not entitled. The client gets the answer of [`Decision::Unknown`] (MCP-09).
    NotEntitled,
    /// The item needs a user, and there is none. The client gets the answer of [`Decision::Unknown`].
    NoUser,
    /// The user is entitled, but the client is unverified: signing in again would not help, so the answer says
    /// what would (DCR-08). `beyond` is what the client cannot be granted.
    AboveCeiling { beyond: Scope },
    /// The site hides the item. The client gets the answer of [`Decision::Unknown`].
    Hidden,
    /// The caller may use the item, but not with these arguments (POL-02).
    ArgumentDenied { violation: Violation },
    /// The item does not exist. The code that looks items up returns this, not [`decide`].
    Unknown,
}

impl Decision {
    /// Whether lists show the item: also if only a step-up is missing, but not if this client cannot have it
    /// (MCP-10).
    pub(crate) fn listed(&self) -> bool {
        matches!(self, Self::Allow | Self::ScopeMissing { .. })
    }

    /// The recorded keyword (AUDIT-08).
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::ScopeMissing { .. } => "scope_missing",
            Self::NotEntitled => "not_entitled",
            Self::NoUser => "no_user",
            Self::AboveCeiling { .. } => "above_ceiling",
            Self::Hidden => "hidden",
            Self::ArgumentDenied { .. } => "argument_denied",
            Self::Unknown => "unknown",
        }
    }
}

/// Decides by the intersection of token scope, entitlement and ceiling.
pub(crate) fn decide(needs: &Needs, caller: &Caller<'_>) -> Decision {
    let (all, high_risk) = match needs {
        Needs::User if caller.has_user => return Decision::Allow,
        Needs::User => return Decision::NoUser,
        Needs::Hidden => return Decision::Hidden,
        Needs::Scopes { all, high_risk } => (all, high_risk),
    };
    if all.is_empty() || !all.is_subset(caller.entitled) {
        return Decision::NotEntitled;
    }
    let beyond = beyond(high_risk, caller.ceiling);
    if !beyond.is_empty() {
        return Decision::AboveCeiling { beyond };
    }
    if all.is_subset(caller.scope) {
        return Decision::Allow;
    }
    Decision::ScopeMissing { needed: all.without(caller.scope) }
}

/// Decides about a call: first whether the caller may use the item, and then whether with these arguments. Only
/// callers who may use an item learn its argument rules.
pub(crate) fn decide_call(item: &Item, caller: &Caller<'_>, arguments: &Arguments) -> Decision {
    match decide(&item.needs, caller) {
        Decision::Allow => match argument_rules::check(&item.arguments, &item.named, arguments.value()) {
            Ok(()) => Decision::Allow,
            Err(violation) => Decision::ArgumentDenied { violation },
        },
        refused => refused,
    }
}

/// The part of these high-risk scopes that a client with this ceiling is not granted (DCR-08).
pub(crate) fn beyond(high_risk: &Scope, ceiling: Ceiling) -> Scope {
    match ceiling {
        Ceiling::LowRisk => high_risk.clone(),
        Ceiling::Any => Scope::empty(),
    }
}

#[cfg(test)]
mod tests;
