//! The page shown after a sign-in that no application requested.

/// One of our own pages. The request names it; it cannot give an address (REDIR-08).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Destination {
    #[default]
    Home,
    Account,
}

impl Destination {
    /// The destination with this name; the home page for any other.
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
