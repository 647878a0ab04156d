//! The watermark, and the collection that it allows.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    cases::{author, id, place},
    node::{CREATOR, Node, RootChains, RootItem, STORE},
    proven::{frontier, item, node, root_entry},
};
use crate::{
    id::Author,
    protocol::{
        anchors_act::{ActCollection, AnchorsAct},
        finality::{AckMissing, Finality, Grounds, Held, Hold, Proven, Stability, Watermark},
        frontier::{Frontier, FrontierTip},
        membership::{
            Members,
            role::{Act, Role, Tips as Kept},
        },
        placed_act::PlacedAct,
    },
};

type Tips<'a> = &'a [(char, u64, &'a str)];

/// A mesh with the admins A (which founded it) and B, the writer W and the reader R. A asks.
struct Mesh {
    node: Node,
    members: Members,
    dormant: BTreeSet<Author>,
    proven: BTreeMap<Author, Proven>,
    own: Frontier,
    open_forks: BTreeMap<Author, Vec<FrontierTip>>,
    before_ms: Option<u64>,
    finality: Finality,
}

// The last entry of A in the root store, and so the grant of W.
const GRANTED: (char, u64, &str) = ('A', 3, "g3");

impl Mesh {
    fn new(own: Tips<'_>) -> Self {
        let mut node = node(&["w1", "w2", "w3", "w4", "w5", "w6", "v3", "v4"]);
        let grants = [
            ("g1", 1, 'B', Role::Admin),
            ("g2", 2, 'R', Role::Reader),
            ("g3", 3, 'W', Role::Writer),
        ];
        for (name, seq, to, role) in grants {
            let mut entry = root_entry(name, 'A', seq);
            let RootItem { acts, prev, .. } = std::rc::Rc::get_mut(&mut entry).unwrap();
            acts.acts = vec![(author(to), Act::Grant(role))];
            *prev = (seq > 1).then(|| place(seq - 1, &format!("g{}", seq - 1)));
            node.receive_root([entry]);
        }
        let mut mesh = Self {
            members: node.view().members.clone(),
            node,
            dormant: BTreeSet::new(),
            proven: BTreeMap::new(),
            own: frontier(own),
            open_forks: BTreeMap::new(),
            before_ms: None,
            finality: Finality::default(),
        };
        for name in ['A', 'B', 'W'] {
            mesh.acks(name, own, &[GRANTED]);
        }
        mesh
    }

    fn acks(&mut self, name: char, data: Tips<'_>, root: Tips<'_>) {
        let proven = Proven::own(frontier(data), frontier(root));
        self.proven.insert(author(name), proven);
    }

    fn finish(&mut self, anchors: Tips<'_>) {
        let act = AnchorsAct::new(1, None, 0, frontier(anchors), None).unwrap();
        let Ok(finality) = Finality::join([&act], &Frontier::default(), &self.node);
        self.finality = finality;
    }

    fn grounds(&self) -> Grounds<'_> {
        Grounds {
            members: &self.members,
            dormant: &self.dormant,
            proven: &self.proven,
            finality: &self.finality,
            own: &self.own,
            open_forks: &self.open_forks,
            before_ms: self.before_ms,
        }
    }

    fn watermark(&self) -> Result<Watermark, AckMissing> {
        let Ok(watermark) = self
            .grounds()
            .watermark(&self.node, &RootChains(&self.node));
        watermark
    }

    fn anchors(&self) -> Frontier {
        self.watermark().unwrap().anchors
    }

    fn collection(&self, acts: &[PlacedAct], anchors: Tips<'_>) -> Option<ActCollection> {
        let anchors = frontier(anchors);
        let Ok(collection) = Stability::now(acts, &self.grounds(), &anchors, &self.node);
        collection
    }
}

fn held(after: u64, through: u64, by: Hold) -> Held {
    Held {
        author: author('W'),
        after,
        through,
        by,
    }
}

fn nodes(names: &[char]) -> BTreeSet<Author> {
    names.iter().map(|name| author(*name)).collect()
}

#[test]
fn everything_that_all_active_members_have_becomes_final() {
    let mut mesh = Mesh::new(&[('W', 6, "w6")]);
    let all = Watermark {
        anchors: frontier(&[('W', 6, "w6")]),
        held: Vec::new(),
    };
    assert_eq!(mesh.watermark(), Ok(all.clone()));
    mesh.acks('B', &[('W', 4, "w4")], &[GRANTED]);
    let some = Watermark {
        anchors: frontier(&[('W', 4, "w4")]),
        held: vec![held(4, 6, Hold::Members(nodes(&['B'])))],
    };
    assert_eq!(mesh.watermark(), Ok(some));
    mesh.acks('W', &[('W', 2, "w2")], &[GRANTED]);
    mesh.acks('B', &[('W', 3, "v3")], &[GRANTED]);
    let watermark = mesh.watermark().unwrap();
    assert_eq!(watermark.anchors, frontier(&[('W', 2, "w2")]));
    assert_eq!(
        watermark.held,
        [held(2, 6, Hold::Members(nodes(&['B', 'W'])))]
    );
    // A member that is dormant is not waited for; readers never are.
    mesh.dormant = nodes(&['B', 'W']);
    assert_eq!(mesh.watermark(), Ok(all));
    assert_eq!(mesh.grounds().active().collect::<Vec<_>>(), [CREATOR]);
    // An ack without any entry is an ack.
    mesh.dormant.clear();
    mesh.acks('B', &[], &[GRANTED]);
    let nothing = mesh.watermark().unwrap();
    assert_eq!(nothing.anchors, Frontier::default());
    assert_eq!(nothing.held, [held(0, 6, Hold::Members(nodes(&['B'])))]);
}

#[test]
fn members_that_were_never_heard_stop_everything() {
    let mut mesh = Mesh::new(&[('W', 6, "w6")]);
    mesh.proven.insert(author('B'), Proven::default());
    mesh.proven.remove(&author('W'));
    let missing = mesh.watermark().unwrap_err();
    assert_eq!(missing.nodes, nodes(&['B', 'W']));
    assert_eq!(
        missing.to_string(),
        "2 active members have acknowledged nothing yet: 42424242, 57575757"
    );
    mesh.dormant = nodes(&['B', 'W']);
    assert!(mesh.watermark().is_ok());
}

#[test]
fn removed_members_are_not_asked() {
    let mut mesh = Mesh::new(&[('W', 6, "w6")]);
    let mut entry = root_entry("g4", 'A', 4);
    let RootItem { acts, prev, .. } = std::rc::Rc::get_mut(&mut entry).unwrap();
    acts.acts = vec![(
        author('B'),
        Act::Remove(crate::protocol::membership::role::Tips::default()),
    )];
    *prev = Some(place(3, "g3"));
    mesh.node.receive_root([entry]);
    mesh.members = mesh.node.view().members.clone();
    mesh.proven.remove(&author('B'));
    assert_eq!(mesh.anchors(), frontier(&[('W', 6, "w6")]));
}

#[test]
fn grant_must_be_known_to_all_admins() {
    let mut mesh = Mesh::new(&[('W', 6, "w6")]);
    // A writer need not know it.
    mesh.acks('W', &[('W', 6, "w6")], &[]);
    assert_eq!(mesh.anchors(), frontier(&[('W', 6, "w6")]));
    mesh.acks('B', &[('W', 6, "w6")], &[('A', 2, "g2")]);
    let watermark = mesh.watermark().unwrap();
    assert_eq!(watermark.anchors, Frontier::default());
    assert_eq!(watermark.held, [held(0, 6, Hold::Grant(nodes(&['B'])))]);
    let without = |mesh: &Mesh| {
        let (grounds, root) = (mesh.grounds(), RootChains(&mesh.node));
        let Ok(without) = grounds.admins_without(&author('A'), place(3, "g3"), &root);
        without
    };
    assert_eq!(without(&mesh), nodes(&['B']));
    // Nor has an admin seen it that was never heard.
    mesh.proven.remove(&author('B'));
    assert_eq!(without(&mesh), nodes(&['B']));
    mesh.dormant = nodes(&['B']);
    assert_eq!(without(&mesh), BTreeSet::new());
    // Nor does anything become final of an author that nobody made a writer.
    let mut stranger = Mesh::new(&[('S', 1, "s1")]);
    stranger.node.receive(&item('S', "s1", 1, ""));
    let by = stranger.watermark().unwrap().held.remove(0).by;
    assert_eq!(by, Hold::NotGranted);
    // The creator needs no grant.
    let mut founder = Mesh::new(&[('A', 1, "a1")]);
    founder.node.receive(&item('A', "a1", 1, ""));
    assert_eq!(founder.anchors(), frontier(&[('A', 1, "a1")]));
}

#[test]
fn young_entries_are_not_final_yet() {
    let mut mesh = Mesh::new(&[('W', 6, "w6")]);
    for (before_ms, after) in [(10, 0), (11, 1), (40, 3), (41, 4), (60, 5), (61, 6)] {
        mesh.before_ms = Some(before_ms);
        let watermark = mesh.watermark().unwrap();
        assert_eq!(watermark.anchors.seq(&author('W')), after, "{before_ms}");
        let young = (after < 6).then(|| held(after, 6, Hold::Young));
        assert_eq!(watermark.held, young.into_iter().collect::<Vec<_>>());
    }
    // Acks and age together.
    mesh.acks('B', &[('W', 4, "w4")], &[GRANTED]);
    for (before_ms, after) in [(21, 2), (41, 4), (99, 4)] {
        mesh.before_ms = Some(before_ms);
        assert_eq!(mesh.anchors().seq(&author('W')), after);
    }
}

#[test]
fn fork_stops_its_author_where_branches_part() {
    let both: Tips<'_> = &[('W', 6, "w6"), ('W', 4, "v4")];
    let mut mesh = Mesh::new(both);
    let tips = mesh.own.tips(&author('W')).to_vec();
    mesh.open_forks.insert(author('W'), tips);
    let watermark = mesh.watermark().unwrap();
    assert_eq!(watermark.anchors, frontier(&[('W', 2, "w2")]));
    let by_tip = [held(2, 4, Hold::Fork), held(2, 6, Hold::Fork)];
    assert_eq!(watermark.held, by_tip);
    mesh.acks('B', &[('W', 1, "w1")], &[GRANTED]);
    let watermark = mesh.watermark().unwrap();
    assert_eq!(watermark.anchors, frontier(&[('W', 1, "w1")]));
    assert_eq!(watermark.held[0].by, Hold::Members(nodes(&['B'])));
    mesh.acks('B', both, &[GRANTED]);
    // Every act repeats the last anchors.
    mesh.finish(&[('W', 3, "w3")]);
    assert_eq!(mesh.anchors(), frontier(&[('W', 3, "w3")]));
    mesh.open_forks.clear();
    mesh.finish(&[]);
    assert_eq!(mesh.anchors(), frontier(both));
    mesh.acks('B', &[('W', 5, "w5")], &[GRANTED]);
    assert_eq!(mesh.anchors(), frontier(&[('W', 5, "w5")]));
    mesh.acks('W', &[('W', 4, "v4")], &[GRANTED]);
    assert_eq!(mesh.anchors(), frontier(&[('W', 2, "w2")]));
}

#[test]
fn anchors_never_go_back() {
    let mut mesh = Mesh::new(&[('W', 6, "w6")]);
    mesh.finish(&[('W', 5, "w5"), ('W', 3, "v3")]);
    for tips in [
        &[][..],
        &[('W', 2, "w2")],
        &[('W', 4, "w4")],
        &[('W', 4, "v4")],
    ] {
        mesh.acks('B', tips, &[GRANTED]);
        let watermark = mesh.watermark().unwrap();
        assert_eq!(
            watermark.anchors,
            frontier(&[('W', 5, "w5"), ('W', 3, "v3")])
        );
        assert_eq!(watermark.held, [held(5, 6, Hold::Members(nodes(&['B'])))]);
    }
    mesh.acks('B', &[('W', 6, "w6")], &[GRANTED]);
    assert_eq!(mesh.anchors(), frontier(&[('W', 6, "w6"), ('W', 3, "v3")]));
}

fn act(name: &str, anchors: Tips<'_>) -> PlacedAct {
    PlacedAct {
        by: CREATOR,
        at: place(1, name),
        store: STORE,
        cites: Vec::new(),
        act: AnchorsAct::new(1, None, 0, frontier(anchors), None).unwrap(),
    }
}

#[test]
fn collection_needs_all_writers_and_their_own_entries() {
    let acts = [
        act("newest", &[('W', 6, "w6")]),
        act("middle", &[('W', 3, "w3")]),
        act("oldest", &[('W', 1, "w1")]),
    ];
    let final_now: Tips<'_> = &[('W', 5, "w5")];
    let mut mesh = Mesh::new(&[('W', 5, "w5")]);
    let own = BTreeMap::from([(author('W'), place(5, "w5"))]);
    let of = |name: &str| {
        Some(ActCollection {
            before: id(name),
            own: own.clone(),
        })
    };
    assert_eq!(mesh.collection(&acts, final_now), of("middle"));
    assert_eq!(mesh.collection(&acts[..1], final_now), None);
    // B has less: also while it is dormant.
    mesh.acks('B', &[('W', 2, "w2")], &[]);
    assert_eq!(mesh.collection(&acts, final_now), of("oldest"));
    mesh.dormant = nodes(&['B', 'W']);
    assert_eq!(mesh.collection(&acts, final_now), of("oldest"));
    mesh.proven.remove(&author('B'));
    assert_eq!(mesh.collection(&acts, final_now), None);
    // The own entries of W are not all final.
    mesh.acks('B', &[('W', 5, "w5")], &[]);
    assert_eq!(mesh.collection(&acts, final_now), of("middle"));
    assert_eq!(mesh.collection(&acts, &[('W', 4, "w4")]), None);
    assert_eq!(mesh.collection(&acts, &[('W', 4, "v4")]), None);
    mesh.acks('W', &[('W', 5, "w5"), ('W', 3, "v3")], &[]);
    assert_eq!(mesh.collection(&acts, final_now), None);
    // Or not all of them are here.
    let mut ahead = super::proven::ack(1, 1, &[('W', 5, "w5"), ('W', 7, "w7")]);
    let mut proven = Proven::default();
    let root = crate::protocol::ack::Ack {
        frontier: Frontier::default(),
        ..ahead.clone()
    };
    for (own_is_here, collection) in [(false, None), (true, of("middle"))] {
        if own_is_here {
            ahead.frontier = frontier(&[('W', 5, "w5")]);
        }
        let Ok(_heard) = proven.hear(&ahead, &root, &mesh.node, &RootChains(&mesh.node));
        mesh.proven.insert(author('W'), proven.clone());
        assert_eq!(mesh.collection(&acts, final_now), collection);
    }
    // W has an entry of R, who wrote when it was a writer: it may not know the tombstone.
    let of_r = ('R', 1, "r1");
    mesh.acks('W', &[('W', 5, "w5"), of_r], &[]);
    assert_eq!(mesh.collection(&acts, final_now), None);
    let with_r = [final_now[0], of_r];
    assert_eq!(mesh.collection(&acts, &with_r), of("middle"));
    mesh.open_forks.insert(author('R'), vec![place(1, "r1")]);
    assert_eq!(mesh.collection(&acts, final_now), of("middle"));
    let order = AnchorsAct::new(2, None, 0, frontier(final_now), of("middle"));
    assert!(order.is_ok(), "such a collection can be ordered");
}

// Each writes on, so no ack has all that the others had written by then.
#[test]
fn collection_goes_by_what_each_writer_had_when_it_had_all_of_the_act() {
    let middle = act("middle", &[('W', 3, "w3")]);
    let mut mesh = Mesh::new(&[('W', 5, "w5")]);
    mesh.acks('B', &[('W', 2, "w2")], &[]);
    let mut stability = Stability::new(&middle);
    let order = |mesh: &Mesh, stability: &Stability, anchors: Tips<'_>| {
        let Ok(ordered) = stability.order(&mesh.grounds(), &frontier(anchors), &mesh.node);
        ordered
    };
    let Ok(()) = stability.hear(&mesh.grounds(), &mesh.node);
    assert_eq!(order(&mesh, &stability, &[('W', 5, "w5")]), None);
    // W goes on before B has the act.
    mesh.acks('W', &[('W', 6, "w6")], &[]);
    mesh.acks('B', &[('W', 3, "w3")], &[]);
    let Ok(()) = stability.hear(&mesh.grounds(), &mesh.node);
    let acts = std::slice::from_ref(&middle);
    assert_eq!(mesh.collection(acts, &[('W', 5, "w5")]), None);
    let own = BTreeMap::from([(author('W'), place(5, "w5"))]);
    let before = id("middle");
    let expected = Some(ActCollection { before, own });
    assert_eq!(order(&mesh, &stability, &[('W', 5, "w5")]), expected);
    assert_eq!(order(&mesh, &stability, &[('W', 6, "w6")]), expected);
    assert_eq!(order(&mesh, &stability, &[('W', 4, "w4")]), None);
    // A new writer is asked, too.
    let mut entry = root_entry("g4", 'A', 4);
    let RootItem { acts, prev, .. } = std::rc::Rc::get_mut(&mut entry).unwrap();
    acts.acts = vec![(author('X'), Act::Grant(Role::Writer))];
    *prev = Some(place(3, "g3"));
    mesh.node.receive_root([entry]);
    mesh.members = mesh.node.view().members.clone();
    assert_eq!(order(&mesh, &stability, &[('W', 5, "w5")]), None);
    mesh.acks('X', &[('W', 6, "w6")], &[]);
    let Ok(()) = stability.hear(&mesh.grounds(), &mesh.node);
    assert_eq!(order(&mesh, &stability, &[('W', 5, "w5")]), expected);
}

