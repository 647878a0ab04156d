//! A lost tail: the durable end of a log is missing from its file, because the file was truncated,
//! deleted, or restored from an older copy.

use std::{io, sync::Arc};

use crate::{
    disk::DiskFile,
    id::{Author, Seq},
    limits::REPLAY_CHUNK_BYTES,
    log::{
        Begin, LogError, Logs, Mark,
        frame::FRAME_HEADER_BYTES,
        record::{Record, Step, Walk},
        writer::Writer,
    },
    protocol::chain::Tip,
};

/// Entries at the end of a branch that were durable and are missing from its file.
///
/// A damaged record in the middle of a log is named by the records behind it. A lost tail is not:
/// there may have been more entries than the state's mark knows of, so the author's next entry
/// could take a place that is already taken. That would be a fork.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostTail {
    /// Author of the log.
    pub author: Author,
    /// Number of the branch.
    pub number: u32,
    /// Name of the log's file.
    pub file: String,
    /// The newest entry that is in the file, or the one at which the log begins; `None` when there is
    /// none.
    pub tip: Option<Tip>,
    /// Offset where the record of `tip` ends; 0 without a tip.
    pub end: u64,
    /// Place of the newest entry that was durable, as far as the mark knows.
    pub through: Seq,
}

impl LostTail {
    /// Returns the place of the first lost entry.
    pub fn first(&self) -> Seq {
        self.tip.map_or(1, |tip| tip.seq + 1)
    }
}

/// Returns the tail of a branch that `mark` names as durable and `file` does not have; `None` when
/// the file has it.
///
/// A newest record that is in the file and cannot be read is damage, not a lost tail: its place is
/// known. `begin`: where the log begins, if entries were removed from it.
///
/// # Errors
/// Any error of the file system.
pub(super) fn find(
    mark: &Mark,
    file: &Arc<dyn DiskFile>,
    name: &str,
    begin: Option<Begin>,
) -> io::Result<Option<LostTail>> {
    let len = file.len()?;
    if len >= mark.end && !ends_in_zeros(file.as_ref(), mark.end)? {
        return Ok(None);
    }
    let begins_at = begin.map_or(0, |begin| begin.offset);
    let newest = newest(mark, file, (begins_at, mark.end.min(len)))?;
    let newest = newest.or(begin.map(|begin| (begin.offset, begin.anchor.into())));
    let (end, tip) = newest.map_or((0, None), |(end, tip)| (end, Some(tip)));
    // Otherwise only the seal behind the newest entry is missing.
    let lost = tip.is_none_or(|tip| tip.seq < mark.tip.seq);
    Ok(lost.then(|| LostTail {
        author: mark.author,
        number: mark.number,
        file: name.to_owned(),
        tip,
        end,
        through: mark.tip.seq,
    }))
}

// True when zeros are where the last frame before `end` was: what a file gets that was truncated
// and made longer again.
fn ends_in_zeros(file: &dyn DiskFile, end: u64) -> io::Result<bool> {
    let mut bytes = [0; FRAME_HEADER_BYTES];
    let Some(from) = end.checked_sub(bytes.len() as u64) else {
        return Ok(false);
    };
    file.read_at(&mut bytes, from)?;
    Ok(bytes.iter().all(|byte| *byte == 0))
}

// Returns the last whole record from `begins_at` on and before `end`, and where it ends.
fn newest(
    mark: &Mark,
    file: &Arc<dyn DiskFile>,
    (begins_at, end): (u64, u64),
) -> io::Result<Option<(u64, Tip)>> {
    let points = mark.index.iter().rev().map(|point| point.offset);
    for from in points.chain([begins_at]).filter(|from| *from < end) {
        let mut walk = Walk::new(Arc::clone(file), from, end, REPLAY_CHUNK_BYTES);
        let mut newest = None;
        while let Some(step) = walk.step()? {
            if let Step::Record(record) = step
                && let Some(tip) = tip_of(mark, &record)
            {
                newest = Some((record.offset + record.header.frame_bytes() as u64, tip));
            }
        }
        if newest.is_some() {
            return Ok(newest);
        }
    }
    Ok(None)
}

fn tip_of(mark: &Mark, record: &Record) -> Option<Tip> {
    let entry = record.entry().ok()?;
    (entry.author() == mark.author).then_some(Tip {
        seq: entry.header.seq,
        id: entry.id,
        hlc: entry.header.hlc,
    })
}

impl Logs {
    /// Ends a branch with the newest entry that is in its file; a branch without one is removed.
    /// Durable on return. Nothing may be staged.
    ///
    /// # Errors
    /// `Io`, after which the logs must not be written until they are opened again.
    pub fn give_up(&mut self, lost: &LostTail) -> Result<(), LogError> {
        let key = (lost.author, lost.number);
        if let Some(writer) = self.writers.get_mut(&key) {
            writer.give_up(lost)?;
            self.reader().forget_places(&lost.author);
        }
        if lost.tip.is_none() {
            self.remove(&key);
        }
        Ok(())
    }
}

impl Writer {
    fn give_up(&mut self, lost: &LostTail) -> Result<(), LogError> {
        assert!(!self.has_staged(), "staged frames would lose their place");
        assert!(
            lost.end <= self.branch.end(),
            "giving up never makes a log longer"
        );
        let file = &self.branch.file;
        let shortened = file.set_len(lost.end).and_then(|()| file.sync_data());
        shortened.map_err(|source| self.branch.io(source))?;
        {
            let mut shape = self.branch.shape_mut();
            shape.end = lost.end;
            shape.tip = lost.tip;
            shape.index.retain(|point| point.offset < lost.end);
        }
        let (branch, segments) = (Arc::clone(&self.branch), Arc::clone(&self.segments));
        *self = Self::new(branch, segments, lost.end, false);
        Ok(())
    }
}
