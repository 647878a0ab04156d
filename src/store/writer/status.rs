//! How a store is.

use tokio::sync::oneshot;

use crate::{
    id::{Author, EntryId},
    log::SyncTimes,
    protocol::frontier::Frontier,
    store::{KnownFork, LostEntries, Store, writer::actor::Command},
};

/// How a store is.
#[derive(Debug, Clone)]
pub struct StoreStatus {
    /// Entries applied.
    pub entries: u64,
    /// Keys ever written, tombstones included.
    pub keys: u64,
    /// Bytes of all logs.
    pub log_bytes: u64,
    /// How long the disk took to make entries durable, since the store was opened.
    pub syncs: SyncTimes,
    /// Bytes of the state file.
    pub state_bytes: u64,
    /// The newest entries applied.
    pub applied: Frontier,
    /// Entries that wait for others.
    pub pending_entries: usize,
    /// Their bytes.
    pub pending_bytes: usize,
    /// Entries that wait for the clock, by due time.
    pub held: Vec<HeldEntry>,
    /// What entries say of nodes without being entitled to: it keeps no place in the state.
    pub void_acts: usize,
    /// Authors who signed two entries for one place, with the proof, by author.
    pub forks: Vec<KnownFork>,
    /// What is damaged, a line each.
    pub damage: Vec<String>,
    /// What is gone of the end of this node's own log: own writes are refused, see `Store::repair`.
    pub lost: Vec<LostEntries>,
    /// Watches.
    pub watchers: usize,
    /// Why writes are refused; `None`: they are not.
    pub poisoned: Option<String>,
    /// What opening the store, or a read, had to mend.
    pub recovered: Vec<String>,
    /// Expiries through this time were told, ms since 1970.
    pub expired_through_ms: u64,
}

/// An entry stamped too far ahead of the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldEntry {
    /// Who wrote it.
    pub author: Author,
    /// Which it is.
    pub id: EntryId,
    /// When it is applied, ms since 1970.
    pub due_ms: u64,
}

/// The part of the status that the writer knows.
#[derive(Debug, Default)]
pub(in crate::store) struct WriterStatus {
    pub(super) pending_entries: usize,
    pub(super) pending_bytes: usize,
    pub(super) held: Vec<HeldEntry>,
    pub(super) void_acts: usize,
    pub(super) forks: Vec<KnownFork>,
    pub(super) damage: Vec<String>,
    pub(super) lost: Vec<LostEntries>,
    pub(super) poisoned: Option<String>,
    pub(super) recovered: Vec<String>,
}

impl Store {
    /// Returns how the store is. Waits for the writer's current group.
    pub async fn status(&self) -> StoreStatus {
        let (reply, answer) = oneshot::channel();
        let writer = match self.queue.send(Command::Status(reply)).await {
            Ok(()) => answer.await.ok(),
            Err(_closed) => None,
        };
        let writer = writer.unwrap_or_else(|| WriterStatus {
            poisoned: Some("the store is closed".to_owned()),
            ..WriterStatus::default()
        });
        let view = self.shared.state.view();
        let state_file = std::fs::metadata(self.shared.dir.join("state.db"));
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
}
