//! The oracle of a watch: it judges what a watch delivered against the log, with one check and one
//! error for each promise.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lattice::{
    id::{Author, EntryId},
    protocol::{
        change::{Change, Kind, Origin},
        cursor::Cursor,
        entry::{Op, VerifiedEntry},
        frontier::Frontier,
        heads::Heads,
        pattern::Pattern,
    },
    store::{Start, WatchEvent, WatchMode, WatchOptions},
};

use crate::support::model::heads_after;

/// The events of one watcher, over all its resumes.
#[derive(Debug, Clone)]
pub struct Lineage {
    pub options: WatchOptions,
    /// The cursor before the first item; for `Initial`, the cursor at the first `CaughtUp`.
    pub begin: Cursor,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone)]
pub enum Step {
    /// An item, and the cursor after it.
    Saw(WatchEvent, Cursor),
    /// The watcher stopped, and resumed after this cursor.
    Resumed(Cursor),
}

/// A promise that was broken.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// A change that does not match was delivered.
    #[error("filter: {0}")]
    Filter(String),
    /// A change does not have the content of its entry.
    #[error("content: {0}")]
    Content(String),
    /// A change came out of the order of its author's log or of its entry.
    #[error("author order: {0}")]
    AuthorOrder(String),
    /// A change came before one that it depends on.
    #[error("causal: {0}")]
    Causal(String),
    /// A change came twice in one lineage.
    #[error("unique: {0}")]
    Unique(String),
    /// A batch was split, or a cursor lies inside one.
    #[error("atomic: {0}")]
    Atomic(String),
    /// A cursor covers a change that was not delivered.
    #[error("complete: {0}")]
    Complete(String),
    /// A change came after a cursor that covers it.
    #[error("bookmark: {0}")]
    Bookmark(String),
    /// A resume would deliver a change again.
    #[error("resume: {0}")]
    Resume(String),
    /// A gap came although nothing is damaged.
    #[error("gap: {0}")]
    Gap(String),
    /// An expiry is missing, early, or of a value that did not win.
    #[error("expiry: {0}")]
    Expiry(String),
    /// Heads, conflict or `late` do not match the state at emission.
    #[error("heads: {0}")]
    Heads(String),
    /// The state at the start does not match the log.
    #[error("snapshot: {0}")]
    Snapshot(String),
    /// The delivered changes do not add up to the state.
    #[error("fold: {0}")]
    Fold(String),
}

/// All entries of a store, and their dependencies.
#[derive(Debug, Default)]
pub struct Truth {
    entries: BTreeMap<EntryId, Known>,
    /// The state at the end: the winner's value by key.
    pub list: BTreeMap<Bytes, Bytes>,
    /// At the end, expiries through this time were delivered.
    pub expired_through_ms: u64,
}

#[derive(Debug)]
struct Known {
    entry: VerifiedEntry,
    arrived_ms: u64,
    // The transitive dependencies of each entry, by prev and parents.
    causes: BTreeSet<EntryId>,
}

type OpId = (EntryId, u32);

impl Truth {
    /// Takes entries in causal order.
    pub fn new(log: impl IntoIterator<Item = (VerifiedEntry, u64)>) -> Self {
        let mut truth = Self::default();
        for (entry, arrived_ms) in log {
            let direct = entry.header.prev.into_iter();
            let direct = direct.chain(entry.header.parents.iter().map(|parent| parent.id));
            let mut causes = BTreeSet::new();
            for cause in direct {
                causes.insert(cause);
                causes.extend(truth.entries[&cause].causes.iter().copied());
            }
            let known = Known {
                entry,
                arrived_ms,
                causes,
            };
            truth.entries.insert(known.entry.id, known);
        }
        truth
    }

