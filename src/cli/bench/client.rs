//! `bench client`: measures puts through the thin client, beside Redis.

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use lattice::client::Store;
use tokio::task::JoinSet;

use crate::cli::{
    bench::{
        baseline::Fdatasync,
        error::failed,
        load::{Keys, value},
        redis::Redis,
        report::{Goal, Report},
        samples::Samples,
        scratch::{Daemon, Scratch},
        setup::{Setup, TURNS},
    },
    exit::Failure,
};

/// Durable puts through the thin client, beside Redis with `appendfsync always` if it is installed
#[derive(Debug, Args)]
pub(super) struct Client {
    #[command(flatten)]
    setup: Setup,
    /// Callers at the same time, a case for each number
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 256], value_parser = clap::value_parser!(u16).range(1..=4096))]
    clients: Vec<u16>,
}

impl Client {
    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    pub(super) async fn run(
        self,
        scratch: &Scratch,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        for clients in self.clients.iter().copied().map(usize::from) {
            report.case(match clients {
                1 => "1 caller through the client".to_owned(),
                several => format!("{several} callers through the client"),
            })?;
            self.case(clients, scratch, report).await?;
        }
        Ok(())
    }

    async fn case(
        &self,
        clients: usize,
        scratch: &Scratch,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        let daemon = Daemon::start(&scratch.new_path()).await?;
        let redis = Redis::start(scratch).await?;
        let client = daemon.thin().await?;
        let store = client.data();
        let value = value(self.setup.value);
        let callers = || (0..clients).map(|caller| Keys::new(caller, None)).collect();
        let (mut ours, mut theirs): (Vec<Keys>, Vec<Keys>) = (callers(), callers());
        let mut disk = Fdatasync::new(scratch)?;
        let (mut puts, mut sets) = (Samples::default(), Samples::default());
        for _turn in 0..TURNS {
            disk.turn(self.setup.turn() / 4)?;
            puts.append(turn(&store, &mut ours, &value, self.setup.turn()).await?);
            if let Some(redis) = &redis {
                sets.append(redis.turn(&mut theirs, &value, self.setup.turn()).await?);
            }
        }
        drop((store, client));
        daemon.stop().await?;
        puts.sort();
        sets.sort();
        report.figure("durable puts", puts.rate(), "/s")?;
        report.times("time of a put", &puts)?;
        disk.report(report)?;
        let Some(redis) = redis else {
            report.notice(
                "no_redis",
                "redis-server is not installed: nothing to compare with",
            );
            return Ok(());
        };
        let what = format!("Redis {}, appendfsync always", redis.version());
        report.figure(&what, sets.rate(), "/s")?;
        report.times("time of a SET", &sets)?;
        let least = match clients {
            1 => ONE_CALLER_RATIO,
            _several => SEVERAL_CALLERS_RATIO,
        };
        let ratio = puts.rate() / sets.rate();
        report.against("puts to SETs", ratio, "", Goal::AtLeast(least))
    }
}

async fn turn(
    store: &Store,
    callers: &mut Vec<Keys>,
    value: &Bytes,
    time: Duration,
) -> Result<Samples, Failure> {
    let until = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for keys in callers.drain(..) {
        tasks.spawn(call(store.clone(), keys, value.clone(), until));
    }
    let mut all = Samples::default();
    while let Some(done) = tasks.join_next().await {
        let (keys, samples) = done.map_err(|panic| failed("a caller panicked", &panic))??;
        callers.push(keys);
        all.merge(samples);
    }
    Ok(all)
}

async fn call(
    store: Store,
    mut keys: Keys,
    value: Bytes,
    until: Instant,
) -> Result<(Keys, Samples), Failure> {
    let mut samples = Samples::default();
    let start = Instant::now();
    let mut before = start;
    while before < until
        && let Some(key) = keys.next()
    {
        store.put(key, value.clone()).await?;
        let now = Instant::now();
        samples.push(now - before);
        before = now;
    }
    samples.span = before - start;
    Ok((keys, samples))
}

/// Goal for one caller: puts to the SETs of Redis, in the same run.
const ONE_CALLER_RATIO: f64 = 1.0;
/// The same for 256 callers.
const SEVERAL_CALLERS_RATIO: f64 = 1.5;
