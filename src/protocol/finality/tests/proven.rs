//! The entries that acks prove.

use std::rc::Rc;

use super::{
    cases::{author, place},
    node::{Item, Node, ROOT, RootChains, RootItem, STORE},
};
use crate::{
    id::Author,
    protocol::{
        ack::Ack,
        finality::{Heard, Proven},
        frontier::{Frontier, FrontierTip},
        membership::acts::Acts,
    },
};

/// Entries of W: `w1` to `w6`, and `v3`, `v4` on a fork that left `w2`. Stamps are 10 times the seq.
pub(super) const LOG: [(&str, u64, &str); 8] = [
    ("w1", 1, ""),
    ("w2", 2, "w1"),
    ("w3", 3, "w2"),
    ("w4", 4, "w3"),
    ("w5", 5, "w4"),
    ("w6", 6, "w5"),
    ("v3", 3, "w2"),
    ("v4", 4, "v3"),
];

pub(super) fn item(by: char, name: &str, seq: u64, prev: &str) -> Rc<Item> {
    Rc::new(Item {
        author: author(by),
        at: place(seq, name),
        prev: (seq > 1).then(|| place(seq - 1, prev)),
        hlc: 10 * seq,
        parents: Vec::new(),
        key: b'k',
        is_put: true,
    })
}

/// A node that has the entries of W in `names`.
pub(super) fn node(names: &[&str]) -> Node {
    let mut node = Node::new();
    for (name, seq, prev) in LOG {
        if names.contains(&name) {
            node.receive(&item('W', name, seq, prev));
        }
    }
    assert_eq!(node.data.len(), names.len());
    node
}

pub(super) fn frontier(tips: &[(char, u64, &str)]) -> Frontier {
    let tips = tips.iter();
    tips.map(|(by, seq, name)| (author(*by), place(*seq, name)))
        .collect()
}

pub(super) fn root_entry(name: &str, by: char, seq: u64) -> Rc<RootItem> {
    Rc::new(RootItem {
        acts: Acts {
            entry: place(seq, name).id,
            author: author(by),
            seq,
            cites: Vec::new(),
            acts: Vec::new(),
            needs_authority: false,
            anchors: Vec::new(),
            founds: Vec::new(),
            describes: Vec::new(),
        },
        prev: None,
        anchors: None,
    })
}

pub(super) const MEMBER: Author = Author([b'W'; 32]);

pub(super) fn ack(start: u64, counter: u64, tips: &[(char, u64, &str)]) -> Ack {
    Ack {
        node: MEMBER,
        store: STORE,
        incarnation: start,
        counter,
        is_part: false,
        frontier: frontier(tips),
        state: None,
    }
}

/// The ack for the root store that goes with `data`.
fn root(data: &Ack, tips: &[(char, u64, &str)]) -> Ack {
    Ack {
        store: ROOT,
        frontier: frontier(tips),
        ..data.clone()
    }
}

fn hear(proven: &mut Proven, node: &Node, data: &Ack) -> Heard {
    let Ok(heard) = proven.hear(data, &root(data, &[]), node, &RootChains(node));
    heard
}

fn through(proven: &Proven, node: &Node, tip: FrontierTip) -> Option<FrontierTip> {
    let Ok(through) = proven.through(&MEMBER, tip, node);
    through
}

const ALL: [&str; 8] = ["w1", "w2", "w3", "w4", "w5", "w6", "v3", "v4"];

#[test]
fn tip_proves_what_it_leads_back_to() {
    let node = node(&ALL);
    let w6 = place(6, "w6");
    for (tips, main, fork) in [
        (&[][..], None, None),
        (&[('W', 4, "w4")], Some("w4"), Some("w2")),
        (&[('W', 6, "w6")], Some("w6"), Some("w2")),
        (&[('W', 3, "v3")], Some("w2"), Some("v3")),
        (&[('W', 3, "v3"), ('W', 5, "w5")], Some("w5"), Some("v3")),
        (&[('W', 1, "w1")], Some("w1"), Some("w1")),
        // It may be on any branch.
        (&[('W', 9, "w9")], None, None),
        (&[('X', 6, "w6")], None, None),
    ] {
        let mut proven = Proven::default();
        assert_eq!(hear(&mut proven, &node, &ack(1, 1, tips)), Heard::Used);
        let name = |place: Option<FrontierTip>| place.map(|place| place.id);
        let id = |name: Option<&str>| name.map(|name| place(1, name).id);
        assert_eq!(name(through(&proven, &node, w6)), id(main), "{tips:?}");
        let v4 = through(&proven, &node, place(4, "v4"));
        assert_eq!(name(v4), id(fork), "{tips:?}");
    }
}