    /// Returns the entries that a frontier covers.
    fn covered(&self, frontier: &Frontier) -> BTreeSet<EntryId> {
        let mut covered = BTreeSet::new();
        for (_author, tip) in frontier.iter() {
            let mut next = Some(tip.id);
            while let Some(id) = next.filter(|id| covered.insert(*id)) {
                next = self.entries[&id].entry.header.prev;
            }
        }
        covered
    }

    // Heads by key of a set of entries.
    fn heads_of(&self, covered: &BTreeSet<EntryId>) -> BTreeMap<Bytes, Heads> {
        heads_after(covered.iter().map(|id| &self.entries[id].entry))
    }
}

fn in_scope(options: &WatchOptions, key: &[u8]) -> bool {
    let is_about = |prefix: &Bytes| key.starts_with(prefix) && (!options.exact || key == prefix);
    let matches = |pattern: &Pattern| told(pattern.text(), key);
    options.prefixes.iter().any(is_about)
        || options.patterns.iter().any(matches)
        || options.prefixes.is_empty() && options.patterns.is_empty() && !options.exact
}

// Returns whether a pattern matches, by the rules in its documentation.
fn told(pattern: &[u8], key: &[u8]) -> bool {
    match (pattern, key) {
        ([], key) => key.is_empty(),
        ([b'*', b'*', rest @ ..], key) => (0..=key.len()).any(|taken| told(rest, &key[taken..])),
        ([b'*', rest @ ..], key) => {
            let run = key.iter().take_while(|byte| **byte != b'/').count();
            (0..=run).any(|taken| told(rest, &key[taken..]))
        }
        ([b'?', rest @ ..], [byte, key @ ..]) => *byte != b'/' && told(rest, key),
        ([b'\\', own, rest @ ..], [byte, key @ ..]) | ([own, rest @ ..], [byte, key @ ..]) => {
            own == byte && told(rest, key)
        }
        (_some, []) => false,
    }
}

fn matches_op(options: &WatchOptions, author: Author, op: &Op) -> bool {
    let kind = match op {
        Op::Put { .. } => Kind::Put,
        Op::Delete { .. } => Kind::Delete,
    };
    let kinds = options.kinds.as_ref();
    in_scope(options, op.key())
        && kinds.is_none_or(|kinds| kinds.contains(&kind))
        && options.author.is_none_or(|wanted| wanted == author)
}

/// Judges one watcher.
pub struct Judge<'a> {
    truth: &'a Truth,
    lineage: &'a Lineage,
    delivered: BTreeSet<OpId>,
    // The time of each delivered expiry, by entry.
    expired: BTreeMap<(EntryId, Bytes), u64>,
    // Entries before the start.
    base: BTreeSet<EntryId>,
    base_expired_ms: u64,
    // The last cursor, and the entries it covers.
    cursor: Cursor,
    covers: BTreeSet<EntryId>,
    // The atomic entry that is being delivered.
    open: Option<EntryId>,
    initial: BTreeMap<Bytes, EntryId>,
    in_state: bool,
    // A start is not a filter: once live, or after a resume, late entries come like all others.
    live: bool,
    map: BTreeMap<Bytes, (EntryId, Bytes)>,
}

impl<'a> Judge<'a> {
    /// Checks all steps, then looks for changes that are missing at the end.
    pub fn judge(truth: &'a Truth, lineage: &'a Lineage) -> Result<(), Broken> {
        let base = truth.covered(&lineage.begin.frontier);
        let mut judge = Self {
            truth,
            lineage,
            delivered: BTreeSet::new(),
            expired: BTreeMap::new(),
            covers: base.clone(),
            base,
            base_expired_ms: lineage.begin.expired_through_ms,
            cursor: lineage.begin.clone(),
            open: None,
            initial: BTreeMap::new(),
            in_state: lineage.options.start == Start::Initial,
            live: false,
            map: BTreeMap::new(),
        };
        for step in &lineage.steps {
            match step {
                Step::Saw(event, cursor) => judge.saw(event, cursor)?,
                Step::Resumed(cursor) => judge.resume(cursor)?,
            }
        }
        judge.end()
    }

