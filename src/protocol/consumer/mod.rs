//! A durable consumer, as rules: which changes are outstanding, which one may be taken next, and when
//! an unacknowledged change is delivered again or becomes a dead letter.
//!
//! A consumer is a position (all changes before it were fed to the consumer, which means read from
//! the log for its takers) and a set of outstanding changes (fed and not finished). Both are saved
//! together, so after a crash every change is finished, outstanding, dead, or after the position:
//! never lost.
//!
//! Where history is missing, a consumer may go on with a gap and the state. At the gap a taker forgets
//! what it knows. So all changes that were fed before the gap are delivered before it, and the state only
//! after the gap is finished.

mod cause;
mod change_ref;
mod dead;
mod delivery_id;
mod due;
mod error;
#[cfg(test)]
mod gap_tests;
mod lanes;
mod on_gap;
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
pub use on_gap::OnGap;
pub use outstanding::Outstanding;
pub use place::{Counts, DeadLetter, DeathReason, Given, Place, Retried, State, Waits};
pub use row::{ConsumerRow, decode_change, decode_consumer, encode_change, encode_consumer};
pub use rules::Rules;
