//! The writing end of one branch: stages records, writes them, makes them durable, shows them.

use std::{io, sync::Arc, time::Instant};

use crate::{
    limits::{INDEX_EVERY_BYTES, LOG_GROW_BYTES, UNSYNCED_BYTES_MAX},
    log::{
        Branch, IndexPoint, LogError, error::file_error, frame::FrameHeader, segments::Segments,
        sync_times::Timing,
    },
    protocol::{chain::Tip, entry::VerifiedEntry},
};

/// The writing end of one branch.
///
/// The records of a group go through `append` (in memory), `write` (in the file), `sync` (durable)
/// and `show` (seen by readers), or are dropped by `forget`.
///
/// Invariants, asserted where they could break. 1 to 3 together make each record that is shown
/// durable and readable at its place; 4 is what readers rely on while they walk.
///
/// 1. Each record continues the one before it, staged or shown: its seq is the tip's plus 1, its
///    prev is the tip's id. The first record of a branch is the one that the branch begins with.
/// 2. Frames are written where they were encoded for: the staged ones follow `shape.end`, which
///    does not move while a frame is staged. (A frame's check covers its offset.)
/// 3. `shape.end <= synced <= written`: readers see only what a returned sync covers.
/// 4. Tip, end and index points move forward only. (`give_up` alone moves them back, after the
///    file did.)
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) branch: Arc<Branch>,
    // The files of the branch.
    pub(super) segments: Arc<Segments>,
    // Length of the file; from `written` on it holds zeros.
    allocated: u64,
    // Frames not shown yet; their place is `shape.end`.
    staged: Vec<u8>,
    // Index points of staged frames.
    staged_index: Vec<IndexPoint>,
    // Offset of the last index point, staged ones included.
    indexed: Option<u64>,
    // Bytes of the file that hold records: `shape.end`, and the staged frames once `write`
    // returned.
    written: u64,
    // How much of `written` is durable. Set by `sync`.
    synced: u64,
    // Newest record, staged ones included. `None` only before the first is staged.
    pub(super) tip: Option<Tip>,
    // True while the file may have bytes behind `shape.end` that no record shown has: from before
    // `write` until `show`, or until `forget` has removed them.
    is_touched: bool,
    // True while the file ends with a seal. Set by `seal`, cleared by `write`.
    pub(super) sealed: bool,
}

impl Writer {
    /// Begins where `branch` ends. Its files, `segments`, have `allocated` bytes.
    pub(super) fn new(
        branch: Arc<Branch>,
        segments: Arc<Segments>,
        allocated: u64,
        sealed: bool,
    ) -> Self {
        let shape = branch.shape().clone();
        Self {
            branch,
            segments,
            allocated,
            staged: Vec::new(),
            staged_index: Vec::new(),
            indexed: shape.index.last().map(|point| point.offset),
            written: shape.end,
            synced: shape.end,
            tip: shape.tip,
            is_touched: false,
            sealed,
        }
    }

    /// Goes on with `branch`, which is the one before with fewer records at its beginning, in the rest
    /// of its files.
    ///
    /// # Panics
    /// When records are staged: readers of the branch before would never see them.
    pub(super) fn go_on(&mut self, branch: Arc<Branch>, segments: Arc<Segments>) {
        assert!(!self.has_staged(), "(2) the end does not move");
        let is_touched = self.is_touched;
        *self = Self {
            is_touched,
            ..Self::new(branch, segments, self.allocated, self.sealed)
        };
    }

    pub(super) fn has_staged(&self) -> bool {
        !self.staged.is_empty()
    }

