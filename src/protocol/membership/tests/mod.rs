use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
};

mod authority;
mod leaving;
mod lowering;
mod spent;

use super::*;
use crate::{
    id::{Author, EntryId, Seq, StoreId},
    limits::FORKS_MAX,
    protocol::{
        entry::Parent,
        frontier::FrontierTip,
        hlc::Hlc,
        membership::{
            acts::Acts,
            role::{Act, Role, Tips},
            spent::is_spent,
        },
    },
};

const ROOT: StoreId = StoreId([1; 16]);
const STORE: StoreId = StoreId([2; 16]);

const CREATOR: Author = Author([0xc0; 32]);
const NODE_A: Author = Author([0xa; 32]);
const NODE_B: Author = Author([0xb; 32]);
const NODE_D: Author = Author([0xd; 32]);
const NODE_X: Author = Author([0x71; 32]);
const NODE_Y: Author = Author([0x72; 32]);

// Answers as if no tip were here.
fn unknown(_: &Author, _: FrontierTip, _: FrontierTip) -> Result<Option<bool>, Infallible> {
    Ok(None)
}

/// Acts of some authors, in one possible order of writing. Ids ascend, so of two grants equally far
/// from the creator the earlier one has the better rank.
#[derive(Default)]
struct Story {
    acts: Vec<Acts>,
    // The entry before each entry on its branch; `None` for a first one.
    prev: BTreeMap<EntryId, Option<FrontierTip>>,
    // Newest entry of each author: the next one is written after it.
    newest: BTreeMap<Author, FrontierTip>,
}

impl Story {
    /// Appends an entry to the author's log.
    fn write(&mut self, author: Author, cites: &[EntryId], acts: &[(Author, Act)]) -> FrontierTip {
        let prev = self.newest.get(&author).copied();
        let tip = FrontierTip {
            seq: prev.map_or(0, |prev| prev.seq) + 1,
            id: EntryId([u8::try_from(self.prev.len()).unwrap() + 1; 32]),
        };
        self.prev.insert(tip.id, prev);
        self.newest.insert(author, tip);
        let place = |id| self.acts.iter().find(|acts| acts.place.id == id);
        let cites = cites.iter().map(|id| place(*id).unwrap().place).collect();
        self.acts.push(Acts {
            place: Parent {
                hlc: Hlc {
                    wall_ms: self.prev.len() as u64,
                    counter: 0,
                },
                author,
                id: tip.id,
                seq: tip.seq,
            },
            cites,
            needs_authority: false,
            anchors: Vec::new(),
            founds: Vec::new(),
            describes: Vec::new(),
            acts: acts.to_vec(),
        });
        tip
    }

    /// Makes the author's next entry come after `tip`, or be a first one.
    fn rewind(&mut self, author: Author, tip: Option<FrontierTip>) {
        match tip {
            Some(tip) => self.newest.insert(author, tip),
            None => self.newest.remove(&author),
        };
    }

    fn found(&mut self, node: Author, role: Role) -> EntryId {
        self.write(CREATOR, &[], &[(node, Act::Grant(role))]).id
    }

    fn grant(&mut self, by: Author, cites: EntryId, node: Author, role: Role) -> EntryId {
        self.write(by, &[cites], &[(node, Act::Grant(role))]).id
    }

    fn evaluate<'a>(&self, acts: impl IntoIterator<Item = &'a Acts>) -> Members {
        let leads = |_: &Author, entry, tip| Ok::<_, Infallible>(self.leads(entry, tip));
        let Ok(members) = Members::evaluate(CREATOR, ROOT, acts, leads);
        members
    }

    fn leads(&self, entry: FrontierTip, tip: FrontierTip) -> Option<bool> {
        if entry == tip {
            return Some(true);
        }
        let mut at = *self.prev.get(&tip.id)?;
        while let Some(before) = at.filter(|before| before.seq > entry.seq) {
            at = self.prev[&before.id];
        }
        Some(at == Some(entry))
    }

    /// Evaluates the acts in every order of arrival, and once with each act twice.
    fn members(&self) -> Members {
        assert!(self.acts.len() <= 7, "a story has at most seven events");
        let members = self.evaluate(&self.acts);
        let mut acts: Vec<_> = self.acts.iter().collect();
        let mut orders = 0;
        for_each_order(&mut acts, 0, &mut |acts: &[&Acts]| {
            orders += 1;
            assert_eq!(self.evaluate(acts.iter().copied()), members);
        });
        assert_eq!(orders, (1..=self.acts.len()).product::<usize>());
        let twice = self.acts.iter().chain(&self.acts);
        assert_eq!(self.evaluate(twice), members);
        assert!(members.admins().next().is_some(), "an admin is left");
        members
    }
}

