//! Members against the data store, which is the default of everybody.

use lattice::protocol::{
    entry::Parent,
    membership::{
        genesis::Genesis,
        role::{Act, role_key},
    },
};

use super::{stores::listing, *};
use crate::support::model::{delete, put};

/// What a removed member wrote later counts nowhere in the data store, wherever it comes from.
#[tokio::test(flavor = "multi_thread")]
async fn m4_removal_speaks_of_the_data_store() {
    let field = Field::new().await;
    let raw = field.member(10, Role::Writer).await;
    let relay = field.member(11, Role::Writer).await;
    let (data, now_ms) = (field.a.node.data(), field.a.node.clock().now_ms());
    // Nobody has written there yet.
    field.a.node.remove(&raw.author()).await.unwrap();
    let key = role_key(&raw.author());
    let role = field.a.node.root().get(&key).await.unwrap().unwrap();
    let Some(Act::Remove(tips)) = Act::decode(&role.value) else {
        panic!("{role:?}");
    };
    assert!(tips.stores().contains(&data.id()), "{tips:?}");
    let late = raw.key.chain(data.id(), now_ms, 1, "/late");
    let own = relay.key.chain(data.id(), now_ms, 1, "/relayed");
    let connection = relay.connected(&field.a, SYNC).await;
    offer(&connection, data.id(), &late).await;
    offer(&connection, data.id(), &own).await;
    for peer in [&field.a, &field.b] {
        has(&peer.node.data(), "/relayed", "forged 1").await;
        let late = peer.node.data().get(b"/late").await.unwrap();
        assert!(late.is_none(), "{late:?}");
    }
    field.stop().await;
}

/// A member lists a store of its own as `data`, and writes lines about the data store itself: as a
/// writer, who may not, and as an admin, whose lines count in the root store.
#[tokio::test(flavor = "multi_thread")]
async fn n8_no_line_in_the_list_takes_the_data_store_away() {
    let field = Field::new().await;
    let (root, now_ms) = (field.a.node.root(), field.a.node.clock().now_ms());
    field.a.node.data().put("/kept", "1").await.unwrap();
    has(&field.b.node.data(), "/kept", "1").await;
    let data = field.a.node.data().id();
    let name = format!("/stores/{data}/name");
    for (number, role) in [(10, Role::Writer), (11, Role::Admin)] {
        let raw = field.member(number, role).await;
        let own = Genesis {
            creator: raw.author(),
            nonce: [number; 32],
        };
        let grant = root.heads(&role_key(&raw.author())).await.unwrap()[0].entry;
        let grant = Parent {
            author: grant.author,
            seq: grant.seq,
            hlc: grant.hlc,
            id: grant.id,
        };
        let mut ops = listing(&own, "data").to_vec();
        ops.push(put(&name, "mine now"));
        let mut entries: Vec<VerifiedEntry> = Vec::new();
        for ops in [ops, vec![delete(&name)]] {
            let header = Header {
                store: root.id(),
                seq: entries.len() as u64 + 1,
                prev: entries.last().map(|last| last.id),
                parents: vec![grant],
                atomic: ops.len() > 1,
                ..header(now_ms + 60_000 + entries.len() as u64)
            };
            entries.push(sign(&raw.key.0, header, ops).unwrap());
        }
        let connection = raw.connected(&field.a, SYNC).await;
        offer(&connection, root.id(), &entries).await;
        for peer in [&field.a, &field.b] {
            let theirs = own.store();
            until("the store is open", async || peer.node.open_store(&theirs)).await;
            let infos = peer.node.stores();
            let info = infos.iter().find(|info| info.id == theirs).unwrap();
            assert!(info.name.starts_with("store-") && !info.data, "{info:?}");
        }
        // The lines of the admin count; the list is followed until after them.
        until("both have them", async || {
            let heads = field.b.node.root().heads(name.as_bytes()).await.unwrap();
            let is_deleted = heads.iter().any(|head| head.wins && head.value.is_none());
            (is_deleted == (role == Role::Admin)).then_some(())
        })
        .await;
    }
    let info = field.a.node.create_store("after").await.unwrap();
    for peer in [&field.a, &field.b] {
        until("the list is followed", async || {
            peer.node.open_store(&info.id)
        })
        .await;
        let infos = peer.node.stores();
        assert_eq!((infos[1].name.as_str(), infos[1].id), ("data", data));
        assert_eq!(peer.node.data().id(), data);
        assert!(peer.node.data().get(b"/kept").await.unwrap().is_some());
        let files = peer.dir.path().join("stores").join(data.to_string());
        assert!(files.exists());
    }
    field.stop().await;
}
