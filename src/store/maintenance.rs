//! Maintenance: the status of a store, and its repair.

use crate::{
    log::{LogDamage, Pruning},
    protocol::{finality::Taking, frontier::Frontier},
    store::{
        PruneError, Repaired, Store, StoreStatus, WriteError,
        writer::{command::Command, status::WriterStatus},
    },
};

impl Store {
    /// Removes the entries at and before `anchors`, one tip for each author, from the logs, once their rows
    /// are in a base. What is only in them, such as who wrote a value that was replaced, is gone from this
    /// node. Durable on return; cancel-safe: a dropped call may still have removed them. Writes go on while
    /// the base is made.
    ///
    /// For tests: whether entries are final is not asked.
    ///
    /// # Errors
    /// `PruneError`. Nothing was removed then, unless it is `Log`.
    #[doc(hidden)]
    pub async fn drop_before(&self, anchors: Frontier) -> Result<Pruning, PruneError> {
        let folded = self.fold(anchors.clone(), Taking::default()).await?;
        self.drop_through(&folded, anchors).await
    }

    /// Returns the status of the store. Waits until the writer has finished its current group.
    pub async fn status(&self) -> StoreStatus {
        let closed = |_closed| WriterStatus {
            poisoned: Some("the store is closed".to_owned()),
            ..WriterStatus::default()
        };
        let writer = self.queue.ask(Command::Status).await.unwrap_or_else(closed);
        let restored = self.shared.is_restored();
        let refused = restored.then(|| WriteError::Restored.to_string());
        let view = self.shared.state.view();
        let state_file = tokio::fs::metadata(self.shared.dir.join("state.db")).await;
        StoreStatus {
            entries: view.entries,
            keys: view.keys,
            log_bytes: self.shared.log.bytes(),
            log_bytes_by_author: self.shared.log.bytes_by_author(),
            syncs: self.shared.log.sync_times(),
            state_bytes: state_file.map_or(0, |file| file.len()),
            applied: Frontier::clone(&view.frontier),
            pending_entries: writer.pending_entries,
            pending_bytes: writer.pending_bytes,
            held_entries: writer.held_entries,
            held: writer.held,
            void_acts: writer.void_acts,
            forks: writer.forks,
            damage: writer.damage,
            lost: writer.lost,
            restored,
            watchers: self.shared.bus.watchers(),
            poisoned: writer.poisoned.or(refused),
            recovered: writer.recovered,
            expired_through_ms: view.expired_through_ms,
        }
    }

    /// Makes this node able to write again after the end of its own log was lost, or its own log has
    /// forked. A store whose own log is whole is left as it is.
    ///
    /// Lost entries are given up: the log ends with the newest entry in its file, the state is built
    /// again from the logs, and own writes go on from there. Watches get a `Gap` and the state. If
    /// another node has some of the lost entries, they and what is written now make a fork. So where
    /// a peer or a copy of the file has them, fetch them instead.
    ///
    /// A fork is closed by an entry without ops that cites the newest entries of all branches. Own
    /// writes go on after it, and no value changes. If somebody else who has the key writes on, the
    /// fork is open again.
    ///
    /// On return the repair is durable. Not cancel-safe: a dropped call may still repair.
    ///
    /// # Errors
    /// `WriteError` when files cannot be written. Some of the loss may have been accepted then;
    /// opening the store again shows which. `Restored`; `Reader`, `Removed`, `NotAdmitted` when this node may not
    /// write anyway.
    pub async fn repair(&self) -> Result<Repaired, WriteError> {
        if self.shared.is_restored() {
            return Err(WriteError::Restored);
        }
        self.queue.ask(Command::Repair).await?
    }

    /// Reports damage of a log that a reader met: `status` shows it, and peers are asked for what
    /// is missing.
    pub(super) async fn note_damage(&self, damage: Vec<LogDamage>) {
        if !damage.is_empty() {
            // A closed store finds it when it is opened again.
            drop(self.queue.send(Command::Damaged(damage)).await);
        }
    }
}
