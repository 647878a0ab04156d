//! A node without disk, clock or network: the real rules, and the definitions they must equal.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use lattice::{
    id::{Author, EntryId, Seq, StoreId},
    protocol::{
        chain::{Admission, Tip, admit},
        entry::{Entry, Header, Op, Parent, VerifiedEntry, sign},
        frontier::{Frontier, FrontierTip},
        heads::{Head, Heads},
        hlc::Hlc,
        intake::{Intake, IntakeLimits, Lookup, Place, Verdict},
        membership::Standing,
    },
};

/// Secrets of the three authors of all tests.
pub const AUTHOR_A: [u8; 32] = [0xa; 32];
pub const AUTHOR_B: [u8; 32] = [0xb; 32];
pub const AUTHOR_C: [u8; 32] = [0xc; 32];
pub const AUTHORS: [[u8; 32]; 3] = [AUTHOR_A, AUTHOR_B, AUTHOR_C];
pub const STORE: StoreId = StoreId([0x5; 16]);

pub fn key_of(secret: [u8; 32]) -> SigningKey {
    SigningKey::from_bytes(&secret)
}

pub fn author_of(secret: [u8; 32]) -> Author {
    Author(key_of(secret).verifying_key().to_bytes())
}

/// Returns a header of a first entry.
pub fn header(wall_ms: u64) -> Header {
    Header {
        store: STORE,
        seq: 1,
        prev: None,
        hlc: Hlc {
            wall_ms,
            counter: 0,
        },
        atomic: false,
        cause: None,
        parents: Vec::new(),
    }
}

pub fn put(key: &str, value: &str) -> Op {
    Op::Put {
        key: Bytes::from(key.to_owned()),
        value: Bytes::from(value.to_owned()),
        expires_ms: None,
    }
}

pub fn delete(key: &str) -> Op {
    Op::Delete {
        key: Bytes::from(key.to_owned()),
    }
}

/// What a node has applied.
#[derive(Debug, Clone, Default)]
pub struct Replica {
    // By branch, each with its own entries only.
    logs: BTreeMap<Author, Vec<Vec<Tip>>>,
    pub entries: BTreeMap<EntryId, VerifiedEntry>,
    pub frontier: Frontier,
    pub heads: BTreeMap<Bytes, Heads>,
    // What applied entries cite that was not here, with each of their keys.
    cited_ahead: BTreeSet<(Parent, Bytes)>,
}

impl Replica {
    /// Writes an entry on the first branch of `secret`'s own log, as a node would.
    pub fn write(&mut self, secret: [u8; 32], now_ms: u64, ops: Vec<Op>) -> VerifiedEntry {
        let parents: BTreeSet<Parent> = ops
            .iter()
            .filter_map(|op| self.heads.get(op.key()))
            .flat_map(|heads| heads.as_slice().iter().map(Head::as_parent))
            .collect();
        self.write_with(secret, now_ms, ops, parents)
    }

    /// Writes what closes a fork: no ops, and the tips of the author's other branches as parents.
    pub fn repair(&mut self, secret: [u8; 32], now_ms: u64) -> VerifiedEntry {
        let branches = self
            .logs
            .get(&author_of(secret))
            .map(Vec::as_slice)
            .unwrap_or_default();
        let others = branches.iter().skip(1).filter_map(|branch| branch.last());
        let parents = others
            .map(|tip| self.entries[&tip.id].as_parent())
            .collect();
        self.write_with(secret, now_ms, Vec::new(), parents)
    }

    fn write_with(
        &mut self,
        secret: [u8; 32],
        now_ms: u64,
        ops: Vec<Op>,
        parents: BTreeSet<Parent>,
    ) -> VerifiedEntry {
        let own = self
            .logs
            .get(&author_of(secret))
            .and_then(|branches| branches[0].last());
        let newest = parents
            .iter()
            .map(|parent| parent.hlc)
            .chain(own.map(|tip| tip.hlc))
            .max();
        let header = Header {
            seq: own.map_or(1, |tip| tip.seq + 1),
            prev: own.map(|tip| tip.id),
            hlc: newest.unwrap_or(Hlc::ZERO).next(now_ms).unwrap(),
            atomic: ops.len() > 1,
            parents: parents.into_iter().collect(),
            ..header(0)
        };
        let entry = sign(&key_of(secret), header, ops).unwrap();
        assert!(self.apply(&entry), "what a replica writes fits itself");
        entry
    }

