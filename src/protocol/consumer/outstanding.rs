//! The outstanding changes of a consumer, as rules: `now` comes in, decisions go out.
//!
//! ```text
//! feed -> Waiting -> take -> Taken -> ack: finished
//!            ^                 | nack, dropped, timed out: after a pause, while attempts are left
//!            +-----------------+
//!                              | term, no attempts left: dead -> retry, skip
//! ```
//! Changes of one key are delivered one at a time, in the order they were fed: a change waits until
//! the changes of its key before it are finished or dead. A gap is of all keys: it waits until all
//! changes before it are finished or dead, and all changes after it wait for it.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::{
    change::Kind,
    consumer::{
        change_ref::{ChangeId, ChangeRef},
        dead::DeadLetters,
        delivery_id::DeliveryId,
        due::Due,
        error::AckError,
        lanes::Lanes,
        place::{Counts, DeadLetter, DeathReason, Given, Item, Place, Retried, State, Waits},
        rules::Rules,
    },
};

/// The outstanding and dead changes of one consumer.
///
/// `new` or `restore` makes it. The feeder calls `room` and then `feed`. Takers call `take`, and answer
/// with `ack`, `nack`, `term` or `extend`; `tick` takes back changes that were not answered in time.
/// `take_touched` returns the rows to save. None of them reads a clock: `now_ms` is ms since 1970.
// Invariants, after every call:
// O1. `by_id` and `lanes` name exactly the numbers of `changes`.
// O2. `due` holds exactly the first number of each lane.
// O3. By O2, only the first change of a lane is taken: changes of one key keep their order.
// O4. After `take_touched`, `saved` names exactly the numbers of `changes` and `dead`: the file has
//     a row for each of them, and no other.
// O5. `gap` names the only gap among `changes`. Nothing after it is with a taker, nor is it while
//     something before it is outstanding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outstanding {
    rules: Rules,
    // While true, `take` returns `None`.
    paused: bool,
    // By number, which is the order in which the changes were fed.
    changes: BTreeMap<u64, Item>,
    by_id: BTreeMap<ChangeId, u64>,
    lanes: Lanes,
    due: Due,
    gap: Option<u64>,
    dead: DeadLetters,
    // Greater than all numbers so far. A number is not used again.
    next_number: u64,
    counts: Counts,
    // Numbers whose row in the file is out of date. Cleared by `take_touched`.
    touched: BTreeSet<u64>,
    // Numbers that have a row in the file.
    saved: BTreeSet<u64>,
}

