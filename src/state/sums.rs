//! The file with the sums of a redb file's blocks, beside that file.
//!
//! It begins with all sums. Each sync of the redb file adds a record with those that have changed, which is
//! durable before redb makes the commit the newest one. redb never writes to a page of the commit before
//! meanwhile. So after a crash the sums are those of the newest commit, whichever it is. Only its header, in
//! block 0, is written in place, twice in a commit: after a crash it has its last sum or the one before.
//!
//! A record: number of sums (u32), each as block (u32) and sum (u64), length of the redb file if it was
//! closed after it, else 0 (u64), and the XXH3 of all of it (u64), seeded with that of the record before. All
//! are little-endian. The record that a crash has cut, and what is behind it, do not count.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Buf, BufMut};
use twox_hash::XxHash3_64;

use crate::disk::{Disk, DiskFile, Open};

const MAGIC: &[u8; 8] = b"LTSUMS3\n";
const SUM_BYTES: usize = 4 + 8;
// Bytes of the records behind the first one, beyond its own, after which all sums are written anew.
const TAIL_BYTES: u64 = 1 << 20;

/// The sums that were read.
#[derive(Debug)]
pub(super) struct Sums {
    /// By number of the block; 0 where the sum is not known.
    pub(super) sums: Vec<u64>,
    /// The sum of block 0 before the one in `sums`; 0 if it is not known.
    pub(super) header_before: u64,
    /// Length of the redb file, if it was closed.
    pub(super) closed: Option<u64>,
}

/// The file, to which the sums of changed blocks are added.
#[derive(Debug)]
pub(super) struct SumsFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    // None until all sums were written.
    tail: Option<Tail>,
}

#[derive(Debug)]
struct Tail {
    file: Arc<dyn DiskFile>,
    // Bytes of the first record, and of all.
    first: u64,
    end: u64,
    // The check of the last record.
    check: u64,
}

impl SumsFile {
    /// Opens the file with the sums of the redb file at `db`. Returns also what it has: `None` if there is
    /// none, or its first record is not whole.
    pub(super) fn open(disk: Arc<dyn Disk>, db: &Path) -> (Self, Option<Sums>) {
        let path = db.with_extension("sums");
        let read = disk.open(&path, Open::Existing);
        let read = read.and_then(|file| Ok(read_all(&file)?.map(|read| (file, read))));
        let (tail, sums) = match read {
            Ok(Some((file, (sums, first, end, check)))) => {
                let tail = Tail {
                    file,
                    first,
                    end,
                    check,
                };
                (Some(tail), Some(sums))
            }
            Ok(None) | Err(_) => (None, None),
        };
        (Self { disk, path, tail }, sums)
    }

