//! The end of a log that is gone: a file restored from an older copy, truncated, or deleted.

use std::{
    io,
    sync::{Arc, PoisonError},
};

use crate::{
    disk::DiskFile,
    id::{Author, Seq},
    limits::REPLAY_CHUNK_BYTES,
    log::{
        LogError, Logs, Mark,
        frame::FRAME_HEADER_BYTES,
        record::{Record, Step, Walk},
        writer::Writer,
    },
    protocol::chain::Tip,
};

/// Entries at the end of a branch that were durable and that its file does not have any more.
///
/// Unlike a damaged record in the middle, nothing says what else was behind them: whoever writes
/// on may give a place away for the second time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostTail {
    /// Whose log.
    pub author: Author,
    /// Which branch.
    pub number: u32,
    /// The file's name.
    pub file: String,
    /// The newest entry that is there; `None`: none is.
    pub tip: Option<Tip>,
    /// Where its record ends.
    pub end: u64,
    /// The newest entry that was durable.
    pub through: Seq,
}

impl LostTail {
    /// Returns the first place that is lost.
    pub fn first(&self) -> Seq {
        self.tip.map_or(1, |tip| tip.seq + 1)
    }
}

/// Looks whether the end of a branch, of which `mark` was durable, is gone.
///
/// A last record that is there and unreadable is damage and no cut: its place is known.
///
/// # Errors
/// What the file says.
pub(super) fn find(
    mark: &Mark,
    file: &Arc<dyn DiskFile>,
    name: &str,
) -> io::Result<Option<LostTail>> {
    let len = file.len()?;
    if len >= mark.end && !ends_in_zeros(file.as_ref(), mark.end)? {
        return Ok(None);
    }
    let newest = newest(mark, file, mark.end.min(len))?;
    let (end, tip) = newest.map_or((0, None), |(end, tip)| (end, Some(tip)));
    // Else only the seal behind it is gone.
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

// Room where a frame was: what a file that is made longer gets.
fn ends_in_zeros(file: &dyn DiskFile, end: u64) -> io::Result<bool> {
    let mut bytes = [0; FRAME_HEADER_BYTES];
    let Some(from) = end.checked_sub(bytes.len() as u64) else {
        return Ok(false);
    };
    file.read_at(&mut bytes, from)?;
    Ok(bytes.iter().all(|byte| *byte == 0))
}

// The last whole record before `end`, and where it ends.
fn newest(mark: &Mark, file: &Arc<dyn DiskFile>, end: u64) -> io::Result<Option<(u64, Tip)>> {
    let points = mark.index.iter().rev().map(|point| point.offset);
    for from in points.chain([0]).filter(|from| *from < end) {
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
    /// Lets a branch end with the newest entry that is there. Durable on return.
    ///
    /// # Errors
    /// `Io`, after which the logs must not be written until they are opened again.
    pub fn give_up(&mut self, cut: &LostTail) -> Result<(), LogError> {
        let key = (cut.author, cut.number);
        if let Some(writer) = self.writers.get_mut(&key) {
            writer.give_up(cut)?;
        }
        if cut.tip.is_none() {
            self.remove(&key);
        }
        Ok(())
    }
}

impl Writer {
    fn give_up(&mut self, cut: &LostTail) -> Result<(), LogError> {
        let file = &self.branch.file;
        let shortened = file.set_len(cut.end).and_then(|()| file.sync_data());
        shortened.map_err(|source| self.branch.io(source))?;
        {
            let mut shape = self
                .branch
                .shape
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            shape.end = cut.end;
            shape.tip = cut.tip;
            shape.index.retain(|point| point.offset < cut.end);
        }
        *self = Self::new(Arc::clone(&self.branch), cut.end, false);
        Ok(())
    }
}
