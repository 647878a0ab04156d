//! Entries that come to a node with anchors.

use std::rc::Rc;

use super::{
    cases::{author, place},
    node::{Item, Node},
    proven::{LOG, frontier, item, node},
    rng::Rng,
};
use crate::{
    id::EntryId,
    protocol::{
        anchors_act::AnchorsAct,
        entry::Parent,
        finality::{Arrival, Fate, Finality},
        frontier::{Frontier, FrontierTip},
        hlc::Hlc,
        membership::Standing,
    },
};

fn finality(node: &Node, anchors: &[(char, u64, &str)]) -> Finality {
    let act = AnchorsAct::new(1, None, 0, frontier(anchors), None).unwrap();
    let Ok(finality) = Finality::join([&act], &Frontier::default(), node);
    finality
}

fn prev_of(name: &str) -> Option<FrontierTip> {
    let (_, seq, prev) = LOG.iter().find(|(it, ..)| *it == name).unwrap();
    (*seq > 1).then(|| place(seq - 1, prev))
}

fn arrival(finality: &Finality, node: &Node, name: &str) -> Arrival {
    let (_, seq, _) = LOG.iter().find(|(it, ..)| *it == name).unwrap();
    let Ok(arrival) = finality.arrival(&author('W'), place(*seq, name), prev_of(name), node);
    arrival
}

fn fate(finality: &Finality, node: &Node, name: &str) -> Fate {
    let (_, seq, _) = LOG.iter().find(|(it, ..)| *it == name).unwrap();
    let Ok(fate) = finality.fate(&author('W'), place(*seq, name), prev_of(name), node);
    fate
}

#[test]
fn entries_are_final_void_or_open() {
    let node = node(&["w1", "w2", "w3", "w4", "w5", "v3", "v4"]);
    let of = |anchors| {
        let finality = finality(&node, anchors);
        ["w1", "w2", "w3", "w4", "v3", "v4"].map(|name| fate(&finality, &node, name))
    };
    use Fate::{Final, Open, Void};
    assert_eq!(of(&[]), [Open; 6]);
    assert_eq!(of(&[('X', 9, "x9")]), [Open; 6]);
    assert_eq!(of(&[('W', 9, "nowhere")]), [Open; 6]);
    assert_eq!(
        of(&[('W', 3, "w3")]),
        [Final, Final, Final, Open, Void, Void]
    );
    assert_eq!(
        of(&[('W', 2, "w2")]),
        [Final, Final, Open, Open, Open, Open]
    );
    assert_eq!(of(&[('W', 1, "w1"), ('W', 3, "w3")]), of(&[('W', 3, "w3")]));
    assert_eq!(
        of(&[('W', 4, "w4"), ('W', 3, "v3")]),
        [Final, Final, Final, Final, Final, Open]
    );
    // A first entry is on no anchor's branch.
    let w1 = finality(&node, &[('W', 1, "w1")]);
    let Ok(other) = w1.fate(&author('W'), place(1, "u1"), None, &node);
    assert_eq!(other, Void);
}

#[test]
fn what_is_below_all_anchors_is_settled() {
    let node = node(&["w1", "w2", "w3"]);
    let w3 = finality(&node, &[('W', 3, "w3")]);
    // Here, or after an entry that is here.
    for name in ["w2", "w4"] {
        assert_eq!(arrival(&w3, &node, name), Arrival::Usual, "{name}");
    }
    assert_eq!(arrival(&w3, &node, "v3"), Arrival::Void);
    // It waits for `w4`.
    assert_eq!(arrival(&w3, &node, "w5"), Arrival::Usual);
    assert_eq!(arrival(&w3, &node, "v4"), Arrival::Void);
    let stranger = |seq, name: &str| {
        let prev = (seq > 1).then(|| place(seq - 1, "nobody has it"));
        let Ok(arrival) = w3.arrival(&author('W'), place(seq, name), prev, &node);
        arrival
    };
    for (seq, expected) in [
        (1, Arrival::Settled),
        (3, Arrival::Settled),
        (4, Arrival::Void),
        (5, Arrival::Usual),
    ] {
        assert_eq!(stranger(seq, "u"), expected, "{seq}");
    }
    let other = finality(&node, &[('X', 3, "x3"), ('W', 9, "nowhere")]);
    assert_eq!(arrival(&other, &node, "v4"), Arrival::Usual);
}

