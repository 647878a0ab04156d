//! The blocks of a redb file with a check each, so that no changed bit reaches redb. The state file
//! uses them, and so do the files of higher floors.
//!
//! redb checks its own sums only when it repairs; on an ordinary read a flipped bit can make a
//! look-up miss a row without any error. This module compares every block that is read with the sum
//! that it had when it was written or first read. A clean close leaves the sums in a file beside
//! the redb file. Where they are not kept with each sync, redb checks the whole file once after a
//! crash, and the sums are taken from the blocks that it reads.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use redb::StorageBackend;
use twox_hash::XxHash3_64;

use crate::{
    disk::{Disk, DiskFile},
    limits::UNSYNCED_BYTES_MAX,
    state::sums::{Sums, SumsFile},
};

const BLOCK: u64 = 4096;
// Pages written before the thread yields its core; writing them takes about `CORE_HELD_MAX`.
const PAGES_HELD: usize = 8;
// Time that a disk of half a GiB/s takes to write a piece.
const PIECE_REST: Duration = Duration::from_millis(1);

/// The blocks of a file that was opened whose sums are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// All that redb has used: it was closed.
    Closed,
    /// All that redb has used: it was not closed, and is as its last commit or the beginning of the next
    /// one left it.
    AfterCrash,
    /// None. redb must check the whole file.
    None,
}

/// A file whose blocks are checked when they are read.
//
// Locks: `sums` before the file and `kept`, `unsynced` alone; nothing is awaited under any.
#[derive(Debug, Clone)]
pub(crate) struct Pages {
    file: Arc<dyn DiskFile>,
    // By number of the block; 0 while the sum is not known. Held while blocks are written, so that
    // a block and its sum change together; a reader that finds a mismatch reads again under this
    // lock.
    sums: Arc<Mutex<Vec<u64>>>,
    // Offsets (begin, end) of what was written since the last sync.
    unsynced: Arc<Mutex<Vec<(u64, u64)>>>,
    // See `set_at_once`.
    at_once: Arc<AtomicBool>,
    // The sums file, if it is kept with each sync.
    kept: Option<Arc<Mutex<SumsFile>>>,
    // Whether the sums are those of a sound file. Nothing is kept before.
    is_checked: Arc<AtomicBool>,
}

impl Pages {
    /// Wraps a file whose blocks have `sums`; a block without a sum gets it at its first read.
    pub(crate) fn new(file: Arc<dyn DiskFile>, sums: Vec<u64>) -> Self {
        Self {
            file,
            sums: Arc::new(Mutex::new(sums)),
            unsynced: Arc::default(),
            at_once: Arc::default(),
            kept: None,
            is_checked: Arc::default(),
        }
    }

    /// Sets whether a sync writes everything to the disk at once. One write takes less time, but
    /// other threads that wait for the disk wait for all of it. By default a sync writes in pieces.
    pub(crate) fn set_at_once(&self, at_once: bool) {
        self.at_once.store(at_once, Ordering::Relaxed);
    }

