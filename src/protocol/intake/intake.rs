//! The decision: one value that knows what waits, and judges each entry that is offered.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    id::{Author, EntryId, Seq},
    limits::{
        DRIFT_MS_MAX, HELD_BYTES_MAX, PENDING_BYTES_MAX, STRANGERS_BYTES_MAX, UNVOUCHED_BYTES_MAX,
    },
    protocol::{
        chain::{Admission, ChainError, Tip, admit},
        entry::{Entry, Parent, VerifiedEntry},
        finality::Arrival,
        fork::takes_back,
        frontier::FrontierTip,
        heads::{Before, Heads, among},
        intake::{
            Bases, Held, Lookup, Pending, Place, Refusal, Verdict, bases::before,
            patience::Patience,
        },
        membership::{Standing, role::is_never_held},
    },
};

/// Decides what becomes of each entry, and keeps those that must wait.
///
/// Call order, for one group of entries that become durable together:
///
/// 1. [`offer`](Self::offer) for each entry from elsewhere, [`place`](Self::place) for each own one.
/// 2. After `Append` or `Begin`, the caller writes and applies the entry, then calls
///    [`staged`](Self::staged), and offers the entries that this returns.
/// 3. [`commit`](Self::commit) when the group is durable, or [`roll_back`](Self::roll_back).
///
/// Between groups: [`take_due`](Self::take_due) when the clock moves,
/// [`take_admitted`](Self::take_admitted) when members change, [`settle`](Self::settle) when a sync
/// has ended. Each returns entries to offer again.
#[derive(Debug)]
pub struct Intake {
    // True in the root store, where acts and invites are never held.
    is_root: bool,
    pending: Pending<EntryId>,
    pub(super) held: Held,
    // Entries whose own signature is wrong: they are staged together with one that vouches for them.
    pub(super) unvouched: Pending<Author>,
    // Entries of authors who are not admitted yet.
    strangers: Pending<Author>,
    // Entries of the current group: `Lookup::at` does not show them. Cleared when the group ends.
    group: BTreeMap<EntryId, Staged>,
    // True between `settle` and `settled`: parents that do not count are not waited for, nor those
    // for which an entry has waited long.
    settling: bool,
    pub(super) patience: Patience,
    // Entries dropped to make room, since the start.
    dropped: u64,
}

// An entry of the current group.
#[derive(Debug, Clone, Copy)]
struct Staged {
    place: Parent,
    prev: Option<EntryId>,
}

/// Bounds of the pools, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct IntakeLimits {
    /// Bytes of pending entries.
    pub pending_bytes_max: usize,
    /// Bytes of held entries.
    pub held_bytes_max: usize,
    /// Bytes of entries that are set aside.
    pub unvouched_bytes_max: usize,
    /// Bytes of strangers' entries.
    pub strangers_bytes_max: usize,
}

impl Default for IntakeLimits {
    fn default() -> Self {
        Self {
            pending_bytes_max: PENDING_BYTES_MAX,
            held_bytes_max: HELD_BYTES_MAX,
            unvouched_bytes_max: UNVOUCHED_BYTES_MAX,
            strangers_bytes_max: STRANGERS_BYTES_MAX,
        }
    }
}

impl Intake {
    /// Makes an intake in which no entry waits. `is_root`: whether this is the root store, whose
    /// acts and invites are never held.
    pub fn new(is_root: bool, limits: IntakeLimits) -> Self {
        Self {
            is_root,
            pending: Pending::new(limits.pending_bytes_max),
            held: Held::new(limits.held_bytes_max),
            unvouched: Pending::new(limits.unvouched_bytes_max),
            strangers: Pending::new(limits.strangers_bytes_max),
            group: BTreeMap::new(),
            settling: false,
            patience: Patience::default(),
            dropped: 0,
        }
    }

