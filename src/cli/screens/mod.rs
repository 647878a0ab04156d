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
mod matters;
pub(super) mod names;
pub(super) mod past;
pub(super) mod peers;
pub(super) mod stores;
pub(super) mod when;
