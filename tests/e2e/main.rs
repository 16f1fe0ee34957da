//! Stories: a whole server, asked over HTTP as clients and browsers ask it.

mod authorize;
mod browser;
mod command_line;
mod durability;
mod harness;
mod login;
mod process;
mod refresh;
mod registration;
mod token;
