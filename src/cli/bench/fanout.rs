//! `bench fanout`: measures many watchers, busy and idle ones.

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use lattice::store::{Start, Store, WatchEvent, WatchOptions};
use tokio::{
    sync::{oneshot, watch as signal},
    task::JoinSet,
};
use tokio_stream::StreamExt as _;

use crate::cli::{
    bench::{
        error::failed,
        load::{Callers, PREFIX, value},
        memory::resident_bytes,
        report::{Goal, Report},
        samples::{Samples, rate},
        scratch::{self, Scratch},
        setup::Setup,
    },
    exit::Failure,
};

/// Deliveries to many watchers of one prefix, and the cost of idle watchers
#[derive(Debug, Args)]
pub(super) struct Fanout {
    #[command(flatten)]
    setup: Setup,
    /// Watchers of the prefix that is written; 0 skips the case
    #[arg(long, value_name = "N", default_value_t = 450)]
    watchers: usize,
    /// Watchers of other prefixes, which are not written; 0 skips the case
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    idle: usize,
    /// Prefixes that the idle watchers share
    #[arg(long, value_name = "N", default_value_t = 100)]
    prefixes: usize,
    /// Callers that write at the same time
    #[arg(long, value_name = "N", default_value_t = 256)]
    clients: usize,
}

impl Fanout {
    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    pub(super) async fn run(
        self,
        scratch: &Scratch,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        // Idle watchers are measured first: after the other case, they would reuse its freed
        // memory, and the memory that they need would not be seen.
        if self.idle > 0 {
            report.case(format!(
                "{} idle watchers of {} other prefixes, {} callers",
                self.idle, self.prefixes, self.clients
            ))?;
            self.idle(scratch, report).await?;
        }
        if self.watchers > 0 {
            report.case(format!(
                "{} watchers of one prefix, {} callers, flat out",
                self.watchers, self.clients
            ))?;
            self.busy(scratch, report).await?;
        }
        Ok(())
    }

    async fn busy(&self, scratch: &Scratch, report: &mut Report<'_>) -> Result<(), Failure> {
        let node = scratch::open(&scratch.new_path()).await?;
        let store = node.data();
        // Sends the number of puts once all puts are finished; kept open until all watchers have
        // ended.
        let (count_sender, count) = signal::channel(None);
        let mut watchers = JoinSet::new();
        let mut ready = Vec::new();
        for _watcher in 0..self.watchers {
            let (ready_sender, is_ready) = oneshot::channel();
            watchers.spawn(take_all(store.clone(), ready_sender, count.clone()));
            ready.push(is_ready);
        }
        for is_ready in ready {
            drop(is_ready.await);
        }
        let start = Instant::now();
        let time = Duration::from_secs_f64(self.setup.secs);
        let mut callers = Callers::new(self.clients, None, value(self.setup.value));
        let puts = callers.turn(&store, time).await?;
        count_sender.send_replace(Some(puts.count()));
        let mut deliveries = 0;
        while let Some(taken) = watchers.join_next().await {
            deliveries += taken.map_err(|panic| failed("a watcher panicked", &panic))??;
        }
        let span = start.elapsed();
        scratch::close(node).await?;
        report.figure("durable puts", puts.rate(), "/s")?;
        report.figure("deliveries", deliveries as f64, "")?;
        report.figure(
            "last put until all watchers had it",
            (span - puts.span).as_secs_f64(),
            "s",
        )?;
        let per_second = rate(deliveries, span);
        let goal = Goal::AtLeast(DELIVERIES_RATE);
        match self.watchers {
            450 => report.against("deliveries", per_second, "/s", goal),
            _other => report.figure("deliveries", per_second, "/s"),
        }
    }

