//! The argument that names a consumer.

use clap::Args;
use lattice::wire::api;

use crate::cli::session::Context;

/// The name of a consumer.
#[derive(Debug, Args)]
pub(super) struct Name {
    /// Name of the consumer
    pub(super) name: String,
}

impl Name {
    /// Makes a request for this consumer.
    pub(super) fn request(&self, context: &Context) -> api::ConsumerRequest {
        api::ConsumerRequest {
            store: context.store.clone(),
            consumer: self.name.clone(),
        }
    }
}
