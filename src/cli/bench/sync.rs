//! `bench sync`: a first sync between two daemons, and what it costs those who go on working.

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use clap::Args;
use lattice::{api::client::Client, wire::api};
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

/// A first sync between two daemons on this machine, with its memory, and puts meanwhile
#[derive(Debug, Args)]
pub(super) struct Sync {
    #[command(flatten)]
    setup: Setup,
    /// Entries to sync
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    entries: usize,
}

impl Sync {
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
        let entries = self.entries;
        report.case(format!("{entries} entries of {} B", self.setup.value))?;
        let keys = Keys::new(0, None).take(entries);
        let redb = redb_rows(scratch, keys, self.setup.value)?;
        report.figure("redb alone", redb, "rows/s")?;
        let (from, to) = (scratch.place(), scratch.place());
        let node = scratch::open(&from).await?;
        fill(&node.root(), entries, 1, self.setup.value).await?;
        scratch::close(node).await?;

        let daemon = Daemon::start(&from).await?;
        let mut client = daemon.connect().await?;
        let calm = self.calm(&daemon).await?;
        let idle = resident_of(daemon.pid());
        let request = api::InviteRequest {
            role: "writer".to_owned(),
            valid_ms: 600_000,
        };
        let token = client.invite(request).await?.into_inner().token;
        let stop = CancellationToken::new();
        let meanwhile = tokio::spawn(puts(daemon.connect().await?, stop.clone()));
        let joiner = to.clone();
        let joining = tokio::task::spawn_blocking(move || join(&joiner, &token));
        let joined = joining.await;
        let joined = joined.map_err(|panic| failed("the joiner died", &panic))??;
        stop.cancel();
        let during = meanwhile.await;
        let during = during.map_err(|panic| failed("the caller died", &panic))??;
        report.figure("first sync", rate(joined.entries, joined.took), "entries/s")?;
        let goal = (redb * REDB_RATIO).min(ENTRIES_GOAL);
        report.against(
            "first sync to its goal",
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
        compare(report, "sender", calm, during)?;
        daemon.stop().await?;
        self.at_the_receiver(&from, &to, report).await
    }

    // What puts take when nothing else is done.
    async fn calm(&self, daemon: &Daemon) -> Result<Samples, Failure> {
        let stop = CancellationToken::new();
        let calm = tokio::spawn(puts(daemon.connect().await?, stop.clone()));
        tokio::time::sleep(CALM).await;
        stop.cancel();
        calm.await
            .map_err(|panic| failed("the caller died", &panic))?
    }

    // A node that was away and gets as much again, and whoever puts there meanwhile.
    async fn at_the_receiver(
        &self,
        from: &Path,
        to: &Path,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        let entries = self.entries;
        report.case(format!("{entries} entries more, for a node that was away"))?;
        let node = scratch::open(from).await?;
        fill(&node.root(), entries, 1, self.setup.value).await?;
        scratch::close(node).await?;
        let (sender, receiver) = (Daemon::start(from).await?, Daemon::start(to).await?);
        let (mut there, mut here) = (sender.connect().await?, receiver.connect().await?);
        let ahead = there.status(api::StatusRequest {}).await?.into_inner();
        let peers = there.list_peers(api::ListPeersRequest {}).await?;
        let address = peers.into_inner().addresses.into_iter().next();
        let request = api::DialRequest {
            node: ahead.node.clone(),
            address: address.unwrap_or_default(),
        };
        let came = entries_of(&mut here).await?;
        here.dial(request).await?;
        // Until they come it is calm.
        until_entries(&mut here, came + 1).await?;
        let stop = CancellationToken::new();
        let meanwhile = tokio::spawn(puts(receiver.connect().await?, stop.clone()));
        let (began, before) = (Instant::now(), entries_of(&mut here).await?);
        let goal = ahead.stores.iter().map(|store| store.entries).max();
        let goal = goal.unwrap_or_default();
        until_entries(&mut here, goal).await?;
        let took = began.elapsed();
        stop.cancel();
        let during = meanwhile.await;
        let during = during.map_err(|panic| failed("the caller died", &panic))??;
        // What it has to write still is no calm.
        tokio::time::sleep(CATCH_UP_REST).await;
        let calm = self.calm(&receiver).await?;
        let came = usize::try_from(goal.saturating_sub(before)).unwrap_or(usize::MAX);
        report.figure("caught up", rate(came, took), "entries/s")?;
        compare(report, "receiver", calm, during)?;
        receiver.stop().await?;
        sender.stop().await
    }
}

// What a put takes on one side of a sync, to what it takes when nothing else is done.
fn compare(
    report: &mut Report<'_>,
    side: &str,
    mut calm: Samples,
    mut during: Samples,
) -> Result<(), Failure> {
    calm.sort();
    during.sort();
    report.times(&format!("put at the {side}, calm"), &calm)?;
    report.times(&format!("put at the {side}, meanwhile"), &during)?;
    report.against(
        "meanwhile to calm, p99",
        during.micros(990) / calm.micros(990),
        "",
        Goal::AtMost(PUT_RATIO),
    )
}

// Waits until there are as many.
async fn until_entries(client: &mut Client, goal: u64) -> Result<(), Failure> {
    let began = Instant::now();
    while entries_of(client).await? < goal {
        if began.elapsed() > CATCH_UP_WAIT {
            let what = "the receiver does not catch up";
            return Err(Failure::failed("bench", what));
        }
        tokio::time::sleep(CATCH_UP_LOOK).await;
    }
    Ok(())
}

// Of its largest store.
async fn entries_of(client: &mut Client) -> Result<u64, Failure> {
    let status = client.status(api::StatusRequest {}).await?.into_inner();
    let entries = status.stores.iter().map(|store| store.entries);
    Ok(entries.max().unwrap_or_default())
}

struct Joined {
    entries: usize,
    took: Duration,
    // Bytes at most, above those when it was let in.
    resident: u64,
}

// In a process of its own, as a person would; times what lies between `accepted` and `synced`.
fn join(dir: &Path, token: &str) -> Result<Joined, Failure> {
    let program =
        env::current_exe().map_err(|error| failed("cannot find the program that runs", &error))?;
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
        let line = line.map_err(|error| failed("the node fell silent", &error))?;
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
    status.map_err(|error| failed("the node did not end", &error))?;
    match (done, took) {
        (Some(entries), Some(took)) => Ok(Joined {
            entries: usize::try_from(entries).unwrap_or(usize::MAX),
            took,
            resident: resident.saturating_sub(idle),
        }),
        _unfinished => Err(Failure::failed("bench", "the join did not come to its end")),
    }
}

// One caller, a hundred puts a second, until it is told to stop.
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

const REDB_RATIO: f64 = 0.7;
// A thousand puts: of a hundred, the worst would be the p99.
const CALM: Duration = Duration::from_secs(10);
const CATCH_UP_WAIT: Duration = Duration::from_secs(300);
const CATCH_UP_LOOK: Duration = Duration::from_millis(50);
const CATCH_UP_REST: Duration = Duration::from_secs(3);
const ENTRIES_GOAL: f64 = 100_000.0;
const MEMORY_MIB: f64 = 256.0;
const PUT_RATIO: f64 = 3.0;