fn for_each_order<T: Copy>(items: &mut [T], from: usize, f: &mut impl FnMut(&[T])) {
    if from == items.len() {
        return f(items);
    }
    for at in from..items.len() {
        items.swap(from, at);
        for_each_order(items, from + 1, f);
        items.swap(from, at);
    }
}

fn remove(node: Author, tips: &[(StoreId, FrontierTip)]) -> (Author, Act) {
    (node, Act::Remove(Tips::new(tips.to_vec()).unwrap()))
}

fn removals(removals: Vec<BTreeSet<FrontierTip>>) -> KeptThrough {
    KeptThrough {
        removals,
        ..KeptThrough::default()
    }
}

fn at(seq: Seq, id: u8) -> FrontierTip {
    FrontierTip {
        seq,
        id: EntryId([id; 32]),
    }
}

use Role::{Admin, Reader, Writer};

#[test]
fn creator_alone_is_admin() {
    let members = Story::default().members();
    assert_eq!(members.role(&CREATOR), Some(Admin));
    assert_eq!(members.role(&NODE_A), None);
    assert_eq!(members.standing(&STORE, &CREATOR), Standing::Counts);
    assert_eq!(members.standing(&STORE, &NODE_A), Standing::Unknown);
}

#[test]
fn roles_only_go_up() {
    let mut story = Story::default();
    story.found(NODE_A, Reader);
    assert_eq!(story.members().role(&NODE_A), Some(Reader));
    assert_eq!(story.members().standing(&ROOT, &NODE_A), Standing::Reader);
    story.found(NODE_A, Writer);
    assert_eq!(story.members().standing(&ROOT, &NODE_A), Standing::Counts);
    story.found(NODE_A, Admin);
    story.found(NODE_A, Reader);
    story.found(CREATOR, Reader);
    assert_eq!(story.members().role(&NODE_A), Some(Admin));
    assert_eq!(story.members().role(&CREATOR), Some(Admin));
}

#[test]
fn only_admins_grant() {
    let mut story = Story::default();
    let writer = story.found(NODE_A, Writer);
    story.grant(NODE_A, writer, NODE_X, Reader);
    story.grant(NODE_A, writer, NODE_A, Admin);
    // B is an admin, but cites no grant; D is a stranger, and A a writer, that cite the grant to B.
    let admin = story.found(NODE_B, Admin);
    story.grant(NODE_D, admin, NODE_X, Admin);
    story.write(NODE_B, &[], &[(NODE_X, Act::Grant(Admin))]);
    let void = story.grant(NODE_A, admin, NODE_X, Admin);
    let members = story.members();
    assert_eq!(members.role(&NODE_X), None);
    assert_eq!(members.role(&NODE_A), Some(Writer));
    assert!(members.counts(&admin, &NODE_B) && !members.counts(&void, &NODE_X));
}

#[test]
fn grant_before_its_author_was_admin_stays_void() {
    let mut story = Story::default();
    let writer = story.found(NODE_A, Writer);
    story.grant(NODE_A, writer, NODE_X, Writer);
    let admin = story.found(NODE_A, Admin);
    assert_eq!(story.members().role(&NODE_X), None);
    story.grant(NODE_A, admin, NODE_Y, Writer);
    let members = story.members();
    assert_eq!(
        (members.role(&NODE_X), members.role(&NODE_Y)),
        (None, Some(Writer))
    );
}