impl Outstanding {
    /// Makes a consumer's state without changes.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            paused: false,
            changes: BTreeMap::new(),
            by_id: BTreeMap::new(),
            lanes: Lanes::default(),
            due: Due::default(),
            gap: None,
            dead: DeadLetters::default(),
            next_number: 0,
            counts: Counts::default(),
            touched: BTreeSet::new(),
            saved: BTreeSet::new(),
        }
    }

    /// Makes a consumer's state from saved rows, in ascending order of their numbers. The takers of
    /// the last process ended with it: their changes are delivered again, unless the takers are
    /// detached.
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
            match place {
                Place::Finished => continue,
                Place::Dead(letter) => all.dead.add(letter),
                // A row that breaks O1, O3 or O5 is not from the same moment as the others.
                Place::Outstanding { change, .. }
                    if all.has(ChangeId::of(&change))
                        || (all.gap.is_some() && change.kind == Kind::Gap) =>
                {
                    all.touched.insert(number);
                }
                Place::Outstanding {
                    change,
                    attempts,
                    mut state,
                } => {
                    if all.lanes.first(&change.key).is_some()
                        && matches!(state, State::Taken { .. })
                    {
                        state = State::AT_ONCE;
                        all.touched.insert(number);
                    }
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
            all.saved.insert(number);
        }
        for number in orphans {
            all.fail(number, now_ms, None, false);
        }
        all
    }

    /// Adds the next change and returns its number; `None` when it is outstanding already.
    pub fn feed(&mut self, change: ChangeRef) -> Option<u64> {
        let id = ChangeId::of(&change);
        (!self.has(id)).then(|| self.push(id, change))
    }

    /// Adds a gap, after which the state is fed. Returns the number of the gap that is delivered: that of
    /// an earlier gap if a taker has it or had it, and it is not finished.
    ///
    /// Changes after a gap that is not finished are forgotten: no taker has got one of them, and the
    /// state that follows has what they changed.
    pub fn feed_gap(&mut self, gap: ChangeRef) -> u64 {
        if let Some(at) = self.gap {
            self.forget_from(at.saturating_add(1));
            let earlier = self.changes.get(&at).filter(|item| item.attempts > 0);
            if let Some(earlier) = earlier {
                return earlier.change.gap_number;
            }
            self.remove(at);
        }
        self.push_gap(gap)
    }

    // Gives the gap the next number, so that its id is new.
    fn push_gap(&mut self, mut gap: ChangeRef) -> u64 {
        self.counts.gaps = self.counts.gaps.saturating_add(1);
        gap.gap_number = self.counts.gaps;
        self.push(ChangeId::of(&gap), gap);
        self.counts.gaps
    }

    /// Gives the next change to a taker; `None` when none may be taken now.
    ///
    /// `detached`: the taker outlives this process.
    pub fn take(&mut self, now_ms: u64, detached: bool) -> Option<Given> {
        self.tick(now_ms);
        if self.paused {
            return None;
        }
        let number = self.next_ready()?;
        let deadline_ms = now_ms.saturating_add(self.rules.ack_wait_ms);
        self.check_ready(number);
        self.unqueue(number);
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
        self.due.add(number, item.state);
        self.touched.insert(number);
        Some(given)
    }

    /// Acknowledges a change: it is finished, and never delivered again.
    ///
    /// A late answer counts, as long as no other taker was given the change.
    ///
    /// # Errors
    /// `AckError`.
    pub fn ack(&mut self, id: DeliveryId) -> Result<(), AckError> {
        let removed = self.find(id).map(|number| self.remove(number))?;
        debug_assert!(removed.is_some_and(|it| it.id == id.change), "O1: {id}");
        self.counts.acked = self.counts.acked.saturating_add(1);
        Ok(())
    }

    /// Gives a change back: it is delivered again after `delay_ms`, or after the usual pause.
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

    /// Makes a change a dead letter, because no taker can process it.
    ///
    /// # Errors
    /// `AckError`; with `DeadLettersFull` the change stays with its taker.
    pub fn term(
        &mut self,
        id: DeliveryId,
        reason: DeathReason,
        now_ms: u64,
    ) -> Result<(), AckError> {
        let number = self.find(id)?;
        if self.dead.is_full() {
            return Err(AckError::DeadLettersFull);
        }
        self.bury(number, reason, now_ms);
        Ok(())
    }

    /// Starts the `ack_wait` of a taker again. `detached` as for `take`.
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

    /// Takes back the changes that were not answered in time, and makes changes ready whose pause
    /// has ended.
    pub fn tick(&mut self, now_ms: u64) {
        while let Some(number) = self.due.timed_out(now_ms) {
            self.fail(number, now_ms, None, true);
        }
        self.due.wake(now_ms);
    }

    /// Pauses or resumes delivery. Takers may still answer the changes they have.
    pub fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Moves the dead letters that `which` names back to the outstanding changes, as the last of their
    /// keys and with a fresh count of attempts. Their number is limited by the free room. A gap comes
    /// last, and the caller then feeds the state.
    ///
    /// A taker from before the retry may still answer. If its attempt has the number of the current
    /// attempt, the answer counts for that one: the change is the same.
    pub fn retry(&mut self, which: impl Fn(&DeadLetter) -> bool) -> Retried {
        let mut retried = Retried::default();
        for number in self.dead.select(which) {
            if self.room() == 0 {
                break;
            }
            let Some((id, DeadLetter { change, .. })) = self.dead.remove(number) else {
                continue;
            };
            self.touched.insert(number);
            retried.count = retried.count.saturating_add(1);
            if change.kind == Kind::Gap {
                // Another gap that is not finished stands for both.
                if self.gap.is_some() {
                    continue;
                }
                retried.gap = Some(self.push_gap(change));
            } else if !self.has(id) {
                self.push(id, change);
            }
        }
        retried
    }

    /// Forgets the dead letters that `which` names. Returns their number.
    pub fn skip(&mut self, which: impl Fn(&DeadLetter) -> bool) -> usize {
        let numbers = self.dead.extract(which);
        self.touched.extend(&numbers);
        numbers.len()
    }

    /// Forgets all outstanding changes, because the position moves elsewhere. Dead letters stay.
    pub fn clear(&mut self) {
        self.forget_from(0);
    }

    /// Returns the places that have changed since the last call, by number, and counts them as
    /// saved.
    pub fn take_touched(&mut self) -> Vec<(u64, Place)> {
        let touched = std::mem::take(&mut self.touched);
        let mut places = Vec::with_capacity(touched.len());
        for number in touched {
            let place = self.place(number);
            let is_due = if place == Place::Finished {
                // A change that was fed and finished since the last call has no row to remove.
                self.saved.remove(&number)
            } else {
                self.saved.insert(number);
                true
            };
            if is_due {
                places.push((number, place));
            }
        }
        self.check_saved();
        places
    }

    /// True when `take_touched` would return a place, or forget one that was never saved.
    pub fn is_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Returns the number of changes that may be fed now.
    pub fn room(&self) -> usize {
        if self.lanes.is_full() {
            return 0;
        }
        self.rules.max_in_flight.saturating_sub(self.changes.len())
    }

    /// Returns the time at which a pause or an `ack_wait` ends next, so that `take` may return a change;
    /// `None`: only another call can make a change ready.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.due.next_ms()
    }

    /// True when change `number` is outstanding.
    pub fn has_number(&self, number: u64) -> bool {
        self.changes.contains_key(&number)
    }

    /// True while nothing is delivered.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// True while the taker of this attempt may answer, and has not timed out.
    pub fn is_taken(&self, id: DeliveryId) -> bool {
        let number = self.by_id.get(&id.change);
        let item = number.and_then(|number| self.changes.get(number));
        item.is_some_and(|item| {
            item.attempts == id.attempt && matches!(item.state, State::Taken { .. })
        })
    }

    /// Changes the rules. Changes that are with takers keep their deadline.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Returns the outstanding changes, by number, each with the reason why it is not given out now.
    pub fn waits(&self) -> impl Iterator<Item = Waits> {
        self.changes.iter().map(|(number, item)| {
            let is_first = self.lanes.first(&item.change.key) == Some(*number);
            item.waits(is_first && !self.is_barred(*number))
        })
    }

    /// True when a change can be taken at once, unless delivery is paused.
    pub fn is_ready(&self) -> bool {
        self.next_ready().is_some()
    }

    /// Returns the number of outstanding changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// True when nothing is outstanding.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Returns the number of outstanding changes that are with takers.
    pub fn taken(&self) -> usize {
        self.due.taken()
    }

    /// Returns the counts since the consumer was made.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the dead letters, by number.
    pub fn dead(&self) -> impl ExactSizeIterator<Item = &DeadLetter> {
        self.dead.letters()
    }

    fn has(&self, id: ChangeId) -> bool {
        self.by_id.contains_key(&id)
    }

    fn next_ready(&self) -> Option<u64> {
        self.due
            .first_ready()
            .filter(|first| !self.is_barred(*first))
    }

    // True for a change that waits for a gap before it, and for a gap that waits for the changes before
    // it.
    fn is_barred(&self, number: u64) -> bool {
        let first = || self.changes.keys().next().copied();
        self.gap
            .is_some_and(|gap| number > gap || (number == gap && first() != Some(gap)))
    }

    // Checks a change that is about to be taken.
    fn check_ready(&self, number: u64) {
        assert!(!self.is_barred(number), "O5: nothing passes a gap");
        let item = self.changes.get(&number).expect("O2: it is outstanding");
        let first = self.lanes.first(&item.change.key);
        assert_eq!(first, Some(number), "O3: the first of its key is taken");
    }

    fn forget_from(&mut self, first: u64) {
        let numbers: Vec<u64> = self.changes.range(first..).map(|(it, _)| *it).collect();
        for number in numbers {
            self.remove(number);
        }
    }

    // O4: position and changes are saved together, so a missing row loses a change, and an extra
    // row repeats one.
    fn check_saved(&self) {
        assert_eq!(
            self.saved.len(),
            self.changes.len().saturating_add(self.dead().len()),
            "O4: rows in the file, and changes that need one"
        );
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        assert!(self.lanes.all().iter().eq(self.changes.keys()), "O1");
        assert_eq!(self.by_id.len(), self.changes.len(), "O1");
        assert_eq!(self.due.all(), self.lanes.firsts(), "O2");
        let gaps = self
            .changes
            .iter()
            .filter(|(_, item)| item.change.kind == Kind::Gap);
        assert!(gaps.map(|(number, _)| *number).eq(self.gap), "O5");
        for (number, item) in &self.changes {
            let is_taken = matches!(item.state, State::Taken { .. });
            assert!(!is_taken || !self.is_barred(*number), "O5");
        }
    }

    fn place(&self, number: u64) -> Place {
        if let Some(item) = self.changes.get(&number) {
            return Place::Outstanding {
                change: item.change.clone(),
                attempts: item.attempts,
                state: item.state,
            };
        }
        self.dead.place(number)
    }

    // Returns the number of the change that `id` may answer. Changes nothing, so that a refused
    // answer changes nothing.
    fn find(&self, id: DeliveryId) -> Result<u64, AckError> {
        let Some(number) = self.by_id.get(&id.change) else {
            return Err(if self.dead.has(id.change) {
                AckError::Dead { id }
            } else {
                AckError::NotOutstanding { id }
            });
        };
        let item = self.changes.get(number);
        let Some(item) = item.filter(|item| id.attempt > 0 && item.attempts >= id.attempt) else {
            return Err(AckError::NotOutstanding { id });
        };
        item.check_answer(id)?;
        Ok(*number)
    }

    fn push(&mut self, id: ChangeId, change: ChangeRef) -> u64 {
        let number = self.next_number;
        self.next_number = number.saturating_add(1);
        self.touched.insert(number);
        let item = Item {
            id,
            change,
            attempts: 0,
            state: State::AT_ONCE,
        };
        self.add(number, item);
        number
    }

    fn add(&mut self, number: u64, item: Item) {
        self.by_id.insert(item.id, number);
        if item.change.kind == Kind::Gap {
            assert_eq!(self.gap.replace(number), None, "O5: one gap at a time");
        }
        if self.lanes.add(&item.change.key, number) {
            self.due.add(number, item.state);
        }
        let before = self.changes.insert(number, item);
        assert!(before.is_none(), "O1: number {number} names two changes");
    }

    // Ends an attempt that has failed: the change waits for the next one, or becomes a dead letter.
    // `late`: its taker may still acknowledge it.
    fn fail(&mut self, number: u64, now_ms: u64, delay_ms: Option<u64>, late: bool) {
        let Some(attempts) = self.changes.get(&number).map(|item| item.attempts) else {
            return;
        };
        let is_last = self.rules.max_deliver.is_some_and(|max| attempts >= max);
        // Without room for another dead letter, the change is tried again.
        if is_last && !self.dead.is_full() {
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
        self.dead.add(DeadLetter {
            number,
            change: item.change,
            attempts: item.attempts,
            reason,
            died_ms: now_ms,
        });
    }

    // Moves a change into a state. The change is the first of its lane: only such changes are
    // taken.
    fn set_state(&mut self, number: u64, state: State) {
        let Some(item) = self.changes.get_mut(&number) else {
            return;
        };
        item.state = state;
        self.touched.insert(number);
        self.due.add(number, state);
    }

    fn unqueue(&mut self, number: u64) {
        if let Some(item) = self.changes.get(&number) {
            self.due.remove(number, item.state);
        }
    }

    fn remove(&mut self, number: u64) -> Option<Item> {
        self.unqueue(number);
        let item = self.changes.remove(&number)?;
        self.by_id.remove(&item.id);
        self.touched.insert(number);
        self.gap = self.gap.filter(|gap| *gap != number);
        let next = self.lanes.remove(&item.change.key, number);
        if let Some((next, state)) = next.and_then(|it| Some((it, self.changes.get(&it)?.state))) {
            self.due.add(next, state);
        }
        Some(item)
    }
}
