//! The record of a history: all entries at its end, and each step of each watcher and taker.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lattice::{
    id::{Author, EntryId, Seq},
    protocol::{
        change::{Change, EntryRef, Kind, Origin},
        cursor::Cursor,
        entry::{Op, VerifiedEntry},
        frontier::{Frontier, FrontierTip, MissingRange},
        heads::Heads,
    },
};

use crate::support::model::heads_after;

/// An op of an entry.
pub type OpId = (EntryId, u32);

/// For each author, the newest seq that an entry depends on.
pub type Past = BTreeMap<Author, Seq>;

/// All entries there are. No author has forked.
#[derive(Debug, Default)]
pub struct Truth {
    pub entries: BTreeMap<EntryId, Known>,
    places: BTreeMap<(Author, Seq), EntryId>,
    /// At the end, expiries through this time were delivered.
    pub expired_through_ms: u64,
    /// A log was damaged for a while: a watch may report a gap.
    pub damaged: bool,
}

#[derive(Debug)]
pub struct Known {
    pub entry: VerifiedEntry,
    /// The entries it depends on, without itself.
    pub past: Past,
}

impl Truth {
    pub fn new(log: impl IntoIterator<Item = VerifiedEntry>) -> Self {
        let mut log: Vec<_> = log.into_iter().collect();
        log.sort_by_key(|entry| entry.order());
        let mut truth = Self::default();
        for entry in log {
            let mut past = Past::new();
            let causes = entry.header.prev.into_iter();
            for cause in causes.chain(entry.header.parents.iter().map(|parent| parent.id)) {
                // Order is a linear extension of causality, and a log is causally closed.
                let cause = &truth.entries[&cause];
                join(&mut past, &cause.past);
                let at = past.entry(cause.entry.author()).or_default();
                *at = (*at).max(cause.entry.header.seq);
            }
            let place = (entry.author(), entry.header.seq);
            assert_eq!(truth.places.insert(place, entry.id), None, "a fork");
            truth.entries.insert(entry.id, Known { entry, past });
        }
        truth
    }

    pub fn at(&self, author: Author, seq: Seq) -> &VerifiedEntry {
        &self.entries[&self.places[&(author, seq)]].entry
    }

    /// Returns true if this entry put this key.
    pub fn has_put(&self, (key, id): &(&Bytes, &EntryId)) -> bool {
        let puts = |op: &Op| op.key() == *key && matches!(op, Op::Put { .. });
        let known = self.entries.get(*id);
        known.is_some_and(|known| known.entry.ops.iter().any(puts))
    }

    /// Returns the entries that `after` does not cover and `through` does.
    pub fn between(&self, after: &Frontier, through: &Frontier) -> Vec<&VerifiedEntry> {
        let ranges = through.iter().map(|(author, tip)| {
            let seqs = after.seq(&author) + 1..=tip.seq;
            seqs.map(move |seq| self.at(author, seq))
        });
        ranges.flatten().collect()
    }

    /// Returns the frontier of all entries.
    pub fn frontier(&self) -> Frontier {
        let mut frontier = Frontier::default();
        for ((author, seq), id) in &self.places {
            frontier.replace(*author, FrontierTip { seq: *seq, id: *id });
        }
        frontier
    }

    /// Returns the heads of all keys after the entries that `frontier` covers.
    pub fn heads(&self, frontier: &Frontier) -> BTreeMap<Bytes, Heads> {
        heads_after(self.between(&Frontier::default(), frontier))
    }

    /// Returns the live winners of the keys in `scope`, at a position.
    pub fn live(&self, scope: &Scope, at: &Cursor) -> BTreeMap<Bytes, EntryId> {
        let winners = self
            .heads(&at.frontier)
            .into_iter()
            .filter_map(|(key, heads)| {
                let winner = heads.winner()?;
                let wanted = scope.wants(&key) && winner.is_live(at.expired_through_ms);
                wanted.then_some((key, winner.id))
            });
        winners.collect()
    }
}

pub fn join(past: &mut Past, other: &Past) {
    for (author, seq) in other {
        let at = past.entry(*author).or_default();
        *at = (*at).max(*seq);
    }
}

/// The selection of a watch.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    pub prefix: Bytes,
    pub keys_only: bool,
    /// A change that is superseded before its delivery is left out.
    pub latest: bool,
}

