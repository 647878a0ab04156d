//! The log as the source of a watch: the entries between its position and a view, piece by piece.

use std::sync::Arc;

use crate::{
    bus::Published,
    id::{Author, Seq},
    limits::{REPLAY_CHUNK_BYTES, SCAN_ROWS},
    log::{
        Ahead, Begin, BranchWalk,
        merge::{Merge, Merged, NotHere, UnknownTip, spans},
    },
    protocol::{
        change::{Change, Origin},
        cursor::Partial,
        entry::{Entry, VerifiedEntry},
        frontier::{Frontier, FrontierTip, MissingRange},
    },
    state::{Expiring, View},
    store::{
        ReadError, Shared, Start, WatchError, WatchOptions,
        taken::{check_reach, check_seen},
        watch::{
            clamp::Clamped,
            lookup::{Lookup, Lookups},
            piece::{Piece, Read, SourceError},
            position::{Position, moved_back},
        },
    },
};

/// The entries between a position and a view, in the order that all nodes share, and then the
/// expiries up to that view.
#[derive(Debug)]
pub(in crate::store) struct LogSource {
    stage: Stage,
    merge: Merge,
    // Taken from `merge` by `skip_older` and not read yet.
    peeked: Option<Merged>,
    // Where this source ends. The view also decides which heads the changes have.
    view: Arc<View>,
    // Covers all that was read so far. The frontier only moves forward: a covered entry is not read
    // again, so no change is delivered twice.
    frontier: Frontier,
    // Entries stamped before this time (ms since 1970) are skipped; 0: no entry is skipped.
    authored_ms: u64,
    // Entries that this node received before this time (ms since 1970) are skipped; 0: no entry is
    // skipped.
    arrived_ms: u64,
    // Expiries through this time are delivered, on this node or another. It never goes back.
    expired_through_ms: u64,
}

// Each stage is entered once, in this order.
#[derive(Debug)]
enum Stage {
    // One piece: the rest of an entry that was delivered in part, and the retractions. Both precede
    // all entries, because a cursor has room for one partial entry only, and everything
    // that this entry depends on was delivered when it was begun.
    Rest {
        entry: Option<Rest>,
        retractions: Vec<Arc<Change>>,
    },
    Entries,
    Expiries(End),
    Done(End),
}

// Where the entries ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    // At the view: the position after the source is the view's.
    View,
    // At the first entry stamped after `WatchOptions::until_ms`, which has passed: the watch ends.
    Until,
}

// An entry that was delivered in part.
#[derive(Debug)]
struct Rest {
    entry: VerifiedEntry,
    arrived_ms: u64,
    // Number of its first ops that were delivered.
    ops: u32,
}

impl Shared {
    // Returns whether an entry that a position names exists nowhere any more: it is one of this node's
    // own, and another one is in its place, or there is no other member that could have it.
    fn is_lost(&self, unknown: &UnknownTip) -> bool {
        let others = || self.members.borrow().others(self.author).next().is_some();
        let UnknownTip { author, tip, have } = unknown;
        let is_here = || !matches!(self.log.entry(author, tip.seq, &tip.id), Ok(None));
        *author == self.author && !self.anyone && (*have >= tip.seq || !others()) && !is_here()
    }
}

impl LogSource {
    /// Opens the log after `from`.
    ///
    /// # Errors
    /// `Behind` when `from` names entries that this node is missing; `Damaged` when they exist nowhere
    /// any more; `Pruned` when entries after `from` were removed here.
    pub(in crate::store) fn after(
        shared: &Shared,
        view: Arc<View>,
        from: &Position,
    ) -> Result<Self, WatchError> {
        let Clamped {
            mut frontier,
            partial,
            retractions,
        } = shared.clamp(from, &view)?;
        let (mut rest, mut pruned) = (None, None);
        if let Some(Partial { author, tip, ops }) = partial {
            let found = shared.log.entry(&author, tip.seq, &tip.id);
            let found = found.map_err(ReadError::from)?;
            match &found {
                // The rest of it is gone, also where the log begins with the very next entry.
                None if shared.log.is_final(&author, tip.seq) => {
                    pruned = shared.log.pruned_at(&author, tip.seq);
                }
                Some((entry, _)) => frontier.advance(author, entry.header.prev, tip),
                // The entry is missing, and so are all entries before it: one range.
                None if frontier.tips(&author).len() == 1 => frontier.replace(author, tip),
                None => frontier.insert(author, tip),
            }
            rest = found.map(|(entry, record)| Rest {
                entry,
                arrived_ms: record.header.arrived_ms,
                ops,
            });
        }
        let found = spans(&shared.log, &frontier, &view.frontier).map_err(ReadError::from)?;
        let spans = found.map_err(|not_here| {
            let unknown = match not_here {
                NotHere::Ahead(unknown) => unknown,
                NotHere::Pruned(pruned) => return ReadError::Pruned(pruned).into(),
            };
            if let Some(lost) = unknown.iter().find(|unknown| shared.is_lost(unknown)) {
                let what = format!(
                    "entry {} of this node's own log is gone: an older copy of the data was put back",
                    lost.tip.seq
                );
                return ReadError::Damaged { what }.into();
            }
            let missing = unknown.into_iter().map(|unknown| MissingRange {
                author: unknown.author,
                after: unknown.have.min(unknown.tip.seq.saturating_sub(1)),
                through: unknown.tip.seq,
                tip: unknown.tip.id,
            });
            WatchError::Behind {
                missing: missing.collect(),
            }
        })?;
        if let Some(pruned) = pruned {
            return Err(ReadError::Pruned(pruned).into());
        }
        check_seen(&view, &frontier, from.expired_through_ms)?;
        let stage = if rest.is_some() || !retractions.is_empty() {
            Stage::Rest {
                entry: rest,
                retractions,
            }
        } else {
            Stage::Entries
        };
        Ok(Self {
            stage,
            merge: Merge::shared(&shared.log, spans).map_err(ReadError::from)?,
            peeked: None,
            view,
            frontier,
            authored_ms: 0,
            arrived_ms: 0,
            expired_through_ms: from.expired_through_ms,
        })
    }

