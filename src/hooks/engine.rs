//! The engine of one hook: takes changes from its consumer, runs what is to run, and answers for
//! them.
//!
//! The consumer keeps order per key, redelivery, dead letters and the position; here is only which
//! changes make a run, when, and what its end means. A change is acknowledged when its run has
//! succeeded, so a node that dies runs it again.
//!
//! What holds, and is asserted where a run begins and ends:
//!
//! 1. A run has at least one change and at most [`Hook::changes_max`].
//! 2. Its changes are answered once, and with its own verdict: an answer consumes the delivery, and
//!    `attend` answers the deliveries that it lent to `decide`.
//! 3. At most `parallel` runs of a hook are under way: each holds a permit of `slots` from before it
//!    is counted until after.
//! 4. A run of a hook that writes has one change. Its entry names that change as its cause, once for
//!    all attempts; what was written for a second change would be taken for written before.

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
    protocol::change::Change,
    store::{
        ReadError,
        consumers::{Consumer, ConsumerError, Delivery},
    },
};

/// How a hook is doing since it was started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Runs now.
    pub running: u64,
    /// Runs that succeeded.
    pub done: u64,
    /// Runs that failed.
    pub failed: u64,
    /// Changes that made no run because a newer one of their key was known.
    pub skipped: u64,
    /// Why it takes no changes; `None`: it does.
    pub trouble: Option<String>,
    /// Why runs wait; `None`: they do not.
    pub slowed: Option<String>,
}

/// A hook at work.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) runner: Arc<Runner>,
    // Cancelled: no more changes are taken; what runs goes on.
    stop: CancellationToken,
    // Owns all runs. Ends after `stop` when they have; aborting it ends them.
    task: JoinHandle<()>,
}

/// What a hook works with.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) work: Work,
    consumer: Consumer,
    journal: Journal,
    // One permit a run.
    slots: Arc<Semaphore>,
    // Permits in KiB, for changes that wait for their key to come to rest.
    held: Arc<Semaphore>,
    state: Mutex<State>,
}

/// What changes of a runner.
#[derive(Debug)]
struct State {
    // Keys that changed and had no run since, and the first time they were seen to.
    unquiet: BTreeMap<Bytes, Instant>,
    rate: Rate,
    // For changes that other hooks wrote because of what hooks wrote.
    deep_rate: Rate,
    health: Health,
    // Until when runs wait, and why.
    slowed: Option<(Instant, String)>,
}

/// Changes of one run, and what holds their place.
struct Taken {
    deliveries: Vec<Delivery>,
    // Of `slots`, or of `held` where the run waits for its key first.
    _permit: OwnedSemaphorePermit,
}

