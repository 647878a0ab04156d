//! All consumers of a store, as its handle has them.

use std::{any::Any, sync::Arc};

use crate::{
    disk::Disk,
    protocol::frontier::Frontier,
    store::{
        Shared,
        consumers::{Consumer, ConsumerError, ConsumerStatus, HeldHistory, host::Host},
    },
};

/// The consumers of a store. They end with its last handle.
#[derive(Debug)]
pub(in crate::store) struct Consumers(Arc<Host>);

impl Consumers {
    /// Prepares the consumers of a store; the file is opened at its first use. `lease` is held
    /// until the file is closed.
    pub(in crate::store) fn new(
        shared: Arc<Shared>,
        disk: Arc<dyn Disk>,
        lease: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Self {
        Self(Arc::new(Host::new(shared, disk, lease)))
    }

    /// Returns a handle on the consumer `name`, which need not exist yet.
    pub(in crate::store) fn consumer(&self, name: &str) -> Consumer {
        Consumer::new(Arc::clone(&self.0), name)
    }

    /// Returns the status of all consumers, by name.
    pub(in crate::store) async fn list(&self) -> Result<Vec<ConsumerStatus>, ConsumerError> {
        let Some(saver) = self.0.existing().await? else {
            return Ok(Vec::new());
        };
        saver.all().iter().map(|live| live.status()).collect()
    }

    /// Returns the history that consumers hold, by name.
    pub(in crate::store) async fn held_history(
        &self,
        points: Vec<Frontier>,
    ) -> Result<Vec<HeldHistory>, ConsumerError> {
        let Some(saver) = self.0.existing().await? else {
            return Ok(Vec::new());
        };
        let shared = Arc::clone(&self.0.shared);
        let reading = tokio::task::spawn_blocking(move || {
            let all = saver.all().into_iter();
            all.filter_map(|live| HeldHistory::of(&live, &shared, &points).transpose())
                .collect::<Result<Vec<_>, _>>()
        });
        Ok(reading.await.map_err(|_stopped| ConsumerError::Closed)??)
    }

    /// Ends all consumers, saves their state, and closes the file.
    pub(in crate::store) async fn close(&self) {
        let Some(saver) = self.0.stop() else { return };
        let joined = tokio::task::spawn_blocking(move || saver.join()).await;
        // `spawn_blocking` fails only while the runtime shuts down. The saver's thread then ends by
        // itself.
        joined.unwrap_or_default();
    }
}

impl Drop for Consumers {
    fn drop(&mut self) {
        drop(self.0.stop());
    }
}
