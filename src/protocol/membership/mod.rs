//! Membership: who belongs, with which role, and which of an author's entries count.
//!
//! A pure function of the set of acts in the root store, in whatever order they came:
//!
//! - An act counts if its author is the creator, or if its entry cites a counting grant of admin to
//!   its author. What is granted later does not help it.
//! - Authority has a rank: how many grants it is away from the creator, then the id of the last of
//!   them. An act has that of the best counting grant it cites; a node that of its best of admin.
//!   So a further grant can only better a rank, and never takes an act away from who wrote it.
//! - A removal counts against admins whose rank is worse than its own, and against everybody who
//!   is no admin. The creator can be removed by nobody else.
//! - Every member may leave: a removal of its own author needs no authority. The first one counts.
//! - Of a removed author's acts those count that every removal of it has a tip after.
//!
//! So of two admins who remove each other the better ranked stays; what a removed admin granted past
//! its tips is void; and where an admin removes a writer whom a better ranked one, not knowing it,
//! makes an admin, the better ranked has its way.

mod evaluate;
pub mod genesis;
pub mod grant_chain;
pub mod invite;
mod kept_through;
mod members;
pub mod role;

pub use kept_through::KeptThrough;
pub use members::{Grant, Member, Members, MembershipError, Rank, Removal, Standing};

#[cfg(test)]
mod tests;
