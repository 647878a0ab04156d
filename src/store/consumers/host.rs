//! The host of a store's consumers: opens `consumers.db` at its first use, and again after the file
//! has failed.

use std::{
    any::Any,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    disk::{Disk, Open},
    store::{
        Shared,
        consumers::{ConsumerError, file::File, saver::Saver},
    },
};

/// Opens the file of the consumers once, for all handles.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    path: PathBuf,
    // Keeps other processes off the directory. The saver's thread holds a clone until it has closed
    // the file.
    lease: Option<Arc<dyn Any + Send + Sync>>,
    // Held while the file is opened, so that the file is opened once. Never held across an await.
    // The saver takes its own locks below this one.
    slot: Mutex<Slot>,
}

#[derive(Debug)]
enum Slot {
    Unopened,
    /// Set by `open`. The saver's thread may have ended since, because the file failed.
    Open(Arc<Saver>),
    /// Set by `stop`; it does not change again.
    Closed,
}

impl Host {
    pub(super) fn new(
        shared: Arc<Shared>,
        disk: Arc<dyn Disk>,
        lease: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Self {
        Self {
            path: shared.dir.join("consumers.db"),
            shared,
            disk,
            lease,
            slot: Mutex::new(Slot::Unopened),
        }
    }

    /// Returns the saver; opens or makes the file if no saver is running.
    ///
    /// # Errors
    /// `Damaged`, `Io`, `Closed`.
    pub(super) async fn saver(self: &Arc<Self>) -> Result<Arc<Saver>, ConsumerError> {
        match &*self.slot() {
            Slot::Open(saver) if !saver.is_over() => return Ok(Arc::clone(saver)),
            Slot::Closed => return Err(ConsumerError::Closed),
            Slot::Unopened | Slot::Open(_) => {}
        }
        let host = Arc::clone(self);
        let opening = tokio::task::spawn_blocking(move || host.open());
        opening.await.map_err(|_stopped| ConsumerError::Closed)?
    }

    /// Like `saver`, but makes no file: returns `None` when no consumer was ever made in this
    /// store.
    pub(super) async fn existing(self: &Arc<Self>) -> Result<Option<Arc<Saver>>, ConsumerError> {
        let is_unopened = matches!(&*self.slot(), Slot::Unopened);
        if is_unopened {
            match self.disk.open(&self.path, Open::Existing) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                // `saver` opens the file again, and reports any other error.
                Ok(_) | Err(_) => {}
            }
        }
        self.saver().await.map(Some)
    }

    fn open(&self) -> Result<Arc<Saver>, ConsumerError> {
        let mut slot = self.slot();
        match &*slot {
            Slot::Open(saver) if !saver.is_over() => return Ok(Arc::clone(saver)),
            // The thread of a failed saver closes the file when it ends.
            Slot::Open(failed) => failed.join(),
            Slot::Closed => return Err(ConsumerError::Closed),
            Slot::Unopened => {}
        }
        let (file, stored) = File::open(Arc::clone(&self.disk), &self.path)?;
        let lease = self.lease.clone();
        let saver = Arc::new(Saver::start(file, stored, Arc::clone(&self.shared), lease));
        *slot = Slot::Open(Arc::clone(&saver));
        Ok(saver)
    }

    /// Closes the slot, and ends the saver if one is running. Returns the saver, to be joined.
    pub(super) fn stop(&self) -> Option<Arc<Saver>> {
        match std::mem::replace(&mut *self.slot(), Slot::Closed) {
            Slot::Open(saver) => {
                saver.stop();
                Some(saver)
            }
            Slot::Unopened | Slot::Closed => None,
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
