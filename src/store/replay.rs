//! What a watch reads from files, piece by piece: the state at its start, or the log behind it.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use crate::{
    bus::Published,
    limits::{REPLAY_CHUNK_BYTES, SCAN_ROWS},
    protocol::{
        change::{Change, EntryRef, Kind, Origin},
        cursor::Partial,
        entry::{Entry, Op},
        frontier::{Frontier, FrontierTip, MissingRange},
        heads::Heads,
    },
    state::View,
    store::{
        Item, ReadError, Shared, Start, WatchError,
        merge::{Merge, Merged, spans},
        watch::Scope,
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
    End,
}

impl Source {
    /// Returns what comes next. Reads files: not for the event loop.
    pub(super) fn next(&mut self, shared: &Shared, scope: &Scope) -> Result<Read, WatchError> {
        match self {
            Self::State(source) => source.next(shared, scope).map_err(WatchError::Read),
            Self::Log(source) => source.next(shared, scope).map_err(WatchError::Read),
        }
    }
}

/// The live keys of one view.
#[derive(Debug)]
pub(super) struct StateSource {
    view: Arc<View>,
    // Read and not handed out; those after `after` are not read.
    rows: VecDeque<(Bytes, Heads)>,
    after: Option<Bytes>,
    done: bool,
}

impl StateSource {
    pub(super) fn new(view: Arc<View>) -> Self {
        Self {
            view,
            rows: VecDeque::new(),
            after: None,
            done: false,
        }
    }

    /// A source that has nothing.
    pub(super) fn ended(view: Arc<View>) -> Self {
        Self {
            view,
            rows: VecDeque::new(),
            after: None,
            done: true,
        }
    }

    /// Returns where a watch stands that has read all of it.
    pub(super) fn position(&self) -> Published {
        Published {
            frontier: Arc::clone(&self.view.frontier),
            version: self.view.version,
            expired_through_ms: self.view.expired_through_ms,
        }
    }

    fn next(&mut self, shared: &Shared, scope: &Scope) -> Result<Read, ReadError> {
        let (mut changes, mut bytes) = (Vec::new(), 0);
        while bytes < REPLAY_CHUNK_BYTES {
            if self.rows.is_empty() {
                if self.done || !changes.is_empty() {
                    break;
                }
                let after = self.after.as_deref();
                let rows = self.view.scan(&scope.prefix, after, SCAN_ROWS)?;
                self.done = rows.len() < SCAN_ROWS;
                if let Some((key, _)) = rows.last() {
                    self.after = Some(key.clone());
                }
                self.rows = rows.into();
            }
            let Some((key, heads)) = self.rows.pop_front() else {
                continue;
            };
            let told_ms = self.view.expired_through_ms;
            if !scope.matches_key(&key) {
                continue;
            }
            let Some(item) = shared.item(&key, &heads, told_ms, scope.keys_only)? else {
                continue;
            };
            bytes += key.len() + item.value.len();
            changes.push(Arc::new(initial(key, heads, item, scope.keys_only)));
        }
        if changes.is_empty() {
            return Ok(Read::End);
        }
        Ok(Read::Piece(Piece {
            changes: changes.into(),
            then: None,
        }))
    }
}

// A live key, as a change.
fn initial(key: Bytes, heads: Heads, item: Item, keys_only: bool) -> Change {
    Change {
        key,
        kind: Kind::Put,
        value: (!keys_only).then_some(item.value),
        expires_ms: item.expires_ms,
        entry: item.entry,
        prev: None,
        op_index: 0,
        op_count: 1,
        atomic: false,
        heads,
        previous: None,
        origin: Origin::Initial,
        arrived_ms: 0,
        late: false,
    }
}

/// The entries between a position and a view, in order, and the expiries after them.
#[derive(Debug)]
pub(super) struct LogSource {
    merge: Merge,
    view: Arc<View>,
    // What has been read of, so far.
    frontier: Frontier,
    partial: Option<Partial>,
    // Only entries stamped, or arrived, since.
    authored_ms: u64,
    arrived_ms: u64,
    // Expiries through this time were told.
    expired_through_ms: u64,
    merged: bool,
    done: bool,
}

/// A position to go on from.
#[derive(Debug, Clone)]
pub(super) struct From {
    pub(super) frontier: Arc<Frontier>,
    pub(super) partial: Option<Partial>,
    pub(super) expired_through_ms: u64,
}

