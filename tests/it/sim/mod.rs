//! The simulator: the protocol alone, with real signatures, against everything that goes wrong
//! between nodes. No IO, no tasks, no time but its own; a seed repeats a run exactly.

mod counters;
mod link;
mod node;
mod session;
mod world;

use std::env;

use crate::{
    sim::{counters::Counters, world::World},
    support::random::for_each_seed,
};

const TICKS: usize = 60;

#[test]
fn whatever_goes_wrong_all_nodes_are_equal_in_the_end() {
    let mut counters = Counters::default();
    let soak = env::var_os("LATTICE_SOAK").is_some();
    let seeds = if soak { 20_000 } else { 1000 };
    for_each_seed(1..=seeds, |random| {
        let mut world = World::new(random);
        for _tick in 0..TICKS {
            world.tick(random, &mut counters);
        }
        world.heal(random, &mut counters);
    });
    println!("{counters:?}");
    if !is_one_seed() {
        counters.assert_all_happened();
    }
}

// One seed does not do everything.
fn is_one_seed() -> bool {
    env::var_os("SEED").is_some()
}
