//! Membership that changes: names, roles, private data, leaving, a removal that was missed, and
//! stores that are renamed and deleted.

use super::*;
use lattice::{
    id::StoreId,
    net::JoinError,
    node::{FormerRoot, MeshError, Node, NodeConfig, OwnData, StoreError, StoreInfo},
    protocol::membership::MembershipError,
    store::WriteError,
};

/// Waits until `is_true`.
async fn until(what: &str, mut is_true: impl AsyncFnMut() -> bool) {
    let waited = timeout(SOON, async {
        while !is_true().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within {SOON:?}: {what}");
}

/// Waits until `of` is called `name` on `on`.
async fn is_called(on: &Peer, of: &Peer, name: &str) {
    until(&format!("it is called {name}"), async || {
        let info = on.node.info(&of.node.id()).await.unwrap();
        info.is_some_and(|info| info.name == name)
    })
    .await;
}

fn named(peer: &Peer, name: &str) -> Option<StoreId> {
    peer.node.store(name).ok().map(|store| store.id())
}

#[tokio::test(flavor = "multi_thread")]
async fn joiner_keeps_its_name_and_a_reader_has_one() {
    let (a, b, c) = (
        Peer::new("attic").await,
        Peer::new("kitchen").await,
        Peer::new("cellar").await,
    );
    b.join(&a, Role::Writer).await;
    c.join(&a, Role::Reader).await;
    for on in [&a, &b, &c] {
        is_called(on, &a, "attic").await;
        is_called(on, &b, "kitchen").await;
        is_called(on, &c, "cellar").await;
    }
    // A restart without a name keeps it, one with a name changes it.
    let b = b.restart().await;
    assert_eq!(b.node.own_info().await.unwrap().name, "kitchen");
    let b = Peer::at(b.stop().await, "pantry").await;
    is_called(&a, &b, "pantry").await;
    for peer in [a, b, c] {
        peer.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_renames_and_raises_others() {
    let (a, b, c) = (
        Peer::new("a").await,
        Peer::new("b").await,
        Peer::new("c").await,
    );
    b.join(&a, Role::Reader).await;
    c.join(&a, Role::Writer).await;
    let (admin, reader, writer) = (a.node.id(), b.node.id(), c.node.id());
    assert!(matches!(
        b.node.root().put("/x", "1").await,
        Err(WriteError::Reader)
    ));
    assert!(matches!(
        b.node.rename(&reader, "bee").await,
        Err(MeshError::Write(WriteError::Reader))
    ));
    for refused in [
        c.node.rename(&reader, "bee").await,
        c.node.set_role(&reader, Role::Writer).await,
        c.node.set_role(&writer, Role::Admin).await,
    ] {
        assert!(
            matches!(
                refused,
                Err(MeshError::Membership(MembershipError::NotAdmin { .. }))
            ),
            "{refused:?}"
        );
    }
    a.node.rename(&reader, "bee").await.unwrap();
    a.node.set_role(&reader, Role::Writer).await.unwrap();
    is_called(&c, &b, "bee").await;
    until("it may write", async || {
        b.node.root().put("/x", "1").await.is_ok()
    })
    .await;
    has(&c.node.root(), "/x", "1").await;
    // It has this role already, and a stranger has none.
    assert!(matches!(
        a.node.set_role(&reader, Role::Writer).await,
        Err(MeshError::Membership(MembershipError::HasRole { .. }))
    ));
    let stranger = lattice::id::Author([9; 32]);
    assert!(matches!(
        a.node.set_role(&stranger, Role::Reader).await,
        Err(MeshError::NotAMember { .. })
    ));
    // The new admin can do what the first one can.
    a.node.set_role(&reader, Role::Admin).await.unwrap();
    until("it is an admin", async || {
        b.node.rename(&writer, "sea").await.is_ok()
    })
    .await;
    is_called(&a, &c, "sea").await;
    assert!(a.node.members().role(&admin).is_some());
    for peer in [a, b, c] {
        peer.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_a_joiner_stays_private_until_it_is_shared() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.node.root().put("/mine", "1").await.unwrap();
    let notes = b.node.create_store("notes").await.unwrap();
    let store = b.node.store("notes").unwrap();
    store.put("/n", "1").await.unwrap();
    drop(store);
    let joined = b.join_with(&a, Role::Writer, OwnData::Private).await;
    let FormerRoot::Kept { name, private, .. } = joined.former else {
        panic!("{:?}", joined.former);
    };
    assert!(private);
    a.node.root().put("/from", "a").await.unwrap();
    has(&b.node.root(), "/from", "a").await;
    // Both are read and written here, also after a restart, and are not known there.
    let b = b.restart().await;
    for (store, key) in [(name.as_str(), "/mine"), ("notes", "/n")] {
        let store = b.node.store(store).unwrap();
        let value = store.get(key.as_bytes()).await.unwrap().unwrap().value;
        assert_eq!(value, "1");
        store.put("/more", "2").await.unwrap();
    }
    b.node.root().put("/from", "b").await.unwrap();
    has(&a.node.root(), "/from", "b").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(a.node.stores().len(), 2);
    let listed = format!("/stores/{}/name", notes.id);
    assert!(
        a.node
            .root()
            .get(listed.as_bytes())
            .await
            .unwrap()
            .is_none()
    );
    let is_known = |info: &StoreInfo| info.root || info.data || info.private;
    assert!(b.node.stores().iter().all(is_known));
    // One of them is shared, and written on both sides.
    b.node.share_store(&notes.id).await.unwrap();
    assert!(matches!(
        b.node.share_store(&notes.id).await,
        Err(StoreError::NotPrivate { .. })
    ));
    until("the store is there", async || named(&a, "notes").is_some()).await;
    has(&a.node.store("notes").unwrap(), "/more", "2").await;
    a.node.store("notes").unwrap().put("/n", "a").await.unwrap();
    has(&b.node.store("notes").unwrap(), "/n", "a").await;
    assert_eq!(a.node.stores().len(), 3);
    // A private store is renamed and deleted here alone.
    let former = named(&b, &name).unwrap();
    b.node.rename_store(&former, "old").await.unwrap();
    b.node.delete_store(&former).await.unwrap();
    let b = b.restart().await;
    assert_eq!(b.node.stores().len(), 3);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_a_joiner_can_be_discarded() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.node.root().put("/mine", "1").await.unwrap();
    b.node.create_store("notes").await.unwrap();
    let joined = b.join_with(&a, Role::Writer, OwnData::Discarded).await;
    assert_eq!(joined.former, FormerRoot::Discarded { stores: 3 });
    let b = b.restart().await;
    assert_eq!(b.node.stores().len(), 2);
    let stores = b.dir.path().join("stores");
    assert_eq!(std::fs::read_dir(stores).unwrap().count(), 2);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_shares_nothing_when_it_joins() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.node.root().put("/mine", "1").await.unwrap();
    let joined = b.join_with(&a, Role::Reader, OwnData::Shared).await;
    assert!(matches!(
        joined.former,
        FormerRoot::Kept { private: true, .. }
    ));
    a.stop().await;
    b.stop().await;
}

/// Removed by the member that it does not meet again.
#[tokio::test(flavor = "multi_thread")]
async fn node_removed_while_away_learns_it() {
    let (a, b, c) = (
        Peer::new("a").await,
        Peer::new("b").await,
        Peer::new("c").await,
    );
    b.join(&a, Role::Admin).await;
    c.join(&a, Role::Writer).await;
    has(
        &c.node.root(),
        &format!("/nodes/{}/status", b.node.id()),
        "active",
    )
    .await;
    let gone = c.node.id();
    let c_dir = c.stop().await;
    // By a node that became an admin after `c` was last here would be the same.
    b.node.remove(&gone).await.unwrap();
    until("the other admin knows", async || {
        a.node.members().is_removed(&gone)
    })
    .await;
    b.stop().await;
    let c = Peer::at(c_dir, "").await;
    until("it knows", async || c.node.removed_by().is_some()).await;
    assert!(matches!(
        c.node.root().put("/x", "1").await,
        Err(WriteError::Removed)
    ));
    // Joining the same mesh with the same key cannot work, and is refused before anything is done.
    let invitation = a.net.invite(Role::Writer, 60_000).await.unwrap();
    let (events, _told) = mpsc::channel(16);
    let refused = c.net.join(&invitation, OwnData::Private, &events).await;
    assert!(matches!(refused, Err(JoinError::Removed)), "{refused:?}");
    a.stop().await;
    c.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_leaves_is_gone_for_all_and_can_join_another_mesh() {
    let (a, b, c) = (
        Peer::new("a").await,
        Peer::new("b").await,
        Peer::new("c").await,
    );
    b.join(&a, Role::Writer).await;
    b.node.root().put("/b", "1").await.unwrap();
    has(&a.node.root(), "/b", "1").await;
    assert!(matches!(
        a.node.leave().await,
        Err(MeshError::Membership(MembershipError::LastAdmin { .. }))
    ));
    b.node.leave().await.unwrap();
    until("the other node knows", async || {
        a.node.members().is_removed(&b.node.id())
    })
    .await;
    assert_eq!(b.node.removed_by(), Some(b.node.id()));
    assert!(matches!(
        b.node.root().put("/b", "2").await,
        Err(WriteError::Removed)
    ));
    has(&a.node.root(), "/b", "1").await;
    // The data of the mesh that it has left stays here, and goes nowhere.
    let joined = b.join_with(&c, Role::Writer, OwnData::Private).await;
    let FormerRoot::Kept { name, private, .. } = joined.former else {
        panic!("{:?}", joined.former);
    };
    assert!(private);
    b.node.root().put("/b", "new").await.unwrap();
    has(&c.node.root(), "/b", "new").await;
    let kept = b.node.store(&name).unwrap().get(b"/b").await.unwrap();
    assert_eq!(kept.unwrap().value, "1");
    assert_eq!(c.node.stores().len(), 2);
    for peer in [a, b, c] {
        peer.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_are_renamed_and_deleted_for_all() {
    let (a, b, c) = (
        Peer::new("a").await,
        Peer::new("b").await,
        Peer::new("c").await,
    );
    b.join(&a, Role::Writer).await;
    c.join(&a, Role::Writer).await;
    let notes = b.node.create_store("notes").await.unwrap().id;
    for peer in [&a, &c] {
        until("the store is there", async || {
            named(peer, "notes").is_some()
        })
        .await;
    }
    c.node.store("notes").unwrap().put("/k", "c").await.unwrap();
    has(&a.node.store("notes").unwrap(), "/k", "c").await;
    // Neither its founder nor an admin.
    for refused in [
        c.node.rename_store(&notes, "mine").await.map(drop),
        c.node.delete_store(&notes).await,
    ] {
        assert!(matches!(refused, Err(StoreError::NotFounder { .. })));
    }
    let root = b.node.root().id();
    assert!(matches!(
        b.node.delete_store(&root).await,
        Err(StoreError::Root)
    ));
    b.node.rename_store(&notes, "diary").await.unwrap();
    for peer in [&a, &b, &c] {
        until("it is renamed", async || {
            named(peer, "diary") == Some(notes)
        })
        .await;
    }
    // One member is away meanwhile.
    let c_dir = c.stop().await;
    a.node.delete_store(&notes).await.unwrap();
    let c = Peer::at(c_dir, "").await;
    for peer in [&a, &b, &c] {
        until("it is deleted", async || named(peer, "diary").is_none()).await;
        let dir = peer.dir.path().join("stores").join(notes.to_string());
        until("its files are deleted", async || !dir.exists()).await;
    }
    // The founder does not list it again when it starts, and the name is free.
    let b = b.restart().await;
    b.node.create_store("diary").await.unwrap();
    until("the new one is there", async || {
        named(&c, "diary").is_some()
    })
    .await;
    assert_ne!(named(&c, "diary"), Some(notes));
    for peer in [a, b, c] {
        peer.stop().await;
    }
}

/// A private store stays private when `meta.db` is lost.
#[tokio::test(flavor = "multi_thread")]
async fn private_stores_survive_a_lost_meta_db() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.node.root().put("/mine", "1").await.unwrap();
    let notes = b.node.create_store("notes").await.unwrap().id;
    b.join_with(&a, Role::Writer, OwnData::Private).await;
    let former: Vec<_> = b.node.stores().iter().map(|info| info.id).collect();
    let root = b.node.root().id();
    let dir = b.stop().await;
    std::fs::remove_file(dir.path().join("meta.db")).unwrap();
    let b = Peer::at(dir, "").await;
    let stores = b.node.stores();
    assert_eq!(b.node.root().id(), root);
    assert_eq!(stores.len(), former.len());
    let is_known = |info: &StoreInfo| info.root || info.data || info.private;
    assert!(stores.iter().all(is_known));
    assert_eq!(named(&b, "notes"), Some(notes));
    // The addresses of the others were in the file, too.
    let addresses = a.net.addresses().unwrap();
    b.net.connect(&a.node.id(), addresses).await.unwrap();
    b.node.root().put("/from", "b").await.unwrap();
    has(&a.node.root(), "/from", "b").await;
    assert_eq!(a.node.stores().len(), 2);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lowered_node_loses_the_rights_and_keeps_the_rest() {
    let (a, b, c) = (
        Peer::new("a").await,
        Peer::new("b").await,
        Peer::new("c").await,
    );
    b.join(&a, Role::Admin).await;
    c.join(&a, Role::Writer).await;
    let (admin, writer) = (b.node.id(), c.node.id());
    until("it knows of the writer", async || {
        b.node.rename(&writer, "sea").await.is_ok()
    })
    .await;
    b.node.root().put("/early", "1").await.unwrap();
    for peer in [&a, &c] {
        has(&peer.node.root(), "/early", "1").await;
        is_called(peer, &c, "sea").await;
    }
    assert!(matches!(
        a.node.set_role(&a.node.id(), Role::Writer).await,
        Err(MeshError::Membership(MembershipError::LowersItself))
    ));

    // To writer: it writes on, and what it did as an admin holds.
    a.node.set_role(&admin, Role::Writer).await.unwrap();
    until("its acts are refused", async || {
        let renamed = b.node.rename(&writer, "lake").await;
        matches!(
            renamed,
            Err(MeshError::Membership(MembershipError::NotAdmin { .. }))
        )
    })
    .await;
    b.node.root().put("/writes", "1").await.unwrap();
    has(&c.node.root(), "/writes", "1").await;
    is_called(&a, &c, "sea").await;

    // To reader, while it is away and writes on: only what the admin had counts.
    let dir = b.stop().await;
    a.node.set_role(&admin, Role::Reader).await.unwrap();
    let alone = Node::open(NodeConfig::new(dir.path())).await.unwrap();
    alone.root().put("/late", "1").await.unwrap();
    alone.close().await.unwrap();
    drop(alone);
    let b = Peer::at(dir, "b").await;
    a.node.root().put("/news", "1").await.unwrap();
    has(&b.node.root(), "/news", "1").await;
    for peer in [&a, &b, &c] {
        let root = peer.node.root();
        until("the late value is gone", async || {
            root.get(b"/late").await.unwrap().is_none()
        })
        .await;
        has(&root, "/early", "1").await;
        has(&root, "/writes", "1").await;
        assert_eq!(peer.node.members().role(&admin), Some(Role::Reader));
        assert_eq!(peer.node.removed_by(), None);
    }
    assert!(matches!(
        b.node.root().put("/more", "1").await,
        Err(WriteError::Reader)
    ));
    assert!(matches!(
        a.node.set_role(&admin, Role::Writer).await,
        Err(MeshError::Membership(MembershipError::Lowered { .. }))
    ));
    for peer in [a, b, c] {
        peer.stop().await;
    }
}
