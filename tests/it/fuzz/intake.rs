//! Intake, and the heads that follow from it: hostile entries in any order, with members, clocks and
//! holes that change, and pools that hold little.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
};

use bytes::Bytes;
use lattice::{
    id::{Author, EntryId, Seq},
    limits::{DRIFT_MS_MAX, PARENT_WAIT_MS, STAMP_MS_MAX},
    protocol::{
        chain::Tip,
        entry::{Entry, Op, Parent, VerifiedEntry, sign},
        fork::Fork,
        frontier::FrontierTip,
        heads::Heads,
        hlc::Hlc,
        intake::{Intake, IntakeLimits, Lookup, Place, Verdict},
        membership::{Members, Standing, spent::is_spent},
    },
};

use crate::support::{
    model::{AUTHOR_A, AUTHOR_B, AUTHORS, Replica, author_of, delete, header, key_of, put},
    mutator::{number, soaked},
    random::{Random, for_each_seed},
};

const NOW_MS: u64 = 1_700_000_000_000;

/// What a node has, and how it sees the authors.
#[derive(Debug, Clone)]
struct World {
    replica: Replica,
    standing: BTreeMap<Author, Standing>,
    // Places that cannot be read now. They come back.
    holes: BTreeSet<(Author, Seq)>,
}

impl Lookup for World {
    type Error = Infallible;

    fn tips(&self, author: &Author) -> Vec<Tip> {
        self.replica.tips(author)
    }

    fn at(&self, author: &Author, branch: usize, seq: Seq) -> Result<Place, Infallible> {
        let place = self.replica.at(author, branch, seq)?;
        Ok(match place {
            Place::Entry(_) if self.holes.contains(&(*author, seq)) => Place::Unreadable,
            place => place,
        })
    }

    fn is_hole(&self, author: &Author, seq: Seq) -> Result<bool, Infallible> {
        Ok(self.holes.contains(&(*author, seq)))
    }

    fn heads(&self, entry: &Entry) -> Result<Vec<Heads>, Infallible> {
        self.replica.heads(entry)
    }

    fn standing(&self, author: &Author) -> Standing {
        self.standing
            .get(author)
            .cloned()
            .unwrap_or(Standing::Unknown)
    }

    fn takes_branch(&self, _author: &Author, _seq: Seq, tips: &[Tip]) -> bool {
        !is_spent(tips.len() - 1)
    }

    fn is_cut_off(&self, author: &Author) -> bool {
        matches!(self.standing(author), Standing::Through(_))
    }

    fn leads(
        &self,
        author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
    ) -> Result<Option<bool>, Infallible> {
        self.replica.leads(author, entry, tip)
    }
}

#[derive(Debug, Default)]
struct Seen {
    verdicts: BTreeMap<&'static str, u64>,
    absent: u64,
    forks: u64,
    dropped: u64,
}

/// A node with an intake, and the entries of the group that it writes.
struct Node {
    world: World,
    intake: Intake,
    limits: IntakeLimits,
    now_ms: u64,
    // The world before the group.
    before: World,
    staged: Vec<VerifiedEntry>,
    // Entries offered for it. Those that it released are not among them.
    offered: Vec<VerifiedEntry>,
    // Since when each entry waits for another one, and whether a sync has just ended.
    waits: BTreeMap<EntryId, u64>,
    is_settling: bool,
}

impl Node {
    fn new(limits: IntakeLimits, is_root: bool) -> Self {
        let world = World {
            replica: Replica::default(),
            standing: BTreeMap::new(),
            holes: BTreeSet::new(),
        };
        Self {
            before: world.clone(),
            intake: Intake::new(is_root, limits),
            world,
            limits,
            now_ms: NOW_MS,
            staged: Vec::new(),
            offered: Vec::new(),
            waits: BTreeMap::new(),
            is_settling: false,
        }
    }

