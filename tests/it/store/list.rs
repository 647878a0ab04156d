//! Lists in pages and in groups, compared with a list of all keys.

use std::collections::BTreeSet;

use bytes::Bytes;
use lattice::{
    Store,
    clock::Clock,
    id::StoreId,
    store::{List, Listed},
};

use crate::support::{
    disk::MemDisk,
    random::{Random, for_each_seed},
    store,
};

/// A key, or a common prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Line(Bytes, bool);

// The lines of the whole list, by definition.
fn lines(keys: &BTreeSet<Bytes>, options: &List, delimiter: &Bytes) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for key in keys.iter().filter(|key| key.starts_with(&options.prefix)) {
        let rest = &key[options.prefix.len()..];
        let at =
            (0..rest.len()).find(|at| !delimiter.is_empty() && rest[*at..].starts_with(delimiter));
        let line = match at {
            None => Line(key.clone(), false),
            Some(at) => {
                let end = options.prefix.len() + at + delimiter.len();
                Line(key.slice(..end), true)
            }
        };
        if lines.last() != Some(&line) {
            lines.push(line);
        }
    }
    lines
}

fn key(random: &mut Random) -> Bytes {
    let parts = ["a", "b", "/", "//", "\u{ff}", "x/"];
    let length = 1 + random.below(5);
    let parts = (0..length).map(|_part| parts[random.below(parts.len())]);
    parts.collect::<String>().into()
}

async fn one(random: &mut Random) {
    let clock = Clock::manual(1_700_000_000_000);
    let config = store::config(StoreId([3; 16]), [1; 32], &clock, MemDisk::default());
    let store = Store::open(config).await.unwrap();
    let mut keys = BTreeSet::new();
    for _put in 0..60 {
        let key = key(random);
        store.put(key.clone(), "v").await.unwrap();
        keys.insert(key);
    }
    // Groups of deleted keys only are not listed.
    for key in keys.clone() {
        if random.once_in(3) {
            store.delete(key.clone()).await.unwrap();
            keys.remove(&key);
        }
    }
    for _list in 0..20 {
        let options = List {
            prefix: match random.below(3) {
                0 => Bytes::new(),
                1 => "a".into(),
                _ => key(random),
            },
            limit: Some(1 + random.below(4)),
            keys_only: random.once_in(2),
        };
        let delimiter = Bytes::from(["", "/", "a", "//"][random.below(4)]);
        // Page after page, each from where the last one ended.
        let (mut listed, mut after) = (Vec::new(), Bytes::new());
        loop {
            let scan = store.scan(options.clone()).delimiter(delimiter.clone());
            let mut scan = match after.is_empty() {
                true => scan,
                false => scan.after(after.clone()),
            };
            let mut page = Vec::new();
            loop {
                let part = scan.next_listed().await.unwrap();
                if part.is_empty() {
                    break;
                }
                page.extend(part.into_iter().map(|listed| match listed {
                    Listed::Item(item) => Line(item.key, false),
                    Listed::Prefix(group) => Line(group, true),
                }));
            }
            assert!(page.len() <= options.limit.unwrap());
            let Some(Line(last, _)) = page.last() else {
                break;
            };
            after = last.clone();
            listed.extend(page);
        }
        let all = lines(&keys, &options, &delimiter);
        assert_eq!(listed, all, "{options:?} {delimiter:?}");
    }
}

#[test]
fn pages_and_groups_are_those_of_the_whole_list() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for_each_seed(1..=40, |random| runtime.block_on(one(random)));
}
