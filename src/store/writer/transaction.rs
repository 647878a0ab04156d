//! A transaction: the group of entries that becomes durable, visible and published together.
//!
//! ```text
//! begin -> stage, stage, ... -> commit: fsync -> show -> publish -> gossip
//!                            \-> drop: everything staged is taken back
//! ```
//! Invariants, each checked at the edges of a transaction:
//!
//! 1. Nothing is staged when one begins: not in the intake, nor the acts.
//! 2. A staged entry follows the tip of its branch: its seq is the next, and its prev is that tip.
//! 3. The view that commit shows has exactly the entries of the view before and the staged ones.
//! 4. Published versions never go back (`Writer::publish`).
//! 5. Changes are published, and entries handed to gossip, only after the fsync of (3).
//!
//! From 1 to 3 follows: the entry that a caller gets as written is the entry on disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    id::{Author, EntryId, Seq},
    limits::{GOSSIP_ENTRY_BYTES_MAX, INGEST_BYTES_MAX, INGEST_HEADS_MAX, RUN_ENTRIES_MAX},
    log::LogError,
    protocol::{
        change::{Change, EntryRef, Kind, Origin},
        entry::{Op, VerifiedEntry},
        fork::{closed_by, taken_back_by},
        frontier::FrontierTip,
        heads::{Before, Head},
        membership::reserved::Counting,
    },
    state::Staged,
    store::{
        Fresh, WriteError,
        writer::{
            health::{Health, WriteFailure},
            writer::Writer,
        },
    },
};

/// Where a staged entry goes in its author's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    /// At the end of this branch, an index into the tips of its author.
    Branch(usize),
    /// Into a branch of its own.
    NewBranch,
}

/// A group that is being written. It is either committed, or taken back when it is dropped.
#[derive(Debug)]
#[must_use = "a transaction that is dropped is taken back"]
pub(super) struct Transaction<'a> {
    writer: &'a mut Writer,
    // Places of the staged entries, in order.
    staged: Vec<(Author, FrontierTip)>,
    // Places of entries that are written and do not count yet: the state does not get them.
    stored: Vec<(Author, FrontierTip)>,
    // Of the staged entries, in order. Published by commit.
    changes: Vec<Arc<Change>>,
    // Heads that `changes` keep, and bytes of the staged entries.
    heads: usize,
    bytes: usize,
    // Local ones among them, for gossip.
    outbox: Vec<Fresh>,
    // Staged entries of which the own signature was not checked.
    unchecked: BTreeMap<EntryId, VerifiedEntry>,
    // Those of them that nothing staged comes after: nothing in the logs vouches for them.
    unvouched: BTreeSet<EntryId>,
    // Pending entries that waited for staged ones.
    released: Vec<VerifiedEntry>,
    // Branches that began.
    branches: usize,
    // True when a grant of admin came that entries cite which came before it.
    has_late_grant: bool,
    // Entries in the view before.
    entries_before: u64,
    committed: bool,
}

/// The proof that an entry is staged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "what is acknowledged is what was staged"]
pub(super) struct Receipt {
    pub(super) entry: EntryId,
    pub(super) seq: Seq,
}

/// Work that a commit leaves for `Writer::follow_up`.
#[derive(Debug)]
#[must_use = "the state may rest on other members than there are now"]
pub(super) struct Aftermath {
    /// True when the members changed, or the state does not rest on them.
    pub(super) members: bool,
    /// True when acts may count that did not when they came.
    pub(super) late_grant: bool,
    /// True when an anchor has come that had no effect without it.
    pub(super) anchors: bool,
    /// Entries that waited for committed ones and were not offered again.
    pub(super) released: Vec<VerifiedEntry>,
}

