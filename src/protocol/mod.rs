//! The rules: values in, decisions out.
//!
//! Nothing here reads a clock, a file, a socket, or a random source; `now` is an argument.

#![cfg_attr(
    not(test),
    warn(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::wildcard_enum_match_arm
    )
)]

pub mod ack;
pub mod asserted;
pub mod chain;
pub mod change;
pub mod consumer;
pub mod cursor;
pub mod entry;
pub mod fork;
pub mod frontier;
pub mod heads;
pub mod hlc;
pub mod intake;
pub mod membership;
pub mod pattern;

pub mod peer;
pub mod run;
pub mod sync;
