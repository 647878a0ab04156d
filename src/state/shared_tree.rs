//! The hash tree over the heads of the views of one state file, shared by the views and the
//! flusher.
//!
//! A put costs the tree nothing. The flusher notes the rows that it has written, and a view adds
//! those that it has in memory. So a root costs a reading of the blocks of rows that have changed
//! since the last one. The tree is not stored. The first root after a start reads all rows.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use bytes::Bytes;
use imbl::OrdMap;

use crate::{
    id::StoreId,
    pace::Pace,
    protocol::{
        heads::Heads,
        merkle::{Levels, Tree},
    },
};

/// The tree of the views of one state file.
//
// Locks: `flushed` is taken alone, or under `cached`. `cached` is held while a tree is refreshed
// and read, which may take a second; the flusher does not wait for it.
#[derive(Debug)]
pub(super) struct SharedTree {
    pub(super) levels: Levels,
    cached: Mutex<Cached>,
    // Rows that were written to the file and that `cached` does not know yet. The next thread that
    // has `cached` takes them out, so they are of a few flushes at most.
    flushed: Mutex<Vec<OrdMap<Bytes, Heads>>>,
}

/// A tree, and the view that it is of.
#[derive(Debug)]
pub(super) struct Cached {
    pub(super) tree: Tree,
    /// Version of the newest view that the tree was refreshed for; `None` while it has read
    /// nothing.
    pub(super) version: Option<u64>,
}

impl SharedTree {
    /// Makes a tree that has read nothing.
    pub(super) fn new(store: StoreId) -> Self {
        let levels = Levels::new(store);
        Self {
            cached: Mutex::new(Cached {
                tree: Tree::new(levels.clone()),
                version: None,
            }),
            levels,
            flushed: Mutex::default(),
        }
    }

    /// Notes rows that the file has now. Called before a view is shown that has them from the file
    /// only. Never waits for a reader of the tree.
    pub(super) fn note_flushed(&self, rows: &OrdMap<Bytes, Heads>) {
        self.flushed().push(rows.clone());
        match self.cached.try_lock() {
            Ok(mut cached) => self.touch_flushed(&mut cached),
            Err(TryLockError::Poisoned(cached)) => self.touch_flushed(&mut cached.into_inner()),
            // The reader of the tree does it.
            Err(TryLockError::WouldBlock) => {}
        }
    }

    /// Calls `work` with the tree, once no other reader has it.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Cached) -> T) -> T {
        let cached = self.cached.lock();
        let mut cached = cached.unwrap_or_else(PoisonError::into_inner);
        self.touch_flushed(&mut cached);
        let done = work(&mut cached);
        self.touch_flushed(&mut cached);
        drop(cached);
        // The flusher may have come between the last two lines.
        if let Ok(mut cached) = self.cached.try_lock() {
            self.touch_flushed(&mut cached);
        }
        done
    }

    fn touch_flushed(&self, cached: &mut Cached) {
        loop {
            let Some(rows) = self.flushed().pop() else {
                return;
            };
            cached.touch(&rows);
        }
    }

    fn flushed(&self) -> MutexGuard<'_, Vec<OrdMap<Bytes, Heads>>> {
        self.flushed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cached {
    /// Notes that these rows may have changed.
    pub(super) fn touch(&mut self, rows: &OrdMap<Bytes, Heads>) {
        // Nothing was read yet: the first refresh reads all rows.
        if self.version.is_none() {
            return;
        }
        let mut pace = Pace::start();
        self.tree.touch_each(rows.keys().map(|key| {
            pace.step();
            key.as_ref()
        }));
    }
}
