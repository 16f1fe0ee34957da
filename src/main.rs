//! The `portcullis` command.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Returns memory to the system once strangers have let go of it (RATE-07), whichever threads have used it and whether or not
/// they allocate again: jemalloc's own threads do that. How soon is said in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    portcullis::main(std::env::args_os())
}
