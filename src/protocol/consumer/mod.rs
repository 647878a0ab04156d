//! A durable consumer: which changes are outstanding, who may have the next one, and what becomes
//! of those that nobody acknowledges.
//!
//! A consumer is a position (everything before it was fed to it) and a set of outstanding changes
//! (fed and not finished). Both are kept together, so that after a crash every change is finished,
//! outstanding, dead, or behind the position: never lost.

mod outstanding;
mod row;
#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr};

use bytes::Bytes;
use data_encoding::HEXLOWER_PERMISSIVE as HEX;

pub use outstanding::{Counts, Given, Outstanding, Place, State};
pub use row::{ConsumerRow, decode_change, decode_consumer, encode_change, encode_consumer};

use crate::{
    id::IdError,
    limits::DEAD_LETTERS_MAX,
    protocol::change::{Change, EntryRef, Kind},
};

/// How a consumer gives out changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Milliseconds that a taker has to acknowledge a change, unless it asks for more.
    pub ack_wait_ms: u64,
    /// Times a change is given out before it is a dead letter; `None`: no end.
    pub max_deliver: Option<u32>,
    /// Changes outstanding at a time, at least 1.
    pub max_in_flight: usize,
    /// Milliseconds before the 2nd, 3rd ... attempt; the last one is for all that follow. None at
    /// all: at once.
    pub backoff_ms: Vec<u64>,
}

/// Names a change: the same on every node, at every attempt, after every restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeId(pub [u8; 16]);

/// Names one attempt at a change: what a taker answers with. Printed as `<change>.<attempt>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    /// The change.
    pub change: ChangeId,
    /// 1 the first time.
    pub attempt: u32,
}

/// Where a change is found again: what a consumer keeps of it. The log has the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRef {
    /// The key.
    pub key: Bytes,
    /// What happened.
    pub kind: Kind,
    /// The entry that made the change.
    pub entry: EntryRef,
    /// Index of the op in its entry.
    pub op_index: u32,
    /// As in the change.
    pub expires_ms: Option<u64>,
    /// When the entry arrived in this node's log, ms since 1970.
    pub arrived_ms: u64,
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

/// An answer that finds nothing to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// It was acknowledged already, or this consumer never gave it out.
    #[error("{id} is not outstanding: it was acknowledged already, or is not of this consumer")]
    NotOutstanding {
        /// What was answered.
        id: DeliveryId,
    },
    /// Its time was over, and it was given out again since: another taker works on it.
    #[error(
        "{id} was not acknowledged in time and was given out again: attempt {attempts} counts now"
    )]
    GivenAgain {
        /// What was answered.
        id: DeliveryId,
        /// The newest attempt.
        attempts: u32,
    },
    /// This attempt was given back before.
    #[error("{id} was answered before: it was given back")]
    Answered {
        /// What was answered.
        id: DeliveryId,
    },
    /// It is a dead letter: retry or skip it there.
    #[error("{id} is a dead letter")]
    Dead {
        /// What was answered.
        id: DeliveryId,
    },
    /// There is no room for another dead letter.
    #[error("the consumer has {DEAD_LETTERS_MAX} dead letters already: retry or skip some")]
    DeadLettersFull,
}

impl Rules {
    /// Returns how long a change waits after its attempt number `attempt` has failed.
    pub fn backoff_ms(&self, attempt: u32) -> u64 {
        let index = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        let waits = &self.backoff_ms;
        let wait = waits.get(index).or(waits.last());
        wait.copied().unwrap_or(0)
    }
}

impl ChangeId {
    /// Returns the id of a change: a hash of its entry, key and kind.
    pub fn of(change: &ChangeRef) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("lattice 2026 change id v1");
        hasher
            .update(&change.entry.id.0)
            .update(change.kind.name().as_bytes())
            .update(b"\0")
            .update(&change.key);
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }
}

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEX.encode(&self.0))
    }
}

impl fmt::Debug for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChangeId({self})")
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.change, self.attempt)
    }
}

impl FromStr for DeliveryId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let read = || {
            let (change, attempt) = text.split_once('.')?;
            let change = HEX.decode(change.as_bytes()).ok()?;
            Some(Self {
                change: ChangeId(change.try_into().ok()?),
                attempt: attempt.parse().ok().filter(|attempt| *attempt > 0)?,
            })
        };
        read().ok_or_else(|| IdError::new(text, "a delivery (32 hex digits, a point, a number)"))
    }
}

impl From<&Change> for ChangeRef {
    fn from(change: &Change) -> Self {
        Self {
            // A copy: the change's own key keeps its whole entry in memory.
            key: Bytes::copy_from_slice(&change.key),
            kind: change.kind,
            entry: change.entry,
            op_index: change.op_index,
            expires_ms: change.expires_ms,
            arrived_ms: change.arrived_ms,
        }
    }
}
