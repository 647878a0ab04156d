//! The one path in: every entry, written here or elsewhere, goes through `take_in`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    id::{Author, EntryId, StoreId},
    limits::{DRIFT_MS_MAX, GOSSIP_ENTRY_BYTES_MAX, INGEST_OPS_MIN},
    log::LogError,
    pace::Pace,
    protocol::{
        chain::{Admission, ChainError, Tip, admit},
        change::{Change, EntryRef, Kind, Origin},
        entry::{Entry, EntryError, Op, Parent, SignedEntry, VerifiedEntry},
        frontier::FrontierTip,
        heads::{Head, Heads},
        run,
    },
    state::{Staged, StateError},
    store::{
        Fresh, WriteError,
        writer::{actor::Actor, group::GroupError, queue::Inbox},
    },
};

/// What became of an entry that came from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ingested {
    /// It is durable, applied and told.
    Applied(EntryId),
    /// It was here already; or its place is, and it is put back into it.
    Duplicate(EntryId),
    /// It waits for another entry, in memory.
    Pending {
        /// Which it is.
        entry: EntryId,
        /// What it waits for.
        missing: EntryId,
    },
    /// It is stamped too far ahead of the clock here, and waits in memory.
    Held {
        /// Which it is.
        entry: EntryId,
        /// When it is applied, ms since 1970.
        due_ms: u64,
    },
    /// Nobody has let its author in yet: it waits in memory until somebody does.
    Stranger(EntryId),
    /// It can never be applied.
    Refused(RefusedEntry),
}

/// Why an entry can never be applied here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedEntry {
    /// It is not an entry, not authentic, or newer than this version.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// It does not fit its author's log.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// It belongs to another store.
    #[error("the entry belongs to store {theirs}, this is {ours}")]
    WrongStore {
        /// What it says.
        theirs: StoreId,
        /// This store.
        ours: StoreId,
    },
    /// Its author may only read.
    #[error("node {author} may only read")]
    Reader {
        /// Who wrote it.
        author: Author,
    },
    /// Its author was removed, and it is not among what counts of it.
    #[error("node {author} was removed before it wrote this")]
    Removed {
        /// Who wrote it.
        author: Author,
    },
    /// It says of a parent what is not so.
    #[error("the entry gives a false clock or place for its parent {parent}")]
    FalseParent {
        /// The parent.
        parent: EntryId,
    },
}

/// Why not all of a call was taken in. What was is found to be here when it comes again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IngestError {
    /// The store takes no writes now.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// From bytes to authentic entries of one store, in the same order.
pub(in crate::store) fn check(
    entries: Vec<Bytes>,
    store: &StoreId,
) -> Vec<Result<VerifiedEntry, RefusedEntry>> {
    let read = |bytes| {
        let entry = SignedEntry::decode(bytes)?.parse()?;
        if entry.header.store != *store {
            return Err(RefusedEntry::WrongStore {
                theirs: entry.header.store,
                ours: *store,
            });
        }
        Ok(entry)
    };
    let mut pace = Pace::start();
    run::verify(entries.into_iter().map(read).collect(), || pace.step())
}

// What `take_in` did with an entry.
#[derive(Debug)]
pub(super) enum TakenIn {
    Staged,
    Duplicate,
    Missing(EntryId),
    Refused(RefusedEntry),
}

impl Actor {
    /// Takes in entries that came from elsewhere. Writes that come meanwhile do not wait for all of
    /// them: what is staged is committed, and they go first.
    pub(super) fn ingest(
        &mut self,
        entries: &[Result<VerifiedEntry, RefusedEntry>],
        inbox: &mut Inbox,
    ) -> Result<Vec<Ingested>, IngestError> {
        let me = self.author();
        let own =
            |entry: &Result<VerifiedEntry, _>| entry.as_ref().is_ok_and(|it| it.author() == me);
        // What comes back of this node's own log is whole before it goes on.
        let whole = entries.iter().rposition(own).map_or(0, |last| last + 1);
        let mut outcomes = Vec::with_capacity(entries.len());
        let done = loop {
            let (before, ops_min) = (outcomes.len(), INGEST_OPS_MIN.max(self.grouped));
            // Who comes while a part is made durable waits for that, so parts are small as long as
            // somebody writes, and take as long as that. Else there is one: fewer fsyncs.
            let (began, part) = (Instant::now(), self.part_time());
            let group = self.ingest_group(&entries[before..], |count, ops| {
                let is_part = ops >= ops_min && (inbox.has_writes() || began.elapsed() >= part);
                is_part && before + count >= whole
            });
            match group {
                Ok(mut group) => outcomes.append(&mut group),
                Err(error) => break Err(error),
            }
            if outcomes.len() == entries.len() {
                break Ok(outcomes);
            }
            self.write_waiting(inbox);
            self.maintain();
        };
        self.mend();
        done
    }

