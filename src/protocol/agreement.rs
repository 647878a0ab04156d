//! Agreement: whether the members of a mesh have the same state of one store.
//!
//! Each member signs, with its acks, a [`StateClaim`]: its entries, the acts that count, and the root
//! of the state that follows from them. The state is a pure function of the first two. So two claims
//! with equal entries and acts and different roots show that one of both nodes has a wrong state, by
//! a fault of its disk, its memory or its program, or that a member lies. A claim shows no more than
//! that: a member can raise an alarm that names it, and nothing else follows from its word.
//!
//! An alarm about a member stays until that member and this node have claimed the same root for the
//! same entries, or until it is no member any more.

use std::collections::BTreeMap;

use crate::{
    id::Author,
    protocol::{frontier::FrontierHash, membership::ActsHash, merkle::TreeRoot},
};

/// The state of one store, as one node has computed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateClaim {
    /// The entries that make the state.
    pub frontier: FrontierHash,
    /// The acts that count.
    pub acts: ActsHash,
    /// The root over the rows of all keys.
    pub root: TreeRoot,
}

/// Two members with the same entries, and different states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Divergence {
    /// The claim of this node.
    pub here: StateClaim,
    /// Root that the member claims for the same entries.
    pub there: TreeRoot,
    /// Members whose last claim is that of this node; this node is one of them.
    pub with_here: usize,
    /// Members whose last claim is that of the member; it is one of them.
    pub with_there: usize,
}

/// The last claims about one store of this node and of the other members, and the alarms that follow.
#[derive(Debug, Clone, Default)]
pub struct Agreement {
    here: Option<StateClaim>,
    // The last claim of each member.
    there: BTreeMap<Author, StateClaim>,
    // Members with another root for the same entries, and the two claims.
    alarms: BTreeMap<Author, (StateClaim, StateClaim)>,
}

/// How two claims compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// They are about different entries, or different acts count: nothing follows.
    Incomparable,
    /// The states are equal.
    Equal,
    /// The same entries have led to different states.
    Diverged,
}

impl StateClaim {
    /// Compares two claims about one store.
    pub fn compare(&self, other: &Self) -> Comparison {
        if self.frontier != other.frontier || self.acts != other.acts {
            Comparison::Incomparable
        } else if self.root == other.root {
            Comparison::Equal
        } else {
            Comparison::Diverged
        }
    }
}

impl Agreement {
    /// Takes a new claim of this node. Returns the members with whom there is an alarm that was not
    /// there before.
    pub fn claim(&mut self, claim: StateClaim) -> Vec<Author> {
        self.here = Some(claim);
        let members: Vec<Author> = self.there.keys().copied().collect();
        members
            .into_iter()
            .filter(|node| self.judge(node))
            .collect()
    }

    /// Takes a new claim of the member `node`. Returns true if there is an alarm that was not there
    /// before.
    pub fn hear(&mut self, node: Author, claim: StateClaim) -> bool {
        self.there.insert(node, claim);
        self.judge(&node)
    }

    /// Forgets all members that are not kept.
    pub fn retain(&mut self, is_kept: impl Fn(&Author) -> bool) {
        self.there.retain(|node, _| is_kept(node));
        self.alarms.retain(|node, _| is_kept(node));
    }

    /// Returns the last claim of this node; `None` before the first one.
    pub fn own(&self) -> Option<&StateClaim> {
        self.here.as_ref()
    }

    /// Returns the members whose state differs from that of this node with the same entries, by key.
    pub fn divergences(&self) -> impl Iterator<Item = (Author, Divergence)> {
        let with = |claim: &StateClaim| {
            let claims = self.there.values().chain(&self.here);
            claims.filter(|it| *it == claim).count()
        };
        self.alarms.iter().map(move |(node, (here, there))| {
            let divergence = Divergence {
                here: *here,
                there: there.root,
                with_here: with(here).max(1),
                with_there: with(there).max(1),
            };
            (*node, divergence)
        })
    }

