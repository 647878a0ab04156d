//! The life of a peer: when it is dialled, when it is synced with, and when it is shut out.
//!
//! Four rules, each a separate value or function. No rule reads a clock or a random source: times
//! are milliseconds on a clock of the caller that never goes back, `random` is any 64 random bits.
//!
//! ```text
//! Dialer      for each peer: dial, wait twice as long after each failure, stay with a connection
//! sync_step   for each connection: sync when asked to, and periodically
//! Strikes     for each peer: counts its violations, and how long it is shut out for them
//! ShutOut     for each peer that was shut out: the time at which the shut-out ends
//! ```

mod dialer;
mod jitter;
mod strikes;
mod sync_step;

pub use dialer::{DialStep, Dialer};
pub use strikes::{ShutOut, Strikes};
pub use sync_step::{SyncEvent, SyncStep, busy_wait_ms, sync_step};
