//! What an upstream is found to speak, and what it says that it offers.

use crate::members::Members;

/// Which kind of revision it speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SpokenEra {
    Modern(Capabilities),
    Legacy,
}

/// What it says that it offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Capabilities {
    pub(crate) tools: Capability,
    pub(crate) prompts: Capability,
    pub(crate) resources: Capability,
}

/// Whether there is a list, and whether it tells of changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Capability {
    pub(crate) declared: bool,
    pub(crate) tells_changes: bool,
}

impl Capabilities {
    /// Whether it tells of changes of some list.
    pub(super) fn tells_changes(self) -> bool {
        [self.tools, self.prompts, self.resources].iter().any(|one| one.tells_changes)
    }

    /// The parameter of a subscription to the changes that it tells of (2026-07-28, subscriptions).
    pub(super) fn wanted(self) -> String {
        let Self { tools, prompts, resources } = self;
        let all = [("tools", tools), ("prompts", prompts), ("resources", resources)];
        let told = all.iter().filter(|(_, one)| one.tells_changes);
        let told = told.map(|(name, _)| format!(r#""{name}ListChanged":true"#)).collect::<Vec<_>>();
        format!(r#""notifications":{{{}}}"#, told.join(","))
    }

    pub(super) fn of(result: &Members<'_>) -> Self {
        let all = result.get("capabilities").and_then(|all| Members::of(all.get())).unwrap_or_default();
        let one = |name: &str| {
            let Some(written) = all.get(name) else { return Capability::default() };
            let members = Members::of(written.get()).unwrap_or_default();
            let tells_changes = members.get("listChanged").is_some_and(|value| value.get() == "true");
            Capability { declared: true, tells_changes }
        };
        Self { tools: one("tools"), prompts: one("prompts"), resources: one("resources") }
    }
}