#[test]
fn m6_nearer_of_two_admins_stays() {
    let mut story = Story::default();
    let a = story.found(NODE_A, Admin);
    let b = story.grant(NODE_A, a, NODE_B, Admin);
    let d = story.grant(NODE_B, b, NODE_D, Admin);
    let root_of_a = (ROOT, story.newest[&NODE_A]);
    let root_of_b = (ROOT, story.newest[&NODE_B]);
    story.write(
        NODE_D,
        &[d],
        &[remove(NODE_A, &[root_of_a]), remove(NODE_B, &[])],
    );
    let void = story.write(NODE_B, &[b], &[remove(NODE_A, &[])]);
    story.write(NODE_A, &[a], &[remove(NODE_B, &[root_of_b])]);
    story.write(NODE_B, &[b], &[remove(CREATOR, &[])]);
    let members = story.members();
    assert_eq!(members.role(&CREATOR), Some(Admin));
    assert_eq!(members.role(&NODE_A), Some(Admin));
    assert!(members.is_removed(&NODE_B) && !members.counts(&void.id, &NODE_A));
    assert_eq!(members.role(&NODE_D), Some(Admin), "granted before the cut");
}

#[test]
fn m6_lesser_grant_stays_at_equal_distance() {
    let mut story = Story::default();
    let b = story.found(NODE_B, Admin);
    let a = story.found(NODE_A, Admin);
    story.write(NODE_A, &[a], &[remove(NODE_B, &[])]);
    story.grant(NODE_A, a, NODE_X, Writer);
    story.write(NODE_B, &[b], &[remove(NODE_A, &[])]);
    story.grant(NODE_B, b, NODE_Y, Writer);
    let members = story.members();
    assert_eq!(
        (members.role(&NODE_A), members.role(&NODE_B)),
        (None, Some(Admin))
    );
    assert_eq!(
        (members.role(&NODE_X), members.role(&NODE_Y)),
        (None, Some(Writer))
    );
}

#[test]
fn m6_lesser_key_stays_under_one_grant() {
    let mut story = Story::default();
    let both = [(NODE_B, Act::Grant(Admin)), (NODE_A, Act::Grant(Admin))];
    let both = story.write(CREATOR, &[], &both).id;
    story.write(NODE_A, &[both], &[remove(NODE_B, &[])]);
    story.write(NODE_B, &[both], &[remove(NODE_A, &[])]);
    let members = story.members();
    assert_eq!(
        (members.role(&NODE_A), members.role(&NODE_B)),
        (Some(Admin), None)
    );
    let outranked = MembershipError::Outranked {
        node: NODE_A,
        grants: 1,
        own_grants: 1,
    };
    story.acts.truncate(1);
    assert_eq!(story.members().may_remove(&NODE_B, &NODE_A), Err(outranked));
    assert_eq!(story.members().may_remove(&NODE_A, &NODE_B), Ok(()));
}

#[test]
fn m4_grant_after_the_kept_tips_is_void() {
    let mut story = Story::default();
    let a = story.found(NODE_A, Admin);
    story.grant(NODE_A, a, NODE_X, Writer);
    let through = story.newest[&NODE_A];
    let b = story.grant(NODE_A, a, NODE_B, Admin);
    story.grant(NODE_B, b, NODE_Y, Writer);
    // After its tips it can neither undo its removal nor remove others.
    story.write(
        NODE_A,
        &[a],
        &[remove(NODE_X, &[]), (NODE_A, Act::Grant(Admin))],
    );
    story.write(CREATOR, &[], &[remove(NODE_A, &[(ROOT, through)])]);
    let members = story.members();
    assert_eq!(members.role(&NODE_A), None);
    assert_eq!(members.role(&NODE_X), Some(Writer));
    assert_eq!((members.role(&NODE_B), members.role(&NODE_Y)), (None, None));
    assert_eq!(members.standing(&STORE, &NODE_Y), Standing::Unknown);
}

#[test]
fn chain_past_a_removed_admin_keeps_earlier_grants() {
    for granted_before in [true, false] {
        let mut story = Story::default();
        let a = story.found(NODE_A, Admin);
        let b = story.grant(NODE_A, a, NODE_B, Admin);
        let x = story.grant(NODE_B, b, NODE_X, Admin);
        story.grant(NODE_X, x, NODE_Y, Writer);
        let through = granted_before.then(|| (ROOT, story.newest[&NODE_B]));
        story.write(NODE_A, &[a], &[remove(NODE_B, through.as_slice())]);
        let members = story.members();
        assert!(members.is_removed(&NODE_B));
        assert_eq!(members.role(&NODE_X), granted_before.then_some(Admin));
        assert_eq!(members.role(&NODE_Y), granted_before.then_some(Writer));
    }
}

