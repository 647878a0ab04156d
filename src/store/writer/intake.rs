//! Entries from elsewhere: checked, offered to [`Intake`](crate::protocol::intake::Intake), and staged
//! where its verdict says so. Local writes become entries in `draft.rs` and are staged by the same
//! `Transaction::stage`.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    id::{EntryId, StoreId},
    pace::Pace,
    protocol::{
        change::Origin,
        entry::{EntryError, SignedEntry, VerifiedEntry},
        intake::{Refusal, Verdict},
        run,
    },
    store::{
        WriteError,
        writer::{
            health::WriteFailure,
            transaction::{Aftermath, Destination, Transaction},
            writer::Writer,
        },
    },
};

/// Outcome of an entry that came from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "an entry that waits or is refused is not in the store"]
pub enum Ingested {
    /// It is durable, applied and published.
    Applied(EntryId),
    /// It is durable. It does not count now, and will if an anchor that has not come makes it final.
    Stored(EntryId),
    /// It was here already; or its place was, unreadable, and it is put back there.
    Duplicate(EntryId),
    /// It waits in memory for another entry.
    Pending {
        /// Id of the entry.
        entry: EntryId,
        /// Id of its predecessor, or of the parent, that must come first; its own, if an entry must
        /// come that vouches for it.
        missing: EntryId,
    },
    /// It is stamped too far ahead of the clock here, and waits in memory.
    Held {
        /// Id of the entry.
        entry: EntryId,
        /// When it is applied, ms since 1970.
        due_ms: u64,
    },
    /// Its author is not admitted yet. It waits in memory until somebody admits the author.
    Stranger(EntryId),
    /// It can never be applied.
    Refused(RefusedEntry),
}

/// Why an entry can never be applied here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefusedEntry {
    /// It is not an entry, not authentic, or newer than this version.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// It belongs to another store.
    #[error("the entry belongs to store {theirs}, this is store {ours}")]
    WrongStore {
        /// Store that the entry names.
        theirs: StoreId,
        /// This store.
        ours: StoreId,
    },
    /// The rules of intake say no.
    #[error(transparent)]
    Rules(#[from] Refusal),
}

/// Why a call did not take in all its entries. Those it did are duplicates when they come again.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The store takes no writes now.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Entries as they were handed in: checked, or refused by the check.
pub(super) type Checked = Result<VerifiedEntry, RefusedEntry>;

/// Decodes entries of one store and checks that they are authentic. Returns them in the same order.
pub(in crate::store) fn check(entries: Vec<Bytes>, store: &StoreId) -> Vec<Checked> {
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

/// When a part of a batch is large enough to be committed, so that local writes get their turn.
pub(super) struct PartLimit<'a> {
    /// A part has at least this many ops.
    pub(super) ops_min: usize,
    /// A part has at least this many entries: this node's own are committed together.
    pub(super) entries_min: usize,
    /// After this time a part ends even when no write waits.
    pub(super) time_max: Duration,
    /// A part ends when it has begun this many branches: each is a file of its own, which takes as long
    /// to become durable as any other group does.
    pub(super) branches_max: usize,
    /// Returns whether local writes wait.
    pub(super) writes_wait: &'a dyn Fn() -> bool,
}

impl Writer {
    /// Takes in the first of `entries` as one group: all of them, or a part as large as `limit` asks
    /// for. Returns one outcome for each entry taken.
    ///
    /// # Errors
    /// The store takes no writes.
    pub(super) fn ingest_part(
        &mut self,
        entries: &[Checked],
        limit: Option<&PartLimit<'_>>,
    ) -> Result<Vec<Ingested>, WriteError> {
        let ingested = match self.try_ingest(entries, limit) {
            Err(WriteFailure::State(error)) => {
                self.state_damaged(error);
                self.try_ingest(entries, limit)
            }
            done => done,
        };
        Ok(ingested?)
    }

