//! A hold: own writes wait while somebody looks whether this node may write yet.

use std::sync::Arc;

use crate::store::{Shared, Store};

/// Own writes to a store wait for as long as it lives. Reads, and entries of others, do not.
#[derive(Debug)]
#[must_use = "writes go on when it is dropped"]
pub struct WriteHold(Arc<Shared>);

impl Store {
    /// Lets own writes wait until what it returns is dropped.
    pub fn hold_writes(&self) -> WriteHold {
        self.shared.holds.send_modify(|holds| *holds += 1);
        WriteHold(Arc::clone(&self.shared))
    }

    /// Waits while own writes are held. Cancel-safe.
    pub(in crate::store) async fn may_write(&self) {
        // Almost always.
        if *self.shared.holds.borrow() == 0 {
            return;
        }
        let mut holds = self.shared.holds.subscribe();
        // The other end is in `shared`.
        drop(holds.wait_for(|holds| *holds == 0).await);
    }
}

impl Drop for WriteHold {
    fn drop(&mut self) {
        self.0.holds.send_modify(|holds| *holds -= 1);
    }
}
