//! `bench consume`: measures a durable consumer whose changes are acknowledged one by one.

use std::time::{Duration, Instant};

use clap::Args;
use lattice::store::{
    Store,
    consumers::{Consumer, ConsumerError, ConsumerOptions, ConsumerStart},
};

use crate::cli::{
    bench::{
        error::failed,
        load::PREFIX,
        open::fill,
        report::{Goal, Report},
        samples::{Samples, rate},
        scratch::{self, Scratch},
        setup::Setup,
    },
    exit::Failure,
};

/// Changes per second of a durable consumer, and the time until an acknowledgement is durable
#[derive(Debug, Args)]
pub(super) struct Consume {
    #[command(flatten)]
    setup: Setup,
    /// Changes in the log
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    changes: usize,
    /// Tasks that share the consumer in the second case
    #[arg(long, value_name = "N", default_value_t = 4)]
    takers: usize,
}

impl Consume {
    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Runs all cases on one store.
    pub(super) async fn run(
        self,
        scratch: &Scratch,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        let node = scratch::open(&scratch.new_path()).await?;
        let store = node.data();
        // Several puts in each entry, as a busy node writes them.
        fill(&store, self.changes / OPS, OPS, self.setup.value).await?;
        let changes = self.changes / OPS * OPS;
        for takers in [1, self.takers] {
            let name = format!("bench-{takers}");
            report.case(format!(
                "{changes} changes, each acknowledged, takers: {takers}"
            ))?;
            let consumer = create(&store, &name).await?;
            let time = take_all(&consumer, changes, takers).await?;
            report.against(
                "changes acknowledged",
                rate(changes, time),
                "/s",
                Goal::AtLeast(RATE),
            )?;
        }
        report.case("one by one, waiting until each acknowledgement is durable")?;
        let consumer = create(&store, "bench-durable").await?;
        let mut samples = Samples::default();
        let until = Instant::now() + Duration::from_secs_f64(self.setup.secs);
        while Instant::now() < until {
            let delivery = consumer.next().await.map_err(|error| refused(&error))?;
            let began = Instant::now();
            delivery.ack().map_err(|error| refused(&error))?;
            consumer.flush().await.map_err(|error| refused(&error))?;
            samples.push(began.elapsed());
        }
        samples.sort();
        report.figure("durable after, p50", samples.micros(500) / 1e3, "ms")?;
        let late = samples.micros(990) / 1e3;
        report.against("durable after, p99", late, "ms", Goal::AtMost(DURABLE_MS))?;
        drop((consumer, store));
        scratch::close(node).await
    }
}

async fn create(store: &Store, name: &str) -> Result<Consumer, Failure> {
    let consumer = store.consumer(name);
    let options = ConsumerOptions {
        from: ConsumerStart::Beginning,
        prefixes: vec![PREFIX.into()],
        ..ConsumerOptions::default()
    };
    let created = consumer.create(options).await;
    created.map_err(|error| refused(&error))?;
    Ok(consumer)
}

// Returns the time until the last of `changes` was durably acknowledged.
async fn take_all(consumer: &Consumer, changes: usize, takers: usize) -> Result<Duration, Failure> {
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for taker in 0..takers {
        let consumer = consumer.clone();
        let share = changes / takers + usize::from(taker < changes % takers);
        tasks.spawn(async move {
            for _change in 0..share {
                consumer.next().await?.ack()?;
            }
            Ok::<_, ConsumerError>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        let done = done.map_err(|panic| failed("a taker panicked", &panic))?;
        done.map_err(|error| refused(&error))?;
    }
    consumer.flush().await.map_err(|error| refused(&error))?;
    Ok(began.elapsed())
}

fn refused(error: &ConsumerError) -> Failure {
    failed("the consumer failed", error)
}

/// Puts in each entry.
const OPS: usize = 8;
/// Goal: changes per second.
const RATE: f64 = 50_000.0;
/// Goal: time until an acknowledgement is durable, 99th percentile.
const DURABLE_MS: f64 = 100.0;
