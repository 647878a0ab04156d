//! Roots against the definition, of rows that come at once or change one by one.

use std::cell::Cell;

use crate::{
    id::StoreId,
    protocol::merkle::{Levels, RowHash, Rows, StreamRoot, Tree, TreeHash, hash::TOP},
    support::{mutator::soaked, random::for_each_seed},
};

use super::{
    definition::{defined_level, defined_root, defined_root_of},
    map::{Key, Map, keys_of_level, levels, pool, root_of, some_of},
};

#[test]
fn level_counts_the_zeros_of_a_hash() {
    assert_eq!(levels().of(&[]), TOP);
    let mut seen = [0; 14];
    for number in 0_u32..20_000 {
        let level = levels().of(&number.to_le_bytes());
        assert_eq!(level, defined_level(&number.to_le_bytes()));
        seen[usize::from(level)] += 1;
    }
    assert!(seen[..4].iter().all(|count| *count > 0), "{seen:?}");
    let other = Levels::new(StoreId([8; 16]));
    assert!(keys_of_level(2, 12, 20).iter().any(|key| other.of(key) < 2));
}

#[test]
fn roots_are_those_of_the_definition() {
    let pool = pool();
    let few = (0..40_usize).map(|count| Map::of(pool[300..300 + count].iter().cloned()));
    for map in few.chain([Map::of(pool.iter().cloned())]) {
        assert_eq!(map.stream_root(), defined_root(&map));
        assert_eq!(root_of(&mut Tree::new(levels()), &map), defined_root(&map));
    }
    for_each_seed(1..=soaked(20), |random| {
        let map = some_of(&pool, random);
        assert_eq!(map.stream_root(), defined_root(&map));
        assert_eq!(root_of(&mut Tree::new(levels()), &map), defined_root(&map));
    });
}

/// If a root changes here, the trees of two versions differ: that needs a new version of the
/// hashes.
#[test]
fn roots_stay_as_they_are() {
    let root = |keys: &[&str]| Map::of(keys.iter().copied()).stream_root().to_string();
    let all = Map::of(pool()).stream_root().to_string();
    let roots = [root(&[]), root(&["/a"]), root(&["/a", "/b", "/c"]), all];
    let expected = [
        "a734c351f223e808a872db3701b70baee145a3180c1c73766f1e7d98eaddb792",
        "099a0a1622932d20f9d1c72245fe6fe073c15ac2e1d36c443ec70a3811d51e8e",
        "3fd2252324aca67cd8a3e254f153c982cb6b49af20c2595cd862e29664aad7e2",
        "195e6f0b3b9e3f6600cbb8b445f7b5ad5ede5a9362aca9356056527d8df7d42e",
    ];
    assert_eq!(roots, expected);
}

#[test]
fn every_change_changes_the_root_and_back() {
    let map = Map::of(keys_of_level(0, 12, 20));
    let root = map.stream_root();
    for (key, row) in &map.rows {
        let mut other = map.clone();
        other
            .rows
            .insert(key.clone(), [row.as_slice(), b"!"].concat());
        assert_ne!(other.stream_root(), root);
        other.rows.remove(key);
        assert_ne!(other.stream_root(), root);
        other
            .rows
            .insert([key.as_slice(), b"!"].concat(), row.clone());
        assert_ne!(other.stream_root(), root, "a row at another key");
        let other = Levels::new(StoreId([8; 16]));
        assert_ne!(
            other.root(&TreeHash([1; 32]), &[]),
            levels().root(&TreeHash([1; 32]), &[])
        );
    }
}

#[test]
fn refreshed_tree_is_that_of_its_rows() {
    let pool = pool();
    for_each_seed(1..=soaked(60), |random| {
        let mut map = some_of(&pool, random);
        let mut tree = Tree::new(levels());
        for _ in 0..30 {
            for _ in 0..random.below(12) {
                let key = &pool[random.below(pool.len())];
                match random.below(3) {
                    0 => drop(map.rows.remove(key)),
                    _put => drop(map.rows.insert(key.clone(), random.bytes(40))),
                }
                tree.touch(key);
            }
            if random.once_in(4) {
                // Runs of keys disappear together with the first keys of blocks.
                let from = random.below(pool.len());
                let run = &pool[from..(from + 40).min(pool.len())];
                for key in run {
                    map.rows.remove(key);
                }
                tree.touch_each(run.iter().map(Vec::as_slice));
            }
            assert_eq!(root_of(&mut tree, &map), map.stream_root());
        }
        for key in std::mem::take(&mut map.rows).keys() {
            tree.touch(key);
        }
        assert_eq!(root_of(&mut tree, &map), Map::default().stream_root());
    });
}

#[test]
fn root_of_a_prefix_has_its_rows_only() {
    let pool = pool();
    let all = Map::of(pool.iter().cloned());
    let prefixes = [
        "",
        "/",
        "/key/",
        "/key/1",
        "/key/10",
        "/key/9999",
        "a",
        "aaa",
        "b",
        "zz",
    ];
    let prefixes = prefixes.iter().map(|prefix| prefix.as_bytes());
    let prefixes: Vec<_> = prefixes
        .chain([&[0][..], &[255; 3], &pool[395], &pool[410]])
        .collect();
    for_each_seed(1..=soaked(10), |random| {
        for map in [some_of(&pool, random), all.clone(), Map::default()] {
            let mut tree = Tree::new(levels());
            let Ok(fresh) = tree.refresh(&map);
            for prefix in &prefixes {
                let Ok(root) = fresh.prefix_root(prefix);
                assert_eq!(
                    root,
                    defined_root_of(&map, prefix),
                    "{}",
                    prefix.escape_ascii()
                );
                let mut stream = StreamRoot::of_prefix(levels(), prefix.to_vec().into());
                for (key, row) in map.rows.iter().filter(|row| row.0.starts_with(prefix)) {
                    stream.push(key, &RowHash::of(row));
                }
                assert_eq!(stream.finish(), root);
                assert_eq!(root == fresh.root(), prefix.is_empty());
            }
        }
    });
}

