//! Comparisons of two trees, with honest peers and others.

use std::{collections::BTreeSet, convert::Infallible};

use bytes::Bytes;

use crate::{
    protocol::merkle::{
        ANSWER_BYTES_MAX, ASK_NODES_MAX, Answer, Ask, Child, Children, Diff, DiffError, Difference,
        Differences, Leaf, RowHash, Side, Tree, TreeHash, fold::Fold, hash::TOP,
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
            there: there.rows.get(key).map(|row| RowHash::of(row)),
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
fn comparison_of_a_prefix_finds_its_keys_only() {
    let keys = |prefix: &'static str| (0..3000).map(move |number| format!("{prefix}{number:04}"));
    let all = Map::of(keys("/a/").chain(keys("/b/")).chain(keys("/c/")));
    let names: Vec<Key> = all.rows.keys().cloned().collect();
    for_each_seed(1..=soaked(20), |random| {
        let there = changed(&all, &names, 30, random);
        let (mut own, mut peer) = (Tree::new(levels()), Tree::new(levels()));
        let (Ok(own), Ok(peer)) = (own.refresh(&all), peer.refresh(&there));
        let mut asks = Vec::new();
        for prefix in ["/a/", "/b/", "/c/", "/b/1", "/none", "", "/b/0007"] {
            let meant = Bytes::copy_from_slice(prefix.as_bytes());
            let mut diff = Diff::of_prefix(&own, peer.root(), meant.clone(), usize::MAX);
            let mut count = 0;
            while let Some(ask) = diff.ask() {
                let Ok(answer) = peer.answer(&ask);
                count += ask.keys.len();
                diff.take(&own, answer).unwrap();
            }
            let mut expected = differences(&all, &there);
            expected.retain(|it| it.key.starts_with(&meant));
            assert_eq!(diff.finish().keys, expected, "{prefix}");
            asks.push(count);
        }
        assert!(
            asks[6] <= 6 && asks[6] < asks[5],
            "a key takes one path: {asks:?}"
        );
    });
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
    // The levels at the top, of few nodes, are left out.
    assert!(compared.asks <= 3, "{} round trips", compared.asks);
    assert!(compared.bytes < 100_000, "{} bytes", compared.bytes);
}

#[test]
fn r2_comparison_ends_at_its_bound() {
    let some = Map::of((0..20_000).map(|number| format!("/key/{number:05}")));
    let none = Map::default();
    let compared = compare(&none, &some, 10);
    assert!(compared.found.more);
    assert_eq!(compared.found.keys.len(), 10);
    assert!(compared.asks <= 5, "{} round trips", compared.asks);
    let (mut own, mut peer) = (Tree::new(levels()), Tree::new(levels()));
    let (Ok(own), Ok(peer)) = (own.refresh(&some), peer.refresh(&none));
    some.read_since();
    let mut diff = Diff::new(&own, peer.root(), 10);
    while let Some(ask) = diff.ask() {
        let Ok(answer) = peer.answer(&ask);
        diff.take(&own, answer).unwrap();
    }
    let found = diff.finish();
    assert_eq!((found.keys.len(), found.more), (10, true));
    assert!(some.read_since() < 100, "rows are read up to the bound");
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

// A peer that signs the root of a tree of its own making, so that every hash is right. The top node
// has `children`.
fn invented(children: Children) -> Result<(), DiffError<Infallible>> {
    let (level, hashes): (u8, Vec<TreeHash>) = match &children {
        Children::Nodes { level, nodes } => (*level, nodes.iter().map(|node| node.hash).collect()),
        Children::Leaves(leaves) => {
            let hash = |leaf: &Leaf| TreeHash::leaf(&leaf.key, &leaf.row);
            (0, leaves.iter().map(hash).collect())
        }
        Children::TooMany | Children::NoNode => (0, Vec::new()),
    };
    let mut fold = Fold::new(level.min(12), TOP);
    for (number, hash) in hashes.into_iter().enumerate() {
        fold.push(if number == 0 { TOP } else { level.min(12) }, hash);
    }
    let root = levels().root(&fold.finish(), &[]);
    let here = Map::of(["/here"]);
    let mut own = Tree::new(levels());
    let Ok(own) = own.refresh(&here);
    let mut diff = Diff::new(&own, root, 100);
    diff.take(&own, Answer(vec![children]))
}

fn leaves(keys: &[&[u8]]) -> Children {
    let row = |key: &[u8]| match key {
        [] => RowHash::EMPTY_KEY,
        key => RowHash::of(key),
    };
    let leaf = |key: &&[u8]| Leaf {
        key: Bytes::copy_from_slice(key),
        row: row(key),
    };
    Children::Leaves(keys.iter().map(leaf).collect())
}

/// Hashes alone do not make a tree: its keys decide its shape, and are in order.
#[test]
fn r2_invented_tree_of_another_shape_is_refused() {
    let low = keys_of_level(0, 0, 2);
    let (a, b) = (low[0].as_slice(), low[1].as_slice());
    let high = keys_of_level(1, 1, 1).remove(0);
    assert!(a < b);
    assert!(invented(leaves(&[b"", a, b])).is_ok());
    for keys in [
        &[&b""[..], b, a][..],
        &[b"", a, a],
        &[a, b],
        &[b"", &high],
        &[b"", b""],
    ] {
        let taken = invented(leaves(keys));
        assert!(
            matches!(taken, Err(DiffError::Dishonest { .. })),
            "{keys:?}"
        );
    }
    let node = |key: &[u8], hash| Child {
        key: Bytes::copy_from_slice(key),
        hash: TreeHash([hash; 32]),
    };
    let nodes = |level| Children::Nodes {
        level,
        nodes: vec![node(b"", 1), node(&high, 2)],
    };
    assert!(invented(nodes(1)).is_ok());
    for level in [0, 2, 12, 13, 14, 255] {
        let taken = invented(nodes(level));
        assert!(
            matches!(taken, Err(DiffError::Dishonest { .. })),
            "level {level}"
        );
    }
    // Leaves as nodes of level 0: nothing would bind their keys.
    let hash = |key: &[u8], row| TreeHash::leaf(key, &row);
    let nodes = vec![
        Child {
            key: Bytes::new(),
            hash: hash(b"", RowHash::EMPTY_KEY),
        },
        Child {
            key: Bytes::copy_from_slice(b),
            hash: hash(a, RowHash::of(a)),
        },
    ];
    let taken = invented(Children::Nodes { level: 0, nodes });
    assert!(matches!(taken, Err(DiffError::Dishonest { .. })));
}

/// The end of a node is where the next one begins.
#[test]
fn r2_child_after_the_end_of_its_node_is_refused() {
    let high = keys_of_level(1, 1, 1).remove(0);
    let after = keys_of_level(0, 0, 1000)
        .into_iter()
        .find(|key| *key > high)
        .unwrap();
    let of_first = leaves(&[b"", &after]);
    let hash = |keys: &[&[u8]]| {
        let mut fold = Fold::new(0, 1);
        for (number, key) in keys.iter().enumerate() {
            let row = if key.is_empty() {
                RowHash::EMPTY_KEY
            } else {
                RowHash::of(key)
            };
            fold.push(if number == 0 { TOP } else { 0 }, TreeHash::leaf(key, &row));
        }
        fold.finish()
    };
    let nodes = vec![
        Child {
            key: Bytes::new(),
            hash: hash(&[b"", &after]),
        },
        Child {
            key: high.clone().into(),
            hash: hash(&[&high]),
        },
    ];
    let mut fold = Fold::new(1, TOP);
    fold.push(TOP, nodes[0].hash);
    fold.push(1, nodes[1].hash);
    let here = Map::of(["/here"]);
    let mut own = Tree::new(levels());
    let Ok(own) = own.refresh(&here);
    let mut diff = Diff::new(&own, levels().root(&fold.finish(), &[]), 100);
    diff.take(&own, Answer(vec![Children::Nodes { level: 1, nodes }]))
        .unwrap();
    assert_eq!(diff.ask().unwrap().keys[0], Bytes::new());
    let taken = diff.take(&own, Answer(vec![of_first]));
    assert!(
        matches!(taken, Err(DiffError::Dishonest { .. })),
        "{taken:?}"
    );
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
        let in_order = ask.keys.iter().zip(ask.keys.iter().skip(1));
        let in_order = in_order.take_while(|(key, next)| key < next).count() + 1;
        assert!(
            answer.0.len() <= in_order,
            "only the first nodes in order are answered"
        );
        for (key, children) in ask.keys.iter().zip(&answer.0) {
            let is_node = (1..=levels().of(key)).contains(&level);
            assert_eq!(*children != Children::NoNode, is_node, "{level} {key:?}");
        }
        let bytes: usize = answer.0.iter().map(Children::bytes).sum();
        assert!(bytes <= ANSWER_BYTES_MAX);
    });
}

#[test]
fn r2_answer_stops_when_it_is_full() {
    // Nodes of level 1 that have about 16 leaves of 2 KiB each.
    let long = |number: u32| [&[b'k'; 2000], number.to_be_bytes().as_slice()].concat();
    let map = Map::of((0..1500).map(long));
    let mut tree = Tree::new(levels());
    let Ok(fresh) = tree.refresh(&map);
    let keys = map.rows.keys().filter(|key| levels().of(key) > 0);
    let keys: Vec<Bytes> = keys.map(|key| key.clone().into()).collect();
    let ask = Ask { level: 1, keys };
    let Ok(answer) = fresh.answer(&ask);
    let bytes: usize = answer.0.iter().map(Children::bytes).sum();
    assert!(
        bytes <= ANSWER_BYTES_MAX && bytes > ANSWER_BYTES_MAX / 2,
        "{bytes} bytes"
    );
    assert!((1..ask.keys.len()).contains(&answer.0.len()));
    let mut there = map.clone();
    for row in there.rows.values_mut() {
        row.push(0);
    }
    let compared = compare(&map, &there, usize::MAX);
    assert_eq!(compared.found.keys.len(), 1500);
}