#[test]
fn two_removals_with_different_tips_both_hold() {
    let mut story = Story::default();
    let b = story.found(NODE_B, Admin);
    let a = story.found(NODE_A, Admin);
    story.grant(NODE_A, a, NODE_X, Writer);
    let first = story.newest[&NODE_A];
    story.grant(NODE_A, a, NODE_Y, Writer);
    let second = story.newest[&NODE_A];
    let tips = |root, seq| [(ROOT, root), (STORE, at(seq, 0x99))];
    story.write(CREATOR, &[], &[remove(NODE_A, &tips(second, 4))]);
    story.write(NODE_B, &[b], &[remove(NODE_A, &tips(first, 6))]);
    let members = story.members();
    assert_eq!(
        (members.role(&NODE_X), members.role(&NODE_Y)),
        (Some(Writer), None)
    );
    let Standing::Through(cut) = members.standing(&STORE, &NODE_A) else {
        panic!("it is removed");
    };
    let covers = |seq| cut.covers(&NODE_A, at(seq, 0x55), unknown).unwrap();
    assert!(covers(3) && !covers(5));
    assert_eq!(members.get(&NODE_A).unwrap().removals.len(), 2);
}

#[test]
fn removed_node_is_never_granted_again() {
    let mut story = Story::default();
    story.write(CREATOR, &[], &[remove(NODE_A, &[(STORE, at(3, 9))])]);
    assert!(story.members().is_removed(&NODE_A));
    // The node's grant may arrive after its removal, so its entries wait until then.
    assert_eq!(story.members().standing(&STORE, &NODE_A), Standing::Unknown);
    story.found(NODE_A, Writer);
    let b = story.found(NODE_B, Admin);
    story.grant(NODE_B, b, NODE_A, Writer);
    let members = story.members();
    assert!(members.is_removed(&NODE_A) && members.role(&NODE_A).is_none());
    let cut = removals(vec![BTreeSet::from([at(3, 9)])]);
    assert_eq!(members.standing(&STORE, &NODE_A), Standing::Through(cut));
    let nothing = removals(vec![BTreeSet::new()]);
    assert_eq!(
        members.standing(&ROOT, &NODE_A),
        Standing::Through(nothing.clone())
    );
    assert_eq!(nothing.covers(&NODE_A, at(1, 1), unknown), Ok(false));
}

#[test]
fn any_admin_removes_writers_and_readers() {
    let mut story = Story::default();
    let a = story.found(NODE_A, Admin);
    story.found(NODE_X, Writer);
    story.found(NODE_Y, Reader);
    let b = story.grant(NODE_A, a, NODE_B, Admin);
    story.write(NODE_B, &[b], &[remove(NODE_X, &[]), remove(NODE_Y, &[])]);
    let members = story.members();
    assert!(members.is_removed(&NODE_X) && members.is_removed(&NODE_Y));
    // A grant of admin by a better ranked admin prevails over the removal.
    story.found(NODE_X, Admin);
    assert_eq!(story.members().role(&NODE_X), Some(Admin));
}

#[test]
fn further_grant_makes_no_act_void() {
    let mut story = Story::default();
    let d = story.found(NODE_D, Admin);
    let far = story.grant(NODE_D, d, NODE_A, Admin);
    story.grant(NODE_A, far, NODE_X, Writer);
    let b = story.found(NODE_B, Admin);
    // The author ranks too low for this removal; a better rank later does not make it count.
    let void = story.write(NODE_A, &[far], &[remove(NODE_B, &[])]);
    assert_eq!(story.members().role(&NODE_B), Some(Admin));
    let near = story.found(NODE_A, Admin);
    let members = story.members();
    assert_eq!(members.role(&NODE_X), Some(Writer));
    assert!(!members.counts(&void.id, &NODE_B) && members.counts(&b, &NODE_B));
    let a = members.get(&NODE_A).unwrap();
    assert_eq!(
        a.rank,
        Some(Rank {
            grants: 1,
            entry: near
        })
    );
    assert_eq!(
        a.grant.map(|grant| (grant.by, grant.rank.entry)),
        Some((CREATOR, near))
    );
}

