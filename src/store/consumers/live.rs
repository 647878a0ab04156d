//! One consumer in memory: its rules, its position, and the tasks that wait for it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use crate::{
    clock::time_text,
    protocol::{
        change::Change,
        consumer::{
            ConsumerRow, DeadLetter, DeathReason, DeliveryId, Given, OnGap, Outstanding, Place,
            Retried, Waits,
        },
        frontier::MissingRange,
        gap::Gap,
    },
    store::{
        Shared,
        consumers::{
            ConsumerChanges, ConsumerError, ConsumerOptions, ConsumerState, ConsumerStatus, Idle,
            ahead::memory_bytes, bell::Bell, file::Stored, live_state::LiveState, options::millis,
        },
        watch::position::Position,
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
        self.feeds(epoch, |state| {
            state.check_fed(&self.shared, &position);
            state.add(changes);
            state.position = Some(position);
            state.lacks.clear();
        })
    }

    /// Adds live keys of the state after a gap. `is_whole`: these are the last ones. Returns false when
    /// this feeder is to end.
    pub(super) fn feed_state(&self, epoch: u64, changes: Vec<Arc<Change>>, is_whole: bool) -> bool {
        self.feeds(epoch, |state| {
            state.add(changes);
            if is_whole {
                state.row.state_of = 0;
            }
        })
    }

    /// Adds a gap that the feeder has met, or stops the consumer, as its options say. `after`: the
    /// position after the state that the feeder reads next; `None`: that state is of no use. Returns
    /// false when this feeder is to end.
    pub(super) fn feed_gap(&self, epoch: u64, gap: &Change, after: Option<&Position>) -> bool {
        let since = |ms| format!("; history is whole since {}", time_text(ms));
        let reason = match gap.gap.as_deref() {
            Some(Gap { reason, reach_ms }) => {
                format!("{reason}{}", reach_ms.map(since).unwrap_or_default())
            }
            None => String::new(),
        };
        let on_gap = self.lock().row.on_gap;
        match (on_gap, after) {
            (OnGap::State, Some(after)) => {
                tracing::warn!(consumer = self.name, reason, "a consumer gets a gap");
                self.feeds(epoch, |state| state.add_gap(gap, after.clone()))
            }
            (OnGap::State, None) => {
                self.stop(epoch, format!("{reason}; {STATE_LACKS}"));
                false
            }
            (OnGap::Stop, _) => {
                self.stop(epoch, reason);
                false
            }
        }
    }

    // Makes a change for the feeder of `epoch`. Returns false when that feeder is to end.
    fn feeds(&self, epoch: u64, feed: impl FnOnce(&mut LiveState)) -> bool {
        let fed = self.change(|state| {
            if state.epoch != epoch {
                return Ok(false);
            }
            feed(state);
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
            state.row.state_of = 0;
            state.lacks.clear();
            state.next_epoch();
            Ok(())
        })
    }

    /// Changes options; changes that were fed stay. If this returns true, the caller then starts a
    /// feeder: other keys are selected, or a consumer goes on that had stopped at a gap.
    ///
    /// # Errors
    /// `Option`; the reason why the consumer has ended; `DamagedConsumer`.
    pub(super) fn set(&self, changes: ConsumerChanges) -> Result<bool, ConsumerError> {
        self.change(|state| {
            self.check_damage(state)?;
            let goes_on = changes.on_gap == Some(OnGap::State);
            let options = ConsumerOptions::changed(&state.row, changes);
            options.check()?;
            state.row.rules = options.rules();
            state.outstanding.set_rules(options.rules());
            state.row.on_gap = options.on_gap;
            let goes_on = goes_on && state.row.stopped.take().is_some();
            if state.row.prefixes == options.prefixes && !goes_on {
                return Ok(false);
            }
            state.row.prefixes = options.prefixes;
            state.next_epoch();
            Ok(true)
        })
    }

    /// Makes dead letters outstanding again. Returns their number, and true if a gap is among them: the
    /// caller then starts a feeder, which reads the state for it.
    ///
    /// # Errors
    /// The reason why the consumer has ended.
    pub(super) fn retry(
        &self,
        which: impl Fn(&DeadLetter) -> bool,
    ) -> Result<(usize, bool), ConsumerError> {
        self.change(|state| {
            let Retried { count, gap } = state.outstanding.retry(which);
            if let Some(number) = gap {
                state.row.state_of = number;
                state.next_epoch();
            }
            Ok((count, gap.is_some()))
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
            on_gap: state.row.on_gap,
            gaps: counts.gaps,
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

const STATE_LACKS: &str =
    "the state is missing entries, too, which could not be read when it was built";
