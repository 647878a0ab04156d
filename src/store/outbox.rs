//! What was just written here, for who carries it to peers.

use bytes::Bytes;
use tokio::sync::broadcast;

use crate::{
    id::{Author, EntryId, Seq},
    limits::FRESH_ENTRIES_MAX,
};

/// An entry that was just written here.
#[derive(Debug, Clone)]
pub struct Fresh {
    /// Who wrote it.
    pub author: Author,
    /// Its place in its author's log.
    pub seq: Seq,
    /// Its id.
    pub id: EntryId,
    /// The entry, encoded, where it is small enough for a broadcast.
    pub encoded: Option<Bytes>,
}

/// Makes the channel of a store.
pub(super) fn channel() -> broadcast::Sender<Fresh> {
    broadcast::Sender::new(FRESH_ENTRIES_MAX)
}
