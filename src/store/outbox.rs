//! The outbox: entries just written here, on their way to the net.

use bytes::Bytes;
use tokio::sync::broadcast;

use crate::{
    id::{Author, EntryId, Seq},
    limits::FRESH_ENTRIES_MAX,
};

/// An entry that was just written here, and is durable.
#[derive(Debug, Clone)]
pub struct Fresh {
    /// This node.
    pub author: Author,
    /// Its place in its author's log.
    pub seq: Seq,
    /// Id of the entry.
    pub id: EntryId,
    /// The encoded entry; `None` when it is too large for a broadcast (`GOSSIP_ENTRY_BYTES_MAX`).
    pub encoded: Option<Bytes>,
}

/// Makes the channel of a store. When it is full, the oldest entry is dropped, and a receiver that
/// missed it gets `Lagged`.
pub(super) fn channel() -> broadcast::Sender<Fresh> {
    broadcast::Sender::new(FRESH_ENTRIES_MAX)
}
