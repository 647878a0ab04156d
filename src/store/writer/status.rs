//! How a store is.

use crate::{
    id::{Author, EntryId},
    log::SyncTimes,
    protocol::frontier::Frontier,
    store::{KnownFork, LostEntries},
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
    pub(in crate::store) pending_entries: usize,
    pub(in crate::store) pending_bytes: usize,
    pub(in crate::store) held: Vec<HeldEntry>,
    pub(in crate::store) void_acts: usize,
    pub(in crate::store) forks: Vec<KnownFork>,
    pub(in crate::store) damage: Vec<String>,
    pub(in crate::store) lost: Vec<LostEntries>,
    pub(in crate::store) poisoned: Option<String>,
    pub(in crate::store) recovered: Vec<String>,
}