    /// Offers an entry as the store does. Returns whether it is staged, or was before.
    fn offer(&mut self, entry: &VerifiedEntry, seen: &mut Seen) -> bool {
        let dropped = self.intake.dropped();
        let Ok(verdict) = self.intake.offer(entry, self.now_ms, &self.world);
        let name = match &verdict {
            Verdict::Append { .. } => "append",
            Verdict::Begin { fork: true, .. } => "fork",
            Verdict::Begin { .. } => "first",
            Verdict::Duplicate => "duplicate",
            Verdict::Repairs => "repairs",
            Verdict::AwaitsEntry(_) => "awaits entry",
            Verdict::AwaitsClock { .. } => "awaits clock",
            Verdict::AwaitsMember => "awaits member",
            Verdict::AwaitsVoucher => "awaits voucher",
            Verdict::Run(_) => "run",
            Verdict::Refused(_) => "refused",
        };
        *seen.verdicts.entry(name).or_default() += 1;
        assert!(self.intake.dropped() >= dropped);
        self.assert_bounded();
        match verdict {
            Verdict::Append { before, .. } | Verdict::Begin { before, .. } => {
                self.assert_may_count(entry);
                self.assert_may_lack(entry, &before.absent);
                seen.absent += before.absent.len() as u64;
                let applied = self.world.replica.apply_without(entry, &before.absent);
                assert!(applied, "{} comes twice", entry.id);
                self.staged.push(entry.clone());
                let released = self.intake.staged(entry);
                for entry in released {
                    self.offer(&entry, seen);
                }
                true
            }
            Verdict::Run(run) => {
                assert_eq!(run.last().map(|last| last.id), Some(entry.id));
                // All of it has waited as long as its last entry.
                if self.has_waited(entry) {
                    self.waits.extend(run.iter().map(|entry| (entry.id, 0)));
                }
                for entry in &run {
                    assert!(self.offer(entry, seen), "a run is staged whole");
                }
                true
            }
            Verdict::Duplicate | Verdict::Repairs => {
                let is_here = self.world.replica.entries.contains_key(&entry.id);
                let place = (entry.author(), entry.header.seq);
                assert!(is_here || self.world.holes.contains(&place));
                true
            }
            Verdict::AwaitsClock { due_ms } => {
                assert!(due_ms > self.now_ms);
                false
            }
            Verdict::AwaitsEntry(_) => {
                // The clock goes back, and an entry that was dropped begins to wait again.
                let since = self.waits.entry(entry.id).or_insert(self.now_ms);
                *since = self.now_ms.min(*since);
                false
            }
            Verdict::AwaitsMember | Verdict::AwaitsVoucher | Verdict::Refused(_) => false,
        }
    }

    // Checks that an entry may be applied without `absent`: parents that count are waited for, at least
    // for a while; others until the end of a sync, but for those of an author that was cut off.
    fn assert_may_lack(&self, entry: &VerifiedEntry, absent: &[Parent]) {
        for parent in absent {
            let place = (parent.author, parent.seq, parent.id);
            let mut known = self.world.replica.entries.values();
            let is_here = known.any(|it| (it.author(), it.header.seq, it.id) == place);
            assert!(!is_here || self.world.holes.contains(&(place.0, place.1)));
            let may = match self.world.standing(&parent.author) {
                Standing::Counts => self.is_settling && self.has_waited(entry),
                Standing::Unknown | Standing::Reader => self.is_settling,
                Standing::Through(_) | Standing::Spent => true,
            };
            assert!(may, "{} does not wait for {parent:?}", entry.id);
        }
    }

    fn has_waited(&self, entry: &VerifiedEntry) -> bool {
        let since = self.waits.get(&entry.id);
        since.is_some_and(|since| self.now_ms.saturating_sub(*since) >= PARENT_WAIT_MS)
    }

    fn assert_may_count(&self, entry: &VerifiedEntry) {
        let standing = self.world.standing(&entry.author());
        assert!(matches!(standing, Standing::Counts | Standing::Through(_)));
        let ahead_ms = entry.header.hlc.wall_ms.saturating_sub(self.now_ms);
        assert!(ahead_ms <= DRIFT_MS_MAX, "it is far ahead");
    }

