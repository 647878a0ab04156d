//! Rules: values in, decisions out.
//!
//! Nothing here reads a clock, a file, a socket, or a random source; the time is an argument. So
//! the deterministic simulator runs this code unchanged.
//!
//! An [`entry`] is the signed unit of a log, stamped by a hybrid logical clock ([`hlc`]). [`run`]
//! decides which signatures must be checked, [`intake`] what becomes of an entry, [`chain`] where
//! in its author's log it belongs, and [`membership`] whether it counts. [`heads`] gives the value
//! of a key, [`heads_row`] its bytes, [`merkle`] a hash of all of them, and [`change`] what
//! watchers receive. A [`frontier`] names a set of entries; a [`cursor`] and an [`ack`] are
//! frontiers with a purpose; [`acked`] joins acks, [`agreement`] compares the states that they claim
//! ([`root_pace`]: when a node computes its own), and an [`announce`] asks others to sync.
//! [`fork`] detects and closes forks, [`sync`] exchanges missing entries, and [`consumer`] tracks
//! durable positions across a [`gap`]. [`compare`] has the messages by which a node finds the keys that another one has
//! otherwise. [`asserted`] checks what others assert that an entry did; [`pattern`] selects keys.
//! [`shared_stores`] decides which stores of others are opened. [`snapshot`] has the form of a backup. An
//! [`anchors_act`] makes entries final ([`placed_act`]: where it stands); [`finality`] decides what
//! follows, and what may be removed.

#![cfg_attr(
    not(test),
    warn(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::wildcard_enum_match_arm
    )
)]

pub mod ack;
pub mod acked;
pub mod agreement;
pub mod anchor;
pub mod anchors_act;
pub mod announce;
pub mod asserted;
pub mod chain;
pub mod change;
pub mod compare;
pub mod consumer;
pub mod cursor;
pub mod entry;
#[cfg(feature = "node")]
pub mod finality;
pub mod fork;
pub mod frontier;
pub mod gap;
pub mod heads;
pub mod heads_row;
pub mod hlc;
#[cfg(feature = "node")]
pub mod intake;
pub mod membership;
pub mod merkle;
pub mod pattern;
pub mod peer;
pub mod placed_act;
pub mod root_pace;
pub mod run;
pub mod shared_stores;
pub mod signed;
#[cfg(feature = "node")]
pub mod snapshot;
#[cfg(feature = "node")]
pub mod standings;
#[cfg(feature = "node")]
pub mod sync;
