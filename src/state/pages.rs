//! The blocks of a redb file with a check each, so that no changed bit reaches redb: of the state
//! file, and of those that a floor above keeps.
//!
//! redb checks its own sums only when it repairs; on ordinary reads a flipped bit can lead a
//! look-up astray without a word. Here every block that is read is compared with the sum it had
//! when it was written or first read. A clean close leaves the sums in a file beside it; after a
//! crash redb checks the whole file once, and sums are learnt from what is read then.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use redb::StorageBackend;

use crate::{
    disk::{Disk, DiskFile, Open},
    limits::UNSYNCED_BYTES_MAX,
};

const BLOCK: u64 = 4096;
const MAGIC: &[u8; 8] = b"LTSUMS1\n";

/// A file whose blocks are checked when they are read.
#[derive(Debug, Clone)]
pub(crate) struct Pages {
    file: Arc<dyn DiskFile>,
    // By block; 0 where it is not known. Changed with the block, under one lock.
    sums: Arc<Mutex<Vec<u64>>>,
    // Bytes written since the last sync.
    unsynced: Arc<AtomicUsize>,
    // Those are made durable when redb asks for it, however many.
    at_once: Arc<AtomicBool>,
}

impl Pages {
    /// Takes a file whose blocks are not known yet, or known from `sums`.
    pub(crate) fn new(file: Arc<dyn DiskFile>, sums: Vec<u64>) -> Self {
        Self {
            file,
            sums: Arc::new(Mutex::new(sums)),
            unsynced: Arc::default(),
            at_once: Arc::default(),
        }
    }

    /// Says whether all that redb has written is made durable at once, when it asks for it: sooner
    /// done, and nobody else who waits for the disk is served meanwhile.
    pub(crate) fn set_at_once(&self, at_once: bool) {
        self.at_once.store(at_once, Ordering::Relaxed);
    }

    /// Reads the sums that a clean close left, and removes them: they are true once.
    ///
    /// `None` where there are none, or where they do not fit the file.
    pub(crate) fn take_sums(disk: &dyn Disk, path: &Path, file_bytes: u64) -> Option<Vec<u64>> {
        let sums_path = sums_path(path);
        let file = disk.open(&sums_path, Open::Existing).ok()?;
        let read = read_sums(file.as_ref(), file_bytes);
        disk.remove(&sums_path).ok()?;
        // Came they back after a power cut, everything written meanwhile would look damaged.
        disk.sync_dir(path.parent()?).ok()?;
        read
    }

    /// Writes the sums beside the file. Call it when nothing writes to the file any more.
    ///
    /// # Errors
    /// What the file system says; the next open is slower then, and as safe.
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
            // Old ones that could not be removed.
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

// Compares blocks that were read at `start` with their sums, or learns these.
fn check(sums: &mut Vec<u64>, start: u64, blocks: &[u8]) -> io::Result<()> {
    for (number, block) in (start / BLOCK..).zip(blocks.chunks(usize_of(BLOCK))) {
        let known = slot(sums, number);
        let sum = sum(number, block);
        if *known == 0 {
            *known = sum;
        } else if *known != sum {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("block {number} of the file has changed on disk"),
            ));
        }
    }
    Ok(())
}

impl StorageBackend for Pages {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut sums = self.sums();
        if offset.is_multiple_of(BLOCK) && (out.len() as u64).is_multiple_of(BLOCK) {
            self.file.read_at(out, offset)?;
            return check(&mut sums, offset, out);
        }
        let (start, blocks) = self.read_blocks(&mut sums, offset, out.len() as u64)?;
        let from = usize_of(offset - start);
        out.copy_from_slice(&blocks[from..from + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut sums = self.sums();
        self.file.set_len(len)?;
        // A block that was cut, and all behind it, are read afresh.
        sums.truncate(usize_of(len / BLOCK));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.unsynced.store(0, Ordering::Relaxed);
        self.file.sync_data()
    }

    // redb asks for a sync when a transaction ends, which may be a hundred MiB later.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_blocks(offset, data)?;
        let unsynced = self.unsynced.fetch_add(data.len(), Ordering::Relaxed) + data.len();
        if unsynced >= UNSYNCED_BYTES_MAX && !self.at_once.load(Ordering::Relaxed) {
            self.sync_data()?;
        }
        Ok(())
    }
}

impl Pages {
    fn write_blocks(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut sums = self.sums();
        let end = offset + data.len() as u64;
        let whole = offset.is_multiple_of(BLOCK) && end.is_multiple_of(BLOCK);
        if whole {
            self.file.write_at(data, offset)?;
            for (number, block) in (offset / BLOCK..).zip(data.chunks(usize_of(BLOCK))) {
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
        for (number, block) in (start / BLOCK..).zip(blocks.chunks(usize_of(BLOCK))) {
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

// Never 0, which means "not known". The number is mixed in afterwards: BLAKE3 is fastest over the
// block alone, and a block in the place of another must not pass.
fn sum(number: u64, block: &[u8]) -> u64 {
    let hash = blake3::hash(block);
    let word = hash
        .as_bytes()
        .first_chunk()
        .map_or(0, |word| u64::from_le_bytes(*word));
    (word ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).max(1)
}

fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a state file fits the address space")
}
