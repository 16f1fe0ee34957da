//! Stories: a whole server, asked over HTTP as clients and browsers ask it.

mod assertion;
mod authorize;
mod browser;
mod client_auth;
mod client_table;
mod clients;
mod clock;
mod command_line;
mod configuration;
mod conformance;
mod device;
mod durability;
mod harness;
mod login;
mod npm_clients;
mod offline;
mod people;
mod process;
mod python_clients;
mod rate;
mod refresh;
mod refresh_families;
mod registration;
mod revocation;
mod step_up;
mod token;
