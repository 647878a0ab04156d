//! Lowerings: what a role that was lowered takes back, and what it leaves.

use super::*;

fn lower(node: Author, role: Role, tips: &[(StoreId, FrontierTip)]) -> (Author, Act) {
    (node, Act::Lower(role, Tips::new(tips.to_vec()).unwrap()))
}

fn kept(members: &Members, store: StoreId, node: Author, at: FrontierTip) -> bool {
    let Standing::Through(kept) = members.standing(&store, &node) else {
        panic!("{:?}", members.standing(&store, &node))
    };
    let Ok(counts) = kept.covers(&node, at, unknown);
    counts
}

#[test]
fn admin_lowered_to_writer_acts_no_more_and_writes() {
    let mut story = Story::default();
    let a = story.found(NODE_A, Admin);
    story.grant(NODE_A, a, NODE_X, Writer);
    let known = story.newest[&NODE_A];
    let down = story.write(CREATOR, &[], &[lower(NODE_A, Writer, &[(ROOT, known)])]);
    story.grant(NODE_A, a, NODE_Y, Writer);
    // With a forged branch of its log, too.
    story.rewind(NODE_A, None);
    story.grant(NODE_A, a, NODE_D, Writer);
    let members = story.members();
    assert_eq!(members.role(&NODE_A), Some(Writer));
    assert!(members.counts(&down.id, &NODE_A) && !members.is_cut_off(&NODE_A));
    for store in [ROOT, STORE] {
        assert_eq!(members.standing(&store, &NODE_A), Standing::Counts);
    }
    let roles = [NODE_X, NODE_Y, NODE_D].map(|node| members.role(&node));
    assert_eq!(roles, [Some(Writer), None, None]);
    assert!(members.may_grant(&NODE_A, &NODE_Y, Reader).is_err());
    let lowered = MembershipError::Lowered {
        node: NODE_A,
        to: Writer,
        by: CREATOR,
    };
    assert_eq!(
        members.may_grant(&CREATOR, &NODE_A, Admin),
        Err(lowered),
        "no grant takes it back"
    );
    let open = BTreeSet::from([ROOT, STORE]);
    assert_eq!(members.departures(&CREATOR, &open), []);
    // Nor does one that does not know of it.
    story.found(NODE_A, Admin);
    assert_eq!(story.members().role(&NODE_A), Some(Writer));
}

#[test]
fn writer_lowered_to_reader_keeps_what_it_wrote() {
    let mut story = Story::default();
    story.found(NODE_X, Writer);
    let tips = [(ROOT, at(2, 8)), (STORE, at(4, 9))];
    story.write(CREATOR, &[], &[lower(NODE_X, Reader, &tips)]);
    // It can leave no more: that would be an entry that does not count.
    story.newest.insert(NODE_X, at(7, 7));
    story.write(NODE_X, &[], &[remove(NODE_X, &[])]);
    let members = story.members();
    assert_eq!(members.role(&NODE_X), Some(Reader));
    assert!(members.is_cut_off(&NODE_X) && !members.is_removed(&NODE_X));
    for (store, seq, counts) in [
        (STORE, 4, true),
        (STORE, 3, true),
        (STORE, 5, false),
        (ROOT, 3, false),
    ] {
        let at = at(seq, 9);
        assert_eq!(kept(&members, store, NODE_X, at), counts, "{store} {at:?}");
    }
    assert!(members.may_lower(&CREATOR, &NODE_X, Reader).is_err());
    // It is still there to be removed.
    assert_eq!(members.may_remove(&CREATOR, &NODE_X), Ok(()));
    story.write(CREATOR, &[], &[remove(NODE_X, &tips)]);
    let members = story.members();
    assert!(members.is_removed(&NODE_X) && members.role(&NODE_X).is_none());
}

