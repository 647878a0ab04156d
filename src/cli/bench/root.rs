//! `bench root`: measures the hash tree over the rows of a store.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Args;
use lattice::{
    protocol::merkle::{Levels, verify},
    store::{List, Store},
};

use crate::cli::{
    bench::{
        error::failed,
        load::{Callers, Keys, scatter, value},
        open::fill,
        report::{Goal, Report},
        samples::Samples,
        scratch::{self, Scratch},
        setup::Setup,
    },
    exit::Failure,
};

/// Time to compute the root of a state, and time and size of proofs of its keys
#[derive(Debug, Args)]
pub(super) struct Root {
    #[command(flatten)]
    setup: Setup,
    /// Keys in the store
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    keys: usize,
    /// Proofs to make and to verify
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    proofs: u32,
}

impl Root {
    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Runs all cases on one store.
    pub(super) async fn run(
        self,
        scratch: &Scratch,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        let dir = scratch.new_path();
        report.case(format!("{} keys", self.keys))?;
        let node = scratch::open(&dir).await?;
        let entries = self.keys.div_ceil(ENTRY_OPS);
        fill(&node.data(), entries, ENTRY_OPS, self.setup.value).await?;
        scratch::close(node).await?;
        let node = scratch::open(&dir).await?;
        let store = node.data();
        let first = millis(root(&store).await?);
        let mut at_rest = f64::MAX;
        for _time in 0..AT_REST_TIMES {
            at_rest = at_rest.min(millis(root(&store).await?));
        }
        if self.keys == 1_000_000 {
            report.against(
                "first root after a start",
                first,
                "ms",
                Goal::AtMost(FIRST_MS),
            )?;
            report.against("root at rest", at_rest, "ms", Goal::AtMost(AT_REST_MS))?;
        } else {
            report.figure("first root after a start", first, "ms")?;
            report.figure("root at rest", at_rest, "ms")?;
        }
        for changes in [1, 1000] {
            let after = self.after_changes(&store, changes).await?;
            report.figure(&format!("root after {changes} changes"), after, "ms")?;
        }
        self.prove(&store, report).await?;
        drop(store);
        scratch::close(node).await?;
        self.put(&dir, report).await
    }

    // Compares puts while no root was asked for with puts after one was, in turns that alternate: each begins
    // with a start and a reading of all rows, which a root does, and the file grows from turn to turn.
    async fn put(&self, dir: &Path, report: &mut Report<'_>) -> Result<(), Failure> {
        let mut callers = Callers::new(CALLERS, Some(self.keys as u64), value(self.setup.value));
        let mut turns = [Samples::default(), Samples::default()];
        let time = Duration::from_secs_f64(self.setup.secs);
        for turn in 0..PUT_TURNS {
            let node = scratch::open(dir).await?;
            let store = node.data();
            // Off on, on off, off on, on off.
            let with_tree = (turn.div_ceil(2)) % 2;
            match with_tree {
                0 => read_all(&store).await?,
                _on => drop(root(&store).await?),
            }
            turns[with_tree].append(callers.turn(&store, time).await?);
            drop(store);
            scratch::close(node).await?;
        }
        let [off, on] = turns.map(|turn| turn.rate());
        report.figure("puts/s before the first root", off, "/s")?;
        let ratio = on / off.max(f64::MIN_POSITIVE);
        report.against("puts/s with the tree", ratio, "x", Goal::AtLeast(PUTS_MIN))
    }

    // Returns the shortest time, in ms, that a root takes after `changes` new values of random
    // keys.
    async fn after_changes(&self, store: &Store, changes: usize) -> Result<f64, Failure> {
        let mut keys = self.random_keys();
        let mut shortest = f64::MAX;
        for _time in 0..CHANGED_TIMES {
            for key in keys.by_ref().take(changes) {
                let put = store.put(key, value(self.setup.value)).await;
                put.map_err(|error| failed("a put failed", &error))?;
            }
            shortest = shortest.min(millis(root(store).await?));
        }
        Ok(shortest)
    }

    async fn prove(&self, store: &Store, report: &mut Report<'_>) -> Result<(), Failure> {
        let levels = Levels::new(store.id());
        let (mut proving, mut verifying, mut bytes) = (Duration::ZERO, Duration::ZERO, 0);
        for key in self.random_keys().take(self.proofs as usize) {
            let start = Instant::now();
            let proven = store.prove(&key).await;
            let proven = proven.map_err(|error| failed("a key cannot be proven", &error))?;
            proving += start.elapsed();
            bytes += proven.proof.encode().len();
            let start = Instant::now();
            let (root, row) = (proven.state.root, proven.row.as_deref());
            let verified = verify(&levels, &root, &key, row, &proven.proof);
            verifying += start.elapsed();
            verified.map_err(|error| failed("a proof is refused", &error))?;
        }
        let proofs = f64::from(self.proofs);
        let verify_us = verifying.as_secs_f64() * 1e6 / proofs;
        report.figure("make a proof", millis(proving) / proofs, "ms")?;
        report.against("verify a proof", verify_us, "us", Goal::AtMost(VERIFY_US))?;
        let goal = Goal::AtMost(PROOF_BYTES);
        report.against("bytes of a proof", bytes as f64 / proofs, "B", goal)
    }

    // Random keys of those that `fill` has put.
    fn random_keys(&self) -> impl Iterator<Item = Bytes> + use<> {
        let keys = self.keys as u64;
        (0..).map(move |nth| Keys::key(0, scatter(nth) % keys.max(1)))
    }
}

// Returns how long a root takes.
async fn root(store: &Store) -> Result<Duration, Failure> {
    let start = Instant::now();
    let root = store.root(&[]).await;
    root.map_err(|error| failed("the root cannot be computed", &error))?;
    Ok(start.elapsed())
}

// Reads all rows, so that the caches are as after a root.
async fn read_all(store: &Store) -> Result<(), Failure> {
    let mut scan = store.scan(List::default());
    loop {
        let page = scan.next_page().await;
        let page = page.map_err(|error| failed("the keys cannot be read", &error))?;
        if page.is_empty() {
            return Ok(());
        }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Goal: time of the first root of a million keys, which reads all rows.
const FIRST_MS: f64 = 1200.0;
/// Goal: time of a root of a million keys when nothing has changed.
const AT_REST_MS: f64 = 2.0;
/// Goal: time to verify a proof.
const VERIFY_US: f64 = 50.0;
/// Goal: bytes of a proof.
const PROOF_BYTES: f64 = 1024.0;
/// Goal: puts while the tree is kept, against puts while nobody has asked for a root.
const PUTS_MIN: f64 = 0.97;
/// Turns of puts.
const PUT_TURNS: usize = 8;
/// Callers that put at the same time.
const CALLERS: usize = 256;
/// Puts in each entry while the store is filled.
const ENTRY_OPS: usize = 1000;
/// Roots at rest, and roots after changes; the fastest counts.
const AT_REST_TIMES: usize = 10;
const CHANGED_TIMES: usize = 10;
