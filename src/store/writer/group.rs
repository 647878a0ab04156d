//! A group: writes that one fsync makes durable. Puts that wait together become ops of one entry.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::{
    limits::{OPS_BYTES_MAX, OPS_MAX, PARENTS_MAX},
    log::{LogDamage, LogError},
    protocol::{
        chain::Tip,
        change::Origin,
        entry::{
            EntryError, Header, Op, Parent, VerifiedEntry,
            cause::{Cause, CauseId},
            sign,
        },
        heads::{Head, Heads},
        membership::role::role_key_node,
    },
    state::{State, StateError},
    store::{Condition, ReadError, Write, WriteError, Written, writer::actor::Actor},
};

pub(super) type Outcome = Result<Written, WriteError>;

/// Writes that came together, and who waits for them.
#[derive(Debug)]
pub(in crate::store) enum Writes {
    /// The handle has checked it.
    One(Write, oneshot::Sender<Outcome>),
    /// Of the node's own keys.
    Own(Write, oneshot::Sender<Outcome>),
    Many(Vec<Write>, oneshot::Sender<Vec<Outcome>>),
}

impl Writes {
    /// Returns the bytes of their ops, about.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::One(write, _) | Self::Own(write, _) => write.bytes(),
            Self::Many(writes, _) => writes.iter().map(Write::bytes).sum(),
        }
    }
}

/// Writes that wait together, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct Group {
    writes: Vec<Result<Write, WriteError>>,
    bytes: usize,
    // Who waits for the next one, or the next several, of `writes`.
    replies: Vec<Reply>,
}

#[derive(Debug)]
enum Reply {
    One(oneshot::Sender<Outcome>),
    Many(usize, oneshot::Sender<Vec<Outcome>>),
}

impl Group {
    /// Returns the number of writes.
    pub(super) fn writes(&self) -> usize {
        self.writes.len()
    }

    /// Returns the bytes of their ops, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes writes in.
    pub(super) fn add(&mut self, writes: Writes, root: bool) {
        match writes {
            Writes::One(write, reply) => {
                self.push(write, Ok(()));
                self.replies.push(Reply::One(reply));
            }
            Writes::Own(write, reply) => {
                let checked = write.check(false);
                self.push(write, checked);
                self.replies.push(Reply::One(reply));
            }
            Writes::Many(writes, reply) => {
                self.replies.push(Reply::Many(writes.len(), reply));
                for write in writes {
                    let checked = write.check(root);
                    self.push(write, checked);
                }
            }
        }
    }

    fn push(&mut self, write: Write, checked: Result<(), WriteError>) {
        self.bytes += write.bytes();
        self.writes.push(checked.map(|()| write));
    }

    fn answer(self, outcomes: Vec<Outcome>) {
        let mut outcomes = outcomes.into_iter();
        for reply in self.replies {
            // A caller that has gone away does not want to know.
            match reply {
                Reply::One(reply) => {
                    if let Some(outcome) = outcomes.next() {
                        drop(reply.send(outcome));
                    }
                }
                Reply::Many(count, reply) => {
                    drop(reply.send(outcomes.by_ref().take(count).collect()));
                }
            }
        }
    }
}

/// Why a whole group cannot be written.
#[derive(Debug)]
pub(super) enum GroupError {
    // Nothing was written; the state must be built again first.
    State(StateError),
    Refused(WriteError),
}

