//! One branch of an author's log: a file of records, its sparse index, and its readers.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use crate::{
    disk::DiskFile,
    id::{Author, EntryId, Seq},
    limits::{INDEX_EVERY_BYTES, REPLAY_CHUNK_BYTES},
    log::{
        Begin, LogDamage, LogError,
        error::file_error,
        frame::FrameHeader,
        record::{Record, Step, Walk},
    },
    protocol::{chain::Tip, entry::VerifiedEntry, frontier::FrontierTip},
};

/// A record at which a reader can begin to walk a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexPoint {
    /// Place of its entry.
    pub seq: Seq,
    /// Offset of its frame in the file.
    pub offset: u64,
    /// Wall time of the entry's stamp, ms since 1970.
    pub wall_ms: u64,
    /// Local wall time when it was appended here, ms since 1970.
    pub arrived_ms: u64,
}

/// The readable part of a branch: its end, its newest record and its index. The writer moves all
/// three forward together.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    /// Bytes of whole, durable records.
    pub end: u64,
    /// The newest entry; `None` only until the first one is durable.
    pub tip: Option<Tip>,
    /// Points at least `INDEX_EVERY_BYTES` apart, by offset.
    pub index: Vec<IndexPoint>,
}

/// One branch of an author's log. Shared by the writer and all readers.
#[derive(Debug)]
pub struct Branch {
    /// Author of its entries.
    pub author: Author,
    /// 0 for the author's first branch; each fork gets a higher number.
    pub number: u32,
    /// Place of its first entry: 1, or higher where it left another branch.
    pub first: Seq,
    /// The entry before its first, on another branch; `None` when `first` is 1.
    pub forked_from: Option<EntryId>,
    /// The place from which on this node has its records, if earlier ones were removed; `None` when it
    /// has all of them.
    pub begin: Option<Begin>,
    /// Name of its first file in the log directory, which may be gone.
    pub name: String,
    pub(super) file: Arc<dyn DiskFile>,
    // Written by the store's writer only. Held for a copy or an assignment: the file is not
    // touched, no other lock taken and nothing awaited under it.
    pub(super) shape: RwLock<Shape>,
}

impl Branch {
    /// Returns the newest durable entry; `None` only until there is one.
    pub fn tip(&self) -> Option<Tip> {
        self.shape().tip
    }

    /// Returns the bytes of whole, durable records.
    pub fn end(&self) -> u64 {
        self.shape().end
    }

    /// Returns the place of the first entry that the branch can have here: `first`, or the one after
    /// the anchor.
    pub fn first_here(&self) -> Seq {
        self.begin
            .map_or(self.first, |begin| begin.anchor.seq.saturating_add(1))
    }

    /// Returns the offset of the first record; 0 when none was removed.
    pub(super) fn begins_at(&self) -> u64 {
        self.begin.map_or(0, |begin| begin.offset)
    }

    /// Returns the bytes of whole, durable records that are here.
    pub(super) fn bytes(&self) -> u64 {
        self.end().saturating_sub(self.begins_at())
    }

    /// Returns about how many bytes of records here come after the entry at `seq`: up to the distance of two
    /// index points more.
    pub(super) fn bytes_after(&self, seq: Seq) -> u64 {
        let shape = self.shape();
        let before = shape.index.partition_point(|point| point.seq <= seq);
        let point = before.checked_sub(1).and_then(|at| shape.index.get(at));
        if shape.tip.is_none_or(|tip| tip.seq <= seq) {
            return 0;
        }
        let begin = point.map_or_else(|| self.begins_at(), |point| point.offset);
        shape.end.saturating_sub(begin)
    }

    /// Returns a copy of the index points without the first `from` of them.
    pub fn index_from(&self, from: usize) -> Vec<IndexPoint> {
        let shape = self.shape();
        shape.index.get(from..).unwrap_or_default().to_vec()
    }

    /// Walks the records from place `from` (inclusive) through the newest; from the first one here, if
    /// that is later.
    pub fn walk(self: &Arc<Self>, from: Seq) -> BranchWalk {
        self.walk_in_chunks(from, REPLAY_CHUNK_BYTES)
    }

    /// Like `walk`; one read takes `chunk_bytes`, and more for a longer record.
    pub(super) fn walk_in_chunks(self: &Arc<Self>, from: Seq, chunk_bytes: usize) -> BranchWalk {
        self.walk_where(from, |point| point.seq <= from, chunk_bytes)
    }

    /// Walks the records from the last index point before `arrived_ms`: every record that arrived
    /// at that time or later, after a few that arrived before.
    pub fn walk_arrived(self: &Arc<Self>, arrived_ms: u64) -> BranchWalk {
        self.walk_where(0, |point| point.arrived_ms < arrived_ms, REPLAY_CHUNK_BYTES)
    }

    /// Walks the records from the last index point before `wall_ms`: every record stamped at that
    /// time or later, after a few stamped before.
    pub fn walk_authored(self: &Arc<Self>, wall_ms: u64) -> BranchWalk {
        self.walk_where(0, |point| point.wall_ms < wall_ms, REPLAY_CHUNK_BYTES)
    }

