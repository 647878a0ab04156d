//! One consumer in memory: its rules, its position, and the tasks that wait for it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, task::AbortHandle};

use crate::{
    limits::{CONSUMER_AHEAD_BYTES_MAX, DRIFT_MS_MAX},
    protocol::{
        change::Change,
        consumer::{
            ChangeRef, ConsumerRow, DeathReason, DeliveryId, Given, Outstanding, Place, Waits,
        },
        frontier::MissingRange,
    },
    store::{
        Shared,
        consumers::{
            ConsumerChanges, ConsumerError, ConsumerOptions, ConsumerState, ConsumerStatus, Idle,
            ahead::{compact, memory_bytes},
            bell::Bell,
            file::Stored,
            options::millis,
        },
        watch::position::{Position, moved_back},
    },
};

/// One consumer. Takers, its feeder and the saver's thread share it.
///
/// `new` and `restore` make it; the caller then starts the feeder. From then on the feeder calls
/// `feed` (or `stop`, `set_lacks`), takers call `take` and then one of `ack`, `nack`, `term` and
/// `extend`, and the saver calls `take_dirty`, all in any order. `reset` and `set` of prefixes begin a
/// new epoch: they end the feeder, and the caller starts the next one. After `end` every call
/// returns its error.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) name: String,
    pub(super) shared: Arc<Shared>,
    // Rung after `state` has turned dirty and was unlocked.
    bell: Arc<Bell>,
    // Never held across an await, nor while another lock is taken.
    state: Mutex<LiveState>,
    /// Notified (all) when there may be a change to take, and at the end. Takers wait for it.
    pub(super) takers: Notify,
    /// Notified (one) when there may be room to feed, and at the end. The feeder waits for it.
    pub(super) room: Notify,
}

/// The part of a consumer that changes.
// Invariants, whenever the lock is free:
// L1. `position` covers exactly the changes that were fed: each of them is finished, outstanding,
//     dead, or does not match. It covers whole groups only (`Position::inside` is false).
// L2. Within an epoch the position moves forward; it moves back only where the members have changed.
// L3. With L1 and `dirty`, one `take_dirty` copies position and changes of the same moment: the
//     file never has a position without its changes.
#[derive(Debug)]
pub(super) struct LiveState {
    // The row as it is saved, without position, counts and `paused`: `take_dirty` fills these
    // fields in.
    row: ConsumerRow,
    pub(super) outstanding: Outstanding,
    // `None`: no change was read yet, and the consumer begins at the time that `row` names.
    position: Option<Position>,
    // Number of resets and changes of the prefixes: a feeder of an earlier epoch adds no further
    // changes.
    epoch: u64,
    // Set by `set_feeder`, taken and aborted when an epoch or the consumer ends.
    feeder: Option<AbortHandle>,
    // Subset of the outstanding changes, by number: changes that were fed since the start and never
    // taken. All others are read again from the log.
    ahead: BTreeMap<u64, Arc<Change>>,
    // Sum of `memory_bytes` over `ahead`.
    ahead_bytes: usize,
    // Entries that the feeder waits for. Set by the feeder, cleared by its next feed.
    lacks: Vec<MissingRange>,
    // Set once, at the start, if the rows in the file were damaged: they are not overwritten.
    damaged: Option<String>,
    // Set once, when the consumer is deleted, the store closed, or the file failed.
    over: Option<ConsumerError>,
    // True when the file is behind this state. Set by every change, cleared by `take_dirty`.
    dirty: bool,
}

/// The answer to a taker.
#[derive(Debug)]
pub(super) enum Take {
    /// A change; `None` in its place if it must be read again from the log.
    Given(Given, Option<Arc<Change>>),
    /// No change now. Ask again at this time (ms since 1970), or when `takers` is notified.
    Wait(Option<u64>),
}