#[test]
fn b1_only_the_named_branch_of_an_admin_counts() {
    let mut story = Story::default();
    let a = story.found(NODE_A, Admin);
    let trunk = story.write(NODE_A, &[a], &[(NODE_B, Act::Grant(Writer))]);
    story.grant(NODE_A, a, NODE_X, Writer);
    story.rewind(NODE_A, Some(trunk));
    story.grant(NODE_A, a, NODE_Y, Writer);
    let through = story.newest[&NODE_A];
    story.write(NODE_A, &[a], &[(NODE_D, Act::Grant(Writer))]);
    story.write(CREATOR, &[], &[remove(NODE_A, &[(ROOT, through)])]);
    let roles = [NODE_B, NODE_X, NODE_Y, NODE_D].map(|node| story.members().role(&node));
    assert_eq!(roles, [Some(Writer), None, Some(Writer), None]);
}

#[test]
fn lesser_seqs_count_until_the_tip_arrives() {
    let mut story = Story::default();
    let a = story.found(NODE_A, Admin);
    story.grant(NODE_A, a, NODE_X, Writer);
    story.rewind(NODE_A, None);
    story.grant(NODE_A, a, NODE_Y, Writer);
    story.write(NODE_A, &[a], &[(NODE_D, Act::Grant(Writer))]);
    let through = story.newest[&NODE_A];
    story.write(CREATOR, &[], &[remove(NODE_A, &[(ROOT, through)])]);
    assert_eq!(
        story.members().role(&NODE_X),
        None,
        "it is on the other branch"
    );
    story.prev.remove(&through.id);
    story.acts.retain(|acts| acts.place.id != through.id);
    let roles = [NODE_X, NODE_Y, NODE_D].map(|node| story.members().role(&node));
    assert_eq!(roles, [Some(Writer), Some(Writer), None]);
}

#[test]
fn leaving_keeps_earlier_acts_and_counts_once() {
    let mut story = Story::default();
    let a = story.found(NODE_A, Admin);
    story.grant(NODE_A, a, NODE_X, Writer);
    let left = story.write(NODE_A, &[], &[remove(NODE_A, &[(STORE, at(9, 9))])]);
    story.grant(NODE_A, a, NODE_Y, Writer);
    story.write(NODE_A, &[a], &[remove(NODE_A, &[])]);
    let members = story.members();
    assert!(members.is_removed(&NODE_A) && members.counts(&left.id, &NODE_A));
    assert_eq!(
        (members.role(&NODE_X), members.role(&NODE_Y)),
        (Some(Writer), None)
    );
    let removals: Vec<_> = members.get(&NODE_A).unwrap().removals.iter().collect();
    let tips = Tips::new([(ROOT, left), (STORE, at(9, 9))]).unwrap();
    assert_eq!(removals, [(&left.id, &Removal { by: NODE_A, tips })]);
    // A writer needs no authority to leave either.
    story.write(NODE_X, &[], &[remove(NODE_X, &[])]);
    assert!(story.members().is_removed(&NODE_X));
}

#[test]
fn leaving_after_removal_changes_nothing() {
    let mut story = Story::default();
    story.found(NODE_X, Writer);
    story.write(CREATOR, &[], &[remove(NODE_X, &[(STORE, at(9, 9))])]);
    story.write(NODE_X, &[], &[remove(NODE_X, &[])]);
    let a = story.found(NODE_A, Admin);
    story.grant(NODE_A, a, NODE_Y, Writer);
    let through = story.newest[&NODE_A];
    story.write(NODE_A, &[a], &[remove(NODE_A, &[])]);
    story.write(
        CREATOR,
        &[],
        &[remove(NODE_A, &[(ROOT, through), (STORE, at(9, 9))])],
    );
    let members = story.members();
    let cut = Standing::Through(removals(vec![BTreeSet::from([at(9, 9)])]));
    assert_eq!(members.standing(&STORE, &NODE_X), cut);
    assert_eq!(members.standing(&STORE, &NODE_A), cut);
    assert_eq!(members.role(&NODE_Y), Some(Writer));
}