    /// Decides what becomes of an authentic entry from elsewhere. `now_ms`: this node's clock. An
    /// entry that waits is kept here.
    ///
    /// # Errors
    /// Those of `log`; nothing has changed then, and the entry may be offered again.
    pub fn offer<L: Lookup>(
        &mut self,
        entry: &VerifiedEntry,
        now_ms: u64,
        log: &L,
    ) -> Result<Verdict, L::Error> {
        let author = entry.author();
        if log.is_hole(&author, entry.header.seq)? {
            return Ok(Verdict::Repairs);
        }
        if let Some(settled) = settled(entry, log)? {
            return Ok(settled);
        }
        let standing = log.standing(&author);
        match standing {
            Standing::Counts => {}
            _any if log.may_be_final(&author, entry.header.seq) => {}
            Standing::Unknown => {
                let dropped = self.strangers.insert(entry.clone(), author).len();
                self.note_dropped(dropped);
                return Ok(Verdict::AwaitsMember);
            }
            Standing::Reader => return Ok(Verdict::Refused(Refusal::Reader { author })),
            Standing::Spent => return Ok(Verdict::Refused(Refusal::Spent { author })),
            Standing::Through(cut) => {
                let keeps = |author: &Author, entry, tip| log.keeps(author, entry, tip);
                if !cut.covers(&author, FrontierTip::of(entry), keeps)? {
                    return Ok(Verdict::Refused(Refusal::Removed { author }));
                }
            }
        }
        if let Some(due_ms) = self.due_ms(entry).filter(|due_ms| *due_ms > now_ms) {
            let dropped = self.held.insert(entry.clone(), due_ms);
            self.note_dropped(dropped);
            return Ok(Verdict::AwaitsClock { due_ms });
        }
        if self.unvouched.get(&entry.id).is_some() {
            return Ok(Verdict::AwaitsVoucher);
        }
        let run = self.run_before(entry);
        if !run.is_empty() {
            return self.offer_run(run, entry, now_ms, log);
        }
        let mut verdict = self.place(entry, None, log)?;
        let (Verdict::Append { before, .. } | Verdict::Begin { before, .. }) = &mut verdict else {
            return Ok(verdict);
        };
        let is_over = self.patience.is_over(&entry.id, now_ms);
        match self.absent_parents(entry, &before.heads, log, is_over, |_parent| false)? {
            Ok(absent) => {
                before.absent = absent;
                Ok(verdict)
            }
            Err(parent) => Ok(self.wait_for_parent(entry, parent, now_ms)),
        }
    }

    /// Decides where an entry belongs in its author's log, and nothing else: own entries need no more.
    /// `heads`: those of its keys, where the caller has read them.
    ///
    /// # Errors
    /// Those of `log`.
    pub fn place<L: Lookup>(
        &mut self,
        entry: &VerifiedEntry,
        heads: Option<Vec<Heads>>,
        log: &L,
    ) -> Result<Verdict, L::Error> {
        let author = entry.author();
        let tips = log.tips(&author);
        let mut unreadable = false;
        let admission = admit(&tips, log.anchor(&author), entry, |branch, seq| {
            if let Some(staged) = self.staged_at(entry, seq) {
                return Ok(Some(staged));
            }
            Ok(match log.at(&author, branch, seq)? {
                Place::Entry(tip) => Some(tip),
                Place::Free => None,
                Place::Unreadable => {
                    unreadable = true;
                    None
                }
            })
        })?;
        if matches!(admission, Ok(Admission::Duplicate | Admission::Final)) {
            return Ok(Verdict::Duplicate);
        }
        // An unreadable place is not free.
        if unreadable && log.is_hole(&author, entry.header.seq)? {
            return Ok(Verdict::Repairs);
        }
        let prev = entry.header.prev.unwrap_or(entry.id);
        let before = |intake: &Self| {
            let heads = heads.map_or_else(|| log.heads(entry), Ok)?;
            Before::new(entry, heads, |head| {
                let place = FrontierTip {
                    seq: head.seq,
                    id: head.id,
                };
                // Of one branch everything before the entry is its past.
                if tips.len() < 2 {
                    return Ok(true);
                }
                let ancestors =
                    intake.ancestors(entry, BTreeSet::from([place]), |places, before| {
                        let leads = log.leads(&author, place, before)? == Some(true);
                        Ok(places.iter().copied().filter(|_| leads).collect())
                    })?;
                Ok(!ancestors.is_empty())
            })
        };
        Ok(match admission {
            Ok(Admission::Duplicate | Admission::Final) => Verdict::Duplicate,
            Ok(Admission::Append { branch }) => Verdict::Append {
                branch,
                before: before(self)?,
            },
            Ok(Admission::First) => Verdict::Begin {
                fork: false,
                before: before(self)?,
            },
            Ok(Admission::Fork { .. }) if !log.takes_branch(&author, entry.header.seq, &tips) => {
                Verdict::Refused(Refusal::Spent { author })
            }
            Ok(Admission::Fork { .. }) => Verdict::Begin {
                fork: true,
                before: before(self)?,
            },
            Ok(Admission::Gap { .. }) => self.wait_for(entry, prev),
            // The stamp of an unreadable predecessor is a guess.
            Err(ChainError::ClockWentBack { .. }) if self.is_unreadable(entry, prev, log)? => {
                self.wait_for(entry, prev)
            }
            Err(refused) => Verdict::Refused(refused.into()),
        })
    }

