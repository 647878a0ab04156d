//! Why an answer to a delivery is refused.

use crate::{limits::DEAD_LETTERS_MAX, protocol::consumer::delivery_id::DeliveryId};

/// Why an answer to a delivery is refused. A refused answer changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// The change was acknowledged already, or this consumer never delivered it.
    #[error(
        "{id} is not outstanding: it was acknowledged already, or it belongs to another consumer"
    )]
    NotOutstanding {
        /// Attempt that was answered.
        id: DeliveryId,
    },
    /// The attempt timed out, and the change was delivered again since: another taker has the
    /// change.
    #[error("{id} was not acknowledged in time and was delivered again as attempt {attempts}")]
    GivenAgain {
        /// Attempt that was answered.
        id: DeliveryId,
        /// Number of the newest attempt.
        attempts: u32,
    },
    /// The attempt was given back before.
    #[error("{id} was answered before: the change was given back")]
    Answered {
        /// Attempt that was answered.
        id: DeliveryId,
    },
    /// The change is a dead letter: retry or skip it.
    #[error("{id} is a dead letter")]
    Dead {
        /// Attempt that was answered.
        id: DeliveryId,
    },
    /// There is no room for another dead letter.
    #[error("the consumer has {DEAD_LETTERS_MAX} dead letters already: retry or skip some")]
    DeadLettersFull,
}