    fn saw(&mut self, event: &WatchEvent, cursor: &Cursor) -> Result<(), Broken> {
        match event {
            WatchEvent::Change(change) if change.origin == Origin::Initial => {
                self.filter(change)?;
                if !self.in_state {
                    return Err(Broken::Snapshot(format!(
                        "state after it ended: {change:?}"
                    )));
                }
                self.initial.insert(change.key.clone(), change.entry.id);
                self.fold(change);
            }
            WatchEvent::Change(change) => self.change(change)?,
            WatchEvent::CaughtUp | WatchEvent::Progress => {}
            WatchEvent::Gap { reason, .. } | WatchEvent::Damaged { what: reason, .. } => {
                return Err(Broken::Gap(reason.clone()));
            }
        }
        self.moved(cursor)?;
        if let Some(open) = self
            .open
            .filter(|_| !matches!(event, WatchEvent::Change(_)))
        {
            return Err(Broken::Atomic(format!("{event:?} inside {open}")));
        }
        self.live |= matches!(event, WatchEvent::CaughtUp);
        if matches!(event, WatchEvent::CaughtUp) && self.in_state {
            self.in_state = false;
            self.snapshot()?;
        }
        Ok(())
    }

    fn filter(&self, change: &Change) -> Result<(), Broken> {
        let options = &self.lineage.options;
        let kinds = options.kinds.as_ref();
        let ok = in_scope(options, &change.key)
            && kinds.is_none_or(|kinds| kinds.contains(&change.kind))
            && options
                .author
                .is_none_or(|author| author == change.entry.author)
            && (!options.conflicts_only || change.heads.as_slice().len() > 1)
            && (!options.keys_only || change.value.is_none());
        if ok {
            return Ok(());
        }
        Err(Broken::Filter(format!("{change:?}")))
    }

    fn change(&mut self, change: &Change) -> Result<(), Broken> {
        self.filter(change)?;
        self.heads(change)?;
        if change.kind == Kind::Expire {
            self.expire(change)?;
        } else {
            self.content(change)?;
            self.order(change)?;
            let id = change.entry.id;
            if self.covers.contains(&id) || self.partly(id) > change.op_index {
                let cursor = &self.cursor;
                return Err(Broken::Bookmark(format!("{change:?} after {cursor:?}")));
            }
            if !self.delivered.insert((id, change.op_index)) {
                return Err(Broken::Unique(format!("{change:?}")));
            }
            self.open = change.atomic.then_some(id);
        }
        self.fold(change);
        Ok(())
    }

    fn partly(&self, id: EntryId) -> u32 {
        let partial = self.cursor.partial;
        partial
            .filter(|partial| partial.tip.id == id)
            .map_or(0, |partial| partial.ops)
    }

    fn content(&self, change: &Change) -> Result<(), Broken> {
        let wrong = |what: &str| Err(Broken::Content(format!("{what}: {change:?}")));
        let Some(known) = self.truth.entries.get(&change.entry.id) else {
            return wrong("no such entry");
        };
        let entry = &known.entry;
        let Some(op) = entry.ops.get(change.op_index as usize) else {
            return wrong("no such op");
        };
        let (kind, value, expires_ms) = match op {
            Op::Put {
                value, expires_ms, ..
            } => (Kind::Put, Some(value), *expires_ms),
            Op::Delete { .. } => (Kind::Delete, None, None),
        };
        let value = value.filter(|_| !self.lineage.options.keys_only);
        if (change.kind, change.value.as_ref(), change.expires_ms) != (kind, value, expires_ms)
            || change.key != op.key()
        {
            return wrong("not what the op says");
        }
        if (
            change.atomic,
            change.prev,
            change.op_count as usize,
            change.entry.seq,
        ) != (
            entry.header.atomic,
            entry.header.prev,
            entry.ops.len(),
            entry.header.seq,
        ) || change.arrived_ms != known.arrived_ms
        {
            return wrong("not what the entry says");
        }
        match self.lineage.options.start {
            Start::SinceAuthored { ms } if entry.header.hlc.wall_ms < ms && !self.live => {
                wrong("stamped before")
            }
            Start::SinceArrived { ms } if known.arrived_ms < ms && !self.live => {
                wrong("arrived before")
            }
            _ => Ok(()),
        }
    }

