//! The evaluation of members over acts that no honest node makes.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use lattice::{
    id::{Author, EntryId, StoreId},
    protocol::{
        entry::Parent,
        frontier::FrontierTip,
        hlc::Hlc,
        membership::{
            Members, Standing,
            acts::Acts,
            grant_chain,
            role::{Act, Role, Tips},
        },
    },
};

use crate::support::{
    mutator::{number, soaked},
    random::{Random, for_each_seed},
};

const ROOT: StoreId = StoreId([1; 16]);
const OTHER: StoreId = StoreId([2; 16]);
const NODES: u8 = 5;

fn node(number: usize) -> Author {
    Author([u8::try_from(number).unwrap(); 32])
}

fn any_node(random: &mut Random) -> Author {
    node(random.below(usize::from(NODES)))
}

/// Acts, and the entry before each, as far as it is known.
#[derive(Debug, Default)]
struct History {
    acts: Vec<Acts>,
    prev: BTreeMap<EntryId, Option<FrontierTip>>,
}

impl History {
    fn random(random: &mut Random) -> Self {
        let mut history = Self::default();
        for step in 0..random.below(14) {
            let author = any_node(random);
            let entry = EntryId(
                *blake3::hash(&(random.bits().wrapping_add(step as u64)).to_le_bytes()).as_bytes(),
            );
            let own = history
                .acts
                .iter()
                .filter(|acts| acts.place.author == author);
            let own: Vec<FrontierTip> = own.map(Acts::tip).collect();
            // Mostly the newest, sometimes a fork, sometimes a place out of this world.
            let prev = match random.below(6) {
                0 => own.get(random.below(own.len().max(1))).copied(),
                _newest => own.last().copied(),
            };
            let seq = match random.below(12) {
                0 => number(random).max(1),
                _next => prev.map_or(1, |prev| prev.seq.saturating_add(1)),
            };
            let cites = (0..random.below(4))
                .map(|_| history.any_reference(random))
                .collect();
            let mut acts = BTreeMap::new();
            for _ in 0..1 + random.below(3) {
                acts.insert(any_node(random), history.act(random));
            }
            let needs_authority = random.once_in(4);
            history.prev.insert(entry, prev);
            history.acts.push(Acts {
                place: Parent {
                    hlc: Hlc::ZERO,
                    author,
                    id: entry,
                    seq,
                },
                cites,
                acts: acts.into_iter().collect(),
                needs_authority,
                anchors: Vec::new(),
                founds: Vec::new(),
                describes: Vec::new(),
            });
        }
        history
    }

    fn any_reference(&self, random: &mut Random) -> Parent {
        let known = self.acts.get(random.below(self.acts.len() + 1));
        let mut reference = known.map_or(
            Parent {
                hlc: Hlc::ZERO,
                author: any_node(random),
                // The id that stands for the creator's authority, and one that never comes.
                id: EntryId(if random.once_in(2) { [0; 32] } else { [9; 32] }),
                seq: 1,
            },
            |acts| acts.place,
        );
        // Some do not name the entry exactly.
        match random.below(16) {
            0 => reference.hlc.counter = 1,
            1 => reference.author = any_node(random),
            2 => reference.seq = number(random).max(1),
            _exact => {}
        }
        reference
    }

    fn act(&self, random: &mut Random) -> Act {
        let roles = [Role::Reader, Role::Writer, Role::Admin, Role::Admin];
        if random.once_in(2) {
            return Act::Grant(roles[random.below(4)]);
        }
        let mut tips = Vec::new();
        for _ in 0..random.below(3) {
            let store = [ROOT, OTHER][random.below(2)];
            let known = self.acts.get(random.below(self.acts.len() + 1));
            let made_up = FrontierTip {
                seq: number(random).max(1),
                id: EntryId([8; 32]),
            };
            tips.push((store, known.map_or(made_up, Acts::tip)));
        }
        let stores = [OTHER].into_iter().take(random.below(2));
        let tips = Tips::naming(stores, tips).unwrap();
        match random.below(6) {
            0 => Act::Lower(Role::Reader, tips),
            1 => Act::Lower(Role::Writer, tips),
            _more => Act::Remove(tips),
        }
    }

