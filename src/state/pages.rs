//! The blocks of a redb file with a check each, so that no changed bit reaches redb. The state file
//! uses them, and so do the files of higher floors.
//!
//! redb checks its own sums only when it repairs; on an ordinary read a flipped bit can make a
//! look-up miss a row without any error. This module compares every block that is read with the sum
//! that it had when it was written or first read. A clean close leaves the sums in a file beside
//! the redb file. After a crash redb checks the whole file once, and the sums are taken from the
//! blocks that it reads.

use std::{
    io,
    path::{Path, PathBuf},
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
    disk::{Disk, DiskFile, Open},
    limits::UNSYNCED_BYTES_MAX,
};

const BLOCK: u64 = 4096;
// Pages written before the thread yields its core; writing them takes about `CORE_HELD_MAX`.
const PAGES_HELD: usize = 8;
// Time that a disk of half a GiB/s takes to write a piece.
const PIECE_REST: Duration = Duration::from_millis(1);
const MAGIC: &[u8; 8] = b"LTSUMS2\n";

/// A file whose blocks are checked when they are read.
//
// Locks: `sums` before the file, `unsynced` alone; nothing is awaited under either.
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
}

impl Pages {
    /// Wraps a file whose blocks have `sums`; a block without a sum gets it at its first read.
    pub(crate) fn new(file: Arc<dyn DiskFile>, sums: Vec<u64>) -> Self {
        Self {
            file,
            sums: Arc::new(Mutex::new(sums)),
            unsynced: Arc::default(),
            at_once: Arc::default(),
        }
    }

    /// Sets whether a sync writes everything to the disk at once. One write takes less time, but
    /// other threads that wait for the disk wait for all of it. By default a sync writes in pieces.
    pub(crate) fn set_at_once(&self, at_once: bool) {
        self.at_once.store(at_once, Ordering::Relaxed);
    }

    /// Reads the sums that a clean close left, and removes their file: the sums are valid only
    /// until the next write.
    ///
    /// Returns `None` when there are no sums, or they are not for a file of `file_bytes`.
    pub(crate) fn take_sums(disk: &dyn Disk, path: &Path, file_bytes: u64) -> Option<Vec<u64>> {
        let sums_path = sums_path(path);
        let file = disk.open(&sums_path, Open::Existing).ok()?;
        let read = read_sums(file.as_ref(), file_bytes);
        disk.remove(&sums_path).ok()?;
        // Without this sync, the sums file could reappear after a power cut, and every block
        // written since would look damaged.
        disk.sync_dir(path.parent()?).ok()?;
        read
    }

    /// Writes the sums beside the file. Call it when the file is no longer written to.
    ///
    /// # Errors
    /// Any error of the file system. After an error the next open is slower, and as safe.
    pub(crate) fn leave_sums(&self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.file.len()?.to_le_bytes());
        for sum in self.sums().iter() {
            bytes.extend_from_slice(&sum.to_le_bytes());
        }
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(check.as_bytes());
        let sums_path = sums_path(path);
        let file = match disk.open(&sums_path, Open::New) {
            // The file with old sums could not be removed before.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let file = disk.open(&sums_path, Open::Existing)?;
                file.set_len(0)?;
                file
            }
            opened => opened?,
        };
        file.write_at(&bytes, 0)?;
        file.sync_data()
    }

    fn sums(&self) -> MutexGuard<'_, Vec<u64>> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
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
        let written = std::mem::take(&mut *self.unsynced());
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
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.file.write_at(data, offset)?;
        for (number, block) in numbered(start, &blocks) {
            *slot(&mut sums, number) = sum(number, block);
        }
        Ok(())
    }
}

fn read_sums(file: &dyn DiskFile, file_bytes: u64) -> Option<Vec<u64>> {
    let mut bytes = vec![0; usize_of(file.len().ok()?)];
    file.read_at(&mut bytes, 0).ok()?;
    let (body, check) = bytes.split_last_chunk::<32>()?;
    if blake3::hash(body).as_bytes() != check {
        return None;
    }
    let (len, sums) = body.strip_prefix(MAGIC)?.split_first_chunk::<8>()?;
    if u64::from_le_bytes(*len) != file_bytes {
        return None;
    }
    let sums = sums
        .chunks_exact(8)
        .map(|sum| sum.try_into().map(u64::from_le_bytes));
    sums.collect::<Result<_, _>>().ok()
}

fn sums_path(path: &Path) -> PathBuf {
    path.with_extension("sums")
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
