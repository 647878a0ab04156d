//! The argument that names a consumer.

use clap::Args;
use lattice::wire::api;

use crate::cli::session::Context;

/// Which consumer.
#[derive(Debug, Args)]
pub(super) struct Name {
    /// Its name
    pub(super) name: String,
}

impl Name {
    /// Returns the request about it.
    pub(super) fn request(&self, context: &Context) -> api::ConsumerRequest {
        api::ConsumerRequest {
            store: context.store.clone(),
            consumer: self.name.clone(),
        }
    }
}