    /// Returns the record of the entry at `seq`; `None` when `seq` is not on this branch.
    ///
    /// # Errors
    /// `Damaged` when the record cannot be read, `Io`.
    pub fn record(self: &Arc<Self>, seq: Seq) -> Result<Option<Record>, LogError> {
        if seq < self.first_here() || self.tip().is_none_or(|tip| seq > tip.seq) {
            return Ok(None);
        }
        let mut walk = self.walk_where(seq, |point| point.seq <= seq, between_points());
        walk.record_at(seq)
    }

    /// Returns the record of the entry at `seq` without its payload, which is not read; `None` when
    /// `seq` is not on this branch.
    ///
    /// # Errors
    /// `Damaged` when its frame cannot be read, `Io`.
    pub fn header(self: &Arc<Self>, seq: Seq) -> Result<Option<Record>, LogError> {
        self.headers().at(seq)
    }

    /// Returns the ids of the entries at those of `places` that the branch has; unreadable ones are
    /// left out.
    pub fn ids_at(self: &Arc<Self>, places: &BTreeSet<Seq>) -> Vec<(Seq, EntryId)> {
        let Some(tip) = self.tip().filter(|tip| tip.seq >= self.first_here()) else {
            return Vec::new();
        };
        let mut headers = self.headers();
        let here = places.range(self.first_here()..=tip.seq);
        let ids = here.filter_map(|seq| {
            let record = headers.at(*seq).ok().flatten()?;
            Some((*seq, record.header.id))
        });
        ids.collect()
    }

    /// Returns a reader of the frames at several places.
    pub(super) fn headers(self: &Arc<Self>) -> Headers {
        Headers {
            branch: Arc::clone(self),
            through: self.tip().map(|tip| tip.seq),
            walk: None,
        }
    }

    /// Returns the place before its first entry, on the branch that this one left; `None` when there
    /// is none.
    pub(super) fn left(&self) -> Option<FrontierTip> {
        Some(FrontierTip {
            seq: self.first.saturating_sub(1),
            id: self.forked_from?,
        })
    }

    /// Returns the entry at `seq`, checked against its frame, and its record; `None` when `seq` is
    /// not on this branch.
    ///
    /// # Errors
    /// `Damaged` when the entry cannot be read, `Io`.
    pub fn entry(self: &Arc<Self>, seq: Seq) -> Result<Option<(VerifiedEntry, Record)>, LogError> {
        let Some(record) = self.record(seq)? else {
            return Ok(None);
        };
        let entry = self.read_entry(&record)?;
        Ok(Some((entry, record)))
    }

    /// Decodes the entry of `record`, which is of this branch, and checks it against its frame.
    ///
    /// # Errors
    /// `Damaged` when the payload is not the entry that the frame names.
    pub fn read_entry(&self, record: &Record) -> Result<VerifiedEntry, LogError> {
        match record.entry() {
            Ok(entry) => Ok(entry.vouched()),
            Err(what) => Err(LogError::Damaged(self.damage(record, what))),
        }
    }

    /// Returns the last index point at or before `seq` and the first one after it; `None` when
    /// either is missing.
    pub(super) fn points_around(&self, seq: Seq) -> Option<(IndexPoint, IndexPoint)> {
        let shape = self.shape();
        let after = shape.index.partition_point(|point| point.seq <= seq);
        let before = after.checked_sub(1)?;
        Some((*shape.index.get(before)?, *shape.index.get(after)?))
    }

    /// Walks the records from index point `begin` (inclusive) to `end` (exclusive).
    pub(super) fn walk_between(self: &Arc<Self>, begin: IndexPoint, end: IndexPoint) -> BranchWalk {
        let bytes = end.offset.saturating_sub(begin.offset);
        // Damage can make it long; then it is read in pieces.
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

    /// Returns the damage report for `record`; `what` is the check that it failed.
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
        let walk = |file, offset, end| Walk::new(file, offset, end, chunk_bytes);
        self.walk_with(from, before, walk)
    }

    // Walks from the last index point of which `before` is true, with the `Walk` that `walk` makes of
    // the file, the point's offset and the branch's end.
    fn walk_with(
        self: &Arc<Self>,
        from: Seq,
        before: impl Fn(&IndexPoint) -> bool,
        walk: impl FnOnce(Arc<dyn DiskFile>, u64, u64) -> Walk,
    ) -> BranchWalk {
        let shape = self.shape();
        let point = shape.index.partition_point(before).checked_sub(1);
        let point = point.and_then(|at| shape.index.get(at));
        let (offset, seq) = point.map_or((self.begins_at(), self.first_here()), |point| {
            (point.offset, point.seq)
        });
        BranchWalk {
            branch: Arc::clone(self),
            walk: walk(Arc::clone(&self.file), offset, shape.end),
            from,
            next: seq,
            damage: None,
            behind: None,
        }
    }

    // Returns true when an index point lies behind `offset` and not behind `seq`.
    fn is_shorter_way(&self, seq: Seq, offset: u64) -> bool {
        let shape = self.shape();
        let points = shape.index.partition_point(|point| point.seq <= seq);
        let point = points.checked_sub(1).and_then(|at| shape.index.get(at));
        point.is_some_and(|point| point.offset > offset)
    }
}

