//! The life of a peer: when it is dialled, when it is synced with, and when it is shut out.
//!
//! Nine rules, each a value or a function of its own. None reads a clock or a random source: times
//! are milliseconds on a clock of the caller that never goes back, `random` is any 64 random bits.
//!
//! ```text
//! Dialer      for each peer: dial, wait twice as long after each failure, stay with a connection
//! sync_step   for each connection: sync when asked to, and periodically
//! Lag         for each connection: compare when acks differ for too long
//! Strikes     for each peer: counts its violations, and how long it is shut out for them
//! ShutOut     for each peer that was shut out: until when
//! median_ms   the clock that a node compares its own with
//! Allowance   for each peer and kind of work: how much of it the peer may cause
//! Lobby       which strangers stay connected until they have said hello
//! BaseGiver   for each peer: whether others are asked first for a base
//! ```

mod allowance;
mod base_giver;
mod dialer;
mod jitter;
mod lag;
mod lobby;
mod median;
mod strikes;
mod sync_step;

pub use allowance::{Allowance, Rate};
pub use base_giver::BaseGiver;
pub use dialer::{DialStep, Dialer};
pub use lag::Lag;
pub use lobby::Lobby;
pub use median::median_ms;
pub use strikes::{ShutOut, Strikes};
pub use sync_step::{SyncEvent, SyncStep, busy_wait_ms, sync_step};