impl LogSource {
    /// Begins behind `from`.
    ///
    /// # Errors
    /// `Behind` when `from` names entries that are not here.
    pub(super) fn after(shared: &Shared, view: Arc<View>, from: &From) -> Result<Self, WatchError> {
        let found = spans(&shared.log, &from.frontier, &view.frontier).map_err(ReadError::from)?;
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
            merge: Merge::new(spans).map_err(ReadError::from)?,
            view,
            frontier: Frontier::clone(&from.frontier),
            partial: from.partial,
            authored_ms: 0,
            arrived_ms: 0,
            expired_through_ms: from.expired_through_ms,
            merged: false,
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
            let before = walk.starts_at().saturating_sub(1);
            if let Some(record) = span.branch.record(before).map_err(ReadError::from)? {
                let tip = FrontierTip {
                    seq: before,
                    id: record.header.id,
                };
                frontier.insert(span.branch.author, tip);
            }
            walks.push((walk, span.through));
        }
        Ok(Self {
            merge: Merge::over(walks).map_err(ReadError::from)?,
            view,
            frontier,
            partial: None,
            authored_ms,
            arrived_ms,
            expired_through_ms: authored_ms.max(arrived_ms),
            merged: false,
            done: false,
        })
    }

    fn next(&mut self, shared: &Shared, scope: &Scope) -> Result<Read, ReadError> {
        if self.done {
            return Ok(Read::End);
        }
        let mut changes = Vec::new();
        let mut bytes = 0;
        while !self.merged && bytes < REPLAY_CHUNK_BYTES {
            match self.merge.next()? {
                Some(Merged::Entry {
                    entry,
                    arrived_ms,
                    bytes: read,
                    ..
                }) => {
                    bytes += read;
                    self.read_entry(&entry, arrived_ms, scope, &mut changes)?;
                }
                Some(Merged::Damage(damage)) => {
                    self.done = true;
                    return Ok(Read::Gap(damage.to_string()));
                }
                None => self.merged = true,
            }
        }
        let then = if self.merged {
            self.read_expiries(shared, scope, &mut changes)?;
            self.done = true;
            Published {
                frontier: Arc::clone(&self.view.frontier),
                version: self.view.version,
                expired_through_ms: self.view.expired_through_ms,
            }
        } else {
            Published {
                frontier: Arc::new(self.frontier.clone()),
                version: 0,
                expired_through_ms: self.expired_through_ms,
            }
        };
        Ok(Read::Piece(Piece {
            changes: changes.into(),
            then: Some(Arc::new(then)),
        }))
    }

    fn read_entry(
        &mut self,
        entry: &Entry,
        arrived_ms: u64,
        scope: &Scope,
        changes: &mut Vec<Arc<Change>>,
    ) -> Result<(), ReadError> {
        let tip = FrontierTip {
            seq: entry.header.seq,
            id: entry.id,
        };
        self.frontier
            .advance(entry.author(), entry.header.prev, tip);
        if entry.header.hlc.wall_ms < self.authored_ms || arrived_ms < self.arrived_ms {
            return Ok(());
        }
        let done = self
            .partial
            .filter(|partial| partial.tip == tip)
            .map_or(0, |partial| partial.ops);
        for (index, op) in (0_u32..).zip(&entry.ops) {
            if index < done || !scope.matches_key(op.key()) {
                continue;
            }
            let heads = self.view.heads(op.key())?;
            let (kind, value, expires_ms) = match op {
                Op::Put {
                    value, expires_ms, ..
                } => (Kind::Put, Some(value.clone()), *expires_ms),
                Op::Delete { .. } => (Kind::Delete, None, None),
            };
            changes.push(Arc::new(Change {
                key: op.key().clone(),
                kind,
                value,
                expires_ms,
                entry: EntryRef::from(entry),
                prev: entry.header.prev,
                op_index: index,
                op_count: u32::try_from(entry.ops.len()).unwrap_or(u32::MAX),
                atomic: entry.header.atomic,
                late: heads.winner().is_some_and(|winner| winner.id != entry.id),
                heads,
                previous: None,
                origin: Origin::Replay,
                arrived_ms,
            }));
        }
        Ok(())
    }

    // What expired since the position, of what is still the winner. Those of one millisecond stay
    // together.
    fn read_expiries(
        &self,
        shared: &Shared,
        scope: &Scope,
        changes: &mut Vec<Arc<Change>>,
    ) -> Result<(), ReadError> {
        let through_ms = self.view.expired_through_ms;
        let mut after_ms = self.expired_through_ms;
        loop {
            let due = self.view.expiring(after_ms, through_ms, SCAN_ROWS)?;
            let full = due.len() == SCAN_ROWS;
            for (ms, key) in &due {
                if !scope.matches_key(key) {
                    continue;
                }
                let heads = self.view.heads(key)?;
                let Some(winner) = heads.winner() else {
                    continue;
                };
                if winner
                    .expires_ms()
                    .is_none_or(|expires_ms| expires_ms > *ms)
                {
                    continue;
                }
                let entry = EntryRef::from(winner);
                changes.push(Arc::new(Change {
                    key: key.clone(),
                    kind: Kind::Expire,
                    value: None,
                    expires_ms: Some(*ms),
                    entry,
                    prev: None,
                    op_index: 0,
                    op_count: 1,
                    atomic: false,
                    heads,
                    previous: Some(entry),
                    origin: Origin::Replay,
                    arrived_ms: shared.now_ms(),
                    late: false,
                }));
            }
            match due.last() {
                // More of the same millisecond than fit: the rest cannot be told apart from
                // those told, so they are read with the next one's.
                Some((ms, _)) if full => after_ms = *ms,
                _all => return Ok(()),
            }
        }
    }
}
