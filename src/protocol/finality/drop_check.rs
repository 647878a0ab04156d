//! Drop check: the conditions under which a node may remove the entries at or below the anchors of an
//! act.
//!
//! Removing them changes no answer of the node, as long as it never has to take them back: so the act
//! must be one that nobody can void, and the base one that every node computes alike.

use std::collections::BTreeSet;

use crate::{id::Author, protocol::anchors_act::BaseHash};

/// All that decides whether entries may be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropFacts {
    /// Whether the act counts on this node.
    pub counts: bool,
    /// Active admins that have not acknowledged the act
    /// ([`Grounds::admins_without`](super::Grounds::admins_without)): one of them might void it.
    pub unseen_by: BTreeSet<Author>,
    /// Authors with an anchor of the act whose entry, or one before it, is not applied here.
    pub incomplete: BTreeSet<Author>,
    /// The base that is to take the place of the entries.
    pub base: BaseState,
    /// Whether the state on disk has all of these entries.
    pub flushed: bool,
    /// Authors of whose log here a part is damaged, cut off or missing.
    pub damaged: BTreeSet<Author>,
    /// Number of entries that counted here before the act and that it made void: an admin of lower rank
    /// may have named one of two branches.
    pub voided: u64,
}

/// State of the base that is to take the place of removed entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaseState {
    /// It is not durable, or was not read again since it was written.
    NotDurable,
    /// It is durable and has the hash `own`; the act names `named`, if it names any.
    Durable {
        /// Hash of the base here.
        own: BaseHash,
        /// Hash that the act names.
        named: Option<BaseHash>,
    },
    /// It is durable, and follows from the anchors of several acts, none of which has all of them. So
    /// there is no hash to compare; the next act has one.
    Joined,
}

/// Reason why entries must not be removed yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotYet {
    /// The act does not count.
    #[error("the anchors act does not count")]
    Void,
    /// An admin might void the act.
    #[error(
        "the act that makes them final is not acknowledged yet by {}",
        listed(admins)
    )]
    Unseen {
        /// The admins.
        admins: BTreeSet<Author>,
    },
    /// Anchored entries are not here.
    #[error(
        "not all final entries are here yet: those of {} are missing",
        listed(authors)
    )]
    Incomplete {
        /// Their authors.
        authors: BTreeSet<Author>,
    },
    /// There is no base.
    #[error("the base is not on disk yet")]
    NoBase,
    /// The base is another one than that of the admin: one of the two nodes has another state.
    #[error(
        "the base here is not the one that the anchors act names: this node may have another state; \
         `lattice repair --state-from` takes that of the admin"
    )]
    OtherBase {
        /// Hash of the base here.
        own: BaseHash,
        /// Hash that the act names.
        named: BaseHash,
    },
    /// The admin named no base.
    #[error("the anchors act names no base, so none can be compared")]
    Uncompared,
    /// The state on disk is older.
    #[error("the state on disk does not have all final entries yet")]
    Unflushed,
    /// A log is damaged.
    #[error("the logs of {} authors are damaged here: run `lattice verify`", authors.len())]
    Damaged {
        /// Authors of the logs.
        authors: BTreeSet<Author>,
    },
    /// The act took entries back.
    #[error(
        "{entries} authors have branches here that left their logs below the final entries and that they \
         have not closed"
    )]
    Voided {
        /// Number of entries.
        entries: u64,
    },
}

/// Returns all reasons why the entries must not be removed; none if they may.
pub fn may_drop(facts: &DropFacts) -> Vec<NotYet> {
    let mut reasons = Vec::new();
    let mut check = |holds: bool, reason: NotYet| {
        if !holds {
            reasons.push(reason);
        }
    };
    check(facts.counts, NotYet::Void);
    let admins = facts.unseen_by.clone();
    check(admins.is_empty(), NotYet::Unseen { admins });
    let authors = facts.incomplete.clone();
    check(authors.is_empty(), NotYet::Incomplete { authors });
    match facts.base {
        BaseState::NotDurable => check(false, NotYet::NoBase),
        BaseState::Durable { named: None, .. } => check(false, NotYet::Uncompared),
        BaseState::Durable {
            own,
            named: Some(named),
        } => check(own == named, NotYet::OtherBase { own, named }),
        BaseState::Joined => {}
    }
    check(facts.flushed, NotYet::Unflushed);
    let authors = facts.damaged.clone();
    check(authors.is_empty(), NotYet::Damaged { authors });
    let entries = facts.voided;
    check(entries == 0, NotYet::Voided { entries });
    reasons
}

// The short ids of some nodes, for people.
fn listed(nodes: &BTreeSet<Author>) -> String {
    let nodes: Vec<String> = nodes.iter().map(Author::short).collect();
    nodes.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_condition_must_hold() {
        let (own, other) = (BaseHash([1; 32]), BaseHash([2; 32]));
        let node = BTreeSet::from([Author([5; 32])]);
        let fine = DropFacts {
            counts: true,
            unseen_by: BTreeSet::new(),
            incomplete: BTreeSet::new(),
            base: BaseState::Durable {
                own,
                named: Some(own),
            },
            flushed: true,
            damaged: BTreeSet::new(),
            voided: 0,
        };
        assert_eq!(may_drop(&fine), []);
        let joined = DropFacts {
            base: BaseState::Joined,
            ..fine.clone()
        };
        assert_eq!(may_drop(&joined), []);
        type Fault = fn(&mut DropFacts);
        let faults: [(Fault, NotYet); 9] = [
            (|facts| facts.counts = false, NotYet::Void),
            (
                |facts| facts.unseen_by = BTreeSet::from([Author([5; 32])]),
                NotYet::Unseen {
                    admins: node.clone(),
                },
            ),
            (
                |facts| facts.incomplete = BTreeSet::from([Author([5; 32])]),
                NotYet::Incomplete {
                    authors: node.clone(),
                },
            ),
            (|facts| facts.base = BaseState::NotDurable, NotYet::NoBase),
            (
                |facts| {
                    facts.base = BaseState::Durable {
                        own: BaseHash([1; 32]),
                        named: Some(BaseHash([2; 32])),
                    };
                },
                NotYet::OtherBase { own, named: other },
            ),
            (
                |facts| {
                    facts.base = BaseState::Durable {
                        own: BaseHash([1; 32]),
                        named: None,
                    };
                },
                NotYet::Uncompared,
            ),
            (|facts| facts.flushed = false, NotYet::Unflushed),
            (
                |facts| facts.damaged = BTreeSet::from([Author([5; 32])]),
                NotYet::Damaged { authors: node },
            ),
            (|facts| facts.voided = 3, NotYet::Voided { entries: 3 }),
        ];
        let mut all = fine.clone();
        for (break_it, reason) in faults {
            let mut facts = fine.clone();
            break_it(&mut facts);
            assert!(!reason.to_string().is_empty());
            assert_eq!(may_drop(&facts), [reason]);
            break_it(&mut all);
        }
        // The three faults of the base are one.
        assert_eq!(may_drop(&all).len(), 7);
    }
}
