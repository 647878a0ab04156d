//! A small redb file for rows that no log can give back: damage is an error, never a wrong answer.
//!
//! Every block has a check (`Pages`), a panic of redb is an error, and commits have two phases:
//! otherwise redb takes damage of the newest commit for a power cut during it, and silently goes
//! back to the commit before. A new file gets its name when it is complete, so an empty file is
//! damage.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use redb::{Database, ReadTransaction, ReadableDatabase as _, WriteTransaction};

use crate::{
    disk::{Disk, Open},
    state::{StateError, guarded::guarded, pages::Pages},
};

/// An open file. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct CheckedFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    pages: Pages,
    // Taken by drop only.
    db: Option<Database>,
    // Set by the first call that fails. The blocks are then checked by redb at the next open.
    failed: AtomicBool,
}

impl CheckedFile {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// `Damaged`, also when it is empty. `Io`, also when it is missing.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        path: &Path,
        cache_bytes: usize,
    ) -> Result<Self, StateError> {
        let file = disk.open(path, Open::Existing)?;
        let bytes = file.len()?;
        let sums = Pages::take_sums(&disk, path, bytes);
        if bytes == 0 {
            return Err(StateError::damaged("it is empty"));
        }
        let unclean = sums.is_none();
        let pages = Pages::new(file, sums.unwrap_or_default());
        let backend = pages.clone();
        let db = guarded(move || {
            let mut db = redb::Builder::new()
                .set_cache_size(cache_bytes)
                .create_with_backend(backend)?;
            if unclean && !db.check_integrity()? {
                return Err(StateError::damaged("its own check fails"));
            }
            Ok(db)
        })?;
        Ok(Self {
            disk,
            path: path.to_owned(),
            pages,
            db: Some(db),
            failed: AtomicBool::new(false),
        })
    }

    /// Makes the file at `path` with the rows that `fill` writes, in place of a file of that name.
    /// Durable on return.
    ///
    /// # Errors
    /// `Io`, and the error of `fill`.
    pub(crate) fn create(
        disk: Arc<dyn Disk>,
        path: &Path,
        cache_bytes: usize,
        fill: impl FnOnce(&WriteTransaction) -> Result<(), StateError>,
    ) -> Result<Self, StateError> {
        let unfinished = path.with_extension("new");
        match disk.remove(&unfinished) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _removed => {}
        }
        let pages = Pages::new(disk.open(&unfinished, Open::New)?, Vec::new());
        let backend = pages.clone();
        let db = guarded(move || {
            Ok(redb::Builder::new()
                .set_cache_size(cache_bytes)
                .create_with_backend(backend)?)
        })?;
        let file = Self {
            disk,
            path: path.to_owned(),
            pages,
            db: Some(db),
            failed: AtomicBool::new(false),
        };
        file.write(fill)?;
        // The sums of a file that had this name before, if any are left.
        drop(Pages::take_sums(&file.disk, path, 0));
        file.disk.rename(&unfinished, path)?;
        if let Some(dir) = path.parent() {
            file.disk.sync_dir(dir)?;
        }
        Ok(file)
    }

    /// Runs `work` in a read transaction.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        self.noting(guarded(|| work(&self.db().begin_read()?)))
    }

    /// Runs `work` in a write transaction, which is durable on return.
    ///
    /// # Errors
    /// `Damaged`, `Io`. Nothing was written, except that a commit that failed may be durable.
    pub(crate) fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        self.noting(guarded(|| {
            let mut write = self.db().begin_write()?;
            write.set_two_phase_commit(true);
            let done = work(&write)?;
            write.commit()?;
            Ok(done)
        }))
    }

    fn noting<T>(&self, done: Result<T, StateError>) -> Result<T, StateError> {
        if done.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        done
    }

    fn db(&self) -> &Database {
        self.db.as_ref().expect("only drop takes it")
    }
}

impl Drop for CheckedFile {
    fn drop(&mut self) {
        let Some(db) = self.db.take() else {
            return;
        };
        let closed = guarded(move || Ok(db.close()?));
        let sums = match closed {
            Ok(()) if !self.failed.load(Ordering::Relaxed) => self
                .pages
                .leave_sums(&self.disk, &self.path)
                .map_err(StateError::from),
            closed => closed,
        };
        if let Err(error) = sums {
            // Nothing is lost: the next open checks the whole file.
            let path = self.path.display();
            tracing::warn!(%path, %error, "the file was not closed cleanly");
        }
    }
}