#[test]
fn entry_that_a_missing_anchor_may_lead_to_is_asked_for() {
    let node = node(&["w1", "w2", "w3"]);
    let both = finality(&node, &[('W', 3, "w3"), ('W', 4, "v4")]);
    assert_eq!(
        both.awaited().collect::<Vec<_>>(),
        [(author('W'), place(4, "v4"))]
    );
    let of = |seq| both.may_be_final(&author('W'), seq);
    assert_eq!((of(1), of(4), of(5)), (true, true, false));
    assert!(!both.may_be_final(&author('X'), 1));
    let Ok(unknown) = both.arrival(&author('W'), place(2, "u2"), Some(place(1, "u1")), &node);
    assert_eq!(unknown, Arrival::Usual, "it may be below v4");
}

/// W began its log twice: `w1`, and `u1` and `u2`. The anchor `w1` makes those two void; then an act names
/// `u2`. From then on both are asked for.
#[test]
fn void_entries_are_taken_in_once_an_act_names_them() {
    let mut node = node(&["w1"]);
    let [u1, u2] = [item('W', "u1", 1, ""), item('W', "u2", 2, "u1")];
    let of_u1 = |node: &Node| {
        let finality = finality(node, &[('W', 1, "w1"), ('W', 2, "u2")]);
        let Ok(arrival) = finality.arrival(&u1.author, u1.at, None, node);
        (finality.last(), finality.awaited().count(), arrival)
    };
    let w1 = finality(&node, &[('W', 1, "w1")]);
    let Ok(arrival) = w1.arrival(&u1.author, u1.at, None, &node);
    assert_eq!(arrival, Arrival::Settled);
    let Ok(arrival) = w1.arrival(&u2.author, u2.at, u2.prev, &node);
    assert_eq!(arrival, Arrival::Void);
    let only = frontier(&[('W', 1, "w1")]);
    assert_eq!(of_u1(&node), (only.clone(), 1, Arrival::Usual));
    node.data.insert(u1.at.id, Rc::clone(&u1));
    assert_eq!(of_u1(&node), (only, 1, Arrival::Usual));
    let named = finality(&node, &[('W', 1, "w1"), ('W', 2, "u2")]);
    let Ok(arrival) = named.arrival(&u2.author, u2.at, u2.prev, &node);
    assert_eq!(arrival, Arrival::Usual);
    node.data.insert(u2.at.id, Rc::clone(&u2));
    let both = frontier(&[('W', 1, "w1"), ('W', 2, "u2")]);
    assert_eq!(of_u1(&node), (both, 0, Arrival::Usual));
}

#[test]
fn between_two_anchors_entries_wait_for_their_prev() {
    let mut whole = node(&["w1", "w2", "w3", "w4", "w5", "v3"]);
    let two = finality(&whole, &[('W', 5, "w5"), ('W', 3, "v3")]);
    assert_eq!(two.greatest(&author('W')), 5);
    assert_eq!(arrival(&two, &whole, "v4"), Arrival::Usual);
    let missing = |seq| {
        let prev = Some(place(seq - 1, "v"));
        let Ok(arrival) = two.arrival(&author('W'), place(seq, "v"), prev, &whole);
        arrival
    };
    assert_eq!(
        [3, 5, 6, 7].map(missing),
        [
            Arrival::Settled,
            Arrival::Usual,
            Arrival::Usual,
            Arrival::Usual,
        ]
    );
    whole.base.tips = frontier(&[('W', 5, "w5"), ('W', 3, "v3")]);
    whole.data.clear();
    let act = AnchorsAct::new(1, None, 0, frontier(&[('W', 2, "w2")]), None).unwrap();
    let Ok(joined) = Finality::join([&act], &whole.base.tips, &whole);
    assert_eq!(
        joined.last(),
        two.last(),
        "an older anchor is below the base"
    );
    assert_eq!(joined.awaited().count(), 0);
    assert_eq!(
        joined.beneath().collect::<Vec<_>>(),
        [(author('W'), place(2, "w2"))]
    );
    assert_eq!(arrival(&joined, &whole, "v4"), Arrival::Usual);
    assert_eq!(fate(&joined, &whole, "v4"), Fate::Open);
}

