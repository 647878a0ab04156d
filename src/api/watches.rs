//! The open watches of clients, and the lag of each.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{id::StoreId, store::Watch};

/// The open watches of a server's clients. Cheap to clone; all clones share one list.
// Locked for a moment, never across await. No watch is locked while this lock is held.
#[derive(Debug, Clone, Default)]
pub struct Watches(Arc<Mutex<Open>>);

/// The lag of one watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchLag {
    /// Number of the watch: unique in this process, higher for a later watch.
    pub watch: u64,
    /// Store that is watched.
    pub store: StoreId,
    /// Prefixes and patterns of the watch as a label, shortened to 80 characters.
    pub on: String,
    /// Published entries that the watch has not delivered yet, see [`Watch::lag`]. Events on the
    /// way to the client count as delivered.
    pub entries: u64,
}

#[derive(Debug, Default)]
struct Open {
    // Number of the newest watch.
    last: u64,
    // By number. Dropping an `Opened` removes its watch.
    watches: BTreeMap<u64, One>,
}

#[derive(Debug, Clone)]
struct One {
    store: StoreId,
    on: String,
    watch: Arc<Mutex<Watch>>,
}

/// A watch that is listed until this is dropped.
#[derive(Debug)]
pub(super) struct Opened {
    number: u64,
    // Locked by the call that polls the watch, and for a moment by `lags`. Never across await.
    watch: Arc<Mutex<Watch>>,
    among: Watches,
}

impl Watches {
    /// Lists `watch` of `store` until the returned value is dropped.
    pub(super) fn open(&self, store: StoreId, on: String, watch: Watch) -> Opened {
        let watch = Arc::new(Mutex::new(watch));
        let mut open = self.lock();
        open.last += 1;
        let number = open.last;
        let one = One {
            store,
            on: on.chars().take(ON_CHARS_MAX).collect(),
            watch: Arc::clone(&watch),
        };
        open.watches.insert(number, one);
        Opened {
            number,
            watch,
            among: self.clone(),
        }
    }

    /// Returns the lag of each open watch, the oldest watch first.
    pub fn lags(&self) -> Vec<WatchLag> {
        // A copy, so that opening and closing a watch do not wait for the lock of another watch.
        let watches = self.lock().watches.clone();
        let lag = |(watch, one): (u64, One)| WatchLag {
            watch,
            store: one.store,
            entries: lock(&one.watch).lag(),
            on: one.on,
        };
        watches.into_iter().map(lag).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        lock(&self.0)
    }
}

impl Opened {
    /// Locks the watch. The guard must not be held across await.
    pub(super) fn lock(&self) -> MutexGuard<'_, Watch> {
        lock(&self.watch)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let removed = self.among.lock().watches.remove(&self.number);
        // Dropped after the lock is released, because the drop ends a subscription.
        drop(removed);
    }
}

// A call that panicked leaves data that other calls may still read: a poisoned lock is used as it
// is.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Characters of a watch's label. A longer label is shortened, so that metrics stay small.
const ON_CHARS_MAX: usize = 80;