    fn order(&self, change: &Change) -> Result<(), Broken> {
        let id = change.entry.id;
        let known = &self.truth.entries[&id];
        for (earlier, op_index) in self.delivered.iter() {
            if *earlier == id && *op_index > change.op_index {
                return Err(Broken::AuthorOrder(format!("ops turned round: {change:?}")));
            }
        }
        let delivered: BTreeSet<_> = self.delivered.iter().map(|(id, _)| *id).collect();
        for earlier in delivered.iter().filter(|earlier| **earlier != id) {
            let earlier = &self.truth.entries[earlier];
            if !earlier.causes.contains(&id) {
                continue;
            }
            let text = format!("{change:?} after {:?}", earlier.entry.header);
            return Err(if earlier.entry.author() == known.entry.author() {
                Broken::AuthorOrder(text)
            } else {
                Broken::Causal(text)
            });
        }
        if let Some(open) = self.open.filter(|open| *open != id)
            && self.missing_ops(open).next().is_some()
        {
            return Err(Broken::Atomic(format!("{change:?} inside {open}")));
        }
        Ok(())
    }

    // Ops of an entry that match and were not delivered.
    fn missing_ops(&self, id: EntryId) -> impl Iterator<Item = u32> {
        let options = &self.lineage.options;
        let entry = &self.truth.entries[&id].entry;
        let latest = options.mode == WatchMode::Latest || options.conflicts_only;
        (0_u32..).zip(&entry.ops).filter_map(move |(index, op)| {
            let missing = !latest
                && matches_op(options, entry.author(), op)
                && !self.delivered.contains(&(id, index));
            missing.then_some(index)
        })
    }

    fn expire(&mut self, change: &Change) -> Result<(), Broken> {
        let wrong = |what: &str| Err(Broken::Expiry(format!("{what}: {change:?}")));
        let Some(known) = self.truth.entries.get(&change.entry.id) else {
            return wrong("no such entry");
        };
        let op = known.entry.ops.iter().find(|op| op.key() == &change.key);
        let Some(Op::Put {
            expires_ms: Some(due_ms),
            ..
        }) = op
        else {
            return wrong("it never expires");
        };
        let Some(told_ms) = change.expires_ms.filter(|told_ms| told_ms >= due_ms) else {
            return wrong("before its time");
        };
        if change
            .heads
            .winner()
            .is_none_or(|winner| winner.id != change.entry.id)
        {
            return wrong("it does not win");
        }
        for (id, _) in &self.delivered {
            let later = &self.truth.entries[id];
            let same_key = later.entry.ops.iter().any(|op| op.key() == &change.key);
            if same_key
                && later.causes.contains(&change.entry.id)
                && later.entry.id != change.entry.id
            {
                let cites = later
                    .entry
                    .header
                    .parents
                    .iter()
                    .any(|at| at.id == change.entry.id);
                if cites {
                    return wrong("overwritten before");
                }
            }
        }
        let at = (change.entry.id, change.key.clone());
        if self.expired.insert(at, told_ms).is_some() {
            return wrong("twice");
        }
        Ok(())
    }

    fn heads(&self, change: &Change) -> Result<(), Broken> {
        let heads = change.heads.as_slice();
        let wrong = |what: &str| Err(Broken::Heads(format!("{what}: {change:?}")));
        let winner = change.heads.winner().map(|winner| winner.id);
        if change.kind != Kind::Expire && change.late != (winner != Some(change.entry.id)) {
            return wrong("late");
        }
        if change.origin != Origin::Replay && heads.iter().all(|head| head.id != change.entry.id) {
            return wrong("not among its heads");
        }
        for head in heads {
            let known = &self.truth.entries[&head.id].entry;
            let superseded = |parent: &lattice::protocol::entry::Parent| {
                heads.iter().any(|other| other.id == parent.id)
            };
            if known.header.parents.iter().any(superseded) {
                return wrong("a head that another supersedes");
            }
        }
        Ok(())
    }