    fn part_time(&self) -> Duration {
        let is_now = |at: Instant| at.elapsed() < WRITES_REMEMBERED;
        if self.grouped_at.is_some_and(is_now) {
            self.committed_in
        } else {
            Duration::MAX
        }
    }

    /// Takes in entries that have waited for something else than an entry.
    pub(super) fn ingest_again(&mut self, entries: Vec<VerifiedEntry>) {
        let entries: Vec<_> = entries.into_iter().map(Ok).collect();
        if let Err(error) = self.ingest_group(&entries, |_count, _ops| false) {
            // The next sync brings them again.
            tracing::warn!(store = %self.config.id, %error, "entries that waited were not applied");
        }
        self.mend();
    }

    // Takes in the first of `entries` as one group: all, or so many, with so many ops, as are enough.
    fn ingest_group(
        &mut self,
        entries: &[Result<VerifiedEntry, RefusedEntry>],
        is_enough: impl Fn(usize, usize) -> bool,
    ) -> Result<Vec<Ingested>, IngestError> {
        self.check_writable()?;
        let outcomes = match self.try_ingest(entries, &is_enough) {
            Err(GroupError::State(error)) => {
                self.state_damaged(error);
                self.try_ingest(entries, &is_enough)
            }
            done => done,
        };
        outcomes.map_err(|error| WriteError::from(error).into())
    }

    /// Returns which of `tips` are not here: neither readable in the logs, nor held or strangers'
    /// with everything before them by `prev` here. A pending entry is not here: it may have to make
    /// room for others, and would never be asked for again. Nor is an unreadable one: a peer gives
    /// it back.
    pub(super) fn lacks(
        &self,
        tips: Vec<(Author, FrontierTip)>,
    ) -> Result<Vec<(Author, FrontierTip)>, WriteError> {
        let mut lacking = Vec::new();
        for (author, tip) in tips {
            if !self.is_here(&author, tip)? {
                lacking.push((author, tip));
            }
        }
        Ok(lacking)
    }

    fn is_here(&self, author: &Author, tip: FrontierTip) -> Result<bool, WriteError> {
        let mut place = tip;
        loop {
            match self.logs.reader().entry(author, place.seq, &place.id) {
                Ok(Some(_)) => return Ok(true),
                Ok(None) | Err(LogError::Damaged(_)) => {}
                Err(error) => return Err(WriteError::Read(error.into())),
            }
            let Some(entry) = self.waiting_entry(author, &place.id) else {
                return Ok(false);
            };
            let Some(prev) = entry.header.prev else {
                return Ok(true);
            };
            place = FrontierTip {
                seq: entry.header.seq.saturating_sub(1),
                id: prev,
            };
        }
    }

    fn waiting_entry(&self, author: &Author, id: &EntryId) -> Option<&VerifiedEntry> {
        let mut held = self.waiting.held();
        let held = held.find(|(_, entry)| entry.id == *id);
        held.map(|(_, entry)| entry)
            .or_else(|| self.membership.strangers.get(id))
            .filter(|entry| entry.author() == *author)
    }

    /// Applies held entries that are due.
    pub(super) fn release_held(&mut self, now_ms: u64) {
        let due: Vec<_> = self.waiting.take_due(now_ms).into_iter().map(Ok).collect();
        if let Err(error) = self.try_ingest(&due, |_count, _ops| false) {
            let error = WriteError::from(error);
            tracing::warn!(store = %self.config.id, %error, "held entries were not applied");
            for entry in due.into_iter().flatten() {
                self.waiting.hold(entry, now_ms + 1000);
            }
        }
    }

    fn try_ingest(
        &mut self,
        entries: &[Result<VerifiedEntry, RefusedEntry>],
        is_enough: impl Fn(usize, usize) -> bool,
    ) -> Result<Vec<Ingested>, GroupError> {
        let done = self.stage_entries(entries, is_enough).and_then(|outcomes| {
            let began = Instant::now();
            self.commit().map_err(GroupError::Refused)?;
            self.committed_in = began.elapsed();
            Ok(outcomes)
        });
        if done.is_err() {
            self.roll_back();
        }
        done
    }

    fn stage_entries(
        &mut self,
        entries: &[Result<VerifiedEntry, RefusedEntry>],
        is_enough: impl Fn(usize, usize) -> bool,
    ) -> Result<Vec<Ingested>, GroupError> {
        let mut outcomes = Vec::new();
        let (mut pace, mut ops) = (Pace::start(), 0);
        for entry in entries {
            if is_enough(outcomes.len(), ops) {
                break;
            }
            pace.step();
            outcomes.push(match entry {
                Ok(entry) => {
                    ops += entry.ops.len().max(1);
                    self.ingest_one(entry)?
                }
                Err(refused) => Ingested::Refused(refused.clone()),
            });
        }
        Ok(outcomes)
    }

