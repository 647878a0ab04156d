//! Parts of a log that several readers want one after the other: read and checked once for all.
//!
//! A chunk is what lies between two points of a branch's index. It does not change any more: what
//! comes later is appended behind the last point. A thousand watches that fell behind at about the
//! same time read each chunk once together, and hold it once.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    id::{Author, Seq},
    limits::SHARED_READ_BYTES_MAX,
    log::{Branch, BranchWalk, LogError, branch::IndexPoint, record::Record},
    protocol::entry::VerifiedEntry,
};

/// The chunks that were wanted last.
#[derive(Debug, Clone, Default)]
pub(super) struct Chunks {
    kept: Arc<Mutex<VecDeque<Kept>>>,
    at_work: Arc<AtomicUsize>,
}

/// A reader at work, for as long as this lives.
#[derive(Debug)]
pub struct AtWork {
    all: Arc<AtomicUsize>,
    alone: bool,
}

/// A chunk that will be wanted soon and that nobody has read yet.
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

// Whose branch, which one, and where in its file.
type Place = (Author, u32, u64);
// Read by whoever wants it first, while the others wait. `None`: not readable as a whole.
type Reading = Arc<OnceLock<Option<Arc<Chunk>>>>;

#[derive(Debug)]
struct Chunk {
    entries: Vec<(VerifiedEntry, Record)>,
    // The place behind it.
    next: Seq,
}

/// Reads the entries of a branch forward, together with others who do.
#[derive(Debug)]
pub struct SharedWalk {
    chunks: Chunks,
    branch: Arc<Branch>,
    // The place that is wanted next.
    from: Seq,
    // What was read, and how much of it is passed.
    chunk: Option<(Arc<Chunk>, usize)>,
    // Where there is nothing to share: behind the last point, and from damage on.
    own: Option<BranchWalk>,
}

impl SharedWalk {
    pub(super) fn new(chunks: Chunks, branch: Arc<Branch>, from: Seq) -> Self {
        let from = from.max(branch.first);
        Self {
            chunks,
            branch,
            from,
            chunk: None,
            own: None,
        }
    }

    /// Returns the next entry and where it stands; `None` at the end. After `Damaged` it goes on
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

    /// Returns which of the `count` chunks behind the one at hand nobody has read yet.
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
    /// Reads it, for whoever comes there.
    pub fn read(self) {
        drop(self.chunks.find(&self.branch, self.from));
    }
}

impl AtWork {
    /// True when nobody else was reading the store's logs when it began.
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
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().any(|chunk| chunk.place == place)
    }

    // Returns the chunk that has place `seq`; `None` where there is none, or it is not whole.
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

    fn reading(&self, place: Place, bytes: u64) -> Reading {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
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
}
