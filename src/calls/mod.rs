//! The values that go into the calls of a store and come out of them.
//!
//! A [`Store`](crate::store::Store) of a node in this process and the thin client of a node in another process take and
//! return the same ones. Nothing here needs a node.

mod consumer;
mod item;
mod list;
mod watch_event;
mod watch_options;
mod write;

pub use consumer::{
    ConsumerChanges, ConsumerOptions, ConsumerStart, ConsumerState, ConsumerStatus, Idle,
};
pub use item::Item;
pub use list::List;
pub use watch_event::WatchEvent;
pub use watch_options::{Start, WatchMode, WatchOptions};
pub use write::{Condition, Write, Written};