/// Reads the frames of a branch at ascending places. Each part of the file is read once, and the
/// parts between far places are not read.
#[derive(Debug)]
pub(super) struct Headers {
    branch: Arc<Branch>,
    // The newest place when the reader was made.
    through: Option<Seq>,
    // Stands behind the record that was returned last; `None` when there is none.
    walk: Option<BranchWalk>,
}

impl Headers {
    /// Returns the record at `seq` without its payload; `None` when the branch does not have the
    /// place.
    ///
    /// # Errors
    /// `Damaged` when its frame cannot be read, `Io`.
    pub(super) fn at(&mut self, seq: Seq) -> Result<Option<Record>, LogError> {
        let branch = &self.branch;
        if seq < branch.first_here() || self.through.is_none_or(|through| seq > through) {
            return Ok(None);
        }
        let is_ahead =
            |walk: &BranchWalk| walk.next <= seq && !branch.is_shorter_way(seq, walk.walk.at());
        let walk = self.walk.take().filter(is_ahead);
        let mut walk =
            walk.unwrap_or_else(|| branch.walk_with(seq, |point| point.seq <= seq, Walk::headers));
        walk.from = seq;
        let found = walk.record_at(seq)?;
        self.walk = found.is_some().then_some(walk);
        Ok(found)
    }
}

/// Reads a branch forward, up to the end it had when the walk began.
#[derive(Debug)]
pub struct BranchWalk {
    branch: Arc<Branch>,
    walk: Walk,
    // The first place that is returned.
    from: Seq,
    // The place after the last record that was read.
    next: Seq,
    // Damage that was met and not returned yet: it ends where the next record begins.
    damage: Option<LogDamage>,
    // The record behind the damage that was returned last; returned next.
    behind: Option<Record>,
}

impl BranchWalk {
    /// Returns the branch that is read.
    pub fn branch(&self) -> &Arc<Branch> {
        &self.branch
    }

    /// Returns the first place that it will return. Meaningful only before the first read.
    pub fn starts_at(&self) -> Seq {
        self.next.max(self.from)
    }

    /// Returns the next entry and its record; `None` at the end. Damage is returned as by
    /// `next_record`.
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

    /// Returns the next record; `None` at the end. The call after `Damaged` goes on behind the
    /// damage. Damage that ends before the first place to return is skipped.
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
                None => {
                    let damage = self.damage.take();
                    return damage.map_or(Ok(None), |damage| Err(LogError::Damaged(damage)));
                }
                Some(Step::Bad { offset, bytes, .. }) => {
                    self.add_damage(offset, bytes, "no record can be read here");
                }
                Some(Step::Record(record)) if !self.belongs(&record) => {
                    let bytes = record.header.frame_bytes() as u64;
                    self.add_damage(record.offset, bytes, "a record of another place is here");
                }
                Some(Step::Record(record)) if record.header.seal => {}
                Some(Step::Record(record)) => {
                    let seq = record.header.seq;
                    self.next = seq + 1;
                    let matters = seq > self.from || self.from <= self.branch.first_here();
                    match self.damage.take().filter(|_| matters) {
                        Some(damage) => {
                            self.behind = Some(record).filter(|_| seq >= self.from);
                            return Err(LogError::Damaged(damage));
                        }
                        None if seq >= self.from => return Ok(Some(record)),
                        None => {}
                    }
                }
            }
        }
    }

    // Returns the record at `seq`, which must be `from`.
    fn record_at(&mut self, seq: Seq) -> Result<Option<Record>, LogError> {
        let mut damage = None;
        loop {
            match self.next_record() {
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

    // Adds bytes to the damage that was not returned yet.
    fn add_damage(&mut self, offset: u64, bytes: u64, what: &str) {
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

    // False for a record that a write to the wrong file, or an older write, has left here.
    fn belongs(&self, record: &Record) -> bool {
        let FrameHeader {
            author, seal, seq, ..
        } = record.header;
        author == self.branch.author && (seal || seq >= self.next)
    }
}

// Bytes that the walk to one record reads at a time.
fn between_points() -> usize {
    usize::try_from(INDEX_EVERY_BYTES).expect("64 KiB fit a usize")
}

impl Branch {
    /// Returns the shape for reading. A panic cannot leave it half-written in a way that matters:
    /// the writer checks first and then assigns, so a poisoned lock is used as it is.
    pub(super) fn shape(&self) -> RwLockReadGuard<'_, Shape> {
        self.shape.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the shape for the store's writer, which alone changes it.
    pub(super) fn shape_mut(&self) -> RwLockWriteGuard<'_, Shape> {
        self.shape.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the error for an operation on the file that the file system refused. A full disk is
    /// `Io`: nothing that was begun can be taken for undone.
    pub(super) fn io(&self, source: io::Error) -> LogError {
        match file_error(&self.name, source) {
            LogError::Full { file, source } => LogError::Io { file, source },
            error => error,
        }
    }
}