impl Live {
    /// Makes a consumer that is not in the file yet.
    pub(super) fn new(
        name: String,
        row: ConsumerRow,
        position: Option<Position>,
        shared: Arc<Shared>,
        bell: Arc<Bell>,
    ) -> Self {
        let outstanding = Outstanding::new(row.rules.clone());
        Self::with(name, row, position, outstanding, None, shared, bell)
    }

    /// Makes a consumer from its rows in the file, or a damaged one with the reason.
    pub(super) fn restore(
        name: String,
        stored: Result<Stored, String>,
        shared: Arc<Shared>,
        bell: Arc<Bell>,
    ) -> Self {
        let now_ms = shared.now_ms();
        let (stored, damaged) = match stored {
            Ok(stored) if is_of(&stored.row, &shared) => (stored, None),
            Ok(stored) => {
                let what = "its position belongs to another store".to_owned();
                (stored, Some(what))
            }
            Err(what) => {
                let row = ConsumerOptions::default().new_row(0);
                let changes = Vec::new();
                (Stored { row, changes }, Some(what))
            }
        };
        let Stored { row, changes } = stored;
        let (rules, counts) = (row.rules.clone(), row.counts);
        let mut outstanding = Outstanding::restore(rules, counts, changes, now_ms);
        outstanding.set_paused(row.paused);
        let position = row.position.as_ref();
        let position = position.map(|cursor| Position::after(cursor, now_ms));
        Self::with(name, row, position, outstanding, damaged, shared, bell)
    }

    fn with(
        name: String,
        row: ConsumerRow,
        position: Option<Position>,
        outstanding: Outstanding,
        damaged: Option<String>,
        shared: Arc<Shared>,
        bell: Arc<Bell>,
    ) -> Self {
        Self {
            name,
            shared,
            bell,
            state: Mutex::new(LiveState {
                row,
                outstanding,
                position,
                epoch: 0,
                feeder: None,
                ahead: BTreeMap::new(),
                ahead_bytes: 0,
                lacks: Vec::new(),
                damaged,
                over: None,
                dirty: false,
            }),
            takers: Notify::new(),
            room: Notify::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, LiveState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change, has it saved, and wakes the takers and the feeder.
    ///
    /// # Errors
    /// The error of `change`, or the reason why the consumer has ended.
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut LiveState) -> Result<T, ConsumerError>,
    ) -> Result<T, ConsumerError> {
        let (done, was_dirty) = {
            let mut state = self.lock();
            state.check_over()?;
            let done = change(&mut state)?;
            (done, std::mem::replace(&mut state.dirty, true))
        };
        if !was_dirty {
            self.bell.ring();
        }
        self.takers.notify_waiters();
        self.room.notify_one();
        Ok(done)
    }

    /// Gives the next change to a taker, if there is one. `detached`: the taker outlives this process.
    ///
    /// # Errors
    /// The reason why the consumer no longer delivers changes.
    pub(super) fn take(&self, detached: bool) -> Result<Take, ConsumerError> {
        let now_ms = self.shared.now_ms();
        let mut state = self.lock();
        state.check_over()?;
        self.check_stopped(&state)?;
        let taken = state.outstanding.take(now_ms, detached);
        let moved = state.outstanding.is_touched();
        let rings = moved && !std::mem::replace(&mut state.dirty, true);
        let take = match taken {
            None => Take::Wait(state.outstanding.next_due_ms()),
            Some(given) => {
                state.row.last_seen_ms = now_ms;
                let change = state.ahead.remove(&given.number);
                state.ahead_bytes -= change.as_deref().map_or(0, memory_bytes);
                Take::Given(given, change)
            }
        };
        drop(state);
        if rings {
            self.bell.ring();
        }
        if moved {
            // Notified even when no change was given: a change that became a dead letter makes
            // room.
            self.room.notify_one();
        }
        Ok(take)
    }

    /// See `Delivery::ack`, and the other methods of `Delivery` for the other answers.
    pub(super) fn ack(&self, id: DeliveryId) -> Result<(), ConsumerError> {
        let now_ms = self.shared.now_ms();
        self.change(|state| {
            state.seen(now_ms);
            Ok(state.outstanding.ack(id)?)
        })
    }

