//! Random schedules of a small mesh: writes, forks, syncs, grants, removals, anchors acts by the
//! watermark, and nodes that remove final entries. In the end all nodes must have the same members and
//! heads, those of a node that never removed anything; nothing that an honest member wrote may be lost,
//! and nothing deleted be back.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use super::{
    cases::author,
    node::{Item, Node, ROOT, RootItem, STORE, View, stamp},
    rng::Rng,
};
use crate::{
    id::{Author, EntryId},
    protocol::{
        ack::Ack,
        anchors_act::AnchorsAct,
        entry::Parent,
        finality::{Chains, Proven, Stability},
        frontier::{Frontier, FrontierTip},
        hlc::Hlc,
        membership::{
            acts::Acts,
            role::{Act, Role},
        },
        placed_act::PlacedAct,
    },
};

/// The rules of the mesh around finality; each has a mutant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// A grant names what its author has, and the new member writes and acts only when it has that.
    pub(super) grants_name_tips: bool,
    /// An act is seen by all active admins before entries are removed by it.
    pub(super) waits_for_admins: bool,
    /// A collection asks for the own entries of each writer, dormant ones too.
    pub(super) asks_own: bool,
}

/// Rules without a fault.
pub(super) const ALL: Rules = Rules {
    grants_name_tips: true,
    waits_for_admins: true,
    asks_own: true,
};

// The latest acks of a member: of the store, then of the root store.
type Pair = (Ack, Ack);

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) node: Node,
    // By member: the latest acks that came here.
    pub(super) acks: BTreeMap<Author, Pair>,
    pub(super) proven: BTreeMap<Author, Proven>,
    // The writers that have all of the last act, if it is an admin.
    pub(super) stability: Option<Stability>,
    // Tips that this member must have before it writes: of the store, then of the root store.
    pub(super) needs: Option<(Frontier, Frontier)>,
    // A backup that may be restored.
    pub(super) saved: Option<Box<Node>>,
    pub(super) has_forked: bool,
    pub(super) is_offline: bool,
    // It has removed an admin, and must not be taken for dormant before others know.
    pub(super) has_removed: bool,
}

pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) rules: Rules,
    pub(super) peers: BTreeMap<Author, Peer>,
    pub(super) names: Vec<Author>,
    pub(super) dormant: BTreeSet<Author>,
    pub(super) all: BTreeMap<EntryId, Rc<Item>>,
    pub(super) roots: BTreeMap<EntryId, Rc<RootItem>>,
    pub(super) written: Vec<(EntryId, Author)>,
    pub(super) counter: u64,
    pub(super) clock: u64,
    // Set when a dormant member removes an admin.
    pub(super) is_loud: bool,
    /// Acts, folds, collections, tombstones that they took, void entries, and failures for which a
    /// node has to take a base: to show what schedules meet.
    pub(super) met: [usize; 6],
}

impl Peer {
    // Keeps the later of the acks of each member.
    fn take_acks(&mut self, acks: BTreeMap<Author, Pair>) {
        for (member, pair) in acks {
            let known = self.acks.entry(member).or_insert_with(|| pair.clone());
            if known.0.counter < pair.0.counter {
                *known = pair;
            }
        }
    }
}

impl World {
    pub(super) fn new(seed: u64, rules: Rules) -> Self {
        let names = ['A', 'B', 'C', 'W', 'X'].map(author);
        let mut world = Self {
            rng: Rng(seed),
            rules,
            peers: BTreeMap::new(),
            names: Vec::new(),
            dormant: BTreeSet::new(),
            all: BTreeMap::new(),
            roots: BTreeMap::new(),
            written: Vec::new(),
            counter: 0,
            clock: 1000,
            is_loud: false,
            met: [0; 6],
        };
        for name in names {
            world.join(name);
        }
        let [a, b, c, w, x] = names;
        for (node, role) in [(b, Role::Admin), (w, Role::Writer), (x, Role::Writer)] {
            world.grant(a, node, role);
        }
        world.sync(a, b, 100);
        world.grant(b, c, Role::Admin);
        for other in [a, c, w, x] {
            world.sync(b, other, 100);
        }
        world
    }

    pub(super) fn join(&mut self, name: Author) {
        self.names.push(name);
        let peer = Peer {
            node: Node::new(),
            acks: BTreeMap::new(),
            proven: BTreeMap::new(),
            stability: None,
            needs: None,
            saved: None,
            has_forked: false,
            is_offline: false,
            has_removed: false,
        };
        self.peers.insert(name, peer);
    }

    pub(super) fn node(&self, name: Author) -> &Node {
        &self.peers[&name].node
    }

    pub(super) fn view(&self, name: Author) -> Rc<View> {
        self.node(name).view()
    }

