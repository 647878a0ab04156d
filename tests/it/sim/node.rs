//! A node of the simulator: the intake that ships, over a log that a crash cuts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use lattice::{
    id::{Author, EntryId},
    protocol::{
        entry::{Op, Order, Parent, VerifiedEntry},
        frontier::{Frontier, FrontierTip, MissingRange},
        heads::Heads,
        heads_row::encode_heads,
        intake::{Intake, IntakeLimits, Verdict},
        merkle::{Levels, RowHash, StreamRoot, TreeRoot},
        sync::PartName,
    },
};

use crate::{
    sim::{base::Base, counters::Counters},
    support::model::{Replica, STORE, author_of},
};

// Pending entries have room for some twenty, so that it runs out.
fn new_intake() -> Intake {
    let limits = IntakeLimits {
        pending_bytes_max: 20 << 10,
        ..IntakeLimits::default()
    };
    Intake::new(false, limits)
}

/// One node: what is on its disk, what it made of that, and what only memory has.
#[derive(Debug)]
pub struct Node {
    pub secret: [u8; 32],
    /// True for a node that breaks the rules of sessions now and then. It writes nothing.
    pub is_hostile: bool,
    /// Its wall clock.
    pub clock_ms: u64,
    pub replica: Replica,
    /// Decides what becomes of entries of others, and keeps those that wait. Lost with the power.
    pub intake: Intake,
    /// All that is applied, in the order of application. A crash may cut it behind `synced`.
    log: Vec<VerifiedEntry>,
    synced: usize,
    backup: Vec<VerifiedEntry>,
    /// The base, if entries were removed: those at and before its anchors are given to nobody as entries.
    pub base: Option<Base>,
    /// Parts of bases that have come.
    pub parts: BTreeMap<PartName, Bytes>,
    /// Own entries that a writer was told are durable, but for those a restored backup lost.
    acknowledged: BTreeSet<EntryId>,
}

impl Node {
    pub fn new(secret: [u8; 32], clock_ms: u64) -> Self {
        Self {
            secret,
            is_hostile: false,
            clock_ms,
            replica: Replica::default(),
            intake: new_intake(),
            log: Vec::new(),
            synced: 0,
            backup: Vec::new(),
            base: None,
            parts: BTreeMap::new(),
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
        let dropped = self.intake.dropped();
        let mut ready = VecDeque::from([entry]);
        while let Some(entry) = ready.pop_front() {
            let Ok(verdict) = self.intake.offer(&entry, self.clock_ms, &self.replica);
            let before = match verdict {
                Verdict::Append { before, .. } => before,
                Verdict::Begin { fork, before } => {
                    counters.forks += usize::from(fork);
                    before
                }
                Verdict::Duplicate => {
                    counters.duplicates += 1;
                    continue;
                }
                Verdict::AwaitsEntry(_) | Verdict::AwaitsClock { .. } => continue,
                verdict => panic!("{verdict:?}"),
            };
            let applied = self.replica.apply_without(&entry, &before.absent);
            assert!(applied, "it was not here");
            let released = self.intake.staged(&entry);
            counters.released += released.len();
            ready.extend(released);
            self.log.push(entry);
        }
        self.intake.commit();
        counters.evicted += usize::try_from(self.intake.dropped() - dropped).unwrap();
    }

    /// Returns the entries at which logs begin.
    pub fn begins(&self) -> Frontier {
        let base = self.base.as_ref();
        base.map_or_else(Frontier::default, |base| base.anchors.clone())
    }

    /// Removes the entries at and before `anchors`, which are here and not before the last ones.
    pub fn prune(&mut self, anchors: Frontier) {
        let mut entries: BTreeMap<Order, &VerifiedEntry> = BTreeMap::new();
        for (_author, anchor) in anchors.iter() {
            let mut next = Some(anchor.id);
            while let Some(id) = next {
                let entry = &self.replica.entries[&id];
                entries.insert(entry.order(), entry);
                next = entry.header.prev;
            }
        }
        let entries: Vec<_> = entries.into_values().collect();
        self.base = Some(Base::of(anchors, &entries));
    }

    /// Installs a base, all parts of which have come: what is here and not in it stays.
    pub fn install(&mut self, anchors: Frontier, names: &[PartName]) {
        for entry in Base::entries(names, &self.parts) {
            if self.replica.entries.contains_key(&entry.id) {
                continue;
            }
            let parents = entry.header.parents.iter();
            let absent = parents.filter(|it| !self.replica.entries.contains_key(&it.id));
            let absent: Vec<Parent> = absent.copied().collect();
            assert!(self.replica.apply_without(&entry, &absent));
            self.log.push(entry);
        }
        self.prune(anchors);
        self.sync();
    }

    /// Applies held entries that are due.
    pub fn release_held(&mut self, counters: &mut Counters) {
        for entry in self.intake.take_due(self.clock_ms) {
            counters.due += 1;
            self.take(entry, counters);
        }
    }

    /// A session has ended: pending entries are offered again.
    pub fn settle(&mut self, counters: &mut Counters) {
        for entry in self.intake.settle() {
            self.take(entry, counters);
        }
        self.intake.settled();
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
        self.intake = new_intake();
        self.sync();
        self.replica = Replica::default();
        for entry in &self.log {
            let missing = self.replica.missing(entry);
            assert!(missing.is_none() || missing != entry.header.prev, "a chain");
            let parents = entry.header.parents.iter();
            let absent = parents.filter(|it| !self.replica.entries.contains_key(&it.id));
            let absent: Vec<Parent> = absent.copied().collect();
            let applied = self.replica.apply_without(entry, &absent);
            assert!(applied, "each entry is in the log once");
        }
        self.assert_keeps_acknowledged();
    }

    /// What a sync session asks: which of these are not here.
    pub fn lacks(&self, tips: Vec<(Author, FrontierTip)>) -> Vec<(Author, FrontierTip)> {
        let is_here = |author: &Author, tip| {
            let Ok(is_here) = self.intake.is_here(author, tip, &self.replica);
            is_here
        };
        let lacks = |(author, tip): &(Author, FrontierTip)| !is_here(author, *tip);
        tips.into_iter().filter(lacks).collect()
    }

    /// What a sync session asks: the entries of these ranges, in order.
    pub fn read(&self, ranges: &[MissingRange]) -> Vec<Bytes> {
        let mut read: BTreeMap<Order, &VerifiedEntry> = BTreeMap::new();
        for range in ranges {
            let begin = self.begins().seq(&range.author);
            assert!(range.after >= begin, "nobody asks for what was removed");
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

    /// Returns the root of its state, as it signs it.
    pub fn root(&self) -> TreeRoot {
        let mut root = StreamRoot::new(Levels::new(STORE));
        for (key, heads) in self.heads() {
            root.push(key, &RowHash::of(&encode_heads(heads)));
        }
        root.finish()
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
