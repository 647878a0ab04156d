//! A draft: an entry in the making. Puts that wait at the same time become ops of one entry.

use std::{
    collections::{BTreeSet, HashSet},
    ops::Range,
};

use bytes::Bytes;

use crate::{
    limits::{DRIFT_MS_MAX, OPS_BYTES_MAX, OPS_MAX, PARENTS_MAX},
    log::LogDamage,
    protocol::{
        chain::Tip,
        change::Origin,
        entry::{
            EntryError, Header, Op, Parent, VerifiedEntry,
            cause::{Cause, CauseId},
            sign,
        },
        heads::{Head, Heads},
        hlc::Hlc,
        intake::Verdict,
        membership::reserved::{self, Claim},
    },
    store::{
        Condition, ReadError, StampedBy, Write, WriteError, Written,
        writer::{
            command::Outcome,
            group::Group,
            health::WriteFailure,
            transaction::{Aftermath, Destination, Receipt, Transaction},
            writer::Writer,
        },
    },
};

/// Ops of writes that came one after the other, and become one entry.
#[derive(Debug, Default)]
struct Draft {
    ops: Vec<Op>,
    bytes: usize,
    // True for an entry that watches deliver whole: it is one write of several ops.
    atomic: bool,
    cause: Option<Cause>,
    // Keys of `ops`: an entry names each once.
    keys: HashSet<Bytes>,
    parents: BTreeSet<Parent>,
    // Heads of each op's key before the entry.
    heads: Vec<Heads>,
    // Which writes of the group it holds, with the indices of each one's ops.
    writes: Vec<(usize, Range<usize>)>,
}

// A write that may become part of an entry, with what the state says of its keys.
struct Prepared<'a> {
    write: &'a Write,
    // Without deletes that change nothing.
    ops: Vec<&'a Op>,
    parents: BTreeSet<Parent>,
    // Heads of each op's key.
    heads: Vec<Heads>,
}

impl Draft {
    // Returns whether `write` can become part of this entry.
    fn takes(&self, write: &Write) -> bool {
        self.ops.len() + write.ops.len() <= OPS_MAX
            && self.bytes + write.bytes() <= OPS_BYTES_MAX
            && write.ops.iter().all(|op| !self.keys.contains(op.key()))
    }

    fn add(&mut self, index: usize, prepared: Prepared<'_>) {
        let Prepared {
            write,
            ops,
            parents,
            mut heads,
        } = prepared;
        let first = self.ops.len();
        self.writes.push((index, first..first + ops.len()));
        self.bytes += write.bytes();
        self.keys.extend(ops.iter().map(|op| op.key().clone()));
        self.ops.extend(ops.into_iter().cloned());
        self.parents.extend(parents);
        self.heads.append(&mut heads);
        self.atomic = is_atomic(write);
        self.cause.clone_from(&write.cause);
    }
}

fn is_atomic(write: &Write) -> bool {
    write.atomic || write.ops.len() > 1
}

// Returns whether the write becomes an entry of its own.
fn is_alone(write: &Write) -> bool {
    is_atomic(write) || write.cause.is_some()
}

impl Writer {
    /// Writes a group and replies to its callers. A write that is reported as written is durable.
    pub(super) fn write_group(&mut self, group: Group) {
        let written = match self.try_group(&group) {
            Err(WriteFailure::State(error)) => {
                self.state_damaged(error);
                self.try_group(&group)
            }
            done => done,
        };
        let (outcomes, aftermath) = match written {
            Ok((outcomes, aftermath)) => (outcomes, Some(aftermath)),
            Err(failure) => {
                let error = WriteError::from(failure);
                let refused = group.writes().iter().map(|_| Err(error.clone()));
                (refused.collect(), None)
            }
        };
        if let Some(aftermath) = aftermath {
            self.follow_up(aftermath);
        }
        group.reply(outcomes);
    }

