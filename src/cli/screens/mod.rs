//! Draws what people see: data, a width and colours in, lines out.
//!
//! Nothing here reads a clock, asks a node or writes to a stream, but for [`names`], which can ask a node
//! for the names of the members.

pub(super) mod changes;
pub(super) mod consumers;
pub(super) mod differences;
pub(super) mod heads;
pub(super) mod health;
pub(super) mod hooks;
pub(super) mod items;
mod key_columns;
mod live_keys;
mod matters;
pub(super) mod names;
mod panel;
pub(super) mod past;
pub(super) mod peers;
mod prefixes;
mod rate;
pub(super) mod stores;
pub(super) mod top;
pub(super) mod tree;
mod tree_frame;
pub(super) mod when;
