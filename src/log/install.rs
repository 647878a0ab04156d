//! Installing a base of a peer: logs begin at its anchors, also those that do not have the entries before.
//!
//! The rows of the new beginnings are durable, in a file of their own, before the base is the newest one.
//! Then that file takes the place of `begins`, and the logs change as when entries are removed from them
//! ([`prune`](super::prune)).

use std::{
    collections::BTreeSet,
    sync::{Arc, RwLock},
};

use crate::{
    disk::Open,
    id::{Author, Seq},
    log::{
        Begin, Begins, Branch, CannotInstall, LogError, Logs, Pruning, Shape,
        begin::BeginRow,
        error::file_error,
        record::Record,
        segments::{self, Segments},
        void::Voids,
        writer::Writer,
    },
    protocol::anchor::Anchor,
};

/// Why a base of a peer is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstallCause {
    /// This node lacks entries that were removed at the peer.
    Lacking,
    /// The user wants the state of the peer: also if nothing is lacking, and if logs of others begin later
    /// here than with the base.
    Chosen,
}

/// The new beginnings of logs, and the branches that are set aside.
#[derive(Debug)]
pub struct InstallPlan {
    begins: Begins,
    voids: Voids,
}

// A branch that goes on at an anchor.
struct Holder {
    branch: Arc<Branch>,
    // Set if neither the anchor nor the entry after it can be read: where the unreadable bytes begin. That
    // the branch has the anchor is not known then, but no other one here can have it.
    hidden_at: Option<u64>,
}

impl InstallPlan {
    /// Returns whether branches are set aside.
    pub fn has_voids(&self) -> bool {
        !self.voids.0.is_empty()
    }
}

impl Logs {
    /// Returns where logs would begin with a base that has all entries at and before `anchors`, one for
    /// each author. `keeps`: the author whose log must not end before its anchor, unless it is empty.
    /// `arrived_ms`: when the base arrived. `cause`: why it is installed.
    ///
    /// Damage at or before an anchor does not matter any more, and branches that left before it are void.
    /// The inner error says why the base cannot be installed. Unless `is_trial`, makes an empty file for
    /// each author without a log.
    ///
    /// # Errors
    /// `Io`, `Full`, `NoDescriptor`.
    pub fn plan_install(
        &self,
        anchors: &[(Author, Anchor)],
        keeps: Option<Author>,
        arrived_ms: u64,
        cause: InstallCause,
        is_trial: bool,
    ) -> Result<Result<InstallPlan, CannotInstall>, LogError> {
        let mut begins = self.begins.clone();
        let (mut lacks, mut voids) = (cause != InstallCause::Lacking, Vec::new());
        let mut back = BTreeSet::new();
        for (author, here) in self.begins.anchors().iter() {
            let of_base = anchors.iter().find(|(it, _)| *it == author);
            let is_in_base =
                of_base.is_some_and(|(_, anchor)| here.seq < anchor.seq || here == anchor.tip());
            if is_in_base {
                continue;
            }
            if cause != InstallCause::Chosen || keeps == Some(author) {
                let seq = here.seq;
                return Ok(Err(CannotInstall::Apart { author, seq }));
            }
            // The log of this author begins again after the anchor. Peers send the entries after it.
            let branches = self.reader().of(&author).into_iter();
            voids.extend(branches.map(|branch| (author, branch.number)));
            begins.0.retain(|(other, _number), _row| *other != author);
            back.insert(author);
        }
        for (author, anchor) in anchors {
            if self.begins.anchors().tips(author).contains(&anchor.tip()) {
                continue;
            }
            if back.contains(author) {
                let number = match is_trial {
                    true => 0,
                    false => self.new_file(author, 0)?.0,
                };
                begins
                    .0
                    .insert((*author, number), empty_at(anchor, arrived_ms));
                continue;
            }
            lacks |= match self.reader().branch_of(author, anchor.tip()) {
                Ok(found) => found.is_none(),
                Err(LogError::Damaged(_)) => true,
                Err(error) => return Err(error),
            };
            let holder = self.holder(author, anchor)?;
            let terms = (keeps, cause);
            match self.row_at(author, anchor, holder.as_ref(), terms, arrived_ms)? {
                Ok((number, row)) => {
                    voids.extend(self.voids(author, anchor.seq, number, holder.is_some())?);
                    let number = match number {
                        Some(number) => number,
                        None if is_trial => 0,
                        None => self.new_file(author, 0)?.0,
                    };
                    begins.0.retain(|(other, _number), _row| other != author);
                    begins.0.insert((*author, number), row);
                }
                Err(cannot) => return Ok(Err(cannot)),
            }
        }
        // Else any member could have this node drop its history.
        if !lacks && !anchors.is_empty() {
            return Ok(Err(CannotInstall::NothingLacked));
        }
        let voids = Voids(voids);
        Ok(Ok(InstallPlan { begins, voids }))
    }

