//! The base of the peer: asked for by a side that lacks entries which the peer has removed.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};

use crate::{
    limits::{BASE_MANIFEST_BYTES_MAX, BASE_PIECE_BYTES},
    protocol::sync::SyncError,
};

/// Name of a part of a base: the hash of its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartName(pub [u8; 32]);

/// A part that is to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartWant {
    /// Its name.
    pub part: PartName,
    /// Chunks at its beginning that are here already.
    pub from_chunk: u32,
    /// Bytes that the peer may send of it, at most.
    pub bytes_max: u64,
}

/// Whether a side lacks entries that were removed at the peer, and what became of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BaseNeed {
    /// It does not, or that is not known yet.
    #[default]
    None,
    /// It does, and the base has not come.
    Open,
    /// It does. The peer has no base, or not one that this side takes: its owner says why.
    Refused,
    /// It did, and has installed the peer's base. The next session brings the entries after it.
    Installed,
}

/// When a side asks for the base of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BaseWish {
    /// In no case.
    Never,
    /// If it lacks entries that were removed at the peer.
    #[default]
    IfLacking,
    /// In any case, and nothing else is wanted.
    Only,
}

/// Progress of the side that takes a base.
#[derive(Debug)]
pub(super) struct Fetching {
    /// When this side asks for the base.
    pub(super) wish: BaseWish,
    /// Bytes of a full piece: only the last one of the manifest and of each part may be shorter.
    pub(super) piece_bytes_min: usize,
    // The pieces of the manifest so far, at most BASE_MANIFEST_BYTES_MAX.
    manifest: BytesMut,
    // Bytes of the part that may still come. `None`: none was asked for, or all of it has come.
    part_left: Option<u64>,
    // True after a piece that was not full: nothing but the end may follow.
    is_short: bool,
}

impl Default for Fetching {
    fn default() -> Self {
        Self {
            wish: BaseWish::default(),
            piece_bytes_min: BASE_PIECE_BYTES,
            manifest: BytesMut::new(),
            part_left: None,
            is_short: false,
        }
    }
}

/// The base that is offered to the peer: each part may be asked for once.
#[derive(Debug, Default)]
pub(super) struct BaseOffer {
    // True once the peer has asked for the base.
    pub(super) is_asked: bool,
    parts: BTreeSet<PartName>,
}

impl Fetching {
    /// Takes a piece of the manifest. Returns the whole after the last piece.
    ///
    /// # Errors
    /// `BaseTooLong`, `Empty`, `ShortPiece`.
    pub(super) fn manifest(
        &mut self,
        piece: &Bytes,
        last: bool,
    ) -> Result<Option<Bytes>, SyncError> {
        self.check_piece("Manifest", piece, last)?;
        if self.manifest.len().saturating_add(piece.len()) > BASE_MANIFEST_BYTES_MAX {
            return Err(SyncError::BaseTooLong {
                what: "a manifest",
                bytes_max: BASE_MANIFEST_BYTES_MAX as u64,
            });
        }
        self.manifest.extend_from_slice(piece);
        Ok(last.then(|| std::mem::take(&mut self.manifest).freeze()))
    }

    /// Notes that a part is asked for.
    pub(super) fn ask(&mut self, want: PartWant) {
        self.part_left = Some(want.bytes_max);
    }

    /// Counts a piece of the part that was asked for.
    ///
    /// # Errors
    /// `BaseTooLong`, `Empty`, `ShortPiece`.
    pub(super) fn part(&mut self, piece: &Bytes, last: bool) -> Result<(), SyncError> {
        self.check_piece("Part", piece, last)?;
        let left = self.part_left.unwrap_or(0);
        let bytes = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        let rest = left.checked_sub(bytes).ok_or(SyncError::BaseTooLong {
            what: "a part of a base",
            bytes_max: left,
        })?;
        self.part_left = (!last).then_some(rest);
        Ok(())
    }

    /// Returns whether pieces of a part are to come.
    pub(super) fn is_part_open(&self) -> bool {
        self.part_left.is_some()
    }

    // Empty pieces could be sent without end, and so could short ones for almost ever.
    fn check_piece(
        &mut self,
        message: &'static str,
        piece: &Bytes,
        last: bool,
    ) -> Result<(), SyncError> {
        if piece.is_empty() && !last {
            return Err(SyncError::Empty { message });
        }
        if self.is_short && !piece.is_empty() {
            let bytes_min = self.piece_bytes_min;
            return Err(SyncError::ShortPiece { message, bytes_min });
        }
        self.is_short = !last && piece.len() < self.piece_bytes_min;
        Ok(())
    }
}

impl BaseOffer {
    /// Notes that the peer asks for the base.
    ///
    /// # Errors
    /// `BaseAskedAgain`.
    pub(super) fn ask(&mut self) -> Result<(), SyncError> {
        if std::mem::replace(&mut self.is_asked, true) {
            return Err(SyncError::BaseAskedAgain);
        }
        Ok(())
    }

    /// Offers these parts.
    pub(super) fn open(&mut self, parts: BTreeSet<PartName>) {
        self.parts = parts;
    }

    /// Notes that the peer asks for a part.
    ///
    /// # Errors
    /// `PartNotOffered`.
    pub(super) fn ask_part(&mut self, part: &PartName) -> Result<(), SyncError> {
        let was_offered = self.parts.remove(part);
        was_offered.then_some(()).ok_or(SyncError::PartNotOffered)
    }
}