    /// Opens the log at the first entries that were stamped, or that this node received, since the
    /// time `start` names.
    ///
    /// # Errors
    /// `Pruned` when such an entry was removed here.
    pub(in crate::store) fn since(
        shared: &Shared,
        view: Arc<View>,
        start: &Start,
    ) -> Result<Self, WatchError> {
        let (authored_ms, arrived_ms) = match start {
            Start::SinceAuthored { ms } => (*ms, 0),
            Start::SinceArrived { ms } => (0, *ms),
            Start::Now | Start::Initial | Start::After(_) => (0, 0),
        };
        // The last entry that was removed is the last one stamped, and the last that arrived.
        let mut begins = shared.log.begins();
        begins.retain(|(author, begin)| begin.anchor.is_covered_by(view.frontier.tips(author)));
        let is_wanted = |(author, begin): &(Author, Begin)| {
            let authored = authored_ms > 0 && begin.anchor.hlc.wall_ms >= authored_ms;
            let arrived = arrived_ms > 0 && begin.arrived_ms >= arrived_ms;
            let all = authored_ms == 0 && arrived_ms == 0;
            (authored || arrived || all).then(|| shared.log.pruned_at(author, begin.anchor.seq))
        };
        if let Some(pruned) = begins.iter().find_map(is_wanted).flatten() {
            return Err(ReadError::Pruned(pruned).into());
        }
        let anchors = begins.iter();
        let anchors: Frontier = anchors
            .map(|(author, begin)| (*author, begin.anchor.tip()))
            .collect();
        let found = spans(&shared.log, &anchors, &view.frontier).map_err(ReadError::from)?;
        let spans = found.map_err(|not_here| match not_here {
            // Removed since this call began.
            NotHere::Pruned(pruned) => ReadError::Pruned(pruned),
            NotHere::Ahead(unknown) => unreachable!("the log has its anchors: {unknown:?}"),
        })?;
        // Entries before the walks count as delivered.
        let mut frontier = anchors.clone();
        let mut walks = Vec::new();
        for span in spans {
            let walk = if authored_ms > 0 {
                span.branch.walk_authored(authored_ms)
            } else {
                span.branch.walk_arrived(arrived_ms)
            };
            // The index may have grown past what the view shows.
            let mut before = walk.starts_at().saturating_sub(1).min(span.through);
            let walk = if arrived_ms > 0 {
                before = last_arrived_before(walk, before, arrived_ms, span.through)?;
                span.branch.walk(before + 1)
            } else {
                walk
            };
            if let Some(record) = span.branch.record(before).map_err(ReadError::from)? {
                let tip = FrontierTip {
                    seq: before,
                    id: record.header.id,
                };
                let author = span.branch.author;
                if frontier.tips(&author) == anchors.tips(&author) {
                    // It comes after the anchor.
                    frontier.replace(author, tip);
                } else {
                    frontier.insert(author, tip);
                }
            }
            walks.push((walk, span.through));
        }
        let since_ms = authored_ms.max(arrived_ms);
        if authored_ms > 0 {
            // The walks begin earlier than the time asked for.
            check_reach(&view, authored_ms)?;
        } else {
            check_seen(&view, &frontier, since_ms)?;
        }
        Ok(Self {
            // The first piece has no changes, so that the watch has a position at once.
            stage: Stage::Rest {
                entry: None,
                retractions: Vec::new(),
            },
            merge: Merge::over(walks).map_err(ReadError::from)?,
            peeked: None,
            expired_through_ms: since_ms.min(view.expired_through_ms),
            view,
            frontier,
            authored_ms,
            arrived_ms,
        })
    }