#[test]
fn references_at_or_below_the_greatest_anchor_are_present() {
    let node = node(&["w1", "w2", "w3", "v3", "v4"]);
    let two = finality(&node, &[('W', 2, "w2"), ('W', 4, "v4")]);
    let parent = |by: char, seq| Parent {
        hlc: Hlc::ZERO,
        author: author(by),
        id: EntryId([7; 32]),
        seq,
    };
    for (by, seq, is_present) in [
        ('W', 1, true),
        ('W', 4, true),
        ('W', 5, false),
        ('X', 1, false),
    ] {
        assert_eq!(two.is_present(&parent(by, seq)), is_present, "{by} {seq}");
    }
    assert!(Fate::Open.asks_parents() && !Fate::Final.asks_parents());
}

#[test]
fn standing_decides_about_open_entries_only() {
    let node = node(&["w1", "w2", "w3", "w4", "v3"]);
    let w3 = finality(&node, &[('W', 3, "w3")]);
    let kept = |tips: &[(u64, &str)]| {
        let tips = tips.iter().map(|(seq, name)| place(*seq, name));
        Standing::Through(crate::protocol::membership::KeptThrough::by_one(tips))
    };
    for (standing, open) in [
        (Standing::Counts, true),
        (Standing::Unknown, false),
        (Standing::Reader, false),
        (Standing::Spent, false),
        (kept(&[]), false),
        (kept(&[(4, "w4")]), true),
        (kept(&[(1, "w1")]), false),
        // A tip that is not here: above the anchors it may be on any branch, below it is on none.
        (kept(&[(9, "w9")]), true),
        (kept(&[(3, "w9")]), false),
    ] {
        let counts = |name: &str, seq| {
            let Ok(counts) = w3.counts(
                &standing,
                &author('W'),
                place(seq, name),
                prev_of(name),
                &node,
            );
            counts
        };
        let all = [
            counts("w1", 1),
            counts("w3", 3),
            counts("w4", 4),
            counts("v3", 3),
        ];
        assert_eq!(all, [true, true, open, false], "{standing:?}");
    }
    // A void tip that is here answers as one that is not.
    let longer = super::proven::node(&["w1", "w2", "w3", "w4", "v3", "v4"]);
    for node in [&node, &longer] {
        let w3 = finality(node, &[('W', 3, "w3")]);
        let Ok(kept) = w3.keeps(&author('W'), place(4, "w4"), place(4, "v4"), node);
        assert_eq!(kept, None);
    }
    // Between the two anchors of a fork the clamp is by the greatest.
    let two = finality(&node, &[('W', 2, "w2"), ('W', 3, "v3")]);
    let Ok(kept) = two.keeps(&author('W'), place(3, "w3"), place(3, "nowhere"), &node);
    assert_eq!(kept, Some(false));
    let Ok(kept) = two.keeps(&author('W'), place(3, "w3"), place(4, "nowhere"), &node);
    assert_eq!(kept, None);
}

// Random logs with branches: each entry goes on after one before it, or is a first one.
fn random_log(rng: &mut Rng) -> Vec<Rc<Item>> {
    let mut log: Vec<Rc<Item>> = Vec::new();
    for number in 0..12 {
        let name = format!("e{number}");
        log.push(if log.is_empty() || rng.chance(10) {
            item('W', &name, 1, "")
        } else {
            let at = rng.below(log.len());
            item('W', &name, log[at].at.seq + 1, &format!("e{at}"))
        });
    }
    log
}

