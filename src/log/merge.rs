//! A merge: several branches read as one stream, in the order that is the same on all nodes.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, binary_heap::PeekMut},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    id::{Author, Seq},
    limits::{MERGE_READ_BYTES_MAX, REPLAY_CHUNK_BYTES},
    log::{
        Ahead, Begin, Branch, BranchWalk, LogDamage, LogError, LogReader, Pruned, SharedWalk,
        lineage::{Lineage, Places},
        record::Record,
    },
    protocol::{
        anchor::TipPlace,
        entry::{Order, VerifiedEntry},
        frontier::{Frontier, FrontierTip},
    },
};

/// The part of a branch that is read: places above `after`, through `through`.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) branch: Arc<Branch>,
    /// Exclusive.
    pub(crate) after: Seq,
    /// Inclusive.
    pub(crate) through: Seq,
}

/// The entries of several spans, ordered by (hlc, author, id): causes come before their effects.
#[derive(Debug)]
pub(crate) struct Merge {
    // One item for each span that has entries left.
    heap: BinaryHeap<Reverse<Next>>,
    // Damage met while reading ahead; returned before any later entry of its branch.
    damage: Vec<LogDamage>,
}

// The next entry of a span, and the walk behind it.
#[derive(Debug)]
struct Next {
    order: Order,
    entry: VerifiedEntry,
    record: Record,
    walk: EntryWalk,
    through: Seq,
}

#[derive(Debug)]
enum EntryWalk {
    // Serves one reader, such as a rebuild.
    Own(BranchWalk),
    // Serves watches, many of which may read the same part.
    Shared(SharedWalk),
}

impl EntryWalk {
    fn next_entry(&mut self) -> Result<Option<(VerifiedEntry, Record)>, LogError> {
        match self {
            Self::Own(walk) => walk.next_entry(),
            Self::Shared(walk) => walk.next_entry(),
        }
    }

    fn ahead(&self, chunks: usize) -> Vec<Ahead> {
        match self {
            Self::Own(_) => Vec::new(),
            Self::Shared(walk) => walk.ahead(chunks),
        }
    }
}

/// An item of a merge.
#[derive(Debug)]
pub(crate) enum Merged {
    Entry {
        entry: VerifiedEntry,
        /// The encoded `SignedEntry`, as it is in the log.
        encoded: Bytes,
        arrived_ms: u64,
        /// Bytes of its record in the file.
        bytes: usize,
    },
    Damage(LogDamage),
}

impl Merge {
    /// Begins with the first entry of each span.
    pub(crate) fn new(spans: Vec<Span>) -> Result<Self, LogError> {
        let each = MERGE_READ_BYTES_MAX / spans.len().max(1);
        let chunk_bytes = each.clamp(CHUNK_BYTES_MIN, REPLAY_CHUNK_BYTES);
        let own = |span: Span| {
            let walk = span.branch.walk_in_chunks(span.after + 1, chunk_bytes);
            (EntryWalk::Own(walk), span.through)
        };
        Self::over_all(spans.into_iter().map(own).collect())
    }

    /// Like `new`, but shares each chunk that is read with other merges of this kind.
    pub(crate) fn shared(log: &LogReader, spans: Vec<Span>) -> Result<Self, LogError> {
        let shared = |span: Span| {
            let walk = log.walk_shared(&span.branch, span.after + 1);
            (EntryWalk::Shared(walk), span.through)
        };
        Self::over_all(spans.into_iter().map(shared).collect())
    }

    /// Merges walks that were begun elsewhere; each is read through the place beside it
    /// (inclusive).
    pub(crate) fn over(walks: Vec<(BranchWalk, Seq)>) -> Result<Self, LogError> {
        let own = |(walk, through)| (EntryWalk::Own(walk), through);
        Self::over_all(walks.into_iter().map(own).collect())
    }

    /// Returns chunks that will be needed soon and are not read yet, at most `AHEAD_CHUNKS`, so
    /// that idle threads can read them.
    pub(crate) fn ahead(&self) -> Vec<Ahead> {
        let each = AHEAD_CHUNKS / self.heap.len().max(1);
        let walks = self.heap.iter().map(|Reverse(next)| &next.walk);
        walks
            .flat_map(|walk| walk.ahead(each.max(1)))
            .take(AHEAD_CHUNKS)
            .collect()
    }

    fn over_all(walks: Vec<(EntryWalk, Seq)>) -> Result<Self, LogError> {
        let mut merge = Self {
            heap: BinaryHeap::new(),
            damage: Vec::new(),
        };
        for (walk, through) in walks {
            merge.push(walk, through)?;
        }
        Ok(merge)
    }

