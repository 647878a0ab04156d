//! A node of the simulator: the real rules over a log that a crash cuts.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lattice::{
    id::{Author, EntryId},
    limits::DRIFT_MS_MAX,
    protocol::{
        entry::{Op, Order, VerifiedEntry},
        frontier::{FrontierTip, MissingRange},
        heads::Heads,
        pending::Pending,
    },
};

use crate::{
    sim::counters::Counters,
    support::model::{Replica, author_of},
};

/// Room for some twenty entries, so that it runs out.
const PENDING_BYTES_MAX: usize = 20 << 10;

/// One node: what is on its disk, what it made of that, and what only memory has.
#[derive(Debug)]
pub struct Node {
    pub secret: [u8; 32],
    /// Its wall clock.
    pub clock_ms: u64,
    pub replica: Replica,
    pub pending: Pending,
    pub held: BTreeMap<EntryId, VerifiedEntry>,
    /// All that is applied, in the order of application. A crash may cut it behind `synced`.
    log: Vec<VerifiedEntry>,
    synced: usize,
    backup: Vec<VerifiedEntry>,
    /// Own entries that a writer was told are durable, but for those a restored backup lost.
    acknowledged: BTreeSet<EntryId>,
}

impl Node {
    pub fn new(secret: [u8; 32], clock_ms: u64) -> Self {
        Self {
            secret,
            clock_ms,
            replica: Replica::default(),
            pending: Pending::new(PENDING_BYTES_MAX),
            held: BTreeMap::new(),
            log: Vec::new(),
            synced: 0,
            backup: Vec::new(),
            acknowledged: BTreeSet::new(),
        }
    }

    /// Writes an entry. Durable, and with it all that it depends on, before anybody hears of it.
    pub fn write(&mut self, ops: Vec<Op>) -> VerifiedEntry {
        let entry = self.replica.write(self.secret, self.clock_ms, ops);
        self.acknowledge(entry)
    }

    /// Writes what closes a fork of its own.
    pub fn repair(&mut self) -> VerifiedEntry {
        let entry = self.replica.repair(self.secret, self.clock_ms);
        self.acknowledge(entry)
    }

    fn acknowledge(&mut self, entry: VerifiedEntry) -> VerifiedEntry {
        self.log.push(entry.clone());
        self.sync();
        self.acknowledged.insert(entry.id);
        entry
    }

    /// Takes in an authentic entry, whatever it is and as often as it comes.
    pub fn take(&mut self, entry: VerifiedEntry, counters: &mut Counters) {
        if self.replica.entries.contains_key(&entry.id) {
            counters.duplicates += 1;
        } else if self.is_early(&entry) {
            self.held.insert(entry.id, entry);
        } else {
            self.admit(entry, counters);
        }
    }

    fn is_early(&self, entry: &VerifiedEntry) -> bool {
        entry.header.hlc.wall_ms > self.clock_ms + DRIFT_MS_MAX
    }

    fn admit(&mut self, entry: VerifiedEntry, counters: &mut Counters) {
        let mut ready = vec![entry];
        while let Some(entry) = ready.pop() {
            if let Some(missing) = self.replica.missing(&entry) {
                counters.evicted += self.pending.insert(entry, missing).len();
                continue;
            }
            let branches = self.replica.frontier.tips(&entry.author()).len();
            if !self.replica.apply(&entry) {
                continue;
            }
            let is_fork =
                branches > 0 && self.replica.frontier.tips(&entry.author()).len() > branches;
            counters.forks += usize::from(is_fork);
            let released = self.pending.release(&entry.id);
            counters.released += released.len();
            ready.extend(released);
            self.log.push(entry);
        }
    }

    /// Applies what was stamped too far ahead until now.
    pub fn release_held(&mut self, counters: &mut Counters) {
        let ids: Vec<EntryId> = self.held.keys().copied().collect();
        for id in ids {
            if !self.is_early(&self.held[&id]) {
                let entry = self.held.remove(&id).unwrap();
                counters.due += 1;
                self.take(entry, counters);
            }
        }
    }

