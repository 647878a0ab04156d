//! The engine of one hook: takes changes from its consumer, runs them, and answers each delivery.
//!
//! The consumer keeps the order per key, redelivery, dead letters and the position. The engine only
//! decides which changes form a run, when it starts, and what its result means for the changes. A
//! change is acknowledged after its run has succeeded, so a change runs again if the node stops
//! first.
//!
//! # Invariants
//! Asserted where a run begins and ends:
//!
//! 1. A run has at least one change and at most [`Hook::changes_max`].
//! 2. Each change of a run is answered once, with the verdict of that run: an answer consumes its
//!    delivery, and `attend` answers exactly the deliveries that it lent to `decide`.
//! 3. At most `parallel` runs of an engine are under way: a run is counted only while it holds a
//!    permit of `slots`.
//! 4. A gap is a run of its own, in every mode: the consumer gives it out when all changes before it
//!    are answered, and nothing after it before it is acknowledged. It waits for no quiet key.
//! 5. A run of a hook that writes has one change. Its entry names that change as its cause, and an
//!    entry with that cause is written once. With a second change in the run, 2 would acknowledge a
//!    change whose answer was never written.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    hooks::{
        error::causes,
        hook::{Hook, Mode},
        journal::Journal,
        rate::Rate,
        run::{Performed, Verdict, Work},
    },
    limits::{
        HOOK_ACK_WAIT, HOOK_BATCH_BYTES, HOOK_DEEP_RATE, HOOK_DEPTH_FREE, HOOK_HELD_KIB_MAX,
        HOOK_UNQUIET_KEYS_MAX,
    },
    protocol::change::{Change, Kind},
    store::{
        ReadError,
        consumers::{Consumer, ConsumerError, Delivery},
    },
};

/// Counts of a hook since its engine started, and its current troubles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Runs that are under way.
    pub running: u64,
    /// Runs that succeeded.
    pub done: u64,
    /// Runs that failed, each attempt counted.
    pub failed: u64,
    /// Changes acknowledged without a run, because a newer change of their key was known.
    pub skipped: u64,
    /// Reason why the hook takes no changes. `None`: it takes changes.
    pub trouble: Option<String>,
    /// Reason why runs wait for the rate limit. `None`: they do not wait.
    pub slowed: Option<String>,
}

/// A hook that runs. Dropping it ends the hook and its runs.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) runner: Arc<Runner>,
    // Cancelled by `stop`: the task takes no more changes and waits for its runs.
    stop: CancellationToken,
    // Owns the tasks of all runs. Ends when the runs have ended after `stop`, or when the consumer
    // was deleted; aborting it aborts them.
    task: JoinHandle<()>,
}

/// The parts of an engine that its runs share.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) work: Work,
    consumer: Consumer,
    journal: Journal,
    // `parallel` permits; each run holds one. Never closed.
    slots: Arc<Semaphore>,
    // Permits in KiB, held by changes that wait until their key is quiet. Never closed.
    held: Arc<Semaphore>,
    // Locked for a moment by the task, its runs and `report`. Never across await, and no other lock
    // is taken under it.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    // Keys that wait until they are quiet, each with the time at which its wait began. A run of the
    // key removes it. At most `HOOK_UNQUIET_KEYS_MAX`; when full, all waits begin again.
    unquiet: BTreeMap<Bytes, Instant>,
    // Limits all runs.
    rate: Rate,
    // Also limits runs on changes deeper than `HOOK_DEPTH_FREE` in a chain of hooks.
    deep_rate: Rate,
    health: Health,
    // End of the newest wait for a rate, and its reason. Never cleared; `report` ignores it once
    // the end has passed.
    slowed: Option<(Instant, String)>,
}

/// The changes of one run, and the permit that bounds them.
struct Taken {
    deliveries: Vec<Delivery>,
    // A permit of `slots`, or of `held` if the run waits for its key first. Held until the changes
    // are answered.
    _permit: OwnedSemaphorePermit,
}

