//! Fixed cases: entries and acts about which nodes could disagree, in many orders of arrival, on nodes
//! that remove final entries after each step and on nodes that never do.

use std::{collections::BTreeSet, rc::Rc};

use super::{
    node::{CREATOR, Item, Node, ROOT, RootItem, STORE, stamp},
    rng::Rng,
};
use crate::{
    id::{Author, EntryId, Seq},
    protocol::{
        anchors_act::AnchorsAct,
        entry::Parent,
        frontier::{Frontier, FrontierTip},
        hlc::Hlc,
        membership::{
            acts::Acts,
            role::{Act, Role, Tips},
        },
        placed_act::PlacedAct,
    },
};

#[derive(Debug, Clone)]
pub(super) enum Event {
    Root(Rc<RootItem>),
    Data(Rc<Item>),
}

pub(super) fn id(name: &str) -> EntryId {
    let mut id = [0; 32];
    id[..name.len()].copy_from_slice(name.as_bytes());
    EntryId(id)
}

pub(super) fn author(name: char) -> Author {
    Author([u8::try_from(name).unwrap(); 32])
}

pub(super) fn place(seq: Seq, name: &str) -> FrontierTip {
    FrontierTip { seq, id: id(name) }
}

/// An entry of the root store as others cite it: stamps do not matter there.
pub(super) fn parent(by: char, seq: Seq, name: &str) -> Parent {
    Parent {
        hlc: Hlc::ZERO,
        author: author(by),
        id: id(name),
        seq,
    }
}

/// A root entry at `seq`; `prev` is the name of the one before it. Admins but the creator cite `g1`.
fn root(name: &str, by: char, seq: Seq, prev: &str, acts: &[(char, Act)]) -> RootItem {
    let acts = acts.iter().map(|(node, act)| (author(*node), act.clone()));
    RootItem {
        acts: Acts {
            place: parent(by, seq, name),
            cites: vec![parent('A', 1, "g1")],
            acts: acts.collect(),
            needs_authority: false,
            anchors: Vec::new(),
            founds: Vec::new(),
            describes: Vec::new(),
        },
        prev: (seq > 1).then(|| place(seq - 1, prev)),
        anchors: None,
    }
}

fn grant(name: &str, by: char, seq: Seq, prev: &str, node: char, role: Role) -> Event {
    Event::Root(Rc::new(root(
        name,
        by,
        seq,
        prev,
        &[(node, Act::Grant(role))],
    )))
}

fn removal(name: &str, by: char, seq: Seq, prev: &str, node: char, tips: &[(Seq, &str)]) -> Event {
    let tips = tips.iter().map(|(seq, name)| (STORE, place(*seq, name)));
    let act = Act::Remove(Tips::naming([STORE], tips).unwrap());
    Event::Root(Rc::new(root(name, by, seq, prev, &[(node, act)])))
}

fn anchors(name: &str, by: char, seq: Seq, prev: &str, lines: &[(char, Seq, &str)]) -> Event {
    let lines = lines.iter();
    let lines = lines.map(|(node, seq, name)| (author(*node), place(*seq, name)));
    let mut item = root(name, by, seq, prev, &[]);
    item.acts.needs_authority = true;
    item.anchors = Some(PlacedAct {
        by: author(by),
        at: item.acts.tip(),
        store: STORE,
        cites: Vec::new(),
        act: AnchorsAct::new(1, None, 0, lines.collect(), None).unwrap(),
    });
    Event::Root(Rc::new(item))
}

/// An act of the creator, right after the grants of `cast`.
fn by_creator(name: &str, lines: &[(char, Seq, &str)]) -> Event {
    anchors(name, 'A', 4, "g3", lines)
}

/// Admin B, and the writers W and Y.
fn cast() -> [Event; 3] {
    [
        grant("g1", 'A', 1, "", 'B', Role::Admin),
        grant("g2", 'A', 2, "g1", 'W', Role::Writer),
        grant("g3", 'A', 3, "g2", 'Y', Role::Writer),
    ]
}

/// Consecutive entries after `prev`, each of which cites the one before it.
fn log(by: char, names: &[&str], prev: Option<(Seq, &str)>, hlc: u64) -> Vec<Rc<Item>> {
    let mut before = prev.map(|(seq, name)| place(seq, name));
    let mut parents = Vec::new();
    let mut items = Vec::new();
    for (name, hlc) in names.iter().zip(hlc..) {
        let at = place(before.map_or(0, |before| before.seq) + 1, name);
        let item = Item {
            author: author(by),
            at,
            prev: before,
            hlc,
            parents,
            key: b'k',
            is_put: true,
        };
        before = Some(at);
        parents = vec![item.as_parent()];
        items.push(Rc::new(item));
    }
    items
}

