//! Installing a base of a peer: logs begin at its anchors, also those that do not have the entries before.
//!
//! The rows of the new beginnings are durable, in a file of their own, before the base is the newest one.
//! Then that file takes the place of `begins`, and the logs change as when entries are removed from them
//! ([`prune`](super::prune)).

use std::sync::{Arc, RwLock};

use crate::{
    disk::Open,
    id::Author,
    log::{
        Begin, Begins, Branch, CannotInstall, LogError, Logs, Pruning, Shape,
        begin::BeginRow,
        error::file_error,
        segments::{self, Segments},
        writer::Writer,
    },
    protocol::anchor::Anchor,
};

impl Logs {
    /// Returns where logs would begin with a base that has all entries at and before `anchors`, one for
    /// each author. `keeps`: the author whose log must not end before its anchor, unless it is empty.
    /// `arrived_ms`: when the base arrived.
    ///
    /// The inner error says why this is not possible. Unless `is_trial`, makes an empty file for each author
    /// without a log.
    ///
    /// # Errors
    /// `Io`, `Full`, `NoDescriptor`.
    pub fn plan_install(
        &self,
        anchors: &[(Author, Anchor)],
        keeps: Option<Author>,
        arrived_ms: u64,
        is_trial: bool,
    ) -> Result<Result<Begins, CannotInstall>, LogError> {
        let mut begins = self.begins.clone();
        for (author, here) in self.begins.anchors().iter() {
            let of_base = anchors.iter().find(|(it, _)| *it == author);
            let is_in_base =
                of_base.is_some_and(|(_, anchor)| here.seq < anchor.seq || here == anchor.tip());
            if !is_in_base {
                let seq = here.seq;
                return Ok(Err(CannotInstall::Apart { author, seq }));
            }
        }
        let mut lacks = false;
        for (author, anchor) in anchors {
            if self.begins.anchors().tips(author).contains(&anchor.tip()) {
                continue;
            }
            lacks |= match self.reader().branch_of(author, anchor.tip()) {
                Ok(found) => found.is_none(),
                Err(LogError::Damaged(_)) => true,
                Err(error) => return Err(error),
            };
            match self.row_at(author, anchor, keeps == Some(*author), arrived_ms) {
                Ok(Ok((number, row))) => {
                    let number = match number {
                        Some(number) => number,
                        None if is_trial => 0,
                        None => self.new_file(author, 0)?.0,
                    };
                    begins.0.retain(|(other, _number), _row| other != author);
                    begins.0.insert((*author, number), row);
                }
                Ok(Err(cannot)) => return Ok(Err(cannot)),
                Err(LogError::Damaged(found)) => return Ok(Err(CannotInstall::Damaged(found))),
                Err(error) => return Err(error),
            }
        }
        // Else any member could have this node drop its history.
        if !lacks && !anchors.is_empty() {
            return Ok(Err(CannotInstall::NothingLacked));
        }
        Ok(Ok(begins))
    }

    // Returns the number of the branch that goes on at the anchor, `None` for a new one, and its row.
    fn row_at(
        &self,
        author: &Author,
        anchor: &Anchor,
        is_kept: bool,
        arrived_ms: u64,
    ) -> Result<Result<(Option<u32>, BeginRow), CannotInstall>, LogError> {
        let forked = CannotInstall::Forked {
            author: *author,
            seq: anchor.seq,
        };
        let begin = |offset, arrived_ms| Begin {
            anchor: *anchor,
            arrived_ms,
            offset,
        };
        let branches = self.reader().of(author);
        if let Some(branch) = self.reader().branch_of(author, anchor.tip())? {
            let mut others = branches.iter().filter(|it| it.number != branch.number);
            if others.any(|other| other.first <= anchor.seq) {
                return Ok(Err(forked));
            }
            let next = anchor.seq.saturating_add(1);
            let record = branch.header(anchor.seq)?;
            let next = branch.header(next)?.map(|next| next.offset);
            let offset = next.or(record.as_ref().map(|record| record.end()));
            let arrived_ms = record.map_or(arrived_ms, |record| record.header.arrived_ms);
            let row = BeginRow {
                first: branch.first,
                forked_from: branch.forked_from,
                begin: begin(offset.unwrap_or(branch.end()), arrived_ms),
            };
            return Ok(Ok((Some(branch.number), row)));
        }
        let [only] = branches.as_slice() else {
            if !branches.is_empty() {
                return Ok(Err(forked));
            }
            let row = BeginRow {
                first: 1,
                forked_from: None,
                begin: begin(0, arrived_ms),
            };
            return Ok(Ok((None, row)));
        };
        match only.tip() {
            // Its entries below the anchor are void: they left the final ones. Others drop them.
            Some(tip) if is_kept && tip.seq >= anchor.seq => Ok(Err(forked)),
            Some(tip) if is_kept => Ok(Err(CannotInstall::OwnLogBehind {
                ours: tip.seq,
                theirs: anchor.seq,
            })),
            _behind_or_void => {
                let row = BeginRow {
                    first: only.first,
                    forked_from: only.forked_from,
                    begin: begin(only.end(), arrived_ms),
                };
                Ok(Ok((Some(only.number), row)))
            }
        }
    }

    /// Keeps the rows that `plan_install` has found, for when the base with this hash is the newest one.
    /// Durable on return.
    ///
    /// # Errors
    /// `Io`, `Full`, `NoDescriptor`.
    pub fn prepare_install(&self, begins: &Begins, base: &[u8; 32]) -> Result<(), LogError> {
        begins.prepare(self.disk.as_ref(), &self.dir, base)
    }

    /// Forgets what `prepare_install` has kept.
    ///
    /// # Errors
    /// `Io`, `NoDescriptor`.
    pub fn forget_install(&self, base: &[u8; 32]) -> Result<(), LogError> {
        Begins::remove_prepared(self.disk.as_ref(), &self.dir, base)
    }

    /// Makes the logs begin as `prepare_install` has kept; the base with this hash is the newest one.
    /// Readers that walk a log go on. Nothing may be staged. The inner error: a file could not be removed;
    /// the next opening does that.
    ///
    /// # Errors
    /// `Io`, `Full`, `NoDescriptor`: the logs must not be written until they are opened again.
    ///
    /// # Panics
    /// When entries are staged.
    pub fn install(
        &mut self,
        begins: Begins,
        base: &[u8; 32],
    ) -> Result<(Pruning, Result<(), LogError>), LogError> {
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

    // Begins a log for an author who has no entry here.
    fn begin_empty(&self, author: Author, number: u32, row: &BeginRow) -> Result<Writer, LogError> {
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
