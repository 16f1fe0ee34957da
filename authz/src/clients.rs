//! How a client becomes known.

pub(crate) mod registration;
