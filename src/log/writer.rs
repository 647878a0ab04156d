//! The writing end of one branch: records staged, written, shown or forgotten.

use std::{
    io,
    sync::{Arc, PoisonError},
    time::Instant,
};

use crate::{
    limits::{INDEX_EVERY_BYTES, LOG_GROW_BYTES, UNSYNCED_BYTES_MAX},
    log::{Branch, IndexPoint, LogError, error::refused, frame::FrameHeader, sync_times::Timing},
    protocol::{chain::Tip, entry::VerifiedEntry},
};

/// What the writer knows of a branch and readers need not.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) branch: Arc<Branch>,
    // Length of the file; from `shape.end` on it is zeros.
    allocated: u64,
    // Frames not yet written; they go to `shape.end`.
    pub(super) staged: Vec<u8>,
    // Subset of the index: points of staged frames.
    staged_index: Vec<IndexPoint>,
    // Where the last index point is, staged ones included.
    indexed: Option<u64>,
    // Newest record, staged ones included.
    pub(super) tip: Option<Tip>,
    // True while the file ends with a seal.
    pub(super) sealed: bool,
}

impl Writer {
    pub(super) fn new(branch: Arc<Branch>, allocated: u64, sealed: bool) -> Self {
        let shape = branch
            .shape
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Self {
            branch,
            allocated,
            staged: Vec::new(),
            staged_index: Vec::new(),
            indexed: shape.index.last().map(|point| point.offset),
            tip: shape.tip,
            sealed,
        }
    }

    pub(super) fn append(&mut self, entry: &VerifiedEntry, arrived_ms: u64) {
        let durable = self.branch.end();
        let offset = durable + self.staged.len() as u64;
        let payload = entry.signed.encode();
        let header = FrameHeader {
            length: u32::try_from(payload.len()).expect("ENTRY_BYTES_MAX fits 32 bits"),
            seq: entry.header.seq,
            synced: durable,
            arrived_ms,
            author: entry.author(),
            id: entry.id,
            seal: false,
        };
        self.staged.extend_from_slice(&header.encode(offset));
        self.staged.extend_from_slice(&payload);
        if self
            .indexed
            .is_none_or(|at| offset >= at + INDEX_EVERY_BYTES)
        {
            self.indexed = Some(offset);
            self.staged_index.push(IndexPoint {
                seq: entry.header.seq,
                offset,
                wall_ms: entry.header.hlc.wall_ms,
                arrived_ms,
            });
        }
        self.tip = Some(Tip {
            seq: entry.header.seq,
            id: entry.id,
            hlc: entry.header.hlc,
        });
    }

    // Writes the staged frames at the end, and zeros after them when the file must grow and they are
    // few: the next ones fit then.
    pub(super) fn write(&mut self, timing: &Timing) -> Result<(), LogError> {
        let at = self.branch.end();
        let end = at + self.staged.len() as u64;
        let frames = self.staged.len();
        let grow = end > self.allocated;
        if grow {
            self.staged.resize(frames.max(LOG_GROW_BYTES), 0);
        }
        let written = self.write_pieces(at, timing);
        if grow {
            self.allocated = at + self.staged.len() as u64;
            self.staged.truncate(frames);
        }
        self.sealed = false;
        written.map_err(|source| refused(&self.branch.name, source))
    }

    // Each piece is durable before the next is written; the last is not yet.
    fn write_pieces(&self, mut at: u64, timing: &Timing) -> io::Result<()> {
        let mut pieces = self.staged.chunks(UNSYNCED_BYTES_MAX).peekable();
        while let Some(piece) = pieces.next() {
            self.branch.file.write_at(piece, at)?;
            at += piece.len() as u64;
            if pieces.peek().is_some() {
                self.sync(timing)?;
            }
        }
        Ok(())
    }

    // Makes what was written durable.
    pub(super) fn sync(&self, timing: &Timing) -> io::Result<()> {
        let began = Instant::now();
        self.branch.file.sync_data()?;
        timing.note(began.elapsed());
        Ok(())
    }

    // The staged records are durable: lets readers see them.
    pub(super) fn show(&mut self) {
        let mut shape = self
            .branch
            .shape
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        shape.end += self.staged.len() as u64;
        shape.tip = self.tip;
        shape.index.append(&mut self.staged_index);
        self.staged.clear();
        if self.staged.capacity() > 4 << 20 {
            self.staged = Vec::new();
        }
    }

    // The newest record can be read again: its stamp was a guess.
    pub(super) fn stamp(&mut self, entry: &VerifiedEntry) {
        let mut shape = self
            .branch
            .shape
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for tip in [&mut self.tip, &mut shape.tip].into_iter().flatten() {
            if tip.id == entry.id {
                tip.hlc = entry.header.hlc;
            }
        }
    }

    pub(super) fn forget(&mut self) -> Result<(), LogError> {
        let end = self.branch.end();
        self.staged.clear();
        self.staged_index.clear();
        let shape = self
            .branch
            .shape
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        self.tip = shape.tip;
        self.indexed = shape.index.last().map(|point| point.offset);
        // Nothing of it may stay behind the end, nor come back after a power cut.
        let cut = self.branch.file.set_len(end);
        cut.and_then(|()| self.branch.file.sync_data())
            .map_err(|source| self.branch.io(source))?;
        self.allocated = end;
        Ok(())
    }

    pub(super) fn seal(&mut self) -> Result<(), LogError> {
        let end = self.branch.end();
        let Some(tip) = self.tip else { return Ok(()) };
        let seal = FrameHeader {
            length: 0,
            seq: tip.seq,
            synced: end,
            arrived_ms: tip.hlc.wall_ms,
            author: self.branch.author,
            id: tip.id,
            seal: true,
        };
        let refused = |source| refused(&self.branch.name, source);
        let frame = seal.encode(end);
        let sealed_end = end + frame.len() as u64;
        self.branch.file.write_at(&frame, end).map_err(refused)?;
        self.branch.file.set_len(sealed_end).map_err(refused)?;
        self.branch.file.sync_data().map_err(refused)?;
        self.allocated = sealed_end;
        self.sealed = true;
        self.branch
            .shape
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .end = sealed_end;
        Ok(())
    }
}