impl<'a> Transaction<'a> {
    /// Begins a transaction.
    ///
    /// # Errors
    /// The store takes no writes now.
    pub(super) fn begin(writer: &'a mut Writer) -> Result<Self, WriteError> {
        writer.health.check_writable()?;
        writer.follow_clock_back();
        assert!(!writer.intake.is_staging(), "no entry is staged (1)");
        assert!(!writer.membership.is_staging(), "no act is staged (1)");
        Ok(Self {
            entries_before: writer.state.staged().entries,
            writer,
            staged: Vec::new(),
            stored: Vec::new(),
            changes: Vec::new(),
            heads: 0,
            bytes: 0,
            outbox: Vec::new(),
            unchecked: BTreeMap::new(),
            unvouched: BTreeSet::new(),
            released: Vec::new(),
            branches: 0,
            has_late_grant: false,
            committed: false,
        })
    }

    /// Writes an entry to its log and applies it to the state. It is neither durable nor visible
    /// before `commit`. `before`: what it finds at its keys.
    ///
    /// # Errors
    /// `State` when the state must be built again; `Refused` when the log takes no entry, which
    /// poisons the store unless the disk is full. The transaction is of no use then.
    pub(super) fn stage(
        &mut self,
        entry: &VerifiedEntry,
        destination: Destination,
        before: Before,
        origin: Origin,
    ) -> Result<Receipt, WriteFailure> {
        let arrived_ms = self.write(entry, destination)?;
        let writer = &mut *self.writer;
        if let Some(counting) = writer.note_acts(entry)? {
            writer.state.count(counting);
        }
        self.has_late_grant |=
            writer.membership.makes_admins(entry) && writer.state.staged().is_cited_ahead(entry)?;
        let changes = writer.state.stage_over(entry, before)?;
        for tip in closed_by(entry) {
            writer.state.close_tip(&entry.author(), &tip);
        }
        self.take_back(entry)?;
        let writer = &mut *self.writer;
        for (index, (op, staged)) in entry.ops.iter().zip(changes).enumerate() {
            let Some(staged) = staged else { continue };
            if let Some(ms) = staged.after.winner().and_then(Head::expires_ms) {
                let next = writer.next_expiry_ms;
                writer.next_expiry_ms = Some(next.map_or(ms, |next| next.min(ms)));
            }
            self.heads = self.heads.saturating_add(staged.after.as_slice().len());
            let change = change(entry, index, op, staged, origin, arrived_ms);
            self.changes.push(Arc::new(change));
        }
        self.staged.push((entry.author(), FrontierTip::of(entry)));
        if origin == Origin::Local {
            self.send_later(entry);
        }
        Ok(Receipt {
            entry: entry.id,
            seq: entry.header.seq,
        })
    }

    /// Writes an entry to its log that does not count now, and may be final once an anchor has come. The
    /// state is counted again then.
    ///
    /// # Errors
    /// `Refused` as for `stage`.
    pub(super) fn store(
        &mut self,
        entry: &VerifiedEntry,
        destination: Destination,
    ) -> Result<(), WriteFailure> {
        self.write(entry, destination)?;
        for tip in closed_by(entry) {
            self.writer.state.close_tip(&entry.author(), &tip);
        }
        self.stored.push((entry.author(), FrontierTip::of(entry)));
        Ok(())
    }

    // Writes an entry to its log. Returns when it has arrived, ms since 1970.
    fn write(
        &mut self,
        entry: &VerifiedEntry,
        destination: Destination,
    ) -> Result<u64, WriteFailure> {
        let writer = &mut *self.writer;
        let arrived_ms = writer.clock.now_ms().max(writer.arrived_ms);
        writer.arrived_ms = arrived_ms;
        match destination {
            Destination::Branch(branch) => {
                let tips = writer.logs.tips(&entry.author());
                let tip = tips.get(branch).expect("intake named a branch with a tip");
                assert_eq!(entry.header.prev, Some(tip.id), "it follows the tip (2)");
                assert_eq!(entry.header.seq, tip.seq + 1, "it follows the tip (2)");
                let branch = u32::try_from(branch).expect("branches are numbered by 32 bits");
                writer.logs.append(branch, entry, arrived_ms);
            }
            Destination::NewBranch => {
                if let Err(error) = writer.logs.begin(entry, arrived_ms) {
                    let error = WriteError::from(error);
                    if let WriteError::Poisoned { reason } = &error {
                        let reason = reason.clone();
                        drop(writer.health.set(Health::Poisoned { reason }));
                    }
                    return Err(error.into());
                }
                self.branches = self.branches.saturating_add(1);
            }
        }
        self.bytes = self.bytes.saturating_add(entry.bytes());
        if let Some(prev) = &entry.header.prev
            && !entry.header.seq.is_multiple_of(RUN_ENTRIES_MAX)
        {
            self.unvouched.remove(prev);
        }
        if !entry.is_checked() {
            self.unchecked.insert(entry.id, entry.clone());
            self.unvouched.insert(entry.id);
        }
        self.released.extend(self.writer.intake.staged(entry));
        Ok(arrived_ms)
    }