    /// Notes that `entry` is written and applied. Returns the entries that waited for it, to be
    /// offered again.
    #[must_use = "the entries are kept nowhere else"]
    pub fn staged(&mut self, entry: &VerifiedEntry) -> Vec<VerifiedEntry> {
        let staged = Staged {
            place: entry.as_parent(),
            prev: entry.header.prev,
        };
        self.group.insert(entry.id, staged);
        self.pending.release(&entry.id)
    }

    /// Ends a group that is durable.
    pub fn commit(&mut self) {
        self.group.clear();
    }

    /// Ends a group that was not written. Entries that it took out to offer them again are dropped;
    /// the next sync brings them.
    pub fn roll_back(&mut self) {
        self.group.clear();
    }

    /// Returns whether entries are staged and neither committed nor rolled back.
    pub fn is_staging(&self) -> bool {
        !self.group.is_empty()
    }

    /// Takes out the held entries that are due at `now_ms`.
    #[must_use = "the entries are kept nowhere else"]
    pub fn take_due(&mut self, now_ms: u64) -> Vec<VerifiedEntry> {
        self.held.take_due(now_ms)
    }

    /// Returns when the next held entry is due, ms since 1970; `None` when none is held.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.held.next_due_ms()
    }

    /// Holds `entry` until `due_ms`: it was due, and could not be written.
    pub fn hold(&mut self, entry: VerifiedEntry, due_ms: u64) {
        let dropped = self.held.insert(entry, due_ms);
        self.note_dropped(dropped);
    }

    /// Takes out the entries of authors who are members now, causes before effects.
    #[must_use = "the entries are kept nowhere else"]
    pub fn take_admitted<'a>(
        &mut self,
        members: impl IntoIterator<Item = &'a Author>,
    ) -> Vec<VerifiedEntry> {
        let mut admitted = Vec::new();
        for author in members {
            admitted.extend(self.strangers.release(author));
        }
        admitted.sort_by_key(|entry| entry.order());
        admitted
    }

    /// Begins to settle: takes out all pending entries, causes before effects, and does not wait for
    /// parents that do not count until `settled` is called.
    #[must_use = "the entries are kept nowhere else"]
    pub fn settle(&mut self) -> Vec<VerifiedEntry> {
        self.settling = true;
        let mut pending = self.pending.take_all();
        pending.sort_by_key(|entry| entry.order());
        pending
    }

    /// Ends what `settle` began.
    pub fn settled(&mut self) {
        self.settling = false;
        let pending = &self.pending;
        self.patience.keep(|entry| pending.get(entry).is_some());
    }

    /// Returns whether the entry at `tip` is here: readable in the log, or held or a stranger's with
    /// everything before it by `prev` here. A pending entry is not: it may be dropped to make room,
    /// and must be asked for again. Nor is an unreadable one: a peer gives it back.
    ///
    /// # Errors
    /// Those of `log`.
    pub fn is_here<L: Lookup>(
        &self,
        author: &Author,
        tip: FrontierTip,
        log: &L,
    ) -> Result<bool, L::Error> {
        let mut bases = Bases::new(vec![(*author, tip)]);
        while !self.find_bases(&mut bases, usize::MAX) {}
        for (_, base) in bases.into_found() {
            if let Some(base) = base
                && self.find(author, base.seq, base.id, log)? != Found::Here
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Goes on with `bases` for at most `steps` entries: follows tips back through held entries and
    /// those of strangers. Returns whether it is done. A tip is here if its base is in the log and
    /// readable, or is `None`.
    pub fn find_bases(&self, bases: &mut Bases, steps: usize) -> bool {
        bases.advance(steps, |author, id| {
            let strange = || {
                let kept = self.strangers.get(id)?;
                (kept.author() == *author).then(|| before(kept))
            };
            self.held.before(author, id).or_else(strange)
        })
    }

    /// Returns the pending entries.
    pub fn pending(&self) -> &Pending<EntryId> {
        &self.pending
    }

    /// Returns the held entries.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Returns how many entries were dropped to make room, since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    // Returns when an entry is due, by its stamp and by its predecessor, if that is held; `None`
    // when it waits for no clock. An exempt entry moves no clock: nobody signs above its stamp, only
    // above those of an entry's own predecessor and parents.
    pub(super) fn due_ms(&self, entry: &Entry) -> Option<u64> {
        let stamped_ms = entry.header.hlc.wall_ms.saturating_sub(DRIFT_MS_MAX);
        let own = (!self.is_root || !is_never_held(entry)).then_some(stamped_ms);
        let prev = entry.header.prev.as_ref();
        own.max(prev.and_then(|prev| self.held.due_ms(&entry.author(), prev)))
    }

    pub(super) fn note_dropped(&mut self, entries: usize) {
        let entries = u64::try_from(entries).unwrap_or(u64::MAX);
        self.dropped = self.dropped.saturating_add(entries);
    }

    pub(super) fn wait_for(&mut self, entry: &VerifiedEntry, missing: EntryId) -> Verdict {
        let dropped = self.pending.insert(entry.clone(), missing).len();
        self.note_dropped(dropped);
        Verdict::AwaitsEntry(missing)
    }

    pub(super) fn wait_for_parent(
        &mut self,
        entry: &VerifiedEntry,
        parent: EntryId,
        now_ms: u64,
    ) -> Verdict {
        let verdict = self.wait_for(entry, parent);
        self.patience.note(entry.id, now_ms);
        let pending = &self.pending;
        if !self.settling && self.patience.len() > pending.len().saturating_mul(2) {
            self.patience.keep(|entry| pending.get(entry).is_some());
        }
        verdict
    }

    // Returns `entry` itself or its predecessor, if the current group has it at `seq`.
    fn staged_at(&self, entry: &Entry, seq: Seq) -> Option<Tip> {
        let ids = [Some(entry.id), entry.header.prev];
        let staged = ids.iter().flatten().filter_map(|id| self.group.get(id));
        let mut staged = staged.map(|staged| staged.place);
        let staged = staged.find(|staged| staged.author == entry.author() && staged.seq == seq)?;
        Some(Tip {
            seq: staged.seq,
            id: staged.id,
            hlc: staged.hlc,
        })
    }

    fn is_unreadable<L: Lookup>(
        &self,
        entry: &Entry,
        prev: EntryId,
        log: &L,
    ) -> Result<bool, L::Error> {
        let before = entry.header.seq.saturating_sub(1);
        let found = self.find(&entry.author(), before, prev, log)?;
        Ok(found == Found::Unreadable)
    }

    fn find<L: Lookup>(
        &self,
        author: &Author,
        seq: Seq,
        id: EntryId,
        log: &L,
    ) -> Result<Found, L::Error> {
        if self
            .group
            .get(&id)
            .is_some_and(|staged| is_at(staged.place, author, seq))
        {
            return Ok(Found::Here);
        }
        if log.anchor(author).is_some_and(|anchor| seq <= anchor) {
            return Ok(Found::Here);
        }
        let mut found = Found::No;
        for branch in 0..log.tips(author).len() {
            match log.at(author, branch, seq)? {
                Place::Entry(tip) if tip.id == id => return Ok(Found::Here),
                Place::Entry(_) | Place::Free => {}
                Place::Unreadable => found = Found::Unreadable,
            }
        }
        Ok(found)
    }

    /// Returns those of `places`, by the same author, that are on the branch that `entry` goes on or
    /// begins. `leading(places, before)` returns those that are on the durable branch that ends in
    /// `before`.
    ///
    /// # Errors
    /// The error of `leading`.
    pub fn ancestors<E>(
        &self,
        entry: &Entry,
        mut places: BTreeSet<FrontierTip>,
        leading: impl FnOnce(&BTreeSet<FrontierTip>, FrontierTip) -> Result<BTreeSet<FrontierTip>, E>,
    ) -> Result<BTreeSet<FrontierTip>, E> {
        let mut found = BTreeSet::new();
        let mut before = before(entry);
        while let Some(place) = before.filter(|_| !places.is_empty()) {
            found.extend(places.take(&place));
            let Some(staged) = self.group.get(&place.id) else {
                places.retain(|it| it.seq < place.seq);
                if !places.is_empty() {
                    found.append(&mut leading(&places, place)?);
                }
                break;
            };
            before = staged.prev.map(|id| FrontierTip {
                seq: place.seq.saturating_sub(1),
                id,
            });
        }
        Ok(found)
    }

    // Returns the parents that are not here and that the entry does not wait for; or, as an error,
    // one that it waits for. A reference with a wrong stamp is no reason to refuse the entry, because
    // a node that never gets the parent could not refuse it: it supersedes nothing. `heads`: of the
    // entry's keys. Most parents are among them and need no look into the log. `is_over`: whether the
    // entry has waited long. `of_run`: whether a parent is staged together with this entry.
    pub(super) fn absent_parents<L: Lookup>(
        &self,
        entry: &Entry,
        heads: &[Heads],
        log: &L,
        is_over: bool,
        of_run: impl Fn(&Parent) -> bool,
    ) -> Result<Result<Vec<Parent>, EntryId>, L::Error> {
        let is_head = among(heads);
        let is_known = |parent: &&Parent| {
            let staged = self.group.get(&parent.id);
            is_head(parent)
                || log.is_present(parent)
                || of_run(parent)
                || takes_back(entry, parent)
                || staged.is_some_and(|it| is_at(it.place, &parent.author, parent.seq))
        };
        let mut asked: BTreeMap<Author, Vec<Parent>> = BTreeMap::new();
        let parents = entry.header.parents.iter();
        for parent in parents.filter(|parent| !is_known(parent)) {
            asked.entry(parent.author).or_default().push(*parent);
        }
        let ends_wait = self.settling && is_over;
        let mut absent = Vec::new();
        for (author, parents) in asked {
            let places: Vec<FrontierTip> = parents.iter().map(place_of).collect();
            // An unreadable parent comes back from a peer.
            let here = log.has(&author, &places)?;
            let lacks = parents.into_iter().zip(here);
            let lacks: Vec<Parent> = lacks
                .filter_map(|(parent, is_here)| (!is_here).then_some(parent))
                .collect();
            if !ends_wait
                && !lacks.is_empty()
                && let Some(parent) = self.awaited(&author, &lacks, log)?
            {
                return Ok(Err(parent.id));
            }
            absent.extend(lacks);
        }
        Ok(Ok(absent))
    }

    // Returns the first of the parents by `author`, which are not here, that is waited for.
    fn awaited<'a, L: Lookup>(
        &self,
        author: &Author,
        parents: &'a [Parent],
        log: &L,
    ) -> Result<Option<&'a Parent>, L::Error> {
        let waits = !self.settling && !log.is_cut_off(author);
        match log.standing(author) {
            Standing::Counts => Ok(parents.first()),
            Standing::Spent => Ok(None),
            Standing::Unknown | Standing::Reader => Ok(parents.first().filter(|_| waits)),
            Standing::Through(cut) => {
                let keeps = |author: &Author, entry, tip| log.keeps(author, entry, tip);
                for parent in parents {
                    if cut.covers(author, place_of(parent), keeps)? {
                        return Ok(Some(parent));
                    }
                }
                Ok(None)
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Here,
    No,
    Unreadable,
}

/// Returns the verdict about an entry that anchors have decided; `None` for any other.
pub(super) fn settled<L: Lookup>(entry: &Entry, log: &L) -> Result<Option<Verdict>, L::Error> {
    let (author, seq) = (entry.author(), entry.header.seq);
    let prev = entry.header.prev.map(|id| FrontierTip {
        seq: seq.saturating_sub(1),
        id,
    });
    let arrival = log.arrival(&author, FrontierTip::of(entry), prev)?;
    Ok(match arrival {
        Arrival::Usual => None,
        Arrival::Settled => Some(Verdict::Duplicate),
        Arrival::Void => Some(Verdict::Refused(Refusal::Void { author, seq })),
    })
}

fn place_of(parent: &Parent) -> FrontierTip {
    FrontierTip {
        seq: parent.seq,
        id: parent.id,
    }
}

fn is_at(place: Parent, author: &Author, seq: Seq) -> bool {
    place.author == *author && place.seq == seq
}
