//! One consumer in memory: its rules, its position, and who waits for it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::{sync::Notify, task::AbortHandle};

use crate::{
    limits::CONSUMER_AHEAD_BYTES_MAX,
    protocol::{
        change::Change,
        consumer::{ChangeRef, ConsumerRow, Given, Outstanding, Place},
        frontier::MissingRange,
    },
    store::{
        Shared,
        consumers::{
            ConsumerError, ConsumerOptions, ConsumerState, ConsumerStatus, file::Stored,
            saver::Bell,
        },
        watch::position::Position,
    },
};

/// One consumer. Takers, the feeder and the keeper share it.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) name: String,
    pub(super) shared: Arc<Shared>,
    // Rung when `state` turns dirty.
    bell: Arc<Bell>,
    // Never held across an await, nor while another lock is taken.
    state: Mutex<State>,
    /// Told when there may be something to take, or the end.
    pub(super) takers: Notify,
    /// Told when there may be room to feed.
    pub(super) room: Notify,
}

/// What changes of it.
#[derive(Debug)]
pub(super) struct State {
    // As it is saved, but for the position, the counts, and `paused`.
    row: ConsumerRow,
    pub(super) outstanding: Outstanding,
    // Everything up to here is finished, outstanding, dead, or does not match.
    position: Option<Position>,
    // Counts resets: a feeder of an earlier one feeds no more.
    epoch: u64,
    feeder: Option<AbortHandle>,
    // Subset of the outstanding: fed since the start and never taken. The log has the others.
    ahead: BTreeMap<u64, Arc<Change>>,
    ahead_bytes: usize,
    // What the feeder waits for.
    lacks: Vec<MissingRange>,
    // Its rows were damaged when the file was opened: they are not overwritten.
    damaged: Option<String>,
    // Set once, when it is deleted, the store closed, or the file failed.
    over: Option<ConsumerError>,
    // True when the file does not have all of this.
    dirty: bool,
}

/// What a taker is answered.
#[derive(Debug)]
pub(super) enum Take {
    Given(Given, Option<Arc<Change>>),
    /// Nothing now; ask again at this time, or when told.
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

    /// Goes on with what the file has.
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
                let what = "its position is of another store".to_owned();
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
        let position = row.position.as_ref().map(Position::after);
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
            state: Mutex::new(State {
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

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it, has that saved, and tells who waits.
    ///
    /// # Errors
    /// What `change` says, and why the consumer is over.
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, ConsumerError>,
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

    /// Gives out the next change, if there is one.
    ///
    /// # Errors
    /// Why it gives out nothing any more.
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
            // Also where nothing was given: what has died makes room.
            self.room.notify_one();
        }
        Ok(take)
    }

    /// Takes in what the feeder has read, up to `position`. False: it is of no use any more.
    pub(super) fn feed(&self, epoch: u64, changes: Vec<Arc<Change>>, position: Position) -> bool {
        if changes.is_empty() && self.lock().is_at(epoch, &position) {
            return true;
        }
        let fed = self.change(|state| {
            if state.epoch != epoch {
                return Ok(false);
            }
            for change in changes {
                if let Some(number) = state.outstanding.feed(ChangeRef::from(&*change)) {
                    let change = compact(change);
                    state.ahead_bytes += memory_bytes(&change);
                    state.ahead.insert(number, change);
                }
            }
            state.position = Some(position);
            state.lacks.clear();
            Ok(true)
        });
        fed.unwrap_or(false)
    }

    /// The feeder cannot go on: what comes next is gone.
    pub(super) fn stop(&self, epoch: u64, reason: String) {
        let stopped = self.change(|state| {
            if state.epoch == epoch {
                tracing::warn!(consumer = self.name, reason, "a consumer has stopped");
                state.row.stopped = Some(reason);
            }
            Ok(())
        });
        // It may be over meanwhile.
        stopped.unwrap_or_default();
    }

    /// The feeder waits for entries that are not here.
    pub(super) fn set_lacks(&self, epoch: u64, missing: &[MissingRange]) {
        let mut state = self.lock();
        if state.epoch == epoch {
            state.lacks = missing.to_vec();
        }
    }

    /// Begins anew at `position`, or, where that is `None`, with what the row says. Dead letters
    /// stay.
    ///
    /// # Errors
    /// Why the consumer is over; `DamagedConsumer`.
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

    /// Feeds what matches `prefixes` from now on; what was fed stays. Its feeder is to be started
    /// anew when this returns true.
    ///
    /// # Errors
    /// Why the consumer is over; `DamagedConsumer`.
    pub(super) fn set_prefixes(&self, prefixes: Vec<Bytes>) -> Result<bool, ConsumerError> {
        self.change(|state| {
            self.check_damage(state)?;
            if state.row.prefixes == prefixes {
                return Ok(false);
            }
            state.row.prefixes = prefixes;
            state.epoch += 1;
            if let Some(feeder) = state.feeder.take() {
                feeder.abort();
            }
            Ok(true)
        })
    }

    /// Ends it: takers are told `why`.
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

    /// Returns what is to be saved, and takes it as saved.
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

    /// Returns how it is.
    ///
    /// # Errors
    /// Why it is over.
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
            state: self.doing(&state),
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
        })
    }

    // What was not acknowledged in time is not with its taker any more.
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

    fn doing(&self, state: &State) -> ConsumerState {
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

    fn check_damage(&self, state: &State) -> Result<(), ConsumerError> {
        let damaged = |what| ConsumerError::DamagedConsumer {
            name: self.name.clone(),
            what,
        };
        state
            .damaged
            .clone()
            .map_or(Ok(()), |what| Err(damaged(what)))
    }

    fn check_stopped(&self, state: &State) -> Result<(), ConsumerError> {
        self.check_damage(state)?;
        let gone = |reason| ConsumerError::HistoryGone {
            name: self.name.clone(),
            reason,
        };
        state
            .row
            .stopped
            .clone()
            .map_or(Ok(()), |why| Err(gone(why)))
    }
}

impl State {
    /// Says why nothing can be asked of it any more, if so.
    pub(super) fn check_over(&self) -> Result<(), ConsumerError> {
        self.over.clone().map_or(Ok(()), Err)
    }

    /// Returns how many changes may be fed now.
    pub(super) fn room(&self) -> usize {
        if self.ahead_bytes >= CONSUMER_AHEAD_BYTES_MAX {
            return 0;
        }
        self.outstanding.room()
    }

    /// True when there is something to feed it with.
    pub(super) fn wants(&self, epoch: u64) -> bool {
        self.epoch == epoch
            && self.over.is_none()
            && self.damaged.is_none()
            && self.row.stopped.is_none()
    }

    // True when there is nothing to move.
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

    /// Somebody has answered a change.
    pub(super) fn seen(&mut self, now_ms: u64) {
        self.row.last_seen_ms = now_ms;
    }

    /// Remembers who feeds it, to end that one with it.
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

fn is_of(row: &ConsumerRow, shared: &Shared) -> bool {
    row.position
        .as_ref()
        .is_none_or(|position| position.store == shared.id)
}

// A change of a large entry keeps all of it in memory, unless what it has is copied.
fn compact(change: Arc<Change>) -> Arc<Change> {
    if change.op_count < 2 {
        return change;
    }
    Arc::new(Change {
        key: Bytes::copy_from_slice(&change.key),
        value: change.value.as_deref().map(Bytes::copy_from_slice),
        ..Change::clone(&change)
    })
}

// About.
fn memory_bytes(change: &Change) -> usize {
    let value = change.value.as_ref().map_or(0, Bytes::len);
    size_of::<Change>() + change.key.len() + value
}
