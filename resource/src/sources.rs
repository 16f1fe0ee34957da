//! Where tools come from. All of them are reached through the gate and no other way.

pub(crate) mod account;
pub mod docs;
