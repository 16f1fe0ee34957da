//! Who may use what: one pure function of what an item needs and who calls. It knows no names and holds no map; lists
//! and calls ask the same one (MCP-08, 09, 10).

use shared::Scope;
use shared::token_status::Ceiling;

use crate::argument_rules::{self, Violation};
use crate::item::{Arguments, Item, Needs};

/// Who calls, as far as the decision goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'c> {
    /// What the token allows.
    pub(crate) scope: &'c Scope,
    /// What the user may be granted at this moment.
    pub(crate) entitled: &'c Scope,
    /// What the client may be granted at all.
    pub(crate) ceiling: Ceiling,
    /// Whether there is a user: a client may call in its own name (CC-02).
    pub(crate) has_user: bool,
}

/// The answer for one caller and one item.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Decision {
    /// The call may go ahead.
    Allow,
    /// The user is entitled, the token does not say so (RS-11): `needed` is what it lacks.
    ScopeMissing { needed: Scope },
    /// The user is not entitled. To the client it looks like [`Decision::Unknown`] (MCP-09).
    NotEntitled,
    /// The item is about the user, and there is none. To the client it looks like [`Decision::Unknown`].
    NoUser,
    /// The user is entitled, and nobody vouches for the client they use: signing in again would not help, so
    /// the answer says what would (DCR-08). `beyond` is what the client cannot be granted.
    AboveCeiling { beyond: Scope },
    /// The site keeps the item from everybody. To the client it looks like [`Decision::Unknown`].
    Hidden,
    /// The caller may use the item, but not with these arguments (POL-02).
    ArgumentDenied { violation: Violation },
    /// There is no such item. Whoever looks items up by name says so, not [`decide`].
    Unknown,
}

impl Decision {
    /// Whether a list shows the item: also when a step-up is all that is missing, and not what cannot be had
    /// through this client (MCP-10).
    pub(crate) fn listed(&self) -> bool {
        matches!(self, Self::Allow | Self::ScopeMissing { .. })
    }

    /// The word for it on record (AUDIT-08).
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

/// Decides. What counts is the intersection of token, entitlement and ceiling.
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

/// Decides about a call: whether the caller may use the item at all, and then whether with these arguments. Only somebody
/// who may use an item learns what its arguments must be like.
pub(crate) fn decide_call(item: &Item, caller: &Caller<'_>, arguments: &Arguments) -> Decision {
    match decide(&item.needs, caller) {
        Decision::Allow => match argument_rules::check(&item.arguments, &item.named, arguments.value()) {
            Ok(()) => Decision::Allow,
            Err(violation) => Decision::ArgumentDenied { violation },
        },
        refused => refused,
    }
}

/// What a client with this ceiling is not granted of these high-risk scopes, whoever uses it (DCR-08).
pub(crate) fn beyond(high_risk: &Scope, ceiling: Ceiling) -> Scope {
    match ceiling {
        Ceiling::LowRisk => high_risk.clone(),
        Ceiling::Any => Scope::empty(),
    }
}

#[cfg(test)]
mod tests;