    async fn idle(&self, scratch: &Scratch, report: &mut Report<'_>) -> Result<(), Failure> {
        let node = scratch::open(&scratch.new_path()).await?;
        let store = node.data();
        let mut callers = Callers::new(self.clients, Some(RANDOM_KEYS), value(self.setup.value));
        let turn = self.setup.turn() / 2;
        // Warms up: memory reaches its size without watchers, and the reading threads are started.
        callers.turn(&store, turn * 2).await?;
        self.spawn_idle(&store, self.idle.min(WARM_UP))
            .await
            .shutdown()
            .await;
        let (mut without, mut with) = (Samples::default(), Samples::default());
        let mut bytes = None;
        for _pair in 0..PAIRS {
            without.append(callers.turn(&store, turn).await?);
            let before = resident_bytes();
            let mut idle = self.spawn_idle(&store, self.idle).await;
            let taken = resident_bytes().saturating_sub(before);
            // Only the first value counts: later watchers reuse the freed memory.
            bytes.get_or_insert(taken);
            with.append(callers.turn(&store, turn).await?);
            idle.shutdown().await;
        }
        scratch::close(node).await?;
        report.figure("durable puts without watchers", without.rate(), "/s")?;
        report.figure("durable puts with watchers", with.rate(), "/s")?;
        report.against(
            "cost of the watchers for a put",
            (without.rate() / with.rate() - 1.0) * 100.0,
            "%",
            Goal::AtMost(IDLE_COST_PERCENT),
        )?;
        report.against(
            "memory of a watcher and its task",
            bytes.unwrap_or(0) as f64 / self.idle as f64,
            "B",
            Goal::AtMost(IDLE_BYTES),
        )
    }

    // Starts `count` watchers and returns once they have caught up.
    async fn spawn_idle(&self, store: &Store, count: usize) -> JoinSet<()> {
        let mut idle = JoinSet::new();
        let mut ready = Vec::with_capacity(READY_AT_ONCE);
        for number in 0..count {
            let prefix = format!("/idle/{:04}/", number % self.prefixes.max(1));
            let mut watch = store.watch(prefix);
            let (ready_sender, is_ready) = oneshot::channel();
            // A block, because an async function would store its argument twice.
            idle.spawn(async move {
                // The first event is `CaughtUp`; all later events are heartbeats.
                drop(watch.next().await);
                ready_sender.send(()).ok();
                while watch.next().await.is_some() {}
            });
            ready.push(is_ready);
            // Each watcher reads the state first, so only a few start at the same time.
            if ready.len() >= READY_AT_ONCE {
                for is_ready in ready.drain(..) {
                    drop(is_ready.await);
                }
            }
        }
        for is_ready in ready {
            drop(is_ready.await);
        }
        idle
    }
}

// Counts changes until their number reaches the number that `count` sends.
async fn take_all(
    store: Store,
    ready: oneshot::Sender<()>,
    mut count: signal::Receiver<Option<usize>>,
) -> Result<usize, Failure> {
    let mut watch = store.watch_with(WatchOptions {
        prefixes: vec![Bytes::from_static(PREFIX.as_bytes())],
        start: Start::Now,
        ..WatchOptions::default()
    });
    drop(store);
    ready.send(()).ok();
    let mut taken = 0;
    let mut all = None;
    while all != Some(taken) {
        tokio::select! {
            biased;
            event = watch.next() => match event {
                Some(Ok(WatchEvent::Change(_))) => taken += 1,
                Some(Ok(WatchEvent::Gap { reason, .. })) => return Err(Failure::failed("bench", reason)),
                Some(Ok(_other)) => {}
                Some(Err(error)) => return Err(failed("a watch failed", &error)),
                None => return Err(Failure::failed("bench", "a watch ended")),
            },
            Ok(()) = count.changed(), if all.is_none() => all = *count.borrow(),
        }
    }
    Ok(taken)
}

/// Goal: deliveries per second to 450 watchers.
const DELIVERIES_RATE: f64 = 1_400_000.0;
/// Goal: slowdown of puts by the idle watchers, in percent.
const IDLE_COST_PERCENT: f64 = 5.0;
/// Goal: memory of an idle watcher.
const IDLE_BYTES: f64 = 1024.0;
/// Measurements with and without idle watchers.
const PAIRS: u32 = 5;
/// Number of random keys: small, because the size of the state is not measured.
const RANDOM_KEYS: u64 = 10_000;
/// Idle watchers that start at the same time.
const READY_AT_ONCE: usize = 16;
/// Idle watchers that are started and stopped before the measurement.
const WARM_UP: usize = 200;
