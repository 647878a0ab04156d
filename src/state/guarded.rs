//! A guard around redb, which panics on some kinds of damage.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::state::StateError;

/// Runs `work`, which reads or writes a file of redb. A panic is damage.
///
/// # Errors
/// `Damaged`, and the errors of `work`.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, StateError>) -> Result<T, StateError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_panic| {
        Err(StateError::Damaged {
            what: "it cannot be read".to_owned(),
        })
    })
}
