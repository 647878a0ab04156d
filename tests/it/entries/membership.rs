//! Membership over signed entries, compared with a second implementation that is slow and plain.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use ed25519_dalek::SigningKey;
use lattice::{
    id::{Author, EntryId, Seq, StoreId},
    protocol::{
        entry::{Header, Op, Parent, VerifiedEntry, sign},
        frontier::FrontierTip,
        hlc::Hlc,
        membership::{
            Member, Members, Standing,
            acts::Acts,
            role::{Act, Role, Tips, role_key},
        },
    },
};
use proptest::prelude::*;

const ROOT: StoreId = StoreId([1; 16]);
const STORE: StoreId = StoreId([2; 16]);

/// Acts, and the entry before each, as far as it is known.
#[derive(Debug, Clone, Default)]
struct History {
    acts: Vec<Acts>,
    prev: BTreeMap<EntryId, Option<FrontierTip>>,
}

impl History {
    fn evaluate<'a>(&self, creator: Author, acts: impl IntoIterator<Item = &'a Acts>) -> Members {
        let leads = |_: &Author, entry: FrontierTip, tip: FrontierTip| {
            if entry == tip {
                return Some(true);
            }
            let mut at = *self.prev.get(&tip.id)?;
            while let Some(before) = at.filter(|before| before.seq > entry.seq) {
                at = self.prev[&before.id];
            }
            Some(at == Some(entry))
        };
        let Ok(members) = Members::evaluate(creator, ROOT, acts, |author, entry, tip| {
            Ok::<_, Infallible>(leads(author, entry, tip))
        });
        members
    }

    /// The entries at the places in `keep`, and no tip that only the others have.
    fn only(&self, keep: &BTreeSet<usize>) -> Self {
        let acts: Vec<_> = keep.iter().map(|place| self.acts[*place].clone()).collect();
        let kept: BTreeSet<_> = acts.iter().map(|acts| acts.entry).collect();
        let mut prev = self.prev.clone();
        prev.retain(|entry, _| kept.contains(entry));
        Self { acts, prev }
    }

    /// For each entry, the places of the entries it rests on: its parents and its predecessor.
    fn rests_on(&self) -> Vec<Vec<usize>> {
        let rests_on = |acts: &Acts| {
            let prev = self.prev[&acts.entry].map(|prev| prev.id);
            let on = |entry: &EntryId| self.acts.iter().position(|acts| acts.entry == *entry);
            acts.cites.iter().chain(&prev).filter_map(on).collect()
        };
        self.acts.iter().map(rests_on).collect()
    }

    /// All sets of entries that some node can have at some time: whoever has an entry has all
    /// that it rests on.
    fn closed_subsets(&self) -> Vec<BTreeSet<usize>> {
        let rests_on = self.rests_on();
        (0..1_u32 << self.acts.len())
            .map(|bits| {
                (0..self.acts.len())
                    .filter(|at| bits >> at & 1 == 1)
                    .collect()
            })
            .filter(|set: &BTreeSet<usize>| {
                let here = |at: &usize| rests_on[*at].iter().all(|on| set.contains(on));
                set.iter().all(here)
            })
            .collect()
    }
}

/// The rules of membership.rs, said as what must hold rather than how to find it: from no act at
/// all, everything is decided again by the last result, until nothing changes.
mod plain {
    use super::*;

    type Rank = (u64, EntryId, Author);

    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct Found {
        /// Entries with authority, and how far from the creator they are.
        authority: BTreeMap<EntryId, u64>,
        pub roles: BTreeMap<Author, Role>,
        pub removed: BTreeMap<Author, BTreeSet<EntryId>>,
        pub lowered: BTreeMap<Author, BTreeMap<EntryId, Role>>,
    }

