//! Why an answer to a delivery is refused.

use crate::{limits::DEAD_LETTERS_MAX, protocol::consumer::delivery_id::DeliveryId};

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