    /// Returns the next entry, or damage met on the way to it; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Merged>, LogError> {
        if let Some(damage) = self.damage.pop() {
            return Ok(Some(Merged::Damage(damage)));
        }
        let Some(mut least) = self.heap.peek_mut() else {
            return Ok(None);
        };
        let Reverse(next) = &mut *least;
        let through = next.through;
        let (entry, record) = match read_on(&mut next.walk, through, &mut self.damage)? {
            Some((entry, record)) => {
                next.order = entry.order();
                let entry = std::mem::replace(&mut next.entry, entry);
                (entry, std::mem::replace(&mut next.record, record))
            }
            None => {
                let Reverse(next) = PeekMut::pop(least);
                (next.entry, next.record)
            }
        };
        Ok(Some(Merged::Entry {
            entry,
            arrived_ms: record.header.arrived_ms,
            bytes: record.header.frame_bytes(),
            encoded: record.payload,
        }))
    }

    fn push(&mut self, mut walk: EntryWalk, through: Seq) -> Result<(), LogError> {
        if let Some((entry, record)) = read_on(&mut walk, through, &mut self.damage)? {
            self.heap.push(Reverse(Next {
                order: entry.order(),
                entry,
                record,
                walk,
                through,
            }));
        }
        Ok(())
    }
}