/// The first entry of Y, which cites `parents`.
fn by_y(parents: &[(u64, char, Seq, &str)]) -> Event {
    let parents = parents.iter().map(|(hlc, by, seq, name)| Parent {
        hlc: stamp(*hlc),
        author: author(*by),
        id: id(name),
        seq: *seq,
    });
    Event::Data(Rc::new(Item {
        author: author('Y'),
        at: place(1, "y1"),
        prev: None,
        hlc: 90,
        parents: parents.collect(),
        key: b'k',
        is_put: true,
    }))
}

fn data(items: &[Rc<Item>]) -> Vec<Event> {
    items.iter().cloned().map(Event::Data).collect()
}

/// A case, and the entries that apply in any order on a whole node.
struct Case {
    name: &'static str,
    events: Vec<Event>,
    applied: &'static [&'static str],
    // False where nobody may remove final entries at all times: see the case.
    prunes: bool,
}

fn case(name: &'static str, parts: &[&[Event]], applied: &'static [&'static str]) -> Case {
    Case {
        name,
        events: parts.concat(),
        applied,
        prunes: true,
    }
}

fn cases() -> Vec<Case> {
    let w = log('W', &["w1", "w2", "w3", "w4", "w5"], None, 10);
    let w = data(&w);
    let fork = data(&log('W', &["v2", "v3", "v4"], Some((1, "w1")), 20));
    let branch = data(&log('W', &["x2", "x3"], Some((1, "w1")), 30));
    let second = data(&log('W', &["u3"], Some((2, "w2")), 40));
    let z = data(&log('Z', &["z1", "z2"], None, 10));
    let w2 = [by_creator("a", &[('W', 2, "w2")])];
    let two = [by_creator("a", &[('W', 5, "w5"), ('W', 2, "x2")])];
    let by_b = |lines| anchors("b", 'B', 1, "", lines);
    let remove = |tips| removal("r", 'B', 1, "", 'W', tips);
    let remove_b = removal("r", 'A', 4, "g3", 'B', &[]);
    let mut voided = case(
        "act is voided by a better rank",
        &[
            &[by_b(&[('W', 2, "w2")]), remove_b.clone()],
            &[removal("q", 'A', 5, "r", 'W', &[(1, "w1")])],
            &w[..2],
        ],
        &["w1"],
    );
    // Admin A never acknowledged the act of B, so nobody may remove anything.
    voided.prunes = false;
    let mut names_void = case(
        "late act names the void fork",
        &[&w2, &w[..3], &fork[..1], &[by_b(&[('W', 2, "v2")])]],
        &["w1", "w2", "w3", "v2"],
    );
    // A node that has removed what both branches have in common takes a base from another one.
    names_void.prunes = false;
    vec![
        case(
            "late removal below the anchor",
            &[&w2, &w[..4], &[remove(&[(1, "w1")])]],
            &["w1", "w2"],
        ),
        case(
            "late removal above the anchor",
            &[&w2, &w[..4], &[remove(&[(3, "w3")])]],
            &["w1", "w2", "w3"],
        ),
        case(
            "two removals and an anchor",
            &[
                &w2,
                &[remove(&[(1, "w1")])],
                &w[..3],
                &[removal("q", 'A', 5, "a", 'W', &[(3, "w3")])],
            ],
            &["w1", "w2"],
        ),
        case(
            "honest entry cites a void fork",
            &[&w2, &w[..3], &fork[..2], &[by_y(&[(21, 'W', 3, "v3")])]],
            &["w1", "w2", "w3", "y1"],
        ),
        case(
            "removal names a tip on a void fork",
            &[&w2, &w[..5], &fork, &[remove(&[(4, "v4")])]],
            // The removal counts as one whose tip nobody has: it keeps all entries of a lower seq.
            &["w1", "w2", "w3"],
        ),
        case(
            "false parents below the anchor",
            &[
                &w2,
                &w[..2],
                &[by_y(&[(98, 'W', 2, "w2"), (99, 'W', 1, "w1")])],
            ],
            &["w1", "w2", "y1"],
        ),
        case(
            "false parent of a final entry, above the anchor",
            &[
                &[by_creator("a", &[('Y', 1, "y1"), ('W', 2, "w2")])],
                &w[..3],
                &[by_y(&[(77, 'W', 3, "w3")])],
            ],
            &["w1", "w2", "w3", "y1"],
        ),
        case(
            "removal names a tip below one of two anchors",
            &[&two, &w, &branch, &[remove(&[(4, "w4")])]],
            &["w1", "w2", "w3", "w4", "w5", "x2"],
        ),
        case(
            "parent between two anchors of one author",
            &[&two, &w, &branch[..1], &[by_y(&[(13, 'W', 4, "w4")])]],
            &["w1", "w2", "w3", "w4", "w5", "x2", "y1"],
        ),
        case(
            "anchor that nobody has",
            &[&[by_b(&[('W', 3, "nowhere")])], &w[..3]],
            &["w1", "w2", "w3"],
        ),
        case(
            "fork between two anchors",
            &[&w2, &[by_b(&[('W', 3, "w3")])], &w[..3], &second],
            &["w1", "w2", "w3"],
        ),
        case(
            "two acts by two admins",
            &[
                &w2,
                &[by_b(&[('W', 3, "w3"), ('Y', 1, "y1")])],
                &w[..4],
                &[by_y(&[(11, 'W', 2, "w2")])],
            ],
            &["w1", "w2", "w3", "w4", "y1"],
        ),
        case(
            "grant of an author with anchors is voided",
            &[
                &[grant("g4", 'B', 1, "", 'Z', Role::Writer), remove_b],
                &[anchors("a", 'A', 5, "r", &[('Z', 1, "z1")])],
                &z,
            ],
            &["z1"],
        ),
        names_void,
        voided,
    ]
}

fn give(node: &mut Node, event: &Event) {
    match event {
        Event::Root(item) => node.receive_root([Rc::clone(item)]),
        Event::Data(item) => node.receive(item),
    }
}

fn name(event: &Event) -> String {
    let id = match event {
        Event::Root(item) => item.acts.place.id,
        Event::Data(item) => item.at.id,
    };
    String::from_utf8(id.0.into_iter().filter(|byte| *byte > 0).collect()).unwrap()
}

#[test]
fn order_and_removed_entries_change_nothing() {
    const ORDERS: u64 = 150;
    for case in cases() {
        let mut rng = Rng(1);
        let mut expected = None;
        for order in 0..ORDERS {
            let mut events = case.events.clone();
            rng.shuffle(&mut events);
            let names: Vec<String> = events.iter().map(name).collect();
            let prunes = case.prunes && order % 2 == 1;
            let context = format!("{}: {} prunes={prunes}", case.name, names.join(" "));
            let mut node = Node::new();
            for event in cast().iter().chain(&events) {
                give(&mut node, event);
                if prunes {
                    node.fold();
                }
            }
            // Peers give what is lacking once more, and nothing waits for ever.
            node.waits = false;
            events.iter().for_each(|event| give(&mut node, event));
            let view = node.view();
            let (members, rows) = expected.get_or_insert((view.members.clone(), view.rows.clone()));
            assert_eq!(
                (&view.members, &view.rows),
                (&*members, &*rows),
                "{context}"
            );
            if !prunes {
                let applied = case.applied.iter().map(|name| id(name));
                assert_eq!(view.applied, applied.collect::<BTreeSet<_>>(), "{context}");
            }
        }
    }
}

#[test]
fn acts_are_joined_in_every_order() {
    // Two admins publish anchors and remove a writer; each is removed by a better one, or not.
    let w = log('W', &["w1", "w2", "w3", "w4"], None, 10);
    let setup: Vec<Event> = data(&w);
    let events = [
        grant("g1", 'A', 1, "", 'B', Role::Admin),
        grant("g2", 'A', 2, "g1", 'W', Role::Writer),
        anchors("a1", 'A', 3, "g2", &[('W', 1, "w1")]),
        anchors("b1", 'B', 1, "", &[('W', 2, "w2")]),
        anchors("b2", 'B', 2, "b1", &[('W', 3, "w3")]),
        removal("b3", 'B', 3, "b2", 'W', &[(1, "w1")]),
        // B counts through its first act.
        Event::Root(Rc::new(root(
            "a4",
            'A',
            4,
            "a1",
            &[(
                'B',
                Act::Remove(Tips::new([(ROOT, place(3, "b3"))]).unwrap()),
            )],
        ))),
        anchors("b4", 'B', 4, "b3", &[('W', 4, "w4")]),
    ];
    let mut items: Vec<&Event> = events.iter().collect();
    let (mut orders, mut expected) = (0, None);
    let mut whole = Node::new();
    for event in &setup {
        give(&mut whole, event);
    }
    for_each_order(&mut items, 0, &mut |events: &[&Event]| {
        orders += 1;
        // An earlier evaluation must not matter, so only some orders evaluate on the way.
        let mut node = whole.clone();
        for (index, event) in events.iter().enumerate() {
            let Event::Root(item) = event else {
                unreachable!()
            };
            node.root.insert(item.acts.place.id, Rc::clone(item));
            if orders % 64 == 0 && index % 3 == 0 {
                node.changed();
                node.view();
            }
        }
        node.changed();
        let view = node.view();
        expected.get_or_insert_with(|| Rc::clone(&view));
        assert_eq!(Some(&view), expected.as_ref());
    });
    assert_eq!(orders, 40_320);
    let view = expected.unwrap();
    let last: Frontier = [(author('W'), place(3, "w3"))].into_iter().collect();
    assert_eq!(
        view.finality.last(),
        last,
        "the act after the kept tip is void"
    );
    let applied = ["w1", "w2", "w3"].map(id);
    assert_eq!(
        view.applied,
        BTreeSet::from(applied),
        "the removal is clamped"
    );
    assert_eq!(view.members.role(&CREATOR), Some(Role::Admin));
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
