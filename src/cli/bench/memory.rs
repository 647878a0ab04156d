//! `bench memory`: measures the memory of a node with a watcher that does not read.

use std::{fs, time::Duration};

use clap::Args;
use lattice::store::WatchEvent;
use tokio_stream::StreamExt as _;

use crate::cli::{
    bench::{
        error::failed,
        load::{Callers, PREFIX, value},
        report::Report,
        samples::Samples,
        scratch::{self, Scratch},
        setup::{Setup, TURNS},
    },
    exit::Failure,
};

/// Memory while a watcher does not read and puts continue
#[derive(Debug, Args)]
pub(super) struct Memory {
    #[command(flatten)]
    setup: Setup,
    /// Callers that write at a time
    #[arg(long, value_name = "N", default_value_t = 256)]
    clients: usize,
    /// Number of keys, of which each put takes a random one
    #[arg(long, value_name = "KEYS", default_value_t = 10_000)]
    random: u64,
}

impl Memory {
    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    pub(super) async fn run(
        self,
        scratch: &Scratch,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        report.case(format!(
            "one watcher that does not read, {} callers",
            self.clients
        ))?;
        let node = scratch::open(&scratch.new_path()).await?;
        let store = node.data();
        let mut callers = Callers::new(self.clients, Some(self.random), value(self.setup.value));
        // Fills the caches before the measurement.
        callers.turn(&store, self.setup.turn()).await?;
        let mut watch = store.watch(PREFIX);
        let first = watch.next().await;
        drop(first);
        let mut puts = Samples::default();
        let mut resident = vec![resident_bytes()];
        for _turn in 0..TURNS {
            puts.append(callers.turn(&store, self.setup.turn()).await?);
            resident.push(resident_bytes());
        }
        let before = store.frontier();
        let mut changes = 0_u64;
        let most = resident.iter().copied().max().unwrap_or(0);
        // The watcher now reads, and must reach the frontier of the last put.
        while watch.cursor().frontier != before {
            let event = tokio::time::timeout(READ_WAIT, watch.next()).await;
            match event.map_err(|error| failed("the watch has stopped", &error))? {
                Some(Ok(WatchEvent::Change(_))) => changes += 1,
                Some(Ok(_other)) => {}
                Some(Err(error)) => return Err(failed("the watch failed", &error)),
                None => return Err(Failure::failed("bench", "the watch ended")),
            }
        }
        drop(watch);
        scratch::close(node).await?;
        report.figure("durable puts", puts.rate(), "/s")?;
        report.figure("puts while it did not read", puts.count() as f64, "")?;
        report.figure("changes once it read", changes as f64, "")?;
        report.figure("resident before", mebibytes(resident[0]), "MiB")?;
        report.figure("resident, most", mebibytes(most), "MiB")?;
        report.figure("resident after", mebibytes(resident_bytes()), "MiB")
    }
}

/// Returns the resident bytes of this process; 0 if the system does not report them.
pub(super) fn resident_bytes() -> u64 {
    resident_of(std::process::id()).0
}

/// Returns the current and the largest number of resident bytes of a process; 0 if the system does
/// not report them.
pub(super) fn resident_of(pid: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kibibytes = line.and_then(|size| size.trim().strip_suffix(" kB"));
        kibibytes
            .and_then(|size| size.parse().ok())
            .map_or(0, |size: u64| size << 10)
    };
    (bytes("VmRSS:"), bytes("VmHWM:"))
}

/// Converts bytes to MiB.
pub(super) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Longest wait for an event once the watcher reads.
const READ_WAIT: Duration = Duration::from_secs(30);