    /// Removes the file: its sums are of another redb file. Durable on return.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(super) fn remove(&mut self) -> io::Result<()> {
        self.tail = None;
        let unfinished = self.path.with_extension("sums.new");
        let removed = [&unfinished, &self.path].map(|path| self.disk.remove(path));
        let [_unfinished, removed] = removed;
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.sync_dir(),
        }
    }

    /// Adds the sums of the blocks `changed`. If there is no room for them, the file is removed: redb then
    /// checks the whole file after a crash, and the next call begins with all sums. A full disk must not keep
    /// the state from being written: entries are removed from the logs only after that.
    ///
    /// # Errors
    /// The file cannot be removed either.
    pub(super) fn keep(&mut self, sums: &[u64], changed: Vec<u32>) -> io::Result<()> {
        self.add(sums, changed, None).or_else(|error| {
            tracing::debug!(path = %self.path.display(), %error, "the sums of a file are not kept");
            self.remove()
        })
    }

    /// Adds the sums of the blocks `changed`, which may name a block more than once. `closed`: the length of
    /// the redb file, to which nothing more is written. Durable on return, unless only block 0 has changed
    /// and it is not closed: that is not worth a sync.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(super) fn add(
        &mut self,
        sums: &[u64],
        mut changed: Vec<u32>,
        closed: Option<u64>,
    ) -> io::Result<()> {
        let Some(tail) = &mut self.tail else {
            return self.begin(sums, closed);
        };
        if tail.end > 2 * tail.first + TAIL_BYTES {
            return self.begin(sums, closed);
        }
        changed.sort_unstable();
        changed.dedup();
        let known = |number: u32| sums.get(number as usize).copied().unwrap_or(0);
        let is_durable = closed.is_some() || changed != [0];
        let changed = changed.into_iter().map(|number| (number, known(number)));
        let (record, check) = encode(changed, closed, tail.check);
        tail.file.write_at(&record, tail.end)?;
        if is_durable {
            tail.file.sync_data()?;
        }
        tail.end += record.len() as u64;
        tail.check = check;
        Ok(())
    }

    // Writes all sums to a new file, which then gets the name.
    pub(super) fn begin(&mut self, sums: &[u64], closed: Option<u64>) -> io::Result<()> {
        let unfinished = self.path.with_extension("sums.new");
        match self.disk.remove(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _removed => {}
        }
        let all = (0..).zip(sums.iter().copied());
        let (record, check) = encode(all.filter(|(_, sum)| *sum != 0), closed, 0);
        let file = self.disk.open(&unfinished, Open::New)?;
        file.write_at(MAGIC, 0)?;
        file.write_at(&record, MAGIC.len() as u64)?;
        file.sync_data()?;
        self.disk.rename(&unfinished, &self.path)?;
        self.sync_dir()?;
        let first = (MAGIC.len() + record.len()) as u64;
        self.tail = Some(Tail {
            file,
            first,
            end: first,
            check,
        });
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.path
            .parent()
            .map_or(Ok(()), |dir| self.disk.sync_dir(dir))
    }
}

fn encode(
    sums: impl Iterator<Item = (u32, u64)>,
    closed: Option<u64>,
    seed: u64,
) -> (Vec<u8>, u64) {
    let mut record = vec![0; 4];
    let mut count = 0_u32;
    for (number, sum) in sums {
        record.put_u32_le(number);
        record.put_u64_le(sum);
        count += 1;
    }
    record[..4].copy_from_slice(&count.to_le_bytes());
    record.put_u64_le(closed.unwrap_or(0));
    let check = XxHash3_64::oneshot_with_seed(seed, &record);
    record.put_u64_le(check);
    (record, check)
}

type Read = (Sums, u64, u64, u64);

// Reads all records that are whole. Returns also the bytes of the first one and of all, and the last check.
fn read_all(file: &Arc<dyn DiskFile>) -> io::Result<Option<Read>> {
    let length = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_at(&mut bytes, 0)?;
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return Ok(None);
    };
    let (mut sums, mut first, mut check) = (Vec::new(), None, 0);
    let (mut closed, mut header_before) = (None, 0);
    while let Some((record, after)) = split_record(rest, check) {
        rest = after;
        let mut has_header = false;
        let (mut body, end) = record.split_at(record.len() - 16);
        body.advance(4);
        while body.has_remaining() {
            let number = body.get_u32_le() as usize;
            if sums.len() <= number {
                sums.resize(number + 1, 0);
            }
            let sum = body.get_u64_le();
            if number == 0 {
                has_header = true;
                if sum != sums[0] {
                    header_before = sums[0];
                }
            }
            sums[number] = sum;
        }
        // The header is durable before a record without it, which comes between two commits.
        if !has_header {
            header_before = 0;
        }
        let mut end = end;
        closed = Some(end.get_u64_le()).filter(|length| *length > 0);
        check = end.get_u64_le();
        first.get_or_insert((length - rest.len()) as u64);
    }
    let end = (length - rest.len()) as u64;
    let sums = Sums {
        sums,
        header_before,
        closed,
    };
    Ok(first.map(|first| (sums, first, end, check)))
}