    /// Makes the staged entries durable, then visible, then known: on return they survive power
    /// loss, reads see them, and watchers and gossip have them.
    ///
    /// # Errors
    /// `DiskFull`, after which the store goes on; any other error poisons it. Nothing was written,
    /// or it is open whether it was.
    pub(super) fn commit(mut self) -> Result<Aftermath, WriteError> {
        self.write_durably()?;
        let writer = &mut *self.writer;
        writer.note_unreadable();
        let view = writer.state.staged();
        assert_eq!(
            view.entries,
            self.entries_before + self.staged.len() as u64,
            "the view has the entries before and the staged ones (3)"
        );
        for (author, tip) in &self.staged {
            assert!(
                view.frontier.seq(author) >= tip.seq,
                "the frontier reaches entry {} of {} (3)",
                tip.seq,
                author.short()
            );
        }
        writer.state.show();
        // From here on the entries are durable, so nothing may fail any more.
        self.committed = true;
        writer.intake.commit();
        writer.publish(&self.changes);
        for fresh in self.outbox.drain(..) {
            // Without a receiver it is in the log all the same.
            drop(writer.fresh.send(fresh));
        }
        let view = writer.state.staged();
        let log = writer.logs.reader();
        let members = writer.membership.commit(view, log, self.branches > 0);
        Ok(Aftermath {
            members,
            late_grant: self.has_late_grant,
            anchors: self
                .staged
                .iter()
                .chain(&self.stored)
                .any(|(author, tip)| writer.membership.is_awaited(author, *tip)),
            released: std::mem::take(&mut self.released),
        })
    }

    /// Returns the writer, to look things up and to offer entries.
    pub(super) fn writer(&mut self) -> &mut Writer {
        self.writer
    }

    /// Checks that each staged entry verifies by itself, or that a staged one vouches for it.
    ///
    /// # Errors
    /// `Unvouched`: the entries that do not; they must be set aside.
    pub(super) fn check_vouched(&self) -> Result<(), WriteFailure> {
        let mut odd = Vec::new();
        for id in &self.unvouched {
            let mut last = self.unchecked.get(id);
            while let Some(entry) = last.filter(|entry| !entry.verifies()) {
                odd.push(entry.clone());
                last = entry
                    .header
                    .prev
                    .as_ref()
                    .and_then(|prev| self.unchecked.get(prev));
            }
        }
        if odd.is_empty() {
            return Ok(());
        }
        Err(WriteFailure::Unvouched(odd))
    }

    /// Returns whether the group is as large as one may be: it is committed then.
    pub(super) fn is_full(&self) -> bool {
        self.heads >= INGEST_HEADS_MAX || self.bytes >= INGEST_BYTES_MAX
    }

    /// Returns how many branches have begun in the group.
    pub(super) fn branches(&self) -> usize {
        self.branches
    }

    /// Takes out the pending entries that waited for what was staged.
    pub(super) fn take_released(&mut self) -> Vec<VerifiedEntry> {
        std::mem::take(&mut self.released)
    }

    fn write_durably(&mut self) -> Result<(), WriteError> {
        let error = match self.writer.logs.sync() {
            Ok(()) => return Ok(()),
            Err(error @ (LogError::Full { .. } | LogError::NoDescriptor { .. })) => {
                return Err(error.into());
            }
            Err(error) => error,
        };
        let reason = WriteError::from(error).to_string();
        tracing::error!(store = %self.writer.config.id, reason, "the log cannot be written");
        let poisoned = Health::Poisoned {
            reason: reason.clone(),
        };
        drop(self.writer.health.set(poisoned));
        Err(WriteError::Poisoned { reason })
    }