#[test]
fn acks_that_come_again_or_late_lower_nothing() {
    let node = node(&ALL);
    let w6 = place(6, "w6");
    let mut proven = Proven::default();
    assert!(!proven.is_heard());
    let (early, late) = (ack(2, 5, &[('W', 2, "w2")]), ack(2, 6, &[('W', 4, "w4")]));
    assert_eq!(hear(&mut proven, &node, &late), Heard::Used);
    for old in [&early, &ack(1, 99, &[]), &ack(2, 0, &[])] {
        assert_eq!(hear(&mut proven, &node, old), Heard::Old);
    }
    assert_eq!(through(&proven, &node, w6), Some(place(4, "w4")));
    assert_eq!(hear(&mut proven, &node, &late), Heard::Used, "again");
    assert_eq!(through(&proven, &node, w6), Some(place(4, "w4")));
    // A removal that the member applied takes entries back: it says so in a later ack.
    assert_eq!(
        hear(&mut proven, &node, &ack(2, 7, &[('W', 3, "w3")])),
        Heard::Used
    );
    assert_eq!(through(&proven, &node, w6), Some(place(3, "w3")));
    assert_eq!(hear(&mut proven, &node, &ack(2, 8, &[])), Heard::Used);
    assert_eq!(through(&proven, &node, w6), None);
}

#[test]
fn earlier_tips_prove_until_later_ones_come() {
    let mut node = node(&["w1", "w2", "w3", "w4"]);
    let tip = place(4, "w4");
    let mut proven = Proven::default();
    hear(&mut proven, &node, &ack(1, 1, &[('W', 3, "w3")]));
    let later = ack(1, 2, &[('W', 5, "w5")]);
    assert_eq!(hear(&mut proven, &node, &later), Heard::Used);
    assert_eq!(through(&proven, &node, tip), Some(place(3, "w3")));
    assert!(proven.is_ahead(), "its own entry is not here");
    node.receive(&item('W', "w5", 5, "w4"));
    assert_eq!(hear(&mut proven, &node, &later), Heard::Used);
    assert_eq!(through(&proven, &node, tip), Some(tip));
    assert!(!proven.is_ahead());
    // After a start with an older disk nothing earlier holds.
    let restored = ack(2, 0, &[('W', 9, "w9")]);
    assert_eq!(hear(&mut proven, &node, &restored), Heard::Used);
    assert_eq!(through(&proven, &node, tip), None);
}

#[test]
fn acks_are_used_in_pairs() {
    let mut node = node(&ALL);
    let mut proven = Proven::default();
    let data = ack(1, 5, &[('W', 4, "w4")]);
    let pair = root(&data, &[('B', 1, "b1")]);
    let changed: [fn(&mut Ack); 4] = [
        |ack| ack.is_part = true,
        |ack| ack.node = Author([b'X'; 32]),
        |ack| ack.incarnation = 2,
        |ack| ack.counter = 4,
    ];
    for change in changed {
        let mut pair = pair.clone();
        change(&mut pair);
        let Ok(heard) = proven.hear(&data, &pair, &node, &RootChains(&node));
        assert_eq!(heard, Heard::NoPair);
    }
    let mut part = data.clone();
    part.is_part = true;
    let Ok(heard) = proven.hear(&part, &pair, &node, &RootChains(&node));
    assert_eq!((heard, proven.is_heard()), (Heard::NoPair, false));
    let Ok(heard) = proven.hear(&data, &pair, &node, &RootChains(&node));
    let ahead = Heard::RootAhead {
        author: author('B'),
        tip: place(1, "b1"),
    };
    assert_eq!((heard, proven.is_heard()), (ahead, false));
    node.receive_root([root_entry("b1", 'B', 1)]);
    let mut later = pair.clone();
    later.counter = 6;
    let Ok(heard) = proven.hear(&data, &later, &node, &RootChains(&node));
    assert_eq!(heard, Heard::Used);
    let has = |seq, name| {
        let Ok(has) = proven.has_root(&author('B'), place(seq, name), &RootChains(&node));
        has
    };
    assert_eq!(
        (has(1, "b1"), has(2, "b2"), has(1, "b0")),
        (true, false, false)
    );
}

#[test]
fn member_has_all_anchors_or_not() {
    let node = node(&ALL);
    let mut proven = Proven::default();
    hear(
        &mut proven,
        &node,
        &ack(1, 1, &[('W', 5, "w5"), ('W', 3, "v3")]),
    );
    let has = |tips| {
        let Ok(has) = proven.has_all(&frontier(tips), &node);
        has
    };
    assert!(has(&[]));
    assert!(has(&[('W', 5, "w5"), ('W', 3, "v3")]));
    assert!(has(&[('W', 3, "w3")]));
    assert!(!has(&[('W', 3, "w3"), ('W', 4, "v4")]));
    assert!(!has(&[('W', 6, "w6")]));
    assert!(!has(&[('X', 1, "x1")]));
}