    impl Found {
        /// The role that a node has in the end.
        pub fn role(&self, node: &Author) -> Option<Role> {
            let most = self.lowered.get(node).and_then(|by| by.values().min());
            let role = *self.roles.get(node)?;
            let gone = self.removed.contains_key(node);
            (!gone).then(|| most.map_or(role, |most| role.min(*most)))
        }
    }

    pub fn evaluate(creator: Author, history: &History) -> Found {
        let found = settle(creator, history, true);
        let mut nodes = found.roles.keys();
        if nodes.any(|node| found.role(node) == Some(Role::Admin)) {
            return found;
        }
        settle(creator, history, false)
    }

    fn settle(creator: Author, history: &History, creator_may_leave: bool) -> Found {
        let mut found = Found::default();
        // Each round settles at least the best rank not settled yet.
        for _round in 0..=2 * history.acts.len() + 2 {
            let next = round(creator, history, creator_may_leave, &found);
            if next == found {
                return found;
            }
            found = next;
        }
        let next = round(creator, history, creator_may_leave, &found);
        panic!("no fixpoint: {found:?}\nthen {next:?}\nof {history:?}");
    }

    fn round(creator: Author, history: &History, creator_may_leave: bool, last: &Found) -> Found {
        let grants = |acts: &Acts, node: &Author, least: Role| {
            acts.acts
                .iter()
                .any(|(of, act)| of == node && matches!(act, Act::Grant(role) if *role >= least))
        };
        let counting = || {
            history
                .acts
                .iter()
                .filter_map(|acts| Some((acts, *last.authority.get(&acts.entry)?)))
        };
        let rank = |node: &Author| -> Option<Rank> {
            if *node == creator {
                return Some((0, EntryId([0; 32]), creator));
            }
            counting()
                .filter(|(acts, _)| grants(acts, node, Role::Admin))
                .map(|(acts, far)| (far + 1, acts.entry, *node))
                .min()
        };
        // Ranks of the grants of admin that an entry cites, if it has a say at all.
        let acts_by = |acts: &Acts| -> Option<Rank> {
            if acts.author == creator {
                return Some((0, EntryId([0; 32]), creator));
            }
            counting()
                .filter(|(grant, _)| acts.cites.contains(&grant.entry))
                .filter(|(grant, _)| grants(grant, &acts.author, Role::Admin))
                .map(|(grant, far)| (far + 1, grant.entry, acts.author))
                .min()
        };
        let removal_of = |acts: &Acts, node: &Author| -> Option<Tips> {
            acts.acts.iter().find_map(|(of, act)| match act {
                Act::Remove(tips) if of == node => Some(tips.clone()),
                Act::Remove(_) | Act::Grant(_) | Act::Lower(..) => None,
            })
        };
        // The role that is left, and the tips.
        let lowering_of = |acts: &Acts, node: &Author| -> Option<(Role, Tips)> {
            acts.acts.iter().find_map(|(of, act)| match act {
                Act::Lower(role, tips) if of == node => Some((*role, tips.clone())),
                Act::Remove(_) | Act::Grant(_) | Act::Lower(..) => None,
            })
        };
        let within = |entry: FrontierTip, tips: &[FrontierTip]| {
            tips.iter().any(|tip| match history.prev.get(&tip.id) {
                _ if entry == *tip => true,
                None => entry.seq < tip.seq,
                Some(_) => branch(history, *tip).contains(&entry),
            })
        };
        let let_in = |node: &Author| counting().any(|(acts, _)| grants(acts, node, Role::Reader));
        let by_a_better = |acts: &Acts, node: &Author| {
            // Between two rounds one can count and have no say any more.
            acts.author != *node
                && acts_by(acts).is_some_and(|by| rank(node).is_none_or(|rank| by < rank))
        };
        let lowerings = |node: &Author| -> BTreeMap<EntryId, (Role, Vec<FrontierTip>)> {
            counting()
                .filter(|(acts, _)| by_a_better(acts, node))
                .filter_map(|(acts, _)| {
                    let (role, tips) = lowering_of(acts, node)?;
                    Some((acts.entry, (role, tips.of(&ROOT).collect())))
                })
                .collect()
        };
        // Those by others, and the node's own: of those that the others leave, the first on each
        // branch.
        let removals = |node: &Author| -> (BTreeMap<EntryId, Vec<FrontierTip>>, Vec<FrontierTip>) {
            let removals: BTreeMap<_, Vec<_>> = counting()
                .filter(|(acts, _)| by_a_better(acts, node))
                .filter_map(|(acts, _)| {
                    let tips = removal_of(acts, node)?;
                    Some((acts.entry, tips.of(&ROOT).collect()))
                })
                .collect();
            let left: Vec<FrontierTip> = history
                .acts
                .iter()
                .filter(|acts| {
                    acts.author == *node
                        && (*node != creator || creator_may_leave)
                        && (*node == creator || let_in(node))
                        && removal_of(acts, node).is_some()
                        && removals.values().all(|tips| within(acts.tip(), tips))
                        && lowerings(node)
                            .values()
                            .all(|(role, tips)| *role != Role::Reader || within(acts.tip(), tips))
                })
                .map(Acts::tip)
                .collect();
            let is_first = |tip: &&FrontierTip| {
                let branch = branch(history, **tip);
                !left
                    .iter()
                    .any(|other| other != *tip && branch.contains(other))
            };
            let first = left.iter().filter(is_first).copied().collect();
            (removals, first)
        };
        let mut next = Found::default();
        let nodes: BTreeSet<Author> = history
            .acts
            .iter()
            .flat_map(|acts| acts.acts.iter().map(|(node, _)| *node))
            .chain([creator])
            .collect();
        for node in nodes {
            let role = [Role::Reader, Role::Writer, Role::Admin]
                .into_iter()
                .filter(|role| counting().any(|(acts, _)| grants(acts, &node, *role)))
                .max();
            if let Some(role) = role.max((node == creator).then_some(Role::Admin)) {
                next.roles.insert(node, role);
            }
            let lowered = lowerings(&node).into_iter();
            let lowered: BTreeMap<_, _> = lowered.map(|(by, (role, _))| (by, role)).collect();
            if !lowered.is_empty() {
                next.lowered.insert(node, lowered);
            }
            let (removals, leaves) = removals(&node);
            let leaves = leaves.iter().map(|tip| tip.id);
            let all: BTreeSet<EntryId> = removals.into_keys().chain(leaves).collect();
            if !all.is_empty() {
                next.removed.insert(node, all);
            }
        }
        for acts in &history.acts {
            let (cut, leaves) = removals(&acts.author);
            if let Some((far, _, _)) = acts_by(acts)
                && cut.values().all(|tips| within(acts.tip(), tips))
                && lowerings(&acts.author)
                    .values()
                    .all(|(_, tips)| within(acts.tip(), tips))
                && (leaves.is_empty() || within(acts.tip(), &leaves))
            {
                next.authority.insert(acts.entry, far);
            }
        }
        next
    }

