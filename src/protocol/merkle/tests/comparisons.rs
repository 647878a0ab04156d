//! Comparisons of two trees, with honest peers and others.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::{
    protocol::merkle::{
        ANSWER_BYTES_MAX, ASK_NODES_MAX, Answer, Ask, Child, Children, Diff, DiffError, Difference,
        Differences, Leaf, Side, Tree,
    },
    support::{
        mutator::soaked,
        random::{Random, for_each_seed},
    },
};

use super::map::{Key, Map, keys_of_level, levels, pool, some_of};

struct Compared {
    found: Differences,
    asks: usize,
    bytes: usize,
}

fn compare(here: &Map, there: &Map, differences_max: usize) -> Compared {
    let (mut own, mut peer) = (Tree::new(levels()), Tree::new(levels()));
    let (Ok(own), Ok(peer)) = (own.refresh(here), peer.refresh(there));
    let mut diff = Diff::new(&own, peer.root(), differences_max);
    let (mut asks, mut bytes) = (0, 0);
    while let Some(ask) = diff.ask() {
        assert!(ask.keys.is_sorted() && ask.keys.len() <= ASK_NODES_MAX);
        let Ok(answer) = peer.answer(&ask);
        asks += 1;
        bytes += answer.0.iter().map(Children::bytes).sum::<usize>();
        diff.take(&own, answer).unwrap();
    }
    Compared {
        found: diff.finish(),
        asks,
        bytes,
    }
}

fn differences(here: &Map, there: &Map) -> Vec<Difference> {
    let keys = here.rows.keys().chain(there.rows.keys());
    let keys: BTreeSet<&Key> = keys.collect();
    let difference = |key: &Key| {
        let side = match (here.rows.get(key), there.rows.get(key)) {
            (Some(here), Some(there)) if here == there => return None,
            (Some(_), Some(_)) => Side::Both,
            (Some(_), None) => Side::Here,
            (None, _) => Side::There,
        };
        Some(Difference {
            key: key.clone().into(),
            side,
        })
    };
    keys.into_iter().filter_map(difference).collect()
}

// A map that differs from `map` in some keys.
fn changed(map: &Map, pool: &[Key], changes: usize, random: &mut Random) -> Map {
    let mut other = map.clone();
    for _ in 0..changes {
        let key = &pool[random.below(pool.len())];
        match random.below(3) {
            0 => drop(other.rows.remove(key)),
            _put => drop(other.rows.insert(key.clone(), random.bytes(20))),
        }
    }
    other
}

#[test]
fn comparison_finds_exactly_the_differences() {
    let pool = pool();
    let short: Vec<Key> = pool
        .iter()
        .filter(|key| key.len() < 2000)
        .cloned()
        .collect();
    for_each_seed(1..=soaked(60), |random| {
        let here = some_of(&short, random);
        let changes = random.below(40);
        for there in [
            changed(&here, &short, changes, random),
            some_of(&short, random),
        ] {
            let compared = compare(&here, &there, usize::MAX);
            assert_eq!(compared.found.keys, differences(&here, &there));
            assert!(!compared.found.more && compared.found.ranges.is_empty());
        }
    });
    let all = Map::of(pool.iter().cloned());
    for (here, there) in [(&all, &Map::default()), (&Map::default(), &all)] {
        let compared = compare(here, there, usize::MAX);
        assert_eq!(compared.found.keys, differences(here, there));
    }
    assert_eq!(compare(&all, &all, 10).asks, 0, "the roots are equal");
}

#[test]
fn comparison_of_few_changes_asks_little() {
    let here = Map::of((0..50_000).map(|number| format!("/key/{number:05}")));
    let mut there = here.clone();
    for number in (0..50_000).step_by(5_000) {
        there.rows.insert(
            format!("/key/{number:05}").into_bytes(),
            b"changed".to_vec(),
        );
    }
    there.rows.remove(b"/key/00001".as_slice());
    there.rows.insert(b"/key/000011".to_vec(), b"new".to_vec());
    let compared = compare(&here, &there, 100);
    assert_eq!(compared.found.keys.len(), 12);
    assert_eq!(compared.found.keys, differences(&here, &there));
    assert!(compared.asks <= 6, "{} round trips", compared.asks);
    assert!(compared.bytes < 100_000, "{} bytes", compared.bytes);
}

#[test]
fn r2_comparison_ends_at_its_bound() {
    let (here, there) = (Map::of(keys_of_level(0, 12, 3000)), Map::default());
    for (here, there) in [(&here, &there), (&there, &here)] {
        let compared = compare(here, there, 10);
        assert!(compared.found.more);
        assert_eq!(compared.found.keys.len(), 10);
        assert!(compared.asks <= 13, "{} round trips", compared.asks);
    }
}

