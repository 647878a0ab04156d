//! `bench open`: measures how long a store takes to open.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Args;
use lattice::{
    node::Node,
    protocol::entry::Op,
    store::{Store, Write},
};

use crate::cli::{
    bench::{
        baseline,
        error::failed,
        load::{Keys, value},
        report::{Goal, Report},
        samples::rate,
        scratch::{self, Daemon, Scratch},
        setup::Setup,
    },
    exit::Failure,
};

/// Time to open a large store: after a clean close, after a kill, and without its state
#[derive(Debug, Args)]
pub(super) struct Open {
    #[command(flatten)]
    setup: Setup,
    /// Entries in the log
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    entries: usize,
    /// Puts in each entry
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    ops: u16,
}

impl Open {
    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Runs all cases on one store.
    pub(super) async fn run(
        self,
        scratch: &Scratch,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        let dir = scratch.new_path();
        let ops = usize::from(self.ops);
        let rows = self.entries * ops;
        report.case(format!("{} entries, {rows} keys", self.entries))?;
        let start = Instant::now();
        let node = scratch::open(&dir).await?;
        fill(&node.data(), self.entries, ops, self.setup.value).await?;
        report.figure("write", start.elapsed().as_secs_f64(), "s")?;
        let start = Instant::now();
        scratch::close(node).await?;
        report.figure("close", millis(start.elapsed()), "ms")?;
        let clean = reopen(&dir, CLEAN_OPENS).await?;
        let goal = Goal::AtMost(CLEAN_MS);
        match self.entries {
            1_000_000 => report.against("open after a clean close", millis(clean), "ms", goal)?,
            _other => report.figure("open after a clean close", millis(clean), "ms")?,
        }
        killed(&dir, self.setup.value).await?;
        let unclean = reopen(&dir, 1).await?;
        let goal = Goal::AtMost(KILLED_MS);
        report.against("open after a kill", millis(unclean), "ms", goal)?;
        let log = self.rebuild(&dir, rows, scratch, report).await?;
        report.figure("rebuild from the log to redb alone", log, "")?;
        report.case("the same store, all of it in a base".to_owned())?;
        scratch::end_history(&dir).await?;
        let base = self.rebuild(&dir, rows, scratch, report).await?;
        let goal = Goal::AtLeast(REBUILD_RATIO);
        report.against("rebuild from a base to redb alone", base, "", goal)
    }

    // Returns the rate of the rebuild as a part of that of redb.
    async fn rebuild(
        &self,
        dir: &Path,
        rows: usize,
        scratch: &Scratch,
        report: &mut Report<'_>,
    ) -> Result<f64, Failure> {
        let mut rebuilt = Vec::new();
        let mut redb = Vec::new();
        for _pair in 0..REBUILDS {
            discard_states(dir).map_err(|error| failed("cannot remove a state", &error))?;
            rebuilt.push(rate(rows, reopen(dir, 1).await?));
            let keys = Keys::new(0, None).take(rows);
            redb.push(baseline::redb_rows(scratch, keys, self.setup.value)?);
        }
        let (rebuilt, redb) = (best(&rebuilt), best(&redb));
        report.figure("rebuild without a state", rows as f64 / rebuilt, "s")?;
        report.figure("rebuild", rebuilt, "rows/s")?;
        report.figure("redb alone, sorted batches", redb, "rows/s")?;
        Ok(rebuilt / redb)
    }
}

/// Writes `entries` entries of `ops` puts each, every put with a new key.
pub(super) async fn fill(
    store: &Store,
    entries: usize,
    ops: usize,
    value_bytes: usize,
) -> Result<(), Failure> {
    fill_keys(store, Keys::new(0, None), entries, ops, value_bytes).await
}

/// Writes `entries` entries of `ops` puts each to `keys`. The keys of an entry must differ.
pub(super) async fn fill_keys(
    store: &Store,
    mut keys: Keys,
    entries: usize,
    ops: usize,
    value_bytes: usize,
) -> Result<(), Failure> {
    let value = value(value_bytes);
    let mut left = entries;
    while left > 0 {
        let count = left.min((GROUP_OPS / ops).max(1));
        left -= count;
        // Atomic, so that each write is an entry of its own.
        let write = |keys: &mut Keys| Write {
            ops: keys.take(ops).map(|key| put(key, value.clone())).collect(),
            atomic: true,
            condition: None,
            cause: None,
        };
        let writes = (0..count).map(|_| write(&mut keys)).collect();
        for written in store.write_many(writes).await {
            written.map_err(|error| failed("a put failed", &error))?;
        }
    }
    Ok(())
}

fn put(key: Bytes, value: Bytes) -> Op {
    Op::Put {
        key,
        value,
        expires_ms: None,
    }
}

// Opens and closes the node several times; returns the shortest time to open it.
async fn reopen(dir: &Path, times: usize) -> Result<Duration, Failure> {
    let mut shortest = Duration::MAX;
    for _time in 0..times {
        let start = Instant::now();
        let node: Node = scratch::open(dir).await?;
        shortest = shortest.min(start.elapsed());
        scratch::close(node).await?;
    }
    Ok(shortest)
}

// Starts a node in another process, writes through it, and kills it.
async fn killed(dir: &Path, value_bytes: usize) -> Result<(), Failure> {
    let daemon = Daemon::start(dir).await?;
    let mut client = daemon.connect().await?;
    let start = Instant::now();
    let mut number = 0_u32;
    // Writes long enough for the state file to be flushed at least once and to be behind the log.
    while start.elapsed() < WRITE_BEFORE_KILL {
        let request = lattice::wire::api::PutRequest {
            key: Bytes::from(format!("/killed/{number:010}")),
            value: value(value_bytes),
            ..Default::default()
        };
        client.put(request).await?;
        number += 1;
    }
    daemon.kill()
}

fn discard_states(dir: &Path) -> io::Result<()> {
    for store in fs::read_dir(dir.join("stores"))? {
        let store: PathBuf = store?.path();
        for file in ["state.db", "state.sums"] {
            match fs::remove_file(store.join(file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _removed => {}
            }
        }
    }
    Ok(())
}

fn best(rates: &[f64]) -> f64 {
    rates.iter().copied().fold(0.0, f64::max)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Goal: time to open a million entries after a clean close.
const CLEAN_MS: f64 = 100.0;
/// Goal: time to open a store after a kill.
const KILLED_MS: f64 = 300.0;
/// Goal: rows per second of a rebuild, divided by those of redb alone.
const REBUILD_RATIO: f64 = 0.7;
/// Times that the store is opened after a clean close; the shortest counts.
const CLEAN_OPENS: usize = 3;
/// Times that the state is rebuilt; the fastest counts.
const REBUILDS: usize = 2;
/// Puts that are written together while the store is filled.
const GROUP_OPS: usize = 4096;
/// Time for which the node writes before it is killed.
const WRITE_BEFORE_KILL: Duration = Duration::from_secs(1);