// The entries of `log` that none of `log` comes after.
fn tips(log: &[Rc<Item>]) -> Vec<FrontierTip> {
    let is_tip = |tip: &FrontierTip| log.iter().all(|item| item.prev != Some(*tip));
    let tips = log.iter().map(|item| item.at);
    tips.filter(is_tip).collect()
}

fn with(log: &[Rc<Item>]) -> Node {
    let mut node = Node::new();
    node.receive_all(log.iter().cloned());
    assert_eq!(node.data.len(), log.len());
    node
}

// A node that took in void branches before the act has them for ever. It counts the same forks as a node
// that never took them in, and as one that has a base in place of the final entries.
#[test]
fn b3_forks_above_the_anchors_are_the_same_on_every_node() {
    let w = author('W');
    let (mut void, mut most) = (0, 0);
    for seed in 1..=400 {
        let mut rng = Rng(seed);
        let log = random_log(&mut rng);
        let (all, count) = (with(&log), rng.below(4));
        let named: Vec<FrontierTip> = (0..count).map(|_| log[rng.below(12)].at).collect();
        let named: Frontier = named.into_iter().map(|place| (w, place)).collect();
        let act = AnchorsAct::new(1, None, 0, named.clone(), None).unwrap();
        let after = |place: FrontierTip, before: FrontierTip| {
            let Ok(leads) = crate::protocol::finality::Chains::leads(&all, &w, before, place);
            leads == Some(true)
        };
        let is_last = |place: &FrontierTip| {
            let mut others = named.tips(&w).iter().filter(|it| *it != place);
            !others.any(|it| after(*it, *place))
        };
        let last: Vec<FrontierTip> = named.tips(&w).iter().copied().filter(is_last).collect();
        let is_above = |place: FrontierTip| last.iter().any(|it| after(place, *it));
        let is_final = |place: FrontierTip| last.iter().any(|it| after(*it, place));
        // By definition: of the entries with one prev, all but one, if that is a last anchor or above.
        let mut expected = 0;
        let prevs = log.iter().map(|item| item.prev);
        for prev in prevs.collect::<std::collections::BTreeSet<_>>() {
            let counts = last.is_empty() || prev.is_some_and(is_above);
            let beside = log.iter().filter(|item| item.prev == prev).count();
            expected += if counts { beside - 1 } else { 0 };
        }
        let forks = |node: &Node, log: &[Rc<Item>], more: &[FrontierTip]| {
            let Ok(finality) = Finality::join([&act], &node.base.tips, node);
            let tips = [tips(log).as_slice(), more].concat();
            let Ok(forks) = finality.forks(&w, &tips, node);
            forks
        };
        let kept = |item: &&Rc<Item>| last.is_empty() || is_final(item.at) || is_above(item.at);
        let late: Vec<Rc<Item>> = log.iter().filter(kept).cloned().collect();
        assert_eq!(forks(&all, &log, &[]), expected, "seed {seed}");
        assert_eq!(forks(&with(&late), &late, &[]), expected, "seed {seed}");
        void += log.len() - late.len();
        most = most.max(expected);
        if let [anchor] = last[..] {
            let above = |item: &&Rc<Item>| is_above(item.at) && item.at != anchor;
            let above: Vec<Rc<Item>> = log.iter().filter(above).cloned().collect();
            let mut node = Node::new();
            node.base.tips.insert(w, anchor);
            node.receive_all(above.iter().cloned());
            let more = if above.is_empty() {
                vec![anchor]
            } else {
                vec![]
            };
            assert_eq!(forks(&node, &above, &more), expected, "seed {seed}");
        }
    }
    assert!(void > 500 && most > 3, "{void} {most}");
}
