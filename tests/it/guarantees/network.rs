//! The network between replicas: entries as bytes, which come late, twice, in any order, or never.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::support::random::Random;

/// The link from one replica to another, one direction.
type Way = (usize, usize);

#[derive(Debug, Default)]
pub struct Network {
    queues: BTreeMap<Way, Vec<Packet>>,
    // Two links for each pair of replicas, one per direction.
    broken: BTreeSet<Way>,
    now: u64,
    pub lost: u64,
    pub doubled: u64,
    pub reordered: u64,
    pub healed: u64,
}

#[derive(Debug)]
struct Packet {
    due: u64,
    sent: u64,
    entry: Bytes,
}

impl Network {
    pub fn is_broken(&self, between: Way) -> bool {
        self.broken.contains(&between)
    }

    /// Breaks the link: messages are lost until it is healed.
    pub fn part(&mut self, (one, other): Way) {
        self.broken.extend([(one, other), (other, one)]);
    }

    pub fn heal(&mut self) {
        self.healed += u64::from(!self.broken.is_empty());
        self.broken.clear();
    }

    /// Sends an entry, which the network may lose or deliver twice.
    pub fn send(&mut self, random: &mut Random, way: Way, entry: Bytes) {
        self.now += 1;
        if self.is_broken(way) || random.once_in(4) {
            self.lost += 1;
            return;
        }
        let copies = 1 + usize::from(random.once_in(5));
        self.doubled += copies as u64 - 1;
        for _copy in 0..copies {
            let packet = Packet {
                due: self.now + random.bits() % 12,
                sent: self.now,
                entry: entry.clone(),
            };
            self.queues.entry(way).or_default().push(packet);
        }
    }

    /// Returns the entries that reach a replica now.
    pub fn receive(&mut self, random: &mut Random, to: usize) -> Vec<Bytes> {
        self.now += 3;
        let mut come = Vec::new();
        for ((from, at), queue) in &mut self.queues {
            if *at == to && !self.broken.contains(&(*from, to)) {
                come.extend(queue.extract_if(.., |packet| packet.due <= self.now));
            }
        }
        random.shuffle(&mut come);
        let turned = come.windows(2).filter(|two| two[0].sent > two[1].sent);
        self.reordered += turned.count() as u64;
        come.into_iter().map(|packet| packet.entry).collect()
    }
}