// Returns the next entry of a walk through place `through`; adds damage on the way to it to `kept`.
fn read_on(
    walk: &mut EntryWalk,
    through: Seq,
    kept: &mut Vec<LogDamage>,
) -> Result<Option<(VerifiedEntry, Record)>, LogError> {
    loop {
        match walk.next_entry() {
            Ok(read) => return Ok(read.filter(|(_, record)| record.header.seq <= through)),
            Err(LogError::Damaged(damage)) => {
                if damage.seq.is_none_or(|seq| seq <= through) {
                    kept.push(damage);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Next {}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order.cmp(&other.order)
    }
}

/// Why the logs cannot be read on from a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotHere {
    /// These tips of the position have not come yet.
    Ahead(Vec<UnknownTip>),
    /// Entries after the position were removed: its reader must get the state.
    Pruned(Pruned),
}

/// A tip that is not in the logs of this store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnknownTip {
    pub(crate) author: Author,
    pub(crate) tip: FrontierTip,
    /// The author's highest place in the logs; 0 when there is none.
    pub(crate) have: Seq,
}

/// Returns all of every branch that is here.
pub(crate) fn whole(log: &LogReader) -> Vec<Span> {
    let whole = |branch: Arc<Branch>| {
        let through = branch.tip()?.seq;
        Some(Span {
            after: branch.first_here().saturating_sub(1),
            branch,
            through,
        })
    };
    log.all().into_iter().filter_map(whole).collect()
}

/// Returns what lies after `from` and through `to` on every branch here. Takes time linear in tips
/// and branches.
///
/// The inner error: `from` has tips that are not here, or does not cover an anchor at which the logs of
/// an author in `to` begin. The first of the two goes first, so that a state that is handed out instead
/// is never older than `from`.
///
/// # Errors
/// `Io`; `Damaged` when an unreadable frame hides how far one of the two reaches.
pub(crate) fn spans(
    log: &LogReader,
    from: &Frontier,
    to: &Frontier,
) -> Result<Result<Vec<Span>, NotHere>, LogError> {
    let (mut spans, mut unknown, mut pruned) = (Vec::new(), Vec::new(), Vec::new());
    let mut lineages: BTreeMap<_, _> = log.lineages().into_iter().collect();
    for (author, _tip) in from.iter() {
        lineages.entry(author).or_default();
    }
    for (author, lineage) in lineages {
        let (after, through) = (from.tips(&author), to.tips(&author));
        let is_new = |tip: &&FrontierTip| through.binary_search(tip).is_err();
        let new: Vec<FrontierTip> = after.iter().filter(is_new).copied().collect();
        let places = match lineage.branches.as_slice() {
            // All else is on the only branch.
            [] | [_] => lineage.find(new.iter().copied())?,
            _several => lineage.find(after.iter().chain(through).copied())?,
        };
        let covered = lineage.covered(through, &places)?;
        let begin = lineage.begin();
        let is_behind = |tip: &FrontierTip| {
            let place = |begin: Begin| begin.anchor.place_of(*tip, false);
            begin.is_some_and(|begin| place(begin) == TipPlace::Behind)
        };
        // Without the anchor in `to`, the author's entries do not count, and none is read.
        if let Some(begin) = begin
            && begin.anchor.is_covered_by(through)
            && (!begin.anchor.is_covered_by(after) || after.iter().any(is_behind))
        {
            pruned.push((author, begin));
        }
        for tip in new {
            if !is_behind(&tip) && !is_covered(&lineage, tip, &places, &covered)? {
                let newest = lineage.branches.iter().filter_map(|branch| branch.tip());
                let have = newest.map(|tip| tip.seq).max().unwrap_or(0);
                unknown.push(UnknownTip { author, tip, have });
            }
        }
        let from = lineage.covered(after, &places)?;
        let ends = from.into_iter().zip(covered);
        for (branch, (after, through)) in lineage.branches.iter().zip(ends) {
            if after < through {
                spans.push(Span {
                    branch: Arc::clone(branch),
                    after,
                    through,
                });
            }
        }
    }
    if !unknown.is_empty() {
        return Ok(Err(NotHere::Ahead(unknown)));
    }
    Ok(Pruned::of(pruned).map_or(Ok(spans), |pruned| Err(NotHere::Pruned(pruned))))
}

// Returns whether `tip` is among the first `covered` places of its branch. The log may be ahead of
// these by a fork that has just come.
fn is_covered(
    lineage: &Lineage,
    tip: FrontierTip,
    places: &Places,
    covered: &[Seq],
) -> Result<bool, LogError> {
    match places.get(tip) {
        Ok(Some(index)) => Ok(covered[index] >= tip.seq),
        Ok(None) => Ok(false),
        // On an only branch there is nothing else that the damaged record can be.
        Err(LogError::Damaged(_)) if lineage.branches.len() == 1 => Ok(covered[0] >= tip.seq),
        Err(error) => Err(error),
    }
}

/// Returns the parts of the branches of `author` that make up `ranges`. A range is what a tip leads
/// back to, above a place (exclusive). One whose tip is not here, or which an unreadable frame hides,
/// is left out; so is one of an author without forks of which the beginning was removed, because what
/// comes after could not be applied without it. Takes time linear in ranges and branches.
///
/// # Errors
/// `Io`.
pub(crate) fn parts(
    log: &LogReader,
    author: &Author,
    ranges: &[(Seq, FrontierTip)],
) -> Result<Vec<Span>, LogError> {
    let lineage = log.lineage(author);
    let places = lineage.find(ranges.iter().map(|(_, tip)| *tip))?;
    let parents = lineage.parents()?;
    let before = |index: usize| lineage.branches[index].first.saturating_sub(1);
    let mut parts: Vec<Vec<(Seq, Seq)>> = vec![Vec::new(); lineage.branches.len()];
    for (after, tip) in ranges {
        // A peer guesses where a range of an author with forks begins. So the part that is here is sent.
        let is_cut = log.is_final(author, after.saturating_add(1));
        if is_cut && lineage.branches.len() < 2 {
            continue;
        }
        let mut through = tip.seq;
        let mut next = places.get(*tip);
        let mut range = Vec::new();
        while let Ok(Some(index)) = next {
            // That part was walked with all that lies before it.
            let part = parts[index].last();
            let is_passed = part.is_some_and(|part| part.0 <= *after && part.1 >= through);
            if is_passed || through <= *after {
                break;
            }
            range.push((index, through));
            next = parents.of(index);
            through = before(index);
        }
        match next {
            Ok(_end) => {}
            Err(LogError::Damaged(_)) => continue,
            Err(error) => return Err(error),
        }
        for (index, through) in range {
            parts[index].push((*after, through));
        }
    }
    let mut spans: Vec<Span> = Vec::new();
    for (index, mut parts) in parts.into_iter().enumerate() {
        // Parts stay apart, so that a peer gets no more than it asked for.
        parts.sort_unstable();
        let first = spans.len();
        let branch = &lineage.branches[index];
        let none = branch.first_here().saturating_sub(1);
        let parts = parts
            .into_iter()
            .map(|(after, through)| (after.max(none), through));
        for (after, through) in parts.filter(|(after, through)| after < through) {
            match spans.get_mut(first..).and_then(<[Span]>::last_mut) {
                Some(span) if span.through >= after => span.through = span.through.max(through),
                _apart => spans.push(Span {
                    branch: Arc::clone(branch),
                    after,
                    through,
                }),
            }
        }
    }
    Ok(spans)
}

// One read of a merge takes at least this, however many branches it has.
const CHUNK_BYTES_MIN: usize = 4 << 10;
// About as many chunks as a watch is handed at a time: the next ones are read while it delivers
// these.
const AHEAD_CHUNKS: usize = 4;
