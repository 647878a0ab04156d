//! `bench past`: measures reads of the past, as ratios to a list of the keys now.

use std::time::{Duration, Instant};

use clap::Args;
use lattice::{
    clock::Clock,
    store::{List, Store},
};

use crate::cli::{
    bench::{
        error::failed,
        load::{Keys, value},
        open::fill,
        report::{Goal, Report},
        scratch::{self, Scratch},
        setup::Setup,
    },
    exit::Failure,
};

/// Reads of the past: diff and list --at, when one key has changed since and when all have
#[derive(Debug, Args)]
pub(super) struct Past {
    #[command(flatten)]
    setup: Setup,
    /// Keys in the store
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    keys: usize,
    /// Keys that each entry puts
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1024))]
    ops: u16,
}

impl Past {
    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Fills a store, changes one key, and then all keys.
    pub(super) async fn run(
        self,
        scratch: &Scratch,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        let ops = usize::from(self.ops);
        let entries = self.keys / ops;
        let node = scratch::open(&scratch.new_path()).await?;
        let root = node.data();
        fill(&root, entries, ops, self.setup.value).await?;
        let before = a_moment().await;
        let keys = entries * ops;
        if let Some(first) = Keys::new(0, None).next() {
            let written = root.put(first, value(self.setup.value)).await;
            written.map_err(|error| failed("a put failed", &error))?;
        }
        report.case(format!(
            "{keys} keys, {ops} in each entry; one has changed since"
        ))?;
        measure(&root, before, 1, report, true).await?;
        fill(&root, entries, ops, self.setup.value).await?;
        report.case(format!(
            "{keys} keys, {ops} in each entry; all have changed since"
        ))?;
        measure(&root, before, keys, report, false).await?;
        scratch::close(node).await
    }
}

// Lists the keys now, then as they were at `before`, then what has changed since.
async fn measure(
    root: &Store,
    before: u64,
    changed: usize,
    report: &mut Report<'_>,
    with_goals: bool,
) -> Result<(), Failure> {
    let mut now = Duration::MAX;
    let mut at = Duration::MAX;
    let mut diff = Duration::MAX;
    for _turn in 0..TURNS {
        let start = Instant::now();
        let listed = root.list(List::default()).await;
        let listed = listed
            .map_err(|error| failed("a list failed", &error))?
            .len();
        now = now.min(start.elapsed());
        let start = Instant::now();
        let then = root.list_at(List::default(), before).await;
        let then = then
            .map_err(|error| failed("a list of the past failed", &error))?
            .len();
        at = at.min(start.elapsed());
        let start = Instant::now();
        let differences = root.diff("", before, u64::MAX >> 16).await;
        let differences = differences
            .map_err(|error| failed("a diff failed", &error))?
            .len();
        diff = diff.min(start.elapsed());
        if listed != then || differences != changed {
            let what =
                format!("{then} of {listed} keys, and {differences} of {changed} differences");
            return Err(Failure::failed(
                "bench",
                format!("the past is wrong: {what}"),
            ));
        }
    }
    report.figure("list", now.as_secs_f64() * 1e3, "ms")?;
    report.figure("list --at", at.as_secs_f64() * 1e3, "ms")?;
    let (at, list) = (at.as_secs_f64(), now.as_secs_f64());
    match with_goals {
        true => report.against("list --at to list", at / list, "", Goal::AtMost(LIST_RATIO))?,
        false => report.figure("list --at to list", at / list, "")?,
    }
    let ms = diff.as_secs_f64() * 1e3;
    match with_goals && changed == 1 {
        true => report.against("diff", ms, "ms", Goal::AtMost(DIFF_MS)),
        false => report.figure("diff", ms, "ms"),
    }
}

// Returns the time in ms since 1970, when no later write has this stamp.
async fn a_moment() -> u64 {
    let pause = Duration::from_millis(20);
    tokio::time::sleep(pause).await;
    let now_ms = Clock::system().now_ms();
    tokio::time::sleep(pause).await;
    now_ms
}

/// Times that each read is measured; the fastest counts.
const TURNS: usize = 3;
/// Goal: time of a list of the past, divided by that of a list, when little has changed.
const LIST_RATIO: f64 = 3.0;
/// Goal: time to find the one key of 100,000 that has changed.
const DIFF_MS: f64 = 200.0;