// Nobody asks them what they knew. So all of their entries that may count have to be final.
#[test]
fn collection_waits_for_the_entries_of_members_that_write_no_more() {
    let middle = act("middle", &[('W', 3, "w3")]);
    let order = |act: Act, anchors: Tips<'_>| {
        let mut mesh = Mesh::new(&[('W', 3, "w3")]);
        let mut stability = Stability::new(&middle);
        let Ok(()) = stability.hear(&mesh.grounds(), &mesh.node);
        let mut entry = root_entry("g4", 'A', 4);
        let RootItem { acts, prev, .. } = std::rc::Rc::get_mut(&mut entry).unwrap();
        acts.acts = vec![(author('W'), act)];
        *prev = Some(place(3, "g3"));
        mesh.node.receive_root([entry]);
        mesh.members = mesh.node.view().members.clone();
        let Ok(ordered) = stability.order(&mesh.grounds(), &frontier(anchors), &mesh.node);
        ordered.is_some()
    };
    let naming = |tips: &[FrontierTip]| {
        let tips = tips.iter().map(|tip| (STORE, *tip));
        Kept::naming([STORE], tips).unwrap()
    };
    let w5: &dyn Fn() -> Kept = &|| naming(&[place(5, "w5")]);
    for act in [Act::Remove(w5()), Act::Lower(Role::Reader, w5())] {
        assert!(!order(act.clone(), &[('W', 4, "w4")]), "{act:?}");
        assert!(order(act.clone(), &[('W', 5, "w5")]), "{act:?}");
        assert!(order(act.clone(), &[('W', 6, "w6")]), "{act:?}");
    }
    let nothing = Act::Remove(naming(&[]));
    assert!(order(nothing, &[('W', 3, "w3")]), "no entry counts");
    let unspoken = Act::Remove(Kept::default());
    assert!(!order(unspoken, &[('W', 6, "w6")]), "any entry may count");
}
