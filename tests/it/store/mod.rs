//! A store and the directory of its node, as a program uses them.

mod bases;
mod data;
mod handle;
mod list;
mod meta;
mod node;
mod past;
mod pruned;
mod root;
mod snapshot;
mod take_base;
mod vault;
