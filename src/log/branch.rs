//! One branch of an author's log: a file of records, its sparse index, and its readers.

use std::{
    io,
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    disk::DiskFile,
    id::{Author, EntryId, Seq},
    limits::{INDEX_EVERY_BYTES, REPLAY_CHUNK_BYTES},
    log::{
        LogDamage, LogError,
        frame::FrameHeader,
        record::{Record, Step, Walk},
    },
    protocol::{chain::Tip, entry::VerifiedEntry},
};

/// A place in a branch from which a reader can walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexPoint {
    /// The record there.
    pub seq: Seq,
    /// Where its frame begins.
    pub offset: u64,
    /// Its stamp.
    pub wall_ms: u64,
    /// When it arrived here.
    pub arrived_ms: u64,
}

/// What readers need to know of a branch; the writer moves it forward.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    /// Bytes of whole, durable records.
    pub end: u64,
    /// The newest record; `None` only before the first.
    pub tip: Option<Tip>,
    /// One point every `INDEX_EVERY_BYTES`, ascending.
    pub index: Vec<IndexPoint>,
}

/// One branch. Shared by the writer and all readers.
#[derive(Debug)]
pub struct Branch {
    /// Whose.
    pub author: Author,
    /// 0, or more after a fork.
    pub number: u32,
    /// Its first record: 1, or where the fork is.
    pub first: Seq,
    /// The entry before its first, on another branch; `None` when `first` is 1.
    pub forked_from: Option<EntryId>,
    /// The file's name inside the log directory.
    pub name: String,
    pub(super) file: Arc<dyn DiskFile>,
    // Written by the writer only; never held across IO.
    pub(super) shape: RwLock<Shape>,
}

impl Branch {
    /// Returns the newest record.
    pub fn tip(&self) -> Option<Tip> {
        self.shape
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .tip
    }

    /// Returns the bytes of whole, durable records.
    pub fn end(&self) -> u64 {
        self.shape
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .end
    }

    /// Returns a copy of the index points at or after number `from`.
    pub fn index_from(&self, from: usize) -> Vec<IndexPoint> {
        let shape = self.shape.read().unwrap_or_else(PoisonError::into_inner);
        shape.index.get(from..).unwrap_or_default().to_vec()
    }

    /// Walks records `from` through the newest.
    pub fn walk(self: &Arc<Self>, from: Seq) -> BranchWalk {
        self.walk_where(from, |point| point.seq <= from, REPLAY_CHUNK_BYTES)
    }

    /// Walks records from the last index point before `arrived_ms`: every record that arrived
    /// then or later comes, and a few before.
    pub fn walk_arrived(self: &Arc<Self>, arrived_ms: u64) -> BranchWalk {
        self.walk_where(0, |point| point.arrived_ms < arrived_ms, REPLAY_CHUNK_BYTES)
    }

    /// Walks records from the last index point before `wall_ms`: every record stamped then or
    /// later comes, and a few before.
    pub fn walk_authored(self: &Arc<Self>, wall_ms: u64) -> BranchWalk {
        self.walk_where(0, |point| point.wall_ms < wall_ms, REPLAY_CHUNK_BYTES)
    }

