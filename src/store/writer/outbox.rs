//! What was just written here, for who carries it to peers.

use bytes::Bytes;
use tokio::sync::broadcast;

use crate::{
    id::{Author, EntryId, Seq},
    limits::{FRESH_ENTRIES_MAX, GOSSIP_ENTRY_BYTES_MAX},
    protocol::{change::Origin, entry::VerifiedEntry},
    store::{Store, writer::actor::Actor},
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

impl Store {
    /// Returns what is written here from now on, each entry once, in order, when it is durable.
    ///
    /// A receiver that lags by more than `FRESH_ENTRIES_MAX` loses the oldest and is told so: what
    /// it missed is in the log.
    pub fn fresh(&self) -> broadcast::Receiver<Fresh> {
        self.shared.fresh.subscribe()
    }
}

impl Actor {
    /// Remembers an entry for `tell_fresh`, where somebody listens.
    pub(super) fn note_fresh(&mut self, entry: &VerifiedEntry, origin: Origin) {
        if origin == Origin::Remote || self.fresh.receiver_count() == 0 {
            return;
        }
        let small = entry.signed.header.len() + entry.signed.ops.len() <= GOSSIP_ENTRY_BYTES_MAX;
        let encoded = small.then(|| entry.signed.encode().into());
        self.applying.push(Fresh {
            author: entry.author(),
            seq: entry.header.seq,
            id: entry.id,
            encoded,
        });
    }

    /// Tells what was written. After the fsync: nothing leaves this node before it is durable.
    pub(super) fn tell_fresh(&mut self) {
        for fresh in self.applying.drain(..) {
            // Nobody listens any more: the log has it.
            drop(self.fresh.send(fresh));
        }
    }
}

/// Makes the channel of a store.
pub(super) fn channel() -> broadcast::Sender<Fresh> {
    broadcast::Sender::new(FRESH_ENTRIES_MAX)
}
