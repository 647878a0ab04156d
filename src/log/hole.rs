//! A hole: entries that are in a log and cannot be read any more, and how they are put back once
//! somebody else had them.

use std::sync::Arc;

use crate::{
    id::{Author, EntryId, Seq},
    limits::REPLAY_CHUNK_BYTES,
    log::{
        Branch, LogDamage, LogError, LogReader, Logs,
        error::refused,
        frame::{FRAME_HEADER_BYTES, FrameHeader},
        record::{Step, Walk},
    },
    protocol::entry::VerifiedEntry,
};

/// Consecutive entries of a branch that its file does not have any more, and the place they had.
/// None at all, where only a seal was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hole {
    /// Whose log.
    pub author: Author,
    /// Which branch.
    pub number: u32,
    /// The file's name.
    pub file: String,
    /// The first place.
    pub first: Seq,
    /// The last place, inclusive; the one before `first` where no entry is missing.
    pub last: Seq,
    /// The entry at `last`: what stands behind the hole commits to it.
    pub tip: EntryId,
    /// Where the first one's frame begins.
    pub offset: u64,
    /// Bytes up to the next readable record, or to the end.
    pub bytes: u64,
    // When what stands before it arrived.
    arrived_ms: u64,
}

impl Hole {
    /// True when no entry is missing.
    pub fn is_empty(&self) -> bool {
        self.last < self.first
    }

    /// True for damage that it explains.
    pub fn covers(&self, damage: &LogDamage) -> bool {
        let bytes = self.offset..self.offset.saturating_add(self.bytes);
        self.file == damage.file && bytes.contains(&damage.offset)
    }
}

impl LogReader {
    /// Returns the holes in the branch that `damage` was found in; none where nothing is missing.
    ///
    /// # Errors
    /// `Io`.
    pub fn holes(&self, damage: &LogDamage) -> Result<Vec<Hole>, LogError> {
        let branches = self.of(&damage.author);
        let branch = branches.iter().find(|branch| branch.name == damage.file);
        branch.map_or(Ok(Vec::new()), holes)
    }
}

// Reads the whole branch: there is no telling how far damage reaches.
fn holes(branch: &Arc<Branch>) -> Result<Vec<Hole>, LogError> {
    let Some(tip) = branch.tip() else {
        return Ok(Vec::new());
    };
    let end = branch.end();
    let mut walk = Walk::new(Arc::clone(&branch.file), 0, end, REPLAY_CHUNK_BYTES);
    let mut holes = Vec::new();
    // Where bad bytes began.
    let mut open: Option<u64> = None;
    let (mut next, mut arrived_ms) = (branch.first, 0);
    let mut close = |from: u64, to: u64, first: Seq, last: Seq, tip, arrived_ms| {
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
            // Its frame is sound, and says which entry it was.
            (began, Err(_unreadable)) => {
                let to = record.offset + record.header.frame_bytes() as u64;
                let from = began.unwrap_or(record.offset);
                close(from, to, next, seq, record.header.id, arrived_ms);
            }
            (Some(began), Ok(entry)) => {
                if let Some(prev) = entry.header.prev {
                    close(began, record.offset, next, seq - 1, prev, arrived_ms);
                }
            }
            (None, Ok(_entry)) => {}
        }
        next = seq + 1;
        arrived_ms = record.header.arrived_ms;
    }
    if let Some(began) = open {
        close(began, end, next, tip.seq, tip.id, arrived_ms);
    }
    Ok(holes)
}

impl Logs {
    /// Writes `entries`, which are those of `hole` in order, back to where they were. False where
    /// they do not fit. Durable on return.
    ///
    /// # Errors
    /// `Full`; `Io`, after which the logs must not be written until they are opened again.
    pub fn fill(&mut self, hole: &Hole, entries: &[VerifiedEntry]) -> Result<bool, LogError> {
        let Some(writer) = self.writers.get_mut(&(hole.author, hole.number)) else {
            return Ok(false);
        };
        let Some(bytes) = frames(hole, entries) else {
            return Ok(false);
        };
        let branch = &writer.branch;
        let written = branch.file.write_at(&bytes, hole.offset);
        written.map_err(|source| refused(&branch.name, source))?;
        branch
            .file
            .sync_data()
            .map_err(|source| branch.io(source))?;
        // It may have looked whole only because nothing of its end was there.
        writer.sealed = false;
        if let Some(last) = entries.last() {
            writer.stamp(last);
        }
        Ok(true)
    }
}

// What was there, but for the seals: they had no entries. One frame takes the room of all.
fn frames(hole: &Hole, entries: &[VerifiedEntry]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for entry in entries {
        let payload = entry.signed.encode();
        let header = FrameHeader {
            length: u32::try_from(payload.len()).ok()?,
            seq: entry.header.seq,
            synced: hole.offset,
            arrived_ms: hole.arrived_ms,
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
            author: hole.author,
            id: hole.tip,
            seal: true,
        };
        bytes.extend_from_slice(&seal.encode(hole.offset + bytes.len() as u64));
        bytes.resize(bytes.len() + length, 0);
    }
    Some(bytes)
}