    /// Makes everything durable.
    pub fn sync(&mut self) {
        self.synced = self.log.len();
    }

    /// Loses power: memory is gone, and what is on disk ends `lost_max` entries before the end or
    /// where it was last made durable.
    pub fn crash(&mut self, lost_max: usize, counters: &mut Counters) {
        let end = self.log.len().saturating_sub(lost_max).max(self.synced);
        counters.tails_lost += usize::from(end < self.log.len());
        self.log.truncate(end);
        self.reopen();
    }

    /// Copies the disk.
    pub fn back_up(&mut self) {
        self.backup = self.log[..self.synced].to_vec();
    }

    /// Puts the copy back: what was acknowledged since is gone, and the author does not know.
    pub fn restore(&mut self, counters: &mut Counters) {
        counters.restores += usize::from(self.backup.len() < self.synced);
        self.log = self.backup.clone();
        let kept: BTreeSet<EntryId> = self.log.iter().map(|entry| entry.id).collect();
        self.acknowledged.retain(|id| kept.contains(id));
        self.reopen();
    }

    fn reopen(&mut self) {
        self.pending = Pending::new(PENDING_BYTES_MAX);
        self.held.clear();
        self.sync();
        self.replica = Replica::default();
        for entry in &self.log {
            assert_eq!(
                self.replica.missing(entry),
                None,
                "a log is causally closed"
            );
            assert!(self.replica.apply(entry), "each entry is in the log once");
        }
        self.assert_keeps_acknowledged();
    }

    /// What a sync session asks: which of these are not here.
    pub fn lacks(&self, tips: Vec<(Author, FrontierTip)>) -> Vec<(Author, FrontierTip)> {
        let is_here = |id: &EntryId| {
            let mut next = Some(*id);
            while let Some(held) = next.and_then(|id| self.held.get(&id)) {
                next = held.header.prev;
            }
            next.is_none_or(|id| self.replica.entries.contains_key(&id))
        };
        let lacks = |(_, tip): &(Author, FrontierTip)| !is_here(&tip.id);
        tips.into_iter().filter(lacks).collect()
    }

    /// What a sync session asks: the entries of these ranges, in order.
    pub fn read(&self, ranges: &[MissingRange]) -> Vec<Bytes> {
        let mut read: BTreeMap<Order, &VerifiedEntry> = BTreeMap::new();
        for range in ranges {
            let mut next = Some(range.tip);
            while let Some(entry) = next.and_then(|id| self.replica.entries.get(&id))
                && entry.header.seq > range.after
            {
                read.insert(entry.order(), entry);
                next = entry.header.prev;
            }
        }
        read.values()
            .map(|entry| entry.signed.encode().into())
            .collect()
    }

    /// Returns the heads of all keys, and what they stand for.
    pub fn heads(&self) -> &BTreeMap<Bytes, Heads> {
        &self.replica.heads
    }

    /// True when its author has more than one branch here.
    pub fn has_forked(&self) -> bool {
        self.replica.frontier.tips(&author_of(self.secret)).len() > 1
    }

    fn assert_keeps_acknowledged(&self) {
        for id in &self.acknowledged {
            assert!(
                self.replica.entries.contains_key(id),
                "{id} was acknowledged and is gone"
            );
        }
    }

    /// Panics unless what is here is closed, complete, and equal to its definitions.
    pub fn assert_sound(&self) {
        assert_eq!(
            self.log.len(),
            self.replica.entries.len(),
            "each entry once"
        );
        for entry in self.replica.entries.values() {
            assert_eq!(
                self.replica.missing(entry),
                None,
                "what is applied has its past here"
            );
        }
        self.replica.assert_equals_definitions();
        self.assert_keeps_acknowledged();
    }
}