    fn branch(history: &History, tip: FrontierTip) -> BTreeSet<FrontierTip> {
        let mut branch = BTreeSet::from([tip]);
        let mut at = tip;
        while let Some(Some(prev)) = history.prev.get(&at.id) {
            branch.insert(*prev);
            at = *prev;
        }
        branch
    }
}

const AUTHORS: u8 = 5;

fn node(index: u8) -> Author {
    Author([index % AUTHORS; 32])
}

/// The part of an entry that proptest chooses; `history` makes a valid entry of it.
#[derive(Debug, Clone)]
struct Draft {
    author: u8,
    // Places among the earlier entries: its predecessor (0: the author's newest), and its parents.
    after: u8,
    cites: Vec<u8>,
    // Node, what (removed, reader, writer, admin, lowered), and the tips of a removal or lowering.
    acts: Vec<(u8, u8, Vec<u8>)>,
    id: u8,
}

fn drafts(count_max: usize) -> impl Strategy<Value = Vec<Draft>> {
    let act = (
        prop_oneof![1 => Just(0), 6 => 1..AUTHORS],
        0..9_u8,
        prop::collection::vec(any::<u8>(), 0..3),
    );
    let draft = (
        prop_oneof![1 => 0..AUTHORS, 5 => AUTHORS..],
        prop_oneof![3 => Just(0_u8), 1 => any::<u8>()],
        prop::collection::vec(any::<u8>(), 0..3),
        prop::collection::vec(act, 1..3),
        any::<u8>(),
    );
    let draft = draft.prop_map(|(author, after, cites, acts, id)| Draft {
        author,
        after,
        cites,
        acts,
        id,
    });
    prop::collection::vec(draft, count_max / 3..=count_max)
}

