//! The part of a consumer in memory that changes.

use std::{collections::BTreeMap, sync::Arc};

use tokio::task::AbortHandle;

use crate::{
    limits::{CONSUMER_AHEAD_BYTES_MAX, DRIFT_MS_MAX},
    protocol::{
        change::{Change, Origin},
        consumer::{ChangeRef, ConsumerRow, Outstanding},
        frontier::MissingRange,
    },
    store::{
        Shared,
        consumers::{
            ConsumerError, ConsumerStart,
            ahead::{compact, memory_bytes},
            needs::{Needs, is_of_log},
        },
        watch::position::{Position, moved_back},
    },
};

/// The part of a consumer that changes.
// Invariants, whenever the lock is free:
// L1. `position` covers exactly the changes that were fed: each of them is finished, outstanding,
//     dead, or does not match. It covers whole groups only (`Position::inside` is false). While the
//     state after a gap is fed (`row.state_of`), it is where the changes after that state begin: it
//     was set together with the gap, and a state that is read later covers it, too.
// L2. Within an epoch the position moves forward; it moves back only where the members have changed.
// L3. With L1 and `dirty`, one `take_dirty` copies position and changes of the same moment: the
//     file never has a position without its changes.
#[derive(Debug)]
pub(super) struct LiveState {
    // The row as it is saved, without position, counts and `paused`: `take_dirty` fills these
    // fields in.
    pub(super) row: ConsumerRow,
    pub(super) outstanding: Outstanding,
    // `None`: no change was read yet, and the consumer begins at the time that `row` names.
    pub(super) position: Option<Position>,
    // Number of resets and changes of the prefixes: a feeder of an earlier epoch adds no further
    // changes.
    pub(super) epoch: u64,
    // Set by `set_feeder`, taken and aborted when an epoch or the consumer ends.
    pub(super) feeder: Option<AbortHandle>,
    // Subset of the outstanding changes, by number: changes that were fed since the start and never
    // taken. All others are read again from the log.
    pub(super) ahead: BTreeMap<u64, Arc<Change>>,
    // Sum of `memory_bytes` over `ahead`.
    pub(super) ahead_bytes: usize,
    // Entries that the feeder waits for. Set by the feeder, cleared by its next feed.
    pub(super) lacks: Vec<MissingRange>,
    // Set once, at the start, if the rows in the file were damaged: they are not overwritten.
    pub(super) damaged: Option<String>,
    // Set once, when the consumer is deleted, the store closed, or the file failed.
    pub(super) over: Option<ConsumerError>,
    // True when the file is behind this state. Set by every change, cleared by `take_dirty`.
    pub(super) dirty: bool,
}

impl LiveState {
    /// Returns an error if the consumer has ended.
    pub(super) fn check_over(&self) -> Result<(), ConsumerError> {
        self.over.clone().map_or(Ok(()), Err)
    }

    /// Adds changes that were read.
    pub(super) fn add(&mut self, changes: Vec<Arc<Change>>) {
        for change in changes {
            let mut change = compact(change);
            if change.origin == Origin::Initial {
                let of_state = Change {
                    gap_number: self.row.state_of,
                    ..Change::clone(&change)
                };
                change = Arc::new(of_state);
            }
            if let Some(number) = self.outstanding.feed(ChangeRef::from(&*change)) {
                self.ahead_bytes += memory_bytes(&change);
                self.ahead.insert(number, change);
            }
        }
        self.check_ahead();
    }

    /// Adds a gap that was met, after which the state is fed, and then the changes after `position`.
    pub(super) fn add_gap(&mut self, gap: &Change, position: Position) {
        self.row.state_of = self.outstanding.feed_gap(ChangeRef::from(gap));
        self.position = Some(position);
        self.lacks.clear();
        let outstanding = &self.outstanding;
        self.ahead
            .retain(|number, _| outstanding.has_number(*number));
        self.ahead_bytes = self.ahead.values().map(|change| memory_bytes(change)).sum();
        self.check_ahead();
    }

    /// Ends the feeder and its epoch. The caller then starts the next one.
    pub(super) fn next_epoch(&mut self) {
        self.epoch += 1;
        if let Some(feeder) = self.feeder.take() {
            feeder.abort();
        }
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

    fn check_ahead(&self) {
        assert!(
            self.ahead.len() <= self.outstanding.len(),
            "only outstanding changes are read ahead"
        );
    }

    /// Checks L1 and L2 for a position that was just fed.
    pub(super) fn check_fed(&self, shared: &Shared, position: &Position) {
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

    /// True when a feed without changes would change nothing.
    pub(super) fn is_at(&self, epoch: u64, position: &Position) -> bool {
        self.epoch == epoch
            && self.lacks.is_empty()
            && self.position.as_ref().is_some_and(|at| {
                Arc::ptr_eq(&at.frontier, &position.frontier)
                    && at.partial == position.partial
                    && at.expired_through_ms == position.expired_through_ms
            })
    }

    /// Returns the changes that are not read or not finished; `None` for a consumer that reads no more.
    pub(super) fn needs(&self) -> Option<Needs> {
        if !self.wants(self.epoch) {
            return None;
        }
        let outstanding = self.outstanding.waits().map(|waits| waits.change);
        let dead = self.outstanding.dead().map(|letter| letter.change.clone());
        let of_log = outstanding.chain(dead).filter(|it| is_of_log(it.kind));
        Some(Needs {
            position: self.position.clone(),
            start: match self.row.since_arrived_ms {
                0 => ConsumerStart::SinceAuthored {
                    ms: self.row.since_authored_ms,
                },
                ms => ConsumerStart::SinceArrived { ms },
            },
            entries: of_log.map(|change| change.entry).collect(),
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
