//! A display to trust: what a node reports of its peers is so, and is so within 2 s.

use super::{
    hostile::attacker::{Field, status_at, until},
    *,
};

/// No figure is older than this.
const SOON_SHOWN: Duration = Duration::from_secs(2);

async fn shows(what: &str, peer: &Peer, of: &Peer, is_so: impl Fn(&PeerStatus) -> bool) {
    let began = std::time::Instant::now();
    until(what, async || {
        is_so(&status_at(peer, &of.node.id())).then_some(())
    })
    .await;
    let took = began.elapsed();
    println!("{what} after {took:?}");
    assert!(took < SOON_SHOWN, "{what}: {took:?}");
}

// It was the time at which the connection began: "went at :30, says :06".
#[tokio::test(flavor = "multi_thread")]
async fn seen_is_when_a_peer_was_last_heard_of() {
    let Field { a, b, .. } = Field::new().await;
    let clock = a.node.clock();
    shows("it is online", &a, &b, |status| status.online).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let seen_ms = status_at(&a, &b.node.id()).seen_ms;
    assert!(seen_ms + 2000 > clock.now_ms(), "it is heard all the time");
    let author = b.node.id();
    let stops_ms = clock.now_ms();
    drop(b.stop().await);
    until("it is away", async || {
        (!status_at(&a, &author).online).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let seen_ms = status_at(&a, &author).seen_ms;
    assert!(seen_ms.abs_diff(stops_ms) < 1500, "{seen_ms} {stops_ms}");
    a.stop().await;
}

// It said "aborted by peer: the server refused to accept a new connection".
#[tokio::test(flavor = "multi_thread")]
async fn peer_that_stopped_cleanly_shows_no_error() {
    let Field { a, b, .. } = Field::new().await;
    let author = b.node.id();
    shows("it is online", &a, &b, |status| status.online).await;
    let dir = b.stop().await;
    let until_ms = std::time::Instant::now() + Duration::from_secs(4);
    while std::time::Instant::now() < until_ms {
        let status = status_at(&a, &author);
        assert_eq!(status.error, None, "{status:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!status_at(&a, &author).online);
    let b = Peer::at(dir, "b").await;
    until("it is back", async || {
        status_at(&a, &author).online.then_some(())
    })
    .await;
    a.stop().await;
    b.stop().await;
}

// After a restart a node was shown as behind until the next periodic exchange, 10 s and more.
#[tokio::test(flavor = "multi_thread")]
async fn lag_is_gone_once_all_is_in_step() {
    let Field { a, b, .. } = Field::new().await;
    let dir = b.stop().await;
    for value in ["1", "2", "3"] {
        a.node.root().put("/lag", value).await.unwrap();
    }
    let b = Peer::at(dir, "b").await;
    has(&b.node.root(), "/lag", "3").await;
    for (one, other) in [(&a, &b), (&b, &a)] {
        shows("it is in step", one, other, |status| {
            (status.behind, status.ahead) == (Some(0), Some(0))
        })
        .await;
    }
    // Entries of a store that was just made count, too.
    let info = a.node.create_store("new").await.unwrap();
    let store = a.node.open_store(&info.id).unwrap();
    store.put("/lag", "new").await.unwrap();
    let theirs = until("the store is there", async || b.node.open_store(&info.id)).await;
    has(&theirs, "/lag", "new").await;
    shows("it is in step again", &a, &b, |status| {
        (status.behind, status.ahead) == (Some(0), Some(0))
    })
    .await;
    drop((store, theirs));
    a.stop().await;
    b.stop().await;
}
