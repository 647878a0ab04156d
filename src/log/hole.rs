//! A hole: entries of a log that cannot be read any more, and how they are written back once a peer
//! has sent them.

use std::sync::Arc;

use crate::{
    id::{Author, EntryId, Seq},
    limits::REPLAY_CHUNK_BYTES,
    log::{
        Branch, LogDamage, LogError, LogReader, Logs,
        error::file_error,
        frame::{FRAME_HEADER_BYTES, FrameHeader},
        record::{Step, Walk},
    },
    protocol::{entry::VerifiedEntry, hlc::Hlc},
};

/// Consecutive entries of a branch that cannot be read any more, and the bytes that they had. A
/// hole where only a seal was has no entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hole {
    /// Author of the log.
    pub author: Author,
    /// Number of the branch.
    pub number: u32,
    /// Name of the log's file.
    pub file: String,
    /// Place of the first missing entry.
    pub first: Seq,
    /// Place of the last missing entry, inclusive; `first - 1` when no entry is missing.
    pub last: Seq,
    /// Id of the entry at `last`. The entry behind the hole, or the branch's tip, commits to it.
    pub tip: EntryId,
    /// Offset of the first missing entry's frame.
    pub offset: u64,
    /// Bytes from `offset` to the next readable record, or to the end of the branch.
    pub bytes: u64,
    // When the entry before the hole arrived; the entries that fill it get this time.
    arrived_ms: u64,
    // Stamp of the entry before the hole.
    hlc: Hlc,
}

impl Hole {
    /// Returns true when no entry is missing.
    pub fn is_empty(&self) -> bool {
        self.last < self.first
    }

    /// Returns true when `damage` begins inside this hole.
    pub fn covers(&self, damage: &LogDamage) -> bool {
        let bytes = self.offset..self.offset.saturating_add(self.bytes);
        self.file == damage.file && bytes.contains(&damage.offset)
    }
}

impl LogReader {
    /// Returns the holes in the branch that `damage` was found in.
    ///
    /// Reads the whole branch: how far damage reaches is not known before.
    ///
    /// # Errors
    /// `Io`.
    pub fn holes(&self, damage: &LogDamage) -> Result<Vec<Hole>, LogError> {
        let branches = self.of(&damage.author);
        let branch = branches.iter().find(|branch| branch.name == damage.file);
        branch.map_or(Ok(Vec::new()), holes)
    }
}

fn holes(branch: &Arc<Branch>) -> Result<Vec<Hole>, LogError> {
    let Some(tip) = branch.tip() else {
        return Ok(Vec::new());
    };
    let end = branch.end();
    let mut walk = Walk::new(
        Arc::clone(&branch.file),
        branch.begins_at(),
        end,
        REPLAY_CHUNK_BYTES,
    );
    let mut holes = Vec::new();
    // Offset where bad bytes began, while no readable record has followed them.
    let mut open: Option<u64> = None;
    let (mut next, mut arrived_ms, mut hlc) = match branch.begin {
        Some(begin) => (branch.first_here(), begin.arrived_ms, begin.anchor.hlc),
        None => (branch.first, 0, Hlc::ZERO),
    };
    let mut close = |from: u64, to: u64, first: Seq, last: Seq, tip, arrived_ms, hlc| {
        holes.push(Hole {
            author: branch.author,
            number: branch.number,
            file: branch.name.clone(),
            first,
            last,
            tip,
            offset: from,
            bytes: to - from,
            arrived_ms,
            hlc,
        });
    };
    while let Some(step) = walk.step().map_err(|source| branch.io(source))? {
        let record = match step {
            Step::Bad { offset, .. } => {
                open.get_or_insert(offset);
                continue;
            }
            Step::Record(record) => record,
        };
        let FrameHeader { author, seq, .. } = record.header;
        if author != branch.author || (!record.header.seal && seq < next) {
            open.get_or_insert(record.offset);
            continue;
        }
        if record.header.seal {
            continue;
        }
        match (open.take(), record.entry()) {
            // The frame is sound and names the entry.
            (began, Err(_unreadable)) => {
                let to = record.offset + record.header.frame_bytes() as u64;
                let from = began.unwrap_or(record.offset);
                close(from, to, next, seq, record.header.id, arrived_ms, hlc);
            }
            (Some(began), Ok(entry)) => {
                if let Some(prev) = entry.header.prev {
                    close(began, record.offset, next, seq - 1, prev, arrived_ms, hlc);
                }
            }
            (None, Ok(_entry)) => {}
        }
        next = seq + 1;
        (arrived_ms, hlc) = (record.header.arrived_ms, record.header.hlc);
    }
    if let Some(began) = open {
        close(began, end, next, tip.seq, tip.id, arrived_ms, hlc);
    }
    Ok(holes)
}

impl Logs {
    /// Writes `entries`, those of `hole` in order, back into the log. Durable on return. Returns
    /// false, and writes nothing, when they do not fit into the hole's bytes.
    ///
    /// # Errors
    /// `Full`; `Io`, after which the logs must not be written until they are opened again.
    ///
    /// # Panics
    /// When the hole reaches past the end of its branch.
    pub fn fill(&mut self, hole: &Hole, entries: &[VerifiedEntry]) -> Result<bool, LogError> {
        let Some(writer) = self.writers.get_mut(&(hole.author, hole.number)) else {
            return Ok(false);
        };
        let Some(bytes) = frames(hole, entries) else {
            return Ok(false);
        };
        let branch = &writer.branch;
        // Anything else would overwrite readable records, or records to come.
        assert_eq!(bytes.len() as u64, hole.bytes, "a hole is filled exactly");
        assert!(
            hole.offset + hole.bytes <= branch.end(),
            "a hole is before the end of its branch"
        );
        let written = branch.file.write_at(&bytes, hole.offset);
        written.map_err(|source| file_error(&branch.name, source))?;
        branch
            .file
            .sync_data()
            .map_err(|source| branch.io(source))?;
        // `recover` counts a log with a lost tail as sealed so that no seal is written; it may get
        // one again.
        writer.sealed = false;
        Ok(true)
    }
}

// Returns the bytes of the whole hole; `None` when the entries do not fit. Seals that were in the
// hole held no entries: one seal takes the room of all of them.
fn frames(hole: &Hole, entries: &[VerifiedEntry]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for entry in entries {
        let payload = entry.signed.encode();
        let header = FrameHeader {
            length: u32::try_from(payload.len()).ok()?,
            seq: entry.header.seq,
            synced: hole.offset,
            arrived_ms: hole.arrived_ms,
            hlc: entry.header.hlc,
            author: hole.author,
            id: entry.id,
            seal: false,
        };
        bytes.extend_from_slice(&header.encode(hole.offset + bytes.len() as u64));
        bytes.extend_from_slice(&payload);
    }
    let room = usize::try_from(hole.bytes).ok()?.checked_sub(bytes.len())?;
    if room > 0 {
        let length = room.checked_sub(FRAME_HEADER_BYTES)?;
        let seal = FrameHeader {
            length: u32::try_from(length).ok()?,
            seq: hole.last,
            synced: hole.offset,
            arrived_ms: hole.arrived_ms,
            hlc: entries.last().map_or(hole.hlc, |last| last.header.hlc),
            author: hole.author,
            id: hole.tip,
            seal: true,
        };
        bytes.extend_from_slice(&seal.encode(hole.offset + bytes.len() as u64));
        bytes.resize(bytes.len() + length, 0);
    }
    Some(bytes)
}