    fn try_group(&mut self, group: &Group) -> Result<(Vec<Outcome>, Aftermath), WriteFailure> {
        let mut transaction = Transaction::begin(self)?;
        let outcomes = transaction.stage_group(group)?;
        let aftermath = transaction.commit()?;
        Ok((outcomes, aftermath))
    }

    // Checks a write against the state. The inner error concerns this write only.
    fn prepare<'a>(
        &self,
        write: &'a Write,
    ) -> Result<Result<Prepared<'a>, WriteError>, WriteFailure> {
        if let Some(key) = key_twice(&write.ops) {
            return Ok(Err(EntryError::KeyTwice { key }.into()));
        }
        if let Some(cause) = &write.cause {
            let id = CauseId::of(&self.author(), cause);
            if let Some((seq, entry)) = self.state.caused(&id)? {
                return Ok(Err(WriteError::AlreadyCaused { entry, seq }));
            }
            if let Some(damage) = self.own_hole() {
                let what = format!(
                    "{damage}: an entry that cannot be read may have been written for the same \
                     cause; a sync with a member that has it brings it back"
                );
                return Ok(Err(ReadError::Damaged { what }.into()));
            }
        }
        let now_ms = self.clock.now_ms();
        let mut ops = Vec::with_capacity(write.ops.len());
        let mut parents = BTreeSet::new();
        let mut heads_of_ops = Vec::with_capacity(write.ops.len());
        for op in &write.ops {
            let heads = self.state.heads(op.key())?;
            if let Some(condition) = write.condition
                && let Err(refused) = self.check_condition(condition, op.key(), &heads)
            {
                return Ok(Err(refused));
            }
            // Acts are never held, so their stamps may be far ahead: what cites them would be, too.
            let is_reserved = self.config.root && reserved::claim(op).is_some();
            // A delete of a reserved key is the node's own, which wants a tombstone in any case.
            if matches!(op, Op::Delete { .. }) && !is_reserved && !heads.is_deletable(now_ms) {
                continue;
            }
            // Checked here, so that other writes of the group are not refused with this one.
            if !is_reserved
                && let Some(newest) = heads.winner().filter(|head| !head.taken_back)
                && let Err(refused) = self.check_not_held(StampedBy::Cited, newest.hlc)
            {
                return Ok(Err(refused));
            }
            // An own head that was taken back may be far ahead, too: others write over it without it.
            let may_cite = |head: &&Head| match is_reserved {
                true => !self.is_far_ahead(head.hlc),
                false => !head.taken_back || !self.members_would_hold(head.hlc),
            };
            // A key with more heads is merged over several writes, the highest first, so that the
            // value is read back.
            let merged = heads.as_slice().iter().rev().filter(may_cite);
            parents.extend(merged.take(PARENTS_MAX).map(Head::as_parent));
            if self.config.root && self.needs_authority(op) {
                let authority = self.membership.authority(&self.author());
                if let Some(grant) = authority.filter(|grant| self.is_far_ahead(grant.hlc)) {
                    let members_ms = self.clock.now_ms();
                    return Ok(Err(far_ahead(StampedBy::Authority, grant.hlc, members_ms)));
                }
                parents.extend(authority);
            }
            ops.push(op);
            heads_of_ops.push(heads);
        }
        if parents.len() > PARENTS_MAX {
            let error = EntryError::TooManyParents {
                parents: parents.len(),
                parents_max: PARENTS_MAX,
            };
            return Ok(Err(error.into()));
        }
        Ok(Ok(Prepared {
            write,
            ops,
            parents,
            heads: heads_of_ops,
        }))
    }

    // Returns whether an op of this node in the root store counts only with authority.
    pub(super) fn needs_authority(&self, op: &Op) -> bool {
        match reserved::claim(op) {
            Some(Claim::Act(_) | Claim::Authority | Claim::Founder(_)) => true,
            Some(Claim::Of(node)) => node != self.author(),
            Some(Claim::Genesis(..) | Claim::Void) | None => false,
        }
    }

    // Returns the damage of this node's own log that hides entries from the state.
    fn own_hole(&self) -> Option<&LogDamage> {
        let lacks = self.state.staged().lacks;
        let own = |damage: &&LogDamage| lacks && damage.author == self.author();
        self.mending.damage().iter().find(own)
    }

    fn check_condition(
        &self,
        condition: Condition,
        key: &Bytes,
        heads: &Heads,
    ) -> Result<(), WriteError> {
        let now_ms = self.clock.now_ms();
        let winner = heads.winner();
        let holds = match condition {
            Condition::Absent => !winner.is_some_and(|head| head.is_live(now_ms)),
            Condition::Head(id) => winner.is_some_and(|head| head.id == id),
            Condition::Heads(hash) => heads.hash() == hash,
        };
        if holds {
            return Ok(());
        }
        Err(WriteError::PreconditionFailed {
            key: key.clone(),
            condition,
            winner: winner.map(|head| head.id),
        })
    }

    // True for a stamp that this node would hold.
    pub(super) fn is_far_ahead(&self, hlc: Hlc) -> bool {
        hlc.wall_ms.saturating_sub(DRIFT_MS_MAX) > self.clock.now_ms()
    }

    /// Checks that the members within reach would not hold what this node writes because of its
    /// clock.
    ///
    /// # Errors
    /// `FarAhead`.
    pub(super) fn check_clock(&self) -> Result<(), WriteError> {
        let now = Hlc {
            wall_ms: self.clock.now_ms(),
            counter: 0,
        };
        self.check_not_held(StampedBy::Clock, now)
    }

    // Members within reach, if they were asked, would hold an entry that is stamped `hlc`.
    pub(super) fn check_not_held(&self, by: StampedBy, hlc: Hlc) -> Result<(), WriteError> {
        match self.clock.members_ms() {
            Some(members_ms) if self.members_would_hold(hlc) => Err(far_ahead(by, hlc, members_ms)),
            Some(_) | None => Ok(()),
        }
    }

    /// Returns whether the members within reach would hold an entry that is stamped `hlc`. False if
    /// their clocks are not known.
    pub(super) fn members_would_hold(&self, hlc: Hlc) -> bool {
        let members_ms = self.clock.members_ms();
        members_ms.is_some_and(|ms| hlc.wall_ms.saturating_sub(DRIFT_MS_MAX) > ms)
    }

    /// Signs the entry of this node that comes after `tip`. Its stamp is above those of `tip` and
    /// `parents`, and not before the clock; nothing else that was applied moves it.
    ///
    /// # Errors
    /// A limit of entries is exceeded, or the clock has no stamp left; `FarAhead`.
    pub(super) fn sign(
        &self,
        tip: Option<Tip>,
        parents: Vec<Parent>,
        ops: Vec<Op>,
        atomic: bool,
        cause: Option<Cause>,
    ) -> Result<VerifiedEntry, WriteError> {
        let cited = parents.iter().map(|parent| parent.hlc);
        let cited = cited.fold(Hlc::ZERO, Ord::max);
        let before = tip.map_or(Hlc::ZERO, |tip| tip.hlc);
        self.check_not_held(StampedBy::OwnEntry, before)?;
        self.check_not_held(StampedBy::Cited, cited)?;
        let latest = cited.max(before);
        let header = Header {
            store: self.config.id,
            seq: tip.map_or(1, |tip| tip.seq + 1),
            prev: tip.map(|tip| tip.id),
            hlc: latest.next(self.clock.now_ms())?,
            atomic,
            cause,
            parents,
        };
        Ok(sign(&self.config.key, header, ops)?)
    }
}

