//! Who may call which tool: pure functions, deny by default (MCP-08, 09, 10).

use std::collections::BTreeMap;

use shared::Scope;
use shared::token_status::Ceiling;

/// What a tool asks of its caller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Needs {
    /// A valid token with a user behind it, whatever its scopes.
    User,
    /// All of these scopes. An empty set is never satisfied: it is a tool that nobody has mapped.
    Scopes(Scope),
}

/// The answer for one caller and one tool. Lists and calls are answered by the same one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Decision {
    /// The call may go ahead.
    Allow,
    /// The user is entitled, the token does not say so (RS-11): `needed` is what it lacks.
    ScopeMissing { needed: Scope },
    /// The user is not entitled. To the client it looks like [`Decision::Unknown`] (MCP-09).
    NotEntitled,
    /// The tool is about the user, and there is none: a client calls in its own name (CC-02). To the client it
    /// looks like [`Decision::Unknown`].
    NoUser,
    /// The user is entitled, and nobody vouches for the client they use: signing in again would not help, so
    /// the answer says what would (DCR-08). `beyond` is what the client cannot be granted.
    AboveCeiling { beyond: Scope },
    /// There is no such tool.
    Unknown,
}

impl Decision {
    /// Whether a list shows the tool: also when a step-up is all that is missing, and not what cannot be had
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
            Self::Unknown => "unknown",
        }
    }
}

/// The map from tool to scopes.
#[derive(Clone, Default, Debug)]
pub(crate) struct Policy {
    tools: BTreeMap<String, Needs>,
    high_risk: Scope,
}

impl Policy {
    /// A policy for these tools; every other one is unknown.
    pub(crate) fn new(tools: impl IntoIterator<Item = (String, Needs)>) -> Self {
        Self { tools: tools.into_iter().collect(), high_risk: Scope::empty() }
    }

    /// The same, these scopes being none for a client that nobody vouches for.
    pub(crate) fn with_high_risk(self, high_risk: Scope) -> Self {
        Self { high_risk, ..self }
    }

    /// What a tool needs, by its exact name; `None` if there is no such tool.
    pub(crate) fn needs(&self, tool: &str) -> Option<&Needs> {
        self.tools.get(tool)
    }

    /// What this client is not granted of a scope, whoever uses it.
    pub(crate) fn beyond(&self, scope: &Scope, ceiling: Ceiling) -> Scope {
        match ceiling {
            Ceiling::LowRisk => scope.intersection(&self.high_risk),
            Ceiling::Any => Scope::empty(),
        }
    }

    /// Decides on a tool for somebody whose token holds `token` and who is entitled to `entitled` at this
    /// moment, through a client with this ceiling. What counts is the intersection of the three.
    pub(crate) fn decide(&self, token: &Scope, entitled: &Scope, ceiling: Ceiling, tool: &str) -> Decision {
        let needed = match self.needs(tool) {
            None => return Decision::Unknown,
            Some(Needs::User) => return Decision::Allow,
            Some(Needs::Scopes(needed)) => needed,
        };
        if needed.is_empty() || !needed.is_subset(entitled) {
            return Decision::NotEntitled;
        }
        let beyond = self.beyond(needed, ceiling);
        if !beyond.is_empty() {
            return Decision::AboveCeiling { beyond };
        }
        if needed.is_subset(token) {
            return Decision::Allow;
        }
        let lacking: Scope = needed.iter().filter(|scope| !token.contains(scope)).collect();
        Decision::ScopeMissing { needed: lacking }
    }
}

#[cfg(test)]
mod tests;