    /// Returns the record at `seq`; `None` when this branch has none there.
    ///
    /// # Errors
    /// `Damaged` when it is unreadable, `Io`.
    pub fn record(self: &Arc<Self>, seq: Seq) -> Result<Option<Record>, LogError> {
        if seq < self.first || self.tip().is_none_or(|tip| seq > tip.seq) {
            return Ok(None);
        }
        let chunk = usize::try_from(INDEX_EVERY_BYTES).unwrap_or(usize::MAX);
        let mut walk = self.walk_where(seq, |point| point.seq <= seq, chunk);
        let mut damage = None;
        loop {
            match walk.next_record() {
                Ok(Some(record)) if record.header.seq == seq => return Ok(Some(record)),
                Ok(Some(record)) if record.header.seq < seq => {}
                Ok(_past) => {
                    return match damage {
                        Some(damage) => Err(LogError::Damaged(damage)),
                        None => Ok(None),
                    };
                }
                Err(LogError::Damaged(found)) => damage = Some(found),
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the entry at `seq`, checked against its frame.
    ///
    /// # Errors
    /// `Damaged` when it is unreadable, `Io`.
    pub fn entry(self: &Arc<Self>, seq: Seq) -> Result<Option<(VerifiedEntry, Record)>, LogError> {
        let Some(record) = self.record(seq)? else {
            return Ok(None);
        };
        let entry = self.read_entry(&record)?;
        Ok(Some((entry, record)))
    }

    /// Reads the entry of a record of this branch.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn read_entry(&self, record: &Record) -> Result<VerifiedEntry, LogError> {
        match record.entry() {
            Ok(entry) => Ok(entry.vouched()),
            Err(what) => Err(LogError::Damaged(self.damage(record, what))),
        }
    }

    // The points of the index before and after `seq`; `None` behind the last one.
    pub(super) fn points_around(&self, seq: Seq) -> Option<(IndexPoint, IndexPoint)> {
        let shape = self.shape.read().unwrap_or_else(PoisonError::into_inner);
        let after = shape.index.partition_point(|point| point.seq <= seq);
        let before = after.checked_sub(1)?;
        Some((*shape.index.get(before)?, *shape.index.get(after)?))
    }

    // Walks all records between two points of the index.
    pub(super) fn walk_between(self: &Arc<Self>, begin: IndexPoint, end: IndexPoint) -> BranchWalk {
        let bytes = end.offset.saturating_sub(begin.offset);
        let chunk_bytes = usize::try_from(bytes).unwrap_or(REPLAY_CHUNK_BYTES);
        let file = Arc::clone(&self.file);
        BranchWalk {
            branch: Arc::clone(self),
            walk: Walk::new(file, begin.offset, end.offset, chunk_bytes),
            from: begin.seq,
            next: begin.seq,
            damage: None,
            behind: None,
        }
    }

    /// Says that `record` is damaged.
    pub fn damage(&self, record: &Record, what: String) -> LogDamage {
        LogDamage {
            author: self.author,
            seq: Some(record.header.seq),
            file: self.name.clone(),
            offset: record.offset,
            bytes: record.header.frame_bytes() as u64,
            what,
        }
    }

    fn walk_where(
        self: &Arc<Self>,
        from: Seq,
        before: impl Fn(&IndexPoint) -> bool,
        chunk_bytes: usize,
    ) -> BranchWalk {
        let shape = self.shape.read().unwrap_or_else(PoisonError::into_inner);
        let point = shape.index.partition_point(before).checked_sub(1);
        let offset = point
            .and_then(|at| shape.index.get(at))
            .map_or(0, |point| point.offset);
        let seq = point
            .and_then(|at| shape.index.get(at))
            .map_or(self.first, |point| point.seq);
        BranchWalk {
            branch: Arc::clone(self),
            walk: Walk::new(Arc::clone(&self.file), offset, shape.end, chunk_bytes),
            from,
            next: seq,
            damage: None,
            behind: None,
        }
    }
}

/// Reads a branch forward.
#[derive(Debug)]
pub struct BranchWalk {
    branch: Arc<Branch>,
    walk: Walk,
    from: Seq,
    // The place after the last record met.
    next: Seq,
    // Met and not yet told: it ends where the next record begins.
    damage: Option<LogDamage>,
    // The record behind damage that was told.
    behind: Option<Record>,
}

impl BranchWalk {
    /// Returns the branch.
    pub fn branch(&self) -> &Arc<Branch> {
        &self.branch
    }

    /// Returns the place it starts at, while nothing was read.
    pub fn starts_at(&self) -> Seq {
        self.next.max(self.from)
    }

    /// Returns the next entry and where it stands, as `next_record` does.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn next_entry(&mut self) -> Result<Option<(VerifiedEntry, Record)>, LogError> {
        let Some(record) = self.next_record()? else {
            return Ok(None);
        };
        let entry = self.branch.read_entry(&record)?;
        Ok(Some((entry, record)))
    }

    /// Returns the next record; `None` at the end. After `Damaged` it goes on behind the damage.
    /// Damage that lies wholly before `from` is not told.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn next_record(&mut self) -> Result<Option<Record>, LogError> {
        if let Some(record) = self.behind.take() {
            return Ok(Some(record));
        }
        loop {
            let step = self.walk.step().map_err(|source| self.branch.io(source))?;
            match step {
                None => return self.damage.take().map_or(Ok(None), told),
                Some(Step::Bad { offset, bytes, .. }) => {
                    self.spoiled(offset, bytes, "no record can be read here");
                }
                Some(Step::Record(record)) if !self.belongs(&record) => {
                    let bytes = record.header.frame_bytes() as u64;
                    self.spoiled(record.offset, bytes, "a record of another place is here");
                }
                Some(Step::Record(record)) if record.header.seal => {}
                Some(Step::Record(record)) => {
                    let seq = record.header.seq;
                    self.next = seq + 1;
                    let matters = seq > self.from || self.from <= self.branch.first;
                    match self.damage.take().filter(|_| matters) {
                        Some(damage) => {
                            self.behind = Some(record).filter(|_| seq >= self.from);
                            return told(damage);
                        }
                        None if seq >= self.from => return Ok(Some(record)),
                        None => {}
                    }
                }
            }
        }
    }

    // Adds bytes to the damage that is not told yet.
    fn spoiled(&mut self, offset: u64, bytes: u64, what: &str) {
        let damage = self.damage.get_or_insert_with(|| LogDamage {
            author: self.branch.author,
            seq: Some(self.next),
            file: self.branch.name.clone(),
            offset,
            bytes,
            what: what.to_owned(),
        });
        damage.bytes = offset + bytes - damage.offset;
    }

    // False for a record that a write to the wrong file, or an old one, has left here.
    fn belongs(&self, record: &Record) -> bool {
        let FrameHeader {
            author, seal, seq, ..
        } = record.header;
        author == self.branch.author && (seal || seq >= self.next)
    }
}

fn told(damage: LogDamage) -> Result<Option<Record>, LogError> {
    Err(LogError::Damaged(damage))
}

impl Branch {
    pub(super) fn io(&self, source: io::Error) -> LogError {
        LogError::Io {
            file: self.name.clone(),
            source,
        }
    }
}