    /// Opens the redb file at `path` with the sums that are kept beside it. From now on they are kept with
    /// each sync, so that they are known after a crash, too.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(crate) fn keeping_sums(
        disk: Arc<dyn Disk>,
        path: &Path,
        file: Arc<dyn DiskFile>,
    ) -> io::Result<(Self, Known)> {
        let bytes = file.len()?;
        let (mut kept, read) = SumsFile::open(disk, path);
        let mut read = read.filter(|_| bytes > 0);
        let is_of_file = match &mut read {
            Some(read) if read.closed.is_none() => is_header(file.as_ref(), read)?,
            Some(read) => read.closed == Some(bytes),
            None => false,
        };
        let (sums, known) = match read.filter(|_| is_of_file) {
            // Later writes make it a file that was not closed.
            Some(read)
                if read.closed.is_some() && kept.add(&read.sums, Vec::new(), None).is_ok() =>
            {
                (read.sums, Known::Closed)
            }
            Some(read) if read.closed.is_none() => (read.sums, Known::AfterCrash),
            _ => {
                kept.remove()?;
                (Vec::new(), Known::None)
            }
        };
        let pages = Self {
            kept: Some(Arc::new(Mutex::new(kept))),
            is_checked: Arc::new(AtomicBool::new(known != Known::None || bytes == 0)),
            ..Self::new(file, sums)
        };
        Ok((pages, known))
    }

    /// Notes that redb has checked the whole file: the sums of its blocks are right, and are kept from now
    /// on. Until then a crash must leave no sums, or the next open would take them for checked ones.
    pub(crate) fn set_checked(&self) {
        self.is_checked.store(true, Ordering::Release);
    }

    /// Reads the sums that a clean close left, and removes their file: the sums are valid only
    /// until the next write.
    ///
    /// Returns `None` when there are no sums, or they are not for a file of `file_bytes`.
    pub(crate) fn take_sums(
        disk: &Arc<dyn Disk>,
        path: &Path,
        file_bytes: u64,
    ) -> Option<Vec<u64>> {
        let (mut kept, read) = SumsFile::open(Arc::clone(disk), path);
        // If the removal is not durable, the sums file could reappear after a power cut, and every block
        // written since would look damaged.
        kept.remove().ok()?;
        let read = read?;
        (read.closed == Some(file_bytes)).then_some(read.sums)
    }

    /// Writes the sums beside the file. Call it when the file is no longer written to.
    ///
    /// # Errors
    /// Any error of the file system. After an error the next open is slower, and as safe.
    pub(crate) fn leave_sums(&self, disk: &Arc<dyn Disk>, path: &Path) -> io::Result<()> {
        let (length, written) = (self.file.len()?, self.take_unsynced());
        let sums = self.sums();
        match &self.kept {
            Some(_) if !self.is_checked() => Ok(()),
            Some(kept) => {
                // The header is written in place, and is known when it was closed.
                let changed = written.into_iter().chain([(0, 1)]);
                let changed = changed.flat_map(blocks_of).collect();
                lock(kept).add(&sums, changed, Some(length))
            }
            None => {
                let (mut left, _sums) = SumsFile::open(Arc::clone(disk), path);
                left.begin(&sums, Some(length))
            }
        }
    }

    fn sums(&self) -> MutexGuard<'_, Vec<u64>> {
        lock(&self.sums)
    }

    // Compares blocks as `check` does, without the lock while it hashes: many threads read the file
    // at the same time.
    fn matches(&self, start: u64, blocks: &[u8]) -> bool {
        numbered(start, blocks).all(|(number, block)| {
            let sum = sum(number, block);
            compare(&mut self.sums(), number, sum)
        })
    }

    // Reads whole blocks that cover the range, checks them, and returns them with their start.
    fn read_blocks(
        &self,
        sums: &mut Vec<u64>,
        offset: u64,
        bytes: u64,
    ) -> io::Result<(u64, Vec<u8>)> {
        let start = offset / BLOCK * BLOCK;
        let end = (offset + bytes).div_ceil(BLOCK) * BLOCK;
        let end = end.min(self.file.len()?).max(offset + bytes);
        let mut blocks = vec![0; usize_of(end - start)];
        self.file.read_at(&mut blocks, start)?;
        check(sums, start, &blocks)?;
        Ok((start, blocks))
    }
}

// Compares blocks that were read at `start` with their sums; a block without a sum gets it.
fn check(sums: &mut Vec<u64>, start: u64, blocks: &[u8]) -> io::Result<()> {
    for (number, block) in numbered(start, blocks) {
        if !compare(sums, number, sum(number, block)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("block {number} of the file has changed on disk"),
            ));
        }
    }
    Ok(())
}

// Returns true when `sum` is the known sum of a block, or none was known.
fn compare(sums: &mut Vec<u64>, number: u64, sum: u64) -> bool {
    let known = slot(sums, number);
    if *known == 0 {
        *known = sum;
    }
    *known == sum
}

fn numbered(start: u64, blocks: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    (start / BLOCK..).zip(blocks.chunks(usize_of(BLOCK)))
}

impl StorageBackend for Pages {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset.is_multiple_of(BLOCK) && (out.len() as u64).is_multiple_of(BLOCK) {
            self.file.read_at(out, offset)?;
            if self.matches(offset, out) {
                return Ok(());
            }
            // A write may have changed part of the range during the read, so reads again under the
            // lock.
            let mut sums = self.sums();
            self.file.read_at(out, offset)?;
            return check(&mut sums, offset, out);
        }
        let mut sums = self.sums();
        let (start, blocks) = self.read_blocks(&mut sums, offset, out.len() as u64)?;
        let from = usize_of(offset - start);
        out.copy_from_slice(&blocks[from..from + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut sums = self.sums();
        self.file.set_len(len)?;
        // The last block, if it was shortened, and all blocks behind it get new sums.
        sums.truncate(usize_of(len / BLOCK));
        Ok(())
    }

    // Called at the end of a transaction, which may have written a hundred MiB.
    fn sync_data(&self) -> io::Result<()> {
        let written = self.take_unsynced();
        self.keep_sums(&written)?;
        if !self.at_once.load(Ordering::Relaxed) {
            self.write_back(written);
        }
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_blocks(offset, data)?;
        let mut unsynced = self.unsynced();
        unsynced.push((offset, offset + data.len() as u64));
        // A transaction is long work, so it offers its core to other threads (see `pace`).
        if unsynced.len().is_multiple_of(PAGES_HELD) {
            drop(unsynced);
            thread::yield_now();
        }
        Ok(())
    }
}

impl Pages {
    fn unsynced(&self) -> MutexGuard<'_, Vec<(u64, u64)>> {
        lock(&self.unsynced)
    }

