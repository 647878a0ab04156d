//! `bench watch`: measures the time from a put to its event on the same node.

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use lattice::store::{self, Start, Store, WatchEvent, WatchOptions};
use tokio_stream::StreamExt as _;

use crate::cli::{
    bench::{
        baseline::Fdatasync,
        error::failed,
        load::{Keys, PREFIX},
        report::{Goal, Report},
        samples::Samples,
        scratch::{self, Scratch},
        setup::{Setup, TURNS},
    },
    exit::Failure,
};

/// Time from a put to its event on the same node
#[derive(Debug, Args)]
pub(super) struct Watch {
    #[command(flatten)]
    setup: Setup,
    /// Puts per second in the first case
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pace: u32,
}

impl Watch {
    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    pub(super) async fn run(
        self,
        scratch: &Scratch,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        report.case(format!("one caller, {} puts/s", self.pace))?;
        let pace = Some(Duration::from_secs(1) / self.pace);
        self.case(pace, scratch, report).await?;
        report.case("one caller, flat out")?;
        self.case(None, scratch, report).await
    }

    async fn case(
        &self,
        pace: Option<Duration>,
        scratch: &Scratch,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        let node = scratch::open(&scratch.new_path()).await?;
        let store = node.data();
        let mut disk = Fdatasync::new(scratch)?;
        let mut keys = Keys::new(0, None);
        let mut events = Samples::default();
        let base = Instant::now();
        for _turn in 0..TURNS {
            disk.turn(self.setup.turn() / 4)?;
            if let Some(pause) = pace {
                disk.paced_turn(self.setup.turn() / 4, pause)?;
            }
            // Subscribes before the first put, so that no event is missed.
            let watch = store.watch_with(WatchOptions {
                prefixes: vec![Bytes::from_static(PREFIX.as_bytes())],
                start: Start::Now,
                ..WatchOptions::default()
            });
            let watcher = tokio::spawn(event_times(watch, base));
            let count = self.puts(&store, &mut keys, pace, base).await?;
            // An empty value marks the last put.
            let last = keys.next().unwrap_or_default();
            put(&store, last, Bytes::new()).await?;
            let seen = watcher.await;
            let seen = seen.map_err(|panic| failed("the watcher panicked", &panic))??;
            if seen.count() != count {
                return Err(Failure::failed(
                    "bench",
                    format!("{count} puts made {} events", seen.count()),
                ));
            }
            events.append(seen);
        }
        scratch::close(node).await?;
        events.sort();
        report.figure("events", events.rate(), "/s")?;
        report.times("put to event", &events)?;
        let paced = disk.take_paced();
        let disk = disk.report(report)?;
        report.times("faster fdatasync", &disk)?;
        if paced.count() > 0 {
            report.times("fdatasync at the same pace", &paced)?;
            report.figure(
                "put to event, to that fdatasync, p50",
                events.micros(500) / paced.micros(500),
                "",
            )?;
        }
        report.against(
            "put to event, to fdatasync, p50",
            events.micros(500) / disk.micros(500),
            "",
            Goal::AtMost(EVENT_RATIO),
        )
    }

    async fn puts(
        &self,
        store: &Store,
        keys: &mut Keys,
        pace: Option<Duration>,
        base: Instant,
    ) -> Result<usize, Failure> {
        let start = Instant::now();
        let mut count = 0;
        let mut ticks = pace.map(tokio::time::interval);
        while start.elapsed() < self.setup.turn()
            && let Some(key) = keys.next()
        {
            if let Some(ticks) = &mut ticks {
                ticks.tick().await;
            }
            let nanos = u64::try_from(base.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let mut value = nanos.to_le_bytes().to_vec();
            value.resize(self.setup.value.max(value.len()), 0);
            put(store, key, value.into()).await?;
            count += 1;
        }
        Ok(count)
    }
}

async fn put(store: &Store, key: Bytes, value: Bytes) -> Result<(), Failure> {
    let written = store.put(key, value).await;
    written.map_err(|error| failed("a put failed", &error))?;
    Ok(())
}

/// Measures the time from the call of each put to its event, until an event with an empty value.
///
/// A value begins with the time of the call: nanoseconds since `base`, little-endian.
pub(super) async fn event_times(
    mut watch: store::Watch,
    base: Instant,
) -> Result<Samples, Failure> {
    let start = Instant::now();
    let mut samples = Samples::default();
    while let Some(event) = watch.next().await {
        let event = event.map_err(|error| failed("the watch failed", &error))?;
        let WatchEvent::Change(change) = event else {
            continue;
        };
        let value = change.value.as_deref().unwrap_or_default();
        let Some(nanos) = value.first_chunk::<8>() else {
            break;
        };
        let called = Duration::from_nanos(u64::from_le_bytes(*nanos));
        samples.push(base.elapsed().saturating_sub(called));
    }
    samples.span = start.elapsed();
    Ok(samples)
}

/// Goal: time from put to event, divided by the time of an fdatasync.
const EVENT_RATIO: f64 = 1.5;