    fn ingest_one(&mut self, entry: &VerifiedEntry) -> Result<Ingested, GroupError> {
        if self.mending.take(entry) {
            return Ok(Ingested::Duplicate(entry.id));
        }
        let ingested = self.ingest_alone(entry)?;
        if let Ingested::Applied(id) = ingested {
            self.release_waiting(id)?;
        }
        Ok(ingested)
    }

    // Without those that waited for it.
    fn ingest_alone(&mut self, entry: &VerifiedEntry) -> Result<Ingested, GroupError> {
        match self.check_standing(entry) {
            Ok(true) => {}
            Ok(false) => {
                let author = EntryId(entry.author().0);
                self.membership.strangers.insert(entry.clone(), author);
                return Ok(Ingested::Stranger(entry.id));
            }
            Err(refused) => return Ok(Ingested::Refused(refused)),
        }
        let due_ms = entry.header.hlc.wall_ms.saturating_sub(DRIFT_MS_MAX);
        if !self.config.root && due_ms > self.clock.now_ms() {
            self.waiting.hold(entry.clone(), due_ms);
            return Ok(Ingested::Held {
                entry: entry.id,
                due_ms,
            });
        }
        let taken = self.take_in(entry, Origin::Remote, None)?;
        Ok(match taken {
            TakenIn::Staged => Ingested::Applied(entry.id),
            TakenIn::Duplicate => Ingested::Duplicate(entry.id),
            TakenIn::Refused(refused) => Ingested::Refused(refused),
            TakenIn::Missing(missing) => {
                self.waiting.pending.insert(entry.clone(), missing);
                Ingested::Pending {
                    entry: entry.id,
                    missing,
                }
            }
        })
    }

    // Entries that waited for `come`, and those that waited for them. Who wrote them may have been
    // removed meanwhile.
    fn release_waiting(&mut self, come: EntryId) -> Result<(), GroupError> {
        let mut come = vec![come];
        while let Some(id) = come.pop() {
            for entry in self.waiting.pending.release(&id) {
                match self.ingest_alone(&entry)? {
                    Ingested::Applied(id) => come.push(id),
                    Ingested::Refused(refused) => {
                        tracing::warn!(entry = %entry.id, %refused, "entry refused");
                    }
                    _waits_or_is_here => {}
                }
            }
        }
        Ok(())
    }

    /// Admits an authentic entry: appends it to its log and changes the heads of its keys. It is
    /// neither durable nor visible before `commit`. `before`: the heads of its keys, one for each
    /// op, where the caller has read them.
    pub(super) fn take_in(
        &mut self,
        entry: &VerifiedEntry,
        origin: Origin,
        before: Option<Vec<Heads>>,
    ) -> Result<TakenIn, GroupError> {
        let author = entry.author();
        let tips = self.logs.tips(&author);
        let reader = self.logs.reader().clone();
        // This entry or its prev, where it is of this very group: the logs do not show it yet.
        let staged = |seq| {
            let ids = [Some(entry.id), entry.header.prev];
            let mut staged = ids
                .into_iter()
                .flatten()
                .filter_map(|id| self.waiting.group.get(&id));
            staged
                .find(|staged| staged.author == author && staged.seq == seq)
                .map(|Parent { seq, id, hlc, .. }| Tip {
                    seq: *seq,
                    id: *id,
                    hlc: *hlc,
                })
        };
        let (mut damage, mut unreadable) = (Vec::new(), None);
        let admission = admit(&tips, entry, |branch, seq| {
            staged(seq).or_else(|| match reader.tip_at(&author, branch, seq) {
                Ok(tip) => tip,
                Err(LogError::Damaged(found)) => {
                    damage.push(found);
                    None
                }
                Err(error) => {
                    unreadable = Some(error);
                    None
                }
            })
        });
        if let Some(error) = unreadable {
            return Err(GroupError::unreadable(error));
        }
        // A place that cannot be read is not free.
        if admission != Ok(Admission::Duplicate) && self.fits_hole(entry, damage) {
            return Ok(TakenIn::Duplicate);
        }
        let admission = match admission {
            Ok(Admission::Duplicate) => return Ok(TakenIn::Duplicate),
            Ok(Admission::Gap { .. }) => {
                return Ok(TakenIn::Missing(entry.header.prev.unwrap_or(entry.id)));
            }
            Ok(admission) => admission,
            Err(ChainError::ClockWentBack { .. }) if self.is_stamp_lost(entry) => {
                return Ok(TakenIn::Missing(entry.header.prev.unwrap_or(entry.id)));
            }
            Err(refused) => return Ok(TakenIn::Refused(refused.into())),
        };
        let before = match before {
            Some(before) => before,
            None => self.heads_of(entry)?,
        };
        if origin == Origin::Remote
            && let Err(refused) = self.check_parents(entry, &before)?
        {
            return Ok(refused);
        }
        let arrived_ms = self.clock.now_ms().max(self.arrived_ms);
        self.arrived_ms = arrived_ms;
        match admission {
            Admission::Append { branch } => {
                self.logs
                    .append(u32::try_from(branch).unwrap_or(u32::MAX), entry, arrived_ms);
            }
            Admission::First | Admission::Fork { .. } => {
                if let Err(error) = self.logs.begin(entry, arrived_ms) {
                    let error = WriteError::from(error);
                    if let WriteError::Poisoned { reason } = &error {
                        self.poisoned = Some(reason.clone());
                    }
                    return Err(GroupError::Refused(error));
                }
            }
            Admission::Duplicate | Admission::Gap { .. } => {}
        }
        let state = self.state.as_mut().expect("the store is open");
        if let Some(acts) = self
            .membership
            .note(entry, state.staged(), self.logs.reader())
        {
            state.count(acts);
        }
        let changes = state.stage_over(entry, before)?;
        self.waiting.group.insert(entry.id, entry.as_parent());
        self.note_fresh(entry, origin);
        self.membership.absent.note(entry);
        self.marks.forks.note(entry);
        self.hlc = self.hlc.max(entry.header.hlc);
        for (index, (op, staged)) in entry.ops.iter().zip(changes).enumerate() {
            let Some(staged) = staged else { continue };
            if let Some(ms) = staged.after.winner().and_then(Head::expires_ms) {
                self.next_expiry_ms = Some(self.next_expiry_ms.map_or(ms, |next| next.min(ms)));
            }
            self.staged.push(Arc::new(change(
                entry, index, op, staged, origin, arrived_ms,
            )));
        }
        Ok(TakenIn::Staged)
    }

