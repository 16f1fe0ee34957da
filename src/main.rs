//! The `portcullis` command.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Returns freed memory to the system even if its threads do not allocate again (RATE-07): jemalloc's
/// background threads do that. The delay is set in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    portcullis::main(std::env::args_os())
}
