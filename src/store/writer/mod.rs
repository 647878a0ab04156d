//! The writing wing: one thread through which every entry goes into the log.

pub(super) mod actor;
pub(super) mod forks;
pub(super) mod group;
pub(super) mod intake;
pub(super) mod marks;
pub(super) mod membership;
mod mend;
pub(super) mod open;
mod parents;
pub(super) mod queue;
pub(super) mod recount;
pub(super) mod repair;
pub(super) mod status;
mod waiting;
