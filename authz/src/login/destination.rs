//! Where a sign-in leads that no application asked for.

/// Where somebody goes who has signed in for no transaction: one of our own pages, and no address that anybody sends
/// (REDIR-08).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Destination {
    #[default]
    Home,
    Account,
}

impl Destination {
    /// The destination of this name; home for any other.
    pub(super) fn named(name: Option<&str>) -> Self {
        if name == Self::Account.name() { Self::Account } else { Self::Home }
    }

    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::Home => None,
            Self::Account => Some("account"),
        }
    }

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Home => "/",
            Self::Account => "/account",
        }
    }
}