    /// Returns what `entry` needs and is not here.
    pub fn missing(&self, entry: &VerifiedEntry) -> Option<EntryId> {
        let parents = entry.header.parents.iter().map(|parent| parent.id);
        entry
            .header
            .prev
            .into_iter()
            .chain(parents)
            .find(|id| !self.entries.contains_key(id))
    }

    /// Applies an entry of which nothing is missing. False when it was here.
    pub fn apply(&mut self, entry: &VerifiedEntry) -> bool {
        self.apply_without(entry, &[])
    }

    /// Applies an entry of which the parents `absent` are missing. False when it was here.
    pub fn apply_without(&mut self, entry: &VerifiedEntry, absent: &[Parent]) -> bool {
        let author = entry.author();
        let branches = self.logs.entry(author).or_default();
        let tips: Vec<Tip> = branches
            .iter()
            .map(|branch| *branch.last().unwrap())
            .collect();
        let at = |branch: usize, seq: Seq| {
            let mut entries = branches[branch].iter();
            Ok::<_, Infallible>(entries.find(|there| there.seq == seq).copied())
        };
        let here = Tip {
            seq: entry.header.seq,
            id: entry.id,
            hlc: entry.header.hlc,
        };
        let Ok(admission) = admit(&tips, None, entry, at);
        match admission.expect("histories of this model keep the rules") {
            Admission::Duplicate | Admission::Final => return false,
            Admission::Append { branch } => branches[branch].push(here),
            Admission::First | Admission::Fork { .. } => branches.push(vec![here]),
            Admission::Gap { from, through } => {
                panic!("missing {from}..={through}, yet prev is here")
            }
        }
        self.frontier.advance(
            author,
            entry.header.prev,
            FrontierTip {
                seq: here.seq,
                id: here.id,
            },
        );
        let ancestors = self.ancestors(entry).map(|entry| entry.id).collect();
        for op in &entry.ops {
            let heads = self.heads.entry(op.key().clone()).or_default();
            *heads = heads.apply(entry, op, &ancestors);
            let cited = (entry.as_parent(), op.key().clone());
            if self.cited_ahead.contains(&cited) {
                *heads = std::mem::take(heads).without(&entry.id);
            }
            let absent = absent.iter().map(|parent| (*parent, op.key().clone()));
            self.cited_ahead.extend(absent);
        }
        assert!(
            self.entries.insert(entry.id, entry.clone()).is_none(),
            "applied once"
        );
        true
    }

    fn ancestors(&self, entry: &VerifiedEntry) -> impl Iterator<Item = &VerifiedEntry> {
        ancestors(&self.entries, entry)
    }

    /// Panics unless heads and frontier are what their definitions say of the entries here.
    pub fn assert_equals_definitions(&self) {
        for (key, heads) in &self.heads {
            assert_eq!(
                heads,
                &heads_by_definition(key, &self.entries),
                "heads of {key:?}"
            );
        }
        let keys = self
            .entries
            .values()
            .flat_map(|entry| entry.ops.iter().map(Op::key));
        assert_eq!(keys.collect::<BTreeSet<_>>(), self.heads.keys().collect());
        assert_eq!(self.frontier, frontier_by_definition(self.entries.values()));
    }
}

/// A replica answers intake: every author counts, and nothing of it is damaged.
impl Lookup for Replica {
    type Error = Infallible;

    fn tips(&self, author: &Author) -> Vec<Tip> {
        let branches = self.logs.get(author).into_iter().flatten();
        branches.map(|branch| *branch.last().unwrap()).collect()
    }

    fn at(&self, author: &Author, branch: usize, seq: Seq) -> Result<Place, Infallible> {
        let mut entries = self.logs[author][branch].iter();
        let found = entries.find(|there| there.seq == seq);
        Ok(found.map_or(Place::Free, |there| Place::Entry(*there)))
    }

    fn is_hole(&self, _author: &Author, _seq: Seq) -> Result<bool, Infallible> {
        Ok(false)
    }

    fn heads(&self, entry: &Entry) -> Result<Vec<Heads>, Infallible> {
        let keys = entry.ops.iter().map(Op::key);
        Ok(keys
            .map(|key| self.heads.get(key).cloned().unwrap_or_default())
            .collect())
    }

    fn standing(&self, _author: &Author) -> Standing {
        Standing::Counts
    }

