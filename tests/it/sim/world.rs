//! Nodes, what lies between them, and everything that can go wrong there.

use std::collections::BTreeSet;

use lattice::{limits::DRIFT_MS_MAX, protocol::entry::VerifiedEntry};

use crate::{
    sim::{
        counters::Counters,
        link::sync,
        node::Node,
        peers::{Peers, Reach, TICK_MS, Tick},
    },
    support::{
        model::{delete, put},
        random::Random,
    },
};

const START_MS: u64 = 1_800_000_000_000;
const HOUR_MS: u64 = 3_600_000;
const KEYS: [&str; 5] = ["/a", "/b", "/c", "/d", "/e"];
/// Milliseconds from one end of a gossip to the other, at most.
const GOSSIP_DELAY_MS_MAX: u64 = 25 * TICK_MS;
/// Milliseconds for which a node that has stopped is down, at most.
const DOWN_MS_MAX: u64 = 20 * TICK_MS;
/// Milliseconds after the end of all faults within which all honest nodes are equal.
const HEAL_MS_MAX: u64 = 120_000;

/// Everything there is.
#[derive(Debug)]
pub struct World {
    nodes: Vec<Node>,
    peers: Peers,
    reach: Reach,
    gossip: Vec<Gossip>,
    // A clock that never goes back, unlike those of the nodes.
    now_ms: u64,
}

#[derive(Debug)]
struct Gossip {
    due_ms: u64,
    from: usize,
    to: usize,
    entry: VerifiedEntry,
}

impl World {
    pub fn new(random: &mut Random) -> Self {
        let count = 3 + random.below(7);
        let secret = |index: usize| [u8::try_from(index + 1).unwrap(); 32];
        let mut nodes: Vec<_> = (0..count)
            .map(|index| Node::new(secret(index), START_MS))
            .collect();
        nodes[count - 1].is_hostile = random.once_in(4);
        Self {
            peers: Peers::new(&nodes),
            nodes,
            reach: Reach {
                down_until_ms: vec![0; count],
                sides: vec![0; count],
            },
            gossip: Vec::new(),
            now_ms: 1,
        }
    }

    /// Lives through one tick with all its faults.
    pub fn tick(&mut self, random: &mut Random, counters: &mut Counters) {
        self.now_ms += TICK_MS;
        for (index, node) in self.nodes.iter_mut().enumerate() {
            node.clock_ms += random.bits() % 2000;
            if self.reach.is_up(index, self.now_ms) {
                node.release_held(counters);
            }
        }
        self.deliver(random, counters);
        self.live(random, counters, |peers, tick| {
            peers.tick(tick);
        });
        for _write in 0..random.below(3) {
            self.write(random, counters);
        }
        if random.once_in(2) {
            let [node, peer] = [0; 2].map(|_| random.below(self.nodes.len()));
            self.want(node, peer);
        }
        self.go_wrong(random, counters);
        if random.once_in(10) {
            self.any(random).assert_sound();
        }
    }