fn history(drafts: &[Draft]) -> History {
    let mut history = History::default();
    for (place, draft) in drafts.iter().enumerate() {
        // Mostly one that was made admin, citing that, else hardly anything would count.
        let made_admin = history.acts.iter().flat_map(|acts| &acts.acts);
        let made_admin = made_admin.filter(|(_, act)| *act == Act::Grant(Role::Admin));
        let authors: Vec<_> = made_admin.map(|(node, _)| *node).chain([node(0)]).collect();
        let author = match draft.author {
            any @ ..AUTHORS => node(any),
            mostly => authors[usize::from(mostly) % authors.len()],
        };
        let own: Vec<_> = history
            .acts
            .iter()
            .filter(|acts| acts.author == author)
            .collect();
        let prev = match usize::from(draft.after) {
            0 => own.last().map(|acts| acts.tip()),
            // The author forks, perhaps.
            any => own.get(any % (own.len() + 1)).map(|acts| acts.tip()),
        };
        let mut id = [draft.id; 32];
        id[31] = u8::try_from(place).unwrap() + 1;
        let grants: Vec<_> = history
            .acts
            .iter()
            .filter(|acts| acts.acts.contains(&(author, Act::Grant(Role::Admin))))
            .collect();
        let cites = draft.cites.iter().filter_map(|cite| {
            let place = usize::from(*cite);
            let any = history.acts.get(place % 16);
            let grant = grants.get(place % grants.len().max(1));
            Some(grant.copied().or(any)?.entry)
        });
        let cites = cites.collect();
        let acts = draft.acts.iter().map(|(of, what, tips)| {
            let of = node(*of);
            let theirs: Vec<_> = history
                .acts
                .iter()
                .filter(|acts| acts.author == of)
                .collect();
            let tips = tips.iter().map(|tip| {
                let unheard_of = FrontierTip {
                    seq: Seq::from(*tip % 4),
                    id: EntryId([*tip; 32]),
                };
                let known = theirs.get(usize::from(*tip) % (theirs.len() + 1));
                (ROOT, known.map_or(unheard_of, |acts| acts.tip()))
            });
            let act = match what {
                0 | 1 => Act::Remove(Tips::new(tips).unwrap()),
                2 => Act::Grant(Role::Reader),
                3 => Act::Grant(Role::Writer),
                4 => Act::Lower(Role::Reader, Tips::new(tips).unwrap()),
                5 => Act::Lower(Role::Writer, Tips::new(tips).unwrap()),
                _more => Act::Grant(Role::Admin),
            };
            (of, act)
        });
        // An entry names each key once.
        let acts: BTreeMap<_, _> = acts.collect();
        let acts = Acts {
            entry: EntryId(id),
            author,
            seq: prev.map_or(0, |prev| prev.seq) + 1,
            cites,
            needs_authority: false,
            anchors: Vec::new(),
            founds: Vec::new(),
            describes: Vec::new(),
            acts: acts.into_iter().collect(),
        };
        history.prev.insert(acts.entry, prev);
        history.acts.push(acts);
    }
    history
}

