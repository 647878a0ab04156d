//! The simulator: the protocol alone, with real signatures, against everything that goes wrong
//! between nodes. No IO, no tasks, no time but its own; a seed repeats a run exactly.
//!
//! It runs the code that ships:
//!
//! ```text
//! protocol::intake   each node takes entries through it
//! protocol::sync     Session and FrameDecoder at both ends of a session; Turn for each node and peer
//! protocol::peer     Dialer and sync_step for each ordered pair of nodes, busy_wait_ms, Strikes, ShutOut
//! ```
//! It models the rest:
//!
//! ```text
//! base.rs    what a node has in place of entries that it has removed
//! node.rs    a log that a crash cuts and a backup replaces, a wall clock that jumps
//! link.rs    the stream of one session: messages come late and in pieces; a hostile end breaks rules
//! peer.rs    what a node keeps about a peer, the lock on the turn among it (src/net/turns.rs)
//! peers.rs   the tasks of peers, dials and connections (src/net/peer_task.rs, session.rs, gate.rs)
//! world.rs   gossip that is lost or comes late, partitions, stops, cuts; the end of all faults
//! ```
//! Left out: membership, acks, statuses, timeouts of a silent peer, and the time that intake takes.
//! Both ends of a connection notice in the same tick that it is closed. A tick is `TICK_MS` on the
//! clock of the world, which never goes back. After the faults the clock jumps over idle times.

mod base;
mod counters;
mod link;
mod node;
mod peer;
mod peers;
mod session;
mod world;

use std::env;

use crate::{
    sim::{counters::Counters, world::World},
    support::random::for_each_seed,
};

const TICKS: usize = 60;

#[test]
fn s17_s18_b10_n9_n10_whatever_goes_wrong_all_nodes_are_equal_in_the_end() {
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
