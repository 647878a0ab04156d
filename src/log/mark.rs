//! What the state remembers of a branch, and whether the file still has it.

use std::{io, sync::Arc};

use crate::{
    disk::DiskFile,
    id::{Author, EntryId, Seq},
    limits::REPLAY_CHUNK_BYTES,
    log::{
        Branch, IndexPoint, LogDamage,
        frame::{FRAME_HEADER_BYTES, FrameHeader},
        record::{Step, Walk},
    },
    protocol::chain::Tip,
};

/// What the state remembers of a branch, so that opening need not read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Whose.
    pub author: Author,
    /// Which branch.
    pub number: u32,
    /// Bytes that were whole and durable.
    pub end: u64,
    /// First record.
    pub first: Seq,
    /// The entry before the first, on another branch.
    pub forked_from: Option<EntryId>,
    /// Last record before `end`.
    pub tip: Tip,
    /// Index points before `end`; may be empty, then the branch is read to make them.
    pub index: Vec<IndexPoint>,
}

impl Mark {
    /// Returns the mark of a branch as it is; `None` while it has no record. Without index.
    pub fn of(branch: &Branch) -> Option<Self> {
        Some(Self {
            author: branch.author,
            number: branch.number,
            end: branch.end(),
            first: branch.first,
            forked_from: branch.forked_from,
            tip: branch.tip()?,
            index: Vec::new(),
        })
    }

    /// Returns what is missing of the file: the record that the mark names must be there, else the
    /// file is an older copy, or its end is gone while its length is not.
    ///
    /// # Errors
    /// What the file says.
    pub(super) fn missing(
        &self,
        file: &Arc<dyn DiskFile>,
        name: &str,
    ) -> io::Result<Option<LogDamage>> {
        let seal = seal_before(file.as_ref(), &self.author, self.end)?;
        if seal.is_some_and(|seal| seal.id == self.tip.id) {
            return Ok(None);
        }
        let from = self.index.last().map_or(0, |point| point.offset);
        let mut walk = Walk::new(Arc::clone(file), from, self.end, REPLAY_CHUNK_BYTES);
        let (mut at, mut seq) = (from, None);
        while let Some(Step::Record(record)) = walk.step()? {
            let FrameHeader {
                author, seal, id, ..
            } = record.header;
            // A frame can be there and its bytes be gone.
            let gone = !seal && id == self.tip.id && record.entry().is_err();
            if author != self.author || gone {
                break;
            }
            at = record.offset + record.header.frame_bytes() as u64;
            seq = Some(record.header.seq);
        }
        if at == self.end && seq == Some(self.tip.seq) {
            return Ok(None);
        }
        Ok(Some(LogDamage {
            author: self.author,
            seq: seq.map(|seq| seq + 1).filter(|seq| *seq <= self.tip.seq),
            file: name.to_owned(),
            offset: at,
            bytes: self.end - at,
            what: format!("records up to {} were durable", self.tip.seq),
        }))
    }
}

/// Returns the seal of `author`'s log whose frame ends at `end`.
///
/// # Errors
/// What the file says.
pub(super) fn seal_before(
    file: &dyn DiskFile,
    author: &Author,
    end: u64,
) -> io::Result<Option<FrameHeader>> {
    let Some(offset) = end.checked_sub(FRAME_HEADER_BYTES as u64) else {
        return Ok(None);
    };
    let mut bytes = [0; FRAME_HEADER_BYTES];
    file.read_at(&mut bytes, offset)?;
    let header = FrameHeader::decode(&bytes, offset);
    Ok(header.filter(|header| header.seal && header.author == *author))
}
