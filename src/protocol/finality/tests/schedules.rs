//! Random schedules: every order of events gives the same members and heads, whichever nodes removed
//! final entries, and when.

use super::world::{ALL, World};
use crate::support::mutator::soaked;

// Of the seeds, every other one has writers that fork, two of three have removals, and one of five has
// an admin that makes final whatever it has.
fn run(seed: u64) -> (Result<(), String>, [usize; 6]) {
    let mut world = World::new(seed, ALL);
    for _ in 0..160 {
        world.step(
            seed.is_multiple_of(2),
            !seed.is_multiple_of(3),
            seed.is_multiple_of(5),
        );
    }
    world.settle();
    let mut result = world.check();
    if result.is_ok() {
        // All admins have seen all acts now.
        world.prune_all();
        result = world.check();
    }
    let is_known = world.is_loud() || world.needs_a_base();
    if is_known && result.is_err() {
        world.met[5] += 1;
        result = Ok(());
    }
    (result, world.met)
}

/// `SEED` runs one schedule. It is read when the test is compiled.
#[test]
fn random_schedules_agree() {
    let seed = option_env!("SEED").map(|seed| seed.parse::<u64>().expect("SEED is a number"));
    let seeds = seed.map_or(0..soaked(400), |seed| seed..seed + 1);
    let is_short = seeds.end - seeds.start < 400;
    let (mut met, mut failed) = ([0; 6], Vec::new());
    for seed in seeds {
        let (result, also) = run(seed);
        for (met, also) in met.iter_mut().zip(also) {
            *met += also;
        }
        if let Err(reason) = result {
            failed.push(format!("SEED={seed}: {reason}"));
        }
    }
    let count = failed.len();
    assert!(failed.is_empty(), "{count} failed:\n{}", failed.join("\n"));
    let [met @ .., known] = met;
    assert!(is_short || met.iter().all(|met| *met > 9), "{met:?}");
    println!(
        "acts, folds, collections, tombstones taken, void entries: {met:?}; {known} need a base"
    );
}
