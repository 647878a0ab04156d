//! A base as others get it: peers, and backups.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    protocol::{anchors_act::BaseHash, sync::PartName},
    state::{Base, OutgoingPart, StateError},
};

/// A base, as a peer gets it.
#[derive(Debug, Clone)]
pub struct OfferedBase(pub(super) Arc<Base>);

impl OfferedBase {
    /// Returns the bytes of its manifest.
    pub fn manifest(&self) -> Bytes {
        self.0.manifest().encode_for_peers()
    }

    /// Returns the hash that names it.
    pub fn hash(&self) -> BaseHash {
        BaseHash(self.0.manifest().hash())
    }

    /// Returns the number of entries of which it has the state.
    pub fn entries(&self) -> u64 {
        self.0.manifest().entries
    }

    /// Returns the names of its parts.
    pub fn parts(&self) -> Vec<PartName> {
        self.0.part_names()
    }

    /// Begins to read a part without its first `from_chunk` chunks; `None` when it has no such part.
    ///
    /// Reads files: not for an event loop.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn part(
        &self,
        part: &PartName,
        from_chunk: u32,
    ) -> Result<Option<OutgoingPart>, StateError> {
        OutgoingPart::begin(&self.0, part, from_chunk)
    }
}
