//! The `lattice` command: arguments in, exit code out.

#![expect(
    clippy::module_inception,
    reason = "mod.rs only lists a folder; its main type is in the file of the same name"
)]

mod cli;

use std::process::ExitCode;

// Calls over the socket allocate a lot and are slower with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run()
}
