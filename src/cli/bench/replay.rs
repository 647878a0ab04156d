//! `bench replay`: measures watches that read the log from a cursor.

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use lattice::{
    protocol::{
        cursor::Cursor,
        frontier::{Frontier, FrontierTip},
    },
    store::{Start, Store, WatchEvent, WatchOptions},
};
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;

use crate::cli::{
    bench::{
        error::failed,
        load::PREFIX,
        open::fill,
        report::Report,
        samples::rate,
        scratch::{self, Scratch},
        setup::Setup,
    },
    exit::Failure,
};

/// Entries per second of a watch that begins at an old cursor
#[derive(Debug, Args)]
pub(super) struct Replay {
    #[command(flatten)]
    setup: Setup,
    /// Entries in the log
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    entries: usize,
    /// Puts in each entry
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    ops: u16,
    /// Watches that catch up at the same time in the last case
    #[arg(long, value_name = "N", default_value_t = 1000)]
    watchers: usize,
    /// Entries by which these watches are behind
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    behind: usize,
}

impl Replay {
    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Runs all cases on one store.
    pub(super) async fn run(
        self,
        scratch: &Scratch,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        let ops = usize::from(self.ops);
        let node = scratch::open(&scratch.new_path()).await?;
        let store = node.data();
        fill(&store, self.entries, ops, self.setup.value).await?;
        let cases = [
            ("every key", PREFIX.to_owned()),
            // This prefix matches only the first hundred keys.
            (
                "a prefix that few keys have",
                format!("{PREFIX}0000/00000000"),
            ),
            ("a prefix that no key has", "/none/".to_owned()),
        ];
        for (case, prefix) in cases {
            report.case(format!("{} entries of {ops} puts, {case}", self.entries))?;
            let (changes, time) = read(&store, prefix, Frontier::default()).await?;
            report.figure("changes", changes as f64, "")?;
            report.figure("entries read", rate(self.entries, time), "/s")?;
            report.figure("changes delivered", rate(changes, time), "/s")?;
        }
        self.together(&store, report).await?;
        drop(store);
        scratch::close(node).await
    }

    // Compares many watches that are behind with a single one.
    async fn together(&self, store: &Store, report: &mut Report<'_>) -> Result<(), Failure> {
        let behind = self.behind.min(self.entries);
        let watchers = self.watchers;
        report.case(format!(
            "{watchers} watches at once, {behind} entries behind"
        ))?;
        let mut frontier = store.frontier();
        let newest = frontier.seq(&store.author());
        let seq = newest.saturating_sub(behind as u64).max(1);
        let found = store.entries(store.author(), seq - 1, 1).await;
        let found = found.map_err(|error| failed("the log cannot be read", &error))?;
        if let Some(first) = found.first() {
            let id = first.entry.id;
            frontier.replace(store.author(), FrontierTip { seq, id });
        }
        let (changes, alone) = read(store, PREFIX.to_owned(), frontier.clone()).await?;
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for _watcher in 0..watchers {
            let (store, from) = (store.clone(), frontier.clone());
            tasks.spawn(async move { read(&store, PREFIX.to_owned(), from).await });
        }
        while let Some(done) = tasks.join_next().await {
            let (seen, _time) = done.map_err(|panic| failed("a watch panicked", &panic))??;
            if seen != changes {
                let what = format!("a watch delivered {seen} of {changes} changes");
                return Err(Failure::failed("bench", what));
            }
        }
        let time = began.elapsed();
        report.figure("changes delivered, one watch", rate(changes, alone), "/s")?;
        report.figure(
            "changes delivered, all watches",
            rate(changes * watchers, time),
            "/s",
        )?;
        let times = time.as_secs_f64() / alone.as_secs_f64().max(1e-9);
        report.figure("time of all watches to one", times, "")
    }
}

// Reads all changes after `from`; returns their number and the time.
async fn read(store: &Store, prefix: String, from: Frontier) -> Result<(usize, Duration), Failure> {
    let from = Cursor {
        store: store.id(),
        frontier: from,
        partial: None,
        expired_through_ms: 0,
    };
    let start = Instant::now();
    let mut watch = store.watch_with(WatchOptions {
        prefixes: vec![Bytes::from(prefix)],
        start: Start::After(from),
        ..WatchOptions::default()
    });
    let mut changes = 0;
    while let Some(event) = watch.next().await {
        match event.map_err(|error| failed("the watch failed", &error))? {
            WatchEvent::Change(_) => changes += 1,
            WatchEvent::CaughtUp => break,
            WatchEvent::Progress => {}
            WatchEvent::Gap { reason, .. } | WatchEvent::Damaged { what: reason, .. } => {
                return Err(Failure::failed("bench", reason));
            }
        }
    }
    Ok((changes, start.elapsed()))
}