    pub(super) fn nack(
        &self,
        id: DeliveryId,
        delay: Option<Duration>,
    ) -> Result<(), ConsumerError> {
        let now_ms = self.shared.now_ms();
        self.change(|state| {
            state.seen(now_ms);
            Ok(state.outstanding.nack(id, delay.map(millis), now_ms)?)
        })
    }

    pub(super) fn term(&self, id: DeliveryId, reason: DeathReason) -> Result<(), ConsumerError> {
        let now_ms = self.shared.now_ms();
        self.change(|state| {
            state.seen(now_ms);
            Ok(state.outstanding.term(id, reason, now_ms)?)
        })
    }

    pub(super) fn extend(&self, id: DeliveryId, detached: bool) -> Result<(), ConsumerError> {
        let now_ms = self.shared.now_ms();
        self.change(|state| {
            state.seen(now_ms);
            Ok(state.outstanding.extend(id, detached, now_ms)?)
        })
    }

    /// Adds changes that the feeder has read; `position` covers these changes. Returns false when
    /// this feeder is to end.
    pub(super) fn feed(&self, epoch: u64, changes: Vec<Arc<Change>>, position: Position) -> bool {
        if changes.is_empty() && self.lock().is_at(epoch, &position) {
            return true;
        }
        let fed = self.change(|state| {
            if state.epoch != epoch {
                return Ok(false);
            }
            state.check_fed(&self.shared, &position);
            for change in changes {
                if let Some(number) = state.outstanding.feed(ChangeRef::from(&*change)) {
                    let change = compact(change);
                    state.ahead_bytes += memory_bytes(&change);
                    state.ahead.insert(number, change);
                }
            }
            state.position = Some(position);
            state.lacks.clear();
            assert!(
                state.ahead.len() <= state.outstanding.len(),
                "only outstanding changes are read ahead"
            );
            Ok(true)
        });
        fed.unwrap_or(false)
    }

    /// Stops the consumer, because the feeder cannot read the next changes.
    pub(super) fn stop(&self, epoch: u64, reason: String) {
        let stopped = self.change(|state| {
            if state.epoch == epoch {
                tracing::warn!(consumer = self.name, reason, "a consumer has stopped");
                state.row.stopped = Some(reason);
            }
            Ok(())
        });
        // An error means that the consumer has ended meanwhile.
        stopped.unwrap_or_default();
    }

    /// Notes the entries that the feeder waits for.
    pub(super) fn set_lacks(&self, epoch: u64, missing: &[MissingRange]) {
        let mut state = self.lock();
        if state.epoch == epoch {
            state.lacks = missing.to_vec();
        }
    }

    /// Moves the consumer to `position`, or to the given start time if `position` is `None`. Dead
    /// letters stay. The caller then starts a feeder.
    ///
    /// # Errors
    /// The reason why the consumer has ended; `DamagedConsumer`.
    pub(super) fn reset(
        &self,
        position: Option<Position>,
        (since_authored_ms, since_arrived_ms): (u64, u64),
    ) -> Result<(), ConsumerError> {
        self.change(|state| {
            self.check_damage(state)?;
            state.outstanding.clear();
            state.ahead.clear();
            state.ahead_bytes = 0;
            state.position = position;
            state.row.since_authored_ms = since_authored_ms;
            state.row.since_arrived_ms = since_arrived_ms;
            state.row.stopped = None;
            state.lacks.clear();
            state.epoch += 1;
            if let Some(feeder) = state.feeder.take() {
                feeder.abort();
            }
            Ok(())
        })
    }

