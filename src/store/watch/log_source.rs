//! What a watch reads from files, piece by piece: the state at its start, or the log behind its
//! position.

use std::sync::Arc;

use crate::{
    bus::Published,
    id::Seq,
    limits::{REPLAY_CHUNK_BYTES, SCAN_ROWS},
    log::{
        Ahead, BranchWalk,
        merge::{Merge, Merged, spans},
    },
    protocol::{
        change::{Change, Origin},
        cursor::Partial,
        entry::{Entry, VerifiedEntry},
        frontier::{Frontier, FrontierTip, MissingRange},
    },
    state::View,
    store::{
        ReadError, Shared, Start, WatchError, WatchOptions,
        watch::{
            clamp::Clamped,
            lookup::{Lookup, Lookups},
            position::Position,
            state_source::StateSource,
        },
    },
};

/// Changes to hand out, and where the watch stands after the last of them.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) changes: Arc<[Arc<Change>]>,
    /// `None`: the position does not move (the state at the start).
    pub(super) then: Option<Arc<Published>>,
}

/// Where changes are read from.
#[derive(Debug)]
pub(super) enum Source {
    State(StateSource),
    Log(Box<LogSource>),
}

/// What a source has next.
#[derive(Debug)]
pub(super) enum Read {
    Piece(Piece),
    /// The log is damaged where it is needed: the watch goes on from the state.
    Gap(String),
    /// A live key, but for its value, which is damaged in the log.
    Damaged {
        change: Box<Change>,
        what: String,
    },
    End,
}

impl Source {
    /// Returns what comes next. Reads files: not for the event loop.
    pub(super) fn next(
        &mut self,
        shared: &Shared,
        options: &WatchOptions,
    ) -> Result<Read, WatchError> {
        match self {
            Self::State(source) => source.next(shared, options).map_err(WatchError::Read),
            Self::Log(source) => source.next(shared, options).map_err(WatchError::Read),
        }
    }
}

/// The entries between a position and a view, in order, and the expiries after them.
#[derive(Debug)]
pub(in crate::store) struct LogSource {
    merge: Merge,
    // Taken from `merge` and not yet read.
    ahead: Option<Merged>,
    view: Arc<View>,
    // What has been read of, so far.
    frontier: Frontier,
    // True until the watch was told where `frontier` stands at the start.
    moved: bool,
    // Comes before all else: the entry of which the first ops were delivered.
    rest: Option<Rest>,
    // Come next.
    retractions: Vec<Arc<Change>>,
    // Only entries stamped, or arrived, since.
    authored_ms: u64,
    arrived_ms: u64,
    // Expiries through this time were told: what comes and was over by then, is told with its own.
    expired_through_ms: u64,
    merged: bool,
    // What follows is stamped after the time that the watch ends with, which has passed.
    cut: bool,
    done: bool,
}

#[derive(Debug)]
struct Rest {
    entry: VerifiedEntry,
    arrived_ms: u64,
    // Ops that were delivered.
    ops: u32,
}

