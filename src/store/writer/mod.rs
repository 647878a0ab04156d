//! The writing wing: one thread through which every entry goes into the log.
//!
//! ```text
//! queue -> actor -> draft (local writes) ---------\
//!                -> intake (from elsewhere) -------> transaction -> log, state, bus, gossip
//!                -> own_log, repair, far_ahead, mend, recount, rebuild, prune, install,
//!                   flush, expiry
//! ```
//! The parts that these files share are in [`writer::Writer`].

pub(super) mod actor;
mod apply;
mod collecting;
pub(super) mod command;
mod draft;
mod expiry;
pub(super) mod far_ahead;
mod flush;
pub(super) mod fold;
pub(super) mod forks;
mod foundings;
mod group;
mod health;
pub(super) mod install;
pub(super) mod intake;
pub(super) mod known_acts;
mod lookup;
mod marks;
pub(super) mod membership;
mod mend;
mod mending;
mod notes;
pub(super) mod open;
mod own_log;
pub(super) mod prune;
pub(super) mod queue;
mod rebuild;
mod recount;
pub(super) mod repair;
mod replayed;
pub(super) mod status;
mod sweep;
mod transaction;
mod writer;
