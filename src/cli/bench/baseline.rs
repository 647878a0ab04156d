//! What the disk and the state's database can do without us.

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

/// fdatasync after each write, in the two ways that a log can be written.
#[derive(Debug)]
pub(super) struct Fdatasync {
    growing: File,
    ready: File,
    // Where in `ready` the next write goes.
    at: u64,
    appended: Samples,
    overwritten: Samples,
    // Those that came after a pause.
    paced: Samples,
}

impl Fdatasync {
    /// Makes its files.
    pub(super) fn new(scratch: &Scratch) -> Result<Self, Failure> {
        Self::make(scratch.place(), scratch.place())
            .map_err(|error| failed("cannot make a file to sync", &error))
    }

    fn make(growing: PathBuf, ready: PathBuf) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create_new(true).write(true);
        let mut ready = options.open(ready)?;
        ready.write_all(&vec![0; READY_BYTES])?;
        ready.sync_all()?;
        Ok(Self {
            growing: options.append(true).open(growing)?,
            ready,
            at: 0,
            appended: Samples::default(),
            overwritten: Samples::default(),
            paced: Samples::default(),
        })
    }

    /// Takes a turn of both: half of `time` each.
    pub(super) fn turn(&mut self, time: Duration) -> Result<(), Failure> {
        let record = [0x5a; RECORD_BYTES];
        let (growing, ready, at) = (&mut self.growing, &self.ready, &mut self.at);
        let appended = Samples::of(time / 2, || {
            growing.write_all(&record)?;
            growing.sync_data()
        });
        let overwritten = Samples::of(time / 2, || {
            ready.write_all_at(&record, *at)?;
            *at = (*at + RECORD_BYTES as u64) % (READY_BYTES as u64);
            ready.sync_data()
        });
        let failed = |error: io::Error| failed("cannot sync a file", &error);
        self.appended.then(appended.map_err(failed)?);
        self.overwritten.then(overwritten.map_err(failed)?);
        Ok(())
    }

    /// Takes a turn of the second way, with a pause before each: a machine that has slept is
    /// slower.
    pub(super) fn paced_turn(&mut self, time: Duration, pause: Duration) -> Result<(), Failure> {
        let start = Instant::now();
        while start.elapsed() < time {
            std::thread::sleep(pause);
            let before = Instant::now();
            self.ready
                .write_all_at(&[0x5a; RECORD_BYTES], self.at)
                .and_then(|()| self.ready.sync_data())
                .map_err(|error| failed("cannot sync a file", &error))?;
            self.at = (self.at + RECORD_BYTES as u64) % (READY_BYTES as u64);
            self.paced.push(before.elapsed());
        }
        Ok(())
    }

    /// Takes out those that came after a pause, sorted.
    pub(super) fn take_paced(&mut self) -> Samples {
        self.paced.sort();
        std::mem::take(&mut self.paced)
    }

    /// Prints both, and returns the samples, sorted, of the faster.
    pub(super) fn report(mut self, report: &mut Report<'_>) -> Result<Samples, Failure> {
        self.appended.sort();
        self.overwritten.sort();
        report.figure("fdatasync, file grows", self.appended.rate(), "/s")?;
        report.figure("fdatasync, file is there", self.overwritten.rate(), "/s")?;
        Ok(if self.appended.rate() > self.overwritten.rate() {
            self.appended
        } else {
            self.overwritten
        })
    }
}

/// Returns the rows per second that redb takes in, each batch sorted and then durable.
///
/// `keys` in the order in which the store gets them; rows are as long as those of the state.
pub(super) fn redb_rows(
    scratch: &Scratch,
    keys: impl Iterator<Item = Bytes>,
    value_bytes: usize,
) -> Result<f64, Failure> {
    let place = scratch.place();
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
// As many as fill the rows that a store keeps in memory.
const BATCH_ROWS: usize = 80_000;
// A row of one head, but for its value.
const ROW_FIXED_BYTES: usize = 2 + 85 + 4 + 8;
// About what a put of 128 bytes takes in a log.
const RECORD_BYTES: usize = 512;
const READY_BYTES: usize = 64 << 20;
