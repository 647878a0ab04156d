//! Makes the failures of benches.

use crate::cli::{exit::Failure, output::print::sources};

/// Returns the failure of a bench: `what` happened, because of `error` and its sources.
pub(super) fn failed(what: &str, error: &dyn std::error::Error) -> Failure {
    let error = sources(error);
    Failure::failed("bench", format!("{what}: {error}"))
}