impl Engine {
    /// Starts to work.
    pub(super) fn start(runner: Arc<Runner>) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(Arc::clone(&runner).follow(stop.clone()));
        Self { runner, stop, task }
    }

    /// Takes no more changes.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// True when all runs have ended after `stop`.
    pub(super) fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Ends it and its runs, now. Their changes are given back.
    pub(super) async fn abort(&mut self) {
        self.task.abort();
        self.ended().await;
    }

    /// Waits for the runs after `stop`.
    pub(super) async fn ended(&mut self) {
        // One that was aborted has ended too.
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

    /// Returns how it is doing.
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
        // Dropped with this task: then they end, and their changes are given back.
        let mut runs = JoinSet::new();
        loop {
            // Over before the next change comes, which may be long.
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
                // Somebody has deleted it: this is begun anew, with a place of its own.
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

    // Waits for the changes of the next run.
    async fn take(&self) -> Result<Taken, ConsumerError> {
        if self.waits_for_rest() {
            let first = self.next().await?;
            let kib = u32::try_from(bytes(&first) / 1024).unwrap_or(u32::MAX) + 1;
            let permits = kib.min(HOOK_HELD_KIB_MAX);
            let permit = Arc::clone(&self.held).acquire_many_owned(permits).await;
            return Ok(Taken {
                deliveries: vec![first],
                _permit: permit.expect("the semaphore is never closed"),
            });
        }
        // First the place, then the change: what waits here was not given out.
        let permit = Arc::clone(&self.slots).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let mut deliveries = vec![self.next().await?];
        self.gather(&mut deliveries).await;
        Ok(Taken {
            deliveries,
            _permit: permit,
        })
    }

    // Adds what comes to a batch, for as long as it may wait.
    async fn gather(&self, deliveries: &mut Vec<Delivery>) {
        let mut gathered: usize = deliveries.iter().map(bytes).sum();
        let wait = self.work.hook.debounce.map(|debounce| debounce.0);
        let deadline = Instant::now() + wait.unwrap_or_default();
        while deliveries.len() < self.work.hook.changes_max() && gathered < HOOK_BATCH_BYTES {
            let next = tokio::select! {
                biased;
                next = self.next() => next,
                () = tokio::time::sleep_until(deadline) => break,
            };
            // An error that comes now comes again with the next run.
            let Ok(delivery) = next else { break };
            gathered += bytes(&delivery);
            deliveries.push(delivery);
        }
    }

    // The next change that the hook is for; others are done as they come.
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

    fn waits_for_rest(&self) -> bool {
        self.work.hook.mode == Mode::Latest && self.work.hook.debounce.is_some()
    }

    // Runs what is to run, and answers; keeps the changes meanwhile.
    async fn attend(self: Arc<Self>, taken: Taken) {
        let deliveries = taken.deliveries;
        let verdict = tokio::select! {
            verdict = self.decide(&deliveries) => verdict,
            () = keep(&deliveries) => unreachable!("it keeps them as long as it is asked to"),
        };
        for delivery in deliveries {
            let answered = match verdict {
                Verdict::Done => delivery.ack(),
                Verdict::Again(delay) => delivery.nack(Some(delay)),
                Verdict::Dead => delivery.term(),
            };
            // It is given out again, or its consumer is gone.
            if let Err(error) = answered {
                tracing::debug!(hook = self.work.name, %error, "an answer came too late");
            }
        }
    }

    async fn decide(&self, deliveries: &[Delivery]) -> Verdict {
        let first = deliveries.first().expect("take returns at least one");
        let _slot = if self.waits_for_rest() {
            self.rest(first).await;
            let slot = self.slots.acquire().await;
            Some(slot.expect("the semaphore is never closed"))
        } else {
            None
        };
        if self.work.hook.mode == Mode::Latest {
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

    // Waits until the key was quiet for long enough, or has waited long enough.
    async fn rest(&self, delivery: &Delivery) {
        let (Some(debounce), Some(longest)) =
            (self.work.hook.debounce, self.work.hook.debounce_max())
        else {
            return;
        };
        let (change, now) = (delivery.change(), Instant::now());
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

    // Waits where the hook runs too often.
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
                    "it runs on what hooks wrote, {} deep: such runs are held to {HOOK_DEEP_RATE} a \
                    second",
                    change.depth
                ),
                false => format!(
                    "it is to run more than {} times a second: runs wait",
                    self.work.hook.rate
                ),
            };
            self.state().slowed = Some((now + wait, why));
            tokio::time::sleep(wait).await;
        }
    }
}

/// Counts a run for as long as it lasts.
struct Running<'a>(&'a Runner);

impl<'a> Running<'a> {
    // The caller holds a permit of `slots`, and gives it back after this is dropped.
    fn begin(runner: &'a Runner) -> Self {
        let running = &mut runner.state().health.running;
        let runs_max = u64::try_from(runner.work.hook.parallel).unwrap_or(u64::MAX);
        assert!(*running < runs_max, "a run has a slot of its own");
        *running += 1;
        Self(runner)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.state().health.running -= 1;
    }
}

// Asks for more time for all of them, for ever.
async fn keep(deliveries: &[Delivery]) {
    loop {
        tokio::time::sleep(HOOK_ACK_WAIT / 3).await;
        for delivery in deliveries {
            // One that is not this taker's any more is answered in vain, no more.
            delivery.extend().unwrap_or_default();
        }
    }
}

fn bytes(delivery: &Delivery) -> usize {
    let change = delivery.change();
    change.key.len() + change.value.as_ref().map_or(0, Bytes::len)
}

/// Wait after the consumer could not be read.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