    fn take_unsynced(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.unsynced())
    }

    // redb syncs the pages of a commit before it makes that the newest one, by a second write of the header
    // and a second sync. So the sums are durable before, and they still fit the commit before, whose pages
    // are not written to. The sum of that second header may be lost by a power cut; then redb checks the
    // whole file.
    fn keep_sums(&self, written: &[(u64, u64)]) -> io::Result<()> {
        let Some(kept) = self.kept.as_ref().filter(|_| self.is_checked()) else {
            return Ok(());
        };
        let written = written.iter().copied().flat_map(blocks_of);
        let changed: Vec<u32> = written.collect();
        // `note_header` has added a header alone.
        if changed.iter().all(|number| *number == 0) {
            return Ok(());
        }
        // Readers go on during the write.
        let sums = self.sums().clone();
        lock(kept).keep(&sums, changed)
    }

    // Adds the sum of the header before it is written: a process that is killed at any moment leaves a header
    // with the last sum or the one before.
    fn note_header(&self, sums: &mut Vec<u64>, block: &[u8]) -> io::Result<()> {
        *slot(sums, 0) = sum(0, block);
        match self.kept.as_ref().filter(|_| self.is_checked()) {
            Some(kept) => lock(kept).keep(sums, vec![0]),
            None => Ok(()),
        }
    }

    fn is_checked(&self) -> bool {
        self.is_checked.load(Ordering::Acquire)
    }

    // Writes dirty pages to the disk piece by piece, by offset. redb writes page by page, each 131
    // pages behind the one before, and another thread that syncs would wait for all of them. Less
    // than a piece is left to the sync.
    fn write_back(&self, mut written: Vec<(u64, u64)>) {
        const PIECE: u64 = UNSYNCED_BYTES_MAX as u64;
        let bytes: u64 = written.iter().map(|(from, to)| to - from).sum();
        if bytes <= PIECE {
            return;
        }
        written.sort_unstable();
        let mut begun = 0;
        for run in written.chunk_by(|before, next| next.0 <= before.1) {
            let (mut from, to) = (run[0].0, run[run.len() - 1].1);
            while from < to {
                let end = (from + PIECE - begun).min(to);
                self.file.write_back(from, end - from);
                begun += end - from;
                from = end;
                if begun >= PIECE {
                    thread::sleep(PIECE_REST);
                    begun = 0;
                }
            }
        }
    }

    fn write_blocks(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut sums = self.sums();
        let end = offset + data.len() as u64;
        let whole = offset.is_multiple_of(BLOCK) && end.is_multiple_of(BLOCK);
        if whole {
            if offset == 0 {
                self.note_header(&mut sums, &data[..usize_of(BLOCK).min(data.len())])?;
            }
            self.file.write_at(data, offset)?;
            for (number, block) in numbered(offset, data) {
                *slot(&mut sums, number) = sum(number, block);
            }
            return Ok(());
        }
        let len = self.file.len()?;
        let (start, mut blocks) = if offset / BLOCK * BLOCK < len {
            let readable = end.min(len).saturating_sub(offset);
            self.read_blocks(&mut sums, offset, readable)?
        } else {
            (offset / BLOCK * BLOCK, Vec::new())
        };
        let from = usize_of(offset - start);
        blocks.resize(blocks.len().max(from + data.len()), 0);
        blocks[from..from + data.len()].copy_from_slice(data);
        if start == 0 {
            self.note_header(&mut sums, &blocks[..usize_of(BLOCK).min(blocks.len())])?;
        }
        self.file.write_at(data, offset)?;
        for (number, block) in numbered(start, &blocks) {
            *slot(&mut sums, number) = sum(number, block);
        }
        Ok(())
    }
}

// Whether block 0 of the file has its last sum or the one before, which is then its sum.
fn is_header(file: &dyn DiskFile, read: &mut Sums) -> io::Result<bool> {
    let mut block = vec![0; usize_of(BLOCK.min(file.len()?))];
    file.read_at(&mut block, 0)?;
    let (found, header) = (sum(0, &block), slot(&mut read.sums, 0));
    let is_known = found == *header || found == read.header_before;
    *header = found;
    Ok(is_known)
}

// Numbers of the blocks of a range of bytes.
fn blocks_of((begin, end): (u64, u64)) -> impl Iterator<Item = u32> {
    let number = |block: u64| u32::try_from(block).expect("a state file has less than 16 TiB");
    number(begin / BLOCK)..number(end.div_ceil(BLOCK))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn slot(sums: &mut Vec<u64>, number: u64) -> &mut u64 {
    let number = usize_of(number);
    if sums.len() <= number {
        sums.resize(number + 1, 0);
    }
    &mut sums[number]
}

// Never 0, which means "not known". The block's number is hashed, too, so that a block in the place
// of another is found.
fn sum(number: u64, block: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(number, block).max(1)
}

fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a state file fits the address space")
}