    fn fold(&mut self, change: &Change) {
        match change.kind {
            Kind::Put if !change.late => {
                let value = change.value.clone().unwrap_or_default();
                self.map
                    .insert(change.key.clone(), (change.entry.id, value));
            }
            Kind::Delete if !change.late => {
                self.map.remove(&change.key);
            }
            Kind::Expire => {
                self.map
                    .retain(|key, (id, _)| (key, *id) != (&change.key, change.entry.id));
            }
            _ => {}
        }
    }

    // A cursor covers the delivered changes and no others.
    fn moved(&mut self, cursor: &Cursor) -> Result<(), Broken> {
        if self.in_state && self.cursor == *cursor {
            return Ok(());
        }
        if cursor.frontier != self.cursor.frontier {
            let covers = self.truth.covered(&cursor.frontier);
            if let Some(lost) = self.covers.difference(&covers).next() {
                return Err(Broken::Bookmark(format!("cursor went back over {lost}")));
            }
            if self.in_state {
                self.base = covers.clone();
                self.base_expired_ms = cursor.expired_through_ms;
            }
            for id in covers
                .difference(&self.covers)
                .filter(|id| !self.base.contains(*id))
            {
                if self.before_since(*id) {
                    continue;
                }
                if let Some(op) = self.missing_ops(*id).next() {
                    let entry = &self.truth.entries[id].entry.header;
                    return Err(Broken::Complete(format!(
                        "op {op} of {entry:?} before {cursor:?}"
                    )));
                }
            }
            self.covers = covers;
        }
        if let Some(partial) = cursor.partial {
            let id = partial.tip.id;
            if self.truth.entries[&id].entry.header.atomic {
                return Err(Broken::Atomic(format!("{cursor:?} lies inside {id}")));
            }
            if let Some(op) = self.missing_ops(id).find(|op| *op < partial.ops) {
                return Err(Broken::Complete(format!("op {op} before {cursor:?}")));
            }
        }
        if self.open.is_some_and(|open| self.covers.contains(&open)) {
            self.open = None;
        }
        self.cursor = cursor.clone();
        Ok(())
    }

    fn before_since(&self, id: EntryId) -> bool {
        let known = &self.truth.entries[&id];
        match self.lineage.options.start {
            Start::SinceAuthored { ms } => known.entry.header.hlc.wall_ms < ms,
            Start::SinceArrived { ms } => known.arrived_ms < ms,
            _ => false,
        }
    }

    // A delivered change that the cursor does not cover may come again only if it is part of a
    // batch or a millisecond, or a value that had expired on arrival and whose expiry was not
    // delivered.
    fn resume(&mut self, cursor: &Cursor) -> Result<(), Broken> {
        if self.in_state {
            // The state is delivered again as history.
            self.in_state = false;
            self.map.clear();
        }
        let again: Vec<OpId> = self
            .delivered
            .iter()
            .filter(|(id, op)| !self.covers.contains(id) && self.partly(*id) <= *op)
            .copied()
            .collect();
        for op in again {
            let entry = &self.truth.entries[&op.0].entry;
            let is_over = matches!(
                entry.ops[op.1 as usize],
                Op::Put { expires_ms: Some(ms), .. } if ms <= cursor.expired_through_ms
            );
            if !entry.header.atomic && !is_over {
                return Err(Broken::Resume(format!(
                    "{op:?} is not covered by {cursor:?}"
                )));
            }
            self.delivered.remove(&op);
        }
        let partial = cursor.partial.map(|partial| partial.tip.id);
        self.expired.retain(|(id, _), told_ms| {
            let is_covered = self.covers.contains(id) || partial == Some(*id);
            is_covered && *told_ms <= cursor.expired_through_ms
        });
        self.open = None;
        self.live = true;
        Ok(())
    }

