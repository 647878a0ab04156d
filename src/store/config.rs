//! Configuration of a store.

use std::{any::Any, path::PathBuf, sync::Arc};

use ed25519_dalek::SigningKey;
use tokio::sync::watch;

use crate::{
    clock::Clock,
    disk::Disk,
    id::{Author, StoreId},
    log::LogFiles,
    protocol::membership::Members,
};

/// Configuration that a store is opened with.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Id of the store. Entries of any other are refused.
    pub id: StoreId,
    /// Directory of the store's files. It is created if it is missing.
    pub dir: PathBuf,
    /// Key that signs this node's entries.
    pub key: Arc<SigningKey>,
    /// Wall clock.
    pub clock: Clock,
    /// File system, or what a test puts in its place.
    pub disk: Arc<dyn Disk>,
    /// Bound on the log files that are open at a time. The stores of a process share one.
    pub files: LogFiles,
    /// How many batches a channel of the bus holds; see `BUS_BATCHES_MAX`.
    pub bus_batches: usize,
    /// Keeps other processes out of the directory, for example by a lock. Dropped when the writer's
    /// thread has ended.
    pub lease: Option<Arc<dyn Any + Send + Sync>>,
    /// True for the root store: clients may not write under the node's own prefixes, and entries
    /// are never held.
    pub root: bool,
    /// Source of the members: who may write here.
    pub authority: Authority,
}

/// Source of the members of a store.
#[derive(Debug, Clone)]
pub enum Authority {
    /// The store is the root store that this node founded or joined: members follow from its acts.
    Root {
        /// Node that founded it.
        creator: Author,
    },
    /// The root store of the same node publishes them.
    Of(watch::Receiver<Arc<Members>>),
    /// There are none: every signed entry counts. For a store without a node.
    Anyone,
}