    fn new_id(&mut self) -> EntryId {
        self.counter += 1;
        let mut id = [0; 32];
        id[0] = u8::try_from(self.rng.below(256)).unwrap();
        id[24..].copy_from_slice(&self.counter.to_be_bytes());
        EntryId(id)
    }

    /// Tips of everything that the node has applied or that is below its base.
    pub(super) fn frontier(&self, name: Author) -> Frontier {
        let node = self.node(name);
        let view = node.view();
        let mut tips: BTreeMap<EntryId, (Author, FrontierTip)> = BTreeMap::new();
        for (author, tip) in node.base.tips.iter() {
            tips.insert(tip.id, (author, tip));
        }
        let applied: Vec<_> = view.applied.iter().map(|id| &node.data[id]).collect();
        for item in &applied {
            tips.insert(item.at.id, (item.author, item.at));
        }
        for prev in applied.iter().filter_map(|item| item.prev) {
            tips.remove(&prev.id);
        }
        tips.into_values().collect()
    }

    pub(super) fn root_frontier(&self, name: Author) -> Frontier {
        let root = &self.node(name).root;
        let before: BTreeSet<EntryId> = root
            .values()
            .filter_map(|item| item.prev)
            .map(|prev| prev.id)
            .collect();
        let tips = root
            .values()
            .filter(|item| !before.contains(&item.acts.place.id));
        tips.map(|item| (item.acts.place.author, item.acts.tip()))
            .collect()
    }

    // Everything that the node ever had of the store, as ids.
    pub(super) fn covered(&self, name: Author) -> BTreeSet<EntryId> {
        let mut covered = BTreeSet::new();
        for (_, tip) in self.frontier(name).iter() {
            self.add_history(tip, &mut covered);
        }
        covered
    }

    fn add_history(&self, tip: FrontierTip, history: &mut BTreeSet<EntryId>) {
        let mut at = Some(tip);
        while let Some(place) = at.filter(|place| history.insert(place.id)) {
            at = self.all[&place.id].prev;
        }
    }

    pub(super) fn ack(&mut self, name: Author) {
        self.counter += 1;
        let ack = |store, frontier| Ack {
            node: name,
            store,
            incarnation: 1,
            counter: self.counter,
            is_part: false,
            frontier,
            state: None,
            root_frontier: None,
        };
        let own = self.frontier(name);
        let pair = (ack(STORE, own), ack(ROOT, self.root_frontier(name)));
        self.peers.get_mut(&name).unwrap().acks.insert(name, pair);
    }

    pub(super) fn put_root(
        &mut self,
        by: Author,
        acts: Vec<(Author, Act)>,
        anchors: Option<AnchorsAct>,
    ) {
        let view = self.view(by);
        let tips = self.root_frontier(by);
        let prev = tips.tips(&by).last().copied();
        let rank = view.members.get(&by).and_then(|member| member.rank);
        let at = FrontierTip {
            seq: prev.map_or(0, |prev| prev.seq) + 1,
            id: self.new_id(),
        };
        let granted = rank.and_then(|rank| self.roots.get(&rank.entry));
        let item = Rc::new(RootItem {
            acts: Acts {
                place: Parent {
                    hlc: Hlc::ZERO,
                    author: by,
                    id: at.id,
                    seq: at.seq,
                },
                cites: granted.map(|grant| grant.acts.place).into_iter().collect(),
                acts,
                needs_authority: anchors.is_some(),
                anchors: Vec::new(),
                founds: Vec::new(),
                describes: Vec::new(),
            },
            prev,
            anchors: anchors.map(|act| PlacedAct {
                by,
                at,
                store: STORE,
                cites: Vec::new(),
                act,
            }),
        });
        self.roots.insert(at.id, Rc::clone(&item));
        self.peers.get_mut(&by).unwrap().node.receive_root([item]);
        self.ack(by);
    }

    pub(super) fn grant(&mut self, by: Author, node: Author, role: Role) {
        self.put_root(by, vec![(node, Act::Grant(role))], None);
        let needs = (self.frontier(by), self.root_frontier(by));
        self.peers.get_mut(&node).unwrap().needs = Some(needs);
    }

    // Whether a member has all that its grant named, so that it may write and act.
    pub(super) fn is_ready(&self, name: Author) -> bool {
        let Some((data, root)) = &self.peers[&name].needs else {
            return true;
        };
        let own = self.frontier(name);
        let covers = |(author, tip): (Author, FrontierTip)| {
            own.tips(&author).iter().any(|has| {
                let Ok(leads) = self.node(name).leads(&author, tip, *has);
                leads == Some(true)
            })
        };
        let has_root = |(_, tip): (Author, FrontierTip)| self.node(name).root.contains_key(&tip.id);
        !self.rules.grants_name_tips || (data.iter().all(covers) && root.iter().all(has_root))
    }

