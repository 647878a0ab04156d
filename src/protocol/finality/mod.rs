//! Finality: which entries of a store can change nothing any more, and what may go because of it.
//!
//! Admins publish [anchors acts](crate::protocol::anchors_act). An anchor is a place in an author's
//! log; everything that it leads back to is *final*. These rules decide, on every node alike and in
//! whatever order acts and entries come:
//!
//! - R1: an anchors act counts if its entry has authority, as for every other reserved op
//!   ([`Members::authorized`](crate::protocol::membership::Members::authorized)).
//! - R2: the anchors of a store are all that counting acts name, joined. One has no effect as long as
//!   its entry, or one that it leads back to, has not come.
//! - R3: a final entry counts whatever removals name. Of an author with anchors, an entry that is
//!   neither final nor after a last anchor is *void*: it never counts. An anchor is a *last* one if no
//!   other anchor of its author comes after it. A removal that names a tip which is not here, at or
//!   below the author's greatest anchor, keeps nothing beyond what is final. A void tip above that
//!   anchor is taken for one that is not here.
//! - R4: a reference to an entry at or below the greatest anchor of its author is not checked: the
//!   entry counts as present. A final entry is not asked for its parents.
//!
//! Void entries are not taken in, as long as no act that is known may name them. A node that had them
//! before the act came keeps them: they supersede nothing and stand in no frontier and no ack, so nobody
//! else gets them. Whatever cites them waits as for any other entry that does not come, for some time.
//! If a later act names one, it counts, and all nodes ask for it.
//!
//! All this is about entries, not about acts: the members of a mesh are evaluated without it, from
//! acts that are kept for ever.
//!
//! An admin makes final what is at or below the [`Watermark`]. A node may remove final entries from its
//! logs: [`may_drop`] has the conditions, [`Retention`] decides how much history it keeps, and
//! [`HistoryPolicy`] has the numbers. Acts also
//! take tombstones from the state ([`Collection`]).

mod chains;
mod collect;
mod collections;
mod drop_check;
mod finality;
mod footing;
mod looks;
mod policy;
mod proven;
mod retention;
mod stability;
mod taking;
mod waiting;
mod watermark;

pub use chains::Chains;
pub use collect::Collection;
pub use collections::{Collections, CollectionsHash, Ended};
pub use drop_check::{BaseState, DropFacts, NotYet, may_drop};
pub use finality::{Arrival, Fate, Finality};
pub use footing::is_borne;
pub use looks::Looks;
pub use policy::{DORMANT_AFTER_MS_MIN, DORMANT_BYTES_MIN, HistoryPolicy};
pub use proven::{Heard, Proven};
pub use retention::{
    ConsumerHold, DropPoint, Dropping, Lagging, NoRoom, Retention, StorePolicy, has_room,
    is_act_due, is_collection_due,
};
pub use stability::Stability;
pub use taking::Taking;
pub use waiting::{Seen, Waiting};
pub use watermark::{AckMissing, Grounds, Held, Hold, Watermark};

#[cfg(test)]
mod tests;
