//! A pause: own writes wait while the node compares its own log with its peers'.

use std::sync::Arc;

use crate::store::{Shared, WriteError};

/// Own writes to a store wait as long as this guard lives. Reads and entries of other nodes do not.
#[derive(Debug)]
#[must_use = "writes go on when it is dropped"]
pub struct WritePause(Arc<Shared>);

impl WritePause {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        shared.pauses.send_modify(|pauses| *pauses += 1);
        Self(shared)
    }
}

impl Shared {
    /// Waits while own writes are paused. Cancel-safe.
    ///
    /// # Errors
    /// `Removed`: a peer has proven that this node was removed. `Restored`.
    pub(super) async fn until_may_write(&self) -> Result<(), WriteError> {
        if self.is_restored() {
            return Err(WriteError::Restored);
        }
        self.until_not_paused().await;
        let shown = *self.turned_away.borrow();
        shown.map_or(Ok(()), |_by| Err(WriteError::Removed))
    }

    // Cancel-safe.
    async fn until_not_paused(&self) {
        // Almost always.
        if *self.pauses.borrow() == 0 {
            return;
        }
        let mut pauses = self.pauses.subscribe();
        // `self` keeps the sender, so the channel does not close.
        drop(pauses.wait_for(|pauses| *pauses == 0).await);
    }
}

impl Drop for WritePause {
    fn drop(&mut self) {
        self.0.pauses.send_modify(|pauses| *pauses -= 1);
    }
}
