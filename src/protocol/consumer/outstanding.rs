//! The outstanding changes of a consumer, as rules: `now` comes in, decisions go out.
//!
//! ```text
//! feed -> Waiting -> take -> Taken -> ack: gone
//!            ^                 | nack, let go, out of time: after a pause, while attempts are left
//!            +-----------------+
//!                              | term, no attempts left: dead -> retry, skip
//! ```
//! Changes of one key are given out one at a time, in the order they were fed: a change waits
//! until those of its key before it are finished or dead.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{
    limits::{DEAD_LETTERS_MAX, OUTSTANDING_KEY_BYTES_MAX},
    protocol::consumer::{
        change_ref::{ChangeId, ChangeRef},
        delivery_id::DeliveryId,
        error::AckError,
        place::{Counts, DeadLetter, DeathReason, Given, Place, State},
        rules::Rules,
    },
};

/// The outstanding and dead changes of one consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outstanding {
    rules: Rules,
    paused: bool,
    // By number: in the order they were fed.
    changes: BTreeMap<u64, Item>,
    // Exactly the outstanding changes.
    by_id: BTreeMap<ChangeId, u64>,
    // Exactly the outstanding changes, by key. Only the first of a lane may be taken.
    lanes: BTreeMap<Bytes, BTreeSet<u64>>,
    key_bytes: usize,
    // First of their lane, may be taken now.
    ready: BTreeSet<u64>,
    // First of their lane, by the time from which on they may be taken.
    delayed: BTreeSet<(u64, u64)>,
    // Taken, by the time at which the taker loses them.
    taken: BTreeSet<(u64, u64)>,
    dead: BTreeMap<u64, Dead>,
    next_number: u64,
    counts: Counts,
    // Numbers whose row is not what was last saved.
    touched: BTreeSet<u64>,
    // Numbers that have a row.
    saved: BTreeSet<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    id: ChangeId,
    change: ChangeRef,
    attempts: u32,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Dead {
    id: ChangeId,
    letter: DeadLetter,
}

