//! An MCP endpoint: its own RFC 8707 resource with its own metadata, challenges and selection of items
//! (POL-03). `/mcp` is one, and each of `[profiles]` is another at `/mcp/NAME`.

use shared::catalogue::Endpoint;
use shared::{Document, Issuer, ResourceUri};

use crate::bearer::Challenges;
use crate::item::{Item, Needs};
use crate::metadata::{self, MCP_WELL_KNOWN};
use crate::rules::Pattern;

/// The path of the main endpoint.
pub(crate) const MCP_PATH: &str = "/mcp";
/// The paths of its profiles.
pub(crate) const PROFILE_PATH: &str = "/mcp/{profile}";

/// An endpoint.
#[derive(Debug)]
pub(crate) struct Profile {
    endpoint: Endpoint,
    selection: Selection,
    challenges: Challenges,
    metadata: Document,
}

/// The items of an endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Selection {
    All,
    /// Items whose name matches one of these, and items that need only a valid token (MCP-08).
    Matching(Vec<Pattern>),
}

impl Selection {
    /// Whether an item is among them.
    pub(crate) fn contains(&self, item: &Item) -> bool {
        match self {
            Self::All => true,
            Self::Matching(patterns) => {
                item.needs == Needs::User || patterns.iter().any(|pattern| pattern.matches(&item.offer.name))
            }
        }
    }
}

impl Profile {
    /// The endpoint at this origin, for tokens of this issuer.
    pub(crate) fn new(own: &Issuer, issuer: &Issuer, endpoint: Endpoint, selection: Selection) -> Self {
        let path = endpoint.resource.path();
        let below = path.strip_prefix(MCP_PATH).unwrap_or_default();
        let well_known = own.url(&format!("{MCP_WELL_KNOWN}{below}"));
        Self {
            challenges: Challenges::new(&well_known, &endpoint.default_scope),
            metadata: metadata::of(issuer, &endpoint),
            endpoint,
            selection,
        }
    }

    /// Its identifier, the `aud` of its tokens.
    pub(crate) fn uri(&self) -> &ResourceUri {
        &self.endpoint.resource
    }

    /// Its description for the authorization side.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    pub(crate) fn metadata(&self) -> &Document {
        &self.metadata
    }

    /// Whether the item can be used here.
    pub(crate) fn reaches(&self, item: &Item) -> bool {
        self.selection.contains(item)
    }
}
