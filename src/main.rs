//! The `lattice` command: arguments in, exit code out.

#![expect(
    clippy::module_inception,
    reason = "mod.rs only lists a folder; its main type is in the file of the same name"
)]

mod cli;
// The mutator of the fuzz targets, for decoders that are not public.
#[cfg(test)]
#[allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "it is shared with the integration tests"
)]
#[path = "../tests/it/support"]
mod support {
    pub mod mutator;
    pub mod random;
}

use std::process::ExitCode;

// Calls over the socket allocate a lot and are slower with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run()
}