impl From<LogError> for GroupError {
    fn from(error: LogError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<GroupError> for WriteError {
    fn from(error: GroupError) -> Self {
        match error {
            GroupError::Refused(error) => error,
            GroupError::State(error) => error.into(),
        }
    }
}

impl From<StateError> for GroupError {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

/// An entry in the making: ops of writes that came one after the other.
#[derive(Default)]
struct Draft {
    ops: Vec<Op>,
    bytes: usize,
    atomic: bool,
    cause: Option<Cause>,
    keys: HashSet<Bytes>,
    parents: BTreeSet<Parent>,
    // Of each op's key, before the entry.
    heads: Vec<Heads>,
    // (index into the group's writes, index of its first op)
    writes: Vec<(usize, usize)>,
}

impl Actor {
    /// Writes a group: sign, append, fsync, show, publish, answer.
    pub(super) fn run_group(&mut self, group: Group) {
        let outcomes = match self.try_group(&group) {
            Err(GroupError::State(error)) => {
                self.state_damaged(error);
                self.try_group(&group)
            }
            done => done,
        };
        let outcomes = outcomes.unwrap_or_else(|error| {
            let error = WriteError::from(error);
            group.writes.iter().map(|_| Err(error.clone())).collect()
        });
        group.answer(outcomes);
    }

    fn try_group(&mut self, group: &Group) -> Result<Vec<Outcome>, GroupError> {
        self.check_writable().map_err(GroupError::Refused)?;
        let done = self.stage_group(group).and_then(|outcomes| {
            self.commit().map_err(GroupError::Refused)?;
            Ok(outcomes)
        });
        if done.is_err() {
            self.roll_back();
        }
        done
    }

    /// Says why the store takes no writes now, if so.
    pub(super) fn check_writable(&self) -> Result<(), WriteError> {
        if let Some(reason) = &self.poisoned {
            return Err(WriteError::Poisoned {
                reason: reason.clone(),
            });
        }
        if let Some(error) = &self.state_failed {
            return Err(error.clone().into());
        }
        Ok(())
    }

    /// Makes what is staged durable, then visible, then known.
    ///
    /// # Errors
    /// `DiskFull` after which the store goes on; anything else poisons it.
    pub(super) fn commit(&mut self) -> Result<(), WriteError> {
        match self.logs.sync() {
            Ok(()) => {}
            Err(error @ LogError::Full { .. }) => return Err(error.into()),
            Err(error) => {
                let reason = WriteError::from(error).to_string();
                tracing::error!(store = %self.config.id, reason, "the log cannot be written");
                self.poisoned = Some(reason.clone());
                return Err(WriteError::Poisoned { reason });
            }
        }
        if let Some(state) = &mut self.state {
            state.show();
        }
        self.waiting.group.clear();
        let changes = std::mem::take(&mut self.staged);
        self.marks.forks.commit();
        self.publish(&changes);
        self.tell_fresh();
        let view = self.state.as_ref().map(State::staged);
        if view.is_some_and(|view| self.membership.commit(view, self.logs.reader())) {
            self.reconsider();
        }
        let come = self.membership.absent.take_come();
        if !come.is_empty() {
            self.count_again(come);
        }
        Ok(())
    }

    /// Forgets what is staged and was not committed.
    pub(super) fn roll_back(&mut self) {
        self.staged.clear();
        self.applying.clear();
        self.membership.roll_back();
        self.membership.absent.take_come();
        self.marks.forks.roll_back();
        self.waiting.group.clear();
        if let Some(state) = &mut self.state {
            state.forget();
        }
        if self.poisoned.is_none()
            && let Err(error) = self.logs.roll_back()
        {
            self.poisoned = Some(WriteError::from(error).to_string());
        }
    }

    fn stage_group(&mut self, group: &Group) -> Result<Vec<Outcome>, GroupError> {
        self.check_own_standing().map_err(GroupError::Refused)?;
        self.check_own_log().map_err(GroupError::Refused)?;
        self.own_tip().map_err(GroupError::Refused)?;
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(group.writes.len());
        let mut draft = Draft::default();
        for (index, write) in group.writes.iter().enumerate() {
            // Overwritten when the draft that holds it is closed.
            outcomes.push(Err(WriteError::Closed));
            let staged = match write {
                Ok(write) => self.stage_write(index, write, &mut draft, &mut outcomes)?,
                Err(refused) => Err(refused.clone()),
            };
            if let Err(refused) = staged {
                outcomes[index] = Err(refused);
            }
        }
        self.close_draft(&mut draft, &mut outcomes)?;
        Ok(outcomes)
    }

    // What the state lacks of this node's own entries, if it lacks some.
    fn own_hole(&self) -> Option<&LogDamage> {
        let lacks = self.state.as_ref().is_some_and(|it| it.staged().lacks);
        let own = |damage: &&LogDamage| lacks && damage.author == self.author();
        self.damage.iter().find(own)
    }

    // The inner error concerns this write only.
    fn stage_write(
        &mut self,
        index: usize,
        write: &Write,
        draft: &mut Draft,
        outcomes: &mut [Outcome],
    ) -> Result<Result<(), WriteError>, GroupError> {
        let atomic = write.atomic || write.ops.len() > 1;
        let alone = atomic || write.cause.is_some();
        let bytes = write.bytes();
        if alone || !draft.takes(write, bytes) {
            self.close_draft(draft, outcomes)?;
        }
        if let Some(key) = key_twice(&write.ops) {
            return Ok(Err(EntryError::KeyTwice { key }.into()));
        }
        let state = self.state.as_ref().expect("the store is open");
        if let Some(cause) = &write.cause
            && let Some((seq, entry)) = state.caused(&CauseId::of(&self.author(), cause))?
        {
            return Ok(Err(WriteError::AlreadyCaused { entry, seq }));
        }
        if write.cause.is_some()
            && let Some(damage) = self.own_hole()
        {
            let what = format!(
                "{damage}: this may have been written before, as what cannot be read; a sync with a \
                member who has it brings it back"
            );
            return Ok(Err(ReadError::Damaged { what }.into()));
        }
        let mut parents = BTreeSet::new();
        let mut before = Vec::with_capacity(write.ops.len());
        for op in &write.ops {
            let heads = state.heads(op.key())?;
            if let Some(condition) = write.condition
                && let Err(refused) = self.holds(condition, op.key(), &heads)
            {
                return Ok(Err(refused));
            }
            // A key with more heads is merged over several writes.
            let merged = heads.as_slice().iter().take(PARENTS_MAX);
            parents.extend(merged.map(Head::as_parent));
            if self.config.root && role_key_node(op.key()).is_some() {
                parents.extend(self.membership.authority(&self.author()));
            }
            before.push(heads);
        }
        if parents.len() > PARENTS_MAX {
            let error = EntryError::TooManyParents {
                parents: parents.len(),
                parents_max: PARENTS_MAX,
            };
            return Ok(Err(error.into()));
        }
        if draft.parents.len() + parents.len() > PARENTS_MAX {
            self.close_draft(draft, outcomes)?;
        }
        draft.writes.push((index, draft.ops.len()));
        draft.ops.extend(write.ops.iter().cloned());
        draft.bytes += bytes;
        draft
            .keys
            .extend(write.ops.iter().map(|op| op.key().clone()));
        draft.parents.extend(parents);
        draft.heads.append(&mut before);
        if alone {
            draft.atomic = atomic;
            draft.cause = write.cause.clone();
            self.close_draft(draft, outcomes)?;
        }
        Ok(Ok(()))
    }

    fn holds(&self, condition: Condition, key: &Bytes, heads: &Heads) -> Result<(), WriteError> {
        let now_ms = self.now_ms();
        let winner = heads.winner();
        let live = winner.filter(|head| head.is_live(now_ms));
        let holds = match condition {
            Condition::Absent => live.is_none(),
            Condition::Head(id) => winner.is_some_and(|head| head.id == id),
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

    // Signs what is gathered as one entry and stages it.
    fn close_draft(
        &mut self,
        draft: &mut Draft,
        outcomes: &mut [Outcome],
    ) -> Result<(), GroupError> {
        let Draft {
            ops,
            atomic,
            cause,
            parents,
            writes,
            heads,
            ..
        } = std::mem::take(draft);
        if writes.is_empty() {
            return Ok(());
        }
        let tip = self.own_tip().map_err(GroupError::Refused)?;
        let entry = self.sign(tip, parents.into_iter().collect(), ops, atomic, cause)?;
        self.take_in(&entry, Origin::Local, Some(heads))?;
        for (index, op_index) in writes {
            outcomes[index] = Ok(Written {
                entry: entry.id,
                author: entry.author(),
                seq: entry.header.seq,
                hlc: entry.header.hlc,
                op_index: u32::try_from(op_index).unwrap_or(u32::MAX),
            });
        }
        Ok(())
    }

    /// Signs the entry of this node that comes after `tip`.
    pub(super) fn sign(
        &self,
        tip: Option<Tip>,
        parents: Vec<Parent>,
        ops: Vec<Op>,
        atomic: bool,
        cause: Option<Cause>,
    ) -> Result<VerifiedEntry, GroupError> {
        let refused = |error| GroupError::Refused(error);
        let latest = parents
            .iter()
            .map(|parent| parent.hlc)
            .fold(self.hlc, Ord::max);
        let latest = tip.map_or(latest, |tip| latest.max(tip.hlc));
        let hlc = latest
            .next(self.clock.now_ms())
            .map_err(|error| refused(error.into()))?;
        let header = Header {
            store: self.config.id,
            seq: tip.map_or(1, |tip| tip.seq + 1),
            prev: tip.map(|tip| tip.id),
            hlc,
            atomic,
            cause,
            parents,
        };
        sign(&self.config.key, header, ops).map_err(|error| refused(error.into()))
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

impl Draft {
    // True when a write can become part of this entry.
    fn takes(&self, write: &Write, bytes: usize) -> bool {
        self.ops.len() + write.ops.len() <= OPS_MAX
            && self.bytes + bytes <= OPS_BYTES_MAX
            && write.ops.iter().all(|op| !self.keys.contains(op.key()))
    }
}