#[test]
fn r3_node_with_too_many_children_is_a_range() {
    let here = Map::of(keys_of_level(0, 0, 10_000));
    let mut there = here.clone();
    there.rows.insert(b"/key/5".to_vec(), b"changed".to_vec());
    let found = compare(&here, &there, 10).found;
    assert_eq!(found.keys, []);
    assert_eq!(found.ranges, [(Bytes::new(), None)]);
}

/// A peer that answers anything else than the tree of its root is found out, and until then costs
/// few questions.
#[test]
fn r2_dishonest_answers_are_refused() {
    let pool: Vec<Key> = pool().into_iter().filter(|key| key.len() < 2000).collect();
    let mut refused = 0;
    for_each_seed(1..=soaked(200), |random| {
        let here = some_of(&pool, random);
        let there = some_of(&pool, random);
        let (mut own, mut peer) = (Tree::new(levels()), Tree::new(levels()));
        let (Ok(own), Ok(peer)) = (own.refresh(&here), peer.refresh(&there));
        let mut diff = Diff::new(&own, peer.root(), usize::MAX);
        let lie_at = random.below(4);
        let mut lied = false;
        for asks in 0.. {
            let Some(ask) = diff.ask() else {
                assert!(!lied, "the lie was believed");
                break;
            };
            let Ok(mut answer) = peer.answer(&ask);
            let honest = answer.clone();
            if asks == lie_at {
                lie(&mut answer, random);
            }
            // Saying that a node is too large hides what is in it, and no more.
            if answer.0.contains(&Children::TooMany) {
                break;
            }
            lied |= answer != honest;
            match diff.take(&own, answer) {
                Ok(()) => {}
                Err(DiffError::Dishonest { what }) => {
                    assert!(lied, "{what}");
                    refused += 1;
                    break;
                }
                Err(DiffError::Rows(never)) => match never {},
            }
        }
    });
    assert!(refused > 50, "{refused} lies");
}

// Changes one thing in an answer.
fn lie(answer: &mut Answer, random: &mut Random) {
    let count = answer.0.len();
    let at = random.below(count);
    if random.once_in(8) {
        match random.below(4) {
            0 => answer.0[at] = Children::TooMany,
            1 => answer.0[at] = Children::NoNode,
            2 => answer.0.clear(),
            _longer => {
                let more = vec![answer.0[at].clone(); ASK_NODES_MAX];
                answer.0.extend(more);
            }
        }
        return;
    }
    match &mut answer.0[at] {
        Children::Nodes { level, .. } if random.once_in(7) => {
            *level = random.bits().to_le_bytes()[0] % 15;
        }
        Children::Nodes { nodes, .. } => {
            let hash = |child: &mut Child, bit: usize| child.hash.0[bit / 8] ^= 1 << (bit % 8);
            lie_of_one(nodes, |child| &mut child.key, hash, random);
        }
        Children::Leaves(leaves) => {
            let hash = |leaf: &mut Leaf, bit: usize| leaf.row.0[bit / 8] ^= 1 << (bit % 8);
            lie_of_one(leaves, |leaf| &mut leaf.key, hash, random);
        }
        Children::TooMany | Children::NoNode => {}
    }
}

fn lie_of_one<T: Clone>(
    children: &mut Vec<T>,
    key_of: impl Fn(&mut T) -> &mut Bytes,
    flip: impl Fn(&mut T, usize),
    random: &mut Random,
) {
    let at = random.below(children.len());
    match random.below(6) {
        0 => drop(children.remove(at)),
        1 => children.insert(at, children[at].clone()),
        2 => flip(&mut children[at], random.below(256)),
        3 => {
            let key = key_of(&mut children[at]);
            *key = [key, &b"\0"[..]].concat().into();
        }
        4 => children.swap(0, at),
        _twice => *children = children.iter().chain(&*children).cloned().collect(),
    }
}

#[test]
fn r2_any_question_gets_a_bounded_answer() {
    let pool = pool();
    let map = Map::of(pool.iter().cloned());
    let mut tree = Tree::new(levels());
    let Ok(fresh) = tree.refresh(&map);
    for_each_seed(1..=soaked(200), |random| {
        let keys = (0..random.below(100)).map(|_| pool[random.below(pool.len())].clone().into());
        let mut keys: Vec<Bytes> = keys.collect();
        if random.once_in(2) {
            keys.sort();
            keys.dedup();
        }
        if random.once_in(3) {
            keys.insert(0, Bytes::new());
        }
        let level = random.bits().to_le_bytes()[0] % [14, 4, 255][random.below(3)];
        let ask = Ask { level, keys };
        let Ok(answer) = fresh.answer(&ask);
        assert!(answer.0.len() <= ask.keys.len().min(ASK_NODES_MAX));
        assert_eq!(answer.0.is_empty(), ask.keys.is_empty());
        let bytes: usize = answer.0.iter().map(Children::bytes).sum();
        assert!(bytes <= ANSWER_BYTES_MAX);
    });
}