#[test]
fn m12_creator_leaves_only_if_an_admin_remains() {
    let mut story = Story::default();
    let x = story.found(NODE_X, Writer);
    story.write(CREATOR, &[], &[remove(CREATOR, &[])]);
    let members = story.members();
    assert_eq!(members.role(&CREATOR), Some(Admin));
    assert!(members.counts(&x, &NODE_X));
    // The creator wrote this after it left: if leaving counted, this grant would be void, too.
    story.found(NODE_Y, Admin);
    let members = story.members();
    assert_eq!(members.role(&CREATOR), Some(Admin));
    assert_eq!(members.role(&NODE_Y), Some(Admin));

    let mut story = Story::default();
    let a = story.found(NODE_A, Admin);
    story.write(CREATOR, &[], &[remove(CREATOR, &[])]);
    let members = story.members();
    assert!(members.is_removed(&CREATOR));
    assert_eq!(members.role(&NODE_A), Some(Admin));
    // If that admin leaves, too, no admin would remain, so the creator's leaving is void again.
    story.write(NODE_A, &[a], &[remove(NODE_A, &[])]);
    let members = story.members();
    assert!(members.is_removed(&NODE_A));
    assert_eq!(members.role(&CREATOR), Some(Admin));
}

#[test]
fn act_that_would_not_count_is_refused() {
    use MembershipError::{HasRole, LastAdmin, NotAdmin, Outranked, Removed, Stranger};
    let mut story = Story::default();
    let alone = story.members();
    let last = Err(LastAdmin { node: CREATOR });
    assert_eq!(alone.may_remove(&CREATOR, &CREATOR), last);
    let a = story.found(NODE_A, Admin);
    story.grant(NODE_A, a, NODE_B, Admin);
    story.found(NODE_X, Writer);
    story.found(NODE_D, Writer);
    story.write(CREATOR, &[], &[remove(NODE_D, &[])]);
    let members = story.members();

    assert_eq!(members.may_remove(&CREATOR, &CREATOR), Ok(()));
    assert_eq!(members.may_remove(&NODE_A, &NODE_B), Ok(()));
    assert_eq!(members.may_remove(&NODE_B, &NODE_X), Ok(()));
    assert_eq!(members.may_remove(&NODE_X, &NODE_X), Ok(()));
    let outranked = |node, grants| {
        Err(Outranked {
            node,
            grants,
            own_grants: 2,
        })
    };
    assert_eq!(members.may_remove(&NODE_B, &NODE_A), outranked(NODE_A, 1));
    assert_eq!(members.may_remove(&NODE_B, &CREATOR), outranked(CREATOR, 0));
    let stranger = Err(Stranger { node: NODE_Y });
    assert_eq!(members.may_remove(&CREATOR, &NODE_Y), stranger);
    assert_eq!(members.may_remove(&NODE_Y, &NODE_Y), stranger);
    let removed = Err(Removed {
        node: NODE_D,
        by: CREATOR,
    });
    assert_eq!(members.may_remove(&NODE_A, &NODE_D), removed);
    let not_admin = |node, role| Err(NotAdmin { node, role });
    let writer = not_admin(NODE_X, Some(Writer));
    assert_eq!(members.may_remove(&NODE_X, &NODE_A), writer);

    assert_eq!(members.may_grant(&NODE_B, &NODE_Y, Admin), Ok(()));
    assert_eq!(members.may_grant(&NODE_B, &NODE_X, Admin), Ok(()));
    assert_eq!(members.may_grant(&NODE_B, &NODE_D, Reader), removed);
    assert_eq!(members.may_grant(&NODE_X, &NODE_Y, Reader), writer);
    assert_eq!(
        members.may_grant(&NODE_D, &NODE_Y, Reader),
        not_admin(NODE_D, None)
    );
    let has = |has, role| {
        Err(HasRole {
            node: NODE_X,
            has,
            role,
        })
    };
    assert_eq!(
        members.may_grant(&CREATOR, &NODE_X, Reader),
        has(Writer, Reader)
    );
    assert_eq!(
        members.may_grant(&CREATOR, &NODE_X, Writer),
        has(Writer, Writer)
    );
}
