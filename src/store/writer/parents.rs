//! Parents: an entry is applied when all that it cites is here, or does not count.
//!
//! Who cited an entry of a node that was let in by somebody who might not is not to blame: where it
//! wrote, that was not known. So what does not count is not waited for. Whether it ever will is
//! known only when everybody's acts are: so it is waited for until a sync has ended, and if it comes
//! after all, the state is counted again, as if it had come first.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use bytes::Bytes;

use crate::{
    id::{Author, EntryId, Seq},
    limits::ABSENT_PARENTS_MAX,
    log::{LogError, LogReader},
    protocol::{
        chain::Tip,
        entry::{Entry, Op, Parent},
        frontier::FrontierTip,
        heads::{Head, Heads},
    },
    store::writer::{
        actor::Actor,
        group::GroupError,
        intake::{RefusedEntry, TakenIn},
    },
};

/// Parents that were not here when what cites them was applied, because they do not count.
#[derive(Debug, Default)]
pub(super) struct Absent {
    ids: BTreeSet<EntryId>,
    // Not in the state's notes yet.
    unsaved: Vec<EntryId>,
    // Keys of those that have come with the current group.
    come: BTreeSet<Bytes>,
    // True while nothing that does not count is waited for.
    pub(super) passing: bool,
}

impl Absent {
    /// Reads them from a state's notes.
    pub(super) fn read(notes: &[(Vec<u8>, Vec<u8>)]) -> Option<Self> {
        let ids = notes
            .iter()
            .filter_map(|(key, _)| key.strip_prefix(&[NOTE]));
        let ids = ids.map(EntryId::from_slice).collect::<Option<_>>()?;
        Some(Self {
            ids,
            ..Self::default()
        })
    }

    /// Returns notes of those that were added since the last flush.
    pub(super) fn notes(&mut self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        let unsaved = mem::take(&mut self.unsaved).into_iter();
        unsaved.map(|id| ([&[NOTE], id.0.as_slice()].concat(), Vec::new()))
    }

    /// The state file is a new one: all notes are written again.
    pub(super) fn forget_saved(&mut self) {
        self.unsaved = self.ids.iter().copied().collect();
    }

    fn has_room(&self) -> bool {
        self.ids.len() < ABSENT_PARENTS_MAX
    }

    /// Adds one, where there is room.
    pub(super) fn add(&mut self, id: EntryId) {
        if self.has_room() && self.ids.insert(id) {
            self.unsaved.push(id);
        }
    }

    /// Notes an entry that is applied.
    pub(super) fn note(&mut self, entry: &Entry) {
        if self.ids.contains(&entry.id) {
            self.come.extend(entry.ops.iter().map(Op::key).cloned());
        }
    }

    /// Returns the keys of those that have come.
    pub(super) fn take_come(&mut self) -> BTreeSet<Bytes> {
        mem::take(&mut self.come)
    }
}

/// How far the logs reach, to tell which parents are absent.
pub(super) struct Reach(BTreeMap<Author, Seq>);

impl Reach {
    pub(super) fn of(log: &LogReader) -> Self {
        let mut reach = BTreeMap::new();
        for branch in log.all() {
            let newest = branch.tip().map_or(0, |tip| tip.seq);
            let known = reach.entry(branch.author).or_insert(0);
            *known = newest.max(*known);
        }
        Self(reach)
    }

    /// Returns the parents of `entry` that lie behind the ends of the logs.
    pub(super) fn absent<'a>(&'a self, entry: &'a Entry) -> impl Iterator<Item = EntryId> + 'a {
        let newest = |author| self.0.get(author).copied().unwrap_or(0);
        let parents = entry.header.parents.iter();
        let absent = parents.filter(move |parent| parent.seq > newest(&parent.author));
        absent.map(|parent| parent.id)
    }
}

impl Actor {
    /// Says what to do with an entry by what it cites. `before`: the heads of its keys.
    ///
    /// The outer error is the log's.
    pub(super) fn check_parents(
        &mut self,
        entry: &Entry,
        before: &[Heads],
    ) -> Result<Result<(), TakenIn>, GroupError> {
        let heads = before.iter().flat_map(Heads::as_slice);
        let heads: Vec<_> = heads.map(Head::as_parent).collect();
        let mut absent = Vec::new();
        for parent in &entry.header.parents {
            if heads.contains(parent) {
                continue;
            }
            match self.known(parent)? {
                Some(known) if known == *parent => {}
                Some(known) => {
                    let refused = RefusedEntry::FalseParent { parent: known.id };
                    return Ok(Err(TakenIn::Refused(refused)));
                }
                None if self.is_passed(parent) => absent.push(parent.id),
                None => return Ok(Err(TakenIn::Missing(parent.id))),
            }
        }
        for id in absent {
            self.membership.absent.add(id);
        }
        Ok(Ok(()))
    }

    // True when `parent`, which is not here, is not waited for.
    fn is_passed(&self, parent: &Parent) -> bool {
        let at = FrontierTip {
            seq: parent.seq,
            id: parent.id,
        };
        let (log, membership) = (self.logs.reader(), &self.membership);
        let passing = membership.absent.passing && membership.absent.has_room();
        membership.is_cut(&parent.author, at, log)
            || (passing && !membership.counts_at(&parent.author, at, log))
    }

    fn known(&mut self, parent: &Parent) -> Result<Option<Parent>, GroupError> {
        if let Some(staged) = self.waiting.group.get(&parent.id) {
            return Ok(Some(*staged));
        }
        let tips = self.logs.tips(&parent.author);
        for branch in 0..tips.len() {
            let log = self.logs.reader();
            let found = match log.tip_at(&parent.author, branch, parent.seq) {
                Ok(found) => found,
                // It is waited for, and comes back from a peer.
                Err(LogError::Damaged(found)) => {
                    self.note_damage(vec![found]);
                    None
                }
                Err(error) => return Err(GroupError::unreadable(error)),
            };
            if let Some(Tip { seq, id, hlc }) = found.filter(|found| found.id == parent.id) {
                return Ok(Some(Parent {
                    hlc,
                    author: parent.author,
                    id,
                    seq,
                }));
            }
        }
        Ok(None)
    }

    /// A sync has ended: what waits for entries that do not count goes on without them.
    pub(super) fn settle(&mut self) {
        let mut waiting = self.waiting.pending.take_all();
        if waiting.is_empty() {
            return;
        }
        waiting.sort_by_key(|entry| entry.order());
        self.membership.absent.passing = true;
        self.ingest_again(waiting);
        self.membership.absent.passing = false;
    }
}

const NOTE: u8 = b'o';
