//! Why a hook wrote an entry. Causes make automation from keys to keys exactly once.
//!
//! An author writes at most one entry for a cause. Its log names the causes that it has answered, so a
//! hook that runs again, after a crash or by hand, finds the entry that it has written.

use bytes::Bytes;

use crate::{
    id::{Author, EntryId},
    limits::CAUSE_CONSUMER_BYTES_MAX,
    protocol::entry::error::{EntryError, malformed},
    wire,
};

/// Why a hook wrote an entry: the change that it handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Consumer of the hook that wrote the entry.
    pub consumer: String,
    /// Entry of the change that triggered the hook.
    pub trigger: EntryId,
    /// Index of the op in the trigger, or the position in the batch.
    pub position: u32,
    /// Number of hooks between the entry and one that a person wrote; at least 1.
    pub depth: u32,
}

/// Names a cause of one author: a hash of everything but the depth, which follows from the trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CauseId(pub [u8; 16]);

impl CauseId {
    /// Returns the id of `cause` in the log of `author`.
    pub fn of(author: &Author, cause: &Cause) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("lattice 2026 cause id v1");
        hasher
            .update(&author.0)
            .update(&cause.trigger.0)
            .update(&cause.position.to_le_bytes())
            .update(cause.consumer.as_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }
}

impl Cause {
    pub(super) fn from_wire(message: wire::Cause) -> Result<Self, EntryError> {
        Ok(Self {
            consumer: message.consumer,
            trigger: EntryId::from_slice(&message.trigger)
                .ok_or(malformed("its trigger has not 32 bytes"))?,
            position: message.position,
            depth: message.depth,
        })
    }

    pub(super) fn to_wire(&self) -> wire::Cause {
        wire::Cause {
            consumer: self.consumer.clone(),
            trigger: Bytes::copy_from_slice(&self.trigger.0),
            position: self.position,
            depth: self.depth,
        }
    }

    /// Checks that an entry may have this cause.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn check(&self) -> Result<(), EntryError> {
        match (self.consumer.len(), self.depth) {
            (1..=CAUSE_CONSUMER_BYTES_MAX, 1..) => Ok(()),
            _outside => Err(malformed(
                "its cause has no consumer, too long a consumer, or depth 0",
            )),
        }
    }
}
