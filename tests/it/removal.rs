//! A removal, and stores that hear of it late.

use std::collections::BTreeSet;

use lattice::{
    Node, NodeConfig, Store,
    id::{Author, StoreId},
    protocol::{
        entry::{Op, Parent, VerifiedEntry},
        frontier::FrontierTip,
        role::{Act, Role, Tips, role_key},
    },
    store::Ingested,
};

use crate::{
    model::{AUTHOR_A, AUTHOR_B},
    watch::Writer,
};

const NOW_MS: u64 = 1_700_000_000_000;

fn put(key: impl Into<bytes::Bytes>, value: impl Into<bytes::Bytes>) -> Op {
    Op::Put {
        key: key.into(),
        value: value.into(),
        expires_ms: None,
    }
}

async fn let_in(node: &Node, author: Author, role: Role) {
    let (secret, _expires_ms) = node.invite(role, 60_000).await.unwrap();
    node.redeem(&secret, author).await.unwrap();
}

async fn take_in(store: &Store, entry: &VerifiedEntry) {
    let taken = store.ingest(vec![entry.signed.encode().into()]).await;
    let taken = taken.unwrap();
    assert!(matches!(taken[..], [Ingested::Applied(_)]), "{taken:?}");
}

// Only the root store hears of it: without a net nobody tells the others before the next start.
async fn removal(root: &Store, admin: [u8; 32], of: Author, tip: (StoreId, FrontierTip)) {
    let mut admin = Writer::new(admin, root.id());
    let author = admin.author();
    let grant = root.heads(&role_key(&author)).await.unwrap();
    let grant = Parent {
        hlc: grant[0].entry.hlc,
        author: grant[0].entry.author,
        id: grant[0].entry.id,
        seq: grant[0].entry.seq,
    };
    let act = Act::Remove(Tips::new([tip]).unwrap()).encode();
    let ops = vec![put(role_key(&of), act)];
    let now_ms = root.now_ms() + 1;
    take_in(
        root,
        &admin.write(now_ms, ops, BTreeSet::from([grant]), false),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_closed_meanwhile_counts_what_is_left_when_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(NodeConfig::new(dir.path()).create(true)).await;
    let node = node.unwrap();
    let id = node.create_store("s").await.unwrap().id;
    let store = node.open_store(&id).unwrap();
    let mut removed = Writer::new(AUTHOR_B, id);
    let admin = Writer::new(AUTHOR_A, node.root().id()).author();
    let_in(&node, admin, Role::Admin).await;
    let_in(&node, removed.author(), Role::Writer).await;
    let first = removed.write(NOW_MS, vec![put("/k", "counts")], BTreeSet::new(), false);
    let heads = BTreeSet::from([first.as_parent()]);
    let second = removed.write(NOW_MS + 1, vec![put("/k", "late")], heads, false);
    take_in(&store, &first).await;
    take_in(&store, &second).await;
    let tip = FrontierTip {
        seq: 1,
        id: first.id,
    };
    removal(&node.root(), AUTHOR_A, removed.author(), (id, tip)).await;
    assert!(node.members().is_removed(&removed.author()));
    node.close().await.unwrap();
    drop((store, node));

    let node = Node::open(NodeConfig::new(dir.path())).await.unwrap();
    let store = node.open_store(&id).unwrap();
    let item = store.get(b"/k").await.unwrap().unwrap();
    assert_eq!(item.value.as_ref(), b"counts");
    assert_eq!(store.frontier().tips(&removed.author()), [tip]);
    node.close().await.unwrap();
}