fn assert_same(history: &History) {
    let members = history.evaluate(node(0), &history.acts);
    let plain = plain::evaluate(node(0), history);
    for at in 0..AUTHORS {
        let at = node(at);
        let member = members.get(&at);
        let role = member.and_then(|member| member.role());
        assert_eq!(
            role,
            plain.roles.get(&at).copied(),
            "{at:?} in {history:#?}"
        );
        let removals: Option<BTreeSet<_>> = member
            .map(|member| member.removals.keys().copied().collect())
            .filter(|removals: &BTreeSet<_>| !removals.is_empty());
        assert_eq!(
            removals.as_ref(),
            plain.removed.get(&at),
            "{at:?} in {history:#?}"
        );
        let lowerings = member.map(|member| member.lowerings.iter());
        let lowerings = lowerings.into_iter().flatten();
        let lowered: BTreeMap<_, _> = lowerings.map(|(by, at)| (*by, at.role)).collect();
        let expected = plain.lowered.get(&at).cloned().unwrap_or_default();
        assert_eq!(lowered, expected, "{at:?} in {history:#?}");
        assert_eq!(members.role(&at), plain.role(&at), "{at:?} in {history:#?}");
    }
}

/// The laws of every history.
fn assert_sound(members: &Members) {
    let creator = node(0);
    assert!(
        members
            .iter()
            .any(|(at, _)| members.role(at) == Some(Role::Admin)),
        "no admin"
    );
    for (at, member) in members.iter() {
        if let Some(grant) = member.grant {
            let by = members.get(&grant.by).expect("who grants is known");
            let nearer = by.rank.expect("who grants was admin");
            assert!(nearer.grants < grant.rank.grants && members.counts(&grant.rank.entry, at));
            assert!(
                member
                    .rank
                    .is_none_or(|rank| *at == creator || rank == grant.rank)
            );
        }
        for (entry, removal) in &member.removals {
            assert!(members.counts(entry, at));
            assert!(removal.by == *at || (*at != creator && members.get(&removal.by).is_some()));
        }
        for (entry, lowering) in &member.lowerings {
            assert!(members.counts(entry, at) && *at != creator && lowering.by != *at);
            assert!(members.role(at) <= Some(lowering.role));
        }
        assert_eq!(members.is_removed(at), !member.removals.is_empty());
        let waits = members.standing(&STORE, at) == Standing::Unknown;
        assert_eq!(waits, member.role().is_none());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn m6_random_histories_match_the_plain_rules(drafts in drafts(12)) {
        let history = history(&drafts);
        assert_same(&history);
        assert_sound(&history.evaluate(node(0), &history.acts));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn m6_partial_sets_are_judged_alike_everywhere(drafts in drafts(9)) {
        let whole = history(&drafts);
        for subset in whole.closed_subsets() {
            let some = whole.only(&subset);
            assert_same(&some);
            let members = some.evaluate(node(0), &some.acts);
            assert_sound(&members);
            let backwards = some.evaluate(node(0), some.acts.iter().rev());
            prop_assert_eq!(&backwards, &members);
        }
    }

    #[test]
    fn one_more_entry_readmits_nobody(drafts in drafts(9)) {
        let whole = history(&drafts);
        let subsets: BTreeSet<_> = whole.closed_subsets().into_iter().collect();
        for before in &subsets {
            for more in (0..whole.acts.len()).filter(|more| !before.contains(more)) {
                let after: BTreeSet<_> = before.iter().copied().chain([more]).collect();
                if !subsets.contains(&after) {
                    continue;
                }
                let evaluate = |set| {
                    let some = whole.only(set);
                    some.evaluate(node(0), &some.acts)
                };
                let after_it = evaluate(&after);
                assert_gone(&whole.only(&after), &after_it);
                assert_lasting(&evaluate(before), &after_it, &whole.acts[more]);
            }
        }
    }
}

/// Who has said that it leaves is no member, whatever else was said, and also when what let it in
/// turns void and something else lets it in. Who was lowered to reader cannot leave any more.
fn assert_gone(history: &History, members: &Members) {
    for acts in &history.acts {
        let leaves = |(of, act): &(Author, Act)| {
            *of == acts.author && *of != node(0) && matches!(act, Act::Remove(_))
        };
        if acts.acts.iter().any(leaves) {
            let role = members.role(&acts.author);
            let member = members.get(&acts.author);
            let mut lowerings = member.iter().flat_map(|member| member.lowerings.values());
            let is_lowered = lowerings.any(|at| at.role == Role::Reader);
            assert!(
                role.is_none() || is_lowered,
                "{role:?} of {:?}",
                acts.author
            );
        }
    }
}

fn assert_lasting(before: &Members, after: &Members, more: &Acts) {
    let creator = node(0);
    let own = |(of, _): &(Author, Act)| *of == more.author;
    let is_grant = |(_, act): &(Author, Act)| matches!(act, Act::Grant(_));
    // It says so now, or what it said counts now that there is another admin.
    let creator_leaves = more.author == creator && more.acts.iter().any(own)
        || after.is_removed(&creator) && !before.is_removed(&creator);
    for (at, member) in before.iter().filter(|(at, _)| **at != creator) {
        // Whom the creator removed is removed, unless the creator leaves on a branch without that.
        let by_creator = member
            .removals
            .values()
            .any(|removal| removal.by == creator);
        assert!(
            !by_creator || creator_leaves || after.is_removed(at),
            "{at:?} is back"
        );
    }
    // Where a grant saves nobody from a removal, it takes nothing from anybody; unless a removal
    // names it, and shows now what is on its branch and what is not.
    let removed = |members: &Members| -> BTreeSet<(Author, EntryId)> {
        let of = |(at, member): (&Author, &Member)| {
            let at = *at;
            let acts = member.removals.keys().chain(member.lowerings.keys());
            let acts: Vec<_> = acts.copied().collect();
            acts.into_iter().map(move |act| (at, act))
        };
        members.iter().flat_map(of).collect()
    };
    let tips = |(_, member): (_, &Member)| -> Vec<Tips> {
        let removals = member.removals.values().map(|removal| &removal.tips);
        let lowerings = member.lowerings.values().map(|lowering| &lowering.tips);
        removals.chain(lowerings).cloned().collect()
    };
    let mut tips = after.iter().flat_map(tips);
    let is_named = tips.any(|tips| tips.of(&ROOT).any(|tip| tip == more.tip()));
    if more.acts.iter().all(is_grant) && !is_named && removed(before) == removed(after) {
        for (at, member) in before.iter() {
            let then = after.get(at).expect("it was known");
            assert!(member.role() <= then.role(), "{at:?} has lost its role");
            let worse = member.rank.is_some_and(|rank| then.rank > Some(rank));
            assert!(!worse, "{at:?} is farther from the creator");
        }
    }
    // An author that was never an admin changes at most itself.
    let was_admin = before.get(&more.author).is_some_and(|by| by.rank.is_some());
    if !was_admin && more.author != creator && !more.acts.iter().any(own) {
        assert_eq!(before, after);
    }
}

/// A node that signs, and what it wrote to the root store.
struct Signer {
    key: SigningKey,
    log: Vec<VerifiedEntry>,
}

impl Signer {
    fn new(secret: u8) -> Self {
        Self {
            key: SigningKey::from_bytes(&[secret; 32]),
            log: Vec::new(),
        }
    }

    fn id(&self) -> Author {
        Author(self.key.verifying_key().to_bytes())
    }

    fn tip(&self) -> (StoreId, FrontierTip) {
        let last = self.log.last().unwrap();
        let tip = FrontierTip {
            seq: last.header.seq,
            id: last.id,
        };
        (ROOT, tip)
    }

    fn write(&mut self, cites: &[Parent], acts: &[(Author, Act)]) -> Parent {
        let prev = self.log.last();
        let before = prev.map(|prev| prev.header.hlc.wall_ms).into_iter();
        let before = before.chain(cites.iter().map(|cited| cited.hlc.wall_ms));
        let header = Header {
            store: ROOT,
            seq: prev.map_or(1, |prev| prev.header.seq + 1),
            prev: prev.map(|prev| prev.id),
            hlc: Hlc {
                wall_ms: before.max().unwrap_or(0) + 1,
                counter: 0,
            },
            atomic: true,
            cause: None,
            parents: cites.to_vec(),
        };
        let put = |(node, act): &(Author, Act)| Op::Put {
            key: role_key(node),
            value: act.encode(),
            expires_ms: None,
        };
        let entry = sign(&self.key, header, acts.iter().map(put).collect()).unwrap();
        let cited = entry.as_parent();
        self.log.push(entry);
        cited
    }
}

#[test]
fn m6_all_5040_orders_give_the_same_members() {
    let [mut founder, mut near, mut far, mut last] = [1, 2, 3, 4].map(Signer::new);
    let (guest, late) = (Author([8; 32]), Author([9; 32]));
    let grant = |node: &Signer, role| (node.id(), Act::Grant(role));
    let remove =
        |node: &Signer, tips: &[_]| (node.id(), Act::Remove(Tips::new(tips.to_vec()).unwrap()));
    // A chain of three; its middle and its first remove each other; each grants before and after.
    let to_near = founder.write(&[], &[grant(&near, Role::Admin)]);
    let to_far = near.write(&[to_near], &[grant(&far, Role::Admin)]);
    let to_last = far.write(&[to_far], &[grant(&last, Role::Admin)]);
    let through = far.tip();
    let to_guest = last.write(&[to_last], &[(guest, Act::Grant(Role::Writer))]);
    far.write(
        &[to_far],
        &[remove(&near, &[]), (late, Act::Grant(Role::Admin))],
    );
    let removal = near.write(&[to_near], &[remove(&far, &[through, (STORE, through.1)])]);
    last.write(&[to_last], &[remove(&near, &[])]);

    let mut history = History::default();
    for signer in [&founder, &near, &far, &last] {
        let mut prev = None;
        for entry in &signer.log {
            let acts = Acts::of(entry).unwrap();
            history.prev.insert(acts.entry, prev);
            prev = Some(acts.tip());
            history.acts.push(acts);
        }
    }
    let members = history.evaluate(founder.id(), &history.acts);
    let role = |node: &Author| members.role(node);
    assert_eq!(role(&founder.id()), Some(Role::Admin));
    assert_eq!(role(&near.id()), Some(Role::Admin));
    assert!(members.is_removed(&far.id()) && role(&far.id()).is_none());
    assert_eq!(
        role(&last.id()),
        Some(Role::Admin),
        "granted before the cut"
    );
    assert_eq!((role(&guest), role(&late)), (Some(Role::Writer), None));
    assert!(members.counts(&removal.id, &far.id()) && members.counts(&to_guest.id, &guest));
    assert_eq!(members.standing(&STORE, &guest), Standing::Counts);
    let Standing::Through(cut) = members.standing(&STORE, &far.id()) else {
        panic!("it was removed");
    };
    assert!(
        cut.covers(&far.id(), through.1, |_, entry, tip| {
            Ok::<_, Infallible>(Some(entry == tip))
        })
        .unwrap()
    );

    let mut acts: Vec<_> = history.acts.iter().collect();
    assert_eq!(acts.len(), 7);
    let mut orders = 0;
    for_each_order(&mut acts, 0, &mut |acts| {
        orders += 1;
        let again = history.evaluate(founder.id(), acts.iter().copied());
        assert_eq!(again, members);
    });
    assert_eq!(orders, 5040);
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
