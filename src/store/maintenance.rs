//! How a store is, and how a person repairs it.

use crate::{
    log::LogDamage,
    protocol::frontier::Frontier,
    store::{
        Repaired, Store, StoreStatus, WriteError,
        writer::{command::Command, status::WriterStatus},
    },
};

impl Store {
    /// Returns how the store is. Waits for the group that the writer works on.
    pub async fn status(&self) -> StoreStatus {
        let closed = |_closed| WriterStatus {
            poisoned: Some("the store is closed".to_owned()),
            ..WriterStatus::default()
        };
        let writer = self.queue.ask(Command::Status).await.unwrap_or_else(closed);
        let view = self.shared.state.view();
        let state_file = tokio::fs::metadata(self.shared.dir.join("state.db")).await;
        StoreStatus {
            entries: view.entries,
            keys: view.keys,
            log_bytes: self.shared.log.bytes(),
            syncs: self.shared.log.sync_times(),
            state_bytes: state_file.map_or(0, |file| file.len()),
            applied: Frontier::clone(&view.frontier),
            pending_entries: writer.pending_entries,
            pending_bytes: writer.pending_bytes,
            held: writer.held,
            void_acts: writer.void_acts,
            forks: writer.forks,
            damage: writer.damage,
            lost: writer.lost,
            watchers: self.shared.bus.watchers(),
            poisoned: writer.poisoned,
            recovered: writer.recovered,
            expired_through_ms: view.expired_through_ms,
        }
    }

    /// Makes this node able to write again after its own log was lost in part, or has forked; a
    /// store whose own log is whole is left as it is.
    ///
    /// Where the end of the log is gone, that is accepted: the log ends with the newest entry that
    /// is in its file, the state is built again from the logs alone, and own writes go on from
    /// there. Watches get a `Gap` and the state. Entries that others have of the lost ones make a
    /// fork together with what is written now: where another node or a copy of the file has them,
    /// take it back instead.
    ///
    /// Where the log has forked, an entry without ops names the newest entries of all its branches,
    /// and own writes go on after it; no value changes by that. When whoever else has the key writes
    /// on, the fork is open again.
    ///
    /// On return it is durable. Not cancel-safe: a dropped call may still repair.
    ///
    /// # Errors
    /// `WriteError` when files cannot be written; the loss is not accepted then, or accepted in
    /// part, and opening the store again says which. `Reader`, `Removed`, `NotAdmitted` when this
    /// node may not write anyway.
    pub async fn repair(&self) -> Result<Repaired, WriteError> {
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