    // Own entries that no other own entry comes after.
    fn own_tips(&self, name: Author) -> Vec<FrontierTip> {
        let node = self.node(name);
        let own = || node.data.values().filter(|item| item.author == name);
        let before: BTreeSet<EntryId> =
            own().filter_map(|item| item.prev).map(|it| it.id).collect();
        let mut tips: BTreeSet<FrontierTip> = own().map(|item| item.at).collect();
        tips.extend(node.base.tips.tips(&name));
        tips.retain(|tip| !before.contains(&tip.id));
        tips.into_iter().collect()
    }

    pub(super) fn write(&mut self, by: Author, key: u8, is_put: bool) {
        let view = self.view(by);
        let writes = view.members.role(&by) >= Some(Role::Writer);
        let tips = self.own_tips(by);
        let is_void = tips.iter().any(|tip| view.void.contains(&tip.id));
        if !writes || tips.len() > 1 || is_void || !self.is_ready(by) {
            return;
        }
        let prev = tips.first().copied();
        let row = view.rows.get(&key);
        let parents: Vec<Parent> = row.into_iter().flatten().map(|(head, _)| *head).collect();
        let before = prev.map_or(0, |prev| self.all[&prev.id].hlc);
        let cited = parents.iter().map(|parent| parent.hlc.wall_ms).max();
        // Clocks differ by less than it takes to collect a tombstone: an entry that was written after
        // that is not stamped before the delete.
        let now = self.clock + u64::try_from(self.rng.below(30)).unwrap();
        let hlc = now.max(before + 1).max(cited.unwrap_or(0) + 1);
        let item = Rc::new(Item {
            author: by,
            at: FrontierTip {
                seq: prev.map_or(0, |prev| prev.seq) + 1,
                id: self.new_id(),
            },
            prev,
            hlc,
            parents,
            key,
            is_put,
        });
        assert!(item.parents.iter().all(|parent| parent.hlc < stamp(hlc)));
        self.clock += 10;
        self.all.insert(item.at.id, Rc::clone(&item));
        self.written.push((item.at.id, by));
        self.peers.get_mut(&by).unwrap().node.receive(&item);
        self.ack(by);
    }

    /// One side gets everything from the other, root entries first, in order; or the first `percent`.
    /// A side that lacks what the other has removed takes its base.
    fn pull(&mut self, from: Author, to: Author, percent: usize) {
        let source = self.node(from);
        let (data, base) = (source.data.clone(), source.base.clone());
        let part = |count: usize| (count * percent).div_ceil(100);
        let mut roots: Vec<_> = source.root.values().cloned().collect();
        roots.sort_by_key(|item| (item.acts.place.seq, item.acts.place.id));
        let below_source = self.below(&base.tips);
        let below_own = self.below(&self.node(to).base.tips);
        let node = &mut self.peers.get_mut(&to).unwrap().node;
        roots.truncate(part(roots.len()));
        roots.retain(|item| !node.root.contains_key(&item.acts.place.id));
        if !roots.is_empty() {
            node.receive_root(roots);
        }
        let mut has: BTreeSet<EntryId> = node.data.keys().copied().collect();
        has.extend(&below_own);
        if !below_source.is_subset(&has) {
            if percent < 100 {
                return;
            }
            node.base = base;
            let tail = std::mem::take(&mut node.data);
            node.changed();
            let tail = tail.into_values();
            node.receive_all(tail.filter(|item| !below_source.contains(&item.at.id)));
        }
        let mut items: Vec<_> = data.into_values().collect();
        items.sort_by_key(|item| (item.hlc, item.author, item.at));
        items.truncate(part(items.len()));
        items.retain(|item| {
            let id = item.at.id;
            !below_own.contains(&id) && !node.data.contains_key(&id)
        });
        node.receive_all(items);
    }

    pub(super) fn below(&self, tips: &Frontier) -> BTreeSet<EntryId> {
        let mut below = BTreeSet::new();
        for (_, tip) in tips.iter() {
            self.add_history(tip, &mut below);
        }
        below
    }

    pub(super) fn sync(&mut self, one: Author, other: Author, percent: usize) {
        self.pull(one, other, percent);
        self.pull(other, one, percent);
        self.ack(one);
        self.ack(other);
        let acks = self.peers[&one].acks.clone();
        self.peers.get_mut(&other).unwrap().take_acks(acks);
        let acks = self.peers[&other].acks.clone();
        self.peers.get_mut(&one).unwrap().take_acks(acks);
    }

