//! The `portcullis` command.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use portcullis::cli::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    match portcullis::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line that says what to do; the chain of causes is part of it.
            eprintln!("portcullis: {error:#}");
            ExitCode::FAILURE
        }
    }
}
