//! Spent keys: the role and the standing of a node that forked too often.

use super::*;
use crate::protocol::standings::Standings;

fn spent(story: &Story, nodes: &[Author]) -> Members {
    story.members().spend(&nodes.iter().copied().collect())
}

#[test]
fn b3_a_key_is_spent_by_more_than_the_forks_allowed() {
    assert!(!is_spent(0) && !is_spent(FORKS_MAX));
    assert!(is_spent(FORKS_MAX + 1));
}

#[test]
fn b3_key_spent_in_the_root_store_is_spent_in_all() {
    let mut story = Story::default();
    story.found(NODE_X, Writer);
    story.found(NODE_B, Reader);
    let a = story.found(NODE_A, Admin);
    story.write(NODE_X, &[], &[remove(NODE_X, &[(STORE, at(9, 9))])]);
    let left = story.members();
    assert!(left.is_removed(&NODE_X));
    let members = spent(&story, &[NODE_X, NODE_B, NODE_A, CREATOR, NODE_D]);
    for store in [ROOT, STORE] {
        assert_eq!(members.standing(&store, &NODE_X), Standing::Spent);
        assert_eq!(members.standing(&store, &NODE_B), Standing::Reader);
        assert_eq!(members.standing(&store, &NODE_A), Standing::Counts);
        assert_eq!(members.standing(&store, &NODE_D), Standing::Unknown);
    }
    // Its leave is one of its entries: void, as on a node that never gets it.
    assert!(!members.is_removed(&NODE_X) && members.is_spent(&NODE_X));
    assert_eq!(members.role(&NODE_X), None);
    let mut without = Story::default();
    without.found(NODE_X, Writer);
    without.found(NODE_B, Reader);
    without.found(NODE_A, Admin);
    let without = spent(&without, &[NODE_X]);
    assert_eq!(
        members.standing(&ROOT, &NODE_X),
        without.standing(&ROOT, &NODE_X)
    );
    assert_eq!(members.counting(), without.counting());
    assert_eq!(
        members.may_grant(&CREATOR, &NODE_X, Admin),
        Err(MembershipError::Spent { node: NODE_X })
    );
    // An admin may remove it, and then what it names counts.
    assert_eq!(members.may_remove(&NODE_A, &NODE_X), Ok(()));
    story.write(NODE_A, &[a], &[remove(NODE_X, &[(ROOT, at(3, 3))])]);
    let members = spent(&story, &[NODE_X]);
    assert!(members.is_removed(&NODE_X) && !members.is_spent(&NODE_X));
    let kept = removals(vec![BTreeSet::from([at(3, 3)])]);
    assert_eq!(members.standing(&ROOT, &NODE_X), Standing::Through(kept));
}

#[test]
fn b3_key_spent_in_another_store_is_spent_there() {
    let mut story = Story::default();
    story.found(NODE_X, Writer);
    let a = story.found(NODE_A, Admin);
    let members = story.members();
    for node in [NODE_X, NODE_A, CREATOR] {
        let standing = members.standing_with(&STORE, &node, true);
        assert_eq!(standing, Standing::Spent);
        assert_eq!(members.standing(&STORE, &node), Standing::Counts);
    }
    // In the root store an admin goes on.
    let in_root = |node| members.standing_with(&ROOT, &node, true);
    assert_eq!(in_root(NODE_X), Standing::Spent);
    assert_eq!(in_root(NODE_A), Standing::Counts);
    assert_eq!(in_root(CREATOR), Standing::Counts);
    // Tips that a node names when it leaves may not exist, so only an admin's leave ends it.
    story.write(NODE_X, &[], &[remove(NODE_X, &[(STORE, at(9, 9))])]);
    story.write(NODE_A, &[a], &[remove(NODE_A, &[(STORE, at(9, 9))])]);
    let members = story.members();
    for store in [STORE, ROOT] {
        assert_eq!(
            members.standing_with(&store, &NODE_X, true),
            Standing::Spent
        );
        let everything = Standing::Through(KeptThrough::default());
        assert_eq!(members.standing(&store, &NODE_X), everything);
    }
    let kept = KeptThrough {
        leaves: vec![BTreeSet::from([at(9, 9)])],
        ..KeptThrough::default()
    };
    let standing = members.standing_with(&STORE, &NODE_A, true);
    assert_eq!(standing, Standing::Through(kept));
}

#[test]
fn b3_branches_are_taken_in_until_the_key_is_spent() {
    let mut story = Story::default();
    story.found(NODE_X, Writer);
    story.found(NODE_A, Admin);
    let mut standings = Standings {
        members: story.members().into(),
        spent: BTreeSet::from([NODE_X, NODE_A]).into(),
        finality: Arc::default(),
    };
    let (most, more) = (FORKS_MAX, FORKS_MAX + 1);
    for node in [NODE_X, NODE_A, NODE_D] {
        for store in [ROOT, STORE] {
            assert!(standings.takes_branch(&store, &node, most), "{node}");
        }
    }
    // An admin's key is spent in no root store; nobody knows yet what a stranger will be.
    assert!(!standings.takes_branch(&ROOT, &NODE_X, more));
    assert!(!standings.takes_branch(&STORE, &NODE_X, more));
    assert!(standings.takes_branch(&ROOT, &NODE_A, more));
    assert!(!standings.takes_branch(&STORE, &NODE_A, more));

    // Its entries count by the keys that are spent, not by the branches that could come.
    assert_eq!(standings.of(&ROOT, &NODE_X), Standing::Spent);
    assert_eq!(standings.of(&STORE, &NODE_A), Standing::Spent);
    standings.spent = Arc::default();
    assert_eq!(standings.of(&ROOT, &NODE_X), Standing::Counts);
    assert_eq!(standings.of(&STORE, &NODE_A), Standing::Counts);

    // A removal by an admin keeps entries also of branches that come later, a leave does not.
    story.write(NODE_X, &[], &[remove(NODE_X, &[(STORE, at(9, 9))])]);
    standings.members = story.members().into();
    assert!(!standings.takes_branch(&STORE, &NODE_X, more));
    story.write(CREATOR, &[], &[remove(NODE_X, &[(STORE, at(9, 9))])]);
    standings.members = story.members().into();
    assert!(standings.takes_branch(&STORE, &NODE_X, more));
}
