//! `bench gossip`: measures the time from a put on one node to its event on another.

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use lattice::{
    net::{Net, NetConfig},
    node::{Node, OwnData},
    protocol::membership::role::Role,
    store::{Start, WatchOptions},
};
use tokio::sync::mpsc;

use crate::cli::{
    bench::{
        baseline::Fdatasync,
        error::failed,
        load::{Keys, PREFIX},
        report::{Goal, Report},
        samples::Samples,
        scratch::{self, Scratch},
        setup::{Setup, TURNS},
        watch::event_times,
    },
    exit::Failure,
};

/// Time from a put to its event on another node, by gossip, with three nodes in one process
#[derive(Debug, Args)]
pub(super) struct Gossip {
    #[command(flatten)]
    setup: Setup,
    /// Puts per second
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pace: u32,
}

impl Gossip {
    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    pub(super) async fn run(
        self,
        scratch: &Scratch,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        report.case(format!("3 nodes, {} puts/s", self.pace))?;
        let writer = start(scratch).await?;
        let watcher = start(scratch).await?;
        let third = start(scratch).await?;
        join(&watcher, &writer).await?;
        join(&third, &writer).await?;
        // Waits until the gossip swarm is stable.
        tokio::time::sleep(SETTLE).await;

        let mut disk = Fdatasync::new(scratch)?;
        let pause = Duration::from_secs(1) / self.pace;
        let mut keys = Keys::new(0, None);
        let mut events = Samples::default();
        let base = Instant::now();
        for _turn in 0..TURNS {
            disk.turn(self.setup.turn() / 4)?;
            disk.paced_turn(self.setup.turn() / 4, pause)?;
            let watch = watcher.0.data().watch_with(WatchOptions {
                prefixes: vec![Bytes::from_static(PREFIX.as_bytes())],
                start: Start::Now,
                ..WatchOptions::default()
            });
            let seen = tokio::spawn(event_times(watch, base));
            self.puts(&writer.0, &mut keys, pause, base).await?;
            let seen = seen.await;
            events.append(seen.map_err(|panic| failed("the watcher panicked", &panic))??);
        }
        for (node, net) in [writer, watcher, third] {
            net.stop().await;
            scratch::close(node).await?;
        }
        events.sort();
        report.figure("events", events.rate(), "/s")?;
        report.times("put to event on another node", &events)?;
        let paced = disk.take_paced();
        let disk = disk.report(report)?;
        report.times("faster fdatasync", &disk)?;
        report.times("fdatasync at the same pace", &paced)?;
        report.against(
            "put to event less fdatasync at that pace, p50",
            events.micros(500) - paced.micros(500),
            "us",
            Goal::AtMost(ABOVE_US),
        )
    }

    async fn puts(
        &self,
        node: &Node,
        keys: &mut Keys,
        pause: Duration,
        base: Instant,
    ) -> Result<(), Failure> {
        let start = Instant::now();
        let mut ticks = tokio::time::interval(pause);
        let store = node.data();
        let mut done = false;
        while !done && let Some(key) = keys.next() {
            ticks.tick().await;
            done = start.elapsed() >= self.setup.turn();
            let nanos = u64::try_from(base.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let mut value = nanos.to_le_bytes().to_vec();
            value.resize(self.setup.value.max(value.len()), 0);
            // An empty value marks the last put.
            let value = if done { Vec::new() } else { value };
            let written = store.put(key, value).await;
            written.map_err(|error| failed("a put failed", &error))?;
        }
        Ok(())
    }
}

async fn start(scratch: &Scratch) -> Result<(Node, Net), Failure> {
    let node = scratch::open(&scratch.new_path()).await?;
    let config = NetConfig {
        bind: Some(([127, 0, 0, 1], 0).into()),
        mdns: false,
        ..NetConfig::default()
    };
    let net = Net::start(node.clone(), config);
    Ok((node, net))
}

async fn join((_, net): &(Node, Net), (_, host): &(Node, Net)) -> Result<(), Failure> {
    let invitation = host.invite(Role::Writer, 600_000).await;
    let invitation = invitation.map_err(|error| failed("cannot invite a node", &error))?;
    // The steps of the join are not needed.
    let (events, _ignored) = mpsc::channel(64);
    let joined = net.join(&invitation, OwnData::Private, &events).await;
    joined.map_err(|error| failed("a node could not join", &error))?;
    Ok(())
}

/// Time for the gossip swarm to become stable.
const SETTLE: Duration = Duration::from_secs(1);
/// Goal, in microseconds: time from put to event minus the time of an fdatasync.
const ABOVE_US: f64 = 1000.0;