    // Lowers the heads of the entries that `entry` takes back. Each is read once, so this takes no more
    // than to read all that its author wrote.
    fn take_back(&mut self, entry: &VerifiedEntry) -> Result<(), WriteFailure> {
        let author = entry.author();
        for place in taken_back_by(entry) {
            let writer = &mut *self.writer;
            if !writer.state.take_back(&author, &place.id)? {
                continue;
            }
            let staged = self.changes.iter().filter(|it| it.entry.id == place.id);
            let mut keys: Vec<Bytes> = staged.map(|change| change.key.clone()).collect();
            match writer.logs.reader().entry(&author, place.seq, &place.id) {
                Ok(found) => {
                    let ops = found.iter().flat_map(|(entry, _record)| entry.ops.iter());
                    keys.extend(ops.map(Op::key).cloned());
                }
                Err(LogError::Damaged(found)) => writer.membership.note_unreadable(found),
                Err(error) => return Err(WriteFailure::unreadable(error)),
            }
            let arrived_ms = writer.arrived_ms;
            for (key, Staged { before, after }) in writer.state.lower(&place.id, &keys)? {
                let same =
                    before.winner().map(|head| head.id) == after.winner().map(|head| head.id);
                if !same && let Some(change) = Change::retract(key, &before, after, arrived_ms) {
                    self.changes.push(Arc::new(change));
                }
            }
        }
        Ok(())
    }

    // Remembers a local entry for gossip, if the net listens.
    fn send_later(&mut self, entry: &VerifiedEntry) {
        if self.writer.fresh.receiver_count() == 0 {
            return;
        }
        let small = entry.signed.header.len() + entry.signed.ops.len() <= GOSSIP_ENTRY_BYTES_MAX;
        let encoded = small.then(|| entry.signed.encode().into());
        self.outbox.push(Fresh {
            author: entry.author(),
            seq: entry.header.seq,
            id: entry.id,
            encoded,
        });
    }
}

impl Writer {
    // Notes the acts of an entry that is being staged, and returns its reserved ops that count.
    fn note_acts(&mut self, entry: &VerifiedEntry) -> Result<Option<Counting>, WriteFailure> {
        let Self {
            intake,
            logs,
            membership,
            state,
            ..
        } = self;
        let (author, log) = (entry.author(), logs.reader());
        let mut unreadable = Vec::new();
        let noted = membership.note(entry, state.staged(), log, |places| {
            intake.ancestors(entry, places, |places, before| {
                let (leading, mut damage) = log.leading(&author, places, before)?;
                unreadable.append(&mut damage);
                Ok(leading)
            })
        });
        for found in unreadable {
            membership.note_unreadable(found);
        }
        noted.map_err(WriteFailure::unreadable)
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.committed || std::thread::panicking() {
            return;
        }
        let writer = &mut *self.writer;
        writer.intake.roll_back();
        writer.membership.roll_back();
        writer.state.forget();
        if !writer.health.is_poisoned()
            && let Err(error) = writer.logs.roll_back()
        {
            let reason = WriteError::from(error).to_string();
            drop(writer.health.set(Health::Poisoned { reason }));
        }
    }
}

/// Returns the change that `op` of `entry` made.
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
        .is_none_or(|winner| winner.id != entry.id);
    let number = |count: usize| u32::try_from(count).expect("an entry has at most OPS_MAX ops");
    Change {
        key: op.key().clone(),
        kind,
        value,
        expires_ms,
        entry: EntryRef::from(&**entry),
        prev: entry.header.prev,
        op_index: number(index),
        op_count: number(entry.ops.len()),
        atomic: entry.header.atomic,
        depth: entry.header.depth(),
        previous: staged.before.winner().map(EntryRef::from),
        heads: staged.after,
        origin,
        arrived_ms,
        late,
        gap: None,
        gap_number: 0,
    }
}