impl Transaction<'_> {
    fn stage_group(&mut self, group: &Group) -> Result<Vec<Outcome>, WriteFailure> {
        self.writer().check_may_write()?;
        // `None` until the entry that holds the write is staged.
        let mut outcomes: Vec<Option<Outcome>> = vec![None; group.writes().len()];
        let mut draft = Draft::default();
        for (index, write) in group.writes().iter().enumerate() {
            let write = match write {
                Ok(write) => write,
                Err(refused) => {
                    outcomes[index] = Some(Err(refused.clone()));
                    continue;
                }
            };
            if is_alone(write) || !draft.takes(write) {
                self.stage_draft(&mut draft, &mut outcomes)?;
            }
            match self.writer().prepare(write)? {
                Err(refused) => outcomes[index] = Some(Err(refused)),
                Ok(prepared) if prepared.ops.is_empty() => outcomes[index] = Some(Ok(None)),
                Ok(prepared) => {
                    if draft.parents.len() + prepared.parents.len() > PARENTS_MAX {
                        self.stage_draft(&mut draft, &mut outcomes)?;
                    }
                    draft.add(index, prepared);
                    if is_alone(write) {
                        self.stage_draft(&mut draft, &mut outcomes)?;
                    }
                }
            }
        }
        self.stage_draft(&mut draft, &mut outcomes)?;
        let outcome = |outcome: Option<Outcome>| outcome.expect("every draft is staged");
        Ok(outcomes.into_iter().map(outcome).collect())
    }

    // Signs the ops that were gathered as one entry and stages it. Leaves `draft` empty.
    fn stage_draft(
        &mut self,
        draft: &mut Draft,
        outcomes: &mut [Option<Outcome>],
    ) -> Result<(), WriteFailure> {
        let draft = std::mem::take(draft);
        if draft.writes.is_empty() {
            return Ok(());
        }
        let writer = self.writer();
        let tip = writer.own_tip()?;
        let parents = draft.parents.into_iter().collect();
        let entry = writer.sign(tip, parents, draft.ops, draft.atomic, draft.cause)?;
        let receipt = self.stage_own(&entry, draft.heads)?;
        let count = |ops| u32::try_from(ops).expect("an entry has at most OPS_MAX ops");
        for (index, ops) in draft.writes {
            let written = Written {
                entry: receipt.entry,
                author: entry.author(),
                seq: receipt.seq,
                hlc: entry.header.hlc,
                op_index: count(ops.start),
                op_count: count(ops.len()),
            };
            let before = outcomes[index].replace(Ok(Some(written)));
            assert!(before.is_none(), "a write is staged once");
        }
        Ok(())
    }

    /// Stages an entry that this node has just signed. `heads`: of its keys, one an op.
    ///
    /// # Errors
    /// As `stage`.
    pub(super) fn stage_own(
        &mut self,
        entry: &VerifiedEntry,
        heads: Vec<Heads>,
    ) -> Result<Receipt, WriteFailure> {
        let (intake, lookup) = self.writer().intake();
        let (destination, before) = match intake.place(entry, Some(heads), &lookup)? {
            Verdict::Append { branch, before } => (Destination::Branch(branch), before),
            // A fork only where this node goes on before entries that are stamped far ahead.
            Verdict::Begin { before, .. } => (Destination::NewBranch, before),
            // It was signed on an entry that intake sees.
            verdict => unreachable!("an own entry is not placed: {verdict:?}"),
        };
        self.stage(entry, destination, before, Origin::Local)
    }
}

fn far_ahead(by: StampedBy, hlc: Hlc, members_ms: u64) -> WriteError {
    WriteError::FarAhead {
        by,
        ahead_ms: hlc.wall_ms.saturating_sub(members_ms),
    }
}

fn key_twice(ops: &[Op]) -> Option<Bytes> {
    if ops.len() < 2 {
        return None;
    }
    let mut keys = HashSet::with_capacity(ops.len());
    let twice = ops.iter().find(|op| !keys.insert(op.key()));
    twice.map(|op| op.key().clone())
}
