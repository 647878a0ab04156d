//! A merge: several branches read as one stream, in the order that is the same on all nodes.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    id::{Author, EntryId, Seq},
    log::{Ahead, Branch, BranchWalk, LogDamage, LogError, LogReader, SharedWalk, record::Record},
    protocol::{
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
        let own = |span: Span| {
            (
                EntryWalk::Own(span.branch.walk(span.after + 1)),
                span.through,
            )
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

/// A tip that is not in the logs of this store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnknownTip {
    pub(crate) author: Author,
    pub(crate) tip: FrontierTip,
    /// The author's highest place in the logs; 0 when there is none.
    pub(crate) have: Seq,
}

/// Returns the span of every branch that `to` covers and `from` does not.
///
/// The inner error lists the tips of `from` that `to` does not cover.
///
/// # Errors
/// The log error of a branch that cannot be read.
pub(crate) fn spans(
    log: &LogReader,
    from: &Frontier,
    to: &Frontier,
) -> Result<Result<Vec<Span>, Vec<UnknownTip>>, LogError> {
    let mut spans = Vec::new();
    let mut unknown = Vec::new();
    for (author, tip) in from.iter() {
        let have = log
            .of(&author)
            .iter()
            .filter_map(|branch| branch.tip())
            .map(|tip| tip.seq)
            .max();
        let have = have.unwrap_or(0);
        if to.tips(&author).contains(&tip) {
            continue;
        }
        if tip.seq > to.seq(&author) || !holds(log, author, tip, to)? {
            unknown.push(UnknownTip { author, tip, have });
        }
    }
    if !unknown.is_empty() {
        return Ok(Err(unknown));
    }
    for branch in log.all() {
        let after = covered(log, &branch, from)?;
        let through = covered(log, &branch, to)?;
        if after < through {
            spans.push(Span {
                branch,
                after,
                through,
            });
        }
    }
    Ok(Ok(spans))
}

// True when `to` leads back to `tip`. The log may be ahead of `to` by a fork that has just come.
fn holds(
    log: &LogReader,
    author: Author,
    tip: FrontierTip,
    to: &Frontier,
) -> Result<bool, LogError> {
    let branches = log.of(&author);
    for branch in &branches {
        match has(branch, tip.seq, &tip.id) {
            Ok(false) => {}
            Ok(true) => return Ok(covered(log, branch, to)? >= tip.seq),
            // It is damaged here; on an only branch there is nothing else it can be.
            Err(LogError::Damaged(_)) if branches.len() == 1 => return Ok(true),
            Err(LogError::Damaged(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

fn has(branch: &Arc<Branch>, seq: Seq, id: &EntryId) -> Result<bool, LogError> {
    if branch.tip().is_some_and(|newest| newest.id == *id) {
        return Ok(true);
    }
    let record = branch.record(seq)?;
    Ok(record.is_some_and(|record| record.header.id == *id))
}

// The highest place of `branch` that `frontier` leads back to; one before its first when none.
fn covered(log: &LogReader, branch: &Arc<Branch>, frontier: &Frontier) -> Result<Seq, LogError> {
    let branches = log.of(&branch.author);
    let none = branch.first - 1;
    let tips = frontier.tips(&branch.author);
    if let [branch] = branches.as_slice() {
        let newest = branch.tip().map_or(none, |tip| tip.seq);
        return Ok(tips.last().map_or(none, |tip| tip.seq.min(newest)));
    }
    let mut covered = none;
    for tip in tips {
        // Down from the tip's own branch: each one's first entry names where it left another.
        let mut place = Some((tip.seq, tip.id));
        while let Some((seq, id)) = place {
            let mut next = None;
            for on in &branches {
                match has(on, seq, &id) {
                    Ok(true) => {}
                    Ok(false) | Err(LogError::Damaged(_)) => continue,
                    Err(error) => return Err(error),
                }
                if on.number == branch.number {
                    covered = covered.max(seq);
                }
                next = on.forked_from.map(|from| (on.first - 1, from));
                break;
            }
            place = next;
        }
    }
    Ok(covered)
}

// About as many chunks as a watch is handed at a time: the next ones are read while it delivers
// these.
const AHEAD_CHUNKS: usize = 4;
