//! Leaves and removals: what an old key can still do, and which stores a removal cuts.

use super::*;

// Somebody with the old key of a node that has left can add to what the node granted, and void
// nothing of it: each of its removals of itself keeps its own branch.
#[test]
fn m11_an_old_key_adds_and_never_voids() {
    // Rotation: A makes B its heir and leaves; the old key leaves again from the first place.
    let mut story = Story::default();
    let a = story.found(NODE_A, Admin);
    story.grant(NODE_A, a, NODE_X, Writer);
    let heir = (NODE_B, Act::Grant(Admin));
    let left = story.write(
        NODE_A,
        &[a],
        &[heir.clone(), remove(NODE_A, &[(STORE, at(4, 9))])],
    );
    story.rewind(NODE_A, None);
    let forged = [(NODE_D, Act::Grant(Admin)), remove(NODE_A, &[])];
    story.write(NODE_A, &[a], &forged);
    let members = story.members();
    assert_eq!(members.role(&NODE_B), Some(Admin));
    assert_eq!(members.role(&NODE_X), Some(Writer));
    assert_eq!(members.role(&NODE_D), Some(Admin), "it adds");
    assert!(members.is_removed(&NODE_A));

    // Confirmed by an admin that outranks it, it does not add either.
    story.write(
        CREATOR,
        &[],
        &[remove(NODE_A, &[(ROOT, left), (STORE, at(4, 9))])],
    );
    let members = story.members();
    assert_eq!(members.role(&NODE_B), Some(Admin));
    assert_eq!(members.role(&NODE_X), Some(Writer));
    assert_eq!(members.role(&NODE_D), None);
    let kept = Standing::Through(KeptThrough {
        removals: vec![BTreeSet::from([at(4, 9)])],
        leaves: vec![BTreeSet::from([at(4, 9)])],
    });
    assert_eq!(members.standing(&STORE, &NODE_A), kept);

    // The creator itself rotates, so nobody outranks it.
    let mut story = Story::default();
    story.found(NODE_X, Writer);
    story.write(CREATOR, &[], &[heir, remove(CREATOR, &[(STORE, at(4, 9))])]);
    story.rewind(CREATOR, None);
    story.write(
        CREATOR,
        &[],
        &[(NODE_D, Act::Grant(Admin)), remove(CREATOR, &[])],
    );
    let members = story.members();
    assert_eq!(members.role(&NODE_B), Some(Admin));
    assert_eq!(members.role(&NODE_X), Some(Writer));
    assert!(members.is_removed(&CREATOR));

    // Without an heir.
    let mut story = Story::default();
    let a = story.found(NODE_A, Admin);
    story.grant(NODE_A, a, NODE_X, Writer);
    story.write(NODE_A, &[a], &[remove(NODE_A, &[(STORE, at(4, 9))])]);
    story.rewind(NODE_A, None);
    story.write(NODE_A, &[a], &[remove(NODE_A, &[])]);
    assert_eq!(story.members().role(&NODE_X), Some(Writer));
}

#[test]
fn second_leave_on_a_branch_reopens_nothing() {
    let mut story = Story::default();
    let a = story.found(NODE_A, Admin);
    let left = story.write(NODE_A, &[a], &[remove(NODE_A, &[])]);
    story.grant(NODE_A, a, NODE_X, Writer);
    story.write(NODE_A, &[a], &[remove(NODE_A, &[])]);
    let members = story.members();
    assert_eq!(members.role(&NODE_X), None);
    let removals = members.get(&NODE_A).unwrap().removals.keys();
    assert_eq!(removals.copied().collect::<Vec<_>>(), [left.id]);
}

#[test]
fn removal_cuts_nothing_in_stores_that_it_does_not_name() {
    let other = StoreId([3; 16]);
    let mut story = Story::default();
    story.found(NODE_X, Writer);
    let removal = Act::Remove(Tips::naming([STORE], [(ROOT, at(1, 9))]).unwrap());
    story.write(CREATOR, &[], &[(NODE_X, removal)]);
    let members = story.members();
    let nothing = Standing::Through(removals(vec![BTreeSet::new()]));
    assert_eq!(members.standing(&STORE, &NODE_X), nothing);
    let everything = Standing::Through(KeptThrough::default());
    assert_eq!(members.standing(&other, &NODE_X), everything);

    // An admin that has it open adds a removal for it, and one for the root store with the same tips.
    let open = BTreeSet::from([ROOT, STORE, other]);
    assert_eq!(members.departures(&NODE_A, &open), []);
    let departure = Departure {
        node: NODE_X,
        lowered: false,
        stores: BTreeSet::from([other]),
        tips: BTreeSet::from([(ROOT, at(1, 9))]),
        left: BTreeSet::new(),
        claims: BTreeSet::new(),
        is_confirmed: true,
    };
    assert_eq!(members.departures(&CREATOR, &open), [departure]);
    let removal = Act::Remove(Tips::naming([other], [(ROOT, at(1, 9))]).unwrap());
    story.write(CREATOR, &[], &[(NODE_X, removal)]);
    let members = story.members();
    assert_eq!(members.standing(&other, &NODE_X), nothing);
    assert_eq!(members.departures(&CREATOR, &open), []);

    // One that is listed with a tip is cut there.
    let third = StoreId([4; 16]);
    let removal = Act::Remove(Tips::naming([], [(ROOT, at(1, 9)), (third, at(2, 2))]).unwrap());
    story.write(CREATOR, &[], &[(NODE_X, removal)]);
    let cut = Standing::Through(removals(vec![BTreeSet::from([at(2, 2)])]));
    let members = story.members();
    assert_eq!(members.standing(&third, &NODE_X), cut);
    assert_eq!(members.standing(&other, &NODE_X), nothing);
}

// Two admins confirm a leave, and one of them has fewer of the node's entries. By its own tips alone
// it would void entries that were acknowledged, so each waits until it has the tips that the leave
// names. They are not named without that: they may not exist, and an act that names them would let
// somebody with the old key add entries for ever.
#[test]
fn stale_confirmation_waits_for_what_the_leave_names() {
    let mut story = Story::default();
    story.found(NODE_X, Writer);
    let a = story.found(NODE_A, Admin);
    let named = remove(NODE_X, &[(STORE, at(9, 9)), (StoreId([9; 16]), at(1, 1))]);
    let left = story.write(NODE_X, &[], &[named]);
    let members = story.members();
    let open = BTreeSet::from([STORE]);
    for by in [CREATOR, NODE_A] {
        let departures = members.departures(&by, &open);
        let departure = Departure {
            node: NODE_X,
            lowered: false,
            stores: open.clone(),
            tips: BTreeSet::from([(ROOT, left)]),
            left: BTreeSet::from([left]),
            claims: BTreeSet::from([(STORE, at(9, 9))]),
            is_confirmed: false,
        };
        assert_eq!(departures, [departure]);
        let joined = [(ROOT, left), (STORE, at(9, 9))];
        let removal = Act::Remove(Tips::naming([], joined).unwrap());
        let cites: &[EntryId] = if by == CREATOR { &[] } else { &[a] };
        story.write(by, cites, &[(NODE_X, removal)]);
    }
    let members = story.members();
    assert_eq!(members.departures(&CREATOR, &open), []);
    let Standing::Through(kept) = members.standing(&STORE, &NODE_X) else {
        panic!("it has left")
    };
    for seq in 1..=9 {
        let Ok(counts) = kept.covers(&NODE_X, at(seq, 9), unknown);
        assert!(counts, "entry {seq}");
    }
    let Ok(later) = kept.covers(&NODE_X, at(10, 9), unknown);
    assert!(!later);
}
