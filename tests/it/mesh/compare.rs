//! Comparisons: two members find out in one round trip that their states are equal, and which keys
//! differ if they are not.

use lattice::{
    id::Author,
    net::{CompareError, Compared, KeyDifference, PeerError},
    store::Write,
};

use super::*;
use crate::support::state_file::change_state;

async fn compare(peer: &Peer, other: Author, prefix: &str, most: usize) -> Compared {
    let root = peer.node.root();
    let prefix = Bytes::copy_from_slice(prefix.as_bytes());
    let comparing = async {
        loop {
            let compared = peer.net.compare(&root, &other, prefix.clone(), most).await;
            let Err(CompareError::Peer {
                why: PeerError::Connection { .. },
                ..
            }) = compared
            else {
                return compared.unwrap();
            };
            // The other node has just started, and does not take connections yet.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, comparing).await.unwrap()
}

fn names(found: &[KeyDifference]) -> Vec<String> {
    let names = found
        .iter()
        .map(|it| String::from_utf8(it.key.to_vec()).unwrap());
    names.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_states_take_one_round_trip() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Writer).await;
    let writes = (0..500).map(|number| Write::put(format!("/k/{number:04}"), "v"));
    for written in a.node.root().write_many(writes.collect()).await {
        written.unwrap();
    }
    has(&b.node.root(), "/k/0499", "v").await;
    for prefix in ["", "/k/", "/none/"] {
        let compared = compare(&a, b.node.id(), prefix, 10).await;
        assert!(compared.is_equal, "{compared:?}");
        assert_eq!(compared.round_trips, 1);
        println!("equal: {} bytes", compared.bytes);
        assert!(compared.bytes <= 250, "{} bytes", compared.bytes);
        assert_eq!(compared.here.root, compared.there.root);
    }
    a.stop().await;
    b.stop().await;
}

/// Ten rows of one node were changed behind its back: the other one finds exactly these.
#[tokio::test(flavor = "multi_thread")]
async fn differing_keys_are_found_in_few_round_trips() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Writer).await;
    let writes = (0..5000).map(|number| Write::put(format!("/k/{number:04}"), "v"));
    for written in a.node.root().write_many(writes.collect()).await {
        written.unwrap();
    }
    has(&b.node.root(), "/k/4999", "v").await;
    let store = b.node.root().id();
    let dir = b.stop().await;
    let changed: Vec<String> = (0..5000)
        .step_by(500)
        .map(|number| format!("/k/{number:04}"))
        .collect();
    change_state(dir.path(), &store, &changed);
    let b = Peer::at(dir, "").await;
    for (peer, other) in [(&a, b.node.id()), (&b, a.node.id())] {
        let compared = compare(peer, other, "", 100).await;
        assert_eq!(names(&compared.keys), changed);
        assert!(!compared.is_equal && !compared.more && compared.ranges.is_empty());
        println!(
            "{} round trips, {} bytes",
            compared.round_trips, compared.bytes
        );
        // The state, the levels of the tree, which differ from store to store, and the rows.
        assert!(compared.round_trips <= 8, "{}", compared.round_trips);
        assert!(compared.bytes <= 100_000, "{}", compared.bytes);
        assert_eq!(compared.here.frontier.hash(), compared.there.frontier);
        for found in &compared.keys {
            let there = found.there.as_ref().unwrap();
            assert_ne!(&found.here, there);
            assert_eq!(there.as_slice()[0].id, found.here.as_slice()[0].id);
        }
    }
    let few = compare(&a, b.node.id(), "", 3).await;
    assert_eq!((few.keys.len(), few.more), (3, true));
    let of_prefix = compare(&a, b.node.id(), "/k/1", 100).await;
    assert_eq!(names(&of_prefix.keys), ["/k/1000", "/k/1500"]);
    let equal = compare(&a, b.node.id(), "/k/11", 100).await;
    assert!(equal.is_equal, "other keys differ, these do not");
    assert_eq!(equal.round_trips, 1);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn comparison_with_nobody_is_a_typed_error() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Writer).await;
    let root = a.node.root();
    let stranger = Author([9; 32]);
    let refused = a.net.compare(&root, &stranger, Bytes::new(), 1).await;
    assert!(matches!(refused, Err(CompareError::Net(_))), "{refused:?}");
    // A store that the other one does not have.
    let dir = tempfile::tempdir().unwrap();
    let apart = Peer::at(dir, "apart").await;
    let (theirs, id) = (apart.node.root(), b.node.id());
    let refused = a.net.compare(&theirs, &id, Bytes::new(), 1).await;
    assert!(
        matches!(
            refused,
            Err(CompareError::Peer {
                why: PeerError::NoStore,
                ..
            })
        ),
        "{refused:?}"
    );
    b.stop().await;
    let refused = a.net.compare(&root, &id, Bytes::new(), 1).await;
    assert!(
        matches!(refused, Err(CompareError::Peer { .. })),
        "{refused:?}"
    );
    apart.stop().await;
    a.stop().await;
}
