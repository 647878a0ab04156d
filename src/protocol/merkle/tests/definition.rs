//! The definition of the tree, as the docs of `merkle` word it: slow, and by nothing of its code.

use crate::protocol::merkle::TreeRoot;

use super::map::{Map, STORE};

pub(super) fn defined_hash(name: &str, parts: &[&[u8]]) -> [u8; 32] {
    let key = format!("{:32}", format!("lattice 2026 tree v1: {name}"));
    let mut hasher = blake3::Hasher::new_keyed(key.as_bytes().try_into().unwrap());
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

pub(super) fn defined_level(key: &[u8]) -> u8 {
    let by = blake3::derive_key("lattice 2026 tree level v1", &STORE.0);
    let hash = blake3::keyed_hash(&by, key).to_string();
    let zeros = hash.chars().take_while(|digit| *digit == '0').count();
    u8::try_from(zeros.min(12)).unwrap()
}

pub(super) fn over_children(children: &[[u8; 32]]) -> [u8; 32] {
    if let [only] = children {
        return *only;
    }
    let mut left = 1;
    while left * 2 < children.len() {
        left *= 2;
    }
    let (left, right) = children.split_at(left);
    defined_hash("pair", &[&over_children(left), &over_children(right)])
}

pub(super) fn defined_node(level: u8, rows: &[(&[u8], [u8; 32])]) -> [u8; 32] {
    if level == 0 {
        let [(key, row)] = rows else {
            panic!("a leaf has a row")
        };
        return defined_hash("leaf", &[row, key]);
    }
    let mut children = Vec::new();
    let mut begin = 0;
    for end in 1..=rows.len() {
        if end == rows.len() || defined_level(rows[end].0) >= level - 1 {
            children.push(defined_node(level - 1, &rows[begin..end]));
            begin = end;
        }
    }
    defined_hash("node", &[&[level], &over_children(&children)])
}

pub(super) fn defined_root(map: &Map) -> TreeRoot {
    defined_root_of(map, &[])
}

pub(super) fn defined_root_of(map: &Map, prefix: &[u8]) -> TreeRoot {
    let row = |row: &Vec<u8>| defined_hash("row", &[row]);
    let rows = map
        .rows
        .iter()
        .filter(|(key, _)| key.starts_with(prefix))
        .map(|(key, bytes)| (key.as_slice(), row(bytes)));
    let rows: Vec<_> = [(&[][..], [0; 32])].into_iter().chain(rows).collect();
    let top = defined_node(13, &rows);
    TreeRoot(defined_hash("root", &[&STORE.0, &top, prefix]))
}
