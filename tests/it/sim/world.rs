//! Nodes, what lies between them, and everything that can go wrong there.

use std::collections::BTreeSet;

use lattice::{limits::DRIFT_MS_MAX, protocol::entry::VerifiedEntry};

use crate::{
    sim::{
        counters::Counters,
        link::{Link, sync},
        node::Node,
    },
    support::{
        model::{delete, put},
        random::Random,
    },
};

const START_MS: u64 = 1_800_000_000_000;
const HOUR_MS: u64 = 3_600_000;
const KEYS: [&str; 5] = ["/a", "/b", "/c", "/d", "/e"];
/// Ticks from one end of a gossip to the other, at most.
const GOSSIP_DELAY_MAX: usize = 25;
const SYNC_DELAY_MAX: usize = 3;

/// Everything there is.
#[derive(Debug)]
pub struct World {
    nodes: Vec<Node>,
    // Until which tick a node is down.
    down: Vec<u64>,
    // Nodes of one side reach each other.
    sides: Vec<usize>,
    links: Vec<Link>,
    gossip: Vec<Gossip>,
    now: u64,
}

#[derive(Debug)]
struct Gossip {
    due: u64,
    from: usize,
    to: usize,
    entry: VerifiedEntry,
}

impl World {
    pub fn new(random: &mut Random) -> Self {
        let count = 3 + random.below(7);
        let secret = |index: usize| [u8::try_from(index + 1).unwrap(); 32];
        Self {
            nodes: (0..count)
                .map(|index| Node::new(secret(index), START_MS))
                .collect(),
            down: vec![0; count],
            sides: vec![0; count],
            links: Vec::new(),
            gossip: Vec::new(),
            now: 1,
        }
    }

    /// Lives through one tick with all its faults.
    pub fn tick(&mut self, random: &mut Random, counters: &mut Counters) {
        self.now += 1;
        for (node, down) in self.nodes.iter_mut().zip(&self.down) {
            node.clock_ms += random.bits() % 2000;
            if *down <= self.now {
                node.release_held(counters);
            }
        }
        self.deliver(counters);
        for link in &mut self.links {
            link.tick(self.now, &mut self.nodes, random, counters);
        }
        self.links.retain(|link| link.outcome().is_none());
        for _write in 0..random.below(3) {
            self.write(random, counters);
        }
        if random.once_in(2) {
            self.connect(random);
        }
        self.go_wrong(random, counters);
        if random.once_in(10) {
            self.any(random).assert_sound();
        }
    }

    fn any(&mut self, random: &mut Random) -> &mut Node {
        let index = random.below(self.nodes.len());
        &mut self.nodes[index]
    }

    fn is_up(&self, node: usize) -> bool {
        self.down[node] <= self.now
    }

    fn reach(&self, one: usize, other: usize) -> bool {
        self.is_up(one) && self.is_up(other) && self.sides[one] == self.sides[other]
    }

    fn write(&mut self, random: &mut Random, counters: &mut Counters) {
        let from = random.below(self.nodes.len());
        if !self.is_up(from) {
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
                    due: self.now + random.below(GOSSIP_DELAY_MAX) as u64,
                    from,
                    to,
                    entry: entry.clone(),
                });
            }
        }
    }

    fn deliver(&mut self, counters: &mut Counters) {
        let due = self.gossip.extract_if(.., |gossip| gossip.due <= self.now);
        for gossip in due.collect::<Vec<_>>() {
            if self.reach(gossip.from, gossip.to) {
                self.nodes[gossip.to].take(gossip.entry, counters);
            } else {
                counters.gossip_lost += 1;
            }
        }
    }

    fn connect(&mut self, random: &mut Random) {
        let between = [
            random.below(self.nodes.len()),
            random.below(self.nodes.len()),
        ];
        let [one, other] = between;
        if one != other && self.reach(one, other) {
            let link = Link::open(between, &self.nodes, self.now, SYNC_DELAY_MAX);
            self.links.push(link);
        }
    }

    fn go_wrong(&mut self, random: &mut Random, counters: &mut Counters) {
        let victim = random.below(self.nodes.len());
        if random.once_in(4) {
            self.nodes[victim].sync();
        }
        if random.once_in(12) && !self.links.is_empty() {
            let cut = random.below(self.links.len());
            self.cut(|index, _| index == cut, counters);
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
            self.sides.fill_with(|| random.below(2));
            let sides = self.sides.clone();
            let is_torn = |link: &Link| {
                let [one, other] = link.nodes();
                sides[one] != sides[other]
            };
            self.cut(|_, link| is_torn(link), counters);
        } else if random.once_in(20) {
            self.sides.fill(0);
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
        self.down[node] = self.now + random.below(10) as u64;
        self.cut(|_, link| link.touches(node), counters);
    }

    fn cut(&mut self, is_cut: impl Fn(usize, &Link) -> bool, counters: &mut Counters) {
        let mut index = 0;
        self.links.retain(|link| {
            let cut = is_cut(index, link);
            index += 1;
            counters.cut += usize::from(cut);
            counters.cut_midway += usize::from(cut && link.has_begun());
            !cut
        });
    }

    /// Ends all faults, lets every clock pass every stamp, and syncs around the ring until all are
    /// equal. Panics unless they are soon.
    pub fn heal(&mut self, random: &mut Random, counters: &mut Counters) {
        self.links.clear();
        self.gossip.clear();
        let clocks = self.nodes.iter().map(|node| node.clock_ms);
        let latest_ms = clocks.max().unwrap() + 10 * HOUR_MS + DRIFT_MS_MAX;
        for node in &mut self.nodes {
            node.clock_ms = latest_ms;
            node.release_held(counters);
        }
        let mut rings = 0;
        while !self.is_equal() {
            rings += 1;
            // Once around, everything has come to the last node; twice, to all. What waited
            // somewhere and was applied only then takes as long again; the longest seen was five.
            assert!(rings <= 8, "not equal after eight rings: {:?}", self.nodes);
            for one in 0..self.nodes.len() {
                let between = [one, (one + 1) % self.nodes.len()];
                self.sync_in_peace(between, random, counters);
            }
        }
        counters.rings_max = counters.rings_max.max(rings);
        let entries = &self.nodes[0].replica.entries;
        for node in &self.nodes {
            assert_eq!(&node.replica.entries, entries);
            assert_eq!(node.heads(), self.nodes[0].heads());
            assert_eq!(node.intake.held().iter().count(), 0);
            node.assert_sound();
        }
        let (bytes, [one, other]) = sync([0, 1], &mut self.nodes, random, counters);
        assert!(
            one.same && other.same && bytes < 1024,
            "{bytes} bytes to see that all is equal"
        );
    }

    fn sync_in_peace(&mut self, between: [usize; 2], random: &mut Random, counters: &mut Counters) {
        // What waits is in no frontier: it may be applied on one side when the other has been told.
        let waits = between.map(|node| self.nodes[node].intake.pending().len());
        sync(between, &mut self.nodes, random, counters);
        let [one, other] = between.map(|node| self.nodes[node].replica.frontier.hash());
        assert!(waits != [0, 0] || one == other, "one session is enough");
    }

    fn is_equal(&self) -> bool {
        let mut hashes = self.nodes.iter().map(|node| node.replica.frontier.hash());
        let first = hashes.next().unwrap();
        hashes.all(|hash| hash == first)
    }
}