    fn takes_branch(&self, _author: &Author, _seq: Seq, _tips: &[Tip]) -> bool {
        true
    }

    fn is_cut_off(&self, _author: &Author) -> bool {
        false
    }

    fn leads(
        &self,
        _author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
    ) -> Result<Option<bool>, Infallible> {
        let Some(newest) = self.entries.get(&tip.id) else {
            return Ok(None);
        };
        let on = |before: &VerifiedEntry| before.id == entry.id;
        Ok(Some(self.ancestors(newest).any(on)))
    }
}

/// A replica behind the intake that ships.
#[derive(Debug)]
pub struct Node {
    pub replica: Replica,
    pub intake: Intake,
}

impl Node {
    pub fn new() -> Self {
        Self {
            replica: Replica::default(),
            intake: Intake::new(false, IntakeLimits::default()),
        }
    }

    /// Takes an entry in any order, as often as it comes.
    pub fn receive(&mut self, entry: &VerifiedEntry) {
        let mut ready = VecDeque::from([entry.clone()]);
        while let Some(entry) = ready.pop_front() {
            let Ok(verdict) = self.intake.offer(&entry, 0, &self.replica);
            match verdict {
                Verdict::Append { before, .. } | Verdict::Begin { before, .. } => {
                    let applied = self.replica.apply_without(&entry, &before.absent);
                    assert!(applied, "it was not here");
                    ready.extend(self.intake.staged(&entry));
                }
                Verdict::Duplicate | Verdict::AwaitsEntry(_) => {}
                verdict => panic!("{verdict:?}"),
            }
        }
        self.intake.commit();
        assert_eq!(self.intake.dropped(), 0, "there is room");
    }
}

/// Returns the heads of all keys after `entries`, which are whole: nothing before one is missing.
pub fn heads_after<'a>(
    entries: impl IntoIterator<Item = &'a VerifiedEntry>,
) -> BTreeMap<Bytes, Heads> {
    let entries = entries.into_iter().map(|entry| (entry.id, entry.clone()));
    let entries: BTreeMap<_, _> = entries.collect();
    let mut sorted: Vec<_> = entries.values().collect();
    sorted.sort_by_key(|entry| entry.order());
    let mut state: BTreeMap<Bytes, Heads> = BTreeMap::new();
    for entry in sorted {
        let before = ancestors(&entries, entry).map(|before| before.id).collect();
        for op in &entry.ops {
            let heads = state.entry(op.key().clone()).or_default();
            *heads = heads.apply(entry, op, &before);
        }
    }
    state
}

fn ancestors<'a>(
    entries: &'a BTreeMap<EntryId, VerifiedEntry>,
    entry: &VerifiedEntry,
) -> impl Iterator<Item = &'a VerifiedEntry> {
    let before = |entry: &VerifiedEntry| entries.get(&entry.header.prev?);
    std::iter::successors(before(entry), move |entry| before(entry))
}

/// The entries touching `key` that no entry touching it cites or comes after on its branch.
pub fn heads_by_definition(key: &Bytes, entries: &BTreeMap<EntryId, VerifiedEntry>) -> Heads {
    let touching: Vec<(&VerifiedEntry, &Op)> = entries
        .values()
        .filter_map(|entry| Some((entry, entry.ops.iter().find(|op| op.key() == key)?)))
        .collect();
    let mut superseded = BTreeSet::new();
    for (entry, _) in &touching {
        superseded.extend(ancestors(entries, entry).map(|before| before.id));
        let cites = |before: &&VerifiedEntry| entry.header.parents.contains(&before.as_parent());
        superseded.extend(entries.values().filter(cites).map(|before| before.id));
    }
    let heads = touching
        .iter()
        .filter(|(entry, _)| !superseded.contains(&entry.id));
    Heads::new(heads.map(|(entry, op)| Head::of(entry, op)).collect())
}

/// The entries that are no other's prev.
pub fn frontier_by_definition<'a>(
    entries: impl Iterator<Item = &'a VerifiedEntry> + Clone,
) -> Frontier {
    let prevs: BTreeSet<EntryId> = entries
        .clone()
        .filter_map(|entry| entry.header.prev)
        .collect();
    entries
        .filter(|entry| !prevs.contains(&entry.id))
        .map(|entry| {
            (
                entry.author(),
                FrontierTip {
                    seq: entry.header.seq,
                    id: entry.id,
                },
            )
        })
        .collect()
}
