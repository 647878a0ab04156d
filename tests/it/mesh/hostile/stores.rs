//! Members that list stores that nobody needs.

use std::collections::HashMap;

use lattice::{limits::STORES_OF_LISTER_MAX, protocol::membership::genesis::Genesis};

use super::*;

/// Genesis number `number` of `creator`.
fn genesis(creator: Author, number: u32) -> Genesis {
    let mut nonce = [7; 32];
    nonce[..4].copy_from_slice(&number.to_be_bytes());
    Genesis { creator, nonce }
}

/// The two keys that list a store.
pub fn listing(genesis: &Genesis, name: &str) -> [Op; 2] {
    let put = |key: Bytes, value: Bytes| Op::Put {
        key,
        value,
        expires_ms: None,
    };
    let name_key = format!("/stores/{}/name", genesis.store());
    [
        put(genesis.key(), genesis.encode()),
        put(name_key.into(), name.to_owned().into()),
    ]
}

/// Two stores whose ids begin with the same eight digits.
fn twins(creator: Author) -> [Genesis; 2] {
    let mut known = HashMap::new();
    for number in 0.. {
        let one = genesis(creator, number);
        let id = one.store().to_string();
        if let Some(other) = known.insert(id[..8].to_owned(), number) {
            return [genesis(creator, other), one];
        }
    }
    unreachable!("there are fewer beginnings than numbers")
}

#[tokio::test(flavor = "multi_thread")]
async fn n8_flood_of_listed_stores_is_opened_within_limits() {
    let field = Field::new().await;
    let (root, now_ms) = (field.a.node.root(), field.a.node.clock().now_ms());
    let raw = field.member(10, Role::Writer).await;
    let count = 200;
    let ops = (0..count).flat_map(|number| listing(&genesis(raw.author(), number), "junk"));
    let entry = raw.key.sign(root.id(), (1, None), now_ms, ops.collect());
    let connection = raw.connected(&field.a, SYNC).await;
    offer(&connection, root.id(), &[entry]).await;
    for peer in [&field.a, &field.b] {
        let left_out = count as usize - STORES_OF_LISTER_MAX;
        until("the limit is reached", async || {
            (peer.node.unopened().of_lister == left_out).then_some(())
        })
        .await;
        assert_eq!(peer.node.stores().len(), 2 + STORES_OF_LISTER_MAX);
    }

    eprintln!("N8 an honest store is opened all the same");
    let info = field.a.node.create_store("honest").await.unwrap();
    let there = until("b opens it", async || field.b.node.open_store(&info.id)).await;
    let here = field.a.node.open_store(&info.id).unwrap();
    here.put("/is", "carried").await.unwrap();
    has(&there, "/is", "carried").await;
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n8_store_that_cannot_be_opened_stops_no_other() {
    let field = Field::new().await;
    let (root, now_ms) = (field.a.node.root(), field.a.node.clock().now_ms());
    let raw = field.member(20, Role::Writer).await;
    let [one, other] = twins(raw.author());
    let broken = genesis(raw.author(), u32::MAX);
    let place = field
        .a
        .dir
        .path()
        .join("stores")
        .join(broken.store().to_string());
    std::fs::write(&place, "not a directory").unwrap();
    let names = [(&broken, "broken"), (&one, "root"), (&other, "root")];
    let ops = names
        .iter()
        .flat_map(|(genesis, name)| listing(genesis, name));
    let entry = raw.key.sign(root.id(), (1, None), now_ms, ops.collect());
    let connection = raw.connected(&field.a, SYNC).await;
    offer(&connection, root.id(), &[entry]).await;
    let info = field.a.node.create_store("honest").await.unwrap();
    for store in [one.store(), other.store(), info.id] {
        for peer in [&field.a, &field.b] {
            until("it is open", async || peer.node.open_store(&store)).await;
        }
    }
    let mut names = field.a.node.stores().into_iter().map(|info| info.name);
    let names: Vec<_> = names
        .by_ref()
        .filter(|name| name.starts_with("store-"))
        .collect();
    let short = |length: usize| format!("store-{}", &one.store().to_string()[..length]);
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.contains(&short(8)), "{names:?}");
    assert!(
        names.iter().all(|name| name.starts_with(&short(8))),
        "{names:?}"
    );
    let unopened = field.a.node.unopened();
    assert_eq!(
        (unopened.failed, unopened.of_lister),
        (1, 0),
        "{unopened:?}"
    );
    field.stop().await;
}
