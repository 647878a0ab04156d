//! The data store of a mesh: members that join have it from the start, and keep what they had.

use super::{hostile::attacker::until, *};
use lattice::node::{FormerRoot, OwnData};

fn names(peer: &Peer) -> Vec<String> {
    peer.node.stores().into_iter().map(|it| it.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_join_with_and_without_data() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    let (c, d) = (Peer::new("c").await, Peer::new("d").await);
    for peer in [&a, &c, &d] {
        peer.node.data().put("/own", "1").await.unwrap();
    }
    // Without data: nothing is left of its own mesh.
    let joined = b.join(&a, Role::Admin).await;
    assert_eq!(joined.former, FormerRoot::Dropped);
    assert_eq!(names(&b), ["root", "data"]);
    assert_eq!(
        std::fs::read_dir(b.dir.path().join("stores"))
            .unwrap()
            .count(),
        2
    );
    assert_eq!(b.node.data().id(), a.node.data().id());
    // The join has brought it.
    assert!(b.node.data().get(b"/own").await.unwrap().is_some());
    b.node.data().put("/from", "b").await.unwrap();
    has(&a.node.data(), "/from", "b").await;

    // With data that stays private, by way of the second node.
    let former = c.node.data().id();
    let joined = c.join_with(&b, Role::Admin, OwnData::Private).await;
    let kept = format!("data-{}", &former.to_string()[..8]);
    let expected = FormerRoot::Kept {
        name: kept.clone(),
        root: None,
        private: true,
    };
    assert_eq!(joined.former, expected);
    let c = c.restart().await;
    assert_eq!(names(&c), ["root", "data", &kept]);
    let own = c.node.store(&kept).unwrap();
    assert!(own.get(b"/own").await.unwrap().is_some());
    own.put("/more", "1").await.unwrap();
    c.node.data().put("/from", "c").await.unwrap();
    for peer in [&a, &b] {
        has(&peer.node.data(), "/from", "c").await;
        assert_eq!(names(peer), ["root", "data"]);
    }
    // It is shared later.
    c.node.share_store(&former).await.unwrap();
    for peer in [&a, &b] {
        let store = until("it is there", async || peer.node.open_store(&former)).await;
        has(&store, "/more", "1").await;
        assert_eq!(names(peer), ["root", "data", &kept]);
    }

    // With data that is shared at once.
    let former = d.node.data().id();
    let joined = d.join_with(&c, Role::Writer, OwnData::Shared).await;
    assert!(matches!(
        joined.former,
        FormerRoot::Kept {
            root: None,
            private: false,
            ..
        }
    ));
    let store = until("it is there", async || a.node.open_store(&former)).await;
    has(&store, "/own", "1").await;
    for peer in [a, b, c, d] {
        assert_eq!(
            peer.node.data().get(b"/own").await.unwrap().unwrap().value,
            "1"
        );
        peer.stop().await;
    }
}