    fn heads_of(&self, entry: &Entry) -> Result<Vec<Heads>, StateError> {
        let state = self.state.as_ref().expect("the store is open");
        let keys = entry.ops.iter().map(Op::key);
        keys.map(|key| state.heads(key)).collect()
    }

    /// Returns the key this node signs with.
    pub(super) fn author(&self) -> Author {
        Author(self.config.key.verifying_key().to_bytes())
    }

    /// Returns the wall clock, not before any expiry told.
    pub(super) fn now_ms(&self) -> u64 {
        let told = self
            .state
            .as_ref()
            .map_or(0, |state| state.staged().expired_through_ms);
        self.clock.now_ms().max(told)
    }
}

impl Actor {
    /// Remembers an entry for `tell_fresh`, where somebody listens.
    pub(super) fn note_fresh(&mut self, entry: &VerifiedEntry, origin: Origin) {
        if origin == Origin::Remote || self.fresh.receiver_count() == 0 {
            return;
        }
        let small = entry.signed.header.len() + entry.signed.ops.len() <= GOSSIP_ENTRY_BYTES_MAX;
        let encoded = small.then(|| entry.signed.encode().into());
        self.applying.push(Fresh {
            author: entry.author(),
            seq: entry.header.seq,
            id: entry.id,
            encoded,
        });
    }

    /// Tells what was written. After the fsync: nothing leaves this node before it is durable.
    pub(super) fn tell_fresh(&mut self) {
        for fresh in self.applying.drain(..) {
            // Nobody listens any more: the log has it.
            drop(self.fresh.send(fresh));
        }
    }
}

impl GroupError {
    // A log could not be read; nothing is wrong with writing.
    pub(super) fn unreadable(error: LogError) -> Self {
        Self::Refused(WriteError::Read(error.into()))
    }
}

/// Describes what `op` of `entry` did.
pub(super) fn change(
    entry: &VerifiedEntry,
    index: usize,
    op: &Op,
    staged: Staged,
    origin: Origin,
    arrived_ms: u64,
) -> Change {
    let (kind, value, expires_ms) = match op {
        Op::Put {
            value, expires_ms, ..
        } => (Kind::Put, Some(value.clone()), *expires_ms),
        Op::Delete { .. } => (Kind::Delete, None, None),
    };
    let late = staged
        .after
        .winner()
        .is_some_and(|winner| winner.id != entry.id);
    Change {
        key: op.key().clone(),
        kind,
        value,
        expires_ms,
        entry: EntryRef::from(&**entry),
        prev: entry.header.prev,
        op_index: u32::try_from(index).unwrap_or(u32::MAX),
        op_count: u32::try_from(entry.ops.len()).unwrap_or(u32::MAX),
        atomic: entry.header.atomic,
        depth: entry.header.depth(),
        previous: staged.before.winner().map(EntryRef::from),
        heads: staged.after,
        origin,
        arrived_ms,
        late,
    }
}

// Who writes now and then, and who has just begun to, is served the same.
const WRITES_REMEMBERED: Duration = Duration::from_secs(1);