impl Scope {
    pub fn wants(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix)
    }

    /// Returns the ops of an entry that are in scope.
    pub fn ops_of<'a>(&'a self, entry: &'a VerifiedEntry) -> impl Iterator<Item = OpId> + 'a {
        let ops = (0_u32..).zip(&entry.ops);
        ops.filter(|(_, op)| self.wants(op.key()))
            .map(|(index, _)| (entry.id, index))
    }
}

/// A change, as it was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub key: Bytes,
    pub kind: Kind,
    pub value: Option<Bytes>,
    pub expires_ms: Option<u64>,
    pub entry: EntryId,
    pub author: Author,
    pub seq: Seq,
    pub op: u32,
    pub atomic: bool,
    pub late: bool,
    /// Part of the state after a gap.
    pub state: bool,
}

impl Told {
    /// A live key of the state after a gap, whose value is damaged.
    pub fn unreadable(key: Bytes, entry: &EntryRef) -> Self {
        Self {
            key,
            kind: Kind::Put,
            value: None,
            expires_ms: None,
            entry: entry.id,
            author: entry.author,
            seq: entry.seq,
            op: 0,
            atomic: false,
            late: false,
            state: true,
        }
    }

    pub fn op_id(&self) -> OpId {
        (self.entry, self.op)
    }

    /// Returns true if the value expires by the time of the cursor.
    pub fn lapses(&self, cursor: &Cursor) -> bool {
        let is_due = |ms| ms <= cursor.expired_through_ms;
        !self.late && self.expires_ms.is_some_and(is_due)
    }

    /// Returns true for an op of an entry, false for an expiry and for the state after a gap.
    pub fn is_op(&self) -> bool {
        matches!(self.kind, Kind::Put | Kind::Delete) && !self.state
    }
}

impl From<&Change> for Told {
    fn from(change: &Change) -> Self {
        Self {
            key: change.key.clone(),
            kind: change.kind,
            value: change.value.clone(),
            expires_ms: change.expires_ms,
            entry: change.entry.id,
            author: change.entry.author,
            seq: change.entry.seq,
            op: change.op_index,
            atomic: change.atomic,
            late: change.late,
            state: change.origin == Origin::Initial,
        }
    }
}

/// One step of a watcher.
#[derive(Debug, Clone)]
pub enum Step {
    /// The watcher began after its cursor, at a replica that had published this.
    Began {
        at: usize,
        had: Frontier,
    },
    /// The replica misses some of the cursor and reports which entries: it fails, or it waits.
    Behind {
        missing: Vec<MissingRange>,
    },
    /// A heartbeat of a replica that misses some of the cursor and does not report which entries.
    #[cfg_attr(
        not(feature = "cli"),
        expect(dead_code, reason = "recorded of daemons")
    )]
    Waits,
    Told(Told),
    /// A heartbeat.
    Progress,
    CaughtUp,
    Gap,
    /// The replica was closed, killed or lost its power, and the watch ended with an error; or it was
    /// paused, and the watch given up because no heartbeat came.
    Ended,
    /// The watch ended although its replica was running.
    Broke(String),
    /// No event came, not even a heartbeat.
    Silent,
}

/// All steps of one watcher over the replicas it visited, each with the cursor after it.
#[derive(Debug)]
pub struct Lineage {
    pub scope: Scope,
    pub begin: Cursor,
    pub steps: Vec<(Step, Cursor)>,
}

impl Lineage {
    /// Returns the changes delivered, each with its place among the steps. When the watcher
    /// stopped inside a batch or a millisecond, the part already delivered comes again and is left
    /// out; so is everything before the point where all history was delivered again.
    pub fn told(&self) -> Vec<(usize, &Told)> {
        let mut told: Vec<(usize, &Told)> = Vec::new();
        for (place, (step, cursor)) in self.steps.iter().enumerate() {
            match step {
                Step::Told(change) => told.push((place, change)),
                Step::Began { .. } => {
                    told.retain(|(_, change)| !is_open(change, cursor));
                }
                _other => {}
            }
        }
        told
    }

    /// Returns the changes delivered after a step.
    pub fn told_after(&self, place: usize) -> impl Iterator<Item = &Told> {
        let steps = self.steps[place..].iter();
        steps.filter_map(|(step, _)| match step {
            Step::Told(told) => Some(told),
            _other => None,
        })
    }

    /// Like `told`, without expiries and without the state after a gap.
    pub fn ops(&self) -> impl Iterator<Item = (usize, &Told)> {
        self.told().into_iter().filter(|(_, told)| told.is_op())
    }

    /// Returns the cursor before a step.
    pub fn before(&self, place: usize) -> &Cursor {
        match place.checked_sub(1) {
            Some(before) => &self.steps[before].1,
            None => &self.begin,
        }
    }

