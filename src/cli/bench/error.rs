//! The failure of a bench.

use crate::cli::{exit::Failure, output::print::sources};

/// Returns the failure of something that a bench needs and that did not work.
pub(super) fn failed(what: &str, error: &dyn std::error::Error) -> Failure {
    let error = sources(error);
    Failure::failed("bench", format!("{what}: {error}"))
}
