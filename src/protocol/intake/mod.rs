//! Intake: what becomes of an entry that comes from elsewhere.
//!
//! [`Intake::offer`] decides, in this order:
//!
//! 1. Does it stand where the log has a hole? Then it repairs the hole.
//! 2. May its author write here? A stranger's entry waits; a reader's or a removed member's is
//!    refused.
//! 3. Is it stamped too far ahead of this node's clock? Then it is held.
//! 4. Where in its author's log does it belong ([`chain`](crate::protocol::chain))? What lies before
//!    it may have to come first.
//! 5. Are the parents that it cites here? Those that will never count are not waited for, the others
//!    for a minute.
//!
//! Nothing here reads a file or a clock: `now_ms` is an argument, and all that is asked of the log
//! goes through [`Lookup`]. The simulator in `tests/it/sim` runs this very code.

mod bases;
mod held;
mod intake;
mod lookup;
mod patience;
mod pending;
mod run;
mod verdict;

pub use bases::{Base, Bases};
pub use held::Held;
pub use intake::{Intake, IntakeLimits};
pub use lookup::{Lookup, Place};
pub use pending::Pending;
pub use verdict::{Refusal, Verdict};

#[cfg(test)]
mod tests;