    /// Returns true if the watcher resumed after an incomplete state, with an empty cursor.
    pub fn is_told_anew(&self) -> bool {
        let gap = |(step, _): &(Step, Cursor)| matches!(step, Step::Gap);
        covers_nothing(self.end()) && self.steps.iter().any(gap)
    }

    pub fn end(&self) -> &Cursor {
        self.before(self.steps.len())
    }

    /// Returns one line for each step, to search for the fault.
    pub fn lines(&self) -> String {
        let mut lines = String::new();
        for (place, (step, cursor)) in self.steps.iter().enumerate() {
            let step = match step {
                Step::Told(told) => format!(
                    "{} {:?} of {} {}.{} until {:?}, late {}",
                    told.kind.name(),
                    told.key,
                    told.author,
                    told.seq,
                    told.op,
                    told.expires_ms,
                    told.late
                ),
                Step::Began { at, .. } => format!("began at replica {at}"),
                other => format!("{other:?}"),
            };
            let seqs: Vec<_> = cursor.frontier.iter().map(|(_, tip)| tip.seq).collect();
            let ms = cursor.expired_through_ms;
            lines += &format!("{place}: {step}; then at {seqs:?}, expired through {ms}\n");
        }
        lines
    }
}

// True for a change that a resume delivers again: part of a batch or of a millisecond, a value
// that had expired on arrival and whose expiry was not delivered, or everything where all history
// is delivered again. For all other changes the checker requires that the cursor covers them.
fn is_open(change: &Told, cursor: &Cursor) -> bool {
    match change.kind {
        Kind::Expire => !change.lapses(cursor) || !covers_op(cursor, change),
        Kind::Put | Kind::Delete => !change.state && !covers_op(cursor, change),
        Kind::Retract | Kind::Gap => false,
    }
}

/// Returns true for the cursor of a watcher that got nothing.
pub fn covers_nothing(cursor: &Cursor) -> bool {
    cursor.frontier.is_empty() && cursor.partial.is_none()
}

/// Returns true if the cursor covers the op of the change.
pub fn covers_op(cursor: &Cursor, told: &Told) -> bool {
    let in_part = cursor.partial.is_some_and(|partial| {
        (partial.author, partial.tip.seq) == (told.author, told.seq) && partial.ops > told.op
    });
    in_part || cursor.frontier.seq(&told.author) >= told.seq
}

/// One step of a durable consumer and its taker.
#[derive(Debug, Clone)]
pub enum Work {
    Given {
        op: OpId,
        key: Bytes,
        attempt: u32,
    },
    /// The delivery was given back or forgotten.
    Left(OpId),
    Acked(OpId),
    /// The node ended during the ack, so the delivery may or may not be acknowledged.
    #[cfg_attr(
        not(feature = "cli"),
        expect(dead_code, reason = "recorded of daemons")
    )]
    AckLost(OpId),
    /// All answers before this step are durable.
    Flushed,
    /// Its node was closed or died.
    Died {
        clean: bool,
    },
    /// The entry that a change causes was written now or earlier.
    Wrote {
        op: OpId,
        entry: EntryId,
    },
}

/// A durable consumer.
#[derive(Debug)]
pub struct Record {
    pub name: &'static str,
    pub author: Author,
    pub scope: Scope,
    /// These entries existed before the consumer.
    pub since: Frontier,
    /// The taker writes an entry for each change.
    pub writes: bool,
    pub work: Vec<Work>,
}

impl Record {
    /// Returns one line for each step, to search for the fault.
    pub fn lines(&self) -> String {
        let works = self.work.iter().enumerate();
        works
            .map(|(place, work)| format!("{place}: {work:?}\n"))
            .collect()
    }
}

/// The full record of a history.
#[derive(Debug)]
pub struct History {
    pub truth: Truth,
    /// Entries whose writes were acknowledged.
    pub acknowledged: BTreeSet<EntryId>,
    pub lineages: Vec<Lineage>,
    pub consumers: Vec<Record>,
    /// The heads of all keys at each replica, at the end.
    pub states: Vec<BTreeMap<Bytes, Vec<EntryId>>>,
}

/// Returns kind, value and expiry of an op.
pub fn content(op: &Op) -> (Kind, Option<&Bytes>, Option<u64>) {
    match op {
        Op::Put {
            value, expires_ms, ..
        } => (Kind::Put, Some(value), *expires_ms),
        Op::Delete { .. } => (Kind::Delete, None, None),
    }
}
