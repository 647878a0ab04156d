//! `bench diff`: measures the comparison of two states that differ in some keys.

use std::time::{Duration, Instant};

use clap::Args;
use lattice::{
    protocol::compare::Message,
    store::{StateTree, Store},
};

use crate::cli::{
    bench::{
        error::failed,
        load::{Keys, scatter, value},
        open::fill,
        report::{Goal, Report},
        scratch::{self, Scratch},
        setup::Setup,
    },
    exit::Failure,
};

/// Bytes, round trips and time to find the keys in which two states differ
#[derive(Debug, Args)]
pub(super) struct Diff {
    #[command(flatten)]
    setup: Setup,
    /// Keys in the store
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    keys: usize,
    /// Keys that differ
    #[arg(long, value_name = "N", default_value_t = 10)]
    changes: usize,
}

impl Diff {
    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Compares the state of one store before and after the changes, as two nodes compare theirs.
    pub(super) async fn run(
        self,
        scratch: &Scratch,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        report.case(format!("{} keys, {} changes", self.keys, self.changes))?;
        let node = scratch::open(&scratch.new_path()).await?;
        let store = node.data();
        let entries = self.keys.div_ceil(ENTRY_OPS);
        fill(&store, entries, ENTRY_OPS, self.setup.value).await?;
        let mut before = tree(&store).await?;
        for nth in 0..self.changes as u64 {
            let key = Keys::key(0, scatter(nth) % (self.keys as u64).max(1));
            let put = store.put(key, value(self.setup.value)).await;
            put.map_err(|error| failed("a put failed", &error))?;
        }
        let mut after = tree(&store).await?;
        let compared = tokio::task::spawn_blocking(move || {
            let cost = compare(&mut before, &mut after)?;
            Ok::<_, Failure>((before, after, cost))
        });
        let compared = compared.await;
        let compared = compared.map_err(|panic| failed("the comparison stopped", &panic))?;
        let (before, after, cost) = compared?;
        let has_goals = self.keys == 1_000_000 && self.changes == 10;
        let mut figure = |name: &str, figure: f64, unit: &'static str, goal: f64| {
            if has_goals {
                report.against(name, figure, unit, Goal::AtMost(goal))
            } else {
                report.figure(name, figure, unit)
            }
        };
        figure("round trips", f64::from(cost.round_trips), "", ROUND_TRIPS)?;
        figure("bytes", cost.bytes as f64, "B", BYTES)?;
        let millis = cost.time.as_secs_f64() * 1e3;
        figure("time of both sides", millis, "ms", TIME_MS)?;
        report.figure("keys found", cost.found as f64, "")?;
        drop((before, after, store));
        scratch::close(node).await
    }
}

struct Cost {
    round_trips: u32,
    bytes: usize,
    time: Duration,
    found: usize,
}

// Asks as the node does that has `here`, and answers as the one does that has `there`.
fn compare(here: &mut StateTree, there: &mut StateTree) -> Result<Cost, Failure> {
    let unread = |error| failed("the state cannot be read", &error);
    let start = Instant::now();
    let mut diff = here.diff(there.state.root, usize::MAX).map_err(unread)?;
    // The first round trip has the roots; its bytes are a constant.
    let (mut round_trips, mut bytes) = (1, 0);
    while let Some(ask) = diff.ask() {
        let answer = there.answer(&ask).map_err(unread)?;
        bytes += Message::Ask(ask).encode().len();
        bytes += Message::Answer(answer.clone()).encode().len();
        round_trips += 1;
        let taken = here.take(&mut diff, answer);
        taken.map_err(|error| failed("an answer was refused", &error))?;
    }
    Ok(Cost {
        round_trips,
        bytes,
        time: start.elapsed(),
        found: diff.finish().keys.len(),
    })
}

async fn tree(store: &Store) -> Result<StateTree, Failure> {
    let tree = store.state_tree(&[]).await;
    tree.map_err(|error| failed("the state cannot be read", &error))
}

/// Goals for ten changes of a million keys.
const ROUND_TRIPS: f64 = 6.0;
const BYTES: f64 = 100_000.0;
const TIME_MS: f64 = 20.0;
/// Puts in each entry while the store is filled.
const ENTRY_OPS: usize = 1000;