    /// One way: gives `to` what `only` names, or everything, and all acks that `from` has.
    pub(super) fn tell(&mut self, from: Author, to: Author, only: Option<&BTreeSet<EntryId>>) {
        let (root, data) = (self.node(from).root.clone(), self.node(from).data.clone());
        let is_given = |id: &EntryId| only.is_none_or(|only| only.contains(id));
        let node = &mut self.peers.get_mut(&to).unwrap().node;
        node.receive_root(
            root.into_values()
                .filter(|item| is_given(&item.acts.place.id)),
        );
        node.receive_all(data.into_values().filter(|item| is_given(&item.at.id)));
        self.ack(to);
        let acks = self.peers[&from].acks.clone();
        self.peers.get_mut(&to).unwrap().take_acks(acks);
    }

    /// Gives all acks of `from` to `to`.
    pub(super) fn tell_acks(&mut self, from: Author, to: Author) {
        self.tell(from, to, Some(&BTreeSet::new()));
    }

    /// Ids of everything that a node has, in both stores.
    pub(super) fn ids(&self, name: Author) -> BTreeSet<EntryId> {
        let node = self.node(name);
        node.root.keys().chain(node.data.keys()).copied().collect()
    }

    /// Returns whether an entry is in the root store.
    pub(super) fn is_root(&self, id: &EntryId) -> bool {
        self.roots.contains_key(id)
    }

    /// Places of the entries that a node has removed, and of those that counting acts name.
    pub(super) fn anchors(&self, name: Author) -> (Frontier, Frontier) {
        let named = self.view(name).finality.last();
        (self.node(name).base.tips.clone(), named)
    }

    /// Takes one random step.
    pub(super) fn step(&mut self, forks: bool, removals: bool, outlaw: bool) {
        let name = self.rng.choose(&self.names.clone());
        let online: Vec<Author> = {
            let names = self.names.iter().copied();
            names.filter(|name| !self.peers[name].is_offline).collect()
        };
        let key = self.rng.choose(b"klmnopq");
        self.clock += 10;
        match self.rng.below(100) {
            0..26 => {
                let is_put = self.rng.chance(66);
                self.write(name, key, is_put);
            }
            26..58 if online.len() > 1 => {
                let (one, other) = (self.rng.choose(&online), self.rng.choose(&online));
                if one != other {
                    let part = self.rng.below(101);
                    let percent = self.rng.choose(&[100, 100, 100, part]);
                    self.sync(one, other, percent);
                }
            }
            58..72 if !online.is_empty() => {
                let by = self.rng.choose(&online);
                self.propose(by);
            }
            72..82 => self.prune(name),
            82..86 => self.toggle(name, online.len()),
            86..88 if removals => {
                let by = self.rng.choose(&['A', 'B', 'C'].map(author));
                self.remove(by, name);
            }
            88..90 if self.names.len() < 7 => {
                let by = self.rng.choose(&['A', 'B'].map(author));
                if Self::is_admin(&self.view(by).members, by) {
                    let new = author(['Y', 'Z'][self.names.len() - 5]);
                    let role = self.rng.choose(&[Role::Admin, Role::Writer]);
                    self.join(new);
                    self.grant(by, new, role);
                    self.ack(new);
                }
            }
            90..94 if forks => {
                let writer = self.rng.choose(&['W', 'X'].map(author));
                self.back_up_or_restore(writer, key);
            }
            94..98 => {
                for one in &online {
                    for other in online.iter().filter(|other| one < *other) {
                        self.sync(*one, *other, 100);
                    }
                }
            }
            98..100 if outlaw => self.propose_anything(author('C')),
            _nothing => {}
        }
    }

    fn toggle(&mut self, name: Author, online: usize) {
        let peer = self.peers.get_mut(&name).unwrap();
        if peer.is_offline {
            peer.is_offline = false;
            self.dormant.remove(&name);
        } else if online > 3 {
            peer.is_offline = true;
            if self.rng.chance(60) && !peer.has_removed {
                self.dormant.insert(name);
            }
        }
    }

    fn back_up_or_restore(&mut self, name: Author, key: u8) {
        let peer = self.peers.get_mut(&name).unwrap();
        match peer.saved.take() {
            Some(saved) if !peer.has_forked => {
                peer.node = *saved;
                peer.has_forked = true;
                self.ack(name);
                self.write(name, key, true);
            }
            _none => peer.saved = Some(Box::new(peer.node.clone())),
        }
    }

    /// Returns whether a dormant admin removed one that is still an admin elsewhere: the one case in
    /// which nodes may have to adopt a base, with a loud status.
    pub(super) fn is_loud(&self) -> bool {
        self.is_loud
    }
}