    /// Changes options; changes that were fed stay. If this returns true, other keys are selected,
    /// and the caller then starts a feeder.
    ///
    /// # Errors
    /// `Option`; the reason why the consumer has ended; `DamagedConsumer`.
    pub(super) fn set(&self, changes: ConsumerChanges) -> Result<bool, ConsumerError> {
        self.change(|state| {
            self.check_damage(state)?;
            let options = ConsumerOptions::changed(&state.row, changes);
            options.check()?;
            state.row.rules = options.rules();
            state.outstanding.set_rules(options.rules());
            if state.row.prefixes == options.prefixes {
                return Ok(false);
            }
            state.row.prefixes = options.prefixes;
            state.epoch += 1;
            if let Some(feeder) = state.feeder.take() {
                feeder.abort();
            }
            Ok(true)
        })
    }

    /// Ends the consumer: takers get `why`.
    pub(super) fn end(&self, why: ConsumerError) {
        let mut state = self.lock();
        state.over.get_or_insert(why);
        if let Some(feeder) = state.feeder.take() {
            feeder.abort();
        }
        drop(state);
        self.takers.notify_waiters();
        self.room.notify_one();
    }

    /// Returns the row and the changes to save, if there are any, and counts them as saved.
    pub(super) fn take_dirty(&self) -> Option<(ConsumerRow, Vec<(u64, Place)>)> {
        let mut state = self.lock();
        if !std::mem::take(&mut state.dirty) || state.damaged.is_some() {
            return None;
        }
        let places = state.outstanding.take_touched();
        let mut row = state.row.clone();
        let position = state.position.as_ref();
        row.position = position.map(|position| position.cursor(self.shared.id));
        row.counts = state.outstanding.counts();
        row.paused = state.outstanding.is_paused();
        Some((row, places))
    }

    /// Returns the status.
    ///
    /// # Errors
    /// The reason why the consumer has ended.
    pub(super) fn status(&self) -> Result<ConsumerStatus, ConsumerError> {
        let now_ms = self.shared.now_ms();
        let published = self.shared.bus.published();
        self.tick(now_ms);
        let state = self.lock();
        state.check_over()?;
        let position = state.position.clone().unwrap_or_default();
        let counts = state.outstanding.counts();
        Ok(ConsumerStatus {
            name: self.name.clone(),
            state: self.activity(&state),
            prefixes: state.row.prefixes.clone(),
            rules: state.row.rules.clone(),
            created_ms: state.row.created_ms,
            position: state
                .position
                .as_ref()
                .map(|position| position.cursor(self.shared.id)),
            backlog_entries: published.frontier.entries_beyond(&position.frontier),
            outstanding: state.outstanding.len(),
            in_flight: state.outstanding.taken(),
            acked: counts.acked,
            redelivered: counts.redelivered,
            dead: state.outstanding.dead().len(),
            last_seen_ms: Some(state.row.last_seen_ms).filter(|ms| *ms > 0),
            idle: idle(&state.outstanding),
            next_due_ms: state.outstanding.next_due_ms(),
        })
    }

    /// Returns the first outstanding changes, at most `max`, with the reason why each is not given
    /// out now.
    ///
    /// # Errors
    /// The reason why the consumer has ended.
    pub(super) fn waits(&self, max: usize) -> Result<Vec<Waits>, ConsumerError> {
        self.tick(self.shared.now_ms());
        let state = self.lock();
        state.check_over()?;
        Ok(state.outstanding.waits().take(max).collect())
    }

    // Takes back changes that were not acknowledged in time.
    fn tick(&self, now_ms: u64) {
        let rings = {
            let mut state = self.lock();
            state.outstanding.tick(now_ms);
            if !state.outstanding.is_touched() {
                return;
            }
            !std::mem::replace(&mut state.dirty, true)
        };
        if rings {
            self.bell.ring();
        }
        self.takers.notify_waiters();
        self.room.notify_one();
    }

    fn activity(&self, state: &LiveState) -> ConsumerState {
        match self.check_stopped(state) {
            Err(why) => ConsumerState::Stopped {
                reason: why.to_string(),
            },
            Ok(()) if state.outstanding.is_paused() => ConsumerState::Paused,
            Ok(()) if !state.lacks.is_empty() => ConsumerState::Waiting {
                missing: state.lacks.clone(),
            },
            Ok(()) => ConsumerState::Running,
        }
    }

