//! Durable consumers: named positions on this node, from which changes are delivered to takers, who
//! acknowledge them.
//!
//! The feeder of a consumer follows a watch and adds the selected changes to the consumer while
//! there is room (it feeds them). Each taker gets one change at a time, in order per key. The saver
//! writes position and outstanding changes together. So each change is delivered at least once,
//! even if a task, the thread or the node dies in between.
//!
//! # Promises
//! A selected change is delivered until a taker acknowledges it, or it becomes a dead letter.
//! Changes of one key are delivered one at a time, in the order of the log. As long as each change is
//! acknowledged before the next is taken, all changes are delivered in causal order, per author in
//! sequence; with `max_in_flight` 1 this holds even when some are given back. Nothing beyond this
//! is promised: if a taker dies after its work and before its acknowledgement is durable, another
//! taker repeats the work.

mod ahead;
mod bell;
mod consumer;
mod consumers;
mod delivery;
mod error;
mod feeder;
mod file;
mod held_history;
mod host;
mod live;
mod live_state;
mod needs;
mod options;
mod saver;

pub use crate::calls::{
    ConsumerChanges, ConsumerOptions, ConsumerStart, ConsumerState, ConsumerStatus, Idle,
};
pub use consumer::{Consumer, Deliveries};
pub(super) use consumers::Consumers;
pub use delivery::{Claim, Delivery};
pub use error::ConsumerError;
pub use held_history::HeldHistory;
