//! The `portcullis` command.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Returns memory to the system once strangers have let go of it, which the C library's allocator does not (RATE-07).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    portcullis::main(std::env::args_os())
}