    /// Returns the entries that count as read.
    pub(in crate::store) fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// True when the source ended at `WatchOptions::until_ms`, so that the watch ends.
    pub(super) fn ended_at_until(&self) -> bool {
        matches!(self.stage, Stage::Done(End::Until))
    }

    /// Reads the next piece. Reads files: not for the event loop.
    pub(super) fn next(
        &mut self,
        shared: &Shared,
        options: &WatchOptions,
    ) -> Result<Read, SourceError> {
        let mut changes = match &mut self.stage {
            Stage::Rest { entry, retractions } => {
                let (entry, retractions) = (entry.take(), std::mem::take(retractions));
                self.stage = Stage::Entries;
                let changes = self.read_rest(entry, retractions, options)?;
                self.skip_older()?;
                return Ok(Read::Piece(self.piece(changes)));
            }
            Stage::Entries => self.read_entries(shared, options)?,
            Stage::Expiries(_) => Vec::new(),
            Stage::Done(_) => return Ok(Read::End),
        };
        if let Stage::Expiries(end) = self.stage {
            self.read_expiries(end, shared, options, &mut changes)?;
        }
        Ok(Read::Piece(self.piece(changes)))
    }

    fn read_rest(
        &self,
        rest: Option<Rest>,
        retractions: Vec<Arc<Change>>,
        options: &WatchOptions,
    ) -> Result<Vec<Arc<Change>>, ReadError> {
        let mut ops = Vec::new();
        if let Some(rest) = rest {
            self.select_ops(&rest.entry, rest.arrived_ms, rest.ops, options, &mut ops);
        }
        let mut changes = Lookups::new(Arc::clone(&self.view), ops).changes()?;
        let selected = |change: &Arc<Change>| options.selects(&change.key);
        changes.extend(retractions.into_iter().filter(selected));
        Ok(changes)
    }

    // Reads entries of about `REPLAY_CHUNK_BYTES`; moves on to the expiries at their end.
    fn read_entries(
        &mut self,
        shared: &Shared,
        options: &WatchOptions,
    ) -> Result<Vec<Arc<Change>>, SourceError> {
        let at_work = shared.log.at_work();
        if at_work.is_alone() {
            // Two threads read ahead. More would not help: waking a thread costs a part of what it
            // saves.
            let mut one = self.merge.ahead();
            let other = one.split_off(one.len() / 2);
            for ahead in [one, other].into_iter().filter(|half| !half.is_empty()) {
                let read = || ahead.into_iter().for_each(Ahead::read);
                drop(shared.runtime.spawn_blocking(read));
            }
        }
        let (mut ops, mut bytes) = (Vec::new(), 0);
        while bytes < REPLAY_CHUNK_BYTES {
            let next = match self.peeked.take() {
                Some(next) => Some(next),
                None => self.merge.next().map_err(ReadError::from)?,
            };
            match next {
                Some(Merged::Entry { entry, .. })
                    if has_passed(shared, &self.view, options, entry.header.hlc.wall_ms)? =>
                {
                    self.stage = Stage::Expiries(End::Until);
                    break;
                }
                Some(Merged::Entry {
                    entry,
                    arrived_ms,
                    bytes: read,
                    ..
                }) => {
                    bytes += read;
                    self.advance(&entry);
                    if entry.header.hlc.wall_ms >= self.authored_ms && arrived_ms >= self.arrived_ms
                    {
                        self.select_ops(&entry, arrived_ms, 0, options, &mut ops);
                    }
                }
                Some(Merged::Damage(damage)) => {
                    let reason = damage.to_string();
                    return Err(SourceError::Gap {
                        reason,
                        reach_ms: None,
                    });
                }
                None => {
                    self.stage = Stage::Expiries(End::View);
                    break;
                }
            }
        }
        let lookups = Lookups::new(Arc::clone(&self.view), ops);
        Ok(if at_work.is_alone() {
            lookups.changes_with(&shared.runtime)?
        } else {
            lookups.changes()?
        })
    }

    // Skips entries stamped before the time asked for, which are first in the order, so that a
    // cursor taken early covers these entries.
    fn skip_older(&mut self) -> Result<(), ReadError> {
        while let Some(next) = self.merge.next()? {
            match next {
                Merged::Entry { entry, .. } if entry.header.hlc.wall_ms < self.authored_ms => {
                    self.advance(&entry);
                }
                next => {
                    self.peeked = Some(next);
                    break;
                }
            }
        }
        Ok(())
    }

