//! `bench gossip`: from a put on one node to its event on another.

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use lattice::{
    net::{Net, NetConfig},
    node::Node,
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
        watch::listen,
    },
    exit::Failure,
};

/// From a put to its event on another node, through gossip, with three nodes in one process
#[derive(Debug, Args)]
pub(super) struct Gossip {
    #[command(flatten)]
    setup: Setup,
    /// Puts a second
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pace: u32,
}

impl Gossip {
    /// Returns the flags that all benches have.
    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Runs the case.
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
        // The swarm settles.
        tokio::time::sleep(SETTLE).await;

        let mut disk = Fdatasync::new(scratch)?;
        let pause = Duration::from_secs(1) / self.pace;
        let mut keys = Keys::new(0, None);
        let mut events = Samples::default();
        let base = Instant::now();
        for _turn in 0..TURNS {
            disk.turn(self.setup.turn() / 4)?;
            disk.paced_turn(self.setup.turn() / 4, pause)?;
            let watch = watcher.0.root().watch_with(WatchOptions {
                prefixes: vec![Bytes::from_static(PREFIX.as_bytes())],
                start: Start::Now,
                ..WatchOptions::default()
            });
            let heard = tokio::spawn(listen(watch, base));
            self.puts(&writer.0, &mut keys, pause, base).await?;
            let heard = heard.await;
            events.then(heard.map_err(|panic| failed("the watcher died", &panic))??);
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
        report.times("fdatasync, the faster", &disk)?;
        report.times("fdatasync at the same pace", &paced)?;
        report.against(
            "put to event there, above an fdatasync at that pace, p50",
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
        let store = node.root();
        let mut done = false;
        while !done && let Some(key) = keys.next() {
            ticks.tick().await;
            done = start.elapsed() >= self.setup.turn();
            let nanos = u64::try_from(base.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let mut value = nanos.to_le_bytes().to_vec();
            value.resize(self.setup.value.max(value.len()), 0);
            // The last one says so: it is empty.
            let value = if done { Vec::new() } else { value };
            let written = store.put(key, value).await;
            written.map_err(|error| failed("a put failed", &error))?;
        }
        Ok(())
    }
}

async fn start(scratch: &Scratch) -> Result<(Node, Net), Failure> {
    let node = scratch::open(&scratch.place()).await?;
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
    let invitation = invitation.map_err(|error| failed("no invitation", &error))?;
    let (events, _told) = mpsc::channel(64);
    let joined = net.join(&invitation, &events).await;
    joined.map_err(|error| failed("a node did not join", &error))?;
    Ok(())
}

const SETTLE: Duration = Duration::from_secs(1);
const ABOVE_US: f64 = 1000.0;
