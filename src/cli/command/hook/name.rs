//! The argument that names a hook.

use clap::Args;
use lattice::wire::api;

/// Which hook.
#[derive(Debug, Args)]
pub(super) struct Name {
    /// Its name
    pub(super) name: String,
}

impl Name {
    /// Returns the request about it.
    pub(super) fn request(&self) -> api::HookRequest {
        api::HookRequest {
            hook: self.name.clone(),
        }
    }
}
