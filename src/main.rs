//! The `portcullis` command.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    portcullis::main(std::env::args_os())
}