    // Returns true if there is an alarm about `node` that was not there before.
    fn judge(&mut self, node: &Author) -> bool {
        let (Some(here), Some(there)) = (self.here, self.there.get(node)) else {
            return false;
        };
        match here.compare(there) {
            Comparison::Incomparable => false,
            Comparison::Equal => {
                self.alarms.remove(node);
                false
            }
            Comparison::Diverged => self.alarms.insert(*node, (here, *there)).is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::id::EntryId;

    const A: Author = Author([1; 32]);
    const B: Author = Author([2; 32]);
    const C: Author = Author([3; 32]);

    fn claim(frontier: u8, acts: u8, root: u8) -> StateClaim {
        StateClaim {
            frontier: FrontierHash([frontier; 32]),
            acts: ActsHash::of(&BTreeSet::new(), &BTreeSet::from([EntryId([acts; 32])])),
            root: TreeRoot([root; 32]),
        }
    }

    fn alarms(agreement: &Agreement) -> Vec<Author> {
        agreement.divergences().map(|(node, _)| node).collect()
    }

    #[test]
    fn only_equal_entries_and_equal_acts_compare() {
        for frontier in 0..2 {
            for acts in 0..2 {
                for root in 0..2 {
                    let expected = match (frontier, acts, root) {
                        (0, 0, 0) => Comparison::Equal,
                        (0, 0, _) => Comparison::Diverged,
                        _other => Comparison::Incomparable,
                    };
                    let (one, other) = (claim(0, 0, 0), claim(frontier, acts, root));
                    assert_eq!(one.compare(&other), expected);
                    assert_eq!(other.compare(&one), expected, "both sides see the same");
                }
            }
        }
    }

    /// Whichever of both claims comes first, the alarm is raised once, names the member, and goes
    /// when the two agree again.
    #[test]
    fn alarm_is_raised_once_and_goes_with_an_equal_claim() {
        for own_first in [true, false] {
            let mut agreement = Agreement::default();
            let raised = if own_first {
                assert_eq!(agreement.claim(claim(1, 1, 1)), []);
                agreement.hear(A, claim(1, 1, 2))
            } else {
                assert!(!agreement.hear(A, claim(1, 1, 2)));
                agreement.claim(claim(1, 1, 1)) == [A]
            };
            assert!(raised);
            assert!(!agreement.hear(A, claim(1, 1, 2)), "it is known");
            // Other entries show nothing about the old ones.
            assert!(!agreement.hear(A, claim(2, 1, 1)));
            assert_eq!(agreement.claim(claim(3, 1, 1)), []);
            assert_eq!(alarms(&agreement), [A]);
            assert!(!agreement.hear(A, claim(3, 1, 1)));
            assert_eq!(alarms(&agreement), []);
            // And again from the start.
            assert!(agreement.hear(A, claim(3, 1, 2)));
            // The state here is built again: it was wrong.
            assert_eq!(agreement.claim(claim(3, 1, 2)), []);
            assert_eq!(alarms(&agreement), []);
        }
    }

    /// A liar raises an alarm about itself, and none about others.
    #[test]
    fn false_claim_of_a_member_names_that_member_only() {
        let mut agreement = Agreement::default();
        agreement.claim(claim(1, 1, 1));
        assert!(!agreement.hear(A, claim(1, 1, 1)));
        assert!(agreement.hear(B, claim(1, 1, 9)));
        assert!(!agreement.hear(C, claim(1, 1, 1)));
        let found: Vec<_> = agreement.divergences().collect();
        let expected = Divergence {
            here: claim(1, 1, 1),
            there: TreeRoot([9; 32]),
            with_here: 3,
            with_there: 1,
        };
        assert_eq!(found, [(B, expected)]);
        agreement.retain(|node| *node != B);
        assert_eq!(alarms(&agreement), []);
        assert!(agreement.hear(B, claim(1, 1, 9)), "it was forgotten");
    }

    #[test]
    fn node_with_a_wrong_state_sees_all_others_against_it() {
        let mut agreement = Agreement::default();
        for node in [A, B, C] {
            agreement.hear(node, claim(1, 1, 1));
        }
        assert_eq!(agreement.claim(claim(1, 1, 7)), [A, B, C]);
        for (_, divergence) in agreement.divergences() {
            assert_eq!((divergence.with_here, divergence.with_there), (1, 3));
        }
    }
}
