//! Who shares a child with whom.

/// Who shares one child.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sharing {
    /// Everybody.
    #[default]
    Shared,
    /// The calls of one principal.
    PerUser,
    /// The calls of one principal in one session. Calls outside of sessions share one child of their principal.
    PerSession,
}

/// Whose call it is, and what the child was or would be started with for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallerKey<'a> {
    pub principal: &'a str,
    pub session: Option<&'a str>,
    /// The version of the credential that the child gets.
    pub credential: u64,
    /// What is declared to the child of what the caller can do.
    pub capabilities: &'a str,
}

/// What two calls have in common that share a child.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    pub(super) owner: Owner,
    pub(super) credential: u64,
    pub(super) capabilities: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Owner {
    pub(super) principal: Option<String>,
    pub(super) session: Option<String>,
}

impl Sharing {
    /// The child that serves a call.
    pub fn key(self, asker: &CallerKey<'_>) -> Key {
        let (principal, session) = match self {
            Self::Shared => (None, None),
            Self::PerUser => (Some(asker.principal), None),
            Self::PerSession => (Some(asker.principal), asker.session),
        };
        let owner = Owner { principal: principal.map(str::to_owned), session: session.map(str::to_owned) };
        Key { owner, credential: asker.credential, capabilities: asker.capabilities.to_owned() }
    }
}

impl Key {
    /// The principal whose calls alone it serves.
    pub fn principal(&self) -> Option<&str> {
        self.owner.principal.as_deref()
    }

    /// The session whose calls alone it serves.
    pub fn session(&self) -> Option<&str> {
        self.owner.session.as_deref()
    }

    /// The version of the credential that it was started with.
    pub fn credential(&self) -> u64 {
        self.credential
    }

    /// Whether this is the same child with another version of the credential.
    pub(super) fn is_other_version_of(&self, other: &Self) -> bool {
        self.owner == other.owner
            && self.capabilities == other.capabilities
            && self.credential != other.credential
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(sharing: Sharing) -> Vec<Key> {
        let mut keys = Vec::new();
        for principal in ["alice", "bob"] {
            for session in [None, Some("1"), Some("2")] {
                for credential in [1, 2] {
                    for capabilities in ["", "elicitation"] {
                        keys.push(sharing.key(&CallerKey { principal, session, credential, capabilities }));
                    }
                }
            }
        }
        keys.sort_by_key(|key| format!("{key:?}"));
        keys.dedup();
        keys
    }

    /// SRC-07: what is declared and which credential is used always tell children apart; who asks does as is configured.
    #[test]
    fn a_child_is_shared_by_whom_the_configuration_says() {
        assert_eq!(keys(Sharing::Shared).len(), 4);
        assert_eq!(keys(Sharing::PerUser).len(), 8);
        assert_eq!(keys(Sharing::PerSession).len(), 24);
        assert!(
            keys(Sharing::PerUser).iter().all(|key| key.principal().is_some() && key.session().is_none())
        );
    }
}
