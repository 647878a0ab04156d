//! Measures the disk and redb alone, for comparison with the store.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use redb::{Database, TableDefinition};

use crate::cli::{
    bench::{
        error::failed,
        report::Report,
        samples::{Samples, rate},
        scratch::Scratch,
    },
    exit::Failure,
};

/// Measures a write and its fdatasync, for a file that grows and for one of fixed size.
#[derive(Debug)]
pub(super) struct Fdatasync {
    growing: File,
    fixed: File,
    // Offset of the next write in `fixed`.
    at: u64,
    appended: Samples,
    overwritten: Samples,
    // Writes to `fixed` after a pause each.
    paced: Samples,
}

impl Fdatasync {
    /// Creates the two files.
    pub(super) fn new(scratch: &Scratch) -> Result<Self, Failure> {
        Self::make(scratch.new_path(), scratch.new_path())
            .map_err(|error| failed("cannot make a file to sync", &error))
    }

    fn make(growing: PathBuf, fixed: PathBuf) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create_new(true).write(true);
        let mut fixed = options.open(fixed)?;
        fixed.write_all(&vec![0; FIXED_BYTES])?;
        fixed.sync_all()?;
        Ok(Self {
            growing: options.append(true).open(growing)?,
            fixed,
            at: 0,
            appended: Samples::default(),
            overwritten: Samples::default(),
            paced: Samples::default(),
        })
    }

    /// Measures both files, each for half of `time`.
    pub(super) fn turn(&mut self, time: Duration) -> Result<(), Failure> {
        let record = [0x5a; RECORD_BYTES];
        let (growing, fixed, at) = (&mut self.growing, &self.fixed, &mut self.at);
        let appended = Samples::measure(time / 2, || {
            growing.write_all(&record)?;
            growing.sync_data()
        });
        let overwritten = Samples::measure(time / 2, || {
            fixed.write_all_at(&record, *at)?;
            *at = (*at + RECORD_BYTES as u64) % (FIXED_BYTES as u64);
            fixed.sync_data()
        });
        let failed = |error: io::Error| failed("cannot sync a file", &error);
        self.appended.append(appended.map_err(failed)?);
        self.overwritten.append(overwritten.map_err(failed)?);
        Ok(())
    }

    /// Measures the file of fixed size with a pause before each write, because an idle machine is
    /// slower.
    pub(super) fn paced_turn(&mut self, time: Duration, pause: Duration) -> Result<(), Failure> {
        let start = Instant::now();
        while start.elapsed() < time {
            std::thread::sleep(pause);
            let before = Instant::now();
            self.fixed
                .write_all_at(&[0x5a; RECORD_BYTES], self.at)
                .and_then(|()| self.fixed.sync_data())
                .map_err(|error| failed("cannot sync a file", &error))?;
            self.at = (self.at + RECORD_BYTES as u64) % (FIXED_BYTES as u64);
            self.paced.push(before.elapsed());
        }
        Ok(())
    }

    /// Returns the samples with a pause, sorted, and clears them.
    pub(super) fn take_paced(&mut self) -> Samples {
        self.paced.sort();
        std::mem::take(&mut self.paced)
    }

    /// Prints both rates, and returns the sorted samples of the faster file.
    pub(super) fn report(mut self, report: &mut Report<'_>) -> Result<Samples, Failure> {
        self.appended.sort();
        self.overwritten.sort();
        report.figure("fdatasync, growing file", self.appended.rate(), "/s")?;
        report.figure("fdatasync, fixed size", self.overwritten.rate(), "/s")?;
        Ok(if self.appended.rate() > self.overwritten.rate() {
            self.appended
        } else {
            self.overwritten
        })
    }
}

/// Returns the rows per second that redb writes in sorted batches, each of them durable.
///
/// `keys` are in the order in which the store gets them. Rows are as long as those of the state.
pub(super) fn redb_rows(
    scratch: &Scratch,
    keys: impl Iterator<Item = Bytes>,
    value_bytes: usize,
) -> Result<f64, Failure> {
    let place = scratch.new_path();
    let measured = write_rows(&place, keys, vec![0x5a; ROW_FIXED_BYTES + value_bytes])
        .map_err(|error| failed("cannot write rows with redb", &error));
    drop(std::fs::remove_file(place));
    measured
}

fn write_rows(
    place: &std::path::Path,
    mut keys: impl Iterator<Item = Bytes>,
    row: Vec<u8>,
) -> Result<f64, redb::Error> {
    let db = Database::create(place)?;
    let mut count = 0;
    let mut span = Duration::ZERO;
    loop {
        let mut batch: Vec<Bytes> = keys.by_ref().take(BATCH_ROWS).collect();
        if batch.is_empty() {
            return Ok(rate(count, span));
        }
        count += batch.len();
        let start = Instant::now();
        batch.sort_unstable();
        let write = db.begin_write()?;
        {
            let mut table = write.open_table(ROWS)?;
            for key in &batch {
                table.insert(key.as_ref(), row.as_slice())?;
            }
        }
        write.commit()?;
        span += start.elapsed();
    }
}

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
// The number of rows that a store keeps in memory before it writes them.
const BATCH_ROWS: usize = 80_000;
// Bytes of a row with one head, without its value.
const ROW_FIXED_BYTES: usize = 2 + 85 + 4 + 8;
// About the size of a log record for a put of 128 bytes.
const RECORD_BYTES: usize = 512;
const FIXED_BYTES: usize = 64 << 20;
