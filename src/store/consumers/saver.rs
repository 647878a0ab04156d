//! The saver: a thread that owns `consumers.db` and saves the changes of many consumers and many
//! acknowledgements with one fsync.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use tokio::sync::oneshot;

use crate::{
    limits::CONSUMERS_MAX,
    store::{
        Shared,
        consumers::{
            ConsumerError,
            bell::{Bell, Waiter},
            feeder,
            file::{AllStored, Changed, Commit, File},
            live::Live,
        },
    },
};

/// All consumers of an open store, and the thread that saves them.
#[derive(Debug)]
pub(super) struct Saver {
    shared: Arc<Shared>,
    roster: Arc<Roster>,
    // `None` once the thread was joined.
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The consumers by name. The handles of the store and the saver's thread share it.
#[derive(Debug)]
struct Roster {
    // Taken before the lock of a consumer, never while one is held. Never held across an await.
    names: Mutex<Names>,
    bell: Arc<Bell>,
}

#[derive(Debug, Default)]
struct Names {
    live: BTreeMap<String, Arc<Live>>,
    // Removed from `live` and still in the file; cleared when the thread gathers what to save.
    deleted: Vec<String>,
}

impl Saver {
    /// Starts the thread, and the feeders of all consumers in the file.
    pub(super) fn start(
        file: File,
        stored: AllStored,
        shared: Arc<Shared>,
        lease: Option<Arc<dyn std::any::Any + Send + Sync>>,
    ) -> Self {
        let bell = Arc::new(Bell::default());
        let live = stored.into_iter().map(|(name, stored)| {
            if let Err(what) = &stored {
                tracing::error!(store = %shared.id, consumer = name, what, "a consumer is damaged");
            }
            let live = Live::restore(name.clone(), stored, Arc::clone(&shared), Arc::clone(&bell));
            (name, Arc::new(live))
        });
        let roster = Arc::new(Roster {
            names: Mutex::new(Names {
                live: live.collect(),
                deleted: Vec::new(),
            }),
            bell,
        });
        for live in roster.names().live.values() {
            feeder::start(live);
        }
        let of_thread = Arc::clone(&roster);
        let thread = thread::spawn(move || {
            of_thread.run(file);
            // No other process may open the directory before the file is closed.
            drop(lease);
        });
        Self {
            shared,
            roster,
            thread: Mutex::new(Some(thread)),
        }
    }

    /// Returns the consumer `name`.
    ///
    /// # Errors
    /// `Unknown`.
    pub(super) fn find(&self, name: &str) -> Result<Arc<Live>, ConsumerError> {
        let found = self.roster.names().live.get(name).cloned();
        found.ok_or_else(|| ConsumerError::Unknown {
            name: name.to_owned(),
        })
    }

    /// Returns all consumers, by name.
    pub(super) fn all(&self) -> Vec<Arc<Live>> {
        self.roster.names().live.values().cloned().collect()
    }

    /// Adds the consumer that `make` makes, unless there is a consumer `name` already. Returns the
    /// consumer of that name. A new consumer is durable with the next `flush`.
    ///
    /// # Errors
    /// `TooMany`.
    pub(super) fn add(
        &self,
        name: &str,
        make: impl FnOnce(Arc<Shared>, Arc<Bell>) -> Live,
    ) -> Result<Arc<Live>, ConsumerError> {
        let mut names = self.roster.names();
        if let Some(there) = names.live.get(name) {
            return Ok(Arc::clone(there));
        }
        if names.live.len() >= CONSUMERS_MAX {
            return Err(ConsumerError::TooMany);
        }
        let live = Arc::new(make(
            Arc::clone(&self.shared),
            Arc::clone(&self.roster.bell),
        ));
        names.live.insert(name.to_owned(), Arc::clone(&live));
        drop(names);
        live.change(|_state| Ok(()))?;
        feeder::start(&live);
        Ok(live)
    }

    /// Removes a consumer. The removal is durable with the next `flush`.
    ///
    /// # Errors
    /// `Unknown`.
    pub(super) fn delete(&self, name: &str) -> Result<(), ConsumerError> {
        let unknown = || ConsumerError::Unknown {
            name: name.to_owned(),
        };
        let live = {
            let mut names = self.roster.names();
            let live = names.live.remove(name).ok_or_else(unknown)?;
            names.deleted.push(name.to_owned());
            live
        };
        live.end(unknown());
        Ok(())
    }

    /// Waits until all changes made before this call are durable.
    ///
    /// # Errors
    /// The reason why the changes are not durable.
    pub(super) async fn flush(&self) -> Result<(), ConsumerError> {
        let (reply, answer) = oneshot::channel();
        self.roster.bell.wait_for_commit(reply)?;
        answer.await.unwrap_or(Err(ConsumerError::Closed))
    }

    /// True when the file has failed or was closed.
    pub(super) fn is_over(&self) -> bool {
        self.roster.bell.is_over()
    }

    /// Ends all consumers. The thread saves what there is, and then ends by itself.
    pub(super) fn stop(&self) {
        for live in self.all() {
            live.end(ConsumerError::Closed);
        }
        // An error means that the thread has ended already.
        self.roster.bell.close().unwrap_or_default();
    }

    /// Waits for the thread's end. Blocks: not for an event loop.
    pub(super) fn join(&self) {
        let thread = self.thread.lock();
        let thread = thread.unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(store = %self.shared.id, "the thread that saves consumers has panicked");
        }
    }
}

impl Roster {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The saver's thread.
    fn run(&self, file: File) {
        loop {
            let (waiters, close) = self.bell.wait();
            let (commit, deleted) = self.gather();
            let done = if commit.changed.is_empty() && !deleted {
                Ok(())
            } else {
                file.commit(&commit)
            };
            if let Err(error) = &done {
                tracing::error!(%error, "consumers.db cannot be written");
                let late = self.end(error);
                file.abandon();
                answer(waiters, &done);
                return answer(late, &done);
            }
            if close {
                let late = self.bell.end(ConsumerError::Closed);
                // After an error only the sums of the blocks are missing: the next open takes
                // longer.
                if let Err(error) = file.close() {
                    tracing::warn!(%error, "consumers.db did not close cleanly");
                }
                answer(waiters, &done);
                return answer(late, &Err(ConsumerError::Closed));
            }
            answer(waiters, &done);
        }
    }

    // Ends all consumers after a failed commit. Memory may be ahead of the file, so the next caller
    // reads the file again.
    fn end(&self, why: &ConsumerError) -> Vec<Waiter> {
        let late = self.bell.end(why.clone());
        for live in self.names().live.values() {
            live.end(why.clone());
        }
        late
    }

    // Returns the commit to write, and true when it removes names.
    fn gather(&self) -> (Commit, bool) {
        let (live, deleted) = {
            let mut names = self.names();
            let live: Vec<_> = names.live.values().cloned().collect();
            (live, std::mem::take(&mut names.deleted))
        };
        let dirty = live.into_iter().filter_map(|live| {
            let (row, places) = live.take_dirty()?;
            let name = live.name.clone();
            Some(Changed { name, row, places })
        });
        let removes = !deleted.is_empty();
        let commit = Commit {
            changed: dirty.collect(),
            deleted,
        };
        (commit, removes)
    }
}

fn answer(waiters: Vec<Waiter>, outcome: &Result<(), ConsumerError>) {
    for waiter in waiters {
        // An error means that the caller has dropped its receiver.
        drop(waiter.send(outcome.clone()));
    }
}
