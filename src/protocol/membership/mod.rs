//! Membership: which nodes are members, with which role, and which entries of an author count.
//!
//! Membership is a pure function of the creator and of the set of acts in the root store; the order
//! in which acts arrive does not matter. An act is a grant of a role to a node, the removal of a node,
//! or the lowering of its role. These rules decide which acts count; all others are void:
//!
//! - Authority: an act needs the authority of its author. The creator has authority always. Any
//!   other author has it if the entry cites, as a parent, a counting grant of admin to that author.
//!   A grant that the entry does not cite does not help it, nor one that it does not name exactly
//!   (author, seq, stamp and id), so authority lies in the act's own past.
//! - Rank: the rank of an authority is the number of grants between it and the creator, then the id
//!   of the last of these grants; the lesser rank is the better. An act has the best rank among
//!   those grants that it cites; an admin has the best rank among all grants of admin to it.
//!   Between two nodes made admin by one entry the lesser key is the better. So a further grant can
//!   only better a rank, and never makes an act void.
//! - Removal: a removal counts against an admin only if its rank is better than the admin's, and
//!   against every node that is not an admin. So only the creator itself can remove the creator.
//! - Leaving: a member may remove itself without any authority. Of its removals of itself those
//!   count that the removals by others keep, the first on each branch. A removal of the creator by
//!   itself is void if no admin would be left, so there is always an admin.
//! - Kept entries: a removal names tips, or names a store without one. It speaks of the root store,
//!   and of the stores that it names; an admin's removal of itself speaks of all stores. Of a removed
//!   author's entries in a store those count that every removal by others that speaks of the store
//!   keeps, and, if it was an admin, that any one of its own removals keeps: each is one of its tips
//!   there, or is led back to by one. The tip in the root store is the entry by which it left. Any
//!   other node's removal of itself keeps all that it has: it ends the membership, and an admin that
//!   confirms it ends the rest. If it kept only what it names, nodes that have it would refuse forks
//!   by which other nodes take the key for [`spent`]; if it kept that of a spent key, one tip that
//!   nobody has would let in forks without end.
//! - Lowering: a lowering counts against the nodes that a removal would count against, but never
//!   against its author, and is final: the node has at most that role for ever. It names tips as a
//!   removal does. Of the node's acts those count that its tips in the root store keep. If it leaves
//!   the role of a reader, the node's entries count as if the lowering were a removal by another node.
//! - Removals are final: no grant makes a removed node a member again.
//! - Spent keys: see [`spent`].
//!
//! It follows that somebody with the old key of a node that left can add to what it granted, and
//! never void it: a forged branch with a removal of its own only adds. An admin that outranks the
//! node removes it once more, with the entries by which it left and all tips that are here
//! (`Node::confirm_departures`); then nothing can be added either. Tips that only the node itself
//! named are waited for and not named again, so that it cannot keep a way in.
//!
//! It follows that of two admins who remove each other the better ranked stays, and that grants
//! which a removed admin made after its tips are void. If an admin removes a writer that a better
//! ranked admin makes an admin without knowing of the removal, the grant prevails.

#[cfg(feature = "node")]
pub mod acts;
mod acts_hash;
#[cfg(feature = "node")]
mod evaluate;
#[cfg(feature = "node")]
pub mod genesis;
#[cfg(feature = "node")]
pub mod grant_chain;
#[cfg(feature = "node")]
pub mod invite;
#[cfg(feature = "node")]
mod kept_through;
#[cfg(feature = "node")]
mod members;
#[cfg(feature = "node")]
pub mod reserved;
#[cfg(feature = "node")]
pub mod role;
#[cfg(feature = "node")]
pub mod spent;

pub use acts_hash::ActsHash;
#[cfg(feature = "node")]
pub use kept_through::KeptThrough;
#[cfg(feature = "node")]
pub use members::{
    Departure, Grant, Lowering, Member, Members, MembershipError, Rank, Removal, Standing,
};

#[cfg(feature = "node")]
#[cfg(test)]
mod tests;
