//! Errors of the node as errors of the API.

use std::error::Error;

pub use crate::client::error::ApiError;
pub(crate) use crate::client::error::EXIT_FAILED;
pub(super) use crate::client::error::{
    EXIT_DAMAGED, EXIT_NOT_FOUND, EXIT_PRECONDITION, EXIT_UNAVAILABLE, HINT_SHORTER, HINT_START,
};
use crate::{client::error::with_causes, permissions::Untrusted};

impl From<Untrusted> for ApiError {
    fn from(error: Untrusted) -> Self {
        let code = match error {
            Untrusted::WrongOwner { .. } => "wrong_owner",
            Untrusted::Exposed { .. } => "exposed",
            Untrusted::WrongKind { .. } => "wrong_kind",
            Untrusted::Io { .. } => "io",
        };
        Self::new(code, EXIT_FAILED, error.to_string()).hint(error.remedy().unwrap_or_default())
    }
}

pub(super) fn closed(message: String) -> ApiError {
    ApiError::new("closed", EXIT_UNAVAILABLE, message).hint(HINT_START)
}

pub(super) fn text(error: &dyn Error) -> String {
    with_causes(error.to_string(), error.source())
}

pub(super) const HINT_REMOVED: &str = "a removed node cannot return: join with a new data directory, or \
    keep the data with `lattice init --new-identity` and join again";