    fn evaluate<'a>(&self, acts: impl IntoIterator<Item = &'a Acts>) -> Members {
        let leads = |_: &Author, entry: FrontierTip, tip: FrontierTip| {
            if entry == tip {
                return Some(true);
            }
            let mut at = *self.prev.get(&tip.id)?;
            while let Some(before) = at.filter(|before| before.seq > entry.seq) {
                at = *self.prev.get(&before.id)?;
            }
            Some(at == Some(entry))
        };
        let Ok(members) = Members::evaluate(node(0), ROOT, acts, |author, entry, tip| {
            Ok::<_, Infallible>(leads(author, entry, tip))
        });
        members
    }
}

#[test]
fn m4_m6_m7_m12_members_of_any_acts() {
    let mut counting = 0;
    let mut removed = 0;
    for_each_seed(1..=soaked(3000), |random| {
        let history = History::random(random);
        let members = history.evaluate(&history.acts);
        counting += members.counting().len();
        // Any order, and any act twice.
        let mut shuffled: Vec<&Acts> = history.acts.iter().collect();
        if let Some(again) = history.acts.get(random.below(history.acts.len().max(1))) {
            shuffled.push(again);
        }
        random.shuffle(&mut shuffled);
        assert_eq!(history.evaluate(shuffled), members);
        // Void acts change nothing: without them the members are the same.
        let counts = |acts: &&Acts| {
            let mut on = acts.acts.iter();
            let acts_count = on.any(|(node, _)| members.counts(&acts.place.id, node));
            acts_count || members.authorized().contains(&acts.place.id)
        };
        // But for the creator's leave: an act that it makes void may be the reason why it is void.
        let leaves = |acts: &Acts| acts.place.author == node(0) && acts.leaves();
        if !history.acts.iter().any(leaves) {
            let only = history.evaluate(history.acts.iter().filter(counts));
            assert_eq!(only, members);
        }
        let admins = (0..usize::from(NODES)).map(node);
        let admins = admins.filter(|node| members.role(node) == Some(Role::Admin));
        assert!(admins.count() > 0, "an admin stays");
        let roots: BTreeSet<_> = members.counting().iter().map(|(entry, _)| *entry).collect();
        let known: BTreeSet<_> = history.acts.iter().map(|acts| acts.place.id).collect();
        assert!(roots.is_subset(&known));
        let stores = BTreeSet::from([ROOT, OTHER]);
        let acts = history.acts.iter().cloned();
        let acts: BTreeMap<EntryId, Acts> = acts.map(|acts| (acts.place.id, acts)).collect();
        for node in (0..usize::from(NODES)).map(node) {
            removed += usize::from(members.is_removed(&node));
            assert!(members.role(&node).is_none() || !members.is_removed(&node));
            let standing = members.standing(&OTHER, &node);
            let counts = standing == Standing::Counts;
            assert_eq!(counts, members.role(&node) >= Some(Role::Writer));
            if let Standing::Through(kept) = standing {
                let tip = FrontierTip {
                    seq: number(random),
                    id: EntryId([3; 32]),
                };
                let unknown = |_: &Author, _, _| Ok::<_, Infallible>(None);
                let Ok(_kept) = kept.covers(&node, tip, unknown);
            }
            // What a node would do next is asked, and has an answer.
            for by in (0..usize::from(NODES)).map(self::node) {
                let _may = members.may_remove(&by, &node).is_ok();
                let may_lower = members.may_lower(&by, &node, Role::Reader);
                assert!(may_lower.is_err() || members.role(&by) == Some(Role::Admin));
                let may_grant = members.may_grant(&by, &node, Role::Admin);
                assert!(may_grant.is_err() || members.role(&by) == Some(Role::Admin));
            }
            for departure in members.departures(&node, &stores) {
                assert_eq!(members.is_removed(&departure.node), !departure.lowered);
                assert!(members.is_cut_off(&departure.node));
                assert_ne!(departure.node, node);
            }
            let chain = grant_chain::grants(&node, &acts, &members);
            assert!(chain.len() <= lattice::limits::PROOF_GRANTS_MAX);
            assert!(chain.iter().all(|grant| roots.contains(&grant.id)));
        }
    });
    if std::env::var_os("SEED").is_none() {
        assert!(
            counting > 1000 && removed > 100,
            "{counting} count, {removed} are removed"
        );
    }
}
