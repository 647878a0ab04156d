//! A member that forks its log without end.

use lattice::{limits::FORKS_MAX, store::Ingested};

use super::*;
use crate::support::model::put;

/// Waits until all have the same entries and heads, and `key` has a value or has none.
async fn agree(peers: &[&Peer], key: &str, has_value: bool) {
    until("all agree", async || {
        let mut hashes = std::collections::BTreeSet::new();
        for peer in peers {
            let root = peer.node.root();
            let item = root.get(key.as_bytes()).await.unwrap();
            if item.is_some() != has_value {
                return None;
            }
            hashes.insert((root.state_hash().await.unwrap(), root.frontier().hash().0));
        }
        (hashes.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b3_forks_without_end_count_nowhere_and_harm_nobody() {
    let field = Field::new().await;
    let c = Peer::new("c").await;
    c.join(&field.a, Role::Writer).await;
    let peers = [&field.a, &field.b, &c];
    let writer = field.member(60, Role::Writer).await;
    let (author, key) = (writer.author(), &writer.key);
    let (root, now_ms) = (field.a.node.root().id(), field.a.node.clock().now_ms());
    let first = key.sign(root, (1, None), now_ms, vec![put("/forked/trunk", "x")]);
    let mut branches = Vec::new();
    for number in 0..FORKS_MAX + 2 {
        let ops = vec![put(&format!("/forked/{number}"), "x")];
        branches.push(key.sign(root, (2, Some(first.id)), now_ms + 1, ops));
    }
    let give = async |peer: &Peer, given: &[VerifiedEntry]| {
        let given = [std::slice::from_ref(&first), given].concat();
        let root = peer.node.root();
        let taken = root.ingest(given.iter().map(encoded).collect()).await;
        let taken = taken.unwrap();
        let is_here = |it: &Ingested| matches!(it, Ingested::Applied(_) | Ingested::Duplicate(_));
        assert!(taken.iter().all(is_here), "{taken:?}");
    };
    // As many as an author may have.
    give(&field.a, &branches[..30]).await;
    give(&c, &branches[30..=FORKS_MAX]).await;
    field.still_works().await;
    for number in 0..=FORKS_MAX {
        has(&field.b.node.root(), &format!("/forked/{number}"), "x").await;
    }
    agree(&peers, "/forked/trunk", true).await;

    // One more, at one of them.
    give(&field.b, &branches[FORKS_MAX + 1..]).await;
    field.still_works().await;
    agree(&peers, "/forked/trunk", false).await;
    for peer in peers {
        assert_eq!(peer.node.members().role(&author), None);
        assert!(is(&writer.refusal(peer, SYNC).await, NOT_A_MEMBER));
        let forks = peer.node.root().status().await.forks;
        assert!(
            matches!(forks[..], [fork] if fork.spent && fork.proof.author == author),
            "{forks:?}"
        );
    }
    let c = c.restart().await;
    agree(&[&field.a, &field.b, &c], "/forked/trunk", false).await;

    // An admin removes it: what the admin has of it counts again, everywhere.
    field.a.node.remove(&author).await.unwrap();
    field.still_works().await;
    agree(&[&field.a, &field.b, &c], "/forked/trunk", true).await;
    for (peer, other) in [(&field.a, &c), (&c, &field.b), (&field.b, &field.a)] {
        assert_eq!(status_at(peer, &other.node.id()).strikes, 0);
    }
    c.stop().await;
    field.stop().await;
}