    fn assert_bounded(&self) {
        assert!(self.intake.pending().bytes() <= self.limits.pending_bytes_max);
        let held = self.intake.held().iter();
        let held: usize = held.map(|(_, entry)| entry.bytes()).sum();
        assert!(held <= self.limits.held_bytes_max);
    }

    fn offer_all(&mut self, entries: Vec<VerifiedEntry>, seen: &mut Seen) {
        for entry in entries {
            self.receive(&entry, seen);
        }
    }

    /// Offers an entry that is not in the group yet.
    fn receive(&mut self, entry: &VerifiedEntry, seen: &mut Seen) {
        self.offered.push(entry.clone());
        self.offer(entry, seen);
    }

    // Ends the group as the store does: odd entries at the end of a branch are set aside, and the
    // group is written without them.
    fn commit(&mut self, seen: &mut Seen) {
        let is_vouched = |odd: &VerifiedEntry| {
            let mut next = odd.id;
            while let Some(after) = self
                .staged
                .iter()
                .find(|it| it.header.prev == Some(next) && it.author() == odd.author())
            {
                if after.verifies() {
                    return true;
                }
                next = after.id;
            }
            false
        };
        let staged = self.staged.iter();
        let odd: Vec<VerifiedEntry> = staged
            .filter(|entry| !entry.verifies() && !is_vouched(entry))
            .cloned()
            .collect();
        if !odd.is_empty() {
            let mut offered = std::mem::take(&mut self.offered);
            self.roll_back();
            offered.retain(|entry| odd.iter().all(|odd| odd.id != entry.id));
            for entry in odd {
                self.intake.set_aside(entry);
            }
            self.offer_all(offered, seen);
            return self.commit(seen);
        }
        self.intake.commit();
        self.staged.clear();
        self.offered.clear();
        self.before = self.world.clone();
        assert!(!self.intake.is_staging());
    }

    fn roll_back(&mut self) {
        self.intake.roll_back();
        self.staged.clear();
        self.offered.clear();
        self.world.replica = self.before.replica.clone();
    }

    fn change_members(&mut self, members: &Members, random: &mut Random) {
        let standings = [
            Standing::Unknown,
            Standing::Reader,
            Standing::Counts,
            Standing::Counts,
            // Kept through nothing, and through anything.
            Standing::Through(Default::default()),
            members.standing(&crate::support::model::STORE, &author_of(AUTHOR_B)),
        ];
        for secret in AUTHORS {
            let standing = standings[random.below(standings.len())].clone();
            self.world.standing.insert(author_of(secret), standing);
        }
        self.before.standing = self.world.standing.clone();
    }

    /// Everybody counts, the clock is at its end, and all entries are offered until none is new.
    fn finish(&mut self, entries: &[VerifiedEntry], seen: &mut Seen) {
        self.world.holes.clear();
        for secret in AUTHORS {
            self.world
                .standing
                .insert(author_of(secret), Standing::Counts);
        }
        self.before = self.world.clone();
        self.now_ms = u64::MAX;
        let due = self.intake.take_due(u64::MAX);
        self.offer_all(due, seen);
        self.commit(seen);
        // As syncs bring them: causes before effects. A pass in which none is new may still set entries
        // aside.
        let mut entries = entries.to_vec();
        entries.sort_by_key(|entry| entry.order());
        let mut quiet = 0;
        while quiet < 2 {
            let count = self.world.replica.entries.len();
            for entry in &entries {
                self.receive(entry, seen);
                self.commit(seen);
            }
            let is_quiet = self.world.replica.entries.len() == count;
            quiet = if is_quiet { quiet + 1 } else { 0 };
        }
        assert_eq!(self.intake.next_due_ms(), None, "no entry is held");
        self.world.replica.assert_equals_definitions();
    }
}

