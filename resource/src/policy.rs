//! Who may call which tool: pure functions, deny by default (MCP-08, 09, 10).

use std::collections::BTreeMap;

use shared::Scope;

/// What a tool asks of its caller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Needs {
    /// A valid token, whatever its scopes.
    ValidToken,
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
    /// There is no such tool.
    Unknown,
}

impl Decision {
    /// Whether a list shows the tool: also when a step-up is all that is missing (MCP-10).
    pub(crate) fn listed(&self) -> bool {
        matches!(self, Self::Allow | Self::ScopeMissing { .. })
    }

    /// The word for it on record (AUDIT-08).
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::ScopeMissing { .. } => "scope_missing",
            Self::NotEntitled => "not_entitled",
            Self::Unknown => "unknown",
        }
    }
}

/// The map from tool to scopes.
#[derive(Clone, Default, Debug)]
pub(crate) struct Policy(BTreeMap<String, Needs>);

impl Policy {
    /// A policy for these tools; every other one is unknown.
    pub(crate) fn new(tools: impl IntoIterator<Item = (String, Needs)>) -> Self {
        Self(tools.into_iter().collect())
    }

    /// What a tool needs, by its exact name; `None` if there is no such tool.
    pub(crate) fn needs(&self, tool: &str) -> Option<&Needs> {
        self.0.get(tool)
    }

    /// Decides on a tool for somebody whose token holds `token` and who is entitled to `entitled`
    /// at this moment. What counts is the intersection of the two.
    pub(crate) fn decide(&self, token: &Scope, entitled: &Scope, tool: &str) -> Decision {
        let needed = match self.needs(tool) {
            None => return Decision::Unknown,
            Some(Needs::ValidToken) => return Decision::Allow,
            Some(Needs::Scopes(needed)) => needed,
        };
        if needed.is_empty() || !needed.is_subset(entitled) {
            return Decision::NotEntitled;
        }
        if needed.is_subset(token) {
            return Decision::Allow;
        }
        let lacking: Scope = needed.iter().filter(|scope| !token.contains(scope)).collect();
        Decision::ScopeMissing { needed: lacking }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope(text: &str) -> Scope {
        text.parse().unwrap()
    }

    fn policy() -> Policy {
        let tool = |name: &str, needs| (name.to_owned(), needs);
        Policy::new([
            tool("whoami", Needs::ValidToken),
            tool("docs_search", Needs::Scopes(scope("docs.read"))),
            tool("ci_trigger", Needs::Scopes(scope("cicd.read cicd.trigger"))),
            tool("unmapped", Needs::Scopes(Scope::empty())),
        ])
    }

    /// MCP-08: names are exact and case-sensitive, and what is not mapped is denied.
    #[test]
    fn what_is_not_mapped_is_denied() {
        let all = scope("docs.read cicd.read cicd.trigger");
        for name in ["", "Docs_search", "docs_search ", "docs.search", "docs", "docs_searc", "*"] {
            assert_eq!(policy().decide(&all, &all, name), Decision::Unknown, "{name:?}");
        }
        assert_eq!(policy().decide(&all, &all, "unmapped"), Decision::NotEntitled);
    }

    /// MCP-09: a token cannot hold on to what its user lost.
    #[test]
    fn a_scope_in_the_token_alone_is_worth_nothing() {
        let decided = policy().decide(&scope("docs.read"), &Scope::empty(), "docs_search");
        assert_eq!(decided, Decision::NotEntitled);
        let half = policy().decide(&scope("cicd.read cicd.trigger"), &scope("cicd.read"), "ci_trigger");
        assert_eq!(half, Decision::NotEntitled);
        assert!(!half.listed());
    }

    /// RS-11, MCP-10: entitled but not granted asks for exactly what lacks, and is listed.
    #[test]
    fn an_entitled_user_is_told_what_lacks() {
        let entitled = scope("cicd.read cicd.trigger docs.read");
        let decided = policy().decide(&scope("cicd.read"), &entitled, "ci_trigger");
        assert_eq!(decided, Decision::ScopeMissing { needed: scope("cicd.trigger") });
        assert!(decided.listed());
    }

    /// MCP-08: `whoami` needs only a valid token.
    #[test]
    fn whoami_needs_no_scope() {
        assert_eq!(policy().decide(&Scope::empty(), &Scope::empty(), "whoami"), Decision::Allow);
    }

    proptest! {
        /// Deny by default: only token and entitlement together allow, and widening never denies.
        #[test]
        fn allowed_means_in_both(token in "[a-c ]{0,8}", entitled in "[a-c ]{0,8}", needed in "[a-c ]{0,6}") {
            let (token, entitled, needed) = (scope(&token), scope(&entitled), scope(&needed));
            let policy = Policy::new([("t".to_owned(), Needs::Scopes(needed.clone()))]);
            let allowed = policy.decide(&token, &entitled, "t") == Decision::Allow;
            let both = token.intersection(&entitled);
            prop_assert_eq!(allowed, !needed.is_empty() && needed.is_subset(&both));
            if allowed {
                let wider = policy.decide(&token.union(&scope("d")), &entitled.union(&scope("d")), "t");
                prop_assert_eq!(wider, Decision::Allow);
            }
        }
    }
}
