//! `bench prune`: measures what it costs to move entries from the logs into a base.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;
use lattice::{node::Node, store::Store};
use tokio::task::JoinHandle;

use crate::cli::{
    bench::{
        error::failed,
        load::{Callers, value},
        memory::mebibytes,
        open::fill,
        report::{Goal, Report},
        scratch::{self, Scratch},
        setup::Setup,
    },
    exit::Failure,
};

/// Puts, and room on disk, while the entries of a store are moved from its logs into a base without end
#[derive(Debug, Args)]
pub(super) struct Prune {
    #[command(flatten)]
    setup: Setup,
    /// Keys in the store, all of them overwritten at random
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    keys: u64,
}

impl Prune {
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
        let node = scratch::open(&dir).await?;
        let info = node.create_store("bench").await;
        let info = info.map_err(|error| failed("the store cannot be made", &error))?;
        let store = open(&node)?;
        let entries = usize::try_from(self.keys)
            .unwrap_or(usize::MAX)
            .div_ceil(ENTRY_OPS);
        fill(&store, entries, ENTRY_OPS, self.setup.value).await?;
        let path = dir.join("stores").join(info.id.to_string());
        report.case(format!("{} keys, one caller, 100 puts a second", self.keys))?;
        let every = Some(Duration::from_millis(10));
        self.put(&store, 1, every, &path, report).await?;
        for callers in [1, 256] {
            report.case(format!("{} keys, {callers} callers", self.keys))?;
            self.put(&store, callers, None, &path, report).await?;
        }
        report.case("a state that is lost")?;
        drop_all(&store).await?;
        drop(store);
        scratch::close(node).await?;
        for name in ["state.db", "state.sums"] {
            drop(fs::remove_file(path.join(name)));
        }
        let start = Instant::now();
        let node = scratch::open(&dir).await?;
        let built = start.elapsed();
        let store = open(&node)?;
        let rows = store.status().await.keys;
        let rate = rows as f64 / built.as_secs_f64();
        report.figure("rows built again from the base", rate, "/s")?;
        drop(store);
        scratch::close(node).await
    }

    async fn put(
        &self,
        store: &Store,
        callers: usize,
        every: Option<Duration>,
        path: &Path,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        let mut callers =
            Callers::new(callers, Some(self.keys), value(self.setup.value)).every(every);
        let time = Duration::from_secs_f64(self.setup.secs);
        let mut calm = callers.turn(store, time.min(CALM_MAX)).await?;
        // The entries of the calm turn are not of the room that pruning takes.
        drop_all(store).await?;
        let pruning = Pruning::start(store, path);
        let mut pruned = callers.turn(store, time).await?;
        let done = pruning.stop().await?;
        calm.sort();
        pruned.sort();
        report.times("calm", &calm)?;
        report.times("while pruning", &pruned)?;
        let (p99, rate) = (
            pruned.micros(990) / calm.micros(990).max(f64::MIN_POSITIVE),
            pruned.rate() / calm.rate().max(f64::MIN_POSITIVE),
        );
        report.against("p99 against calm", p99, "x", Goal::AtMost(P99_MAX))?;
        report.against("rate against calm", rate, "x", Goal::AtLeast(RATE_MIN))?;
        report.figure("prunings", done.times as f64, "")?;
        let each = done.took.as_secs_f64() * 1e3 / done.times.max(1) as f64;
        report.figure("time of a pruning", each, "ms")?;
        let live = bytes_of(&path.join("base"));
        let room = done.bytes_max as f64 - LIVE_TIMES * live as f64;
        report.figure("base", mebibytes(live), "MiB")?;
        report.figure("room on disk at most", mebibytes(done.bytes_max), "MiB")?;
        let beyond = (room / f64::from(1 << 20)).max(0.0);
        let goal = Goal::AtMost(BEYOND_MIB);
        report.against("beyond five times the base", beyond, "MiB", goal)
    }
}

/// A task that prunes a store again and again, and one that measures its room on disk.
struct Pruning {
    stop: Arc<AtomicBool>,
    bytes_max: Arc<AtomicU64>,
    pruning: JoinHandle<Result<(u64, Duration), Failure>>,
    measuring: JoinHandle<()>,
}

/// The results of both.
struct Done {
    times: u64,
    took: Duration,
    bytes_max: u64,
}

impl Pruning {
    fn start(store: &Store, path: &Path) -> Self {
        let (stop, bytes_max) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let pruning = {
            let (store, stop) = (store.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let (mut times, mut took) = (0, Duration::ZERO);
                while !stop.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    drop_all(&store).await?;
                    took += start.elapsed();
                    times += 1;
                    tokio::time::sleep(PRUNE_EVERY).await;
                }
                Ok((times, took))
            })
        };
        let measuring = {
            let (path, stop) = (path.to_owned(), Arc::clone(&stop));
            let bytes_max: Arc<AtomicU64> = Arc::clone(&bytes_max);
            tokio::task::spawn_blocking(move || {
                while !stop.load(Ordering::Relaxed) {
                    bytes_max.fetch_max(bytes_of(&path), Ordering::Relaxed);
                    std::thread::sleep(MEASURE_EVERY);
                }
            })
        };
        Self {
            stop,
            bytes_max,
            pruning,
            measuring,
        }
    }

    async fn stop(self) -> Result<Done, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let pruned = self.pruning.await;
        let (times, took) = pruned.map_err(|panic| failed("the pruning panicked", &panic))??;
        let measured = self.measuring.await;
        measured.map_err(|panic| failed("the measuring panicked", &panic))?;
        Ok(Done {
            times,
            took,
            bytes_max: self.bytes_max.load(Ordering::Relaxed),
        })
    }
}

fn open(node: &Node) -> Result<Store, Failure> {
    let store = node.store("bench");
    store.map_err(|error| failed("the store is missing", &error))
}

// Moves all entries into the base.
async fn drop_all(store: &Store) -> Result<(), Failure> {
    let dropped = store.drop_before(store.frontier()).await;
    dropped.map_err(|error| failed("the store cannot be pruned", &error))?;
    Ok(())
}

// Length of all files below a directory. One that is removed meanwhile has none.
fn bytes_of(path: &Path) -> u64 {
    let names = fs::read_dir(path).into_iter().flatten().flatten();
    names
        .map(|name| match name.metadata() {
            Ok(about) if about.is_dir() => bytes_of(&name.path()),
            Ok(about) => about.len(),
            Err(_removed) => 0,
        })
        .sum()
}

/// Goal: p99 of a put while entries are moved, against calm.
const P99_MAX: f64 = 2.0;
/// Goal: puts while entries are moved, against calm.
const RATE_MIN: f64 = 0.75;
/// Goal: room on disk beyond `LIVE_TIMES` the rows of the store.
const BEYOND_MIB: f64 = 256.0;
const LIVE_TIMES: f64 = 5.0;
/// Time of a calm turn: a longer one would only fill the disk.
const CALM_MAX: Duration = Duration::from_secs(30);
/// Pause between two prunings.
const PRUNE_EVERY: Duration = Duration::from_millis(500);
const MEASURE_EVERY: Duration = Duration::from_millis(50);
const ENTRY_OPS: usize = 1000;
