//! The bell: wakes the saver's thread, and collects the callers that wait for a commit.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::{limits::CONSUMERS_COMMIT_EVERY, store::consumers::ConsumerError};

/// Wakes the saver's thread. Consumers ring it when they turn dirty.
#[derive(Debug, Default)]
pub(super) struct Bell {
    // Innermost: no other lock is taken while it is held. Never held across an await.
    calls: Mutex<Calls>,
    // Notified after each change of `calls`. Only the saver's thread waits for it.
    rung: Condvar,
}

/// A caller of `flush`. The saver's thread answers it once, after a commit or a failure; a dropped
/// sender means that the thread has ended.
pub(super) type Waiter = oneshot::Sender<Result<(), ConsumerError>>;

#[derive(Debug, Default)]
struct Calls {
    // Set when a consumer turns dirty, cleared when the thread begins to gather what to save.
    dirty: bool,
    // Callers that wait until everything that was dirty when they called is durable.
    waiters: Vec<Waiter>,
    // Set once: the thread saves what there is and ends.
    close: bool,
    // Set once, when the thread takes no more calls: the reason.
    over: Option<ConsumerError>,
}

impl Bell {
    /// Wakes the thread, because a consumer has changed.
    pub(super) fn ring(&self) {
        self.calls().dirty = true;
        self.rung.notify_one();
    }

    /// Adds a caller that waits for the next commit.
    ///
    /// # Errors
    /// The reason why the thread takes no more calls.
    pub(super) fn wait_for_commit(&self, waiter: Waiter) -> Result<(), ConsumerError> {
        self.call(|calls| calls.waiters.push(waiter))
    }

    /// Asks the thread to save what there is, and to end.
    ///
    /// # Errors
    /// The reason why it has ended already.
    pub(super) fn close(&self) -> Result<(), ConsumerError> {
        self.call(|calls| calls.close = true)
    }

    /// True when the thread takes no more calls.
    pub(super) fn is_over(&self) -> bool {
        self.calls().over.is_some()
    }

    /// Takes no more calls from now on. Returns the callers that still wait.
    pub(super) fn end(&self, why: ConsumerError) -> Vec<Waiter> {
        let mut calls = self.calls();
        calls.over = Some(why);
        std::mem::take(&mut calls.waiters)
    }

    /// Waits until there is something to save, and then up to `CONSUMERS_COMMIT_EVERY` for more,
    /// unless a caller waits for a commit. Returns the waiting callers, and true when the thread is
    /// to end.
    ///
    /// Blocks: only for the saver's thread.
    pub(super) fn wait(&self) -> (Vec<Waiter>, bool) {
        let is_idle = |calls: &mut Calls| !calls.dirty && calls.waiters.is_empty() && !calls.close;
        let can_wait = |calls: &mut Calls| calls.waiters.is_empty() && !calls.close;
        let calls = self.rung.wait_while(self.calls(), is_idle);
        let calls = calls.unwrap_or_else(PoisonError::into_inner);
        let gathered = self
            .rung
            .wait_timeout_while(calls, CONSUMERS_COMMIT_EVERY, can_wait);
        let (mut calls, _timeout) = gathered.unwrap_or_else(PoisonError::into_inner);
        calls.dirty = false;
        (std::mem::take(&mut calls.waiters), calls.close)
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

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
