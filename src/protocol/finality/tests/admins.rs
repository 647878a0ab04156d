//! The part of admins in a [`World`]: anchors acts by the watermark, removals, and entries that go.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    node::{Node, ROOT, RootChains, STORE},
    world::World,
};
use crate::{
    id::{Author, EntryId},
    protocol::{
        anchors_act::{ActCollection, AnchorsAct},
        finality::{Grounds, Proven, Stability},
        frontier::FrontierTip,
        membership::{
            Members,
            role::{Act, Role, Tips},
        },
        placed_act::PlacedAct,
    },
};

impl World {
    // Joins the acks that came to a node.
    fn hear(&mut self, name: Author) {
        let own = Proven::own(self.frontier(name), self.root_frontier(name));
        let peer = self.peers.get_mut(&name).unwrap();
        for (member, (data, root)) in &peer.acks {
            let proven = peer.proven.entry(*member).or_default();
            let Ok(_heard) = proven.hear(data, root, &peer.node, &RootChains(&peer.node));
        }
        peer.proven.insert(name, own);
    }

    fn with_grounds<T>(&mut self, name: Author, f: impl FnOnce(&Grounds<'_>, &Node) -> T) -> T {
        self.hear(name);
        let (view, own) = (self.view(name), self.frontier(name));
        let peer = &self.peers[&name];
        // No fork is ever closed here.
        let tips = |author: &Author| (*author, own.tips(author).to_vec());
        let forks = self.names.iter().map(tips);
        let open_forks = forks.filter(|(_, tips)| tips.len() > 1).collect();
        let grounds = Grounds {
            members: &view.members,
            dormant: &self.dormant,
            proven: &peer.proven,
            finality: &view.finality,
            own: &own,
            open_forks: &open_forks,
            before_ms: None,
        };
        f(&grounds, &peer.node)
    }

    pub(super) fn is_admin(members: &Members, name: Author) -> bool {
        members.role(&name) == Some(Role::Admin)
    }

    pub(super) fn propose(&mut self, by: Author) {
        let view = self.view(by);
        if !Self::is_admin(&view.members, by) || !self.is_ready(by) {
            return;
        }
        let mut acts = view.acts.clone();
        acts.sort_by_key(|placed| {
            let EntryId(id) = placed.at.id;
            std::cmp::Reverse(<[u8; 8]>::try_from(&id[24..]).unwrap())
        });
        let asks_own = self.rules.asks_own;
        let known = self.peers.get_mut(&by).unwrap().stability.take();
        let counts = |known: &Stability| acts.iter().any(|placed| placed.at.id == known.act());
        let mut known = known.filter(counts);
        known = known.or_else(|| acts.first().map(Stability::new));
        let act = self.with_grounds(by, |grounds, node| {
            if let Some(known) = &mut known {
                let Ok(()) = known.hear(grounds, node);
            }
            let Ok(watermark) = grounds.watermark(node, &RootChains(node));
            let anchors = watermark.ok()?.anchors;
            if anchors == grounds.finality.last() {
                return None;
            }
            let mut collection = known.as_ref().and_then(|known| {
                let Ok(ordered) = known.order(grounds, &anchors, node);
                ordered
            });
            if !asks_own && collection.is_none() {
                collection = Self::careless(grounds, &acts, node);
            }
            AnchorsAct::new(1, None, 0, anchors, collection).ok()
        });
        let is_ordered = act.as_ref().is_some_and(|act| act.collection().is_some());
        self.peers.get_mut(&by).unwrap().stability = known.filter(|_| !is_ordered);
        if let Some(act) = act {
            self.met[0] += 1;
            self.met[2] += usize::from(act.collection().is_some());
            self.put_root(by, Vec::new(), Some(act));
        }
    }

    /// A dishonest admin makes final whatever it has.
    pub(super) fn propose_anything(&mut self, by: Author) {
        let view = self.view(by);
        if !Self::is_admin(&view.members, by) || !self.is_ready(by) {
            return;
        }
        let places: Vec<_> = self
            .node(by)
            .data
            .values()
            .map(|item| (item.author, item.at))
            .collect();
        if places.is_empty() {
            return;
        }
        let lines = (0..self.rng.below(3) + 1)
            .map(|_| self.rng.choose(&places))
            .collect();
        let act = AnchorsAct::new(1, None, 0, lines, None).unwrap();
        self.put_root(by, Vec::new(), Some(act));
    }

    // A collection of which only the active members are asked, and none for its own entries.
    fn careless(grounds: &Grounds<'_>, acts: &[PlacedAct], node: &Node) -> Option<ActCollection> {
        let active: Vec<Author> = grounds.active().collect();
        let has = |placed: &&PlacedAct| {
            active.iter().all(|member| {
                let Ok(has) = grounds.proven[member].has_all(placed.act.anchors(), node);
                has
            })
        };
        let before = acts.iter().find(has)?.at.id;
        let own = BTreeMap::new();
        Some(ActCollection { before, own })
    }

    pub(super) fn prune(&mut self, name: Author) {
        let view = self.view(name);
        let covered = self.covered(name);
        let waits = self.rules.waits_for_admins;
        let is_seen = self.with_grounds(name, |grounds, node| {
            view.acts.iter().all(|placed| {
                let Ok(without) = grounds.admins_without(&placed.by, placed.at, &RootChains(node));
                without.is_empty()
            })
        });
        let mut anchors = view
            .acts
            .iter()
            .flat_map(|placed| placed.act.anchors().iter());
        let are_applied = anchors
            .all(|(_, anchor)| !self.all.contains_key(&anchor.id) || covered.contains(&anchor.id));
        if (is_seen || !waits) && are_applied {
            let folded = self.peers.get_mut(&name).unwrap().node.fold();
            self.met[1] += usize::from(folded);
            self.ack(name);
        }
    }

    pub(super) fn remove(&mut self, by: Author, node: Author) {
        let view = self.view(by);
        let may = view.members.may_remove(&by, &node).is_ok() && by != node;
        let is_admin = view.members.get(&node).is_some_and(|it| it.rank.is_some());
        if !may || !self.is_ready(by) || (is_admin && self.peers[&by].is_offline) {
            return;
        }
        let mut tips: BTreeSet<FrontierTip> = BTreeSet::new();
        let here = self.node(by);
        let of = || here.data.values().filter(|item| item.author == node);
        let before: BTreeSet<EntryId> = of().filter_map(|item| item.prev).map(|it| it.id).collect();
        tips.extend(of().map(|item| item.at));
        tips.extend(here.base.tips.tips(&node));
        tips.retain(|tip| !before.contains(&tip.id));
        let root = self.root_frontier(by).tips(&node).to_vec();
        let data = tips.into_iter().map(|tip| (STORE, tip));
        let tips = data.chain(root.into_iter().map(|tip| (ROOT, tip)));
        let act = Act::Remove(Tips::naming([STORE], tips).unwrap());
        self.peers.get_mut(&by).unwrap().has_removed |= is_admin;
        self.is_loud |= is_admin && self.dormant.contains(&by);
        self.put_root(by, vec![(node, act)], None);
    }
}