    /// Stages `entry` as the next record.
    pub(super) fn append(&mut self, entry: &VerifiedEntry, arrived_ms: u64) {
        let (seq, prev) = (entry.header.seq, entry.header.prev);
        let next = self
            .tip
            .map_or((self.branch.first, self.branch.forked_from), |tip| {
                (tip.seq + 1, Some(tip.id))
            });
        assert_eq!(
            entry.author(),
            self.branch.author,
            "(1) one log, one author"
        );
        assert_eq!((seq, prev), next, "(1) a record continues its branch");
        let durable = self.branch.end();
        let offset = durable + self.staged.len() as u64;
        let payload = entry.signed.encode();
        let header = FrameHeader {
            length: u32::try_from(payload.len()).expect("ENTRY_BYTES_MAX fits 32 bits"),
            seq,
            synced: durable,
            arrived_ms,
            hlc: entry.header.hlc,
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
                seq,
                offset,
                wall_ms: entry.header.hlc.wall_ms,
                arrived_ms,
            });
        }
        self.tip = Some(Tip {
            seq,
            id: entry.id,
            hlc: entry.header.hlc,
        });
    }

    /// Begins a new file if the last one is long enough. Returns whether it did: the name must be
    /// durable before `write`.
    ///
    /// # Errors
    /// `Full`, `NoDescriptor`, `Io`; then nothing has changed that matters.
    pub(super) fn rotate(&mut self) -> Result<bool, LogError> {
        self.remove_bytes()?;
        let end = self.branch.end();
        let rotated = self.segments.rotate(end);
        let has_rotated = rotated.map_err(|source| file_error(&self.branch.name, source))?;
        if has_rotated {
            self.allocated = end;
        }
        Ok(has_rotated)
    }

    /// Writes the staged frames to the file. When the file must grow and they are few, zeros follow
    /// them, so that the next frames find room: as many as the file has bytes, up to a limit.
    pub(super) fn write(&mut self, timing: &Timing) -> Result<(), LogError> {
        self.remove_bytes()?;
        self.is_touched = true;
        let at = self.branch.end();
        assert_eq!(self.written, at, "(3) a group is written once");
        assert!(
            FrameHeader::decode(&self.staged, at).is_some(),
            "(2) a frame is written where it was encoded for"
        );
        let frames = self.staged.len();
        let end = at + frames as u64;
        let grow = end > self.allocated;
        if grow {
            let grow_bytes = usize::try_from(at).unwrap_or(LOG_GROW_BYTES);
            self.staged
                .resize(frames.max(grow_bytes.min(LOG_GROW_BYTES)), 0);
        }
        let written = self.write_pieces(at, timing);
        if grow {
            self.allocated = at + self.staged.len() as u64;
            self.staged.truncate(frames);
        }
        self.sealed = false;
        written.map_err(|source| file_error(&self.branch.name, source))?;
        self.written = end;
        Ok(())
    }

    // Each piece is durable before the next is written; the last one is not durable yet.
    fn write_pieces(&self, mut at: u64, timing: &Timing) -> io::Result<()> {
        let mut pieces = self.staged.chunks(UNSYNCED_BYTES_MAX).peekable();
        while let Some(piece) = pieces.next() {
            self.branch.file.write_at(piece, at)?;
            at += piece.len() as u64;
            if pieces.peek().is_some() {
                self.sync_file(timing)?;
            }
        }
        Ok(())
    }

    fn sync_file(&self, timing: &Timing) -> io::Result<()> {
        let began = Instant::now();
        self.branch.file.sync_data()?;
        timing.note(began.elapsed());
        Ok(())
    }

    /// Makes the written frames durable.
    pub(super) fn sync(&mut self, timing: &Timing) -> io::Result<()> {
        self.sync_file(timing)?;
        self.synced = self.written;
        Ok(())
    }

    /// Lets readers see the staged records, which are durable.
    pub(super) fn show(&mut self) {
        let mut shape = self.branch.shape_mut();
        let end = shape.end + self.staged.len() as u64;
        assert_eq!(
            self.synced, end,
            "(3) a record is durable before it is shown"
        );
        assert!(
            self.tip.map(|tip| tip.seq) > shape.tip.map(|tip| tip.seq),
            "(4) a tip never goes back"
        );
        let points = shape.index.last().into_iter().chain(&self.staged_index);
        assert!(
            points.is_sorted_by(|before, point| before.offset < point.offset),
            "(4) index points ascend"
        );
        shape.end = end;
        shape.tip = self.tip;
        shape.index.append(&mut self.staged_index);
        drop(shape);
        self.is_touched = false;
        self.staged.clear();
        if self.staged.capacity() > STAGED_BYTES_KEPT {
            self.staged = Vec::new();
        }
    }

    /// Forgets the staged records, and removes what was written of them from the file.
    ///
    /// # Errors
    /// `NoDescriptor`: the bytes are removed by the next call of `forget`, `write` or `seal`. `Io`.
    pub(super) fn forget(&mut self) -> Result<(), LogError> {
        self.staged.clear();
        self.staged_index.clear();
        let shape = self.branch.shape().clone();
        self.tip = shape.tip;
        self.indexed = shape.index.last().map(|point| point.offset);
        self.remove_bytes()
    }

    // Removes bytes of a group that was taken back. Durable on return, so that nothing of it comes
    // back after a power cut.
    fn remove_bytes(&mut self) -> Result<(), LogError> {
        if !self.is_touched {
            return Ok(());
        }
        let end = self.branch.end();
        let shortened = self.branch.file.set_len(end);
        shortened
            .and_then(|()| self.branch.file.sync_data())
            .map_err(|source| self.branch.io(source))?;
        self.allocated = end;
        self.written = end;
        self.synced = end;
        self.is_touched = false;
        Ok(())
    }

    /// Ends the file with a seal, which names the newest record. Nothing may be staged.
    ///
    /// # Errors
    /// `Io`, `Full`, `NoDescriptor`.
    pub(super) fn seal(&mut self) -> Result<(), LogError> {
        assert!(!self.has_staged(), "(2) a seal would move staged frames");
        self.remove_bytes()?;
        let end = self.branch.end();
        let Some(tip) = self.tip else { return Ok(()) };
        let seal = FrameHeader {
            length: 0,
            seq: tip.seq,
            synced: end,
            arrived_ms: tip.hlc.wall_ms,
            hlc: tip.hlc,
            author: self.branch.author,
            id: tip.id,
            seal: true,
        };
        let failed = |source| file_error(&self.branch.name, source);
        let frame = seal.encode(end);
        let sealed_end = end + frame.len() as u64;
        self.branch.file.write_at(&frame, end).map_err(failed)?;
        self.branch.file.set_len(sealed_end).map_err(failed)?;
        self.branch.file.sync_data().map_err(failed)?;
        self.allocated = sealed_end;
        self.written = sealed_end;
        self.synced = sealed_end;
        self.sealed = true;
        self.branch.shape_mut().end = sealed_end;
        Ok(())
    }
}

// Bytes of memory that a branch keeps for the frames of its next group.
const STAGED_BYTES_KEPT: usize = 4 << 20;
