//! Rows in memory, and keys of all levels.

use std::{cell::Cell, collections::BTreeMap, convert::Infallible};

use crate::{
    id::StoreId,
    limits::KEY_BYTES_MAX,
    protocol::merkle::{Levels, RowHash, Rows, StreamRoot, Tree, TreeRoot},
    support::random::Random,
};

pub(super) const STORE: StoreId = StoreId([7; 16]);

pub(super) type Key = Vec<u8>;

/// Rows in memory, which count how many of them are read.
#[derive(Debug, Clone, Default)]
pub(super) struct Map {
    pub(super) rows: BTreeMap<Key, Vec<u8>>,
    pub(super) read: Cell<usize>,
}

impl Rows for Map {
    type Error = Infallible;

    fn rows(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        row: &mut dyn FnMut(&[u8], &RowHash) -> bool,
    ) -> Result<(), Infallible> {
        for (key, bytes) in self.rows.range(from.to_vec()..) {
            if to.is_some_and(|to| to <= key.as_slice()) {
                break;
            }
            self.read.set(self.read.get() + 1);
            if !row(key, &RowHash::of(bytes)) {
                break;
            }
        }
        Ok(())
    }
}

impl Map {
    pub(super) fn of<K: Into<Key>>(keys: impl IntoIterator<Item = K>) -> Self {
        let rows = keys.into_iter().map(|key| {
            let key = key.into();
            (key.clone(), [b"row of ", key.as_slice()].concat())
        });
        Self {
            rows: rows.collect(),
            read: Cell::new(0),
        }
    }

    pub(super) fn stream_root(&self) -> TreeRoot {
        let mut root = StreamRoot::new(levels());
        for (key, row) in &self.rows {
            root.push(key, &RowHash::of(row));
        }
        root.finish()
    }

    pub(super) fn read_since(&self) -> usize {
        self.read.take()
    }
}

pub(super) fn levels() -> Levels {
    Levels::new(STORE)
}

pub(super) fn root_of(tree: &mut Tree, map: &Map) -> TreeRoot {
    let Ok(fresh) = tree.refresh(map);
    assert_eq!(fresh.row_count(), map.rows.len() as u64);
    fresh.root()
}

// Returns `count` keys of a level between the two given ones, both included.
pub(super) fn keys_of_level(from: u8, to: u8, count: usize) -> Vec<Key> {
    let keys = (0_u32..).map(|number| format!("/key/{number}").into_bytes());
    let levels = levels();
    let of_level = keys.filter(|key| (from..=to).contains(&levels.of(key)));
    of_level.take(count).collect()
}

// Keys of many levels, so that a small tree has nodes of all shapes, and keys that are odd.
pub(super) fn pool() -> Vec<Key> {
    let mut keys = keys_of_level(0, 0, 300);
    keys.extend(keys_of_level(1, 1, 60));
    keys.extend(keys_of_level(2, 2, 30));
    keys.extend(keys_of_level(3, 12, 12));
    keys.extend((1..40).map(|length| vec![b'a'; length]));
    keys.extend([
        vec![0],
        vec![0, 0],
        vec![255; KEY_BYTES_MAX],
        vec![255; KEY_BYTES_MAX - 1],
    ]);
    keys.extend([94, 95, 96, 97, 98].map(|length| vec![b'b'; length]));
    keys
}

pub(super) fn some_of(pool: &[Key], random: &mut Random) -> Map {
    let times = 1 + random.below(20);
    let some = pool.iter().filter(|_| random.once_in(times));
    Map::of(some.cloned())
}