impl Engine {
    /// Starts the task that takes changes and runs them.
    pub(super) fn start(runner: Arc<Runner>) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(Arc::clone(&runner).follow(stop.clone()));
        Self { runner, stop, task }
    }

    /// Makes the engine take no more changes; runs continue. Returns at once.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Returns true if the task and all runs have ended.
    pub(super) fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Ends the engine and its runs now. Their changes go back to the consumer.
    pub(super) async fn abort(&mut self) {
        self.task.abort();
        self.ended().await;
    }

    /// Waits until the task and all runs have ended.
    pub(super) async fn ended(&mut self) {
        // The error means that the task was aborted, which also ends it.
        (&mut self.task).await.unwrap_or_default();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Runner {
    pub(super) fn new(work: Work, journal: Journal) -> Self {
        let held = usize::try_from(HOOK_HELD_KIB_MAX).unwrap_or(usize::MAX);
        let now = Instant::now();
        Self {
            consumer: work.store.consumer(&Hook::consumer(&work.name)),
            journal,
            slots: Arc::new(Semaphore::new(work.hook.parallel)),
            held: Arc::new(Semaphore::new(held)),
            state: Mutex::new(State {
                unquiet: BTreeMap::new(),
                rate: Rate::new(work.hook.rate, now),
                deep_rate: Rate::new(HOOK_DEEP_RATE, now),
                health: Health::default(),
                slowed: None,
            }),
            work,
        }
    }

    /// Returns the health of the hook as of now.
    pub(super) fn report(&self) -> Health {
        let now = Instant::now();
        let state = self.state();
        let slowed = state.slowed.as_ref().filter(|(until, _)| *until > now);
        Health {
            slowed: slowed.map(|(_, why)| why.clone()),
            ..state.health.clone()
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn follow(self: Arc<Self>, stop: CancellationToken) {
        // Dropped with this task. The runs then end, and their changes go back to the consumer.
        let mut runs = JoinSet::new();
        loop {
            // The next change may take long, so the trouble is cleared once the consumer answers.
            let is_troubled = self.state().health.trouble.is_some();
            if is_troubled && self.consumer.show().await.is_ok() {
                self.state().health.trouble = None;
            }
            let taken = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                taken = self.take() => taken,
            };
            while runs.try_join_next().is_some() {}
            match taken {
                Ok(taken) => {
                    self.state().health.trouble = None;
                    runs.spawn(Arc::clone(&self).attend(taken));
                }
                // The store was closed, or the consumer deleted; the supervisor then starts another
                // engine with a new consumer.
                Err(ConsumerError::Closed | ConsumerError::Unknown { .. }) => break,
                Err(error) => {
                    self.state().health.trouble = Some(causes(&error));
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(AGAIN_AFTER) => {}
                    }
                }
            }
        }
        while runs.join_next().await.is_some() {}
    }

    // Waits for the changes of the next run. Returns at least one.
    async fn take(&self) -> Result<Taken, ConsumerError> {
        if self.waits_for_quiet() {
            let first = self.next().await?;
            let kib = u32::try_from(bytes(&first) / 1024).unwrap_or(u32::MAX) + 1;
            let permits = kib.min(HOOK_HELD_KIB_MAX);
            let permit = Arc::clone(&self.held).acquire_many_owned(permits).await;
            return Ok(Taken {
                deliveries: vec![first],
                _permit: permit.expect("the semaphore is never closed"),
            });
        }
        // Takes a slot first, then a change, so that changes wait in the consumer and not here.
        let permit = Arc::clone(&self.slots).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let mut deliveries = vec![self.next().await?];
        self.gather(&mut deliveries).await;
        Ok(Taken {
            deliveries,
            _permit: permit,
        })
    }

    // Adds the changes that arrive until the batch is full or `debounce` has passed.
    async fn gather(&self, deliveries: &mut Vec<Delivery>) {
        let mut gathered: usize = deliveries.iter().map(bytes).sum();
        let wait = self.work.hook.debounce.map(|debounce| debounce.0);
        let deadline = Instant::now() + wait.unwrap_or_default();
        // Nothing comes while a gap is not answered: invariant 4.
        let is_gap = deliveries.iter().any(is_gap);
        let changes_max = if is_gap {
            1
        } else {
            self.work.hook.changes_max()
        };
        while deliveries.len() < changes_max && gathered < HOOK_BATCH_BYTES {
            let next = tokio::select! {
                biased;
                next = self.next() => next,
                () = tokio::time::sleep_until(deadline) => break,
            };
            // The next call returns the error again.
            let Ok(delivery) = next else { break };
            gathered += bytes(&delivery);
            deliveries.push(delivery);
        }
    }

    // Waits for the next change that the hook wants. Acknowledges all other changes as they arrive.
    async fn next(&self) -> Result<Delivery, ConsumerError> {
        loop {
            let delivery = self.consumer.next().await?;
            let change = delivery.change();
            if self.work.hook.wants(change.kind, &change.key) {
                return Ok(delivery);
            }
            delivery.ack()?;
        }
    }

    // Returns true if a change waits until its key is quiet before it takes a slot.
    fn waits_for_quiet(&self) -> bool {
        self.work.hook.mode == Mode::Latest && self.work.hook.debounce.is_some()
    }

    // Runs the changes and answers them. Extends their deliveries during the run.
    async fn attend(self: Arc<Self>, taken: Taken) {
        let deliveries = taken.deliveries;
        let verdict = tokio::select! {
            verdict = self.decide(&deliveries) => verdict,
            () = keep(&deliveries) => unreachable!("keep never returns"),
        };
        for delivery in deliveries {
            let answered = match verdict {
                Verdict::Done => delivery.ack(),
                Verdict::Again(delay) => delivery.nack(Some(delay)),
                Verdict::Dead => delivery.term(),
            };
            // The delivery timed out and is redelivered, or the consumer was deleted.
            if let Err(error) = answered {
                tracing::debug!(hook = self.work.name, %error, "a delivery was answered too late");
            }
        }
    }

    // Waits for the key, the slot and the rate, then runs the changes.
    async fn decide(&self, deliveries: &[Delivery]) -> Verdict {
        let first = deliveries.first().expect("take returns at least one");
        let _slot = if self.waits_for_quiet() {
            self.wait_for_quiet(first).await;
            let slot = self.slots.acquire().await;
            Some(slot.expect("the semaphore is never closed"))
        } else {
            None
        };
        if self.work.hook.mode == Mode::Latest && !is_gap(first) {
            match self.is_newest(first.change()).await {
                Ok(true) => drop(self.state().unquiet.remove(&first.change().key)),
                Ok(false) => {
                    self.state().health.skipped += 1;
                    return Verdict::Done;
                }
                Err(error) => {
                    tracing::warn!(hook = self.work.name, %error, "heads of a key cannot be read");
                    return Verdict::Again(AGAIN_AFTER);
                }
            }
        }
        self.pace(first.change()).await;
        let _running = Running::begin(self);
        let changes: Vec<_> = deliveries
            .iter()
            .map(|delivery| Arc::clone(delivery.change()))
            .collect();
        let attempts = deliveries.iter().map(Delivery::attempt);
        let done = self.work.perform(&changes, attempts.max().unwrap_or(1));
        let Performed { verdict, record } = done.await;
        assert_eq!(
            record.changes,
            deliveries.len(),
            "the changes that are answered are the changes that ran"
        );
        match verdict {
            Verdict::Done => self.state().health.done += 1,
            Verdict::Again(_) | Verdict::Dead => self.state().health.failed += 1,
        }
        self.journal.add(record).await;
        verdict
    }

    // Waits until the key has been quiet for `debounce`, but at most `debounce_max` since its first
    // change after its last run.
    async fn wait_for_quiet(&self, delivery: &Delivery) {
        let (Some(debounce), Some(longest)) =
            (self.work.hook.debounce, self.work.hook.debounce_max())
        else {
            return;
        };
        let (change, now) = (delivery.change(), Instant::now());
        if is_gap(delivery) {
            return;
        }
        let since = {
            let unquiet = &mut self.state().unquiet;
            if unquiet.len() >= HOOK_UNQUIET_KEYS_MAX {
                unquiet.clear();
            }
            let key = Bytes::copy_from_slice(&change.key);
            *unquiet.entry(key).or_insert(now)
        };
        let age_ms = self.work.store.now_ms().saturating_sub(change.arrived_ms);
        let left = debounce.0.saturating_sub(Duration::from_millis(age_ms));
        tokio::time::sleep_until((now + left).min(since + longest)).await;
    }

    async fn is_newest(&self, change: &Change) -> Result<bool, ReadError> {
        let heads = self.work.store.heads(&change.key).await?;
        let newest = heads.iter().find(|head| head.wins);
        Ok(newest.is_none_or(|head| head.entry.id == change.entry.id))
    }

    // Waits for the rate limits.
    async fn pace(&self, change: &Change) {
        let is_deep = change.depth > HOOK_DEPTH_FREE;
        let now = Instant::now();
        let (wait, deep) = {
            let mut state = self.state();
            let deep = match is_deep {
                true => state.deep_rate.take(now),
                false => Duration::ZERO,
            };
            (state.rate.take(now), deep)
        };
        let wait = wait.max(deep);
        if !wait.is_zero() {
            let why = match deep == wait {
                true => format!(
                    "the changes are {} hooks deep: at most {HOOK_DEEP_RATE} such runs per second",
                    change.depth
                ),
                false => format!(
                    "the hook would run more than {} times per second: runs wait",
                    self.work.hook.rate
                ),
            };
            self.state().slowed = Some((now + wait, why));
            tokio::time::sleep(wait).await;
        }
    }
}

/// Counts a run until this is dropped.
struct Running<'a>(&'a Runner);

impl<'a> Running<'a> {
    // The caller holds a permit of `slots` until after this is dropped: invariant 3.
    fn begin(runner: &'a Runner) -> Self {
        let running = &mut runner.state().health.running;
        let runs_max = u64::try_from(runner.work.hook.parallel).unwrap_or(u64::MAX);
        assert!(*running < runs_max, "each run holds a slot");
        *running += 1;
        Self(runner)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.state().health.running -= 1;
    }
}

// Extends the deliveries repeatedly; never returns.
async fn keep(deliveries: &[Delivery]) {
    loop {
        tokio::time::sleep(HOOK_ACK_WAIT / 3).await;
        for delivery in deliveries {
            // Fails if the delivery has timed out. Its answer will then also fail.
            delivery.extend().unwrap_or_default();
        }
    }
}

fn is_gap(delivery: &Delivery) -> bool {
    delivery.change().kind == Kind::Gap
}

fn bytes(delivery: &Delivery) -> usize {
    let change = delivery.change();
    change.key.len() + change.value.as_ref().map_or(0, Bytes::len)
}

/// Wait after a failed read of the consumer or of a key's heads.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
