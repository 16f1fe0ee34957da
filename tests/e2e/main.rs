//! Stories: a whole server, asked over HTTP as clients and browsers ask it.

mod authorize;
mod harness;
mod login;
mod refresh;
mod registration;
mod token;
