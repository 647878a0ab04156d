//! Where a change of a consumer is: waiting, with a taker, dead, or finished.

use crate::protocol::consumer::{change_ref::ChangeRef, delivery_id::DeliveryId};

/// Where a change is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Fed, and not finished.
    Outstanding {
        /// The change.
        change: ChangeRef,
        /// Times it was given out.
        attempts: u32,
        /// Who has it.
        state: State,
    },
    /// Given up.
    Dead(DeadLetter),
    /// Acknowledged, or skipped.
    Gone,
}

/// Who has an outstanding change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nobody.
    Waiting {
        /// From when on it may be taken, ms since 1970.
        due_ms: u64,
        /// True when the last attempt ended because its time was over: its taker may still
        /// acknowledge it.
        late: bool,
    },
    /// A taker.
    Taken {
        /// When the taker loses it, ms since 1970.
        deadline_ms: u64,
        /// True when its taker outlives this process: it keeps its time after a restart.
        detached: bool,
    },
}

/// Why a change is given out no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeathReason {
    /// Nobody acknowledged it in `max_deliver` attempts.
    MaxDeliver,
    /// A taker said that it cannot be done.
    Terminated,
    /// The log does not have it any more, or not readable.
    Unreadable,
}

/// A change that is given out no more until somebody retries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its number in the consumer.
    pub number: u64,
    /// The change.
    pub change: ChangeRef,
    /// Times it was given out.
    pub attempts: u32,
    /// Why.
    pub reason: DeathReason,
    /// Since when, ms since 1970.
    pub died_ms: u64,
}

/// A change that was given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Its number in the consumer.
    pub number: u64,
    /// What the taker answers with.
    pub id: DeliveryId,
    /// The change.
    pub change: ChangeRef,
}

/// What happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Changes acknowledged.
    pub acked: u64,
    /// Attempts after the first one of a change.
    pub redelivered: u64,
}