fn parent(of: &[VerifiedEntry], random: &mut Random) -> Parent {
    let mut parent = of[random.below(of.len())].as_parent();
    match random.below(12) {
        0 => parent.seq = parent.seq.saturating_add(1),
        1 => parent.author = author_of(AUTHORS[random.below(3)]),
        2 => parent.hlc.wall_ms = parent.hlc.wall_ms.saturating_sub(1),
        3 => parent.id = EntryId([9; 32]),
        _exact => {}
    }
    parent
}

/// Entries that three authors may sign: forks, gaps, false references, stamps at the ends, odd
/// signatures.
fn hostile_entries(random: &mut Random) -> Vec<VerifiedEntry> {
    let mut all: Vec<VerifiedEntry> = Vec::new();
    for _ in 0..8 + random.below(24) {
        let secret = AUTHORS[random.below(3)];
        let author = author_of(secret);
        let own: Vec<_> = all
            .iter()
            .filter(|it| it.author() == author)
            .cloned()
            .collect();
        let before = match random.below(8) {
            0 => None,
            1 => own.get(random.below(own.len().max(1))).cloned(),
            _newest => own.last().cloned(),
        };
        let mut header = header(0);
        header.seq = before
            .as_ref()
            .map_or(1, |before| before.header.seq.saturating_add(1));
        header.prev = before.as_ref().map(|before| before.id);
        if header.prev.is_some() && random.once_in(16) {
            header.prev = Some(EntryId([5; 32]));
        }
        if header.prev.is_some() && random.once_in(16) {
            header.seq = number(random).max(2);
        }
        let newest = before
            .as_ref()
            .map_or(Hlc::ZERO, |before| before.header.hlc);
        let wall_ms = match random.below(12) {
            0 => number(random).min(STAMP_MS_MAX),
            1 => NOW_MS + DRIFT_MS_MAX + 1 + random.bits() % 1000,
            _near => NOW_MS + random.bits() % 1000,
        };
        header.hlc = newest.next(wall_ms).unwrap_or(newest);
        if !all.is_empty() && random.once_in(2) {
            let cited = (0..1 + random.below(3)).map(|_| parent(&all, random));
            let cited: BTreeSet<Parent> = cited.collect();
            if random.once_in(2) {
                let above = cited.iter().map(|parent| parent.hlc).max().unwrap();
                header.hlc = header.hlc.max(above.next(0).unwrap_or(above));
            }
            let is_before = |parent: &Parent| parent.hlc < header.hlc && parent.seq > 0;
            header.parents = cited.into_iter().filter(is_before).collect();
        }
        let mut ops = Vec::new();
        for key in ["/a", "/b", "/c"] {
            match random.below(5) {
                0 | 1 => ops.push(put(key, &random.bits().to_string())),
                2 => ops.push(delete(key)),
                _none => {}
            }
        }
        if random.once_in(20) {
            ops.push(Op::Put {
                key: "/large".into(),
                value: Bytes::from(vec![7; 3000]),
                expires_ms: Some(number(random)),
            });
        }
        let Ok(entry) = sign(&key_of(secret), header, ops) else {
            continue;
        };
        if random.once_in(5) {
            let mut signed = entry.signed.clone();
            signed.signature[4] ^= 1;
            all.push(signed.parse().unwrap().vouched());
        } else {
            all.push(entry);
        }
    }
    all
}

fn limits(random: &mut Random) -> IntakeLimits {
    let small = |random: &mut Random| 1000 + random.below(20_000);
    IntakeLimits {
        pending_bytes_max: small(random),
        held_bytes_max: small(random),
        unvouched_bytes_max: small(random),
        strangers_bytes_max: small(random),
    }
}

