//! The watching wing: streams of changes, read from files while a stream is behind, then live from
//! the bus.

mod clamp;
pub(super) mod event;
mod late_expiry;
pub(super) mod log_source;
pub(super) mod lookup;
pub(super) mod options;
mod phase;
mod piece;
pub(super) mod position;
mod selection;
mod source;
mod state_source;
pub(super) mod watch;
