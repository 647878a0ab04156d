//! The watches that clients have open, and how far behind each is.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{id::StoreId, store::Watch};

/// The open watches of a server's clients. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Watches(Arc<Mutex<Open>>);

/// How far behind a watch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchLag {
    /// Names it from its begin to its end; the next one has a higher number.
    pub watch: u64,
    /// What it watches.
    pub store: StoreId,
    /// The same, in words: prefixes and patterns, cut to be a label.
    pub on: String,
    /// Entries published that lie behind its position, see [`Watch::lag`]. What is on the way to
    /// its client counts as given.
    pub entries: u64,
}

#[derive(Debug, Default)]
struct Open {
    last: u64,
    // By number. Each goes when its `Opened` is dropped.
    watches: BTreeMap<u64, One>,
}

#[derive(Debug, Clone)]
struct One {
    store: StoreId,
    on: String,
    watch: Arc<Mutex<Watch>>,
}

/// A watch that is counted until it is dropped.
#[derive(Debug)]
pub(super) struct Opened {
    number: u64,
    // Locked by who polls it, and for a moment by who asks how far it is.
    watch: Arc<Mutex<Watch>>,
    among: Watches,
}

impl Watches {
    /// Counts `watch` of `store` in, until what it returns is dropped.
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

    /// Returns how far behind each is, the oldest first.
    pub fn lags(&self) -> Vec<WatchLag> {
        // Copied, so that no watch waits for a look at the others.
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opened {
    /// Returns the watch, for a moment.
    pub(super) fn lock(&self) -> MutexGuard<'_, Watch> {
        lock(&self.watch)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let gone = self.among.lock().watches.remove(&self.number);
        // Without the lock: it ends a subscription.
        drop(gone);
    }
}

fn lock(watch: &Mutex<Watch>) -> MutexGuard<'_, Watch> {
    watch.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Characters of what a watch is on that its label has.
const ON_CHARS_MAX: usize = 80;
