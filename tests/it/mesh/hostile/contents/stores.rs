//! Stores: lists of them, and entries of other ones.

use super::*;

/// Stores that nobody needs, and strangers.
pub(super) fn stores() -> Vec<Script> {
    let genesis = |creator: Author, number: u8| Genesis {
        creator,
        nonce: [number; 32],
    };
    vec![
        script("N8", "a_hundred_stores", move |pen| {
            let me = pen.me();
            let of = |number| listing(&genesis(me, number), "junk");
            pen.put((0..100).flat_map(of).collect());
        }),
        script("L4", "a_store_whose_name_is_a_path", move |pen| {
            pen.put(listing(&genesis(pen.me(), 1), "../../x").to_vec());
        }),
        script("L4", "a_store_whose_name_is_too_long", move |pen| {
            pen.put(listing(&genesis(pen.me(), 1), &"n".repeat(100_000)).to_vec());
        }),
        script("L4", "a_store_of_an_honest_founder", move |pen| {
            let theirs = genesis(pen.facts.nodes[1], 200);
            let name = format!("/stores/{}/name", theirs.store());
            pen.put(listing(&theirs, "theirs").to_vec());
            pen.void.insert(name.into());
        }),
        script("L4", "a_genesis_that_expires", move |pen| {
            let own = genesis(pen.me(), 1);
            let expires_ms = pen.facts.now_ms + 600_000;
            pen.void.insert(own.key());
            pen.put(vec![op(own.key(), own.encode(), Some(expires_ms))]);
        }),
        script("L4", "a_genesis_of_another_key", move |pen| {
            let (one, other) = (genesis(pen.me(), 1), genesis(pen.me(), 2));
            pen.void.insert(one.key());
            pen.put(vec![op(one.key(), other.encode(), None)]);
        }),
        script("M10", "more_entries_of_strangers_than_are_kept", |pen| {
            let value = "s".repeat(900_000);
            let count = STRANGERS_BYTES_MAX / value.len() + 3;
            let (store, now_ms) = (pen.facts.store, pen.facts.now_ms);
            for number in 0..count {
                let seed = blake3::hash(&[b"stranger".as_slice(), &number.to_be_bytes()].concat());
                let key = Key(ed25519_dalek::SigningKey::from_bytes(seed.as_bytes()));
                let entry = key.sign(store, (1, None), now_ms, vec![put("/strangers", &value)]);
                pen.given.push(encoded(&entry));
            }
            pen.void.insert("/strangers".into());
        }),
        script("B10", "every_second_entry_only", |pen| {
            for number in 0..10 {
                pen.put(vec![put("/withheld", &number.to_string())]);
            }
            let kept = pen.given.iter().step_by(2).cloned().collect();
            pen.given = kept;
        }),
    ]
}
