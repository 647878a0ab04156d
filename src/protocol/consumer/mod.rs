//! A durable consumer, as rules: which changes are outstanding, which one may be taken next, and when
//! an unacknowledged change is delivered again or becomes a dead letter.
//!
//! A consumer is a position (all changes before it were fed to the consumer, which means read from
//! the log for its takers) and a set of outstanding changes (fed and not finished). Both are saved
//! together, so after a crash every change is finished, outstanding, dead, or after the position:
//! never lost.

mod cause;
mod change_ref;
mod delivery_id;
mod error;
mod outstanding;
mod place;
mod row;
mod rules;
#[cfg(test)]
mod tests;

pub use cause::cause_of;
pub use change_ref::{ChangeId, ChangeRef};
pub use delivery_id::DeliveryId;
pub use error::AckError;
pub use outstanding::Outstanding;
pub use place::{Counts, DeadLetter, DeathReason, Given, Place, State, Waits};
pub use row::{ConsumerRow, decode_change, decode_consumer, encode_change, encode_consumer};
pub use rules::Rules;
