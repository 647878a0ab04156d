//! What handles, watches and the writer of a store have in common.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::broadcast;

use crate::{
    bus::{Bus, Published},
    clock::Clock,
    id::{Author, StoreId},
    log::LogReader,
    protocol::membership::Members,
    state::{StateReader, View},
    store::Fresh,
};

// What handles, watches and the writer have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) id: StoreId,
    pub(super) author: Author,
    pub(super) root: bool,
    pub(super) clock: Clock,
    pub(super) log: LogReader,
    pub(super) state: StateReader,
    pub(super) bus: Bus,
    pub(super) fresh: broadcast::Sender<Fresh>,
    pub(super) members: tokio::sync::watch::Receiver<Arc<Members>>,
    // True when nobody says who may write.
    pub(super) anyone: bool,
    // How many `WritePause`s there are; own writes wait until it is 0.
    pub(super) pauses: tokio::sync::watch::Sender<usize>,
    pub(super) dir: PathBuf,
    // Where watches run their reading of files.
    pub(super) runtime: tokio::runtime::Handle,
}

impl Shared {
    // Reads never go back behind an expiry that was told.
    pub(super) fn now_ms(&self) -> u64 {
        self.clock
            .now_ms()
            .max(self.state.view().expired_through_ms)
    }
}

/// Returns where a watch stands that was told all of `view`.
pub(super) fn published(view: &View) -> Published {
    Published {
        frontier: Arc::clone(&view.frontier),
        version: view.version,
        expired_through_ms: view.expired_through_ms,
    }
}