    // Returns the branch that has the anchor.
    fn holder(&self, author: &Author, anchor: &Anchor) -> Result<Option<Holder>, LogError> {
        match self.reader().branch_of(author, anchor.tip()) {
            Ok(found) => {
                return Ok(found.map(|branch| Holder {
                    branch,
                    hidden_at: None,
                }));
            }
            Err(LogError::Damaged(_)) => {}
            Err(error) => return Err(error),
        }
        let mut hidden = None;
        for branch in self.reader().of(author) {
            let damage = match branch.header(anchor.seq) {
                // Another entry, or another part of the log.
                Ok(_other) => continue,
                Err(LogError::Damaged(damage)) => damage,
                Err(error) => return Err(error),
            };
            // The entry after the anchor names it.
            match branch.entry(anchor.seq.saturating_add(1)) {
                Ok(Some((next, _record))) if next.header.prev == Some(anchor.id) => {
                    let hidden_at = None;
                    return Ok(Some(Holder { branch, hidden_at }));
                }
                // The newest entry, whose id is known, is another one; or the next names another one.
                Ok(_other) => {}
                Err(LogError::Damaged(_)) => {
                    let hidden_at = Some(damage.offset);
                    hidden.get_or_insert(Holder { branch, hidden_at });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(hidden)
    }

    // Returns the number of the branch that goes on at the anchor, `None` for a new one, and its row.
    fn row_at(
        &self,
        author: &Author,
        anchor: &Anchor,
        holder: Option<&Holder>,
        (keeps, cause): (Option<Author>, InstallCause),
        arrived_ms: u64,
    ) -> Result<Result<(Option<u32>, BeginRow), CannotInstall>, LogError> {
        let begin = |offset, arrived_ms| Begin {
            anchor: *anchor,
            arrived_ms,
            offset,
        };
        let row_of = |branch: &Branch, begin| BeginRow {
            first: branch.first,
            forked_from: branch.forked_from,
            begin,
        };
        if let Some(Holder { branch, hidden_at }) = holder {
            let next = readable(branch.header(anchor.seq.saturating_add(1)))?;
            let record = readable(branch.header(anchor.seq))?;
            let offset = next.map(|next| next.offset);
            let offset = offset.or(record.as_ref().map(Record::end));
            let offset = offset.or(*hidden_at).unwrap_or(branch.end());
            let arrived_ms = record.map_or(arrived_ms, |record| record.header.arrived_ms);
            let row = row_of(branch, begin(offset, arrived_ms));
            return Ok(Ok((Some(branch.number), row)));
        }
        let branches = self.reader().of(author);
        let Some(first) = branches.first() else {
            return Ok(Ok((None, empty_at(anchor, arrived_ms))));
        };
        let tips = branches.iter().filter_map(|branch| branch.tip());
        let ours = tips.map(|tip| tip.seq).max().unwrap_or(0);
        if keeps == Some(*author) && ours < anchor.seq {
            let theirs = anchor.seq;
            return Ok(Err(CannotInstall::OwnLogBehind { ours, theirs }));
        }
        if keeps == Some(*author) && cause == InstallCause::Chosen {
            let seq = anchor.seq;
            return Ok(Err(CannotInstall::OwnLogForked { seq }));
        }
        if ours >= anchor.seq {
            // All that is here is void from some place before the anchor on, and is set aside.
            return Ok(Ok((None, empty_at(anchor, arrived_ms))));
        }
        // It ends before the anchor. The name of its file is used again.
        let row = row_of(first, begin(first.end(), arrived_ms));
        Ok(Ok((Some(first.number), row)))
    }

    // Returns the branches of `author` that left before the anchor, directly or with another one. `kept` is
    // the number of the one that goes on. `has_anchor`: whether that one has the anchor.
    pub(super) fn voids(
        &self,
        author: &Author,
        anchor: Seq,
        kept: Option<u32>,
        has_anchor: bool,
    ) -> Result<Vec<(Author, u32)>, LogError> {
        let branches = self.reader().of(author);
        let mut voids = Vec::new();
        for branch in branches.iter().filter(|it| Some(it.number) != kept) {
            let mut at = Arc::clone(branch);
            let is_void = loop {
                let left = at.left().filter(|left| left.seq >= anchor);
                let Some(left) = left else { break true };
                match self.reader().branch_of(author, left) {
                    // Each branch left another one at a lower place than its own.
                    Ok(Some(parent)) if parent.first < at.first => at = parent,
                    Ok(_none) => break true,
                    // It left a part that cannot be read now; what is above the anchor stays.
                    Err(LogError::Damaged(_)) => break !has_anchor,
                    Err(error) => return Err(error),
                }
                if Some(at.number) == kept {
                    break !has_anchor;
                }
            };
            if is_void {
                voids.push((*author, branch.number));
            }
        }
        Ok(voids)
    }

    /// Keeps what `plan_install` has found, for when the base with this hash is the newest one. Durable on
    /// return.
    ///
    /// # Errors
    /// `Io`, `Full`, `NoDescriptor`.
    pub fn prepare_install(&self, plan: &InstallPlan, base: &[u8; 32]) -> Result<(), LogError> {
        let InstallPlan { begins, voids } = plan;
        voids.prepare(self.disk.as_ref(), &self.dir, base)?;
        begins.prepare(self.disk.as_ref(), &self.dir, base)
    }

    /// Forgets what `prepare_install` has kept.
    ///
    /// # Errors
    /// `Io`, `NoDescriptor`.
    pub fn forget_install(&self, base: &[u8; 32]) -> Result<(), LogError> {
        Begins::remove_prepared(self.disk.as_ref(), &self.dir, base)?;
        Voids::remove_prepared(self.disk.as_ref(), &self.dir, base)
    }

    /// Makes the logs begin as `prepare_install` has kept; the base with this hash is the newest one.
    /// Readers that walk a log go on. Nothing may be staged. The inner error: a file could not be removed;
    /// the next opening does that. [`forget_install_of`](Self::forget_install_of) is to follow once the state
    /// is that of the base.
    ///
    /// # Errors
    /// `Io`, `Full`, `NoDescriptor`: the logs must not be written until they are opened again.
    ///
    /// # Panics
    /// When entries are staged.
    pub fn install(
        &mut self,
        plan: InstallPlan,
        base: &[u8; 32],
    ) -> Result<(Pruning, Result<(), LogError>), LogError> {
        let InstallPlan { begins, voids } = plan;
        for key in &voids.0 {
            self.writers.remove(key);
            self.reader().remove(&key.0, key.1);
        }
        voids.set_aside(self.disk.as_ref(), &self.dir)?;
        Begins::put_prepared(self.disk.as_ref(), &self.dir, base)?;
        for ((author, number), row) in &begins.0 {
            if self.writers.contains_key(&(*author, *number)) {
                continue;
            }
            let writer = self.begin_empty(*author, *number, row)?;
            self.has_new_names = true;
            self.add(writer);
        }
        Ok(self.switch(begins))
    }

    /// Forgets an installation, and which branches it has set aside: no state file of before can come back.
    /// Durable on return. If branches were set aside, the logs must not be written before.
    ///
    /// # Errors
    /// `Io`, `NoDescriptor`: the logs must not be written until they are opened again.
    pub fn forget_install_of(&self, base: &[u8; 32]) -> Result<(), LogError> {
        Voids::remove_prepared(self.disk.as_ref(), &self.dir, base)?;
        let synced = self.disk.sync_dir(&self.dir);
        synced.map_err(|source| file_error("the directory of the logs", source))
    }

    /// Begins a log for an author who has no entry here.
    pub(super) fn begin_empty(
        &self,
        author: Author,
        number: u32,
        row: &BeginRow,
    ) -> Result<Writer, LogError> {
        let name = segments::name(&author, number, 0);
        let (key, dir) = ((author, number), self.dir.clone());
        let segments = Segments::begin(&self.files, &self.disk, dir, key, Open::Existing);
        let segments = Arc::new(segments.map_err(|source| file_error(&name, source))?);
        let shape = Shape {
            end: row.begin.offset,
            tip: Some(row.begin.anchor.into()),
            index: Vec::new(),
        };
        let branch = Arc::new(Branch {
            author,
            number,
            first: row.first,
            forked_from: row.forked_from,
            begin: Some(row.begin),
            name,
            file: segments.clone(),
            shape: RwLock::new(shape),
        });
        Ok(Writer::new(branch, segments, 0, false))
    }
}

// The row of a new log that begins after the anchor.
fn empty_at(anchor: &Anchor, arrived_ms: u64) -> BeginRow {
    BeginRow {
        first: 1,
        forked_from: None,
        begin: Begin {
            anchor: *anchor,
            arrived_ms,
            offset: 0,
        },
    }
}

// Returns `None` for a frame that cannot be read.
fn readable(read: Result<Option<Record>, LogError>) -> Result<Option<Record>, LogError> {
    match read {
        Err(LogError::Damaged(_)) => Ok(None),
        read => read,
    }
}