#[test]
fn order_of_changes_leaves_no_trace() {
    let keys = pool();
    let expected = Map::of(keys.iter().cloned()).stream_root();
    for_each_seed(1..=soaked(10), |random| {
        let mut order = keys.clone();
        random.shuffle(&mut order);
        let (mut map, mut tree) = (Map::default(), Tree::new(levels()));
        let others: Vec<Key> = (0..50_u32)
            .map(|other| other.to_be_bytes().to_vec())
            .collect();
        for key in others.iter().chain(&order) {
            map.rows.insert(key.clone(), b"another row".to_vec());
            tree.touch(key);
            if random.once_in(10) {
                root_of(&mut tree, &map);
            }
        }
        random.shuffle(&mut order);
        for key in &order {
            map.rows
                .insert(key.clone(), [b"row of ", key.as_slice()].concat());
            tree.touch(key);
        }
        for key in &others {
            map.rows.remove(key);
            tree.touch(key);
        }
        assert_eq!(root_of(&mut tree, &map), expected);
    });
}

#[test]
fn changed_key_reads_one_block() {
    const KEYS: usize = 20_000;
    let mut map = Map::of((0..KEYS).map(|number| format!("/{number:05}")));
    let mut tree = Tree::new(levels());
    root_of(&mut tree, &map);
    let blocks = tree.block_count();
    assert!(
        (KEYS / 1024..KEYS / 64).contains(&blocks),
        "{blocks} blocks"
    );
    assert!(map.read_since() <= KEYS + 1);
    assert!(tree.is_fresh());
    root_of(&mut tree, &map);
    assert_eq!(map.read_since(), 0, "nothing has changed");
    let mut read = 0;
    for number in (0..KEYS).step_by(500) {
        let key = format!("/{number:05}").into_bytes();
        map.rows.insert(key.clone(), b"changed".to_vec());
        tree.touch(&key);
        assert!(!tree.is_fresh());
        root_of(&mut tree, &map);
        read += map.read_since();
    }
    assert!(
        read / (KEYS / 500) < 1000,
        "{read} rows for {} keys",
        KEYS / 500
    );
    assert_eq!(root_of(&mut tree, &map), map.stream_root());
}

/// A writer chose keys that begin a block each, of the longest keys; the blocks would take more
/// memory than the rows.
#[test]
fn r3_chosen_keys_make_blocks_larger_only() {
    let long = |key: &Key| [key.as_slice(), &[b'x'; 200]].concat();
    let base = keys_of_level(2, 12, 300);
    let pad = |key: &Key| {
        // A longer key of the same level.
        (0_u32..)
            .map(|number| [long(key).as_slice(), &number.to_le_bytes()].concat())
            .find(|key| levels().of(key) >= 2)
            .unwrap()
    };
    let keys: Vec<Key> = base.iter().map(pad).collect();
    let mut map = Map::of(keys.iter().cloned());
    let room = 16 << 10;
    let mut tree = Tree::with_room(levels(), room);
    assert_eq!(root_of(&mut tree, &map), map.stream_root());
    assert!(
        tree.block_count() * 200 <= room,
        "{} blocks",
        tree.block_count()
    );
    for key in &keys[..20] {
        map.rows.remove(key);
        tree.touch(key);
        assert_eq!(root_of(&mut tree, &map), map.stream_root());
    }
    // The same keys, one by one, into a tree that is full.
    for key in &keys[..20] {
        map.rows.insert(key.clone(), b"again".to_vec());
        tree.touch(key);
        assert_eq!(root_of(&mut tree, &map), map.stream_root());
    }
    let flat = Map::of(keys_of_level(0, 0, 5000));
    let mut tree = Tree::new(levels());
    assert_eq!(root_of(&mut tree, &flat), flat.stream_root());
    assert_eq!(tree.block_count(), 1);
}

struct Failing(Map, Cell<usize>);

impl Rows for Failing {
    type Error = &'static str;

    fn rows(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        row: &mut dyn FnMut(&[u8], &RowHash) -> bool,
    ) -> Result<(), &'static str> {
        let mut failed = false;
        let Ok(()) = self.0.rows(from, to, &mut |key, hash| {
            failed = self.1.get() == 0;
            self.1.set(self.1.get().saturating_sub(1));
            !failed && row(key, hash)
        });
        if failed {
            Err("the disk is gone")
        } else {
            Ok(())
        }
    }
}

#[test]
fn block_that_cannot_be_read_stays_touched() {
    let map = Map::of(pool());
    let mut tree = Tree::new(levels());
    let rows = Failing(map.clone(), Cell::new(0));
    for reads in [0, 1, 100, 300] {
        rows.1.set(reads);
        assert_eq!(tree.refresh(&rows).err(), Some("the disk is gone"));
        assert!(!tree.is_fresh());
    }
    assert_eq!(root_of(&mut tree, &map), map.stream_root());
    for key in pool().iter().step_by(3) {
        tree.touch(key);
    }
    for reads in 0..50 {
        rows.1.set(reads * 3);
        drop(tree.refresh(&rows));
    }
    assert_eq!(root_of(&mut tree, &map), map.stream_root());
}