// The first record of `rest`, if it is whole.
fn split_record(rest: &[u8], seed: u64) -> Option<(&[u8], &[u8])> {
    let count = u32::from_le_bytes(*rest.first_chunk()?) as usize;
    let body = 4 + count.checked_mul(SUM_BYTES)? + 8;
    let (record, after) = rest.split_at_checked(body + 8)?;
    let check = XxHash3_64::oneshot_with_seed(seed, &record[..body]);
    (record[body..] == check.to_le_bytes()).then_some((record, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    // The file after each record, and the sums through it.
    fn written(dir: &Path) -> Vec<(u64, Vec<u64>, Option<u64>)> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let db = dir.join("state.db");
        let (mut file, none) = SumsFile::open(disk, &db);
        assert!(none.is_none());
        let mut sums = vec![11, 0, 13];
        let mut all = Vec::new();
        let mut add = |sums: &[u64], changed: Vec<u32>, closed| {
            file.add(sums, changed, closed).unwrap();
            let bytes = std::fs::metadata(dir.join("state.sums")).unwrap().len();
            all.push((bytes, sums.to_vec(), closed));
        };
        add(&sums, vec![2], None);
        sums[1] = 22;
        sums.push(24);
        add(&sums, vec![3, 1, 3], None);
        sums[0] = 31;
        add(&sums, vec![0], None);
        sums[0] = 41;
        add(&sums, vec![0], Some(4 * 4096));
        sums[2] = 43;
        add(&sums, vec![2], None);
        all
    }

    fn read(bytes: &[u8]) -> Option<Sums> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("state.sums"), bytes).unwrap();
        SumsFile::open(Arc::new(RealDisk), &dir.path().join("state.db")).1
    }

    #[test]
    fn file_that_was_cut_has_the_sums_of_its_whole_records() {
        let dir = tempfile::tempdir().unwrap();
        let records = written(dir.path());
        let bytes = std::fs::read(dir.path().join("state.sums")).unwrap();
        for cut in 0..=bytes.len() {
            let whole = records.iter().rfind(|(end, ..)| *end <= cut as u64);
            let found = read(&bytes[..cut]).map(|found| (found.sums, found.closed));
            let expected = whole.map(|(_end, sums, closed)| (sums.clone(), *closed));
            assert_eq!(found, expected, "cut at {cut}");
        }
    }

    #[test]
    fn no_flipped_bit_gives_other_sums() {
        let dir = tempfile::tempdir().unwrap();
        let records = written(dir.path());
        let bytes = std::fs::read(dir.path().join("state.sums")).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // The record with the bit and those behind it do not count.
            let before = records.iter().rfind(|(end, ..)| *end <= bit as u64 / 8);
            let found = read(&flipped).map(|found| (found.sums, found.closed));
            let expected = before.map(|(_end, sums, closed)| (sums.clone(), *closed));
            assert_eq!(found, expected, "bit {bit}");
        }
    }

    // The cut record is written over, and is never read as part of the next one.
    #[test]
    fn record_behind_a_cut_one_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let records = written(dir.path());
        let path = dir.path().join("state.sums");
        let bytes = std::fs::read(&path).unwrap();
        let (last, before) = (bytes.len() - 1, &records[records.len() - 2]);
        std::fs::write(&path, &bytes[..last]).unwrap();
        let (mut file, found) = SumsFile::open(Arc::new(RealDisk), &dir.path().join("state.db"));
        let mut sums = found.unwrap().sums;
        assert_eq!(sums, before.1);
        sums[1] = 52;
        file.add(&sums, vec![1], None).unwrap();
        let found = read(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!((found.sums, found.closed), (sums, None));
        assert_eq!(found.header_before, 0, "the last record has no header");
        file.add(&[61], vec![0], None).unwrap();
        file.add(&[61], vec![0], None).unwrap();
        let found = read(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!((found.sums[0], found.header_before), (61, 41));
    }

    #[test]
    fn file_is_written_anew_when_its_tail_is_long() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let (mut file, _none) = SumsFile::open(disk, &dir.path().join("state.db"));
        let mut sums = vec![1; 50_000];
        let (path, mut longest) = (dir.path().join("state.sums"), 0);
        for round in 2..20 {
            sums.fill(round);
            file.add(&sums, (0..50_000).collect(), None).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            longest = longest.max(bytes.len());
            assert_eq!(read(&bytes).unwrap().sums, sums);
        }
        assert!(longest < 5 << 20, "{longest} bytes for 50,000 sums");
    }
}
