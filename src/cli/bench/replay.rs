//! `bench replay`: reading a log from a cursor.

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use lattice::{
    protocol::{cursor::Cursor, frontier::Frontier},
    store::{Start, Store, WatchEvent, WatchOptions},
};
use tokio_stream::StreamExt as _;

use crate::cli::{
    bench::{
        Setup, failed,
        load::PREFIX,
        open::fill,
        report::Report,
        samples::rate,
        scratch::{self, Scratch},
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
}

impl Replay {
    /// Returns the flags that all benches have.
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
        let node = scratch::open(&scratch.place()).await?;
        let store = node.root();
        fill(&store, self.entries, ops, self.setup.value).await?;
        let cases = [
            ("every key", PREFIX.to_owned()),
            // One key in a hundred of the first few thousand, and none after them.
            (
                "a prefix that few keys have",
                format!("{PREFIX}0000/00000000"),
            ),
            ("a prefix that no key has", "/none/".to_owned()),
        ];
        for (case, prefix) in cases {
            report.case(format!("{} entries of {ops} puts, {case}", self.entries))?;
            let (changes, time) = read(&store, prefix).await?;
            report.figure("changes", changes as f64, "")?;
            report.figure("entries read", rate(self.entries, time), "/s")?;
            report.figure("changes told", rate(changes, time), "/s")?;
        }
        drop(store);
        scratch::close(node).await
    }
}

// Reads all there is behind the beginning.
async fn read(store: &Store, prefix: String) -> Result<(usize, Duration), Failure> {
    let beginning = Cursor {
        store: store.id(),
        frontier: Frontier::default(),
        partial: None,
        expired_through_ms: 0,
    };
    let start = Instant::now();
    let mut watch = store.watch_with(WatchOptions {
        prefixes: vec![Bytes::from(prefix)],
        start: Start::After(beginning),
        ..WatchOptions::default()
    });
    let mut changes = 0;
    while let Some(event) = watch.next().await {
        match event.map_err(|error| failed("the watch failed", &error))? {
            WatchEvent::Change(_) => changes += 1,
            WatchEvent::CaughtUp => break,
            WatchEvent::Progress => {}
            WatchEvent::Gap { reason } | WatchEvent::Damaged { what: reason, .. } => {
                return Err(Failure::failed("bench", reason));
            }
        }
    }
    Ok((changes, start.elapsed()))
}
