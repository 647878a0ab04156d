//! A part on its way to a peer.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::{
    protocol::sync::PartName,
    state::{StateError, base::Base},
};

/// A part of a base, read for a peer: its trailer, its index, and its chunks. Keeps the base: its files
/// stay open when there is a newer one.
#[derive(Debug)]
pub struct OutgoingPart {
    base: Arc<Base>,
    part: usize,
    // The chunk to read next.
    chunk: usize,
    // Bytes that were read and not returned yet.
    ready: BytesMut,
}

impl OutgoingPart {
    /// Begins to read the part without its first `from_chunk` chunks; `None` when the base has no such
    /// part.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn begin(
        base: &Arc<Base>,
        part: &PartName,
        from_chunk: u32,
    ) -> Result<Option<Self>, StateError> {
        let mut parts = base.parts().enumerate();
        let Some((number, (opened, info))) = parts.find(|(_, (_, it))| it.id.0 == part.0) else {
            return Ok(None);
        };
        Ok(Some(Self {
            base: Arc::clone(base),
            part: number,
            chunk: usize::try_from(from_chunk).unwrap_or(usize::MAX),
            ready: BytesMut::from(opened.tail(info)?),
        }))
    }

    /// Returns the next bytes, `bytes_max` at most; `None` at the end. Each chunk is checked before any of
    /// it is returned.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn next_piece(&mut self, bytes_max: usize) -> Result<Option<Bytes>, StateError> {
        let part = self.base.parts().nth(self.part);
        while self.ready.len() < bytes_max
            && let Some((part, _info)) = part
            && let Some(chunk) = part.chunk_bytes(self.chunk)?
        {
            self.ready.extend_from_slice(&chunk);
            self.chunk = self.chunk.saturating_add(1);
        }
        let piece = self.ready.split_to(self.ready.len().min(bytes_max));
        Ok((!piece.is_empty()).then(|| piece.freeze()))
    }
}
