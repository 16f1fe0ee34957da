//! An MCP endpoint: its own RFC 8707 resource, with its own metadata, its own challenges and its own choice of items.

use std::sync::Arc;

use shared::{Document, ResourceUri};

use crate::bearer::{Bearer, Challenges};
use crate::item::{Item, Kind};
use crate::registry::Snapshot;

/// An endpoint.
pub(crate) struct Profile {
    uri: ResourceUri,
    bearer: Bearer,
    challenges: Challenges,
    metadata: Document,
}

impl Profile {
    pub(crate) fn new(uri: ResourceUri, bearer: Bearer, challenges: Challenges, metadata: Document) -> Self {
        Self { uri, bearer, challenges, metadata }
    }

    /// The identifier that tokens for it carry as `aud`.
    pub(crate) fn uri(&self) -> &ResourceUri {
        &self.uri
    }

    /// The check of tokens for it.
    pub(crate) fn bearer(&self) -> &Bearer {
        &self.bearer
    }

    pub(crate) fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    pub(crate) fn metadata(&self) -> &Document {
        &self.metadata
    }

    /// The items of a kind that are reached here: all of them.
    #[expect(clippy::unused_self, reason = "which items are reached is the endpoint's to say")]
    pub(crate) fn items<'s>(
        &self,
        snapshot: &'s Snapshot,
        kind: Kind,
    ) -> impl Iterator<Item = &'s Arc<Item>> {
        snapshot.items(kind)
    }

    /// The item of this name, if it is reached here.
    #[expect(clippy::unused_self, reason = "which items are reached is the endpoint's to say")]
    pub(crate) fn find<'s>(&self, snapshot: &'s Snapshot, kind: Kind, name: &str) -> Option<&'s Arc<Item>> {
        snapshot.find(kind, name)
    }
}
