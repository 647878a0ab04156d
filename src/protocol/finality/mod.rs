//! Finality: which entries of a store can change nothing any more, and what may go because of it.
//!
//! [`may_drop`] has the conditions under which a node may remove final entries from its logs,
//! [`Retention`] decides how much history it keeps.

mod drop_check;
mod retention;

pub use drop_check::{BaseState, DropFacts, NotYet, may_drop};
pub use retention::{
    ConsumerHold, DropPoint, Dropping, Lagging, NoRoom, Retention, StorePolicy, has_room,
    is_act_due,
};