    fn advance(&mut self, entry: &Entry) {
        let author = entry.author();
        // Branches of a forked author overlap by seq; only the log can compare them.
        if let ([_], [read]) = (
            self.view.frontier.tips(&author),
            self.frontier.tips(&author),
        ) {
            assert!(
                read.seq < entry.header.seq,
                "a log source reads each entry once: {} of {} was read after {}",
                entry.header.seq,
                author.short(),
                read.seq
            );
        }
        let tip = FrontierTip {
            seq: entry.header.seq,
            id: entry.id,
        };
        self.frontier.advance(author, entry.header.prev, tip);
    }

    fn piece(&self, changes: Vec<Arc<Change>>) -> Piece {
        let frontier = match self.stage {
            Stage::Expiries(End::View) | Stage::Done(End::View) => {
                assert_eq!(
                    moved_back(&self.frontier, &self.view.frontier),
                    None,
                    "a log source ends at its view and not before what it read"
                );
                Arc::clone(&self.view.frontier)
            }
            Stage::Rest { .. }
            | Stage::Entries
            | Stage::Expiries(End::Until)
            | Stage::Done(End::Until) => Arc::new(self.frontier.clone()),
        };
        Piece {
            changes: changes.into(),
            then: Some(Arc::new(Published {
                frontier,
                version: self.view.version,
                expired_through_ms: self.expired_through_ms,
            })),
        }
    }

    // Adds the ops of `entry` that the watch selects, without its first `delivered` ones.
    fn select_ops(
        &self,
        entry: &VerifiedEntry,
        arrived_ms: u64,
        delivered: u32,
        options: &WatchOptions,
        ops: &mut Vec<Lookup>,
    ) {
        for (index, op) in (0_u32..).zip(&entry.ops) {
            let wanted = index >= delivered && options.selects(op.key());
            if wanted && !self.view.is_void(entry, op) {
                ops.push((entry.clone(), index, arrived_ms));
            }
        }
    }

    // Reads the next expiries since the position whose value is still the winner: all expiries of a
    // millisecond, or none.
    fn read_expiries(
        &mut self,
        end: End,
        shared: &Shared,
        options: &WatchOptions,
        changes: &mut Vec<Arc<Change>>,
    ) -> Result<(), SourceError> {
        let mut last_ms = self.view.expired_through_ms;
        if let (End::Until, Some(until_ms)) = (end, options.until_ms) {
            last_ms = last_ms.min(until_ms.max(self.expired_through_ms));
        }
        let view = &self.view;
        let due = view.expiring_whole(self.expired_through_ms, last_ms, SCAN_ROWS);
        let Expiring {
            due,
            through_ms,
            too_many,
        } = due.map_err(ReadError::from)?;
        if too_many {
            return Err(SourceError::Gap {
                reason: Expiring::TOO_MANY.to_owned(),
                reach_ms: None,
            });
        }
        self.expired_through_ms = self.expired_through_ms.max(through_ms);
        if through_ms >= last_ms {
            self.stage = Stage::Done(end);
        }
        for (ms, key) in due {
            if !options.selects(&key) {
                continue;
            }
            let heads = self.view.heads(&key).map_err(ReadError::from)?;
            let expiry = Change::expiry(key, ms, heads, Origin::Replay, shared.now_ms());
            changes.extend(expiry.map(Arc::new));
        }
        Ok(())
    }
}

// True for a stamp after `until_ms` once the watch may end, because no earlier change is left to
// deliver.
fn has_passed(
    shared: &Shared,
    view: &View,
    options: &WatchOptions,
    stamped_ms: u64,
) -> Result<bool, ReadError> {
    match options.until_ms {
        Some(until_ms) if stamped_ms > until_ms => is_over(shared, view, until_ms),
        Some(_) | None => Ok(false),
    }
}

/// True when the clock has passed `until_ms` and every expiry through that time is published.
pub(super) fn is_over(shared: &Shared, view: &View, until_ms: u64) -> Result<bool, ReadError> {
    if shared.now_ms() <= until_ms {
        return Ok(false);
    }
    Ok(view
        .expiring(view.expired_through_ms, until_ms, 1)?
        .is_empty())
}

// Returns the last seq, from `before` on and through `through`, that arrived before a time: a
// cursor taken early covers the entries through that seq.
fn last_arrived_before(
    mut walk: BranchWalk,
    mut before: Seq,
    arrived_ms: u64,
    through: Seq,
) -> Result<Seq, WatchError> {
    while let Some(record) = walk.next_record().map_err(ReadError::from)? {
        if record.header.arrived_ms >= arrived_ms || record.header.seq > through {
            break;
        }
        before = record.header.seq;
    }
    Ok(before)
}