    fn live<T>(
        &mut self,
        random: &mut Random,
        counters: &mut Counters,
        act: impl FnOnce(&mut Peers, &mut Tick<'_>) -> T,
    ) -> T {
        let mut tick = Tick {
            now_ms: self.now_ms,
            reach: &self.reach,
            nodes: &mut self.nodes,
            random,
            counters,
        };
        act(&mut self.peers, &mut tick)
    }

    fn want(&mut self, node: usize, peer: usize) {
        if node != peer && self.is_up(node) {
            self.peers.want(node, peer);
        }
    }

    fn any(&mut self, random: &mut Random) -> &mut Node {
        let index = random.below(self.nodes.len());
        &mut self.nodes[index]
    }

    fn is_up(&self, node: usize) -> bool {
        self.reach.is_up(node, self.now_ms)
    }

    fn write(&mut self, random: &mut Random, counters: &mut Counters) {
        let from = random.below(self.nodes.len());
        if !self.is_up(from) || self.nodes[from].is_hostile {
            return;
        }
        let node = &mut self.nodes[from];
        let entry = if node.has_forked() && random.once_in(10) {
            counters.repairs += 1;
            node.repair()
        } else {
            let keys: BTreeSet<_> = (0..=random.below(2))
                .map(|_| KEYS[random.below(KEYS.len())])
                .collect();
            let value = random.bits().to_string();
            let op = |key: &str| {
                if random.once_in(4) {
                    delete(key)
                } else {
                    put(key, &value)
                }
            };
            node.write(keys.into_iter().map(op).collect())
        };
        counters.writes += 1;
        for to in (0..self.nodes.len()).filter(|to| *to != from) {
            let copies = [0, 1, 1, 1, 1, 2][random.below(6)];
            counters.gossip_lost += usize::from(copies == 0);
            for _copy in 0..copies {
                self.gossip.push(Gossip {
                    due_ms: self.now_ms + random.bits() % GOSSIP_DELAY_MS_MAX,
                    from,
                    to,
                    entry: entry.clone(),
                });
            }
        }
        self.want(from, random.below(self.nodes.len()));
    }

    fn deliver(&mut self, random: &mut Random, counters: &mut Counters) {
        let now_ms = self.now_ms;
        let due = self.gossip.extract_if(.., |gossip| gossip.due_ms <= now_ms);
        for gossip in due.collect::<Vec<_>>() {
            let Gossip { from, to, .. } = gossip;
            if self.reach.joins([from, to], now_ms) {
                self.nodes[to].take(gossip.entry, counters);
                if random.once_in(8) {
                    self.want(to, from);
                }
            } else {
                counters.gossip_lost += 1;
            }
        }
    }

    fn go_wrong(&mut self, random: &mut Random, counters: &mut Counters) {
        let victim = random.below(self.nodes.len());
        if random.once_in(4) {
            self.nodes[victim].sync();
        }
        if random.once_in(12) {
            self.live(random, counters, Peers::cut_any);
        }
        if random.once_in(40) && self.is_up(victim) {
            counters.crashes += 1;
            self.nodes[victim].crash(random.below(6), counters);
            self.stop(victim, random, counters);
        }
        if random.once_in(25) {
            self.nodes[victim].back_up();
        }
        if random.once_in(60) {
            self.nodes[victim].restore(counters);
            self.stop(victim, random, counters);
        }
        if random.once_in(40) {
            counters.partitions += 1;
            self.reach.sides.fill_with(|| random.below(2));
            self.live(random, counters, Peers::part);
        } else if random.once_in(20) {
            self.reach.sides.fill(0);
        }
        if random.once_in(40) {
            let jump_ms = HOUR_MS + random.bits() % (5 * HOUR_MS);
            let node = &mut self.nodes[victim];
            if random.once_in(2) {
                counters.clocks_forward += 1;
                node.clock_ms += jump_ms;
            } else {
                counters.clocks_back += 1;
                node.clock_ms -= jump_ms;
            }
        }
    }

    fn stop(&mut self, node: usize, random: &mut Random, counters: &mut Counters) {
        self.reach.down_until_ms[node] = self.now_ms + random.bits() % DOWN_MS_MAX;
        self.live(random, counters, |peers, tick| peers.stop(node, tick));
    }

    /// Ends all faults, lets every clock pass every stamp, and lets the nodes live until all that
    /// are honest are equal. Panics unless they are soon.
    pub fn heal(&mut self, random: &mut Random, counters: &mut Counters) {
        self.reach.down_until_ms.fill(0);
        self.reach.sides.fill(0);
        self.gossip.clear();
        let clocks = self.nodes.iter().map(|node| node.clock_ms);
        let latest_ms = clocks.max().unwrap() + 10 * HOUR_MS + DRIFT_MS_MAX;
        for node in &mut self.nodes {
            node.clock_ms = latest_ms;
            node.release_held(counters);
        }
        let began_ms = self.now_ms;
        let mut is_equal = self.is_equal();
        while !is_equal {
            let next_ms = self.now_ms + TICK_MS;
            self.now_ms = next_ms.max(self.peers.due_ms(next_ms));
            assert!(
                self.now_ms - began_ms <= HEAL_MS_MAX,
                "not equal after {} ms: {self:?}",
                self.now_ms - began_ms,
            );
            is_equal = self.live(random, counters, Peers::tick) && self.is_equal();
        }
        counters.heal_ms_max = counters.heal_ms_max.max(self.now_ms - began_ms);
        self.peers.assert_honest_are_let_in(&self.nodes);
        let entries = &self.nodes[0].replica.entries;
        for node in self.honest() {
            assert_eq!(&node.replica.entries, entries);
            assert_eq!(node.heads(), self.nodes[0].heads());
            assert_eq!(node.root(), self.nodes[0].root());
            assert_eq!(node.intake.held().iter().count(), 0);
            node.assert_sound();
        }
        let (bytes, [one, other]) = sync([0, 1], &mut self.nodes, random, counters);
        assert!(
            one.same && other.same && bytes < 1024,
            "{bytes} bytes to see that all is equal"
        );
    }

    fn honest(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| !node.is_hostile)
    }

    fn is_equal(&self) -> bool {
        let mut hashes = self.honest().map(|node| node.replica.frontier.hash());
        let first = hashes.next().unwrap();
        hashes.all(|hash| hash == first)
    }
}
