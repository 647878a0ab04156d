//! The argument that names a hook.

use clap::Args;
use lattice::wire::api;

/// The name of a hook.
#[derive(Debug, Args)]
pub(super) struct Name {
    /// Name of the hook
    pub(super) name: String,
}

impl Name {
    /// Makes a request for this hook.
    pub(super) fn request(&self) -> api::HookRequest {
        api::HookRequest {
            hook: self.name.clone(),
        }
    }
}
