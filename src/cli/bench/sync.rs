//! `bench sync`: measures a first sync between two daemons, and puts during a sync.

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use clap::Args;
use lattice::{
    api::{client::Client, whole},
    wire::api,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::cli::{
    bench::{
        baseline::redb_rows,
        error::failed,
        load::Keys,
        memory::{mebibytes, resident_of},
        open::fill,
        report::{Goal, Report},
        samples::{Samples, rate},
        scratch::{self, Daemon, Scratch},
        setup::Setup,
    },
    exit::Failure,
};

/// First sync between two daemons on this machine, with its memory, and puts during it
#[derive(Debug, Args)]
pub(super) struct Sync {
    #[command(flatten)]
    setup: Setup,
    /// Entries to sync
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    entries: usize,
}

impl Sync {
    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    pub(super) async fn run(
        self,
        scratch: &Scratch,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        let entries = self.entries;
        report.case(format!("{entries} entries of {} B", self.setup.value))?;
        let keys = Keys::new(0, None).take(entries);
        let redb = redb_rows(scratch, keys, self.setup.value)?;
        report.figure("redb alone", redb, "rows/s")?;
        let (from, to) = (scratch.new_path(), scratch.new_path());
        let node = scratch::open(&from).await?;
        fill(&node.data(), entries, 1, self.setup.value).await?;
        scratch::close(node).await?;

        let daemon = Daemon::start(&from).await?;
        let mut client = daemon.connect().await?;
        let before = self.puts_without_sync(&daemon).await?;
        let idle = resident_of(daemon.pid());
        let request = api::InviteRequest {
            role: "writer".to_owned(),
            valid_ms: 600_000,
        };
        let token = client.invite(request).await?.into_inner().token;
        let stop = CancellationToken::new();
        let during = tokio::spawn(puts(daemon.connect().await?, stop.clone()));
        let joiner = to.clone();
        let joining = tokio::task::spawn_blocking(move || join(&joiner, &token));
        let joined = joining.await;
        let joined = joined.map_err(|panic| failed("the joining node panicked", &panic))??;
        stop.cancel();
        let during = during.await;
        let during = during.map_err(|panic| failed("the caller panicked", &panic))??;
        report.figure("first sync", rate(joined.entries, joined.took), "entries/s")?;
        let goal = (redb * REDB_RATIO).min(ENTRIES_GOAL);
        report.against(
            "first sync to goal",
            rate(joined.entries, joined.took) / goal,
            "",
            Goal::AtLeast(1.0),
        )?;
        let sender = resident_of(daemon.pid()).1.saturating_sub(idle.0);
        report.against(
            "sender, above idle",
            mebibytes(sender),
            "MiB",
            Goal::AtMost(MEMORY_MIB),
        )?;
        report.against(
            "receiver, above idle",
            mebibytes(joined.resident),
            "MiB",
            Goal::AtMost(MEMORY_MIB),
        )?;
        compare(report, "sender", before, during)?;
        daemon.stop().await?;
        self.receiver(&from, &to, report).await
    }

    // Measures puts without a sync.
    async fn puts_without_sync(&self, daemon: &Daemon) -> Result<Samples, Failure> {
        let stop = CancellationToken::new();
        let samples = tokio::spawn(puts(daemon.connect().await?, stop.clone()));
        tokio::time::sleep(NO_SYNC).await;
        stop.cancel();
        samples
            .await
            .map_err(|panic| failed("the caller panicked", &panic))?
    }

    // Measures a node that was offline and catches up on as many entries again, and measures puts
    // on this node.
    async fn receiver(
        &self,
        from: &Path,
        to: &Path,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        let entries = self.entries;
        report.case(format!(
            "{entries} more entries, for a node that was offline"
        ))?;
        let node = scratch::open(from).await?;
        fill(&node.data(), entries, 1, self.setup.value).await?;
        scratch::close(node).await?;
        let (sender, receiver) = (Daemon::start(from).await?, Daemon::start(to).await?);
        let (mut there, mut here) = (sender.connect().await?, receiver.connect().await?);
        let ahead = whole::status(&mut there).await?;
        let peers = whole::peers(&mut there).await?;
        let address = peers.addresses.into_iter().next();
        let request = api::DialRequest {
            node: ahead.node.clone(),
            address: address.unwrap_or_default(),
        };
        let stored = entries_of(&mut here).await?;
        here.dial(request).await?;
        // The measurement begins with the first entry of the sync.
        until_entries(&mut here, stored + 1).await?;
        let stop = CancellationToken::new();
        let during = tokio::spawn(puts(receiver.connect().await?, stop.clone()));
        let (began, before) = (Instant::now(), entries_of(&mut here).await?);
        let goal = ahead.stores.iter().map(|store| store.entries).max();
        let goal = goal.unwrap_or_default();
        until_entries(&mut here, goal).await?;
        let took = began.elapsed();
        stop.cancel();
        let during = during.await;
        let during = during.map_err(|panic| failed("the caller panicked", &panic))??;
        // Lets the node write the rest of the sync to disk first.
        tokio::time::sleep(CATCH_UP_REST).await;
        let after = self.puts_without_sync(&receiver).await?;
        let received = usize::try_from(goal.saturating_sub(before)).unwrap_or(usize::MAX);
        report.figure("catching up", rate(received, took), "entries/s")?;
        compare(report, "receiver", after, during)?;
        receiver.stop().await?;
        sender.stop().await
    }
}

// Prints the time of puts on one side during a sync, divided by the time without a sync.
fn compare(
    report: &mut Report<'_>,
    side: &str,
    mut without: Samples,
    mut during: Samples,
) -> Result<(), Failure> {
    without.sort();
    during.sort();
    report.times(&format!("put at the {side}, no sync"), &without)?;
    report.times(&format!("put at the {side}, during sync"), &during)?;
    report.against(
        "during sync to no sync, p99",
        during.micros(990) / without.micros(990),
        "",
        Goal::AtMost(PUT_RATIO),
    )
}

// Waits until the node has `goal` entries.
async fn until_entries(client: &mut Client, goal: u64) -> Result<(), Failure> {
    let began = Instant::now();
    while entries_of(client).await? < goal {
        if began.elapsed() > CATCH_UP_WAIT {
            let what = format!("the receiver did not catch up within {CATCH_UP_WAIT:?}");
            return Err(Failure::failed("bench", what));
        }
        tokio::time::sleep(CATCH_UP_INTERVAL).await;
    }
    Ok(())
}

// Returns the number of entries in the largest store of the node.
async fn entries_of(client: &mut Client) -> Result<u64, Failure> {
    let status = whole::status(client).await?;
    let entries = status.stores.iter().map(|store| store.entries);
    Ok(entries.max().unwrap_or_default())
}

/// The result of `join`.
pub(super) struct Joined {
    entries: usize,
    /// Time from `accepted` to `synced`.
    pub(super) took: Duration,
    // Largest number of resident bytes minus the number at `accepted`.
    resident: u64,
}

/// Joins in another process, with the command that a person would type.
pub(super) fn join(dir: &Path, token: &str) -> Result<Joined, Failure> {
    let program =
        env::current_exe().map_err(|error| failed("cannot find this program's file", &error))?;
    let mut child = Command::new(program)
        .arg("--data-dir")
        .arg(dir)
        .args([
            "--json",
            "join",
            token,
            "--no-mdns",
            "--bind",
            "127.0.0.1:0",
        ])
        .env_remove("LATTICE_STORE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed("cannot start a node", &error))?;
    let pid = child.id();
    let stdout = child.stdout.take();
    let stdout = stdout.ok_or_else(|| Failure::failed("bench", "the node has no stdout"))?;
    let (mut accepted, mut done, mut took) = (None, None, None);
    let (mut idle, mut resident) = (0, 0);
    for line in BufReader::new(stdout).lines() {
        let line = line.map_err(|error| failed("cannot read the node's stdout", &error))?;
        resident = resident.max(resident_of(pid).1);
        let step: Value = serde_json::from_str(&line).unwrap_or_default();
        match step["type"].as_str() {
            Some("accepted") => {
                accepted = Some(Instant::now());
                idle = resident_of(pid).0;
            }
            Some("synced") => done = step["entries"].as_u64(),
            _other => {}
        }
        if done.is_some() {
            took = accepted.map(|accepted: Instant| accepted.elapsed());
        }
    }
    let status = child.wait();
    status.map_err(|error| failed("cannot wait for the node", &error))?;
    match (done, took) {
        (Some(entries), Some(took)) => Ok(Joined {
            entries: usize::try_from(entries).unwrap_or(usize::MAX),
            took,
            resident: resident.saturating_sub(idle),
        }),
        _unfinished => Err(Failure::failed(
            "bench",
            "the join ended before it was synced",
        )),
    }
}

// One caller with a hundred puts per second, until `stop`.
async fn puts(mut client: Client, stop: CancellationToken) -> Result<Samples, Failure> {
    let start = Instant::now();
    let mut samples = Samples::default();
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    while !stop.is_cancelled() {
        ticks.tick().await;
        let called = Instant::now();
        let request = api::PutRequest {
            key: format!("/meanwhile/{}", samples.count()).into(),
            value: vec![0; 128].into(),
            ..api::PutRequest::default()
        };
        client.put(request).await?;
        samples.push(called.elapsed());
    }
    samples.span = start.elapsed();
    Ok(samples)
}

/// Goal: entries per second of a sync, divided by rows per second of redb alone; at most
/// `ENTRIES_GOAL`.
const REDB_RATIO: f64 = 0.7;
/// Time to measure a thousand puts: with a hundred, the p99 would be the slowest put.
const NO_SYNC: Duration = Duration::from_secs(10);
/// Longest wait for the receiver to catch up.
const CATCH_UP_WAIT: Duration = Duration::from_secs(300);
/// Time between two checks of the receiver's entries.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(50);
/// Time for the receiver to finish writing after it caught up.
const CATCH_UP_REST: Duration = Duration::from_secs(3);
/// Goal: entries per second of a sync.
const ENTRIES_GOAL: f64 = 100_000.0;
/// Goal: memory of each side, above idle.
const MEMORY_MIB: f64 = 256.0;
/// Goal: p99 of a put during a sync, divided by the p99 without a sync.
const PUT_RATIO: f64 = 3.0;
