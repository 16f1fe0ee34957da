//! How a client becomes known, what it may be called, and how it ends.

pub mod administration;
pub mod configuration;
pub(crate) mod names;
pub mod preregistered;
pub(crate) mod registration;
