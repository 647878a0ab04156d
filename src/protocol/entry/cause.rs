//! Why a hook wrote an entry: what makes key-value to key-value automation exactly once.
//!
//! An author writes at most one entry for a cause. Its log says which causes it has answered, so
//! whoever is asked again, after a crash or by hand, finds that it has been done.

use bytes::Bytes;

use crate::{
    id::{Author, EntryId},
    limits::CAUSE_CONSUMER_BYTES_MAX,
    protocol::entry::error::{EntryError, malformed},
    wire,
};

/// Why a hook wrote an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The consumer that wrote.
    pub consumer: String,
    /// The entry that triggered it.
    pub trigger: EntryId,
    /// Index of the op in the trigger, or the batch position.
    pub position: u32,
    /// Hooks between this and an entry that a person wrote; at least 1.
    pub depth: u32,
}

/// Names a cause of one author: a hash of all of it but the depth, which follows from the trigger.
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

    /// Says whether an entry may have it.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn check(&self) -> Result<(), EntryError> {
        match (self.consumer.len(), self.depth) {
            (1..=CAUSE_CONSUMER_BYTES_MAX, 1..) => Ok(()),
            _outside => Err(malformed(
                "its cause names no consumer, too long a one, or depth 0",
            )),
        }
    }
}