impl Outstanding {
    /// Begins with nothing.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            paused: false,
            changes: BTreeMap::new(),
            by_id: BTreeMap::new(),
            lanes: BTreeMap::new(),
            key_bytes: 0,
            ready: BTreeSet::new(),
            delayed: BTreeSet::new(),
            taken: BTreeSet::new(),
            dead: BTreeMap::new(),
            next_number: 0,
            counts: Counts::default(),
            touched: BTreeSet::new(),
            saved: BTreeSet::new(),
        }
    }

    /// Goes on with what was saved. Takers of the process before are gone: what they had is given
    /// out again, unless they are detached.
    pub fn restore(
        rules: Rules,
        counts: Counts,
        places: impl IntoIterator<Item = (u64, Place)>,
        now_ms: u64,
    ) -> Self {
        let mut all = Self::new(rules);
        all.counts = counts;
        let mut orphans = Vec::new();
        for (number, place) in places {
            all.next_number = all.next_number.max(number.saturating_add(1));
            all.saved.insert(number);
            match place {
                Place::Gone => {}
                Place::Dead(letter) => {
                    let id = ChangeId::of(&letter.change);
                    all.dead.insert(number, Dead { id, letter });
                }
                Place::Outstanding {
                    change,
                    attempts,
                    state,
                } => {
                    if matches!(state, State::Taken { detached, .. } if !detached) {
                        orphans.push(number);
                    }
                    let id = ChangeId::of(&change);
                    let item = Item {
                        id,
                        change,
                        attempts,
                        state,
                    };
                    all.add(number, item);
                }
            }
        }
        for number in orphans {
            all.fail(number, now_ms, None, false);
        }
        all
    }

    /// Takes in the next change and returns its number; `None` when it is outstanding already.
    pub fn feed(&mut self, change: ChangeRef) -> Option<u64> {
        let id = ChangeId::of(&change);
        let new = !self.by_id.contains_key(&id);
        new.then(|| self.push(id, change))
    }

    /// Gives out the next change; `None` when none may be taken now.
    ///
    /// `detached`: its taker outlives this process.
    pub fn take(&mut self, now_ms: u64, detached: bool) -> Option<Given> {
        self.tick(now_ms);
        if self.paused {
            return None;
        }
        let number = self.ready.pop_first()?;
        let deadline_ms = now_ms.saturating_add(self.rules.ack_wait_ms);
        let item = self.changes.get_mut(&number)?;
        item.attempts = item.attempts.saturating_add(1);
        item.state = State::Taken {
            deadline_ms,
            detached,
        };
        if item.attempts > 1 {
            self.counts.redelivered = self.counts.redelivered.saturating_add(1);
        }
        let given = Given {
            number,
            id: DeliveryId {
                change: item.id,
                attempt: item.attempts,
            },
            change: item.change.clone(),
        };
        self.taken.insert((deadline_ms, number));
        self.touched.insert(number);
        Some(given)
    }

    /// The change is done: it is never given out again.
    ///
    /// Late is fine, as long as nobody else was given it.
    ///
    /// # Errors
    /// `AckError`.
    pub fn ack(&mut self, id: DeliveryId) -> Result<(), AckError> {
        let number = self.find(id)?;
        self.remove(number);
        self.counts.acked = self.counts.acked.saturating_add(1);
        Ok(())
    }

    /// The taker gives it back: it is given out again after `delay_ms`, or after the usual pause.
    ///
    /// # Errors
    /// `AckError`.
    pub fn nack(
        &mut self,
        id: DeliveryId,
        delay_ms: Option<u64>,
        now_ms: u64,
    ) -> Result<(), AckError> {
        let number = self.find(id)?;
        self.fail(number, now_ms, delay_ms, false);
        Ok(())
    }

    /// The taker cannot do it, nor can anybody: it becomes a dead letter.
    ///
    /// # Errors
    /// `AckError`.
    pub fn term(
        &mut self,
        id: DeliveryId,
        reason: DeathReason,
        now_ms: u64,
    ) -> Result<(), AckError> {
        let number = self.find(id)?;
        if self.dead.len() >= DEAD_LETTERS_MAX {
            return Err(AckError::DeadLettersFull);
        }
        self.bury(number, reason, now_ms);
        Ok(())
    }

    /// The taker needs more time: its `ack_wait` begins anew. `detached` as for `take`.
    ///
    /// # Errors
    /// `AckError`.
    pub fn extend(&mut self, id: DeliveryId, detached: bool, now_ms: u64) -> Result<(), AckError> {
        let number = self.find(id)?;
        let deadline_ms = now_ms.saturating_add(self.rules.ack_wait_ms);
        self.unqueue(number);
        self.set_state(
            number,
            State::Taken {
                deadline_ms,
                detached,
            },
        );
        Ok(())
    }

    /// Takes back what was not acknowledged in time, and readies what has waited long enough.
    pub fn tick(&mut self, now_ms: u64) {
        while let Some((_deadline, number)) =
            self.taken.first().copied().filter(|at| at.0 <= now_ms)
        {
            self.fail(number, now_ms, None, true);
        }
        while let Some(due) = self.delayed.first().copied().filter(|at| at.0 <= now_ms) {
            self.delayed.remove(&due);
            self.ready.insert(due.1);
        }
    }

    /// Stops giving out changes, or goes on. Those taken may still be answered.
    pub fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Moves up to `max` dead letters that `which` names back among the outstanding, as the last of
    /// their keys, with all attempts before them. Returns how many; as many as there is room for.
    ///
    /// Attempts are counted anew, so a taker of before that answers still, with the number of an
    /// attempt that is out again, answers for that one: it is the same change.
    pub fn retry(&mut self, which: impl Fn(&DeadLetter) -> bool) -> usize {
        let found = self.dead.iter().filter(|(_, dead)| which(&dead.letter));
        let numbers: Vec<u64> = found.map(|(number, _)| *number).collect();
        let mut moved = 0_usize;
        for number in numbers {
            if self.room() == 0 {
                break;
            }
            let Some(dead) = self.dead.remove(&number) else {
                continue;
            };
            self.touched.insert(number);
            moved = moved.saturating_add(1);
            if !self.by_id.contains_key(&dead.id) {
                self.push(dead.id, dead.letter.change);
            }
        }
        moved
    }

    /// Forgets the dead letters that `which` names. Returns how many.
    pub fn skip(&mut self, which: impl Fn(&DeadLetter) -> bool) -> usize {
        let found = self.dead.iter().filter(|(_, dead)| which(&dead.letter));
        let numbers: Vec<u64> = found.map(|(number, _)| *number).collect();
        for number in &numbers {
            self.dead.remove(number);
            self.touched.insert(*number);
        }
        numbers.len()
    }

    /// Forgets what is outstanding: the position goes elsewhere. Dead letters stay.
    pub fn clear(&mut self) {
        let numbers: Vec<u64> = self.changes.keys().copied().collect();
        for number in numbers {
            self.remove(number);
        }
    }

    /// Returns what is to be saved since the last call, by number.
    pub fn take_touched(&mut self) -> Vec<(u64, Place)> {
        let touched = std::mem::take(&mut self.touched);
        let mut places = Vec::with_capacity(touched.len());
        for number in touched {
            let place = self.place(number);
            let there = if place == Place::Gone {
                // Came and went since the last call.
                self.saved.remove(&number)
            } else {
                self.saved.insert(number);
                true
            };
            if there {
                places.push((number, place));
            }
        }
        places
    }

    /// True when `take_touched` has something to say.
    pub fn is_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Returns how many changes may be fed now.
    pub fn room(&self) -> usize {
        if self.key_bytes >= OUTSTANDING_KEY_BYTES_MAX {
            return 0;
        }
        self.rules.max_in_flight.saturating_sub(self.changes.len())
    }

    /// Returns when `take` may have something that it has not now; `None`: not before something
    /// else happens.
    pub fn next_due_ms(&self) -> Option<u64> {
        let first = [self.delayed.first(), self.taken.first()];
        first.into_iter().flatten().map(|(ms, _)| *ms).min()
    }

    /// Returns the rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// True while nothing is given out.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// True while this attempt is with its taker.
    pub fn is_taken(&self, id: DeliveryId) -> bool {
        let number = self.by_id.get(&id.change);
        let item = number.and_then(|number| self.changes.get(number));
        item.is_some_and(|item| {
            item.attempts == id.attempt && matches!(item.state, State::Taken { .. })
        })
    }

    /// Returns the number of outstanding changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// True when nothing is outstanding.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Returns how many of them are with takers.
    pub fn taken(&self) -> usize {
        self.taken.len()
    }

    /// Returns what happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the dead letters, by number.
    pub fn dead(&self) -> impl ExactSizeIterator<Item = &DeadLetter> {
        self.dead.values().map(|dead| &dead.letter)
    }

    fn place(&self, number: u64) -> Place {
        if let Some(item) = self.changes.get(&number) {
            return Place::Outstanding {
                change: item.change.clone(),
                attempts: item.attempts,
                state: item.state,
            };
        }
        let dead = self.dead.get(&number);
        dead.map_or(Place::Gone, |dead| Place::Dead(dead.letter.clone()))
    }

    // The change that `id` answers, if it may.
    fn find(&self, id: DeliveryId) -> Result<u64, AckError> {
        let Some(number) = self.by_id.get(&id.change) else {
            let is_dead = self.dead.values().any(|dead| dead.id == id.change);
            return Err(if is_dead {
                AckError::Dead { id }
            } else {
                AckError::NotOutstanding { id }
            });
        };
        let item = self.changes.get(number);
        let Some(item) = item.filter(|item| id.attempt > 0 && item.attempts >= id.attempt) else {
            return Err(AckError::NotOutstanding { id });
        };
        if item.attempts > id.attempt {
            return Err(AckError::GivenAgain {
                id,
                attempts: item.attempts,
            });
        }
        match item.state {
            State::Taken { .. } | State::Waiting { late: true, .. } => Ok(*number),
            State::Waiting { late: false, .. } => Err(AckError::Answered { id }),
        }
    }

    fn push(&mut self, id: ChangeId, change: ChangeRef) -> u64 {
        let number = self.next_number;
        self.next_number = number.saturating_add(1);
        let state = State::Waiting {
            due_ms: 0,
            late: false,
        };
        self.touched.insert(number);
        let item = Item {
            id,
            change,
            attempts: 0,
            state,
        };
        self.add(number, item);
        number
    }

    fn add(&mut self, number: u64, item: Item) {
        let key = item.change.key.clone();
        self.key_bytes = self.key_bytes.saturating_add(key.len());
        self.by_id.insert(item.id, number);
        let state = item.state;
        self.changes.insert(number, item);
        let lane = self.lanes.entry(key).or_default();
        lane.insert(number);
        let first = lane.first() == Some(&number);
        match state {
            State::Taken { deadline_ms, .. } => {
                self.taken.insert((deadline_ms, number));
            }
            State::Waiting { due_ms, .. } if first => self.queue(number, due_ms),
            State::Waiting { .. } => {}
        }
    }

    // An attempt has failed.
    fn fail(&mut self, number: u64, now_ms: u64, delay_ms: Option<u64>, late: bool) {
        let Some(attempts) = self.changes.get(&number).map(|item| item.attempts) else {
            return;
        };
        let over = self.rules.max_deliver.is_some_and(|max| attempts >= max);
        // Without room for the letter it goes on being tried.
        if over && self.dead.len() < DEAD_LETTERS_MAX {
            return self.bury(number, DeathReason::MaxDeliver, now_ms);
        }
        let delay_ms = delay_ms.unwrap_or_else(|| self.rules.backoff_ms(attempts));
        let due_ms = now_ms.saturating_add(delay_ms);
        self.unqueue(number);
        self.set_state(number, State::Waiting { due_ms, late });
    }

    fn bury(&mut self, number: u64, reason: DeathReason, now_ms: u64) {
        let Some(item) = self.remove(number) else {
            return;
        };
        let letter = DeadLetter {
            number,
            change: item.change,
            attempts: item.attempts,
            reason,
            died_ms: now_ms,
        };
        let id = item.id;
        self.dead.insert(number, Dead { id, letter });
    }

    // It is first of its lane: only those are taken.
    fn set_state(&mut self, number: u64, state: State) {
        let Some(item) = self.changes.get_mut(&number) else {
            return;
        };
        item.state = state;
        self.touched.insert(number);
        match state {
            State::Waiting { due_ms, .. } => self.queue(number, due_ms),
            State::Taken { deadline_ms, .. } => {
                self.taken.insert((deadline_ms, number));
            }
        }
    }

    fn queue(&mut self, number: u64, due_ms: u64) {
        if due_ms == 0 {
            self.ready.insert(number);
        } else {
            self.delayed.insert((due_ms, number));
        }
    }

    fn unqueue(&mut self, number: u64) {
        self.ready.remove(&number);
        match self.changes.get(&number).map(|item| item.state) {
            Some(State::Waiting { due_ms, .. }) => self.delayed.remove(&(due_ms, number)),
            Some(State::Taken { deadline_ms, .. }) => self.taken.remove(&(deadline_ms, number)),
            None => false,
        };
    }

    fn remove(&mut self, number: u64) -> Option<Item> {
        self.unqueue(number);
        let item = self.changes.remove(&number)?;
        self.by_id.remove(&item.id);
        self.touched.insert(number);
        let key = &item.change.key;
        self.key_bytes = self.key_bytes.saturating_sub(key.len());
        let lane = self.lanes.get_mut(key)?;
        lane.remove(&number);
        match lane.first().copied() {
            None => drop(self.lanes.remove(key)),
            Some(next) => self.advance(next),
        }
        Some(item)
    }

    // `number` is the first of its lane now.
    fn advance(&mut self, number: u64) {
        if let Some(State::Waiting { due_ms, .. }) =
            self.changes.get(&number).map(|item| item.state)
        {
            self.queue(number, due_ms);
        }
    }
}