#[test]
fn n3_b6_b7_t3_hostile_entries_in_any_order() {
    let mut seen = Seen::default();
    for_each_seed(1..=soaked(3000), |random| {
        let entries = hostile_entries(random);
        let forks = entries.iter().zip(entries.iter().skip(1));
        seen.forks += forks
            .filter_map(|(one, other)| Fork::prove(one, other))
            .count() as u64;
        let members = Members::founded(author_of(AUTHOR_A), crate::support::model::STORE);
        let mut nodes = Vec::new();
        for _ in 0..2 {
            let mut node = Node::new(limits(random), random.once_in(4));
            node.change_members(&members, random);
            for _step in 0..entries.len() * 3 {
                match random.below(24) {
                    0 => node.change_members(&members, random),
                    1 => node.now_ms = NOW_MS + random.bits() % (2 * DRIFT_MS_MAX),
                    2 => {
                        let due = node.intake.take_due(node.now_ms);
                        node.offer_all(due, &mut seen);
                        node.commit(&mut seen);
                    }
                    3 => {
                        let authors = AUTHORS.map(author_of);
                        let admitted = node.intake.take_admitted(&authors);
                        node.offer_all(admitted, &mut seen);
                        node.commit(&mut seen);
                    }
                    4 => {
                        let pending = node.intake.settle();
                        node.is_settling = true;
                        node.offer_all(pending, &mut seen);
                        node.commit(&mut seen);
                        node.is_settling = false;
                        node.intake.settled();
                    }
                    5 => node.roll_back(),
                    6 => {
                        let place = (author_of(AUTHORS[random.below(3)]), 1 + random.bits() % 4);
                        // A hole is of entries that are in the log.
                        if node.world.replica.frontier.seq(&place.0) >= place.1 {
                            node.world.holes.insert(place);
                        }
                        node.before.holes = node.world.holes.clone();
                    }
                    7 => {
                        node.world.holes.clear();
                        node.before.holes.clear();
                    }
                    8..=12 => node.commit(&mut seen),
                    _offer => {
                        let entry = &entries[random.below(entries.len())];
                        node.receive(entry, &mut seen);
                    }
                }
            }
            node.commit(&mut seen);
            node.finish(&entries, &mut seen);
            seen.dropped += node.intake.dropped();
            nodes.push(node);
        }
        let [one, other] = nodes.try_into().ok().unwrap();
        let ids = |node: &Node| {
            node.world
                .replica
                .entries
                .keys()
                .copied()
                .collect::<BTreeSet<_>>()
        };
        // Entries that were let in while others did not count stay: a store counts those again.
        if ids(&one) == ids(&other) {
            assert_eq!(one.world.replica.heads, other.world.replica.heads);
            assert_eq!(one.world.replica.frontier, other.world.replica.frontier);
        }
    });
    println!("{seen:?}");
    if std::env::var_os("SEED").is_none() {
        assert_eq!(seen.verdicts.len(), 11, "{:?}", seen.verdicts);
        assert!(seen.absent > 0 && seen.dropped > 0 && seen.forks > 0);
    }
}

/// Without changes of members, with room for all: the same entries apply in any order.
#[test]
fn n3_same_entries_apply_in_any_order() {
    let mut applied = 0;
    for_each_seed(1..=soaked(1500), |random| {
        let mut entries = hostile_entries(random);
        let mut seen = Seen::default();
        let mut found = Vec::new();
        for _ in 0..3 {
            random.shuffle(&mut entries);
            let mut node = Node::new(IntakeLimits::default(), false);
            for secret in AUTHORS {
                node.world
                    .standing
                    .insert(author_of(secret), Standing::Counts);
            }
            node.before = node.world.clone();
            let mut waiting: VecDeque<_> = entries.iter().collect();
            while let Some(entry) = waiting.pop_front() {
                node.receive(entry, &mut seen);
                if random.once_in(3) {
                    node.commit(&mut seen);
                }
            }
            node.commit(&mut seen);
            node.finish(&entries, &mut seen);
            let replica = &node.world.replica;
            applied += replica.entries.len();
            let ids: Vec<EntryId> = replica.entries.keys().copied().collect();
            found.push((ids, replica.heads.clone(), replica.frontier.clone()));
        }
        assert_eq!(found[0], found[1]);
        assert_eq!(found[0], found[2]);
    });
    assert!(applied > 0);
}
