//! The open files of logs: opened when they are needed, closed when others need the room.
//!
//! A file with bytes that are not synced stays open: after a failed write-back, only a handle that
//! was open meanwhile is sure to get the error from its next fsync.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    disk::{Disk, DiskFile, Open, is_out_of_descriptors},
    limits::{LOG_FILES_MAX, LOG_FILES_MIN, SEGMENT_BYTES},
};

/// A bound on the files of logs that are open at a time. The stores of a node share one: clones are
/// the same bound.
#[derive(Debug, Clone)]
pub struct LogFiles(Arc<Bound>);

#[derive(Debug)]
struct Bound {
    open_max: usize,
    segment_bytes: u64,
    // The open files, and some that were dropped since. The one in front was opened or looked at
    // longest ago. More than `open_max` only while that many have unsynced bytes. Held while a file
    // is opened or closed; the lock of a `LazyFile` is taken under it, never the other way round.
    open: Mutex<VecDeque<Weak<LazyFile>>>,
}

/// A file of a log. It need not be open: each operation opens it if it is not.
#[derive(Debug)]
pub(super) struct LazyFile {
    files: LogFiles,
    disk: Arc<dyn Disk>,
    path: PathBuf,
    me: Weak<Self>,
    // `None` while it is closed. Held for a clone or an assignment.
    file: RwLock<Option<Arc<dyn DiskFile>>>,
    // True from before a write until a sync has returned. The file is not closed meanwhile.
    unsynced: AtomicBool,
    // True once the file has no name any more, so that it cannot be opened again.
    kept: AtomicBool,
    // Set by each operation, cleared when a file to close is looked for.
    used: AtomicBool,
}

impl LogFiles {
    /// Makes a bound of `open_max` files, at least one.
    pub fn new(open_max: usize) -> Self {
        Self(Arc::new(Bound {
            open_max: open_max.max(1),
            segment_bytes: SEGMENT_BYTES,
            open: Mutex::default(),
        }))
    }

    /// Makes another bound of as many files, for logs whose files have about `bytes` each instead of
    /// `SEGMENT_BYTES`.
    #[must_use]
    pub fn with_segments_of(&self, bytes: u64) -> Self {
        Self(Arc::new(Bound {
            open_max: self.0.open_max,
            segment_bytes: bytes.max(1),
            open: Mutex::default(),
        }))
    }

    /// Returns how many bytes a file of a log has before the next one is begun.
    pub(super) fn segment_bytes(&self) -> u64 {
        self.0.segment_bytes
    }

    /// Makes a bound of a quarter of the descriptors that this process may have open: the rest is
    /// for connections and other files.
    pub fn of_process() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let soft = limit.current.unwrap_or(u64::MAX);
        let quarter = usize::try_from(soft / 4).unwrap_or(usize::MAX);
        Self::new(quarter.clamp(LOG_FILES_MIN, LOG_FILES_MAX))
    }

    /// Returns how many files may have unsynced bytes at a time, so that room is left for others.
    pub(super) fn unsynced_max(&self) -> usize {
        (self.0.open_max / 2).max(1)
    }

    /// Opens the file at `path`.
    pub(super) fn open(
        &self,
        disk: &Arc<dyn Disk>,
        path: &Path,
        how: Open,
    ) -> io::Result<Arc<LazyFile>> {
        let file = Arc::new_cyclic(|me| LazyFile {
            files: self.clone(),
            disk: Arc::clone(disk),
            path: path.to_owned(),
            me: Weak::clone(me),
            file: RwLock::default(),
            unsynced: AtomicBool::new(false),
            kept: AtomicBool::new(false),
            used: AtomicBool::new(true),
        });
        self.open_again(&file, how)?;
        Ok(file)
    }

    fn open_again(&self, file: &LazyFile, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut open = self.open_files();
        // Another thread may have been faster.
        if let Some(file) = file.handle().as_ref() {
            return Ok(Arc::clone(file));
        }
        self.make_room(&mut open);
        let opened = loop {
            match file.disk.open(&file.path, how) {
                Err(error) if is_out_of_descriptors(&error) && close_one(&mut open) => {}
                opened => break opened?,
            }
        };
        *file.file.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&opened));
        open.push_back(Weak::clone(&file.me));
        Ok(opened)
    }

    // Closes files until one more fits. One that was used since the last look stays for one round.
    fn make_room(&self, open: &mut VecDeque<Weak<LazyFile>>) {
        let mut looks = 2 * open.len();
        while open.len() >= self.0.open_max
            && looks > 0
            && let Some(oldest) = open.pop_front()
        {
            looks -= 1;
            let Some(file) = oldest.upgrade() else {
                continue;
            };
            if file.used.swap(false, Ordering::Relaxed) || !file.close() {
                open.push_back(oldest);
            }
        }
    }

    fn open_files(&self) -> MutexGuard<'_, VecDeque<Weak<LazyFile>>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for LogFiles {
    fn default() -> Self {
        Self::new(LOG_FILES_MAX)
    }
}

// Closes the first file that can be closed; false when there is none.
fn close_one(open: &mut VecDeque<Weak<LazyFile>>) -> bool {
    open.retain(|file| file.strong_count() > 0);
    let closed = open
        .iter()
        .position(|file| file.upgrade().is_some_and(|file| file.close()));
    closed.is_some_and(|at| open.remove(at).is_some())
}

impl LazyFile {
    /// True while bytes were written that no sync has made durable.
    pub(super) fn is_unsynced(&self) -> bool {
        self.unsynced.load(Ordering::Acquire)
    }

    /// Opens the file, and keeps it open until it is dropped: its name goes.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(super) fn keep_open(&self) -> io::Result<()> {
        self.kept.store(true, Ordering::Release);
        self.get().map(drop)
    }

    fn handle(&self) -> RwLockReadGuard<'_, Option<Arc<dyn DiskFile>>> {
        self.file.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self) -> io::Result<Arc<dyn DiskFile>> {
        self.used.store(true, Ordering::Relaxed);
        if let Some(file) = self.handle().as_ref() {
            return Ok(Arc::clone(file));
        }
        self.files.open_again(self, Open::Existing)
    }

    // Returns the open file, which stays open until a sync has returned.
    fn get_to_change(&self) -> io::Result<Arc<dyn DiskFile>> {
        self.used.store(true, Ordering::Relaxed);
        loop {
            // Under the lock: `close` looks at the mark under it, too.
            if let Some(file) = self.handle().as_ref() {
                self.unsynced.store(true, Ordering::Release);
                return Ok(Arc::clone(file));
            }
            self.files.open_again(self, Open::Existing)?;
        }
    }

    // Closes the file, unless it has unsynced bytes or no name any more; an operation under way ends
    // first. Returns whether it did.
    fn close(&self) -> bool {
        let mut file = self.file.write().unwrap_or_else(PoisonError::into_inner);
        if self.unsynced.load(Ordering::Acquire) || self.kept.load(Ordering::Acquire) {
            return false;
        }
        file.take().is_some()
    }
}

impl DiskFile for LazyFile {
    fn len(&self) -> io::Result<u64> {
        self.get()?.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.get()?.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.get_to_change()?.write_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.get_to_change()?.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.get_to_change()?.sync_data()?;
        // Only the store's writer writes, and it is here.
        self.unsynced.store(false, Ordering::Release);
        Ok(())
    }

    fn write_back(&self, offset: u64, bytes: u64) {
        if let Some(file) = self.handle().as_ref() {
            file.write_back(offset, bytes);
        }
    }
}

/// Removes a file, if it is there.
pub(super) fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