impl LogSource {
    /// Begins behind `from`.
    ///
    /// # Errors
    /// `Behind` when `from` names entries that are not here.
    pub(in crate::store) fn after(
        shared: &Shared,
        view: Arc<View>,
        from: &Position,
    ) -> Result<Self, WatchError> {
        // The rest of an entry comes first, whatever the order: where it was begun, all that it
        // depends on was delivered, and a cursor has room for one such entry only.
        let Clamped {
            mut frontier,
            partial,
            retractions,
        } = shared.clamp(from, &view)?;
        let mut rest = None;
        if let Some(Partial { author, tip, ops }) = partial {
            let found = shared.log.entry(&author, tip.seq, &tip.id);
            let found = found.map_err(ReadError::from)?;
            match &found {
                Some((entry, _)) => frontier.advance(author, entry.header.prev, tip),
                // It is missing, and so is all that comes before it: one range.
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
        let spans = found.map_err(|unknown| WatchError::Behind {
            missing: unknown
                .into_iter()
                .map(|unknown| MissingRange {
                    author: unknown.author,
                    after: unknown.have.min(unknown.tip.seq.saturating_sub(1)),
                    through: unknown.tip.seq,
                    tip: unknown.tip.id,
                })
                .collect(),
        })?;
        Ok(Self {
            merge: Merge::shared(&shared.log, spans).map_err(ReadError::from)?,
            ahead: None,
            view,
            frontier,
            moved: rest.is_some() || !retractions.is_empty(),
            rest,
            retractions,
            authored_ms: 0,
            arrived_ms: 0,
            expired_through_ms: from.expired_through_ms,
            merged: false,
            cut: false,
            done: false,
        })
    }

    /// Begins where entries were stamped, or arrived, since a time.
    pub(super) fn since(
        shared: &Shared,
        view: Arc<View>,
        start: &Start,
    ) -> Result<Self, WatchError> {
        let (authored_ms, arrived_ms) = match start {
            Start::SinceAuthored { ms } => (*ms, 0),
            Start::SinceArrived { ms } => (0, *ms),
            Start::Now | Start::Initial | Start::After(_) => (0, 0),
        };
        let none = Frontier::default();
        let found = spans(&shared.log, &none, &view.frontier).map_err(ReadError::from)?;
        // What lies before the walks counts as delivered.
        let mut frontier = none;
        let mut walks = Vec::new();
        for span in found.unwrap_or_default() {
            let walk = if authored_ms > 0 {
                span.branch.walk_authored(authored_ms)
            } else {
                span.branch.walk_arrived(arrived_ms)
            };
            // The index may have grown past what the view shows.
            let mut before = walk.starts_at().saturating_sub(1).min(span.through);
            let walk = if arrived_ms > 0 {
                before = arrived_before(walk, before, arrived_ms, span.through)?;
                span.branch.walk(before + 1)
            } else {
                walk
            };
            if let Some(record) = span.branch.record(before).map_err(ReadError::from)? {
                let tip = FrontierTip {
                    seq: before,
                    id: record.header.id,
                };
                frontier.insert(span.branch.author, tip);
            }
            walks.push((walk, span.through));
        }
        let since_ms = authored_ms.max(arrived_ms);
        Ok(Self {
            merge: Merge::over(walks).map_err(ReadError::from)?,
            ahead: None,
            expired_through_ms: since_ms.min(view.expired_through_ms),
            view,
            frontier,
            moved: true,
            rest: None,
            retractions: Vec::new(),
            authored_ms,
            arrived_ms,
            merged: false,
            cut: false,
            done: false,
        })
    }

    /// True when it ended before what it was to read did: its watch is over.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    fn next(&mut self, shared: &Shared, options: &WatchOptions) -> Result<Read, ReadError> {
        if self.done {
            return Ok(Read::End);
        }
        let mut ops = Vec::new();
        if std::mem::take(&mut self.moved) {
            if let Some(rest) = self.rest.take() {
                self.want(&rest.entry, rest.arrived_ms, rest.ops, options, &mut ops);
            }
            let mut changes = Lookups::new(Arc::clone(&self.view), ops).changes()?;
            let retractions = std::mem::take(&mut self.retractions).into_iter();
            changes.extend(retractions.filter(|change| options.selects(&change.key)));
            self.pass_older()?;
            return Ok(self.piece(changes));
        }
        let at_work = shared.log.at_work();
        if at_work.is_alone() {
            // Two threads: each that is woken costs some of what it gives.
            let mut one = self.merge.ahead();
            let other = one.split_off(one.len() / 2);
            for ahead in [one, other].into_iter().filter(|half| !half.is_empty()) {
                let read = || ahead.into_iter().for_each(Ahead::read);
                drop(shared.runtime.spawn_blocking(read));
            }
        }
        let mut bytes = 0;
        while !self.merged && bytes < REPLAY_CHUNK_BYTES {
            let next = match self.ahead.take() {
                Some(next) => Some(next),
                None => self.merge.next()?,
            };
            match next {
                Some(Merged::Entry { entry, .. })
                    if has_passed(shared, &self.view, options, entry.header.hlc.wall_ms)? =>
                {
                    (self.merged, self.cut) = (true, true);
                }
                Some(Merged::Entry {
                    entry,
                    arrived_ms,
                    bytes: read,
                    ..
                }) => {
                    bytes += read;
                    self.read_entry(&entry, arrived_ms, options, &mut ops);
                }
                Some(Merged::Damage(damage)) => {
                    self.done = true;
                    return Ok(Read::Gap(damage.to_string()));
                }
                None => self.merged = true,
            }
        }
        let lookups = Lookups::new(Arc::clone(&self.view), ops);
        let mut changes = if at_work.is_alone() {
            lookups.changes_with(&shared.runtime)?
        } else {
            lookups.changes()?
        };
        if self.merged {
            self.read_expiries(shared, options, &mut changes)?;
        }
        Ok(self.piece(changes))
    }

    // What was stamped before the time asked for comes first in order: a cursor taken early on
    // covers it.
    fn pass_older(&mut self) -> Result<(), ReadError> {
        while let Some(next) = self.merge.next()? {
            match next {
                Merged::Entry { entry, .. } if entry.header.hlc.wall_ms < self.authored_ms => {
                    self.advance(&entry);
                }
                next => {
                    self.ahead = Some(next);
                    break;
                }
            }
        }
        Ok(())
    }

    fn advance(&mut self, entry: &Entry) {
        let tip = FrontierTip {
            seq: entry.header.seq,
            id: entry.id,
        };
        self.frontier
            .advance(entry.author(), entry.header.prev, tip);
    }

    fn piece(&self, changes: Vec<Arc<Change>>) -> Read {
        let frontier = if self.merged && !self.cut {
            Arc::clone(&self.view.frontier)
        } else {
            Arc::new(self.frontier.clone())
        };
        Read::Piece(Piece {
            changes: changes.into(),
            then: Some(Arc::new(Published {
                frontier,
                version: self.view.version,
                expired_through_ms: self.expired_through_ms,
            })),
        })
    }

    fn read_entry(
        &mut self,
        entry: &VerifiedEntry,
        arrived_ms: u64,
        options: &WatchOptions,
        ops: &mut Vec<Lookup>,
    ) {
        self.advance(entry);
        if entry.header.hlc.wall_ms >= self.authored_ms && arrived_ms >= self.arrived_ms {
            self.want(entry, arrived_ms, 0, options, ops);
        }
    }

    // Adds the ops of an entry, but for its first `done`, that the watch is to be told.
    fn want(
        &self,
        entry: &VerifiedEntry,
        arrived_ms: u64,
        done: u32,
        options: &WatchOptions,
        ops: &mut Vec<Lookup>,
    ) {
        for (index, op) in (0_u32..).zip(&entry.ops) {
            let wanted = index >= done && options.selects(op.key());
            if wanted && !self.view.is_void(&entry.id, op) {
                ops.push((entry.clone(), index, arrived_ms));
            }
        }
    }

    // Some of what expired since the position, and is still the winner: whole milliseconds.
    fn read_expiries(
        &mut self,
        shared: &Shared,
        options: &WatchOptions,
        changes: &mut Vec<Arc<Change>>,
    ) -> Result<(), ReadError> {
        let mut told_ms = self.view.expired_through_ms;
        if let Some(until_ms) = options.until_ms.filter(|_| self.cut) {
            told_ms = told_ms.min(until_ms.max(self.expired_through_ms));
        }
        let (due, through_ms) =
            self.view
                .expiring_whole(self.expired_through_ms, told_ms, SCAN_ROWS)?;
        self.expired_through_ms = self.expired_through_ms.max(through_ms);
        self.done = through_ms >= told_ms;
        for (ms, key) in due {
            if !options.selects(&key) {
                continue;
            }
            let heads = self.view.heads(&key)?;
            let expiry = Change::expiry(key, ms, heads, Origin::Replay, shared.now_ms());
            changes.extend(expiry.map(Arc::new));
        }
        Ok(())
    }
}

// True for a stamp after the time that a watch ends with, when nothing before it is to come.
fn has_passed(
    shared: &Shared,
    view: &View,
    options: &WatchOptions,
    stamped_ms: u64,
) -> Result<bool, ReadError> {
    match options.until_ms {
        Some(until_ms) if stamped_ms > until_ms => is_over(shared, view, until_ms),
        _goes_on => Ok(false),
    }
}

/// True when the clock has passed `until_ms`, and every expiry up to then is told.
pub(super) fn is_over(shared: &Shared, view: &View, until_ms: u64) -> Result<bool, ReadError> {
    if shared.now_ms() <= until_ms {
        return Ok(false);
    }
    let (due, _through_ms) = view.expiring_whole(view.expired_through_ms, until_ms, 1)?;
    Ok(due.is_empty())
}

// The last place of what had arrived before a time, so that a cursor taken early on covers it.
fn arrived_before(
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