    /// Returns at least how many of `entries` are committed together: up to the last of this node's
    /// own. What comes back of its own log is whole before it goes on.
    pub(super) fn own_entries_in(&self, entries: &[Checked]) -> usize {
        let me = self.author();
        let own = |entry: &Checked| entry.as_ref().is_ok_and(|it| it.author() == me);
        entries.iter().rposition(own).map_or(0, |last| last + 1)
    }

    /// Has entries offered again that waited, after those that are to be already.
    pub(super) fn offer_again(&mut self, entries: Vec<VerifiedEntry>) {
        self.again.extend(entries);
    }

    /// Takes in the first of the entries that are to be offered again, as one part. Returns false when
    /// there are none.
    pub(super) fn offer_part_again(&mut self, limit: &PartLimit<'_>) -> bool {
        if self.again.is_empty() {
            return false;
        }
        let next = self.again.len().min(PART_AGAIN_MAX);
        let mut next: Vec<Checked> = self.again.drain(..next).map(Ok).collect();
        match self.ingest_part(&next, Some(limit)) {
            Ok(part) => {
                let rest = next.drain(part.len()..).flatten().rev();
                rest.for_each(|entry| self.again.push_front(entry));
            }
            Err(error) => {
                // The next sync brings them again.
                let entries = next.len() + self.again.len();
                tracing::warn!(
                    store = %self.config.id, entries, %error, "entries that waited were not applied"
                );
                self.again.clear();
            }
        }
        true
    }

    /// Applies held entries that are due at `now_ms`: one part now, the others are offered again.
    pub(super) fn release_held(&mut self, now_ms: u64, limit: &PartLimit<'_>) {
        let mut due: Vec<_> = self.intake.take_due(now_ms).into_iter().map(Ok).collect();
        match self.try_ingest(&due, Some(limit)) {
            Ok(part) => self.again.extend(due.drain(part.len()..).flatten()),
            Err(failure) => {
                let error = WriteError::from(failure);
                tracing::warn!(store = %self.config.id, %error, "held entries were not applied");
                for entry in due.into_iter().flatten() {
                    self.intake.hold(entry, now_ms + HOLD_AGAIN_MS);
                }
            }
        }
    }

    fn try_ingest(
        &mut self,
        entries: &[Checked],
        limit: Option<&PartLimit<'_>>,
    ) -> Result<Vec<Ingested>, WriteFailure> {
        // Not offered again in this call: those that are not kept would be staged once more.
        let mut set_aside = BTreeSet::new();
        loop {
            let mut transaction = Transaction::begin(self)?;
            let ingested = transaction.offer_all(entries, limit, &set_aside)?;
            if let Err(WriteFailure::Unvouched(odd)) = transaction.check_vouched() {
                drop(transaction);
                for entry in odd {
                    set_aside.insert(entry.id);
                    self.intake.set_aside(entry);
                }
                continue;
            }
            let began = Instant::now();
            let aftermath: Aftermath = transaction.commit()?;
            self.follow_up(aftermath);
            self.committed_in = began.elapsed();
            return Ok(ingested);
        }
    }
}

