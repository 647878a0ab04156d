//! Chunks: parts of a log that several readers want, read and checked once for all of them.
//!
//! A chunk is the run of records between two points of a branch's index. It never changes, because
//! records are appended behind the last point. A thousand watches that fell behind at about the
//! same time read each chunk once and share one copy in memory.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    id::{Author, Seq},
    limits::SHARED_READ_BYTES_MAX,
    log::{Branch, BranchWalk, LogError, branch::IndexPoint, record::Record},
    protocol::entry::VerifiedEntry,
};

/// The chunks of a store's logs that were used last. A clone shares them.
#[derive(Debug, Clone, Default)]
pub(super) struct Chunks {
    // The least recently used is in front; at most `SHARED_READ_BYTES_MAX`, or one chunk. Held to
    // find, move or drop an item: a chunk is read outside of it, and nothing is awaited under it.
    kept: Arc<Mutex<VecDeque<Kept>>>,
    // Readers for which an `AtWork` lives.
    at_work: Arc<AtomicUsize>,
}

/// Counts as a reader of the store's logs until it is dropped.
#[derive(Debug)]
pub struct AtWork {
    all: Arc<AtomicUsize>,
    alone: bool,
}

/// A chunk that a walk will need soon and that no walk has read yet.
#[derive(Debug)]
pub struct Ahead {
    chunks: Chunks,
    branch: Arc<Branch>,
    from: Seq,
}

#[derive(Debug)]
struct Kept {
    place: Place,
    bytes: u64,
    chunk: Reading,
}

// Author and number of a branch, and the offset in its file.
type Place = (Author, u32, u64);
// The first walk that needs the chunk reads it, while the others wait. `None` when part of it is
// damaged: then each walk reads for itself and reports the damage.
type Reading = Arc<OnceLock<Option<Arc<Chunk>>>>;

#[derive(Debug)]
struct Chunk {
    entries: Vec<(VerifiedEntry, Record)>,
    // The place after the last entry.
    next: Seq,
}

/// Reads the entries of a branch forward, and shares each chunk with other walks.
#[derive(Debug)]
pub struct SharedWalk {
    chunks: Chunks,
    branch: Arc<Branch>,
    // The next place to return; at the beginning of a chunk, the chunk's first.
    from: Seq,
    // The chunk at hand, and how many of its entries were returned or skipped.
    chunk: Option<(Arc<Chunk>, usize)>,
    // Set behind the last index point and from damage on, where there is no chunk to share.
    own: Option<BranchWalk>,
}

impl SharedWalk {
    pub(super) fn new(chunks: Chunks, branch: Arc<Branch>, from: Seq) -> Self {
        let from = from.max(branch.first_here());
        Self {
            chunks,
            branch,
            from,
            chunk: None,
            own: None,
        }
    }

    /// Returns the next entry and its record; `None` at the end. The call after `Damaged` goes on
    /// behind the damage.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn next_entry(&mut self) -> Result<Option<(VerifiedEntry, Record)>, LogError> {
        loop {
            if let Some(own) = &mut self.own {
                return own.next_entry();
            }
            let Some((chunk, passed)) = &mut self.chunk else {
                self.chunk = self.chunks.find(&self.branch, self.from).map(|chunk| {
                    let before = |read: &(VerifiedEntry, Record)| read.1.header.seq < self.from;
                    let passed = chunk.entries.partition_point(before);
                    (chunk, passed)
                });
                if self.chunk.is_none() {
                    self.own = Some(self.branch.walk(self.from));
                }
                continue;
            };
            if let Some(read) = chunk.entries.get(*passed) {
                *passed += 1;
                return Ok(Some(read.clone()));
            }
            self.from = chunk.next;
            self.chunk = None;
        }
    }

    /// Returns those of the next `count` chunks that no walk has read yet.
    pub fn ahead(&self, count: usize) -> Vec<Ahead> {
        let mut from = match &self.chunk {
            Some((chunk, _passed)) => chunk.next,
            None => self.from,
        };
        let mut ahead = Vec::new();
        for _chunk in 0..count {
            let points = self.branch.points_around(from);
            let Some((begin, end)) = points.filter(|_| self.own.is_none()) else {
                break;
            };
            if !self.chunks.has(place(&self.branch, begin)) {
                ahead.push(Ahead {
                    chunks: self.chunks.clone(),
                    branch: Arc::clone(&self.branch),
                    from,
                });
            }
            from = end.seq;
        }
        ahead
    }
}

impl Ahead {
    /// Reads the chunk, so that walks find it in memory.
    pub fn read(self) {
        drop(self.chunks.find(&self.branch, self.from));
    }
}

impl AtWork {
    /// Returns true when no other reader was counted at the time this one began.
    pub fn is_alone(&self) -> bool {
        self.alone
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

fn place(branch: &Branch, begin: IndexPoint) -> Place {
    (branch.author, branch.number, begin.offset)
}

impl Chunks {
    pub(super) fn at_work(&self) -> AtWork {
        let before = self.at_work.fetch_add(1, Ordering::Relaxed);
        AtWork {
            all: Arc::clone(&self.at_work),
            alone: before == 0,
        }
    }

    fn has(&self, place: Place) -> bool {
        self.kept().iter().any(|chunk| chunk.place == place)
    }

    // Returns the chunk that has place `seq`, and reads it if no walk has; `None` when no chunk has
    // the place yet, or a part of the chunk is damaged.
    fn find(&self, branch: &Arc<Branch>, seq: Seq) -> Option<Arc<Chunk>> {
        let (begin, end) = branch.points_around(seq)?;
        let place = place(branch, begin);
        let chunk = self.reading(place, end.offset.saturating_sub(begin.offset));
        let read = chunk.get_or_init(|| {
            let mut walk = branch.walk_between(begin, end);
            let mut entries = Vec::new();
            while let Some(read) = walk.next_entry().ok()? {
                entries.push(read);
            }
            let next = end.seq;
            Some(Arc::new(Chunk { entries, next }))
        });
        read.clone()
    }

    // Makes room for the chunk at `place` if need be, and marks it as used last.
    fn reading(&self, place: Place, bytes: u64) -> Reading {
        let mut kept = self.kept();
        let at = kept.iter().position(|chunk| chunk.place == place);
        let found = at.and_then(|at| kept.remove(at)).unwrap_or_else(|| Kept {
            place,
            bytes,
            chunk: Reading::default(),
        });
        let chunk = Arc::clone(&found.chunk);
        kept.push_back(found);
        let mut all: u64 = kept.iter().map(|chunk| chunk.bytes).sum();
        while all > SHARED_READ_BYTES_MAX
            && kept.len() > 1
            && let Some(oldest) = kept.pop_front()
        {
            all -= oldest.bytes;
        }
        chunk
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