    fn snapshot(&self) -> Result<(), Broken> {
        let options = &self.lineage.options;
        if options.kinds.is_some() || options.author.is_some() || options.conflicts_only {
            return Ok(());
        }
        let mut live = BTreeMap::new();
        for (key, heads) in self.truth.heads_of(&self.base) {
            if let Some(winner) = heads.winner()
                && in_scope(options, &key)
                && winner.is_live(self.base_expired_ms)
            {
                live.insert(key, winner.id);
            }
        }
        if options.mode == WatchMode::Every && live != self.initial {
            let told = &self.initial;
            return Err(Broken::Snapshot(format!("told {told:?}, is {live:?}")));
        }
        Ok(())
    }

    fn end(&self) -> Result<(), Broken> {
        let options = &self.lineage.options;
        let all: BTreeSet<EntryId> = self.truth.entries.keys().copied().collect();
        if let Some(id) = all.difference(&self.covers).next() {
            return Err(Broken::Complete(format!("it ended before {id}")));
        }
        let finals = self.truth.heads_of(&all);
        if options.conflicts_only {
            return Ok(());
        }
        for (key, heads) in &finals {
            let Some(winner) = heads.winner().filter(|_| in_scope(options, key)) else {
                continue;
            };
            let known = &self.truth.entries[&winner.id];
            let author_ok = options.author.is_none_or(|author| author == winner.author);
            // Latest: superseded ones may be left out, the last one not.
            let index = known
                .entry
                .ops
                .iter()
                .position(|op| op.key() == key)
                .unwrap();
            let op = &known.entry.ops[index];
            let told = self.base.contains(&winner.id)
                || self.before_since(winner.id)
                || self
                    .delivered
                    .contains(&(winner.id, u32::try_from(index).unwrap()));
            if !told && matches_op(options, winner.author, op) {
                return Err(Broken::Complete(format!(
                    "the winner of {key:?} is missing"
                )));
            }
            let kinds = options.kinds.as_ref();
            if !author_ok || kinds.is_some_and(|kinds| !kinds.contains(&Kind::Expire)) {
                continue;
            }
            let Some(due_ms) = winner.expires_ms() else {
                continue;
            };
            let told_at_start = self.base.contains(&winner.id) && due_ms <= self.base_expired_ms;
            let since = match options.start {
                Start::SinceAuthored { .. } | Start::SinceArrived { .. } => true,
                Start::Now | Start::Initial | Start::After(_) => false,
            };
            if due_ms <= self.truth.expired_through_ms
                && !told_at_start
                && !since
                && !self.expired.contains_key(&(winner.id, key.clone()))
            {
                return Err(Broken::Expiry(format!("none for {key:?}: {winner:?}")));
            }
        }
        self.folded()
    }

    fn folded(&self) -> Result<(), Broken> {
        let options = &self.lineage.options;
        let whole = match &options.start {
            Start::Initial => true,
            Start::After(cursor) => cursor.frontier.is_empty(),
            Start::Now | Start::SinceAuthored { .. } | Start::SinceArrived { .. } => false,
        };
        if !whole || options.kinds.is_some() || options.author.is_some() || options.keys_only {
            return Ok(());
        }
        let list = self
            .truth
            .list
            .iter()
            .filter(|(key, _)| in_scope(options, key));
        let list: BTreeMap<_, _> = list.collect();
        let told: BTreeMap<_, _> = self
            .map
            .iter()
            .map(|(key, (_, value))| (key, value))
            .collect();
        if told != list {
            return Err(Broken::Fold(format!("told {told:?}, is {list:?}")));
        }
        Ok(())
    }
}
