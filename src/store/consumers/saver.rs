//! The keeper: a thread that owns `consumers.db` and saves what has changed, many consumers and
//! many acknowledgements with one fsync.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use tokio::sync::oneshot;

use crate::{
    limits::{CONSUMERS_COMMIT_EVERY, CONSUMERS_MAX},
    store::{
        Shared,
        consumers::{
            ConsumerError, feeder,
            file::{AllStored, Changed, Commit, File},
            live::Live,
        },
    },
};

/// All consumers of an open store.
#[derive(Debug)]
pub(super) struct Keeper {
    shared: Arc<Shared>,
    book: Arc<Book>,
    // Taken by who joins it.
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Book {
    names: Mutex<Names>,
    bell: Arc<Bell>,
}

#[derive(Debug, Default)]
struct Names {
    live: BTreeMap<String, Arc<Live>>,
    // Removed, and still in the file.
    deleted: Vec<String>,
}

/// Wakes the keeper.
#[derive(Debug, Default)]
pub(super) struct Bell {
    calls: Mutex<Calls>,
    rung: Condvar,
}

type Waiter = oneshot::Sender<Result<(), ConsumerError>>;

#[derive(Debug, Default)]
struct Calls {
    dirty: bool,
    // Who waits until what is dirty now is durable.
    waiters: Vec<Waiter>,
    close: bool,
    // The thread has ended, and why.
    over: Option<ConsumerError>,
}

impl Keeper {
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
        let book = Arc::new(Book {
            names: Mutex::new(Names {
                live: live.collect(),
                deleted: Vec::new(),
            }),
            bell,
        });
        for live in book.names().live.values() {
            feeder::start(live);
        }
        let of_thread = Arc::clone(&book);
        let thread = thread::spawn(move || {
            of_thread.run(file);
            // Nobody else may have the directory before the file is closed.
            drop(lease);
        });
        Self {
            shared,
            book,
            thread: Mutex::new(Some(thread)),
        }
    }

    /// Returns a consumer.
    ///
    /// # Errors
    /// `Unknown`.
    pub(super) fn find(&self, name: &str) -> Result<Arc<Live>, ConsumerError> {
        let found = self.book.names().live.get(name).cloned();
        found.ok_or_else(|| ConsumerError::Unknown {
            name: name.to_owned(),
        })
    }

    /// Returns all consumers, by name.
    pub(super) fn all(&self) -> Vec<Arc<Live>> {
        self.book.names().live.values().cloned().collect()
    }

    /// Adds a consumer that `make` makes, unless there is one of that name. Durable with the next
    /// `flush`.
    ///
    /// # Errors
    /// `TooMany`.
    pub(super) fn add(
        &self,
        name: &str,
        make: impl FnOnce(Arc<Shared>, Arc<Bell>) -> Live,
    ) -> Result<Arc<Live>, ConsumerError> {
        let mut names = self.book.names();
        if let Some(there) = names.live.get(name) {
            return Ok(Arc::clone(there));
        }
        if names.live.len() >= CONSUMERS_MAX {
            return Err(ConsumerError::TooMany);
        }
        let live = Arc::new(make(Arc::clone(&self.shared), Arc::clone(&self.book.bell)));
        names.live.insert(name.to_owned(), Arc::clone(&live));
        drop(names);
        live.change(|_state| Ok(()))?;
        feeder::start(&live);
        Ok(live)
    }

    /// Removes a consumer. Durable with the next `flush`.
    ///
    /// # Errors
    /// `Unknown`.
    pub(super) fn delete(&self, name: &str) -> Result<(), ConsumerError> {
        let unknown = || ConsumerError::Unknown {
            name: name.to_owned(),
        };
        let live = {
            let mut names = self.book.names();
            let live = names.live.remove(name).ok_or_else(unknown)?;
            names.deleted.push(name.to_owned());
            live
        };
        live.end(unknown());
        Ok(())
    }

    /// Waits until all that happened before is durable.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) async fn flush(&self) -> Result<(), ConsumerError> {
        let (reply, answer) = oneshot::channel();
        self.book.bell.call(|calls| calls.waiters.push(reply))?;
        answer.await.unwrap_or(Err(ConsumerError::Closed))
    }

    /// True when the file has failed, or was closed.
    pub(super) fn is_over(&self) -> bool {
        self.book.bell.calls().over.is_some()
    }

    /// Ends all consumers; the thread saves what there is and ends on its own.
    pub(super) fn stop(&self) {
        for live in self.all() {
            live.end(ConsumerError::Closed);
        }
        let stopped = self.book.bell.call(|calls| calls.close = true);
        // It has ended already.
        stopped.unwrap_or_default();
    }

    /// Waits for the thread's end. Not for an event loop.
    pub(super) fn join(&self) {
        let thread = self.thread.lock();
        let thread = thread.unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(store = %self.shared.id, "the keeper of consumers has panicked");
        }
    }
}

impl Book {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

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
                // The sums beside it are a matter of speed.
                if let Err(error) = file.close() {
                    tracing::warn!(%error, "consumers.db did not close cleanly");
                }
                answer(waiters, &done);
                return answer(late, &Err(ConsumerError::Closed));
            }
            answer(waiters, &done);
        }
    }

    // Everything in memory may be ahead of the file: it is read again by who asks next.
    fn end(&self, why: &ConsumerError) -> Vec<Waiter> {
        let late = self.bell.end(why.clone());
        for live in self.names().live.values() {
            live.end(why.clone());
        }
        late
    }

    // What is to be saved; true when there are names to remove.
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

impl Bell {
    /// Something has changed.
    pub(super) fn ring(&self) {
        self.calls().dirty = true;
        self.rung.notify_one();
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, change: impl FnOnce(&mut Calls)) -> Result<(), ConsumerError> {
        let mut calls = self.calls();
        if let Some(over) = calls.over.clone() {
            return Err(over);
        }
        change(&mut calls);
        drop(calls);
        self.rung.notify_one();
        Ok(())
    }

    // Nobody is answered any more.
    fn end(&self, why: ConsumerError) -> Vec<Waiter> {
        let mut calls = self.calls();
        calls.over = Some(why);
        std::mem::take(&mut calls.waiters)
    }

    // Waits until there is something to save, and a little longer unless somebody waits for it.
    fn wait(&self) -> (Vec<Waiter>, bool) {
        let nothing = |calls: &mut Calls| !calls.dirty && calls.waiters.is_empty() && !calls.close;
        let nobody = |calls: &mut Calls| calls.waiters.is_empty() && !calls.close;
        let calls = self.rung.wait_while(self.calls(), nothing);
        let calls = calls.unwrap_or_else(PoisonError::into_inner);
        let gathered = self
            .rung
            .wait_timeout_while(calls, CONSUMERS_COMMIT_EVERY, nobody);
        let (mut calls, _timeout) = gathered.unwrap_or_else(PoisonError::into_inner);
        calls.dirty = false;
        (std::mem::take(&mut calls.waiters), calls.close)
    }
}

fn answer(waiters: Vec<Waiter>, outcome: &Result<(), ConsumerError>) {
    for waiter in waiters {
        // Who has gone away does not want to know.
        drop(waiter.send(outcome.clone()));
    }
}
