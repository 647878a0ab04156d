//! Parts of a log that several readers want one after the other: read and checked once for all.
//!
//! A chunk is what lies between two points of a branch's index. It does not change any more: what
//! comes later is appended behind the last point. A thousand watches that fell behind at about the
//! same time read each chunk once together, and hold it once.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use crate::{
    id::{Author, Seq},
    limits::SHARED_READ_BYTES_MAX,
    log::{Branch, BranchWalk, LogError, record::Record},
    protocol::entry::VerifiedEntry,
};

/// The chunks that were wanted last.
#[derive(Debug, Clone, Default)]
pub(super) struct Chunks(Arc<Mutex<VecDeque<Kept>>>);

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
}

impl Chunks {
    // Returns the chunk that has place `seq`; `None` where there is none, or it is not whole.
    fn find(&self, branch: &Arc<Branch>, seq: Seq) -> Option<Arc<Chunk>> {
        let (begin, end) = branch.points_around(seq)?;
        let place = (branch.author, branch.number, begin.offset);
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
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
