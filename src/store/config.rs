//! What a store is opened with.

use std::{any::Any, path::PathBuf, sync::Arc};

use ed25519_dalek::SigningKey;
use tokio::sync::watch;

use crate::{
    clock::Clock,
    disk::Disk,
    id::{Author, StoreId},
    protocol::membership::Members,
};

/// What a store is opened with.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The store.
    pub id: StoreId,
    /// Its directory, made where it is missing.
    pub dir: PathBuf,
    /// Signs this node's entries.
    pub key: Arc<SigningKey>,
    /// The wall clock.
    pub clock: Clock,
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// Batches a bus channel holds; see `BUS_BATCHES_MAX`.
    pub bus_batches: usize,
    /// Kept until the writer thread has ended: whatever keeps others off the directory.
    pub lease: Option<Arc<dyn Any + Send + Sync>>,
    /// True for the root store: clients may not write under the node's own prefixes, and entries
    /// are never held.
    pub root: bool,
    /// Where it learns who may write.
    pub authority: Authority,
}

/// Where a store learns who may write.
#[derive(Debug, Clone)]
pub enum Authority {
    /// It is the root store that this node founded or joined.
    Root {
        /// Who founded it.
        creator: Author,
    },
    /// The root store of the same node says it.
    Of(watch::Receiver<Arc<Members>>),
    /// Nobody says it: whatever is signed counts. For a store without a node.
    Anyone,
}
