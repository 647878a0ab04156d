//! The status of a store, as an operator sees it.

use std::collections::BTreeMap;

use crate::{
    id::{Author, EntryId},
    log::SyncTimes,
    protocol::frontier::Frontier,
    store::{KnownFork, LostEntries},
};

/// The status of a store.
#[derive(Debug, Clone, Default)]
pub struct StoreStatus {
    /// Entries applied.
    pub entries: u64,
    /// Keys ever written, tombstones included.
    pub keys: u64,
    /// Bytes of all logs.
    pub log_bytes: u64,
    /// Bytes of the logs of each author: who took the room.
    pub log_bytes_by_author: BTreeMap<Author, u64>,
    /// How long the disk took to make entries durable, since the store was opened.
    pub syncs: SyncTimes,
    /// Bytes of the state file.
    pub state_bytes: u64,
    /// Tips of the entries applied.
    pub applied: Frontier,
    /// Pending entries: each waits in memory for its predecessor or a parent.
    pub pending_entries: usize,
    /// About how many bytes of memory the pending entries take.
    pub pending_bytes: usize,
    /// Number of entries stamped too far ahead of the clock here.
    pub held_entries: usize,
    /// The `HELD_SHOWN_MAX` of them that wait longest, the last one first.
    pub held: Vec<HeldEntry>,
    /// Acts without effect, as far as they were read since the store was opened.
    pub void_acts: usize,
    /// Forks, each with its proof, by author.
    pub forks: Vec<KnownFork>,
    /// Known damage of the logs, a line each.
    pub damage: Vec<String>,
    /// Entries that are gone from the end of this node's own log. Own writes are refused until
    /// `Store::repair`.
    pub lost: Vec<LostEntries>,
    /// True while own writes are refused because the store was restored from a snapshot.
    pub restored: bool,
    /// Open watches.
    pub watchers: usize,
    /// Why writes are refused; `None` when they are not.
    pub poisoned: Option<String>,
    /// Repairs since the store was opened, a line each.
    pub recovered: Vec<String>,
    /// Expiries through this time were published, ms since 1970.
    pub expired_through_ms: u64,
}

/// An entry stamped too far ahead of the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldEntry {
    /// Author of the entry.
    pub author: Author,
    /// Id of the entry.
    pub id: EntryId,
    /// When it is applied, ms since 1970.
    pub due_ms: u64,
}

/// The part of the status that the writer knows.
#[derive(Debug, Default)]
pub(in crate::store) struct WriterStatus {
    pub(in crate::store) pending_entries: usize,
    pub(in crate::store) pending_bytes: usize,
    pub(in crate::store) held_entries: usize,
    pub(in crate::store) held: Vec<HeldEntry>,
    pub(in crate::store) void_acts: usize,
    pub(in crate::store) forks: Vec<KnownFork>,
    pub(in crate::store) damage: Vec<String>,
    pub(in crate::store) lost: Vec<LostEntries>,
    pub(in crate::store) poisoned: Option<String>,
    pub(in crate::store) recovered: Vec<String>,
}
