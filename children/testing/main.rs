//! The program of the tests: it supervises and launches like the real one, stands in for a gateway that is killed, and is
//! each of the servers that misbehave.

#![forbid(unsafe_code)]

mod attack;
mod gateway;
mod server;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next();
    if let Some(role) = children::role(first.as_deref()) {
        return role.run();
    }
    match first.as_deref().and_then(|first| first.to_str()) {
        Some("gateway") => gateway::run(arguments),
        Some("server") => server::run(),
        Some("exit-at-once") => ExitCode::from(3),
        _ => ExitCode::FAILURE,
    }
}