    fn check_damage(&self, state: &LiveState) -> Result<(), ConsumerError> {
        let damaged = |what| ConsumerError::DamagedConsumer {
            name: self.name.clone(),
            what,
        };
        state
            .damaged
            .clone()
            .map_or(Ok(()), |what| Err(damaged(what)))
    }

    fn check_stopped(&self, state: &LiveState) -> Result<(), ConsumerError> {
        self.check_damage(state)?;
        let history_gone = |reason| ConsumerError::HistoryGone {
            name: self.name.clone(),
            reason,
        };
        state
            .row
            .stopped
            .clone()
            .map_or(Ok(()), |why| Err(history_gone(why)))
    }
}

impl LiveState {
    /// Returns an error if the consumer has ended.
    pub(super) fn check_over(&self) -> Result<(), ConsumerError> {
        self.over.clone().map_or(Ok(()), Err)
    }

    /// Returns the number of changes that may be fed now.
    pub(super) fn room(&self) -> usize {
        if self.ahead_bytes >= CONSUMER_AHEAD_BYTES_MAX {
            return 0;
        }
        self.outstanding.room()
    }

    /// True while changes from the feeder of `epoch` are accepted.
    pub(super) fn wants(&self, epoch: u64) -> bool {
        self.epoch == epoch
            && self.over.is_none()
            && self.damaged.is_none()
            && self.row.stopped.is_none()
    }

    // Checks L1 and L2 for a position that was just fed.
    fn check_fed(&self, shared: &Shared, position: &Position) {
        assert!(
            !position.inside,
            "L1: a feed covers whole groups of changes"
        );
        // Entries stop counting only when the members change, and in this store anyone may write.
        if let Some(before) = self.position.as_ref().filter(|_| shared.anyone) {
            let back = moved_back(&before.frontier, &position.frontier);
            assert_eq!(back, None, "L2: a consumer is fed forward");
            let time_max = position.expired_through_ms.max(shared.now_ms());
            assert!(
                before.expired_through_ms <= time_max.saturating_add(DRIFT_MS_MAX),
                "L2: the time of a consumer's position moves forward, unless it was wrong"
            );
        }
    }

    // True when a feed without changes would change nothing.
    fn is_at(&self, epoch: u64, position: &Position) -> bool {
        self.epoch == epoch
            && self.lacks.is_empty()
            && self.position.as_ref().is_some_and(|at| {
                Arc::ptr_eq(&at.frontier, &position.frontier)
                    && at.partial == position.partial
                    && at.expired_through_ms == position.expired_through_ms
            })
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn row(&self) -> &ConsumerRow {
        &self.row
    }

    pub(super) fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// Notes that a taker has answered a change.
    pub(super) fn seen(&mut self, now_ms: u64) {
        self.row.last_seen_ms = now_ms;
    }

    /// Keeps the handle of the feeder of `epoch`, to abort it when the epoch ends. Aborts it at
    /// once if the epoch has ended.
    pub(super) fn set_feeder(&mut self, epoch: u64, feeder: AbortHandle) {
        let unwanted = if self.wants(epoch) {
            self.feeder.replace(feeder)
        } else {
            Some(feeder)
        };
        if let Some(unwanted) = unwanted {
            unwanted.abort();
        }
    }
}

fn idle(outstanding: &Outstanding) -> Option<Idle> {
    match outstanding {
        it if it.is_paused() => Some(Idle::Paused),
        it if it.is_ready() => None,
        it if it.is_empty() => Some(Idle::Empty),
        it if it.room() == 0 => Some(Idle::Full),
        _rest => Some(Idle::Busy),
    }
}

fn is_of(row: &ConsumerRow, shared: &Shared) -> bool {
    row.position
        .as_ref()
        .is_none_or(|position| position.store == shared.id)
}
