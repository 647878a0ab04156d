//! A mark: the end of a branch as the state remembers it, and whether the file still has it.

use std::{cmp::Ordering, io, sync::Arc};

use crate::{
    disk::DiskFile,
    id::{Author, EntryId, Seq},
    limits::REPLAY_CHUNK_BYTES,
    log::{
        Begin, Begins, Branch, IndexPoint, LogDamage,
        frame::{FRAME_HEADER_BYTES, FrameHeader},
        record::{Step, Walk},
    },
    protocol::chain::Tip,
};

/// The end of a branch as the state remembers it, so that opening need not read the whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Author of the log.
    pub author: Author,
    /// Number of the branch.
    pub number: u32,
    /// Bytes of whole, durable records.
    pub end: u64,
    /// Place of the branch's first entry.
    pub first: Seq,
    /// The entry before the first, on another branch; `None` when `first` is 1.
    pub forked_from: Option<EntryId>,
    /// Newest entry before `end`.
    pub tip: Tip,
    /// Index points before `end`.
    pub index: Vec<IndexPoint>,
}

impl Mark {
    /// Returns the mark of a branch as it is now, without index points; `None` while the branch has
    /// no record.
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

    /// Returns whether the mark was made of a log that begins at `begin`, or at an earlier entry of the same
    /// branch.
    pub(super) fn is_of(&self, begin: &Begin) -> bool {
        let anchor = begin.anchor;
        match self.end.cmp(&begin.offset) {
            Ordering::Less => false,
            Ordering::Equal => self.tip.id == anchor.id,
            Ordering::Greater => self.tip.seq >= anchor.seq,
        }
    }

    /// Forgets the index points that are before the beginning of the log, by `begins`.
    pub fn shorten(&mut self, begins: &Begins) {
        if let Some(begin) = begins.of(&self.author, self.number) {
            self.index.retain(|point| point.offset >= begin.offset);
        }
    }

    /// Returns the damage when the file does not have the record that the mark names: the file is
    /// an older copy then, or its bytes are lost though its length is not. `begins_at`: offset of the
    /// log's first record.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(super) fn missing(
        &self,
        file: &Arc<dyn DiskFile>,
        name: &str,
        begins_at: u64,
    ) -> io::Result<Option<LogDamage>> {
        if self.end == begins_at {
            // The mark names the entry at which the log begins.
            return Ok(None);
        }
        let seal = seal_before(file.as_ref(), &self.author, self.end)?;
        if seal.is_some_and(|seal| seal.id == self.tip.id) {
            return Ok(None);
        }
        let from = self.index.last().map_or(begins_at, |point| point.offset);
        let mut walk = Walk::new(Arc::clone(file), from, self.end, REPLAY_CHUNK_BYTES);
        let (mut at, mut seq) = (from, None);
        while let Some(Step::Record(record)) = walk.step()? {
            let FrameHeader {
                author, seal, id, ..
            } = record.header;
            // The frame of the newest record can be sound while its payload is not.
            let broken = !seal && id == self.tip.id && record.entry().is_err();
            if author != self.author || broken {
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

/// Returns the seal of `author`'s log whose frame ends at `end`; `None` when there is none.
///
/// # Errors
/// Any error of the file system.
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