#[test]
fn lowering_by_itself_or_a_worse_rank_is_void() {
    let mut story = Story::default();
    let a = story.found(NODE_A, Admin);
    let b = story.grant(NODE_A, a, NODE_B, Admin);
    story.write(NODE_A, &[a], &[lower(NODE_A, Reader, &[])]);
    story.write(NODE_B, &[b], &[lower(NODE_A, Writer, &[])]);
    story.write(NODE_B, &[b], &[lower(CREATOR, Reader, &[])]);
    let members = story.members();
    assert_eq!(members.role(&NODE_A), Some(Admin));
    assert_eq!(members.role(&CREATOR), Some(Admin));
    assert_eq!(members.standing(&STORE, &NODE_A), Standing::Counts);
    let own = members.may_lower(&NODE_A, &NODE_A, Writer);
    assert_eq!(own, Err(MembershipError::LowersItself));
    assert!(matches!(
        members.may_lower(&NODE_B, &NODE_A, Writer),
        Err(MembershipError::Outranked { .. })
    ));
    assert_eq!(members.may_lower(&NODE_A, &NODE_B, Writer), Ok(()));
    assert!(matches!(
        members.may_lower(&NODE_X, &NODE_B, Writer),
        Err(MembershipError::NotAdmin { .. })
    ));
}

// Two admins lower each other: the better ranked one stays, and lowers what the other one did.
#[test]
fn of_two_that_lower_each_other_the_better_stays() {
    let mut story = Story::default();
    let a = story.found(NODE_A, Admin);
    let b = story.found(NODE_B, Admin);
    story.write(NODE_A, &[a], &[lower(NODE_B, Reader, &[])]);
    story.write(NODE_B, &[b], &[lower(NODE_A, Reader, &[])]);
    let members = story.members();
    assert_eq!(members.role(&NODE_A), Some(Admin));
    assert_eq!(members.role(&NODE_B), Some(Reader));
    // The lowest of several lowerings holds, whichever comes first.
    story.write(CREATOR, &[], &[lower(NODE_B, Writer, &[])]);
    assert_eq!(story.members().role(&NODE_B), Some(Reader));
}

#[test]
fn stores_that_a_lowering_does_not_name_are_named_later() {
    let other = StoreId([3; 16]);
    let mut story = Story::default();
    story.found(NODE_X, Writer);
    let act = Act::Lower(Reader, Tips::naming([STORE], [(ROOT, at(1, 9))]).unwrap());
    story.write(CREATOR, &[], &[(NODE_X, act)]);
    let members = story.members();
    assert!(!kept(&members, STORE, NODE_X, at(1, 9)));
    assert!(kept(&members, other, NODE_X, at(900, 9)));
    let open = BTreeSet::from([ROOT, STORE, other]);
    let departure = Departure {
        node: NODE_X,
        lowered: true,
        stores: BTreeSet::from([other]),
        tips: BTreeSet::from([(ROOT, at(1, 9))]),
        left: BTreeSet::new(),
        claims: BTreeSet::new(),
        is_confirmed: true,
    };
    assert_eq!(members.departures(&CREATOR, &open), [departure]);
    assert_eq!(members.departures(&NODE_A, &open), []);
    let act = Act::Lower(
        Reader,
        Tips::naming([other], [(ROOT, at(1, 9)), (other, at(5, 5))]).unwrap(),
    );
    story.write(CREATOR, &[], &[(NODE_X, act)]);
    let members = story.members();
    assert!(kept(&members, other, NODE_X, at(5, 5)) && !kept(&members, other, NODE_X, at(6, 5)));
    assert_eq!(members.departures(&CREATOR, &open), []);
}

// Somebody with the key of a writer forks its log more than `FORKS_MAX` times. Nodes that have the
// lowering take in none of these branches, others all: both must count the same.
#[test]
fn lowering_to_reader_ends_that_a_key_is_spent() {
    let mut story = Story::default();
    story.found(NODE_X, Writer);
    let forked = BTreeSet::from([NODE_X]);
    assert!(story.members().spend(&forked).is_spent(&NODE_X));
    story.write(CREATOR, &[], &[lower(NODE_X, Reader, &[(STORE, at(4, 9))])]);
    let members = story.members();
    assert_eq!(members.clone().spend(&forked), members);
    let spent = members.standing_with(&STORE, &NODE_X, true);
    assert_eq!(spent, members.standing(&STORE, &NODE_X));
}
