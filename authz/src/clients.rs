//! How a client becomes known, which names it may have, and how it is removed.

pub mod administration;
pub mod configuration;
pub(crate) mod expiry;
pub mod initial_access;
pub(crate) mod management;
pub(crate) mod metadata;
pub(crate) mod metadata_document;
pub(crate) mod names;
pub mod preregistered;
pub(crate) mod redirects;
pub(crate) mod registration;
mod resolution;
pub mod revision;

pub(crate) use resolution::{
    LookupPurpose, Resolved, Undocumented, adopt, changed_fields, documents_lead_to_a_login, reconcile,
    registration_of, resolve, summary,
};