impl Transaction<'_> {
    fn offer_all(
        &mut self,
        entries: &[Checked],
        limit: Option<&PartLimit<'_>>,
        set_aside: &BTreeSet<EntryId>,
    ) -> Result<Vec<Ingested>, WriteFailure> {
        let mut outcomes = Vec::new();
        let (mut pace, mut ops, began) = (Pace::start(), 0, Instant::now());
        for entry in entries {
            let entries_min = limit.map_or(0, |limit| limit.entries_min);
            if self.is_full() && outcomes.len() >= entries_min {
                break;
            }
            // Some entries cost much more than their ops: they cite many others, or begin a branch.
            let is_long = ops >= limit.map_or(0, |limit| limit.ops_min) || began.elapsed() >= LONG;
            if let Some(limit) = limit
                // At least one: a thread that does not run for a while makes progress all the same.
                && outcomes.len() >= limit.entries_min.max(1)
            {
                let is_due = || (limit.writes_wait)() || began.elapsed() >= limit.time_max;
                if self.branches() >= limit.branches_max || is_long && is_due() {
                    break;
                }
            }
            pace.step();
            outcomes.push(match entry {
                Ok(entry) if set_aside.contains(&entry.id) => Ingested::Pending {
                    entry: entry.id,
                    missing: entry.id,
                },
                Ok(entry) => {
                    ops += entry.ops.len().max(1) + entry.header.parents.len() / PARENTS_PER_OP;
                    let ingested = self.offer(entry)?;
                    self.offer_released()?;
                    ingested
                }
                Err(refused) => Ingested::Refused(refused.clone()),
            });
        }
        Ok(outcomes)
    }

    // Offers one entry, and stages it if the verdict says so.
    fn offer(&mut self, entry: &VerifiedEntry) -> Result<Ingested, WriteFailure> {
        let id = entry.id;
        let now_ms = self.writer().clock.now_ms();
        let (intake, lookup) = self.writer().intake();
        let verdict = intake.offer(entry, now_ms, &lookup)?;
        let (destination, before) = match verdict {
            Verdict::Append { branch, before } => (Destination::Branch(branch), before),
            Verdict::Begin { before, .. } => (Destination::NewBranch, before),
            Verdict::Duplicate => {
                self.writer().came_again(entry)?;
                return Ok(Ingested::Duplicate(id));
            }
            Verdict::Repairs => {
                self.writer().mending.keep(entry);
                return Ok(Ingested::Duplicate(id));
            }
            Verdict::AwaitsEntry(missing) => return Ok(Ingested::Pending { entry: id, missing }),
            Verdict::AwaitsClock { due_ms } => return Ok(Ingested::Held { entry: id, due_ms }),
            Verdict::AwaitsMember => return Ok(Ingested::Stranger(id)),
            Verdict::AwaitsVoucher => {
                return Ok(Ingested::Pending {
                    entry: id,
                    missing: id,
                });
            }
            Verdict::Run(run) => {
                let mut last = Ingested::Duplicate(id);
                for entry in &run {
                    last = self.offer(entry)?;
                    let is_refused = !matches!(
                        last,
                        Ingested::Applied(_) | Ingested::Stored(_) | Ingested::Duplicate(_)
                    );
                    assert!(!is_refused, "a run is staged whole: {last:?}");
                }
                return Ok(last);
            }
            Verdict::Refused(refusal) => return Ok(Ingested::Refused(refusal.into())),
        };
        if !self.writer().counts_at_arrival(entry)? {
            self.store(entry, destination)?;
            return Ok(Ingested::Stored(id));
        }
        let receipt = self.stage(entry, destination, before, Origin::Remote)?;
        assert_eq!(receipt.entry, id, "the entry reported as applied is staged");
        Ok(Ingested::Applied(id))
    }

    // Offers entries that waited for one that is staged now, and those that waited for them, as long
    // as the group is not full. Their authors may have been removed meanwhile.
    fn offer_released(&mut self) -> Result<(), WriteFailure> {
        if self.is_full() {
            return Ok(());
        }
        let mut released = VecDeque::from(self.take_released());
        while let Some(entry) = released.pop_front() {
            if let Ingested::Refused(refused) = self.offer(&entry)? {
                tracing::warn!(entry = %entry.id, %refused, "an entry that waited is refused");
            }
            released.extend(self.take_released());
        }
        Ok(())
    }
}

// Time after which a part is long whatever it has.
const LONG: Duration = Duration::from_millis(1);
// Parents that take about as long as an op does.
const PARENTS_PER_OP: usize = 16;
// Entries that waited are put back when their part ends before them, so a part looks at this many.
const PART_AGAIN_MAX: usize = 1024;
// How long a held entry that could not be written waits before it is tried again.
const HOLD_AGAIN_MS: u64 = 1000;
