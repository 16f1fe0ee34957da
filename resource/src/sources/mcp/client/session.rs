//! What is agreed on with an upstream of an older revision.

use http::HeaderValue;

use super::super::speaks::Capabilities;

/// A session, or a revision that was agreed on without one.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: Option<HeaderValue>,
    pub(super) version: &'static str,
    pub(super) capabilities: Capabilities,
}
