//! The place of a consumer's change: waiting, with a taker, dead, or finished.

use crate::protocol::consumer::{
    change_ref::{ChangeId, ChangeRef},
    delivery_id::DeliveryId,
    error::AckError,
};

/// The place of a consumer's change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The change was fed and is not finished.
    Outstanding {
        /// The change.
        change: ChangeRef,
        /// Attempts so far.
        attempts: u32,
        /// Whether a taker has it.
        state: State,
    },
    /// The change was given up.
    Dead(DeadLetter),
    /// The change was acknowledged or skipped, and has no row.
    Finished,
}

/// Whether a taker has an outstanding change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No taker has the change.
    Waiting {
        /// Time from which on the change may be taken, ms since 1970; 0: at once.
        due_ms: u64,
        /// True when the last attempt timed out: its taker may still answer.
        late: bool,
    },
    /// A taker has the change.
    Taken {
        /// Time at which the change is taken back, ms since 1970.
        deadline_ms: u64,
        /// True when the taker outlives this process: the deadline stays the same after a restart.
        detached: bool,
    },
}

impl State {
    /// The state of a change that may be taken at once.
    pub const AT_ONCE: Self = Self::Waiting {
        due_ms: 0,
        late: false,
    };
}

/// An outstanding change, and why no taker gets it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    /// The change.
    pub change: ChangeRef,
    /// Id of the last attempt; with attempt 0 before the first one.
    pub id: DeliveryId,
    /// Whether a taker has it, and when that changes.
    pub state: State,
    /// True: an earlier change of its key is not finished yet, or a gap before it, or it is a gap and a
    /// change before it is not.
    pub behind: bool,
}

/// An outstanding change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) id: ChangeId,
    pub(super) change: ChangeRef,
    pub(super) attempts: u32,
    pub(super) state: State,
}

impl Item {
    /// Checks that an answer to an attempt counts.
    ///
    /// # Errors
    /// `GivenAgain`, `Answered`.
    pub(super) fn check_answer(&self, id: DeliveryId) -> Result<(), AckError> {
        if self.attempts > id.attempt {
            let attempts = self.attempts;
            return Err(AckError::GivenAgain { id, attempts });
        }
        match self.state {
            State::Taken { .. } | State::Waiting { late: true, .. } => Ok(()),
            State::Waiting { late: false, .. } => Err(AckError::Answered { id }),
        }
    }

    /// Returns why it is not given out now. `is_first`: no change of its key is before it.
    pub(super) fn waits(&self, is_first: bool) -> Waits {
        Waits {
            change: self.change.clone(),
            id: DeliveryId {
                change: self.id,
                attempt: self.attempts,
            },
            state: self.state,
            behind: !is_first,
        }
    }
}

/// Why a change became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeathReason {
    /// None of `max_deliver` attempts was acknowledged.
    MaxDeliver,
    /// A taker answered `term`: the change cannot be processed.
    Terminated,
    /// The log no longer has the change, or its record cannot be read.
    Unreadable,
    /// The entry of the change was removed from the log, together with all before it.
    Pruned,
}

/// A change that is not delivered again, unless it is retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Number in the consumer, in the order of feeding.
    pub number: u64,
    /// The change.
    pub change: ChangeRef,
    /// Attempts that were made.
    pub attempts: u32,
    /// Reason why the change was given up.
    pub reason: DeathReason,
    /// Time when the change was given up, ms since 1970.
    pub died_ms: u64,
}

/// Dead letters that were made outstanding again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retried {
    /// Number of letters.
    pub count: usize,
    /// Number of the gap among them: the state must be fed after it. `None`: there is none.
    pub gap: Option<u64>,
}

/// A change that was given to a taker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Number in the consumer, in the order of feeding.
    pub number: u64,
    /// Id that the taker sends with its answer.
    pub id: DeliveryId,
    /// The change.
    pub change: ChangeRef,
}

/// Counts of a consumer since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Changes acknowledged.
    pub acked: u64,
    /// Attempts after the first one of each change.
    pub redelivered: u64,
    /// Gaps that were fed; one that was retried counts again.
    pub gaps: u64,
}
